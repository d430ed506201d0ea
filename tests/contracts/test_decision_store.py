"""The stores of decisions in memory and in AWS keep the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from tests.rooms.decisions.memory import Log
from tests.support.keys import FixedRing

from tocsin.aws import keys
from tocsin.aws.decision_store import DynamoDecisionLog
from tocsin.aws.table import Table
from tocsin.decisions.ports import Decided, decision_ids
from tocsin.kernel import clock
from tocsin.kernel.cause import acting
from tocsin.kernel.envelope import unpack
from tocsin.kernel.errors import Refusal
from tocsin.kernel.ids import new_id
from tocsin.kernel.sealing import Sealer, is_sealed

NOW = clock.now_ms()
BATCH = new_id("dec", NOW)


def decided(n: int) -> Decided:
    receipt = {"v": 1, "request": f"{n:064x}", "snapshot": "5" * 64, "health": "7" * 64, "decision": None}
    return Decided(receipt, {"principal": "key_a", "capabilities": ["mail.send"], "trust": n})


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("dynamodb")
        names = (("pk", "HASH"), ("sk", "RANGE"))
        client.create_table(
            TableName="t",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in names],  # type: ignore[misc]
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in names],
        )
        yield Table(client, "t", pause=lambda _: None)


def stored(table: Table, project: str = "p1", ring: FixedRing | None = None) -> DynamoDecisionLog:
    return DynamoDecisionLog(table, Sealer(ring or FixedRing()), project, retention_days=30)


@pytest.fixture(params=["memory", "dynamodb"])
def log(request: pytest.FixtureRequest) -> Any:
    return Log() if request.param == "memory" else stored(request.getfixturevalue("table"))


def test_one_decision_is_found_by_the_name_of_its_batch_and_by_no_other(log: Any) -> None:
    log.append(BATCH, [decided(1)])
    assert decision_ids(BATCH, 1) == [BATCH]
    assert log.get(BATCH) == decided(1)
    assert log.get(f"{BATCH}-n0") is None
    assert log.get(new_id("dec", NOW)) is None


def test_each_decision_of_a_batch_has_its_own_name(log: Any) -> None:
    log.append(BATCH, [decided(n) for n in range(100)])
    names = decision_ids(BATCH, 100)
    assert len(set(names)) == 100
    assert [log.get(name) for name in names[::33]] == [decided(n) for n in range(100)[::33]]
    assert log.get(BATCH) is None
    assert log.get(f"{BATCH}-n100") is None
    assert dict(log.together(BATCH)) == {name: decided(n) for n, name in enumerate(names)}
    assert not log.together(new_id("dec", NOW))


def test_health_is_kept_under_its_digest_and_again_is_harmless(log: Any) -> None:
    health = {"epoch": 3, "down": {"a@1": "lease"}, "attested": []}
    assert log.health("ab") is None
    log.put_health("ab", health)
    log.put_health("ab", health)
    assert log.health("ab") == health


def test_what_is_kept_is_sealed_expires_and_is_nobody_elses(table: Table) -> None:
    ring = FixedRing()
    log = stored(table, ring=ring)
    log.append(BATCH, [decided(1)])
    log.put_health("ab", {"epoch": 1, "down": {}, "attested": []})
    for key, least in ((keys.decisions("p1", BATCH), 30), (keys.decided_health("p1", "ab"), 31)):
        row = table.get(key)
        assert row is not None
        assert is_sealed(row["z"])
        assert row["exp"] >= NOW // 1000 + least * clock.DAY // 1000
    assert stored(table, "p2").get(BATCH) is None
    assert stored(table, "p2").health("ab") is None
    ring.gone.add("p1")
    with pytest.raises(Refusal) as refused:
        log.get(BATCH)
    assert refused.value.code == "ERR_PROJECT_DELETED"


def test_decisions_leave_evidence_in_their_own_transaction(table: Table) -> None:
    with acting("key_a", "trace-of-the-call"):
        stored(table).append(BATCH, [decided(1), decided(2)])
    (row,) = table.query(keys.evidence_partition("p1", keys.day(clock.now_ms())))
    (entry,) = unpack(row["z"])["entries"]
    assert (entry["kind"], entry["action"], entry["resource"]) == (
        "decision.made",
        "decision:make",
        f"decision:{BATCH}",
    )
    assert (entry["actor"], entry["trace_id"]) == ("key_a", "trace-of-the-call")
    assert list(entry["digests"]) == ["receipts"]


def test_more_than_a_row_takes_is_refused_and_nothing_is_kept(table: Table) -> None:
    noise = [f"{i * 7919 % 999_983:06d}{i * 104_729 % 1_299_709:07d}" for i in range(90_000)]
    with pytest.raises(Refusal) as refused:
        stored(table).append(BATCH, [Decided({}, {"input": noise})])
    assert refused.value.code == "ERR_BATCH_TOO_LARGE"
    assert table.get(keys.decisions("p1", BATCH)) is None
