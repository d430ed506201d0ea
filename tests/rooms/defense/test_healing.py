"""The supervisor against a world in memory: what it repairs, what it leaves to people, and what it must not
do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.healing_fakes import QUEUES, World
from tocsin.defense.healing import REPLAYED, STALE_TICK_MS, Policy, Supervisor, is_stale
from tocsin.defense.ports import Depth, Lag, Lease, Memory
from tocsin.defense.repairing import choose, healers
from tocsin.kernel import clock, ids
from tocsin.kernel.errors import Retry
from tocsin.signals import events as ces
from tocsin.signals import severity

START = 1_795_176_000_000
TICK = 5_000


class Watch:
    """A supervisor and its world, run tick by tick."""

    def __init__(self, **policy: object) -> None:
        self.world = World()
        self.policy = Policy(**policy)  # type: ignore[arg-type]
        self.now = START
        world = self.world
        self.supervisor = Supervisor(world, world, world, world, world, self.policy)

    def run(self, runs: int = 1, step: int = TICK) -> None:
        for _ in range(runs):
            self.report = self.supervisor.run(self.now)
            self.now += step

    def outcomes(self) -> list[tuple[str, str]]:
        return [(one["target"], one["outcome"]) for one in self.world.healings.values()]


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_a_healthy_deployment_leaves_no_trace(watch: Watch) -> None:
    watch.run(20)
    assert watch.world.healings == {}
    assert watch.world.events == []
    assert watch.world.done == []
    kept = asdict(watch.world.kept)
    assert {name for name, value in kept.items() if value} == {"depth_at"}


def test_a_disabled_mapping_is_enabled_at_first_sight_and_seen_well_at_the_next(watch: Watch) -> None:
    watch.world.states["score"] = "Disabled"
    watch.world.changed_at = START - 3_000
    watch.run()
    (record,) = watch.world.healings.values()
    assert watch.world.done == [("enable", "score")]
    assert (record["target"], record["finding"], record["action"]) == ("mapping score", "disabled", "enable")
    assert (record["outcome"], record["attempts"], record["detected_after_ms"]) == ("repaired", 1, 3_000)
    assert record["at"] == clock.rfc3339(START)
    assert ids.id_time_ms(record["id"]) == START
    watch.run()
    (record,) = watch.world.healings.values()
    assert record["outcome"] == "healed"
    assert record["healed_after_ms"] == TICK
    assert [event["status"] for event in watch.world.events] == ["firing", "resolved"]
    assert len({event["dedup_key"] for event in watch.world.events}) == 1
    assert len({event["id"] for event in watch.world.events}) == 2


def test_a_mapping_on_its_way_is_left_alone(watch: Watch) -> None:
    for state in ("Enabling", "Disabling", "Updating", "Creating"):
        watch.world.states["score"] = state
        watch.run()
    assert watch.world.done == []
    assert watch.world.healings == {}


def test_what_is_not_there_cannot_be_repaired_and_people_are_told_once(watch: Watch) -> None:
    watch.world.states["relay"] = "Missing"
    watch.world.rules["digest"] = "MISSING"
    watch.run(10)
    assert watch.world.done == []
    assert sorted(watch.outcomes()) == [("mapping relay", "paged"), ("schedule digest", "paged")]
    assert len(watch.world.events) == 2


def test_three_repairs_in_ten_minutes_then_people(watch: Watch) -> None:
    watch.world.curable = False
    watch.world.states["score"] = "Disabled"
    watch.run(100)
    assert watch.world.done == [("enable", "score")] * 3
    (record,) = watch.world.healings.values()
    assert (record["outcome"], record["action"], record["attempts"]) == ("paged", "page", 3)
    assert [event["severity_raw"] for event in watch.world.events] == ["error", "critical"]
    watch.run(60)  # ten minutes after the first repair it may try again
    assert len(watch.world.done) > 3


def test_a_target_that_flaps_is_repaired_three_times_and_paged_once(watch: Watch) -> None:
    for _ in range(10):
        watch.world.states["score"] = "Disabled"
        watch.run()
        watch.world.states["score"] = "Enabled"
        watch.run()
    assert watch.world.done == [("enable", "score")] * 3
    assert len(watch.world.healings) == 10
    pages = [event for event in watch.world.events if event["severity_raw"] == "critical"]
    assert [event["status"] for event in pages] == ["firing", "resolved"] + ["resolved"] * (len(pages) - 2)


def test_a_probe_that_fails_is_no_reason_to_repair(watch: Watch) -> None:
    watch.world.states["score"] = "Disabled"
    watch.world.broken = {"mappings", "schedules", "queues", "dead_letters", "beats", "lags", "leases"}
    watch.run(2)
    assert watch.world.done == []
    assert watch.world.healings == {}
    watch.run(10)
    assert watch.world.done == []
    assert {outcome for _, outcome in watch.outcomes()} == {"paged"}
    assert ("probe mappings", "paged") in watch.outcomes()


def test_a_probe_that_flaps_is_believed_in_between(watch: Watch) -> None:
    """F44: one failed look changes nothing, and an open episode does not end because nobody looked."""
    watch.world.curable = False
    watch.world.states["score"] = "Disabled"
    watch.run()
    watch.world.broken = {"mappings"}
    watch.run()
    assert watch.outcomes() == [("mapping score", "repaired")]
    watch.world.broken = set()
    watch.run()
    assert len(watch.world.healings) == 1


def test_a_rule_that_is_off_is_switched_on(watch: Watch) -> None:
    watch.world.rules["facts"] = "DISABLED"
    watch.run(2)
    assert watch.world.done == [("enable rule", "facts")]
    assert watch.outcomes() == [("schedule facts", "healed")]


def test_a_repair_that_is_not_taken_is_recorded_and_tried_again(watch: Watch) -> None:
    watch.world.states["notify"] = "Disabled"
    watch.world.broken = {"enable_mapping"}
    watch.run()
    (record,) = watch.world.healings.values()
    assert (record["outcome"], record["reason"]) == ("failed", "enable_mapping does not answer")
    watch.world.broken = set()
    watch.run(2)
    (record,) = watch.world.healings.values()
    assert (record["outcome"], record["attempts"]) == ("healed", 2)


def test_an_event_that_is_not_taken_is_sent_by_a_later_run(watch: Watch) -> None:
    watch.world.curable = False
    watch.world.states["score"] = "Disabled"
    watch.world.broken = {"send"}
    watch.run()
    assert watch.report.unheard == 1
    watch.world.broken = set()
    watch.run()
    assert [event["status"] for event in watch.world.events] == ["firing"]


def test_correlation_is_woken_only_when_it_stands_still(watch: Watch) -> None:
    for done in range(1, 8):  # slow, but moving
        watch.world.projects = [Lag("shop", 50, done)]
        watch.run()
    assert watch.world.done == []
    watch.run(3)
    assert watch.world.done == [("wake", "shop")]
    watch.world.projects = [Lag("shop", 50, 51)]
    watch.run()
    assert watch.outcomes() == [("project shop", "healed")]


def test_every_project_is_looked_at_in_turn() -> None:
    watch = Watch(projects=3)
    watch.world.projects = [Lag(f"p{i}", 5, 1) for i in range(8)]
    watch.run(20)
    assert {name for _, name in watch.world.done} == {f"p{i}" for i in range(8)}


def test_a_silent_relay_gets_a_tick_and_a_silent_digest_a_person(watch: Watch) -> None:
    watch.world.last = {"relay": START - 200_000, "digest": START - 3 * clock.HOUR}
    watch.run()
    assert watch.world.ticks == [("relay", [0])]
    assert sorted(watch.outcomes()) == [("worker digest", "paged"), ("worker relay", "repaired")]


def test_a_worker_that_never_ran_is_not_judged(watch: Watch) -> None:
    watch.run(100)
    assert watch.world.healings == {}


def test_a_lease_is_released_only_after_its_end_and_some_grace(watch: Watch) -> None:
    watch.world.held = [Lease("relay", "worker-1", START - 2_000, 7)]
    watch.run()
    assert watch.world.done == []
    watch.run(2)
    assert watch.world.done == [("release", "relay")]
    assert watch.outcomes() == [("lease relay", "healed")]


def test_a_queue_stalls_when_messages_wait_and_nobody_has_one_in_hand(watch: Watch) -> None:
    watch.world.depths["notify"] = Depth(10, 0)
    watch.run(6)
    assert watch.outcomes() == []  # half a minute: not yet
    watch.run(12)
    assert watch.outcomes() == [("queue notify", "paged")]
    assert watch.world.done == []
    watch.world.depths["notify"] = Depth(0, 0)
    watch.run(20)
    assert watch.outcomes() == [("queue notify", "cleared")]


def test_a_busy_queue_is_not_stalled(watch: Watch) -> None:
    for i in range(40):
        watch.world.depths["score"] = Depth(1_000 + i, 4)  # grows, but is worked on
        watch.world.depths["notify"] = Depth(max(1, 500 - 10 * i), 0)  # drains
        watch.run()
    assert watch.outcomes() == []


def test_dead_letters_are_sent_back_once_and_what_comes_back_stays_for_people(watch: Watch) -> None:
    watch.world.dead["score"], watch.world.parked_before["score"] = Depth(3, 0), 3
    watch.run()
    (record,) = watch.world.healings.values()
    assert (record["action"], record["outcome"]) == ("replay", "repaired")
    assert "3 were sent back" in record["text"]
    watch.run()
    assert watch.outcomes() == [("dead-letters score", "healed")]
    watch.world.dead["score"] = Depth(2, 0)  # two were given up again
    watch.run(200)
    assert watch.world.done == [("replay", "score")] * 2, "the second time there is nothing left to send back"
    assert watch.outcomes()[-1] == ("dead-letters score", "paged")
    assert watch.world.dead["score"].visible == 2
    assert watch.world.events[-1]["severity_raw"] == "critical"


def test_a_replay_is_bounded_whatever_lies_there(watch: Watch) -> None:
    watch.world.dead["score"], watch.world.parked_before["score"] = Depth(1_000, 0), 1_000
    watch.run(20)
    assert watch.world.dead["score"].visible == 1_000 - 3 * REPLAYED
    assert watch.outcomes()[-1] == ("dead-letters score", "paged")


@pytest.mark.parametrize(
    ("kind", "finding", "hand", "spent", "healer"),
    [
        ("mapping", "disabled", "enable", False, "enable"),
        ("mapping", "disabled", "enable", True, "page"),
        ("mapping", "missing", "page", False, "page"),
        ("schedule", "disabled", "enable", False, "enable"),
        ("worker", "silent", "tick", False, "tick"),
        ("worker", "silent", "page", False, "page"),
        ("project", "behind", "wake", False, "wake"),
        ("lease", "stuck", "release", False, "release"),
        ("dead-letters", "parked", "replay", False, "replay"),
        ("dead-letters", "parked", "replay", True, "page"),
        ("queue", "stalled", "page", False, "page"),
        ("probe", "unreadable", "page", False, "page"),
    ],
)
def test_who_heals_is_a_decision_that_strangers_can_check(
    kind: str, finding: str, hand: str, spent: bool, healer: str, tmp_path: Path
) -> None:
    down = {name: "unable" for name in healers() if name not in (hand, "page")} | ({hand: "spent"} if spent else {})
    choice = choose(kind, finding, down)
    assert choice.healer == healer
    proof = choice.proof()
    files = []
    for name in ("snapshot", "health", "certificate"):
        (tmp_path / name).write_text(proof[name], "utf-8")
        files.append(str(tmp_path / name))
    run = subprocess.run([sys.executable, "tools/checker.py", *files], capture_output=True, text=True, check=False)
    assert run.stdout.startswith("VERIFIED"), run.stdout + run.stderr
    assert json.loads(proof["certificate"])["receipt"]["decision"] == {"name": healer, "version": 1}


def test_every_record_carries_the_certificate_of_its_last_decision(watch: Watch) -> None:
    watch.world.states["score"], watch.world.rules["digest"] = "Disabled", "MISSING"
    watch.run(2)
    told = {one["target"]: one["decision"]["healer"] for one in watch.world.healings.values()}
    assert told == {"mapping score": "enable", "schedule digest": "page"}
    assert "decision" not in json.dumps(asdict(watch.world.kept)), "what can be derived is not remembered"


def test_dead_letters_are_told_at_one_and_again_at_a_hundred(watch: Watch) -> None:
    watch.world.kept.spent["dead-letters score"] = START
    watch.world.dead["score"] = Depth(1, 0)
    watch.run(20)
    assert len(watch.world.events) == 1
    watch.world.dead["score"] = Depth(99, 0)
    watch.run(20)
    assert len(watch.world.events) == 1
    watch.world.dead["score"] = Depth(100, 0)
    watch.run(20)
    assert len(watch.world.events) == 2
    assert len({event["id"] for event in watch.world.events}) == 2
    assert watch.world.done == []  # what was sent back lately is not sent back again
    watch.world.dead["score"] = Depth(0, 0)
    watch.run(20)
    assert watch.world.events[-1]["status"] == "resolved"


def test_ticks_cover_the_coming_minute_without_gap_or_overlap(watch: Watch) -> None:
    due: list[int] = []
    for late in (0, 61_500, 119_000, 180_000):  # the schedule is early and late by a little
        watch.world.ticks.clear()
        watch.supervisor.run(START + late, scheduled=True)
        due += [START + late + 1_000 * d for queue, delays in watch.world.ticks for d in delays if queue == "relay"]
        assert {queue for queue, _ in watch.world.ticks} == {"relay", "supervise"}
        assert all(0 <= d < 60 for _, delays in watch.world.ticks for d in delays)
    gaps = [later - earlier for earlier, later in pairwise(due)]
    assert min(gaps) >= 4_000
    assert max(gaps) <= 7_000


def test_a_tick_run_enqueues_no_ticks(watch: Watch) -> None:
    watch.run(30)
    assert watch.world.ticks == []


def test_without_ticks_the_relay_still_runs_every_minute() -> None:
    watch = Watch(tick_seconds=0)
    watch.supervisor.run(START, scheduled=True)
    watch.supervisor.run(START + 60_000, scheduled=True)
    assert watch.world.ticks == [("relay", [0]), ("relay", [0])]


def test_a_busy_memory_stops_the_look_but_not_the_ticks(watch: Watch) -> None:
    watch.world.taken = True
    watch.world.states["score"] = "Disabled"
    report = watch.supervisor.run(START, scheduled=True)
    assert report.busy
    assert report.ticks == 12
    assert watch.world.done == []


def test_the_memory_is_given_back_when_a_run_fails(watch: Watch) -> None:
    watch.world.states["score"] = "Disabled"
    watch.world.broken = {"record"}
    with pytest.raises(Retry):
        watch.run()
    assert watch.world.kept.repairs == {"mapping score": [START]}


def test_the_memory_survives_json_and_stays_small(watch: Watch) -> None:
    watch.world.curable = False
    watch.world.states = dict.fromkeys(QUEUES, "Disabled")
    watch.world.dead = {name: Depth(5, 0) for name in QUEUES}
    watch.world.depths = {name: Depth(5, 0) for name in QUEUES}
    watch.world.projects = [Lag(f"p{i}", 5, 1) for i in range(200)]
    watch.run(50)
    text = json.dumps(asdict(watch.world.kept))
    assert Memory(**json.loads(text)) == watch.world.kept
    assert len(text) < 300_000


def test_its_events_are_valid_events(watch: Watch) -> None:
    watch.world.states["score"] = "Disabled"
    watch.world.dead["score"] = Depth(1, 0)
    watch.world.broken = {"lags"}
    watch.run(20)
    assert watch.world.events
    for event in watch.world.events:
        valid = ces.validate(dict(event))
        assert valid["source"] == "tocsin.supervisor"
        assert severity.severity_id(valid["source"], valid["severity_raw"]) in (3, 4, 5)


@given(st.lists(st.sets(st.sampled_from(QUEUES)), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_no_target_is_ever_repaired_more_than_three_times_in_ten_minutes(breaks: list[set[str]]) -> None:
    watch = Watch()
    times: dict[str, list[int]] = {}
    for broken in breaks:
        for name in broken:
            watch.world.states[name] = "Disabled"
        before = len(watch.world.done)
        watch.run()
        for _, name in watch.world.done[before:]:
            times.setdefault(name, []).append(watch.now)
    for at in times.values():
        assert all(later - earlier >= 600_000 for earlier, later in zip(at, at[3:], strict=False))


def test_old_ticks_are_dropped_and_other_messages_are_not() -> None:
    assert is_stale({"tick": {"at": START}}, START + STALE_TICK_MS + 1)
    assert not is_stale({"tick": {"at": START}}, START + STALE_TICK_MS)
    assert not is_stale({"tick": {}}, START)
    assert not is_stale({"wake": {"at": 0}}, START)
