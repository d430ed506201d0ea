"""Onsets: what a project's pace says about two beginnings, and how it reaches correlation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.kernel.clock import DAY, HOUR, MINUTE, SECOND, rfc3339
from tocsin.signals import correlation, onsets, scoring
from tocsin.signals.calibration import Calibrators
from tocsin.signals.onsets import STEPS_S, OnsetRate, mentions
from tocsin.signals.series import FIRING, HOT_LIMIT, RESOLVED, SeriesState, last_changed
from tocsin.signals.topology import Topology

T0 = 1_767_225_600_000


def paced(every: int, over: int) -> OnsetRate:
    """The state of a project whose alerts begin every so many ms for so long."""
    state = OnsetRate(T0, T0)
    for at in range(T0, T0 + over + 1, every):
        state.add(at)
    return state


@pytest.mark.parametrize(
    ("every", "near"),
    [(20 * MINUTE, 32), (5 * MINUTE, 16), (2 * MINUTE, 8), (MINUTE, 4), (40 * SECOND, 2)],
)
def test_the_rarer_alerts_begin_the_further_apart_a_coincidence_may_be(every: int, near: int) -> None:
    assert paced(every, DAY).near_s() == near


def test_a_pace_that_is_not_known_yet_links_nothing() -> None:
    assert OnsetRate(T0, T0).near_s() == 0
    assert paced(20 * MINUTE, 2 * 20 * MINUTE).near_s() == 0
    assert paced(10 * SECOND, 50 * MINUTE).near_s() == 0
    assert paced(20 * MINUTE, 2 * HOUR).near_s() == 32


def test_a_cascade_counts_once_however_many_alerts_it_has() -> None:
    calm, struck = paced(20 * MINUTE, DAY), paced(20 * MINUTE, DAY)
    for number in range(1000):
        struck.add(struck.began + 100 * (number % 3))
    calm.add(calm.began)
    assert struck.near_s() == calm.near_s()
    assert struck.count == calm.count


def test_the_pace_of_long_ago_is_forgotten() -> None:
    state = paced(40 * SECOND, DAY)
    for at in range(T0 + 8 * DAY, T0 + 9 * DAY, 20 * MINUTE):
        state.add(at)
    assert state.near_s() == 32


@given(st.lists(st.integers(-DAY, DAY), max_size=30))
def test_the_state_survives_packing_whatever_the_order(moments: list[int]) -> None:
    state = OnsetRate(T0, T0)
    for moment in moments:
        state.add(T0 + moment)
        assert state.last >= T0
    data = state.pack()
    assert OnsetRate.unpack(data) == state
    assert len(data) <= HOT_LIMIT
    assert last_changed(data) == state.last
    assert state.near_s() in (0, *STEPS_S)
    assert OnsetRate.unpack(data[:-1]) is None


def test_flapping_and_repeats_do_not_begin_an_alert_anew_but_silence_does() -> None:
    state = SeriesState(T0, T0, FIRING)
    for minute, status, onset in (
        (0, FIRING, 0), (5, FIRING, 0), (10, RESOLVED, 0), (20, FIRING, 0), (35, FIRING, 0), (51, FIRING, 51),
        (49, FIRING, 49), (52, FIRING, 49),
    ):  # fmt: skip
        state.add(T0 + minute * MINUTE, status)
        assert state.onset == T0 + onset * MINUTE


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("TimeoutError: call to pay-db failed after 30 ms", ("pay-db",)),
        ("no connection to db1.internal:5432 and upstream auth_api is gone", ("db1.internal", "auth_api")),
        ("call to action", ()),
        ("requests to pay-db, calls to cart-api, dependency risk-ml", ("pay-db", "cart-api")),
        ("pay-db is slow", ()),
        ("", ()),
    ],
)
def test_a_text_names_what_cannot_be_reached(title: str, expected: tuple[str, ...]) -> None:
    assert mentions(title) == expected


def event(number: int, service: str, at: int, **more: Any) -> dict[str, Any]:
    time = rfc3339(T0 + at)
    return {
        "event_id": f"evt_{number}",
        "source": "prom",
        "type": "down",
        "title": "down",
        "entity": {"type": "service", "id": service},
        "severity_raw": "critical",
        "status": "firing",
        "occurred_at": time,
        "received_at": time,
        "tags": {},
    } | more


def test_the_scorer_says_since_when_an_alert_fires_and_how_near_others_must_begin() -> None:
    events = [event(k, f"s-{k}", k * 20 * MINUTE) for k in range(12)]
    events.append(event(12, "s-11", 11 * 20 * MINUTE + MINUTE))
    events.append(event(13, "s-12", 12 * 20 * MINUTE, severity_raw="info"))
    scored = scoring.score([scoring.prepare(one, Topology.empty()) for one in events], {}, {}).events
    assert "onset_ms" not in scored[11]
    assert "onset_near_s" not in scored[0]
    assert scored[11]["onset_near_s"] == 32
    assert scored[12]["onset_ms"] == T0 + 11 * 20 * MINUTE
    assert "onset_near_s" not in scored[13]
    signal = correlation.signal_of(scored[12], 1, 0, Topology.empty())
    assert signal.began == T0 + 11 * 20 * MINUTE
    assert signal.near_s == 32


@pytest.mark.parametrize(("every", "busy"), [(3 * MINUTE, True), (5 * MINUTE, False)])
def test_the_scorer_says_where_alerts_begin_often(every: int, busy: bool) -> None:
    events = [event(k, f"s-{k}", k * every) for k in range(40)]
    events.append(event(40, "s-39", 39 * every + 10 * MINUTE))  # repeats say it too
    events.append(event(41, "s-41", 41 * every, severity_raw="info"))
    scored = scoring.score([scoring.prepare(one, Topology.empty()) for one in events], {}, {}).events
    assert "onset_busy" not in scored[0]
    assert [one.get("onset_busy", False) for one in scored[39:]] == [busy, busy, False]
    assert correlation.signal_of(scored[40], 1, 0, Topology.empty()).busy is busy


def test_what_people_confirmed_of_a_source_changes_no_state() -> None:
    """Otherwise a log would not repeat under other calibrators."""
    events = [event(k, f"s-{k}", k * 3 * MINUTE, severity_raw="warning", source="odd") for k in range(40)]
    trusted = Calibrators({}, {"odd": 1.0})
    prepared = [scoring.prepare(one, Topology.empty()) for one in events]
    plain, confirmed = scoring.score(prepared, {}, {}), scoring.score(prepared, {}, {}, trusted)
    logits = [[one["explain"]["logit"] for one in side.events] for side in (plain, confirmed)]
    assert any(a < scoring.NOTABLE <= b for a, b in zip(*logits, strict=True))
    assert plain.hot == confirmed.hot


def test_one_small_state_per_project_is_loaded_and_kept() -> None:
    prepared = [scoring.prepare(event(0, "a", 0), Topology.empty())]
    assert onsets.KEY in scoring.needs(prepared)[0]
    kept = scoring.score(prepared, {}, {}).hot[onsets.KEY]
    again = scoring.score([scoring.prepare(event(1, "b", HOUR), Topology.empty())], {onsets.KEY: kept}, {}).hot
    state = OnsetRate.unpack(again[onsets.KEY])
    assert state is not None
    assert (state.count, state.first, state.last) == (2, T0, T0 + HOUR)
