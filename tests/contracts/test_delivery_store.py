"""The stores of delivery in memory and in DynamoDB keep the same promises."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ses import ses_backends
from tests.support.delivery_fakes import (
    Bench,
    ChannelRows,
    Receiver,
    Records,
    RoutingRows,
    World,
    fact,
    mailbox,
    webhook,
)
from tests.support.keys import fixed_sealer

from tocsin.aws import keys
from tocsin.aws.delivery_store import (
    DynamoBudgets,
    DynamoChannels,
    DynamoDigests,
    DynamoNotifications,
    DynamoRouting,
    DynamoSlots,
    known_projects,
)
from tocsin.aws.documents import Documents
from tocsin.aws.mail import NoMail, SesMail, SmtpMail
from tocsin.aws.table import Table
from tocsin.delivery import render
from tocsin.delivery.budget import BudgetState
from tocsin.delivery.digest import Digester
from tocsin.delivery.dispatch import Dispatcher, Ports
from tocsin.delivery.model import Attempt, NotificationRecord, PushBudget
from tocsin.delivery.ports import Claim, DigestLedger, SendResult, Withheld
from tocsin.delivery.routing import Routing, Rule, When
from tocsin.kernel import clock
from tocsin.kernel.envelope import unpack

NOW = 1_800_000_000_000


@dataclass
class Stores:
    """One implementation of every store."""

    notifications: Any
    channels: Any
    routing: Any
    budgets: Any
    slots: Any
    digests: Any
    table: Table | None = None

    def outbox(self) -> list[tuple[int, Any]]:
        """(due, payload) of the outbox rows that exist; empty for the fake, which has its own tests."""
        if self.table is None:
            return []
        rows = boto3.client("dynamodb").scan(TableName=self.table.name)["Items"]
        return sorted((int(row["due"]["N"]), unpack(row["z"]["B"])) for row in rows if "#out#" in row["pk"]["S"])


@pytest.fixture(params=["memory", "dynamodb"])
def stores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    if request.param == "memory":
        world = World()
        yield Stores(Records(world), ChannelRows(world), RoutingRows(world), world, world, world)
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("dynamodb")
        client.create_table(
            TableName="t",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
        )
        table = Table(client, "t")
        yield Stores(
            DynamoNotifications(table, fixed_sealer(), retention_days=90),
            DynamoChannels(table, fixed_sealer()),
            DynamoRouting(Documents(table, fixed_sealer())),
            DynamoBudgets(table),
            DynamoSlots(table),
            DynamoDigests(table, fixed_sealer(), retention_days=90),
            table,
        )


def _record(seq: int = 1, **changes: Any) -> NotificationRecord:
    base = NotificationRecord(
        project="acme",
        incident_id="inc_1",
        seq=seq,
        kind="opened",
        channel_id="chn_ops",
        decision="pending",
        created_at=NOW,
        tier="high",
        wake_at=NOW + 60_000,
        trace_id="t",
        payload={"at": NOW, "data": {"incident": {"score": 0.81, "title": "down"}}},
    )
    return replace(base, **changes)


def _note(at: int, seq: int = 1) -> Withheld:
    return Withheld("acme", "chn_ops", "inc_1", seq, "opened", "high", 0.81, "down", "budget", at)


def test_a_record_is_claimed_once_and_read_back_whole(stores: Stores) -> None:
    record = _record(attempts=(Attempt(NOW, 500, "status 500", 12),))
    assert stores.notifications.claim(record) is Claim.WON
    assert stores.notifications.claim(replace(record, trace_id="other")) is Claim.EXISTS
    assert stores.notifications.get("acme", "inc_1", 1, "chn_ops") == record
    assert stores.notifications.get("globex", "inc_1", 1, "chn_ops") is None


def test_a_save_needs_the_version_it_read_and_moves_the_outbox_row(stores: Stores) -> None:
    record = _record()
    stores.notifications.claim(record)
    retrying = record.step(decision="retrying", next_at=NOW + 200_000, wake_at=NOW + 200_000)
    assert stores.notifications.save(record, retrying)
    assert not stores.notifications.save(record, record.step(decision="failed"))
    assert stores.notifications.get("acme", "inc_1", 1, "chn_ops") == retrying
    if stores.table:
        ((due, payload),) = stores.outbox()
        assert due == NOW + 200_000
        assert payload["kind"] == "deliver"
        assert payload["record"]["wake_at"] == NOW + 200_000
    leased = retrying.step(wake_at=retrying.wake_at)
    assert stores.notifications.save(retrying, leased), "the same due time is the same row"
    assert stores.notifications.save(leased, leased.step(decision="delivered", next_at=None, wake_at=None))
    assert stores.outbox() == []


def test_a_claim_fails_when_the_budget_moved_and_leaves_nothing(stores: Stores) -> None:
    before = stores.budgets.load("acme")
    assert before == BudgetState(0, {})
    after = BudgetState(1, {"*": NOW * 1000, "chn_ops": NOW * 1000})
    assert stores.notifications.claim(_record(), budget=(before, after)) is Claim.WON
    assert stores.budgets.load("acme") == after
    assert stores.notifications.claim(_record(2), budget=(before, after)) is Claim.RACED
    assert stores.notifications.get("acme", "inc_1", 2, "chn_ops") is None
    assert len(stores.outbox()) <= 1
    second = BudgetState(2, {})
    assert stores.notifications.claim(_record(2), budget=(after, second)) is Claim.WON
    assert stores.budgets.load("acme") == second


def test_a_note_is_refused_behind_the_ledger(stores: Stores) -> None:
    ledger = DigestLedger("acme", "chn_ops", slot=NOW, start=0, end=NOW, open=True, version=1)
    withheld = _record(decision="withheld", reason="budget", wake_at=None)
    assert stores.notifications.claim(withheld, note=_note(NOW)) is Claim.WON
    assert stores.digests.move(ledger)
    assert not stores.digests.move(ledger)
    assert stores.digests.ledger("acme", "chn_ops") == ledger
    late = replace(withheld, seq=2)
    assert stores.notifications.claim(late, note=_note(NOW, 2)) is Claim.RACED
    assert stores.notifications.claim(late, note=_note(NOW + 1, 2)) is Claim.WON
    assert [note.seq for note in stores.digests.withheld("acme", "chn_ops", 0, NOW, 10)] == [1]
    assert [note.seq for note in stores.digests.withheld("acme", "chn_ops", NOW, NOW + 1, 10)] == [2]
    assert stores.digests.withheld("acme", "chn_ops", 0, NOW + 1, 10) == [_note(NOW), _note(NOW + 1, 2)]
    assert len(stores.digests.withheld("acme", "chn_ops", 0, NOW + 1, 1)) == 1
    closed = replace(ledger, open=False, version=2)
    assert stores.digests.move(closed)
    assert stores.digests.ledger("acme", "chn_ops") == closed


def test_notes_of_several_days_come_in_order(stores: Stores) -> None:
    for seq, at in enumerate((NOW - 2 * clock.DAY, NOW - clock.DAY, NOW), 1):
        stores.notifications.claim(_record(seq, decision="withheld", wake_at=None), note=_note(at, seq))
    assert [note.seq for note in stores.digests.withheld("acme", "chn_ops", NOW - 3 * clock.DAY, NOW, 9)] == [
        1,
        2,
        3,
    ]


def test_listing_goes_newest_first_in_pages(stores: Stores) -> None:
    for n in range(7):
        decision = "withheld" if n % 2 else "pending"
        at = NOW - n * 9 * clock.HOUR
        record = _record(100 - n, created_at=at, decision=decision, incident_id=f"inc_{n % 2}")
        assert stores.notifications.claim(record) is Claim.WON
    page = stores.notifications.list_for("acme", now=NOW)
    assert [record.seq for record in page.records] == [100, 99, 98, 97, 96, 95, 94]
    assert page.cursor is None
    withheld = stores.notifications.list_for("acme", decision="withheld", now=NOW)
    assert [record.seq for record in withheld.records] == [99, 97, 95]
    one = stores.notifications.list_for("acme", incident_id="inc_0", now=NOW)
    assert [record.seq for record in one.records] == [100, 98, 96, 94]
    assert stores.notifications.list_for("globex", now=NOW).records == []


@pytest.mark.parametrize("incident", [None, "inc_1"])
@pytest.mark.parametrize("stores", ["dynamodb"], indirect=True)
def test_cursors_continue_without_gap_or_repeat(stores: Stores, incident: str | None) -> None:
    for n in range(40):
        stores.notifications.claim(_record(n, created_at=NOW - n * clock.HOUR))
    seen, cursor = [], None
    for _ in range(20):
        page = stores.notifications.list_for("acme", incident_id=incident, limit=7, cursor=cursor, now=NOW)
        seen += [record.seq for record in page.records]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(seen) == list(range(40))
    assert seen == sorted(seen, reverse=incident is not None)


def test_channels_change_under_their_version(stores: Stores) -> None:
    for channel in (
        webhook(budget=PushBudget(30, 3), rotated_at=NOW),
        mailbox(to=("a@example.org", "b@example.org")),
    ):
        assert stores.channels.put(channel, None)
        assert not stores.channels.put(channel, None)
        assert stores.channels.get("acme", channel.id) == channel
        changed = replace(channel, name="new", version=2)
        assert stores.channels.put(changed, 1)
        assert not stores.channels.put(changed, 1)
    assert {channel.id for channel in stores.channels.get_all("acme")} == {"chn_ops", "chn_mail"}
    assert not stores.channels.delete("acme", "chn_ops", 1)
    assert stores.channels.delete("acme", "chn_ops", 2)
    assert not stores.channels.delete("acme", "chn_ops", 2)
    assert stores.channels.get_all("globex") == []


def test_routing_changes_under_its_version(stores: Stores) -> None:
    assert stores.routing.get("acme") is None
    routing = Routing(
        (Rule("db", When(tags={"team": ("db",)}), ("chn_ops",), mute=True, reason="x"),), PushBudget(9, 2)
    )
    assert stores.routing.put("acme", routing, 0)
    assert not stores.routing.put("acme", routing, 0)
    assert stores.routing.get("acme") == replace(routing, version=1)
    assert stores.routing.put("acme", routing, 1)


def test_slots_are_limited_and_lapse(stores: Stores) -> None:
    def enter(owner: str, now: int = NOW) -> bool:
        return bool(stores.slots.enter("acme", "chn_ops", owner, now, now + 60_000, 2))

    assert [enter("a"), enter("b"), enter("c")] == [True, True, False]
    stores.slots.leave("acme", "chn_ops", "a")
    assert [enter("c"), enter("d")] == [True, False]
    assert [enter("e", NOW + 60_000), enter("f", NOW + 60_000), enter("g", NOW + 60_000)] == [
        True,
        True,
        False,
    ]
    stores.slots.leave("acme", "chn_ops", "b")
    assert not enter("h", NOW + 60_000), "a slot whose lease was taken over is not given up by its old owner"


@pytest.mark.parametrize("stores", ["dynamodb"], indirect=True)
def test_the_whole_way_on_the_tables(stores: Stores) -> None:
    bench, now = Bench(), [NOW]
    receiver = Receiver()
    receiver.script.append(SendResult(500))
    ports = Ports(
        stores.notifications, stores.channels, stores.routing, stores.budgets, stores.slots, receiver,
        bench.postbox, clock=lambda: now[0], chance=lambda: 0.0,
    )  # fmt: skip
    dispatcher = Dispatcher(ports)
    stores.channels.put(webhook(budget=PushBudget(60, 2), created_at=NOW - clock.HOUR), None)
    (first,) = dispatcher.handle(fact())
    assert first.decision == "retrying"
    ((due, _),) = stores.outbox()
    assert due == NOW + 5_000 == first.wake_at
    now[0] = due
    reference = {"project": "acme", "incident_id": "inc_1", "seq": 1, "channel_id": "chn_ops", "wake_at": due}
    delivered = dispatcher.deliver(reference)
    assert delivered is not None
    assert delivered.decision == "delivered"
    assert stores.outbox() == []
    decisions = [dispatcher.handle(fact(incident=f"inc_{n}"))[0].decision for n in range(2, 5)]
    assert decisions == ["delivered", "withheld", "withheld"]
    digester = Digester(
        stores.channels,
        stores.digests,
        dispatcher,
        lambda project, limit: [],
        lambda: ["acme"],
        lambda: now[0],
    )
    (digest,) = digester.tick(NOW)
    assert digest.payload["data"]["withheld"]["total"] == 2
    assert digester.tick(NOW) == []
    page = stores.notifications.list_for("acme", now=now[0])
    assert sorted(record.decision for record in page.records) == [
        "delivered",
        "delivered",
        "delivered",
        "withheld",
        "withheld",
    ]


def test_every_partition_begins_with_its_project() -> None:
    built = [
        keys.channel("acme", "c"),
        keys.notification("acme", "i", 1, "c"),
        keys.notification_pointer("acme", NOW, "i", 1, "c"),
        keys.push_budget("acme"),
        keys.delivery_slot("acme", "c", 0),
        keys.digest_ledger("acme", "c"),
        keys.withheld("acme", "c", NOW, "i", 1),
    ]
    assert all(key.pk.startswith("p#acme#") for key in built)
    assert len(set(built)) == len(built)


@pytest.mark.parametrize("stores", ["dynamodb"], indirect=True)
def test_known_projects_are_those_that_committed(stores: Stores) -> None:
    assert stores.table is not None
    stores.table.put(keys.known_project("acme"), {})
    assert list(known_projects(stores.table)) == ["acme"]


def _mail() -> Any:
    record = _record(payload={"at": NOW, "data": {"incident": {"title": "x\r\nBcc: evil@example.org", "tier": "high"}}})
    return render.mail(record, mailbox(), "Tocsin <alarm@tocsin.example>", NOW)


@pytest.mark.parametrize("stores", ["dynamodb"], indirect=True)
def test_ses_sends_to_exactly_the_recipients(stores: Stores) -> None:
    client = boto3.client("ses")
    assert SesMail(client, "alarm@tocsin.example").send(_mail(), ("duty@example.org",)).status == 400
    client.verify_email_identity(EmailAddress="alarm@tocsin.example")
    sent = SesMail(client, "Tocsin <alarm@tocsin.example>").send(_mail(), ("duty@example.org",))
    assert sent.ok
    (kept,) = ses_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].sent_messages
    assert set(kept.destinations) == {"duty@example.org"}
    assert "\nBcc:" not in kept.raw_data


class Server:
    """An SMTP session that answers as told."""

    def __init__(self, outcome: Any) -> None:
        self.outcome, self.sent, self.secured = outcome, [], False  # type: ignore[var-annotated]

    def __call__(self, host: str, port: int, timeout: float) -> Server:
        self.address = (host, port)
        return self

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def ehlo(self) -> None:
        return None

    def has_extn(self, name: str) -> bool:
        return name == "starttls"

    def starttls(self) -> None:
        self.secured = True

    def send_message(self, message: Any, sender: str, to: list[str]) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        self.sent.append((sender, to))
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "status", "ok"),
    [
        ({}, 250, True),
        ({"duty@example.org": (550, b"no")}, 250, True),
        (smtplib.SMTPRecipientsRefused({"duty@example.org": (550, b"no")}), 550, False),
        (smtplib.SMTPDataError(451, b"later"), 451, False),
        (smtplib.SMTPServerDisconnected("gone"), 0, False),
        (TimeoutError(), 0, False),
    ],
)
def test_smtp(outcome: Any, status: int, ok: bool) -> None:
    server = Server(outcome)
    mail = SmtpMail("mail.example:2525", "Tocsin <alarm@tocsin.example>", connect=server)  # type: ignore[arg-type]
    result = mail.send(_mail(), ("duty@example.org",))
    assert (result.status, result.ok) == (status, ok)
    assert server.address == ("mail.example", 2525)
    assert server.secured
    assert server.sent in ([], [("alarm@tocsin.example", ["duty@example.org"])])


def test_mail_that_is_off_says_how_to_turn_it_on() -> None:
    assert "MailFrom" in str(NoMail().send(_mail(), ("duty@example.org",)).error)
