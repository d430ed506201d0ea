"""One signed post through the egress guard: resolved once, pinned, no redirects followed, fresh signature
each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from tocsin.delivery import egress, signing
from tocsin.delivery.channels import SecretOf
from tocsin.delivery.egress import Resolve, Response, Target
from tocsin.delivery.model import Channel
from tocsin.delivery.ports import SendResult
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal, Retry

#: After a rotation deliveries carry signatures of the new and the old secret for this long.
OVERLAP_MS: Final = clock.DAY
_CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"

Post = Callable[[Target, bytes, Mapping[str, str]], Response]


@dataclass(frozen=True, slots=True)
class SignedWebhooks:
    """Implements WebhookSender. `allow` holds the (host, port) pairs that may be private."""

    secret_of: SecretOf
    allow: Collection[tuple[str, int]] = ()
    resolve: Resolve = egress.resolve_dns
    post: Post = egress.post

    def check_url(self, url: str) -> None:
        """Refuses ERR_EGRESS_DENIED for an address that a channel may not have."""
        egress.check(url, self.resolve, self.allow)

    def send(self, channel: Channel, message_id: str, body: bytes, now: int) -> SendResult:
        started = time.perf_counter()
        try:
            target = egress.check(channel.url or "", self.resolve, self.allow)
            answer = self.post(target, body, self._headers(channel, message_id, body, now))
        except Refusal as refusal:
            # Names change: an address refused today may be right tomorrow, so this counts as a failed
            # attempt.
            return SendResult(0, refusal.message[:200], ms=_ms(started))
        except Retry as failure:
            return SendResult(0, failure.reason[:200], ms=_ms(started))
        error = None if 200 <= answer.status < 300 else f"status {answer.status}"
        return SendResult(answer.status, error, retry_after_s(answer.headers, now), _ms(started))

    def _headers(self, channel: Channel, message_id: str, body: bytes, now: int) -> dict[str, str]:
        versions = [channel.secret_version]
        if channel.rotated_at is not None and now - channel.rotated_at < OVERLAP_MS:
            versions.append(channel.secret_version - 1)
        secrets = [self.secret_of(channel.id, version) for version in versions if version > 0]
        signed = signing.sign(secrets, message_id, now // 1000, body)
        return {"content-type": _CONTENT_TYPE, "user-agent": "tocsin", **signed}


def retry_after_s(headers: Mapping[str, str], now: int) -> int | None:
    """Seconds of a Retry-After header (RFC 9110 §10.2.3: seconds or a date); None without a usable one."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return int(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0, int(at.timestamp()) - now // 1000)


def _ms(started: float) -> int:
    return int((time.perf_counter() - started) * 1000)
