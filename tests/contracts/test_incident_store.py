"""Incidents on a table: members and assignments are found again wherever they were put."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import boto3
import pytest
from moto import mock_aws
from tests.support.events import stored_event
from tests.support.keys import fixed_sealer
from tests.support.pipeline_fakes import FixedTopology, MemoryLedger, MemoryOutbox

from tocsin.aws import keys
from tocsin.aws.incident_store import DynamoIncidentStore, Member
from tocsin.aws.table import MAX_TRANSACTION, Table, Write
from tocsin.kernel.ids import derived_id
from tocsin.signals.correlator import CorrelateWorker
from tocsin.signals.incidents import Effects, Incident, Policy
from tocsin.signals.ports import Commit, Cursor

NOW = 1_790_000_000_000
ID = derived_id("inc", NOW, "demo", "first")
OTHER = derived_id("inc", NOW, "demo", "second")


class World:
    def __init__(self, table: Table) -> None:
        self.table = table
        self.store = DynamoIncidentStore(table, fixed_sealer(), retention_days=90)
        self.held = Incident(ID, NOW, NOW, NOW, NOW, NOW)
        self.cursor = Cursor()

    def save(self, effects: Effects) -> None:
        after = replace(self.cursor, version=self.cursor.version + 1)
        self.store.save("demo", self.cursor, after, effects, [], NOW)
        self.cursor = after

    def join(self, *members: Member, leave: bool = False) -> None:
        """Members join the incident; with `leave` all that its row holds go to a row of theirs."""
        self.held.recent = [*self.held.recent, *members]
        effects = Effects(incidents={ID: self.held})
        if leave:
            effects.members[ID], self.held.recent = self.held.recent, []
        self.save(effects)

    def pages(self, size: int) -> Iterator[tuple[str, int]]:
        """Places as a reader turns over them, `size` lists at a time."""
        low = None
        complete = False
        while not complete:
            lists, complete = self.store.member_lists("demo", ID, low, size)
            yield from ((place, len(members)) for place, members in lists)
            low = f"{lists[-1][0]}~" if lists else None

    def count(self, prefix: str) -> int:
        items = self.table._client.scan(TableName=self.table.name)["Items"]
        return sum(item["pk"]["S"].startswith(f"p#demo#{prefix}") for item in items)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("dynamodb")
        client.create_table(
            TableName="t",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
        )
        yield World(Table(client, "t"))


def test_members_in_the_row_and_beside_it_are_one_list(world: World) -> None:
    world.join((1, 0), (1, 1))
    assert world.store.member_lists("demo", ID) == ([("0", [(1, 0), (1, 1)])], True)
    assert world.count("members#") == 0
    world.join((2, 0), leave=True)
    world.join((3, 5))
    lists, complete = world.store.member_lists("demo", ID)
    assert complete
    assert [members for _, members in lists] == [[(1, 0), (1, 1), (2, 0)], [(3, 5)]]
    assert world.store.member_lists("demo", OTHER) == ([], True)


def test_lists_are_turned_over_without_a_gap_or_a_repeat(world: World) -> None:
    for n in range(1, 6):
        world.join((n, 0), (n, 1), leave=True)
    world.join((6, 0))
    for size in (1, 2, 3, 5, 6, 100):
        places = list(world.pages(size))
        assert [count for _, count in places] == [2, 2, 2, 2, 2, 1], size
        assert [place for place, _ in places] == sorted({place for place, _ in places})


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_place_stays_good_when_members_leave_their_row(world: World, earlier: int) -> None:
    for n in range(earlier):
        world.join((n + 1, 0), leave=True)
    world.join((7, 0), (7, 1))
    (place, before) = world.store.member_lists("demo", ID)[0][-1]
    world.join((8, 0), leave=True)
    (after,), complete = world.store.member_lists("demo", ID, low=place)
    assert (after[1][: len(before)], complete) == (before, True)
    assert after[1][len(before) :] == [(8, 0)]


def test_members_that_leave_while_they_are_read_are_listed_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.join((1, 0))
    query = world.table.query

    def late(*arguments: object, **named: object) -> object:
        monkeypatch.setattr(world.table, "query", query)
        world.join((2, 0), leave=True)
        return query(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(world.table, "query", late)
    lists, _ = world.store.member_lists("demo", ID)
    assert [members for _, members in lists] == [[(1, 0), (2, 0)]]


def test_assignments_of_a_round_share_rows_and_later_ones_overrule(world: World) -> None:
    numbers = [*range(95, 112), 120]
    assigned = {(n, i): ID for n in numbers for i in (0, 7)}
    world.save(Effects(incidents={ID: world.held}, assignments=assigned, reasons={(95, 0): "same host"}))
    assert world.count("assigned#") == 4, "90s, 100s, 110s, 120s"
    world.save(Effects(incidents={OTHER: replace(world.held, id=OTHER)}, assignments={(101, 7): OTHER}))
    found = world.store.assigned("demo", [95, 96, 101, 120, 119])
    assert found[95, 0] == (ID, "same host")
    assert found[101, 7] == (OTHER, "")
    assert found[101, 0] == (ID, "")
    assert sorted({n for n, _ in found}) == [95, 96, 101, 120]
    assert world.store.assigned("demo", range(1, 200)).keys() == assigned.keys()


def test_the_key_of_assignments_holds_its_commit_in_order() -> None:
    assert keys.assignment("demo", 129, 3) == keys.assignment("demo", 120, 3)
    assert keys.assignment("demo", 130, 1).sk > keys.assignment("demo", 129, 9).sk


def test_rounds_are_large_and_fit_a_transaction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fired = [
        stored_event(f"e{i}", at=NOW, entity={"type": "service", "id": f"lone{i}"}, tags={"service": f"lone{i}"})
        | {"ruling_ms": NOW, "score": 0.9, "tier": "critical", "fingerprint": f"fp1_{i}", "dedup_key": f"k{i}"}
        for i in range(100)
    ]
    ledger = MemoryLedger()
    for n in range(10):
        part = fired[10 * n : 10 * n + 10]
        ledger.commit("demo", Commit(f"cmt_{n}", ledger.head("demo"), NOW, "trace", part, {}, {}, {}))
    sizes: list[int] = []
    transact = world.table.transact

    def counted(writes: Sequence[Write]) -> None:
        sizes.append(len(writes))
        transact(writes)

    monkeypatch.setattr(world.table, "transact", counted)
    worker = CorrelateWorker(ledger, world.store, MemoryOutbox(), FixedTopology(), policy=Policy(), now=lambda: NOW)
    assert worker.catch_up("demo", lambda: 20_000) == 100
    assert max(sizes) <= MAX_TRANSACTION
    assert sorted(sizes)[len(sizes) // 2] > 80
    assert len(world.store.assigned("demo", range(1, 11))) == 100
