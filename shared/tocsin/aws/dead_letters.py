"""Dead-letter queues: what lies there, and sending it back in bounded batches.

Sending back means receive, send, delete: a message may come twice when that is cut short, never not at all,
and every consumer takes a repeat as a duplicate. (StartMessageMoveTask would do it in the service, but not
every platform has it.)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tocsin.kernel import clock, envelope, ids
from tocsin.kernel.errors import Refusal

#: Most messages SQS hands out at once.
PAGE: Final = 10
#: Seconds a listed message stays hidden from others while the list is made.
_PEEK_S: Final = 10
#: Seconds a message that is being sent back stays hidden: two replays at once do not take the same one.
_REPLAY_S: Final = 60
_GIVEN_BACK: Final = "given back each time: see the worker's log"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that was given up. `sent_at` is Unix ms of its first sending; `kind` and `reason` are
    estimates.
    """

    message_id: str
    sent_at: int
    receives: int
    bytes: int
    kind: str
    project: str
    trace_id: str
    reason: str


def dead_letter_url(sqs: Any, queue_url: str) -> str:
    """Address of the dead-letter queue that a queue's redrive policy names. Raises LookupError when it has
    none.
    """
    answer = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["RedrivePolicy"])
    policy = json.loads(answer.get("Attributes", {}).get("RedrivePolicy") or "{}")
    arn = policy.get("deadLetterTargetArn")
    if not arn:
        raise LookupError(f"{queue_url.rpartition('/')[2]} has no dead-letter queue")
    return f"{queue_url.rpartition('/')[0]}/{arn.rpartition(':')[2]}"


class DeadLetters:
    """The dead letters of one work queue.

    `envelope_key` lets a listing tell unauthentic messages from those a worker could not handle; None leaves
    that out.
    """

    def __init__(self, sqs: Any, queue_url: str, envelope_key: bytes | None = None) -> None:
        self._sqs = sqs
        self._source = queue_url
        self._dead = dead_letter_url(sqs, queue_url)
        self._key = envelope_key

    def depth(self) -> int:
        """Messages in the queue, in hand or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=self._dead, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def peek(self, limit: int = 50) -> list[DeadLetter]:
        """Up to `limit` messages, oldest first; all are visible again afterwards. Bodies are looked at, never
        shown.
        """
        seen: dict[str, dict[str, Any]] = {}
        try:
            for page in self._pages(limit, _PEEK_S):
                fresh = [message for message in page if message["MessageId"] not in seen]
                if not fresh:
                    break
                seen |= {message["MessageId"]: message for message in fresh}
        finally:
            self._let_go(list(seen.values()))
        return sorted((self._described(one) for one in seen.values()), key=lambda one: one.sent_at)

    def replay(
        self,
        limit: int,
        per_second: float = 50.0,
        pause: Callable[[float], None] = time.sleep,
        sent_before: int | None = None,
    ) -> int:
        """Send up to `limit` messages back to their queue, at most `per_second` of them; returns how many
        were sent. With `sent_before` (Unix ms) only those that their sender had sent by then: a replay sends anew, so
        what it sent is not among them.
        """
        sent = 0
        for page in self._pages(limit, _REPLAY_S):
            wanted = [one for one in page if sent_before is None or _sent_at(one) < sent_before]
            taken = self._send_back(wanted) if wanted else set()
            sent += len(taken)
            self._let_go([one for one in page if one["MessageId"] not in taken])
            if len(taken) < len(page):
                return sent
            if sent < limit:
                pause(len(page) / per_second)
        return sent

    def _pages(self, limit: int, hidden_s: int) -> Iterator[list[dict[str, Any]]]:
        left = limit
        while left > 0:
            answer = self._sqs.receive_message(
                QueueUrl=self._dead,
                MaxNumberOfMessages=min(PAGE, left),
                VisibilityTimeout=hidden_s,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            page = answer.get("Messages", [])
            if not page:
                return
            left -= len(page)
            yield page

    def _send_back(self, page: Sequence[dict[str, Any]]) -> set[str]:
        """Ids of the messages that the source queue took; those are gone from here."""
        entries = [{"Id": str(i), "MessageBody": message["Body"]} for i, message in enumerate(page)]
        answer = self._sqs.send_message_batch(QueueUrl=self._source, Entries=entries)
        taken = [page[int(entry["Id"])] for entry in answer.get("Successful", ())]
        if taken:
            self._sqs.delete_message_batch(
                QueueUrl=self._dead,
                Entries=[{"Id": str(i), "ReceiptHandle": one["ReceiptHandle"]} for i, one in enumerate(taken)],
            )
        return {one["MessageId"] for one in taken}

    def _let_go(self, messages: Sequence[dict[str, Any]]) -> None:
        for start in range(0, len(messages), PAGE):
            self._sqs.change_message_visibility_batch(
                QueueUrl=self._dead,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": one["ReceiptHandle"], "VisibilityTimeout": 0}
                    for i, one in enumerate(messages[start : start + PAGE])
                ],
            )

    def _described(self, message: dict[str, Any]) -> DeadLetter:
        attributes = message.get("Attributes", {})
        kind, project, trace_id, reason = _read(message["Body"], self._key)
        return DeadLetter(
            message_id=message["MessageId"],
            sent_at=_sent_at(message),
            receives=int(attributes.get("ApproximateReceiveCount", 0)),
            bytes=len(message["Body"].encode("utf-8")),
            kind=kind,
            project=project,
            trace_id=trace_id,
            reason=reason,
        )


def _sent_at(message: dict[str, Any]) -> int:
    """When a message was first sent, Unix ms; becoming a dead letter does not change it."""
    return int(message.get("Attributes", {}).get("SentTimestamp", 0))


def _read(body: str, key: bytes | None) -> tuple[str, str, str, str]:
    """Kind, project and trace id of a message as far as it says, and why it was most likely given up."""
    try:
        message = json.loads(body)
    except ValueError:
        return "?", "", "", "the body is not JSON"
    if not isinstance(message, dict):
        return "?", "", "", "the body is not an object"
    if "mac" in message:
        reason = _GIVEN_BACK
        if message.get("v") not in envelope.READABLE:
            reason = f"envelope version {str(message.get('v'))[:8]} is not readable here"
        elif key is not None:
            try:
                envelope.authentic(body, key)
            except Refusal as refusal:
                reason = refusal.message
        return (
            _word(message.get("kind")),
            _word(message.get("project")),
            _word(message.get("trace_id")),
            reason,
        )
    reason = _GIVEN_BACK
    if "claim" in message:
        return "claim", "", "", f"what it points to is gone, or {_GIVEN_BACK}"
    for kind in ("wake", "tick", "timer", "deliver"):
        if kind in message:
            inner = message[kind]
            project = message.get("project") or (inner.get("project") if isinstance(inner, dict) else "")
            return kind, _word(project), _word(message.get("trace_id")), reason
    detail = message.get("detail")
    if isinstance(detail, dict):
        return (
            _word(message.get("detail-type")),
            _word(detail.get("project")),
            _word(detail.get("trace_id")),
            reason,
        )
    return "?", "", "", "no worker knows this kind of message"


def project_of(body: str) -> str:
    """The project a message says it is about, "" when it says none."""
    try:
        message = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(message, dict):
        return ""
    inner = [message, *(message.get(name) for name in ("detail", "wake", "record"))]
    for one in inner:
        if isinstance(one, dict) and isinstance(one.get("project"), str):
            return str(one["project"])
    claim = str(message.get("claim", "")).split("/")
    return claim[1] if len(claim) == 3 and claim[0] == "claim" else ""


def _word(value: Any) -> str:
    """At most 64 printable characters of something a message says."""
    return "".join(c for c in str(value or "") if c.isprintable())[:64]


def replay_record(queue: str, actor: str, sent: int, left: int, now: int) -> dict[str, Any]:
    """The healing record of a replay: who sent how many messages back to `queue`, and how many are left."""
    return {
        "id": ids.new_id("heal", now),
        "at": clock.rfc3339(now),
        "target": f"dead-letters {queue}",
        "finding": "parked",
        "action": "replay",
        "outcome": "replayed",
        "attempts": 1,
        "by": actor,
        "text": f"{sent} messages were sent back to {queue}, {left} are left",
    }
