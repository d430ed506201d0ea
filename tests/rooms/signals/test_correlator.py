"""The cursor protocol of the correlate stage: racing, killed and repeated workers end in the same incidents."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.events import START_MS, stored_event
from tests.support.pipeline_fakes import FixedTopology, MemoryIncidentStore, MemoryLedger, MemoryOutbox

from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal, Retry
from tocsin.signals import correlation
from tocsin.signals.correlation import Policy
from tocsin.signals.correlator import CorrelateWorker
from tocsin.signals.incidents import Signal
from tocsin.signals.ports import Commit
from tocsin.signals.topology import Topology

TOPOLOGY = Topology.from_document(
    {
        "services": {
            "web": {"deps": ["cart", "pay"]},
            "cart": {"deps": ["db"]},
            "pay": {"deps": ["db"]},
            "db": {"deps": []},
        }
    }
)


def plenty() -> int:
    return 20_000


class Killed(BaseException):
    pass


def storm(seed: int, events: int) -> list[list[dict[str, object]]]:
    """Commits of a storm over four linked services and one that is not, delivered in random order and sizes."""
    chance = random.Random(seed)
    flat = []
    for i in range(events):
        service = chance.choice(("web", "cart", "pay", "db", "island"))
        at = START_MS + chance.randrange(20 * clock.MINUTE)
        flat.append(
            stored_event(
                f"e{i}",
                at=at,
                entity={"type": "service", "id": service},
                tags={"service": service},
                dedup_key=f"k|{service}",
            )
            | {"ruling_ms": at, "score": chance.choice((0.2, 0.5, 0.7)), "tier": "medium", "fingerprint": "fp1_x"}
        )
    chance.shuffle(flat)
    commits = []
    while flat:
        size = chance.randint(1, 12)
        commits.append(flat[:size])
        flat = flat[size:]
    return commits


def logged(commits: list[list[dict[str, object]]]) -> MemoryLedger:
    ledger = MemoryLedger()
    for number, events in enumerate(commits):
        ledger.commit("demo", Commit(f"cmt_{number}", ledger.head("demo"), START_MS, "trace", events, {}, {}, {}))
    return ledger


def worker(
    ledger: MemoryLedger, store: MemoryIncidentStore, outbox: MemoryOutbox | None = None, now: int = START_MS
) -> CorrelateWorker:
    return CorrelateWorker(
        ledger, store, outbox or MemoryOutbox(), FixedTopology(TOPOLOGY), policy=Policy(), now=lambda: now
    )


def event_groups(ledger: MemoryLedger, store: MemoryIncidentStore) -> set[frozenset[str]]:
    ids = {(entry.n, i): event["event_id"] for entry in ledger.log["demo"] for i, event in enumerate(entry.events)}
    return {frozenset(ids[place] for place in group) for group in store.partition()}


def racing(ledger: MemoryLedger, seed: int, *, trust_cursor: bool = False) -> MemoryIncidentStore:
    """Sixteen workers woken for the same log, interleaved and killed at every step of the store."""
    chance = random.Random(seed)
    depth = 0

    def step(name: str) -> None:
        nonlocal depth
        roll = chance.random()
        if roll < 0.04:
            raise Killed(name)
        if roll < 0.14 and depth < 3:
            depth += 1
            try:
                worker(ledger, store).catch_up("demo", plenty)
            except Killed:
                pass
            finally:
                depth -= 1

    store = MemoryIncidentStore(step, trust_cursor=trust_cursor)
    for _ in range(16):
        try:
            worker(ledger, store).catch_up("demo", plenty)
        except Killed:
            continue
    store.hook = lambda name: None
    worker(ledger, store).catch_up("demo", plenty)
    return store


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), events=st.integers(1, 60))
def test_racing_workers_end_in_the_incidents_of_one_undisturbed_worker(seed: int, events: int) -> None:
    commits = storm(seed, events)
    calm_ledger, calm = logged(commits), MemoryIncidentStore()
    worker(calm_ledger, calm).catch_up("demo", plenty)
    raced_ledger = logged(commits)
    raced = racing(raced_ledger, seed)
    assert event_groups(raced_ledger, raced) == event_groups(calm_ledger, calm)
    counts = sum(raced.get("demo", one).events for one in raced.rows if raced.get("demo", one).merged_into is None)
    assert counts == len(raced.assigned)
    ids = [row.row_id for row in raced.outbox]
    assert len(ids) == len(set(ids))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), events=st.integers(1, 60), shuffle=st.integers(0, 2**32))
def test_order_of_arrival_does_not_matter(seed: int, events: int, shuffle: int) -> None:
    commits = storm(seed, events)
    other = [event for events in commits for event in events]
    random.Random(shuffle).shuffle(other)
    ledgers = logged(commits), logged([other[i : i + 7] for i in range(0, len(other), 7)])
    stores = MemoryIncidentStore(), MemoryIncidentStore()
    for ledger, store in zip(ledgers, stores, strict=True):
        worker(ledger, store).catch_up("demo", plenty)
    assert event_groups(ledgers[0], stores[0]) == event_groups(ledgers[1], stores[1])


def test_the_race_test_notices_a_missing_cursor_condition() -> None:
    def wrong(seed: int) -> bool:
        commits = storm(seed, 60)
        ledger = logged(commits)
        try:
            store = racing(ledger, seed, trust_cursor=True)
        except (KeyError, Retry):
            return True
        counts = sum(store.get("demo", one).events for one in store.rows if store.get("demo", one).merged_into is None)
        return counts != len(store.assigned)

    assert any(wrong(seed) for seed in range(40))


def opened(now: int = START_MS) -> tuple[MemoryLedger, MemoryIncidentStore, MemoryOutbox, str]:
    event = stored_event("a") | {"ruling_ms": START_MS, "score": 0.7, "tier": "high", "fingerprint": "fp1_x"}
    ledger, store, outbox = logged([[event]]), MemoryIncidentStore(), MemoryOutbox()
    worker(ledger, store, outbox, now).catch_up("demo", plenty)
    (incident_id,) = store.rows
    return ledger, store, outbox, incident_id


def test_opening_announces_a_fact_and_sets_a_quiet_timer() -> None:
    _, store, outbox, incident_id = opened()
    facts = [row for row in store.outbox if row.kind == "fact"]
    timers = [row for row in store.outbox if row.kind == "timer"]
    assert [fact["kind"] for row in facts for fact in row.payload["facts"]] == ["IncidentOpened"]
    assert facts[0].payload["facts"][0]["detail"]["incident_id"] == incident_id
    assert outbox.sent == facts
    assert [row.due for row in timers] == [START_MS + 60 * clock.MINUTE]


def test_a_quiet_timer_resolves_a_quiet_incident_with_its_reason() -> None:
    ledger, store, _, incident_id = opened()
    worker(ledger, store, now=START_MS + 61 * clock.MINUTE).quiet("demo", [incident_id], plenty)
    incident = store.get("demo", incident_id)
    assert incident is not None
    assert (incident.status, incident.resolution) == ("resolved", "quiet")
    assert [fact["kind"] for fact in store.outbox[-1].payload["facts"]] == ["IncidentResolved"]


def test_a_quiet_timer_that_is_early_is_set_again() -> None:
    ledger, store, _, incident_id = opened()
    worker(ledger, store, now=START_MS + 30 * clock.MINUTE).quiet("demo", [incident_id], plenty)
    assert store.get("demo", incident_id).status == "open"
    assert store.outbox[-1].kind == "timer"


def test_signals_below_the_gate_cost_no_rounds() -> None:
    quiet = [
        stored_event(f"q{i}", at=START_MS, entity={"type": "service", "id": "web"}, tags={"service": "web"})
        | {"ruling_ms": START_MS, "score": 0.1, "tier": "info", "fingerprint": "fp1_q"}
        for i in range(900)
    ]
    loud = [one | {"event_id": f"evt_loud{i}", "score": 0.9} for i, one in enumerate(quiet[:100])]
    store = MemoryIncidentStore()
    saves: list[str] = []
    store.hook = saves.append
    mixed = [one for i, one in enumerate(quiet) for one in ([one, loud[i // 9]] if i % 9 == 0 else [one])]
    assert worker(logged([mixed]), store).catch_up("demo", plenty) == 1_000
    assert saves.count("save") == 1
    assert len(store.assigned) == 100


def outages(count: int) -> tuple[MemoryLedger, MemoryIncidentStore]:
    """So many incidents, opened by as many services that have nothing to do with each other, in one commit."""
    fired = [
        stored_event(f"e{i}", at=START_MS, entity={"type": "service", "id": f"lone{i}"}, tags={"service": f"lone{i}"})
        | {"ruling_ms": START_MS, "score": 0.9, "tier": "critical", "fingerprint": f"fp1_{i}", "dedup_key": f"k{i}"}
        for i in range(count)
    ]
    ledger = logged([fired])
    store = MemoryIncidentStore()
    worker(ledger, store).catch_up("demo", plenty)
    assert len(store.rows) == count
    return ledger, store


def test_timers_that_are_due_together_share_a_row_and_a_transaction() -> None:
    ledger, store = outages(6)
    facts, timer = store.outbox
    assert {fact["detail"]["incident_id"] for fact in facts.payload["facts"]} == set(store.rows)
    assert sorted(timer.payload["incident_ids"]) == sorted(store.rows)
    saves: list[str] = []
    store.hook = saves.append
    late = worker(ledger, store, now=START_MS + 61 * clock.MINUTE)
    assert late.quiet("demo", timer.payload["incident_ids"], plenty) == {}
    assert saves.count("save") == 1
    assert {store.get("demo", one).status for one in store.rows} == {"resolved"}
    assert late.quiet("demo", list(store.rows), plenty) == {}, "a repeated timer finds nothing to do"
    assert saves.count("save") == 1


def test_a_damaged_incident_fails_alone_when_timers_are_due() -> None:
    ledger, store = outages(4)
    damaged, *others = sorted(store.rows)
    text = store.rows[damaged]
    store.rows[damaged] = "not JSON"
    late = worker(ledger, store, now=START_MS + 61 * clock.MINUTE)
    assert late.quiet("demo", [damaged, *others], plenty) == {damaged: "JSONDecodeError"}
    assert {store.get("demo", one).status for one in others} == {"resolved"}
    store.rows[damaged] = text
    assert late.quiet("demo", [damaged], plenty) == {}
    assert store.get("demo", damaged).status == "resolved"


def test_timers_come_back_when_there_is_no_time_or_the_store_is_away() -> None:
    ledger, store = outages(3)
    late = worker(ledger, store, now=START_MS + 61 * clock.MINUTE)
    assert late.quiet("demo", store.rows, lambda: 100) == dict.fromkeys(store.rows, "no time")

    def away(step: str) -> None:
        raise Retry("away")

    store.hook = away
    assert late.quiet("demo", store.rows, plenty) == dict.fromkeys(store.rows, "away")


def test_an_operation_is_refused_for_a_stale_version_and_an_unknown_incident() -> None:
    ledger, store, _, incident_id = opened()
    subject = worker(ledger, store)

    def note(view: correlation.View) -> correlation.Effects:
        return correlation.note(view.incidents[incident_id], by="key", now=START_MS, text="seen")

    subject.operate("demo", [incident_id], note)
    with pytest.raises(Refusal) as stale:
        subject.operate("demo", [incident_id], note, expected_version=0)
    assert stale.value.code == "ERR_CONFLICT"
    with pytest.raises(Refusal) as unknown:
        subject.operate("demo", ["inc_nothing"], note)
    assert unknown.value.code == "ERR_NOT_FOUND"


def test_running_out_of_time_asks_for_another_call() -> None:
    ledger, store, _, _ = opened()
    with pytest.raises(Retry):
        worker(ledger, store).catch_up("demo", lambda: 100)


def test_a_damaged_event_is_left_out_on_record_and_the_others_go_on() -> None:
    good = stored_event("a") | {"ruling_ms": START_MS, "score": 0.7, "tier": "high", "fingerprint": "fp1_x"}
    damaged = {key: value for key, value in good.items() if key != "score"} | {"event_id": "evt_damaged"}
    ledger, store = logged([[damaged, good]]), MemoryIncidentStore()
    assert worker(ledger, store).catch_up("demo", plenty) == 1
    assert len(store.rows) == 1
    assert {event_id for _, event_id, _ in ledger.refused} == {"evt_damaged"}


def test_a_signal_that_breaks_correlation_is_found_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = correlation.correlate

    def fragile(signals: Sequence[Signal], *arguments: Any, **named: Any) -> Any:
        if any(signal.title == "poison" for signal in signals):
            raise RuntimeError("defect")
        return real(signals, *arguments, **named)

    monkeypatch.setattr(correlation, "correlate", fragile)
    events = [
        stored_event(name, title=title) | {"ruling_ms": START_MS, "score": 0.7, "tier": "high", "fingerprint": "fp1_x"}
        for name, title in (("a", "good"), ("b", "poison"), ("c", "good"), ("d", "good"))
    ]
    ledger, store = logged([events]), MemoryIncidentStore()
    worker(ledger, store).catch_up("demo", plenty)
    assert sorted(i for _, i in store.assigned) == [0, 2, 3]
    assert {event_id for _, event_id, _ in ledger.refused} == {events[1]["event_id"]}
