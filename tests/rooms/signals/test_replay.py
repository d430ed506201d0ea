from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from tests.support.events import stored_event
from tests.support.pipeline_fakes import FixedTopology, MemoryIncidentStore, MemoryLedger, MemoryOutbox

from tocsin.kernel.canonical import canonical_json
from tocsin.signals import scoring
from tocsin.signals.calibration import MICRO, Calibrator, Calibrators
from tocsin.signals.correlator import CorrelateWorker
from tocsin.signals.incidents import DEFAULT_POLICY, Incident
from tocsin.signals.ports import Commit, Recorded
from tocsin.signals.replay import MOST_SHOWN, Replay
from tocsin.signals.topology import Topology

NOW = 1_790_000_000_000
TOPOLOGY = Topology.from_document({"services": {"web": {"deps": ["db"]}, "db": {"criticality": 0.9}}})
TROUBLES = [
    ("web", "slow answers"),
    ("db", "connections exhausted"),
    ("mail", "bounced messages"),
    ("backup", "nightly copy missing"),
    ("billing", "invoice mismatch"),
    ("search", "index stale"),
]
DAMPED = Calibrators({"prometheus": Calibrator("calibration-1", MICRO // 2, -MICRO)}, {"prometheus": 0.25})
TOPOLOGIES = {"topology-0": Topology.empty(), "topology-1": TOPOLOGY}
CALIBRATIONS = {"identity": Calibrators(), "calibration-1": DAMPED}


def log(commits: int, seed: int = 7, *, calibration: str = "identity") -> list[Recorded]:
    """A log as the score stage writes it: storms on a few services, metrics that jump, resolutions."""
    rng = random.Random(seed)
    hot: dict[bytes, bytes] = {}
    full: dict[bytes, bytes] = {}
    recorded = []
    for n in range(1, commits + 1):
        at = NOW + n * 20_000
        topology = "topology-1" if n > commits // 3 else "topology-0"
        events: list[dict[str, Any]] = []
        for i in range(rng.randint(1, 12)):
            service, trouble = rng.choice(TROUBLES)
            source = rng.choice(["prometheus", "sentry"])
            event = stored_event(
                f"e-{n}-{i}",
                at=at - rng.randint(0, 5_000),
                source=source,
                trace_id=f"trace-{n}-{i}",
                tags={"service": service},
                dedup_key=f"{source}|{service}",
                type=f"{service}.{trouble.split()[0]}",
                title=f"{trouble}: {rng.randint(1, 9999)}",
                entity={"type": "service", "id": service},
                severity_raw=rng.choice(["critical", "warning", "info"]),
                status="resolved" if rng.random() < 0.1 else "firing",
                metrics={"ms": rng.gauss(100, 5) * (10 if rng.random() < 0.05 else 1)},
            )
            del event["severity_id"]  # as most senders send it: scoring fills it in
            events.append(event)
        prepared = [scoring.prepare(event, TOPOLOGIES[topology]) for event in events]
        scored = scoring.score(prepared, hot, full, CALIBRATIONS[calibration])
        hot, full = hot | scored.hot, full | scored.full
        versions = {**scoring.VERSIONS, "topology": topology, "calibrators": calibration}
        recorded.append(Recorded(n, at, scored.events, scored.hot, scored.full, versions))
    return recorded


def replayed(commits: list[Recorded], start: int = 0, against: str | None = None) -> Replay:
    replay = Replay("p", topology_of=TOPOLOGIES.get, calibrators_of=CALIBRATIONS.get, against=against)
    for commit in commits[:start]:
        replay.warm(commit)
    for commit in commits[start:]:
        replay.take(commit)
    return replay


@pytest.mark.parametrize("start", [0, 1, 40, 119])
@pytest.mark.parametrize("calibration", ["identity", "calibration-1"])
def test_the_log_repeats_to_the_byte_from_any_point(start: int, calibration: str) -> None:
    commits = log(120, calibration=calibration)
    account = replayed(commits, start).account()
    assert account.exact
    assert account.events == account.identical == sum(len(one.events) for one in commits[start:])
    assert (account.commits, account.same_states) == (120 - start, 120 - start)
    assert account.changed == []
    assert account.incidents["before"] == account.incidents["same_members"] > 0


def test_a_single_changed_score_or_state_is_found() -> None:
    commits = log(30)
    forged = [{**commits[9].events[0], "score": 0.123456}, *commits[9].events[1:]]
    account = replayed([*commits[:9], replace(commits[9], events=forged), *commits[10:]]).account()
    assert not account.exact
    assert account.events - account.identical == 1
    assert account.changed[0]["event_id"] == forged[0]["event_id"]
    key, state = next(iter(commits[9].hot.items()))
    bent = replace(commits[9], hot={**commits[9].hot, key: state[:-1] + bytes([state[-1] ^ 1])})
    assert replayed([*commits[:9], bent, *commits[10:]]).account().same_states == 29


def test_states_are_those_before_the_point_and_no_others() -> None:
    commits = log(60)
    cold = Replay("p", topology_of=TOPOLOGIES.get, calibrators_of=CALIBRATIONS.get)
    for commit in commits[40:]:
        cold.take(commit)
    assert not cold.account().exact


def test_other_calibrators_are_accounted_for_before_they_go_live() -> None:
    account = replayed(log(120), against="calibration-1").account()
    shown = account.as_json()
    assert not account.exact
    assert 0 < account.identical < account.events  # sentry has no calibrator of its own
    assert account.same_states == account.commits  # states do not depend on calibrators
    order = ["info", "low", "medium", "high", "critical"]
    assert all(order.index(move["from"]) > order.index(move["to"]) for move in shown["tier_moves"])
    assert len(shown["most_changed"]) == MOST_SHOWN
    moved = [abs(one["after"]["score"] - one["before"]["score"]) for one in shown["most_changed"]]
    assert moved == sorted(moved, reverse=True)
    assert shown["incidents"]["same_members"] < shown["incidents"]["before"]


def test_a_version_that_is_not_kept_is_named() -> None:
    commits = [replace(one, versions={**one.versions, "topology": "topology-9"}) for one in log(3)]
    assert replayed(commits).account().as_json()["versions_not_kept"] == ["topology-9"]


@pytest.mark.parametrize("seed", [3, 7, 11])
def test_what_the_live_stage_grouped_is_what_a_replay_finds(seed: int) -> None:
    """The topology changes in the middle of the log, before the live stage has seen any of it."""
    commits = log(90, seed)
    ledger, store, outbox = MemoryLedger(), MemoryIncidentStore(), MemoryOutbox()
    for one in commits:
        head = ledger.head("p")
        ledger.commit("p", Commit(f"c-{one.n}", head, one.at, "t", one.events, one.hot, one.full, one.versions))
    topologies = FixedTopology(TOPOLOGY, TOPOLOGIES)
    worker = CorrelateWorker(ledger, store, outbox, topologies, policy=DEFAULT_POLICY, now=lambda: commits[-1].at)
    worker.catch_up("p", lambda: 60_000)
    live = {name: one for name in store.rows if (one := store.get("p", name)).merged_into is None}
    again = replayed(commits).incidents()
    assert live.keys() == again.keys()
    assert len(live) > 3
    for name, one in live.items():
        assert canonical_json(_judged(one)) == canonical_json(_judged(again[name]))


def _judged(incident: Incident) -> dict[str, Any]:
    """An incident apart from when the stage ran, and from how members and transitions were cut into rows by that."""
    left_out = {"opened_at", "updated_at", "timer_due", "version", "seq", "recent"}
    return {name: value for name, value in incident.to_row().items() if name not in left_out}
