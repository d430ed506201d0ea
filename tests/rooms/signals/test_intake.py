"""Intake: what becomes of each event of a request, and what is queued."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.ingest_fakes import (
    NOW_MS,
    PRINCIPAL,
    MemoryMarks,
    MemoryOutbound,
    memory_intake,
    sample,
)

from tocsin.kernel import ids
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Answer, Request
from tocsin.kernel.pseudonyms import Pseudonyms, project_key, protect
from tocsin.kernel.redaction import Redactor
from tocsin.signals.intake import Intake, is_urgent

CE = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t", "data": {"title": "x"}}


def request(body: Any, kind: str = "application/json", **headers: str) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": kind} | {name.replace("_", "-"): value for name, value in headers.items()}
    values = {name: (value,) for name, value in sent.items() if value}
    return Request("POST", "/v1/events", "trace-1", "r", headers=values, body=data)


def accept(
    body: Any, *, marks: MemoryMarks | None = None, now: int = NOW_MS, **kwargs: Any
) -> tuple[Answer, MemoryOutbound]:
    outbound = MemoryOutbound()
    return memory_intake(outbound, marks, now).accept(request(body, **kwargs), PRINCIPAL), outbound


def statuses(answer: Answer) -> list[str]:
    return [item["status"] for item in answer.data["items"]]


def test_one_event() -> None:
    answer, outbound = accept(sample())
    event_id = ids.event_id("demo", "prometheus", "e-1")
    assert answer.status == 202
    assert answer.error is None
    assert answer.meta == {"trace_id": "trace-1"}
    assert answer.data == {
        "items": [{"index": 0, "id": "e-1", "event_id": event_id, "status": "accepted"}],
        "accepted": 1,
        "duplicates": 0,
        "refused": 0,
    }
    (envelope,) = outbound.sent
    assert (envelope.kind, envelope.project, envelope.trace_id, envelope.received_at) == (
        "events",
        "demo",
        "trace-1",
        NOW_MS,
    )
    assert envelope.payload["events"][0]["event_id"] == event_id
    assert len(bytes.fromhex(envelope.payload["digests"][0])) == 16


def test_every_format_carries_the_same_events() -> None:
    events = [sample(id=f"e{i}") for i in range(3)]
    lines = "\n".join(map(json.dumps, events)).encode()
    bodies = [
        accept(events),
        accept(lines, kind="application/x-ndjson"),
        accept(b"\r\n" + lines + b"\n\n", kind="application/jsonl"),
        accept(gzip.compress(lines), kind="application/x-ndjson", content_encoding="gzip"),
        accept(gzip.compress(json.dumps(events).encode()), content_encoding="gzip"),
    ]
    assert all(answer.status == 202 for answer, _ in bodies)
    assert len({json.dumps([o.sent[0].payload for o in [outbound]], sort_keys=True) for _, outbound in bodies}) == 1


def test_cloudevents_in_every_mode() -> None:
    binary = {f"ce_{name}": str(CE[name]) for name in ("specversion", "id", "source", "type")}
    answers = [
        accept(CE, kind="application/cloudevents+json"),
        accept([CE], kind="application/cloudevents-batch+json"),
        accept(CE["data"], kind="", **binary),
    ]
    events = [outbound.events[0] for _, outbound in answers]
    assert all(answer.status == 202 for answer, _ in answers)
    assert events[0] == events[1] == events[2]
    assert (events[0]["title"], events[0]["source"]) == ("x", "/a")


def test_some_refused() -> None:
    answer, outbound = accept([sample(), sample(id=""), 7, sample(id="e-2")])
    assert answer.status == 207
    assert answer.error
    assert answer.error["code"] == "ERR_PARTIAL"
    assert statuses(answer) == ["accepted", "refused", "refused", "accepted"]
    refused = answer.data["items"][1]
    assert refused["error"]["code"] == "ERR_SCHEMA"
    assert refused["error"]["details"][0]["field"] == "id"
    assert "event_id" not in refused
    assert [event["id"] for event in outbound.events] == ["e-1", "e-2"]


def test_a_broken_line_refuses_itself_only() -> None:
    lines = json.dumps(sample()).encode() + b'\n{"id": \n\n' + json.dumps(sample(id="e-2")).encode()
    answer, outbound = accept(lines, kind="application/x-ndjson")
    assert statuses(answer) == ["accepted", "refused", "accepted"]
    assert answer.data["items"][1]["error"]["details"][0]["field"] == "line 2"
    assert len(outbound.events) == 2


def test_all_refused() -> None:
    answer, outbound = accept([sample(id=""), sample(id="-")])
    assert (answer.status, answer.error and answer.error["code"]) == (400, "ERR_SCHEMA")
    answer, _ = accept([sample(links=[{"href": "x"}]), sample(id="b", links=[{"href": "y"}])])
    assert (answer.status, answer.error and answer.error["code"]) == (400, "ERR_URL")
    answer, _ = accept([sample(links=[{"href": "x"}]), sample(occurred_at="2020-01-01T00:00:00Z")])
    assert (answer.status, answer.error and answer.error["code"]) == (400, "ERR_SCHEMA")
    assert answer.data["refused"] == 2
    assert outbound.sent == []


def test_one_too_large_event_has_its_own_status() -> None:
    answer, outbound = accept(sample(extras={c: c * 60_000 for c in "abcd"}))
    assert (answer.status, answer.error and answer.error["code"]) == (413, "ERR_EVENT_TOO_LARGE")
    assert outbound.sent == []


def test_repeats_in_one_request() -> None:
    answer, outbound = accept([sample(), sample(), sample(title="x"), sample(source="other")])
    assert statuses(answer) == ["accepted", "duplicate", "refused", "accepted"]
    assert answer.data["items"][2]["error"]["status"] == 422
    assert len(outbound.events) == 2


def test_marks_are_advice() -> None:
    _, outbound = accept(sample())
    event, digest = outbound.events[0], outbound.sent[0].payload["digests"][0]
    marks = MemoryMarks()
    for known, body, status, fate in [
        ((digest, True), sample(), 202, "duplicate"),
        ((digest, True), sample(title="x"), 422, "refused"),
        ((digest, False), sample(), 202, "accepted"),
        ((digest, False), sample(title="x"), 202, "accepted"),
    ]:
        marks.known = {event["event_id"]: known}
        answer, again = accept(body, marks=marks, now=NOW_MS + 60_000)
        assert (answer.status, statuses(answer)) == (status, [fate])
        assert len(again.events) == (fate == "accepted")
    marks.known = {event["event_id"]: (digest, True)}
    answer, again = accept([sample(title="x"), sample()], marks=marks)
    assert (answer.status, statuses(answer), again.sent) == (207, ["refused", "duplicate"], [])


def test_without_advice_events_are_accepted() -> None:
    marks = MemoryMarks()
    marks.broken = True
    answer, outbound = accept(sample(), marks=marks)
    assert (answer.status, len(outbound.events)) == (202, 1)


@settings(max_examples=30, deadline=None)
@given(st.permutations(sorted(sample(tags={"a": "1", "b": "2"}, status="firing").items())), st.integers(0, 10**9))
def test_a_resend_has_the_same_id_and_digest(items: list[tuple[str, Any]], later: int) -> None:
    first = accept(sample(tags={"b": "2", "a": "1"}))[1].sent[0].payload
    again = accept(dict(items), now=NOW_MS + later)[1].sent[0].payload
    assert again["digests"] == first["digests"]
    assert again["events"][0]["event_id"] == first["events"][0]["event_id"]


def test_nothing_is_answered_202_before_the_queue_took_it() -> None:
    outbound = MemoryOutbound()
    outbound.broken = True
    with pytest.raises(Refusal) as caught:
        memory_intake(outbound).accept(request(sample()), PRINCIPAL)
    assert (caught.value.code, caught.value.status, caught.value.headers) == (
        "ERR_UNAVAILABLE",
        503,
        {"Retry-After": "3"},
    )


def test_what_is_queued_is_protected_and_its_identity_is_not_changed_by_that() -> None:
    outbound = MemoryOutbound()
    redactor = Redactor()

    def guard(project: str, event: dict[str, Any]) -> dict[str, Any]:
        return protect(event, redactor, Pseudonyms(project_key(b"k" * 32, project)))

    intake = Intake(outbound, marks=None, protect=guard, now=lambda: NOW_MS)
    sent = sample(entity={"type": "user", "id": "ann@shop.example"}, body="mail ann@shop.example", tags={"a": "b"})
    answer = intake.accept(request(sent), PRINCIPAL)
    (event,) = outbound.events
    assert "ann@shop" not in json.dumps(event)
    assert event["dedup_key"] == f"prometheus|disk.full|user:{event['entity']['id']}"
    plain = accept(sent)[1].sent[0].payload
    assert plain["digests"] == outbound.sent[0].payload["digests"]
    assert plain["events"][0]["event_id"] == event["event_id"] == answer.data["items"][0]["event_id"]


def test_500_events_are_one_message() -> None:
    answer, outbound = accept([sample(id=f"e{i}") for i in range(500)])
    assert (answer.status, answer.data["accepted"]) == (202, 500)
    assert len(outbound.sent) == 1


@pytest.mark.parametrize(
    ("fields", "urgent"),
    [
        ({}, True),
        ({"severity_raw": "critical"}, True),
        ({"severity_raw": "no such word"}, True),
        ({"severity_raw": "info"}, False),
        ({"severity_raw": "critical", "status": "resolved"}, False),
        ({"status": "acknowledged"}, False),
    ],
)
def test_what_may_draw_on_the_share_of_firing_events(fields: dict[str, Any], urgent: bool) -> None:
    assert is_urgent(sample(**fields)) is urgent


class Allowance:
    """Lets so many events pass, urgent ones first."""

    def __init__(self, left: int) -> None:
        self.left, self.asked = left, 0

    def __call__(self, project: str, urgent: Sequence[bool]) -> list[Refusal | None]:
        self.asked += len(urgent)
        over = Refusal("ERR_RATE_LIMITED", "too many", headers={"Retry-After": "7"})
        decided: list[Refusal | None] = [over] * len(urgent)
        for index in sorted(range(len(urgent)), key=lambda one: not urgent[one])[: self.left]:
            decided[index] = None
        return decided


def limited(body: Any, left: int, marks: MemoryMarks | None = None) -> tuple[Answer, MemoryOutbound, Allowance]:
    outbound, quota = MemoryOutbound(), Allowance(left)
    intake = Intake(outbound, marks=marks, protect=lambda _, event: event, quota=quota, now=lambda: NOW_MS)
    return intake.accept(request(body), PRINCIPAL), outbound, quota


def test_events_over_the_quota_are_refused_one_by_one_and_firing_ones_last() -> None:
    batch = [sample(id="a", severity_raw="info"), sample(id="b", severity_raw="critical"), sample(id="c", title=1)]
    answer, outbound, quota = limited(batch, 1)
    assert statuses(answer) == ["refused", "accepted", "refused"]
    assert (answer.status, answer.headers["Retry-After"]) == (207, "7")
    assert [item["error"]["status"] for item in answer.data["items"] if "error" in item] == [429, 400]
    assert [event["id"] for event in outbound.events] == ["b"]
    assert quota.asked == 2, "what is refused anyway does not count"


def test_when_all_are_over_the_quota_the_answer_says_come_back() -> None:
    for batch in ([sample(id="a"), sample(id="b")], sample()):
        answer, outbound, _ = limited(batch, 0)
        assert answer.error is not None
        assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (429, "ERR_RATE_LIMITED", "7")
        assert outbound.sent == []


def test_a_batch_worth_sending_again_in_part_is_never_refused_for_good() -> None:
    answer, outbound, _ = limited([sample(id="a"), sample(id="b", title=1)], 0)
    assert answer.error is not None
    assert (answer.status, answer.error["code"]) == (207, "ERR_PARTIAL")
    assert outbound.sent == []


def test_a_known_event_costs_no_quota() -> None:
    first, _, _ = limited(sample(), 1)
    marks = MemoryMarks()
    _, sent, _ = limited(sample(), 1)
    identity = first.data["items"][0]["event_id"]
    marks.known[identity] = (sent.sent[0].payload["digests"][0], True)
    answer, _, quota = limited(sample(), 0, marks)
    assert (answer.status, statuses(answer), quota.asked) == (202, ["duplicate"], 0)
