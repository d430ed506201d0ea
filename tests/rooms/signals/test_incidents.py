"""Incidents: intervals, rows, timers and what people do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.kernel.clock import HOUR, MINUTE
from tocsin.kernel.errors import Refusal
from tocsin.signals import incidents
from tocsin.signals.correlation import correlate
from tocsin.signals.incidents import Effects, Incident, Policy, Signal, View
from tocsin.signals.topology import Topology

T0 = 1_767_225_600_000
NONE = Topology.empty()
MOMENTS = st.lists(st.integers(0, 400), min_size=1, max_size=30)


def make(**more: Any) -> Incident:
    fired = Signal(
        n=1,
        i=0,
        event_id="evt_1",
        at=T0,
        received_at=T0,
        score=0.7,
        tier="high",
        severity_id=4,
        status="firing",
        source="prom",
        type="latency",
        title="slow",
        entity="service:web",
        service="web",
        dedup_key="k",
    )
    effects = correlate([fired], View(), project="p1", topology=NONE, now=T0, **more)
    (incident,) = effects.incidents.values()
    return incident


def only(effects: Effects) -> Incident:
    (incident,) = effects.incidents.values()
    return incident


@settings(max_examples=100, deadline=None)
@given(MOMENTS, st.integers(0, 20), st.integers(0, 400), st.integers(0, 30))
def test_covered_intervals_answer_as_the_moments_would(moments: list[int], gap: int, at: int, further: int) -> None:
    spans: tuple[int, ...] = ()
    for moment in moments:
        spans = incidents.cover(spans, moment, gap)
    assert list(spans) == sorted(spans)
    apart = incidents.distance(spans, at)
    assert apart is not None
    nearest = min(abs(at - moment) for moment in moments)
    reach = gap + further
    assert (apart <= reach) == (nearest <= reach)


@settings(max_examples=100, deadline=None)
@given(MOMENTS, MOMENTS, st.integers(0, 20))
def test_intervals_do_not_depend_on_order_or_on_merging(one: list[int], other: list[int], gap: int) -> None:
    def of(moments: list[int]) -> tuple[int, ...]:
        spans: tuple[int, ...] = ()
        for moment in moments:
            spans = incidents.cover(spans, moment, gap)
        return spans

    assert of(one + other) == of(sorted(one + other)) == incidents.unite(of(one), of(other), gap)


def test_nothing_covered_is_no_distance() -> None:
    assert incidents.distance((), 5) is None


def test_row_round_trip_through_json() -> None:
    incident = only(incidents.note(make(), by="ana", now=T0 + 1, text="looking"))
    incident.verdict = {"value": "useful", "by": "ana", "at": T0}
    incident.apart, incident.moved = ["inc_x"], [[1, 2, "inc_x"]]
    incident.keys["other"] = [T0 + 5, 0, T0]
    row = json.loads(json.dumps(incident.to_row()))
    assert Incident.from_row(row) == incident
    assert Incident.from_row({**row, "of a later version": 1}) == incident
    bare = Incident("inc_1", T0, T0, T0, T0, T0)
    assert Incident.from_row(json.loads(json.dumps(bare.to_row()))) == bare


def test_a_copy_shares_nothing_that_changes() -> None:
    incident = make()
    before = incident.to_row()
    text = json.dumps(before, sort_keys=True)
    held = incident.copy()
    incidents.absorb(
        incidents.Change(View(), Policy(), T0),
        held,
        Signal(1, 1, "evt_2", T0 + 9, T0 + 9, 0.9, "critical", 5, "firing", "s", "t", "x", "service:a", "a", "d2"),
        ("s:a", "s:web"),
    )
    assert json.dumps(incident.to_row(), sort_keys=True) == text


def test_quiet_resolves_or_waits_for_longer() -> None:
    incident = make()
    assert incident.timer_due == T0 + HOUR
    assert only(incidents.quiet([incident], now=T0 + HOUR)).status == "resolved"
    incident.seen = T0 + 10 * MINUTE
    later = incidents.quiet([incident], now=T0 + HOUR)
    assert later.timers == [(incident.id, T0 + HOUR + 10 * MINUTE)]
    assert not later.transitions
    assert only(later).version == incident.version
    final = incidents.quiet([only(later)], now=T0 + HOUR + 10 * MINUTE)
    assert [t.kind for t in final.transitions] == ["resolved"]
    assert final.transitions[0].summary["resolution"] == "quiet"
    assert not final.timers
    again = incidents.quiet([only(final)], now=T0 + 9 * HOUR)
    assert not again.incidents
    assert not again.timers


def test_quiet_looks_at_many_at_once() -> None:
    silent, loud, closed = make(), make(), make()
    loud.id, loud.seen = "inc_loud", T0 + MINUTE
    closed.id, closed.status = "inc_closed", "resolved"
    effects = incidents.quiet([silent, loud, closed], now=T0 + HOUR)
    assert [(t.incident_id, t.kind) for t in effects.transitions] == [(silent.id, "resolved")]
    assert effects.timers == [("inc_loud", T0 + HOUR + MINUTE)]
    assert set(effects.incidents) == {silent.id, "inc_loud"}


def test_acknowledge_once() -> None:
    held = incidents.acknowledge(make(), by="ana", now=T0 + 1)
    assert [(t.seq, t.kind) for t in held.transitions] == [(2, "acknowledged")]
    assert only(held).acknowledged_by == "ana"
    assert not incidents.acknowledge(only(held), by="bo", now=T0 + 2).incidents


def test_resolve_reopen_and_watch_again() -> None:
    closed = only(incidents.resolve(make(), by="ana", now=T0 + 2 * HOUR, text="restarted"))
    assert (closed.status, closed.resolution) == ("resolved", "resolved by ana")
    assert closed.timeline[-1]["text"] == "restarted"
    with pytest.raises(Refusal) as caught:
        incidents.acknowledge(closed, by="ana", now=T0)
    assert caught.value.code == "ERR_CONFLICT"
    effects = incidents.reopen(closed, by="bo", now=T0 + 3 * HOUR)
    assert only(effects).status == "open"
    assert effects.timers == [(closed.id, T0 + 4 * HOUR)]
    assert not incidents.quiet([only(effects)], now=T0 + 3 * HOUR + 1).transitions, "it was just reopened"
    assert not incidents.reopen(only(effects), by="bo", now=T0).incidents
    assert not incidents.resolve(closed, by="ana", now=T0).incidents


def test_verdict_and_note() -> None:
    judged = only(incidents.give_verdict(make(), by="ana", now=T0 + 1, verdict="noise"))
    assert judged.verdict == {"value": "noise", "by": "ana", "at": T0 + 1}
    assert not incidents.give_verdict(judged, by="ana", now=T0 + 2, verdict="noise").incidents
    for refused in (
        lambda: incidents.give_verdict(judged, by="a", now=T0, verdict="great"),
        lambda: incidents.note(judged, by="a", now=T0, text=""),
        lambda: incidents.note(judged, by="a", now=T0, text="x" * 2_001),
        lambda: incidents.merge([judged, judged], by="a", now=T0),
    ):
        with pytest.raises(Refusal) as caught:
            refused()
        assert caught.value.code == "ERR_SCHEMA"


def test_a_merged_incident_takes_no_more_orders() -> None:
    one, other = make(), make()
    other.id, other.first = "inc_other", T0 + 1
    merged = incidents.merge([other, one], by="ana", now=T0 + 5)
    assert merged.incidents["inc_other"].merged_into == one.id
    gone = merged.incidents["inc_other"]
    for refused in (
        lambda: incidents.acknowledge(gone, by="a", now=T0),
        lambda: incidents.resolve(gone, by="a", now=T0),
        lambda: incidents.note(gone, by="a", now=T0, text="x"),
        lambda: incidents.merge([gone, one], by="a", now=T0),
    ):
        with pytest.raises(Refusal) as caught:
            refused()
        assert caught.value.code == "ERR_CONFLICT"
        assert caught.value.details[0].fix == f"use {one.id}"


def test_timeline_keeps_the_newest_and_hands_out_the_rest() -> None:
    incident, spilled = make(), []
    for number in range(60):
        effects = incidents.note(incident, by="ana", now=T0 + number, text=f"note {number}")
        incident = only(effects)
        spilled += effects.overflow.get(incident.id, [])
    assert len(incident.timeline) == 50
    assert [entry["pos"] for entry in spilled + incident.timeline] == list(range(61))


def test_severity_unknown_never_hides_a_known_one() -> None:
    incident = Incident("inc_1", T0, T0, T0, T0, T0)
    change = incidents.Change(View(), Policy(), T0)
    for severity, expected in ((0, 0), (99, 99), (3, 3), (99, 3), (2, 3), (5, 5), (0, 5)):
        change.raise_to(incident, 0.5, "medium", severity, T0)
        assert incident.severity_id == expected


@pytest.mark.parametrize(
    ("ms", "words"),
    [(0, "0 s"), (59_999, "59 s"), (61_000, "1 min"), (HOUR, "1 h"), (HOUR + 5 * MINUTE, "1 h 5 min")],
)
def test_durations_in_words(ms: int, words: str) -> None:
    assert incidents.spoken(ms) == words
