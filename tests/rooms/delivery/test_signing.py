import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from tocsin.delivery.signing import WebhookVerificationError, channel_secret, secret_bytes, sign, verify

MASTER = bytes(range(32))
SECRET, OLD, OTHER = (
    channel_secret(MASTER, "chn_a", 2),
    channel_secret(MASTER, "chn_a", 1),
    channel_secret(MASTER, "chn_b", 2),
)
NOW = 1_700_000_000
BODY = '{"type":"incident.opened","title":"ü"}'.encode()
SIGNED = sign([SECRET], "msg_1", NOW, BODY)


def test_known_answer_of_the_specification() -> None:
    """The vector that the reference libraries test with."""
    headers = sign(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_differ_by_channel_and_version_and_are_stable() -> None:
    assert len({SECRET, OLD, OTHER, channel_secret(MASTER[::-1], "chn_a", 2)}) == 4
    assert channel_secret(MASTER, "chn_a", 2) == SECRET
    assert len(secret_bytes(SECRET)) == 32
    for master, version in ((b"short", 1), (MASTER, 0)):
        with pytest.raises(ValueError, match=r"must hold|count from"):
            channel_secret(master, "chn_a", version)


def test_what_is_signed_verifies() -> None:
    assert verify([SECRET], SIGNED, BODY, NOW) == "msg_1"
    assert verify([SECRET], {name.title(): value for name, value in SIGNED.items()}, BODY, NOW + 300) == "msg_1"


def test_rotation_is_accepted_with_either_secret_on_either_side() -> None:
    both = sign([SECRET, OLD], "msg_1", NOW, BODY)
    assert len(both["webhook-signature"].split(" ")) == 2
    for known in ([SECRET], [OLD], [OTHER, OLD]):
        assert verify(known, both, BODY, NOW) == "msg_1"
    assert verify([OLD, SECRET], SIGNED, BODY, NOW) == "msg_1"


def test_the_reference_library_agrees() -> None:
    at = int(datetime.now(UTC).timestamp())
    ours = sign([SECRET, OLD], "msg_1", at, BODY)
    for secret in (SECRET, OLD):
        assert Webhook(secret).verify(BODY, ours)["title"] == "ü"
    theirs = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(at, UTC), BODY.decode())
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": theirs}
    assert verify([SECRET], headers, BODY, at) == "msg_1"
    assert sign([SECRET], "msg_1", at, BODY)["webhook-signature"] == theirs


GOOD = SIGNED["webhook-signature"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-timestamp", value)
        for value in ("1.7e9", f" {NOW} ", "1_700_000_000", f"{NOW}.5", f"+{NOW}", f"-{NOW}", "", "0", "nan")
    ]
    + [
        ("webhook-timestamp", value)
        for value in (f"0{NOW}", "1７00000000", "9" * 13, f"{NOW}\n", str(NOW - 301), str(NOW + 301))
    ]
    + [
        ("webhook-signature", value)
        for value in ("", GOOD[3:], GOOD.replace("v1", "V1"), GOOD.replace("v1", "v1a"), GOOD + " ")
    ]
    + [
        ("webhook-signature", value)
        for value in (f"{GOOD[:10]}\n{GOOD[10:]}", f"{GOOD[:10]}!{GOOD[10:]}", GOOD.rstrip("="), GOOD + "=")
    ]
    + [
        ("webhook-signature", value)
        for value in (" ".join([GOOD] * 1000), " ".join([GOOD] * 9), f"{GOOD},{GOOD}", f"{GOOD} junk")
    ]
    + [("webhook-id", value) for value in ("", "msg_2", "msg.1", "msg 1", "msg_1\n", "m" * 257, "mśg")],
)
def test_tampered_or_sloppy_headers_are_refused(name: str, value: str) -> None:
    with pytest.raises(WebhookVerificationError):
        verify([SECRET], {**SIGNED, name: value}, BODY, NOW)


@pytest.mark.parametrize("name", list(SIGNED))
def test_missing_or_repeated_headers_are_refused(name: str) -> None:
    with pytest.raises(WebhookVerificationError, match="missing"):
        verify([SECRET], {key: value for key, value in SIGNED.items() if key != name}, BODY, NOW)
    with pytest.raises(WebhookVerificationError, match="repeated"):
        verify([SECRET], {**SIGNED, name.upper(): SIGNED[name]}, BODY, NOW)


def test_other_bodies_and_other_endpoints_are_refused() -> None:
    for secret, body in ((SECRET, BODY + b" "), (OTHER, BODY), (OLD, BODY)):
        with pytest.raises(WebhookVerificationError, match="no signature"):
            verify([secret], SIGNED, body, NOW)


def test_signatures_of_other_versions_are_passed_over() -> None:
    mixed = {**SIGNED, "webhook-signature": f"v1a,{'A' * 86}== {GOOD}"}
    assert verify([SECRET], mixed, BODY, NOW) == "msg_1"
    with pytest.raises(WebhookVerificationError, match="no signature"):
        verify([SECRET], {**SIGNED, "webhook-signature": f"v1a,{'A' * 86}=="}, BODY, NOW)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_QQ==",
        SECRET[6:],
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        SECRET + "\n",
        SECRET[:20] + "!" + SECRET[20:],
        SECRET.rstrip("="),
        "whsec_é" + SECRET[7:],
        SECRET[:-2] + "B=",
    ],
)
def test_short_or_malformed_secrets_are_refused(secret: str) -> None:
    with pytest.raises(ValueError, match=r"whsec_|bytes"):
        sign([secret], "msg_1", NOW, BODY)
    with pytest.raises(ValueError, match=r"whsec_|bytes"):
        verify([secret], SIGNED, BODY, NOW)


def test_what_cannot_be_signed_is_refused() -> None:
    for secrets, message_id, at in (
        ([], "m", NOW),
        ([SECRET] * 9, "m", NOW),
        ([SECRET], "a.b", NOW),
        ([SECRET], "m", 0),
    ):
        with pytest.raises(ValueError, match=r"sign with|message id|Unix"):
            sign(secrets, message_id, at, BODY)
    with pytest.raises(ValueError, match="at least one"):
        verify([], SIGNED, BODY, NOW)
