"""The DynamoDB ledger keeps its promises on a real table: claims, tombstones, head, states across folds."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from tests.support.events import stored_event

from tocsin.aws import ledger as ledger_module
from tocsin.aws.ledger import DynamoLedger
from tocsin.kernel import clock
from tocsin.signals.ports import Commit, CommitDead, HeadMoved

pytestmark = pytest.mark.stack

NOW_MS = clock.now_ms()


@pytest.fixture
def project() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make(deployed: Any) -> Any:
    return lambda: DynamoLedger(deployed.table, deployed.bucket, deployed.sealer, retention_days=7)


def commit_of(
    ledger: DynamoLedger, project: str, commit_id: str, events: list[dict[str, Any]], **states: Any
) -> Commit:
    scored = [event | {"tier": "medium", "score": 0.5, "ruling_ms": NOW_MS, "fingerprint": "fp1_x"} for event in events]
    return Commit(
        commit_id=commit_id,
        head=ledger.head(project),
        at=NOW_MS,
        trace_id="trace",
        events=scored,
        hot=states.get("hot", {}),
        full=states.get("full", {}),
        versions={"scorer": "x", "topology": "topology-0"},
    )


def test_a_claim_is_held_by_one_attempt_and_survives_its_own_repeat(make: Any, project: str) -> None:
    ledger = make()
    digests = {f"evt_{i:026d}": bytes(16) for i in range(60)}
    assert ledger.claim(project, "cmt_a", digests, NOW_MS) == {}
    assert ledger.claim(project, "cmt_a", digests, NOW_MS) == {}
    foreign = ledger.claim(project, "cmt_b", digests, NOW_MS)
    assert {mark.commit_id for mark in foreign.values()} == {"cmt_a"}
    assert len(foreign) == 60


def test_a_buried_attempt_cannot_commit_and_a_committed_one_cannot_be_buried(make: Any, project: str) -> None:
    ledger = make()
    assert ledger.bury(project, "cmt_a", NOW_MS) == "dead"
    with pytest.raises(CommitDead):
        ledger.commit(project, commit_of(ledger, project, "cmt_a", [stored_event("a")]))
    assert ledger.head(project).n == 0
    assert ledger.commit(project, commit_of(ledger, project, "cmt_b", [stored_event("a")])) == 1
    assert ledger.bury(project, "cmt_b", NOW_MS) == "committed"
    assert ledger.statuses(project, ["cmt_a", "cmt_b", "cmt_c"]) == {
        "cmt_a": "dead",
        "cmt_b": "committed",
        "cmt_c": "absent",
    }


def test_a_commit_on_an_old_head_changes_nothing_and_a_repeated_one_is_recognised(make: Any, project: str) -> None:
    ledger = make()
    first, late = (commit_of(ledger, project, one, [stored_event(one[-1])]) for one in ("cmt_a", "cmt_b"))
    assert ledger.commit(project, first) == 1
    with pytest.raises(HeadMoved):
        ledger.commit(project, late)
    assert ledger.commit(project, first) == 1
    assert [entry.commit_id for entry in ledger.read(project, 1, 10)] == ["cmt_a"]


def test_take_over_needs_the_old_owner(make: Any, project: str) -> None:
    ledger = make()
    ledger.claim(project, "cmt_a", {"evt_x": bytes(16)}, NOW_MS)
    mark = ledger.claim(project, "cmt_b", {"evt_x": bytes(16)}, NOW_MS)["evt_x"]
    digests = {"evt_x": bytes(16)}
    assert ledger.take_over(project, {"evt_x": mark}, "cmt_b", digests, NOW_MS) == {"evt_x"}
    assert ledger.take_over(project, {"evt_x": mark}, "cmt_c", digests, NOW_MS) == set()
    # repeated after a lost answer, it is still ours
    assert ledger.take_over(project, {"evt_x": mark}, "cmt_b", digests, NOW_MS) == {"evt_x"}


def test_many_new_sources_in_one_commit_are_remembered(make: Any, project: str) -> None:
    ledger = make()
    events = [stored_event(f"e{i}", source=f"host-{i}/🔔" * 5) for i in range(150)]
    assert ledger.commit(project, commit_of(ledger, project, "cmt_a", events)) == 1
    assert len(make().sources(project)) == 150


def test_expired_commits_are_gone_for_readers_and_what_follows_is_not(make: Any, project: str) -> None:
    ledger = make()
    old = commit_of(ledger, project, "cmt_a", [stored_event("a")])
    ledger.commit(project, replace(old, at=NOW_MS - 8 * clock.DAY))
    ledger.commit(project, commit_of(ledger, project, "cmt_b", [stored_event("b")]))
    assert [entry.n for entry in ledger.read(project, 1, 10)] == [2]
    assert list(ledger.rows_at(project, [1, 2])) == [2]


def test_reading_stops_at_a_budget_but_never_before_one_commit(make: Any, project: str) -> None:
    ledger = make()
    for name in ("a", "b", "c"):
        ledger.commit(project, commit_of(ledger, project, f"cmt_{name}", [stored_event(name, body="x" * 5_000)]))
    assert [entry.n for entry in ledger.read(project, 1, 10, max_bytes=1)] == [1]
    assert [entry.n for entry in ledger.read(project, 1, 10, max_bytes=12_500)] == [1, 2]


def test_large_segments_go_to_the_bucket_and_come_back_whole(make: Any, project: str) -> None:
    ledger = make()
    events = [stored_event(f"e{i}", body="".join(uuid.uuid4().hex for _ in range(20))) for i in range(40)]
    ledger.commit(project, commit_of(ledger, project, "cmt_a", events))
    ((number, row),) = ledger.rows(project, 1, 5)
    assert number == 1
    assert row["s3"].startswith(f"segments/{project}/")
    assert [event["id"] for event in ledger.read(project, 1, 5)[0].events] == [event["id"] for event in events]


def test_states_are_the_same_for_a_warm_a_cold_and_a_racing_reader(
    make: Any, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "FOLD_EVERY", 4)
    warm, other = make(), make()
    expected: dict[bytes, bytes] = {}
    expected_full: dict[bytes, bytes] = {}
    for number in range(1, 15):
        writer = warm if number % 3 else other
        head = writer.head(project)
        keys = [bytes([17 * (number * k) % 251, k] + [0] * 6) for k in range(1, 6)]
        hot, full = writer.states(project, head, keys, keys[:1])
        assert hot == {key: expected[key] for key in keys if key in expected}
        assert full == {key: expected_full[key] for key in keys[:1] if key in expected_full}
        changed = {key: f"{number}".encode() * 3 for key in keys}
        changed_full = {keys[0]: f"full {number}".encode() * 50}
        writer.commit(
            project,
            commit_of(writer, project, f"cmt_{number}", [stored_event(f"e{number}")], hot=changed, full=changed_full),
        )
        expected |= changed
        expected_full |= changed_full
    cold = make()
    head = cold.head(project)
    assert head.folded >= 8
    assert cold.states(project, head, list(expected), list(expected_full)) == (expected, expected_full)
    assert warm.states(project, head, list(expected), list(expected_full)) == (expected, expected_full)
    assert cold.sources(project) == ["prometheus"]
