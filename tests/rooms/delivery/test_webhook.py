"""The signed post: what receivers verify, two secrets while one is rotated out, and trouble told as a
result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from tests.support.delivery_fakes import webhook
from tocsin.delivery import signing
from tocsin.delivery.egress import Response, Target
from tocsin.delivery.webhook import OVERLAP_MS, SignedWebhooks, retry_after_s
from tocsin.kernel.errors import Refusal, Retry

NOW = 1_800_000_000_000
MASTER = b"m" * 32
BODY = b'{"id":"msg_1"}'


def _secret(channel_id: str, version: int) -> str:
    return signing.channel_secret(MASTER, channel_id, version)


class Wire:
    """Resolver and connection in memory; `answer` is what the receiver says."""

    def __init__(
        self,
        answer: Response | Exception | None = None,
        addresses: Sequence[str] = ("93.184.215.14",),
    ) -> None:
        self.answer, self.addresses = answer or Response(200, {}, b""), addresses
        self.posts: list[tuple[Target, bytes, Mapping[str, str]]] = []

    def resolve(self, host: str, port: int) -> Sequence[str]:
        return self.addresses

    def post(self, target: Target, body: bytes, headers: Mapping[str, str]) -> Response:
        self.posts.append((target, body, headers))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def sender(self) -> SignedWebhooks:
        return SignedWebhooks(_secret, resolve=self.resolve, post=self.post)


def test_receivers_can_verify_and_nothing_is_missing() -> None:
    wire = Wire()
    assert wire.sender().send(webhook(), "msg_1", BODY, NOW).ok
    ((target, body, headers),) = wire.posts
    assert (target.host, target.address, target.tls) == ("hooks.example", "93.184.215.14", True)
    assert signing.verify([_secret("chn_ops", 1)], headers, body, NOW // 1000) == "msg_1"
    assert headers["content-type"].startswith("application/cloudevents+json")


def test_each_attempt_is_signed_for_its_time() -> None:
    wire = Wire()
    for at in (NOW, NOW + 3_600_000):
        wire.sender().send(webhook(), "msg_1", BODY, at)
    stamps = [(h["webhook-id"], h["webhook-timestamp"]) for _, _, h in wire.posts]
    assert stamps == [("msg_1", str(NOW // 1000)), ("msg_1", str(NOW // 1000 + 3600))]


@pytest.mark.parametrize(("age", "old_works"), [(0, True), (OVERLAP_MS - 1, True), (OVERLAP_MS, False)])
def test_old_and_new_secret_work_during_the_overlap_only(age: int, old_works: bool) -> None:
    wire = Wire()
    channel = replace(webhook(), secret_version=2, rotated_at=NOW - age)
    wire.sender().send(channel, "msg_1", BODY, NOW)
    ((_, body, headers),) = wire.posts
    signing.verify([_secret("chn_ops", 2)], headers, body, NOW // 1000)
    if old_works:
        signing.verify([_secret("chn_ops", 1)], headers, body, NOW // 1000)
    else:
        with pytest.raises(signing.WebhookVerificationError):
            signing.verify([_secret("chn_ops", 1)], headers, body, NOW // 1000)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_failures_and_never_followed(status: int) -> None:
    wire = Wire(Response(status, {"location": "http://169.254.169.254/latest"}, b""))
    result = wire.sender().send(webhook(), "msg_1", BODY, NOW)
    assert (result.ok, result.status) == (False, status)
    assert len(wire.posts) == 1


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("93.184.215.14", "10.0.0.1"), ("169.254.169.254",), ()])
def test_a_name_that_leads_inside_is_not_contacted(addresses: tuple[str, ...]) -> None:
    wire = Wire(addresses=addresses)
    result = wire.sender().send(webhook(), "msg_1", BODY, NOW)
    assert (result.ok, result.status, wire.posts) == (False, 0, [])
    with pytest.raises(Refusal) as refused:
        wire.sender().check_url("https://hooks.example/in")
    assert refused.value.code == "ERR_EGRESS_DENIED"


def test_no_answer_is_a_failed_attempt() -> None:
    result = Wire(Retry("no answer: timeout")).sender().send(webhook(), "msg_1", BODY, NOW)
    assert (result.ok, result.status, result.error) == (False, 0, "no answer: timeout")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 120),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after(text: str, seconds: int | None) -> None:
    assert retry_after_s({"retry-after": text}, NOW) == seconds
    assert (
        Wire(Response(503, {"retry-after": text}, b"")).sender().send(webhook(), "m", BODY, NOW).retry_after_s
        == seconds
    )
