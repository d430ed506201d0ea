"""Intake: one request becomes events on the score queue, and an answer that says what became of each.

Refused as a whole is what cannot be taken apart (frame, encoding, JSON of a single document, size of the
batch); once there are items, each is judged alone, and one message carries all that were accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, Protocol

from tocsin.kernel import body, clock, ids, strict_json
from tocsin.kernel.envelope import Envelope
from tocsin.kernel.errors import Detail, Refusal, Retry
from tocsin.kernel.http import Answer, Request
from tocsin.signals import cloudevents, events, severity

MAX_ITEMS: Final = 500
#: Bytes of an event's digest that are kept and compared.
DIGEST_BYTES: Final = 16
#: OCSF severity_id of informational events.
INFORMATIONAL: Final = 1


class Principal(Protocol):
    """Who sends, as far as intake cares."""

    @property
    def project(self) -> str: ...


class Outbound(Protocol):
    """Port: the score queue."""

    def send(self, envelope: Envelope) -> None:
        """Returns when the queue has taken the message. Raises Retry when it did not."""


class Marks(Protocol):
    """Port: what is known of event ids. Advice only: the score worker decides."""

    def lookup(self, project: str, event_ids: Sequence[str]) -> Mapping[str, tuple[str, bool]]:
        """(digest as 32 hex characters, whether its commit is done) by id, for marked ids. Raises Retry."""


class Quota(Protocol):
    """Port: how many events a project may send."""

    def __call__(self, project: str, urgent: Sequence[bool]) -> Sequence[Refusal | None]:
        """One entry per event: None when it may pass, else why not; urgent ones are refused last."""


class Blocked(Protocol):
    """Port: what is kept out for now."""

    def __call__(self, project: str, event: events.Event) -> Refusal | None:
        """Why an event may not pass, or None."""


def is_urgent(event: events.Event) -> bool:
    """Whether an event may draw on what is kept for firing ones: it fires, and not merely to inform."""
    if event.get("status", "firing") != "firing":
        return False
    level = event.get("severity_id") or severity.severity_id(event["source"], event.get("severity_raw"))
    return level != INFORMATIONAL


@dataclass(slots=True)
class _Item:
    """One event of a request on its way: the sender's value, then the event, then its fate."""

    index: int
    read: Callable[[], events.Event]
    status: Literal["accepted", "duplicate", "refused"] = "accepted"
    event: events.Event = field(default_factory=dict)
    event_id: str = ""
    digest: str = ""
    refusal: Refusal | None = None

    def refuse(self, refusal: Refusal) -> None:
        self.status, self.refusal = "refused", refusal

    def as_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {"index": self.index, "status": self.status}
        if self.event_id:
            made |= {"id": self.event["id"], "event_id": self.event_id}
        if self.refusal:
            made["error"] = {**_error(self.refusal), "status": self.refusal.status}
        return made


def _error(refusal: Refusal, trace_id: str = "") -> dict[str, Any]:
    details = [detail.as_json() for detail in refusal.details]
    made: dict[str, Any] = {"code": refusal.code, "message": refusal.message, "details": details}
    return {**made, "trace_id": trace_id} if trace_id else made


def _batch_too_large() -> Refusal:
    detail = Detail("(body)", "batch-items", f"send at most {MAX_ITEMS} events per request")
    return Refusal("ERR_BATCH_TOO_LARGE", "The batch has too many items.", [detail])


def _nothing(rule: str) -> Refusal:
    detail = Detail("(body)", rule, "send one event as an object, or an array of 1 to 500 events")
    return Refusal("ERR_SCHEMA", "The body holds no event.", [detail])


def _mismatch() -> Refusal:
    detail = Detail("id", "same-id-same-content", "send changed content under a new id")
    return Refusal("ERR_IDEMPOTENCY_MISMATCH", "This id was sent before with other content.", [detail])


def _validate_line(line: strict_json.Line) -> events.Event:
    if line.refusal:
        raise line.refusal
    return events.validate(line.value)


def _readers(request: Request) -> list[Callable[[], events.Event]]:
    """One reader per event of a request, in order; a reader raises the refusal of its event alone."""
    opened = body.open_body(request)
    if opened.format == "ndjson":
        lines: list[strict_json.Line] = []
        for line in strict_json.read_lines(opened.data):
            if len(lines) == MAX_ITEMS:
                raise _batch_too_large()
            lines.append(line)
        return [partial(_validate_line, line) for line in lines]
    if opened.format == "binary":
        event = cloudevents.from_headers(request.headers, opened.content_type, opened.data)
        return [partial(cloudevents.to_sent, event)]
    value = strict_json.read(opened.data)
    convert = events.validate if opened.format == "json" else cloudevents.to_sent
    if opened.format == "cloudevents" or (opened.format == "json" and isinstance(value, list)):
        if not isinstance(value, list) or not value:
            raise _nothing("non-empty-array")
        if len(value) > MAX_ITEMS:
            raise _batch_too_large()
        return [partial(convert, item) for item in value]
    if not isinstance(value, dict):
        raise _nothing("object-or-array")
    return [partial(convert, value)]


class Intake:
    """Takes requests that carry events. `protect(project, event)` returns an event as it may be stored; `blocked`, then
    `quota`, are asked for what is neither refused nor known.
    """

    def __init__(
        self,
        outbound: Outbound,
        *,
        marks: Marks | None,
        protect: Callable[[str, events.Event], events.Event],
        quota: Quota | None = None,
        blocked: Blocked | None = None,
        now: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._outbound = outbound
        self._marks = marks
        self._protect = protect
        self._quota = quota
        self._blocked = blocked
        self._now = now

    def accept(self, request: Request, principal: Principal) -> Answer:
        """Take one request: 202 when every event was accepted or is a duplicate, 207 when some were refused.

        When all were refused the answer is an error: of its own code and status for one event, otherwise 400
        with the code they share, or ERR_SCHEMA. Events over the project's quota are worth sending again: an answer
        that has some carries Retry-After, is 429 when they are all there is, and never 400. Raises Refusal for a
        request refused as a whole, and ERR_UNAVAILABLE (503) when the queue did not take the message; then nothing
        was queued.
        """
        return self.take(_readers(request), principal, request.trace_id)

    def queue(self, request: Request, principal: Principal) -> tuple[Answer, list[events.Event]]:
        """As `accept`, with the events that were queued, as they will be stored."""
        return self._take(_readers(request), principal, request.trace_id)

    def take(self, readers: Sequence[Callable[[], events.Event]], principal: Principal, trace_id: str) -> Answer:
        """Take events that were read elsewhere, at most MAX_ITEMS. A reader returns a validated event, or raises the
        Refusal of its event alone. Answers and raises as `accept` does.
        """
        return self._take(readers, principal, trace_id)[0]

    def _take(
        self, readers: Sequence[Callable[[], events.Event]], principal: Principal, trace_id: str
    ) -> tuple[Answer, list[events.Event]]:
        received_at, project = self._now(), principal.project
        items = [_Item(index, read) for index, read in enumerate(readers)]
        if not items:
            raise _nothing("required")
        for item in items:
            self._judge(item, project, received_at)
        self._compare(project, items)
        accepted = self._admit(project, [item for item in items if item.status == "accepted"])
        queued = self._send(accepted, project, trace_id, received_at) if accepted else []
        return _answer(items, trace_id), queued

    def _judge(self, item: _Item, project: str, received_at: int) -> None:
        """Validate one item and name it; its refusal stays with it."""
        try:
            item.event = event = item.read()
            events.check_time(event, received_at)
            sent = events.sent_bytes(event)
            if len(sent) > events.MAX_BYTES:
                detail = Detail("(event)", "event-bytes", f"send at most {events.MAX_BYTES} bytes per event")
                raise Refusal("ERR_EVENT_TOO_LARGE", "The event is too large.", [detail])
        except Refusal as refusal:
            item.refuse(refusal)
            return
        item.digest = hashlib.sha256(sent).digest()[:DIGEST_BYTES].hex()
        item.event_id = ids.event_id(project, event["source"], event["id"])

    def _compare(self, project: str, items: list[_Item]) -> None:
        """Settle repeated ids: the first of the request wins, and what is already committed wins over it."""
        first: dict[str, _Item] = {}
        repeats: list[_Item] = []
        for item in items:
            if item.status == "accepted" and first.setdefault(item.event_id, item) is not item:
                repeats.append(item)
        known = self._advice(project, list(first))
        for event_id, item in first.items():
            digest, committed = known.get(event_id, ("", False))
            if committed and digest == item.digest:
                item.status = "duplicate"
            elif committed:
                item.refuse(_mismatch())
        for item in repeats:
            digest, committed = known.get(item.event_id, ("", False))
            if item.digest == (digest if committed else first[item.event_id].digest):
                item.status = "duplicate"
            else:
                item.refuse(_mismatch())

    def _admit(self, project: str, items: list[_Item]) -> list[_Item]:
        """The items that nothing keeps out and the project's quota lets pass; the others are refused one by one."""
        if self._blocked is not None:
            for item in items:
                refusal = self._blocked(project, item.event)
                if refusal is not None:
                    item.refuse(refusal)
            items = [item for item in items if item.refusal is None]
        if self._quota is None or not items:
            return items
        decided = self._quota(project, [is_urgent(item.event) for item in items])
        for item, refusal in zip(items, decided, strict=True):
            if refusal is not None:
                item.refuse(refusal)
        return [item for item in items if item.refusal is None]

    def _advice(self, project: str, event_ids: list[str]) -> Mapping[str, tuple[str, bool]]:
        if self._marks is None or not event_ids:
            return {}
        try:
            return self._marks.lookup(project, event_ids)
        except Retry:
            # Without advice an event is accepted; the score worker, which decides, finds the duplicate
            return {}

    def _send(self, items: list[_Item], project: str, trace_id: str, received_at: int) -> list[events.Event]:
        """Put them on the queue in one message, as they may be stored."""
        queued = []
        for item in items:
            event = self._protect(project, item.event)
            events.stamp(event, project=project, event_id=item.event_id, trace_id=trace_id, received_at=received_at)
            queued.append(event)
        payload = {"events": queued, "digests": [item.digest for item in items]}
        envelope_id = ids.new_id("env", received_at)
        try:
            self._outbound.send(Envelope("events", envelope_id, project, trace_id, received_at, payload))
        except Retry as retry:
            after = str(max(1, round(retry.after_s)))
            message = "The events could not be queued; nothing was taken. Send the request again."
            raise Refusal("ERR_UNAVAILABLE", message, headers={"Retry-After": after}) from retry
        return queued


def _answer(items: list[_Item], trace_id: str) -> Answer:
    counts = {"accepted": 0, "duplicate": 0, "refused": 0}
    for item in items:
        counts[item.status] += 1
    data = {
        "items": [item.as_json() for item in items],
        "accepted": counts["accepted"],
        "duplicates": counts["duplicate"],
        "refused": counts["refused"],
    }
    meta = {"trace_id": trace_id}
    refused = [item.refusal for item in items if item.refusal]
    if not refused:
        return Answer(data, meta, 202)
    codes = {refusal.code for refusal in refused}
    over = "ERR_RATE_LIMITED" in codes
    headers = next((refusal.headers for refusal in refused if refusal.code == "ERR_RATE_LIMITED"), {})
    if len(refused) < len(items) or (over and len(codes) > 1):
        message = f"{len(refused)} of {len(items)} events were refused; see data.items."
        some = Refusal("ERR_PARTIAL", message)
        return Answer(data, meta, some.status, headers, _error(some, trace_id))
    if len(refused) == 1:
        return Answer(data, meta, refused[0].status, headers, _error(refused[0], trace_id))
    message = f"All {len(items)} events were refused; see data.items."
    whole = Refusal(codes.pop() if len(codes) == 1 else "ERR_SCHEMA", message, refused[0].details)
    return Answer(data, meta, whole.status if over else 400, headers, _error(whole, trace_id))
