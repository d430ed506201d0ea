"""The supervisor's adapters and the dead-letter tools against an emulated AWS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto import mock_aws
from tests.support.keys import fixed_sealer

from tocsin.aws import keys
from tocsin.aws.bucket import Bucket
from tocsin.aws.dead_letters import DeadLetters, dead_letter_url, replay_record
from tocsin.aws.queues import Queue, SealedQueue, open_message
from tocsin.aws.table import Table
from tocsin.aws.watch import (
    MEMORY_LEASE_MS,
    Healings,
    Heartbeats,
    Leases,
    OwnEvents,
    StackRepairs,
    StackWatch,
    TableMemory,
)
from tocsin.defense.ports import Depth, Lag, Lease, Schedule, SourceMapping
from tocsin.kernel import clock, ids
from tocsin.kernel.envelope import Envelope, seal
from tocsin.kernel.errors import Retry
from tocsin.signals import events as ces

NOW = 1_795_176_000_000
KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield


@pytest.fixture
def table() -> Table:
    client = boto3.client("dynamodb")
    client.create_table(
        TableName="tocsin",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    return Table(client, "tocsin")


def make_queue(name: str) -> str:
    """A queue with a dead-letter queue of its own."""
    sqs = boto3.client("sqs")
    dead = sqs.create_queue(QueueName=f"tocsin-{name}-parked")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
    return str(sqs.create_queue(QueueName=f"tocsin-{name}", Attributes={"RedrivePolicy": policy})["QueueUrl"])


class Service:
    """A client whose answers are given; calls are written down."""

    class exceptions:  # noqa: N801 - boto3's own name
        class ResourceNotFoundException(Exception):
            pass

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.calls.append((name, arguments))
            answer = self.answers.get(name, {})
            return answer(**arguments) if callable(answer) else answer

        return call

    def get_paginator(self, name: str) -> Any:
        return self

    def paginate(self) -> Any:
        return self.answers["pages"]


def watch_of(table: Table, queues: dict[str, Queue], **services: Any) -> StackWatch:
    rules = {"tocsin-digest": None, "tocsin-facts": "tocsin", "tocsin-gone": None}
    return StackWatch("tocsin", queues, rules, table, lambda name: services.get(name) or boto3.client(name))  # type: ignore[call-overload]


def test_mappings_are_those_of_the_stack_and_a_missing_one_is_said(table: Table) -> None:
    arn = "arn:aws:lambda:us-east-1:123456789012:function:"
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def mapping(function: str, uuid: str, state: str) -> dict[str, Any]:
        return {"FunctionArn": arn + function, "UUID": uuid, "State": state, "LastModified": at}

    pages = [
        {"EventSourceMappings": [mapping("tocsin-score", "u1", "Disabled")]},
        {"EventSourceMappings": [mapping("other-score", "u2", "Enabled")]},
    ]
    watch = watch_of(table, {"score": Queue(None, ""), "relay": Queue(None, "")}, **{"lambda": Service(pages=pages)})
    assert watch.mappings() == [
        SourceMapping("score", "u1", "Disabled", int(at.timestamp() * 1000)),
        SourceMapping("relay", "", "Missing"),
    ]


def test_rules_say_their_state(table: Table) -> None:
    events = boto3.client("events")
    events.create_event_bus(Name="tocsin")
    events.put_rule(Name="tocsin-digest", ScheduleExpression="rate(1 hour)", State="DISABLED")
    events.put_rule(Name="tocsin-facts", EventBusName="tocsin", EventPattern="{}")
    watch = watch_of(table, {})
    assert watch.schedules() == [
        Schedule("tocsin-digest", "DISABLED"),
        Schedule("tocsin-facts", "ENABLED", "tocsin"),
        Schedule("tocsin-gone", "MISSING"),
    ]
    repairs = StackRepairs({}, Queue(None, ""), Leases(table), boto3.client, no_letters)
    repairs.enable_schedule(Schedule("tocsin-digest", "DISABLED"))
    assert watch.schedules()[0].state == "ENABLED"


def test_a_service_that_fails_means_retry(table: Table) -> None:
    sqs = boto3.client("sqs")
    watch = watch_of(table, {"score": Queue(sqs, "https://sqs.us-east-1.amazonaws.com/123456789012/none")})
    with pytest.raises(Retry, match="queue score"):
        watch.queues()
    with pytest.raises(Retry):
        watch.dead_letters()


def test_depths_of_queues_and_their_dead_letters(table: Table) -> None:
    sqs = boto3.client("sqs")
    url = make_queue("score")
    for _ in range(3):
        sqs.send_message(QueueUrl=url, MessageBody="x")
    sqs.send_message(QueueUrl=dead_letter_url(sqs, url), MessageBody="x")
    watch = watch_of(table, {"score": Queue(sqs, url)})
    assert watch.queues() == {"score": Depth(3, 0)}
    assert watch.dead_letters() == {"score": Depth(1, 0)}


def test_lag_is_read_from_heads_and_cursors_page_by_page(table: Table) -> None:
    for n, project in enumerate(("alpha", "alpha-2", "beta", "new")):
        table.put(keys.known_project(project), {"at": NOW})
        table.put(keys.log_head(project), {"n": 10 + n})
        if project != "new":
            table.put(keys.cursor(project), {"n": 11, "i": 0, "version": 1})
    watch = watch_of(table, {})
    first, position = watch.lags(None, 3)
    assert first == [Lag("alpha", 10, 11), Lag("alpha-2", 11, 11), Lag("beta", 12, 11)]
    rest, position = watch.lags(position, 3)
    assert (rest, position) == ([Lag("new", 13, 1)], None)


def test_beats(table: Table) -> None:
    Heartbeats(table).beat("relay", NOW)
    assert watch_of(table, {}).beats() == {"relay": NOW}


def test_a_lease_is_held_by_one_and_taken_over_after_its_end(table: Table) -> None:
    leases = Leases(table)
    first = leases.take("relay", "a", NOW, 30_000)
    assert first is not None
    assert leases.take("relay", "b", NOW + 29_999, 30_000) is None
    second = leases.take("relay", "b", NOW + 30_000, 30_000)
    assert second is not None
    assert leases.release(first) is False  # too late: it is another's now
    assert watch_of(table, {}).leases() == [Lease("relay", "b", NOW + 60_000, 2)]
    assert leases.release(second) is True
    assert watch_of(table, {}).leases() == []


def test_memory_is_held_by_one_run_and_outlives_a_dead_one(table: Table) -> None:
    store = TableMemory(table)
    memory = store.take(NOW)
    assert memory is not None
    assert store.take(NOW) is None
    memory.repairs["mapping score"] = [NOW]
    store.give_back(memory)
    again = store.take(NOW + 1)
    assert again is not None
    assert again.repairs == {"mapping score": [NOW]}
    assert store.take(NOW + MEMORY_LEASE_MS) is None
    later = store.take(NOW + 1 + MEMORY_LEASE_MS)  # the run of `again` died
    assert later is not None
    again.repairs = {}
    store.give_back(again)
    later.position = "beta"
    store.give_back(later)
    final = store.take(NOW + 2 * MEMORY_LEASE_MS)
    assert final is not None
    assert (final.position, final.repairs) == ("beta", {"mapping score": [NOW]})


def test_a_memory_of_another_version_is_read_as_far_as_it_goes(table: Table) -> None:
    text = json.dumps({"position": "p", "something_new": 1})
    table.put(keys.watch("supervisor"), {"memory": text, "version": 3, "until": 0})
    memory = TableMemory(table).take(NOW)
    assert memory is not None
    assert memory.position == "p"


def test_healings_are_listed_newest_first_over_days(table: Table) -> None:
    log = Healings(table, lambda: NOW)
    done = {"action": "enable", "outcome": "repaired", "attempts": 1}
    written = [{"id": ids.new_id("heal", NOW - n * 7 * clock.HOUR), "n": n, **done} for n in range(10)]
    for record in written:
        log.record(record)
    log.record({"id": ids.new_id("heal", NOW - 40 * clock.DAY), "n": 99, **done})
    log.record(written[3] | {"outcome": "healed"})
    got: list[dict[str, Any]] = []
    position: Any = None
    for _ in range(20):
        page = log.page(position, 3)
        assert len(page.items) <= 3
        got += page.items
        position = page.next_position
        if position is None:
            break
    assert [record["n"] for record in got] == list(range(10))
    assert got[3]["outcome"] == "healed"


def test_its_own_events_travel_like_any_other(table: Table) -> None:
    sqs, s3 = boto3.client("sqs"), boto3.client("s3")
    s3.create_bucket(Bucket="claims")
    url = make_queue("score")
    sealed = SealedQueue(Queue(sqs, url), KEY, Bucket(s3, "claims"), fixed_sealer())
    event = {"id": "heal_x.repaired1", "source": "tocsin.supervisor", "type": "t", "title": "x"}
    OwnEvents(lambda: sealed, lambda: "").send(event, NOW)
    assert Queue(sqs, url).attributes()["visible"] == 0
    OwnEvents(lambda: sealed, lambda: "ops").send(event, NOW)
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    envelope = open_message(message["Body"], KEY, Bucket(s3, "claims"), fixed_sealer())
    (sent,) = envelope.payload["events"]
    assert envelope.project == sent["project_id"] == "ops"
    assert sent["event_id"] == ids.event_id("ops", "tocsin.supervisor", "heal_x.repaired1")
    assert len(envelope.payload["digests"]) == 1
    assert ces.ruling_time(sent) == NOW


def no_letters(name: str) -> DeadLetters:
    raise AssertionError(f"nobody asked for the dead letters of {name}")


def test_a_replay_takes_what_was_sent_before_it_and_leaves_what_it_sent_itself(table: Table) -> None:
    sqs = boto3.client("sqs")
    source, dead = make_queue("score"), make_queue("score-dead")
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "5"})
    sqs.set_queue_attributes(QueueUrl=source, Attributes={"RedrivePolicy": policy})
    for n in range(12):
        sqs.send_message(QueueUrl=dead, MessageBody=f"letter {n}")
    repairs = StackRepairs({}, Queue(None, ""), Leases(table), boto3.client, lambda _: DeadLetters(sqs, source))
    far, long_ago = clock.now_ms() + clock.MINUTE, clock.now_ms() - clock.MINUTE
    assert repairs.replay("score", 100, long_ago) == 0, "all of them were sent since"
    assert DeadLetters(sqs, source).depth() == 12
    assert repairs.replay("score", 5, far) == 5
    assert repairs.replay("score", 100, far) == 7
    assert repairs.replay("score", 100, far) == 0
    assert Queue(sqs, source).attributes()["visible"] == 12


def test_ticks_and_wakes_are_messages_their_consumers_know() -> None:
    sqs = boto3.client("sqs")
    relay, correlate = Queue(sqs, make_queue("relay")), Queue(sqs, make_queue("correlate"))
    service = Service()
    repairs = StackRepairs({"relay": relay}, correlate, None, lambda name: service, no_letters)  # type: ignore[arg-type]
    repairs.tick("relay", [0, 5], NOW)
    repairs.wake("shop")
    repairs.enable_mapping(SourceMapping("score", "u1", "Disabled"))
    (tick,) = sqs.receive_message(QueueUrl=relay.url)["Messages"]
    (wake,) = sqs.receive_message(QueueUrl=correlate.url)["Messages"]
    assert json.loads(tick["Body"]) == {"tick": {"at": NOW}}
    assert relay.attributes()["delayed"] == 1
    assert json.loads(wake["Body"]) == {"wake": {"project": "shop"}}
    assert service.calls == [("update_event_source_mapping", {"UUID": "u1", "Enabled": True})]


class Parked:
    """A queue with dead letters."""

    def __init__(self, bodies: list[str]) -> None:
        self.sqs = boto3.client("sqs")
        self.url = make_queue("score")
        self.dead = dead_letter_url(self.sqs, self.url)
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.dead, MessageBody=body)
        self.letters = DeadLetters(self.sqs, self.url, KEY)

    def returned(self) -> list[str]:
        found: list[str] = []
        while page := self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages"):
            found += [message["Body"] for message in page]
        return sorted(found)


def test_a_listing_tells_kinds_and_reasons_and_leaves_everything() -> None:
    genuine = seal(Envelope("events", "env_1", "shop", "trace-1", NOW, {"events": []}), KEY, fixed_sealer())
    forged = seal(Envelope("events", "env_2", "shop", "trace-2", NOW, {"events": []}), bytes(32), fixed_sealer())
    newer = json.dumps(json.loads(genuine) | {"v": 9})
    others = [
        '{"wake":{"project":"p"}}',
        "not json",
        "[1]",
        '{"detail-type":"IncidentOpened","detail":{"project":"p"}}',
    ]
    parked = Parked([genuine, forged, newer, *others, '{"x":1}'])
    listed = parked.letters.peek(50)
    assert len(listed) == 8
    said = sorted((one.kind, one.project, one.reason.split(":")[0]) for one in listed)
    assert ("events", "shop", "given back each time") in said
    assert ("events", "shop", "envelope version 9 is not readable here") in said
    assert ("wake", "p", "given back each time") in said
    assert ("IncidentOpened", "p", "given back each time") in said
    assert ("?", "", "the body is not JSON") in said
    assert ("?", "", "the body is not an object") in said
    assert ("?", "", "no worker knows this kind of message") in said
    assert (
        len(
            {one.reason for one in listed if one.trace_id == "trace-2"} - {"given back each time: see the worker's log"}
        )
        == 1
    )
    assert parked.letters.depth() == 8
    assert len(parked.letters.peek(50)) == 8


def test_a_replay_is_bounded_paced_and_complete() -> None:
    bodies = sorted(f'{{"wake":{{"project":"p{n:02d}"}}}}' for n in range(25))
    parked = Parked(bodies)
    pauses: list[float] = []
    assert parked.letters.replay(12, per_second=5, pause=pauses.append) == 12
    assert parked.letters.depth() == 13
    assert pauses == [2.0]
    assert parked.letters.replay(100, per_second=5, pause=pauses.append) == 13
    assert parked.letters.depth() == 0
    assert parked.returned() == bodies


def test_what_the_queue_does_not_take_stays_among_the_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    parked = Parked([f"m{n}" for n in range(5)])
    real = parked.sqs.send_message_batch

    def half(**arguments: Any) -> dict[str, Any]:
        entries = arguments["Entries"]
        answer = real(QueueUrl=arguments["QueueUrl"], Entries=entries[:2])
        return {"Successful": answer["Successful"], "Failed": [{"Id": one["Id"]} for one in entries[2:]]}

    monkeypatch.setattr(parked.sqs, "send_message_batch", half)
    assert parked.letters.replay(100) == 2
    assert parked.letters.depth() == 3
    monkeypatch.undo()
    parked.letters = DeadLetters(parked.sqs, parked.url)
    assert parked.letters.replay(100, pause=lambda seconds: None) == 3
    assert parked.returned() == [f"m{n}" for n in range(5)]


def test_a_replay_cut_short_between_send_and_delete_repeats_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parked = Parked([f"m{n}" for n in range(5)])

    def killed(**arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parked.sqs, "delete_message_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        parked.letters.replay(100)
    assert parked.letters.depth() == 5  # still there, hidden for a minute; the copies are duplicates
    assert parked.returned() == [f"m{n}" for n in range(5)]


def test_a_queue_without_dead_letters_says_so() -> None:
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName="plain")["QueueUrl"]
    with pytest.raises(LookupError, match="plain has no dead-letter queue"):
        DeadLetters(sqs, url)


def test_a_replay_leaves_a_record_with_its_actor() -> None:
    record = replay_record("score", "ada", 12, 3, NOW)
    assert (record["by"], record["outcome"], record["target"]) == ("ada", "replayed", "dead-letters score")
    assert ids.id_time_ms(record["id"]) == NOW
