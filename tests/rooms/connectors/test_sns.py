"""What SNS posts is believed by its signature, and its subscriptions are confirmed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rooms.connectors.support import sample
from tests.support.sns import Sns
from tocsin.connectors.sns import SnsMessages
from tocsin.kernel.errors import Refusal, Retry

URL = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1a2b.pem"


class Web:
    """Answers what it holds and remembers what was asked for; other addresses are away."""

    def __init__(self, **pages: bytes) -> None:
        self.pages: dict[str, bytes] = dict(pages)
        self.asked: list[str] = []

    def get(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.pages:
            raise Retry("away")
        return self.pages[url]


@pytest.fixture(scope="module")
def sns() -> Sns:
    return Sns(URL)


@pytest.fixture
def web(sns: Sns) -> Web:
    made = Web()
    made.pages[URL] = sns.certificate
    return made


def message(case: str) -> dict[str, Any]:
    return dict(sample("aws_sns", case)["body"])


@pytest.mark.parametrize("case", ["alarm", "text", "confirmation"])
@pytest.mark.parametrize("version", ["1", "2"])
def test_what_sns_signed_passes_and_its_certificate_is_asked_for_once(
    case: str, version: str, sns: Sns, web: Web
) -> None:
    signatures = SnsMessages(fetch=web.get)
    for _ in range(3):
        signatures.check(sns.signed(message(case), version))
    assert web.asked == [URL]


@pytest.mark.parametrize("name", ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"])
def test_a_changed_message_does_not(name: str, sns: Sns, web: Web) -> None:
    signed = sns.signed({**message("alarm"), "Subject": "ALARM"})
    with pytest.raises(Refusal, match="does not fit"):
        SnsMessages(fetch=web.get).check({**signed, name: "another"})


@pytest.mark.parametrize(
    "changed",
    [
        {"Signature": None},
        {"Signature": "no base64!"},
        {"SignatureVersion": "3"},
        {"SignatureVersion": ["1"]},
        {"SigningCertURL": None},
        {"SigningCertURL": "http://sns.eu-central-1.amazonaws.com/a.pem"},
        {"SigningCertURL": "https://sns.eu-central-1.amazonaws.com.evil.example/a.pem"},
        {"SigningCertURL": "https://evil.example/sns.eu-central-1.amazonaws.com/a.pem"},
        {"SigningCertURL": "https://sns.eu-central-1.amazonaws.com@evil.example/a.pem"},
        {"SigningCertURL": "https://sns.eu-central-1.amazonaws.com:8443/a.pem"},
        {"SigningCertURL": "https://s3.amazonaws.com/a.pem"},
        {"SigningCertURL": "https://sns.eu-central-1.amazonaws.com/"},
        {"SigningCertURL": "https://[sns/a.pem"},
    ],
)
def test_what_proves_nothing_is_refused_without_asking_anybody(changed: dict[str, Any], sns: Sns, web: Web) -> None:
    with pytest.raises(Refusal) as refused:
        SnsMessages(fetch=web.get).check({**sns.signed(message("alarm")), **changed})
    assert refused.value.code == "ERR_SIG_INVALID"
    assert web.asked == [] or "Signature" in changed


@pytest.mark.parametrize("value", [None, [], "text", {}])
def test_what_is_no_message_is_refused(value: Any) -> None:
    with pytest.raises(Refusal):
        SnsMessages().check(value)


def test_no_certificate_now_is_asked_for_again_later(sns: Sns, web: Web) -> None:
    signed, held = sns.signed(message("alarm")), web.pages.pop(URL)
    signatures = SnsMessages(fetch=web.get)
    with pytest.raises(Retry):
        signatures.check(signed)
    web.pages[URL] = b"not a certificate"
    with pytest.raises(Refusal, match="no certificate"):
        signatures.check(signed)
    web.pages[URL] = held
    signatures.check(signed)


def test_a_subscription_is_confirmed_at_sns_and_nowhere_else(web: Web) -> None:
    asked = message("confirmation")
    web.pages[asked["SubscribeURL"]] = b"<ConfirmSubscriptionResponse/>"
    signatures = SnsMessages(fetch=web.get)
    assert signatures.confirm(asked)
    assert not signatures.confirm({**asked, "SubscribeURL": "https://evil.example/?Action=ConfirmSubscription"})
    assert not signatures.confirm({**asked, "SubscribeURL": "https://sns.us-east-1.amazonaws.com/away"})
    assert not signatures.confirm(message("alarm"))
    assert web.asked == [asked["SubscribeURL"], "https://sns.us-east-1.amazonaws.com/away"]
