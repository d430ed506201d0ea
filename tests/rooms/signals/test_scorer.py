"""The marks-and-commits protocol under a hostile scheduler: kills, redeliveries and racing workers at every step."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.events import stored_event
from tests.support.pipeline_fakes import FixedCalibration, FixedTopology, MemoryBus, MemoryLedger, sealed

from tocsin.kernel.errors import Refusal
from tocsin.signals.ports import HeadMoved, Message, Sealed
from tocsin.signals.scorer import PORTION_BYTES, ScoreWorker

LIFETIME_MS = 20_000


class Killed(BaseException):
    """The process is gone; nothing after this line ran."""


class World:
    """A queue that redelivers, a clock, and workers that may be killed or overtaken at every step of the ledger."""

    def __init__(self, seed: int, events: int, **broken: bool) -> None:
        self.random = random.Random(seed)
        self.now = 1_790_000_000_000
        self.ledger = MemoryLedger(self.step, **broken)
        self.kills = 0
        self.depth = 0
        self.hostile = True
        ids = [f"e{i}" for i in range(events)]
        self.sent = {stored_event(one)["event_id"] for one in ids}
        self.waiting: dict[str, Message] = {}
        for number in range(events):
            batch = self.random.sample(ids, self.random.randint(1, min(4, events)))
            if number < len(ids) and ids[number] not in batch:
                batch.append(ids[number])
            payload = {"events": [stored_event(one) for one in batch], "digests": ["00" * 16] * len(batch)}
            self.waiting[f"m{number}"] = Message(f"m{number}", "demo", "trace", payload)

    def step(self, name: str) -> None:
        if not self.hostile:
            return
        self.now += self.random.choice((0, 1, 5, 200, LIFETIME_MS // 4, 2 * LIFETIME_MS))
        roll = self.random.random()
        if roll < 0.06:
            self.kills += 1
            raise Killed(name)
        if roll < 0.16 and self.depth < 3:
            self.deliver()

    def deliver(self) -> None:
        """One receive of some waiting messages, in a grouping of its own, by a worker of its own."""
        if not self.waiting:
            return
        batch = self.random.sample(sorted(self.waiting), self.random.randint(1, min(5, len(self.waiting))))
        worker = ScoreWorker(self.ledger, MemoryBus(), FixedTopology(), FixedCalibration(), now=lambda: self.now)
        self.depth += 1
        try:
            outcome = worker.handle(
                sealed(*(self.waiting[one] for one in batch if one in self.waiting)), lambda: LIFETIME_MS
            )
        except Killed:
            return
        finally:
            self.depth -= 1
        for one in batch:
            if one not in outcome.failed:
                self.waiting.pop(one, None)

    def run(self) -> None:
        for _ in range(200):
            if not self.waiting:
                break
            self.deliver()
        self.hostile = False
        for _ in range(60):
            self.now += 3 * LIFETIME_MS
            self.deliver()

    def stored(self) -> Counter[str]:
        return Counter(event["event_id"] for entry in self.ledger.log["demo"] for event in entry.events)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), events=st.integers(1, 9))
def test_each_event_is_stored_once_whatever_the_scheduler_does(seed: int, events: int) -> None:
    world = World(seed, events)
    world.run()
    assert not world.waiting
    assert world.stored() == Counter(world.sent)
    assert world.ledger.counters["demo"] == len(world.sent)


@pytest.mark.parametrize("broken", ["trust_buried", "trust_owner"])
def test_the_same_runs_notice_a_missing_condition(broken: str) -> None:
    def wrong(seed: int) -> bool:
        world = World(seed, 9, **{broken: True})
        world.run()
        return world.stored() != Counter(world.sent)

    assert any(wrong(seed) for seed in range(150))


def test_the_scheduler_kills_between_mark_and_commit() -> None:
    worlds = [World(seed, 9) for seed in range(10)]
    for world in worlds:
        world.run()
    assert sum(world.kills for world in worlds) >= 20


def test_a_second_copy_with_other_content_is_refused_and_recorded() -> None:
    ledger, bus = MemoryLedger(), MemoryBus()
    worker = ScoreWorker(ledger, bus, FixedTopology(), FixedCalibration(), now=lambda: 1_790_000_000_000)
    event = stored_event("a")
    first = Message("m1", "demo", "t", {"events": [event], "digests": ["00" * 16]})
    second = Message("m2", "demo", "t", {"events": [event], "digests": ["11" * 16]})
    assert worker.handle(sealed(first), lambda: LIFETIME_MS).stored == 1
    outcome = worker.handle(sealed(second), lambda: LIFETIME_MS)
    assert (outcome.stored, outcome.refused, outcome.failed) == (0, 1, set())
    assert ledger.refused == {("demo", event["event_id"], b"\x11" * 16)}


def test_a_young_claim_of_a_live_worker_is_left_alone() -> None:
    ledger = MemoryLedger()
    now = 1_790_000_000_000
    event = stored_event("a")
    ledger.claim("demo", "cmt_other", {event["event_id"]: b"\x00" * 16}, now - 1_000)
    worker = ScoreWorker(ledger, MemoryBus(), FixedTopology(), FixedCalibration(), now=lambda: now)
    message = Message("m1", "demo", "t", {"events": [event], "digests": ["00" * 16]})
    assert worker.handle(sealed(message), lambda: LIFETIME_MS).failed == {"m1"}
    assert ("demo", "cmt_other") not in ledger.commits


def test_a_poison_event_fails_alone() -> None:
    ledger = MemoryLedger()
    worker = ScoreWorker(ledger, MemoryBus(), FixedTopology(), FixedCalibration(), now=lambda: 1_790_000_000_000)
    good, bad = stored_event("a"), stored_event("b", occurred_at="not a time", received_at="nor this")
    messages = [
        Message(name, "demo", "t", {"events": [event], "digests": ["00" * 16]})
        for name, event in (("m1", good), ("m2", bad), ("m3", stored_event("c")))
    ]
    outcome = worker.handle(sealed(*messages), lambda: LIFETIME_MS)
    assert outcome.failed == {"m2"}
    assert outcome.stored == 2
    assert "ValueError" in outcome.reasons[0]


def test_an_attempt_that_gave_up_leaves_no_claim_that_must_age() -> None:
    ledger = MemoryLedger()
    now = 1_790_000_000_000

    def moving(step: str) -> None:
        if step == "commit":
            raise HeadMoved("demo")

    ledger.hook = moving
    worker = ScoreWorker(
        ledger, MemoryBus(), FixedTopology(), FixedCalibration(), now=lambda: now, pause=lambda seconds: None
    )
    message = Message("m1", "demo", "t", {"events": [stored_event("a")], "digests": ["00" * 16]})
    assert worker.handle(sealed(message), lambda: LIFETIME_MS).failed == {"m1"}
    ledger.hook = lambda step: None
    assert worker.handle(sealed(message), lambda: LIFETIME_MS).stored == 1


def test_copies_are_judged_by_what_is_stored() -> None:
    ledger = MemoryLedger()
    worker = ScoreWorker(ledger, MemoryBus(), FixedTopology(), FixedCalibration(), now=lambda: 1_790_000_000_000)
    event = stored_event("a")
    stored = Message("m1", "demo", "t", {"events": [event], "digests": ["22" * 16]})
    assert worker.handle(sealed(stored), lambda: LIFETIME_MS).stored == 1
    both = [
        Message(name, "demo", "t", {"events": [stored_event("a")], "digests": [digest * 16]})
        for name, digest in (("m2", "11"), ("m3", "22"))
    ]
    outcome = worker.handle(sealed(*both), lambda: LIFETIME_MS)
    assert (outcome.refused, outcome.duplicates, outcome.failed) == (1, 1, set())
    assert ledger.refused == {("demo", event["event_id"], b"\x11" * 16)}


def test_too_little_time_gives_messages_back_untouched() -> None:
    ledger = MemoryLedger()
    worker = ScoreWorker(ledger, MemoryBus(), FixedTopology(), FixedCalibration(), now=lambda: 1_790_000_000_000)
    message = Message("m1", "demo", "t", {"events": [stored_event("a")], "digests": ["00" * 16]})
    assert worker.handle(sealed(message), lambda: 500).failed == {"m1"}
    assert not ledger.marks


class Batch:
    """Messages of one event each that unpack to half a portion; every commit takes `commit_ms` of the time left."""

    def __init__(self, count: int, commit_ms: int = 0, left_ms: int = 20_000) -> None:
        self.left_ms, self.commit_ms = left_ms, commit_ms
        self.opened: list[str] = []
        self.ledger = MemoryLedger(self._step)
        self.bus = MemoryBus()
        self.messages = [Sealed(f"m{i}", lambda i=i: self._open(i)) for i in range(count)]  # type: ignore[misc]
        #: Messages opened and facts told when each commit was made.
        self.commits: list[tuple[int, int]] = []

    def _step(self, name: str) -> None:
        if name == "committed":
            self.commits.append((len(self.opened), len(self.bus.facts)))
            self.left_ms -= self.commit_ms

    def _open(self, i: int) -> Message:
        self.opened.append(f"m{i}")
        payload = {"events": [stored_event(f"e{i}")], "digests": ["00" * 16]}
        return Message(f"m{i}", "demo", "t", payload, size=PORTION_BYTES // 2)

    def work(self) -> set[str]:
        worker = ScoreWorker(self.ledger, self.bus, FixedTopology(), FixedCalibration(), now=lambda: 1_790_000_000_000)
        return worker.handle(self.messages, lambda: self.left_ms).failed


def test_a_batch_is_opened_committed_and_announced_in_bounded_portions() -> None:
    batch = Batch(7)
    assert batch.work() == set()
    assert batch.commits == [(2, 0), (4, 1), (6, 2), (7, 3)]
    assert len(batch.bus.facts) == 4
    assert batch.ledger.counters == {"demo": 7}


def test_what_there_is_no_time_for_goes_back_unopened() -> None:
    batch = Batch(10, commit_ms=6_000)
    assert batch.work() == {"m4", "m5", "m6", "m7", "m8", "m9"}, "8 s are left, and the next portion may take 6 s"
    assert batch.opened == ["m0", "m1", "m2", "m3"]
    assert batch.ledger.counters == {"demo": 4}
    batch.left_ms, batch.commit_ms = 20_000, 0
    assert batch.work() == set()
    assert batch.ledger.counters == {"demo": 10}


def test_messages_that_cannot_be_opened_go_back_alone() -> None:
    def forged() -> Message:
        raise Refusal("ERR_SCHEMA", "envelope is not authentic")

    batch = Batch(2)
    batch.messages.insert(1, Sealed("forged", forged))
    assert batch.work() == {"forged"}
    assert batch.ledger.counters == {"demo": 2}


def test_messages_of_a_deleted_project_are_dropped() -> None:
    def gone() -> Message:
        raise Refusal("ERR_PROJECT_DELETED", "The project was deleted.")

    batch = Batch(2)
    batch.messages.insert(0, Sealed("gone", gone))
    assert batch.work() == set()
    assert batch.ledger.counters == {"demo": 2}
