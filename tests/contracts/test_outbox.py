"""The outbox on a table: nothing that is due is skipped, and what cannot be sent holds nobody else back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import boto3
import pytest
from moto import mock_aws
from tests.support.keys import FixedRing, fixed_sealer

from tocsin.aws import keys
from tocsin.aws.bus import EventBus
from tocsin.aws.outbox import GRACE_MS, DynamoOutbox, outbox_writes
from tocsin.aws.table import Table
from tocsin.kernel import clock
from tocsin.kernel.errors import Retry
from tocsin.kernel.sealing import Sealer, is_sealed
from tocsin.signals.ports import Fact, OutboxRow

NOW = 1_790_000_000_000


def _fact(name: str, kind: str = "IncidentOpened") -> dict[str, Any]:
    return {"facts": [{"kind": kind, "detail": {"name": name}}]}


class Bus:
    """Takes facts, except those of a kind it cannot."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.takes_all = False

    def publish(self, facts: Sequence[Fact]) -> None:
        if not self.takes_all and any(fact.kind == "Unsendable" for fact in facts):
            raise Retry("too large")
        self.told += [fact.detail["name"] for fact in facts]


class Sender:
    def __init__(self) -> None:
        self.sent: list[str] = []
        self.broken = False

    def send(self, message: Mapping[str, Any]) -> None:
        if self.broken:
            raise Retry("away")
        self.sent.append(message["name"])


class World:
    def __init__(self, table: Table) -> None:
        self.table = table
        self.bus, self.deliveries, self.timers = Bus(), Sender(), Sender()
        self.outbox = DynamoOutbox(table, self.bus, self.deliveries, self.timers, fixed_sealer())

    def add(
        self, name: str, kind: Any = "fact", due: int = NOW, project: str = "demo", fact: str = "IncidentOpened"
    ) -> None:
        payload = _fact(name, fact) if kind == "fact" else {"name": name}
        row = OutboxRow(project, f"out_{name}", kind, due, payload)
        self.table.transact(outbox_writes(self.table, [row], NOW))

    def left(self) -> int:
        items = self.table._client.scan(TableName=self.table.name)["Items"]
        return sum("#out#" in item["pk"]["S"] for item in items)


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
        table = Table(client, "t")
        # As after an hour of sweeps: the very first one looks a day back, minute by minute.
        table.put(keys.relay_watermark(), {"minute": NOW // clock.MINUTE - 60, "at": NOW - clock.HOUR})
        yield World(table)


def test_what_is_overdue_is_sent_once_and_forgotten(world: World) -> None:
    world.add("a")
    world.add("b", kind="deliver")
    world.add("c", kind="timer", project="other")
    later = NOW + GRACE_MS
    assert world.outbox.sweep(later) == 3
    assert (world.bus.told, world.deliveries.sent, world.timers.sent) == (["a"], ["b"], ["c"])
    assert world.left() == 0
    assert world.outbox.sweep(later + clock.MINUTE) == 0


def test_a_sealed_fact_is_unreadable_in_its_row_and_sent_in_clear(world: World) -> None:
    row = OutboxRow("demo", "out_a", "fact", NOW, _fact("of somebody"))
    proof = OutboxRow("demo", "out_b", "evidence", NOW, {"entries": ["digest"]})
    world.table.transact(outbox_writes(world.table, [row, proof], NOW, fixed_sealer()))
    rows = {one["row_id"]: one for one in world.table.scan("p#demo#")[0]}
    assert is_sealed(rows["out_a"]["z"])
    assert not is_sealed(rows["out_b"]["z"]), "evidence outlives the project's key"
    assert world.outbox.sweep(NOW + GRACE_MS) == 1
    assert world.bus.told == ["of somebody"]


def test_facts_of_a_deleted_project_hold_nobody_back(world: World) -> None:
    ring = FixedRing()
    row = OutboxRow("gone", "out_a", "fact", NOW, _fact("of nobody"))
    world.table.transact(outbox_writes(world.table, [row], NOW, Sealer(ring)))
    ring.gone.add("gone")
    outbox = DynamoOutbox(world.table, world.bus, world.deliveries, world.timers, Sealer(ring))
    world.add("b")
    assert outbox.sweep(NOW + GRACE_MS) == 1
    assert world.bus.told == ["b"]


def test_a_fresh_fact_is_left_to_the_worker_that_wrote_it(world: World) -> None:
    world.add("a")
    assert world.outbox.sweep(NOW + GRACE_MS - 1) == 0
    assert world.outbox.sweep(NOW + GRACE_MS) == 1


def test_a_row_that_is_not_due_waits_and_is_not_passed_over(world: World) -> None:
    world.add("timer", kind="timer", due=NOW + clock.HOUR)
    for minutes in range(0, 60, 7):
        assert world.outbox.sweep(NOW + minutes * clock.MINUTE) == 0
    assert world.outbox.sweep(NOW + clock.HOUR) == 1


def test_one_fact_that_cannot_be_sent_holds_nobody_back_and_the_watermark_advances(world: World) -> None:
    for number in range(40):
        world.add(f"stuck{number}", fact="Unsendable")
    world.add("good")
    world.add("other", kind="deliver", project="other")
    assert world.outbox.sweep(NOW + clock.MINUTE) == 2
    assert (world.bus.told, world.deliveries.sent) == (["good"], ["other"])
    assert world.left() == 40
    at = NOW + 10 * clock.MINUTE
    world.outbox.sweep(at)
    mark = world.table.get(keys.relay_watermark())
    assert mark is not None
    assert mark["minute"] == at // clock.MINUTE - 2


def test_a_row_of_facts_stays_until_each_was_taken(world: World) -> None:
    kinds = {"first": "IncidentOpened", "stuck": "Unsendable", "last": "IncidentOpened"}
    facts = [{"kind": kind, "detail": {"name": name}} for name, kind in kinds.items()]
    row = OutboxRow("demo", "out_three", "fact", NOW, {"facts": facts})
    world.table.transact(outbox_writes(world.table, [row], NOW))
    world.add("other")
    assert world.outbox.publish([row, OutboxRow("demo", "out_other", "fact", NOW, _fact("other"))]) == {"out_other"}
    assert world.bus.told == ["first", "last", "other"]
    assert world.left() == 1
    world.bus.takes_all = True
    assert world.outbox.sweep(NOW + clock.MINUTE) == 1
    assert world.bus.told[3:] == ["first", "stuck", "last"], "heard again, with what was missing"
    assert world.left() == 0


def test_rows_due_together_are_found_by_one_directory_row(world: World) -> None:
    rows = [OutboxRow("demo", f"out_{n}", "timer", NOW, {"name": str(n)}) for n in range(20)]
    assert len(outbox_writes(world.table, rows, NOW)) == 21
    world.table.transact(outbox_writes(world.table, rows, NOW))
    assert world.outbox.sweep(NOW) == 20
    assert sorted(world.timers.sent, key=int) == [str(n) for n in range(20)]


def test_a_row_in_another_form_does_not_stop_the_sweep(world: World) -> None:
    world.add("good")
    world.table.put(keys.outbox("demo", NOW, "out_other"), {"kind": "fact", "due": NOW, "payload": {}})
    assert world.outbox.sweep(NOW + clock.MINUTE) == 1
    assert world.bus.told == ["good"]


def test_a_queue_that_was_away_gets_its_rows_later(world: World) -> None:
    world.add("a", kind="deliver")
    world.deliveries.broken = True
    assert world.outbox.sweep(NOW) == 0
    world.deliveries.broken = False
    assert world.outbox.sweep(NOW + 5 * clock.MINUTE) == 1
    assert world.deliveries.sent == ["a"]
    assert world.left() == 0


def test_the_first_sweep_looks_a_day_back(world: World) -> None:
    world.table.delete_all([keys.relay_watermark()])
    world.add("a", due=NOW - clock.DAY + clock.MINUTE)
    assert world.outbox.sweep(NOW) == 1


def test_a_sweep_without_time_keeps_its_place(world: World) -> None:
    world.add("a")
    before = world.table.get(keys.relay_watermark())
    assert world.outbox.sweep(NOW + clock.MINUTE, lambda: 0) == 0
    assert world.table.get(keys.relay_watermark()) == before
    assert world.outbox.sweep(NOW + clock.MINUTE) == 1


def test_facts_travel_in_pages_that_the_bus_takes() -> None:
    calls: list[int] = []

    class Client:
        def put_events(self, Entries: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803 - boto3's name
            calls.append(sum(len(entry["Detail"]) for entry in Entries))
            return {"FailedEntryCount": 0, "Entries": [{} for _ in Entries]}

    EventBus(Client(), "bus").publish([Fact("IncidentOpened", {"text": "x" * 60_000}) for _ in range(9)])
    assert len(calls) == 3
    assert max(calls) < 256 * 1024
