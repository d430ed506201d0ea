"""Every action leaves evidence in its own transaction: one row per action, none for an action that was not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from moto import mock_aws
from tests.support.delivery_fakes import webhook
from tests.support.keys import fixed_sealer

from tocsin.access.admin import Person
from tocsin.access.approvals import Approval
from tocsin.access.principals import KeyRecord, Principal
from tocsin.access.projects import Project, ProjectSettings
from tocsin.aws.access_store import DynamoApprovals, DynamoKeySet
from tocsin.aws.bucket import Bucket
from tocsin.aws.connector_store import DynamoSilences
from tocsin.aws.dead_letters import replay_record
from tocsin.aws.delivery_store import DynamoChannels, DynamoNotifications, DynamoRouting
from tocsin.aws.denials import MOST, Denials
from tocsin.aws.documents import Documents
from tocsin.aws.incident_store import DynamoIncidentStore
from tocsin.aws.journal_store import DynamoJournal
from tocsin.aws.key_store import DynamoKeys, DynamoPeople, DynamoProjects
from tocsin.aws.ledger import DynamoLedger
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.privacy_store import DynamoJobs
from tocsin.aws.table import Table
from tocsin.aws.watch import Healings
from tocsin.connectors.silences import Silence
from tocsin.delivery.model import NotificationRecord
from tocsin.delivery.routing import Routing
from tocsin.journal.entries import DEPLOYMENT, Entry
from tocsin.kernel import clock, ids
from tocsin.kernel.cause import Cause, acting, cause
from tocsin.kernel.errors import Refusal
from tocsin.privacy.jobs import Job
from tocsin.signals import incidents
from tocsin.signals.correlator import ITEMS_PER_ROUND
from tocsin.signals.incidents import Effects, Incident, outbox_rows
from tocsin.signals.ports import Cursor, OutboxRow

NOW = clock.now_ms()
PROJECT = "demo"
KEY_STEPS = ("changed", "created", "revoked")
ACTOR, TRACE = "key_0190abcdEFGH", "4bf92f3577b34da6a3ce929d0e0e4736"


class World:
    """A table whose transactions are counted."""

    def __init__(self) -> None:
        self.client = boto3.client("dynamodb")
        names = [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")]
        schema = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
        self.client.create_table(
            TableName="t", AttributeDefinitions=names, KeySchema=schema, BillingMode="PAY_PER_REQUEST"
        )
        self.transactions = 0
        self.client.meta.events.register("provide-client-params.dynamodb.TransactWriteItems", self._count)
        self.table = Table(self.client, "t", pause=lambda seconds: None)

    def _count(self, **_: Any) -> None:
        self.transactions += 1

    def evidence(self) -> list[Entry]:
        """Entries that wait, oldest first."""
        journal = DynamoJournal(self.table, None, "")
        rows = journal.pending(clock.now_ms(), 1_000)
        return [Entry.from_payload(one) for row in rows for one in row.payload["entries"]]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield World()


def incident(number: int = 0) -> Incident:
    identity = ids.derived_id("inc", NOW, PROJECT, str(number))
    return Incident(identity, NOW, NOW, NOW, NOW, NOW, version=1, trace_id=TRACE)


def save(world: World, effects: Effects, *, version: int = 0, rows: tuple[OutboxRow, ...] = ()) -> None:
    store = DynamoIncidentStore(world.table, fixed_sealer(), retention_days=90)
    store.save(PROJECT, Cursor(version=version), Cursor(version=version + 1), effects, rows, NOW)


def record(**changes: Any) -> NotificationRecord:
    made = NotificationRecord(
        project=PROJECT,
        incident_id=incident().id,
        seq=1,
        kind="opened",
        channel_id="chn_1",
        decision="pending",
        created_at=NOW,
        wake_at=NOW + 60_000,
        trace_id=TRACE,
    )
    return replace(made, **changes)


def told(entry: Entry) -> tuple[str, str, str, str]:
    return entry.kind, entry.actor, entry.trace_id, entry.outcome


def test_a_person_acts_under_their_key_and_what_they_say_is_evidence_too(world: World) -> None:
    who: dict[str, Any] = {"by": ACTOR, "now": NOW}
    steps: list[Callable[[Incident], Effects]] = [
        lambda one: incidents.acknowledge(one, **who),
        lambda one: incidents.give_verdict(one, verdict="useful", **who),
        lambda one: incidents.note(one, text="a name that must not show", **who),
        lambda one: incidents.resolve(one, **who),
        lambda one: incidents.reopen(one, **who),
    ]
    one = incident()
    with acting(ACTOR, TRACE):
        for version, step in enumerate(steps):
            effects = step(one)
            one = effects.incidents[one.id]
            save(world, effects, version=version)
    kinds = ["incident.acknowledged", "incident.verdict", "incident.note", "incident.resolved", "incident.reopened"]
    assert sorted(map(told, world.evidence())) == sorted((kind, ACTOR, TRACE, "done") for kind in kinds)
    assert {entry.resource for entry in world.evidence()} == {f"incident:{one.id}"}
    assert b"must not show" not in b"".join(entry.leaf() for entry in world.evidence())
    assert cause() == Cause("system:tocsin")


def test_a_merge_and_a_split_name_whom_they_moved(world: World) -> None:
    first, second = incident(1), incident(2)
    with acting(ACTOR, TRACE):
        save(world, incidents.merge([first, second], by=ACTOR, now=NOW))
    (merged,) = world.evidence()
    assert told(merged) == ("incident.merged", ACTOR, TRACE, "done")
    assert merged.resource.removeprefix("incident:") in {first.id, second.id}


def test_correlation_leaves_a_row_per_transition_and_none_when_it_lost_the_race(world: World) -> None:
    effects = incidents.resolve(incident(), by="tocsin", now=NOW)
    with acting("system:correlate"):
        save(world, effects)
        with pytest.raises(Exception, match=PROJECT):  # HeadMoved
            save(world, incidents.resolve(incident(7), by="tocsin", now=NOW))
    assert [told(one) for one in world.evidence()] == [("incident.resolved", "system:correlate", TRACE, "done")]


def test_a_full_round_fits_one_transaction(world: World) -> None:
    """As many transitions as ITEMS_PER_ROUND allows, each with its fact and its evidence."""
    effects, number = Effects(), 0
    while effects.items() + 2 <= ITEMS_PER_ROUND:
        one = incidents.resolve(incident(number), by="tocsin", now=NOW)
        effects.incidents |= one.incidents
        effects.transitions += one.transitions
        number += 1
    facts = tuple(
        OutboxRow(PROJECT, ids.new_id("out", NOW), "fact", NOW, {"facts": []})
        for _ in range(outbox_rows(len(effects.transitions), ()))
    )
    before = world.transactions
    save(world, effects, rows=facts)
    assert world.transactions == before + 1
    assert number > ITEMS_PER_ROUND // 2
    assert len(world.evidence()) == number


@pytest.mark.parametrize("decision", ["delivered", "withheld", "failed"])
def test_a_notification_leaves_evidence_when_it_is_decided_and_only_then(world: World, decision: str) -> None:
    store = DynamoNotifications(world.table, fixed_sealer(), retention_days=90)
    pending = record()
    with acting("system:notify"):
        store.claim(pending)
        retrying = pending.step(decision="retrying", wake_at=NOW + 120_000)
        assert store.save(pending, retrying)
        assert world.evidence() == []
        ended = retrying.step(decision=decision, wake_at=None)
        assert store.save(retrying, ended)
        assert not store.save(retrying, ended)
    outcome = {"delivered": "done", "withheld": "refused", "failed": "failed"}[decision]
    (left,) = world.evidence()
    assert told(left) == (f"notification.{decision}", "system:notify", TRACE, outcome)
    assert left.resource == f"notification:{pending.id}"


def test_a_notification_that_is_withheld_at_once_leaves_evidence_once(world: World) -> None:
    store = DynamoNotifications(world.table, fixed_sealer(), retention_days=90)
    withheld = record(decision="withheld", wake_at=None, reason="budget")
    store.claim(withheld)
    store.claim(withheld)
    assert [one.kind for one in world.evidence()] == ["notification.withheld"]


def test_channels_leave_evidence_of_every_change_and_of_no_lost_race(world: World) -> None:
    store = DynamoChannels(world.table, fixed_sealer())
    channel = webhook("on-call", project=PROJECT, url="https://secret.example/token")
    with acting(ACTOR, TRACE):
        assert store.put(channel, None)
        assert not store.put(channel, None)
        changed = replace(channel, version=channel.version + 1, enabled=False)
        assert store.put(changed, channel.version)
        assert not store.put(changed, channel.version)
        assert not store.delete(PROJECT, channel.id, 99)
        assert store.delete(PROJECT, channel.id, changed.version)
        assert not store.delete(PROJECT, channel.id, changed.version)
    entries = world.evidence()
    assert sorted(one.kind for one in entries) == ["channel.changed", "channel.created", "channel.deleted"]
    assert {(one.actor, one.trace_id, one.resource) for one in entries} == {(ACTOR, TRACE, f"channel:{channel.id}")}
    assert "secret.example" not in json.dumps([one.payload() for one in entries])


def test_documents_leave_evidence_under_their_name_and_version(world: World) -> None:
    documents = Documents(world.table, fixed_sealer())
    with acting(ACTOR, TRACE):
        documents.put(PROJECT, "topology", {"services": {}}, 0, NOW)
        with pytest.raises(Refusal):
            documents.put(PROJECT, "topology", {"services": {}}, 0, NOW)
        assert DynamoRouting(documents).put(PROJECT, Routing(), 0)
        documents.put(PROJECT, "topology", {"services": {"a": {}}}, 1, NOW)
    found = sorted((one.kind, one.resource) for one in world.evidence())
    assert found == [
        ("routing.replaced", "routing:v1"),
        ("topology.replaced", "topology:v1"),
        ("topology.replaced", "topology:v2"),
    ]


def test_a_refusal_of_an_accepted_event_leaves_evidence_once(world: World) -> None:
    ledger = DynamoLedger(world.table, Bucket(None, "b"), fixed_sealer(), retention_days=90)
    with acting("system:score"):
        for _ in range(2):
            ledger.refuse(PROJECT, "evt_" + "a" * 26, b"d" * 16, NOW, "ERR_IDEMPOTENCY_MISMATCH: other content")
        ledger.refuse(PROJECT, "evt of a #damaged# row", b"", NOW, "stored, but not correlated: KeyError")
    first, second = sorted(world.evidence(), key=lambda one: one.resource)
    assert {(one.kind, one.actor, one.outcome) for one in (first, second)} == {
        ("event.refused", "system:score", "refused")
    }
    assert "damaged" not in first.resource + second.resource


def test_healings_and_replays_belong_to_the_deployment(world: World) -> None:
    log = Healings(world.table)
    healing = {
        "id": ids.new_id("heal", NOW),
        "at": clock.rfc3339(NOW),
        "target": "mapping score",
        "finding": "disabled",
        "action": "enable",
        "outcome": "failed",
        "attempts": 1,
        "text": "t",
    }
    with acting("system:supervise"):
        log.record(healing)
        log.record(healing | {"outcome": "healed"})
    with acting("admin:cli"):
        log.record(replay_record("score", "alice", 3, 0, NOW))
    entries = world.evidence()
    assert {one.project for one in entries} == {DEPLOYMENT}
    assert sorted((one.kind, one.actor, one.action, one.outcome) for one in entries) == [
        ("healing.failed", "system:supervise", "healing:enable", "failed"),
        ("healing.healed", "system:supervise", "healing:enable", "done"),
        ("healing.replayed", "admin:cli", "healing:replay", "done"),
    ]
    assert "alice" not in json.dumps([one.payload() for one in entries])


def test_an_action_whose_evidence_cannot_be_written_does_not_happen(world: World) -> None:
    """The other half of one transaction: what stands beside the evidence is not there without it."""

    def too_large(params: dict[str, Any], **_: Any) -> None:
        for item in params["TransactItems"]:
            put = item.get("Put", {}).get("Item", {})
            if "#evidence#" in put.get("pk", {}).get("S", ""):
                item["Put"]["ConditionExpression"] = "attribute_exists(pk)"

    world.client.meta.events.register("provide-client-params.dynamodb.TransactWriteItems", too_large)
    store = DynamoChannels(world.table, fixed_sealer())
    assert not store.put(webhook("on-call", project=PROJECT), None)
    assert store.get_all(PROJECT) == []
    with pytest.raises(Refusal):
        Documents(world.table, fixed_sealer()).put(PROJECT, "topology", {"services": {}}, 0, NOW)
    assert Documents(world.table, fixed_sealer()).get(PROJECT, "topology") == (0, None)


def test_writers_of_one_minute_do_not_share_a_directory_row(world: World) -> None:
    rows = [OutboxRow(PROJECT, ids.new_id("evd", NOW), "evidence", NOW, {}) for _ in range(40)]
    directories = {json.dumps(outbox_writes(world.table, [row], NOW)[-1].operation) for row in rows}
    assert len(directories) == 4


def key(**changes: Any) -> KeyRecord:
    scopes = frozenset({"ingest:write"})
    return replace(KeyRecord("0190abcdEFGH", PROJECT, "live", b"h" * 32, scopes, NOW, name="of Ada"), **changes)


def test_keys_leave_evidence_when_they_are_made_changed_and_ended_and_of_no_second_end(world: World) -> None:
    store, made = DynamoKeys(world.table), key()
    with acting(ACTOR, TRACE):
        assert store.add(made)
        assert not store.add(made)
        assert store.change(replace(made, name="other", expires_at=NOW + 9))
        assert store.touch(made.key_id, NOW, NOW - 1)
        assert store.revoke(PROJECT, made.key_id, NOW)
        assert not store.revoke(PROJECT, made.key_id, NOW)
        assert not store.revoke("other", made.key_id, NOW)
        assert not store.change(made)
    entries = world.evidence()
    assert sorted(map(told, entries)) == [(f"key.{what}", ACTOR, TRACE, "done") for what in KEY_STEPS]
    assert {one.resource for one in entries} == {f"key:key_{made.key_id}"}
    assert "Ada" not in json.dumps([one.payload() for one in entries])


def test_projects_leave_evidence_of_their_settings_and_their_end(world: World) -> None:
    store, project = DynamoProjects(world.table), Project(PROJECT, "Shop", NOW, version=1)
    with acting(ACTOR, TRACE):
        assert store.put(project, 0)
        assert not store.put(project, 0)
        quiet = replace(project, settings=ProjectSettings(redaction="off"), version=2)
        assert store.put(quiet, 1)
        assert store.put(replace(quiet, status="deleted", version=3), 2)
    entries = sorted(world.evidence(), key=lambda one: one.kind)
    assert [one.kind for one in entries] == ["project.changed", "project.created", "project.deleted"]
    assert len({one.digests["project"] for one in entries}) == 3, "each names the settings as they were then"
    assert {(one.actor, one.project) for one in entries} == {(ACTOR, PROJECT)}


def test_people_and_approvals_leave_evidence_of_every_step(world: World) -> None:
    people, approvals = DynamoPeople(world.table), DynamoApprovals(world.table, fixed_sealer())
    ada = Person(ids.new_id("per", NOW), PROJECT, "Ada", frozenset({"events:*"}), NOW, ACTOR)
    request = {"method": "DELETE", "path": "/v1/projects/demo", "query": {}, "body": None}
    asked = Approval(ids.new_id("apr", NOW), PROJECT, "00" * 32, request, "because of Ada", ACTOR, NOW)
    with acting(ACTOR, TRACE):
        assert people.put(ada, 0)
        assert people.put(replace(ada, scopes=frozenset(), version=2), 1)
        assert people.put(replace(ada, removed_at=NOW, version=3), 2)
        assert not people.put(ada, 7)
        assert approvals.put(asked, 0)
    with acting("key_ofSomebodyEl", TRACE):
        given = replace(asked, status="approved", version=2)
        assert approvals.put(given, 1)
        assert not approvals.put(given, 1)
        assert approvals.put(replace(given, status="used", version=3), 2)
        other = replace(asked, id=ids.new_id("apr", NOW))
        assert approvals.put(other, 0)
        assert approvals.put(replace(other, status="rejected", version=2), 1)
    entries = world.evidence()
    assert sorted((one.kind, one.outcome) for one in entries) == [
        ("approval.asked", "done"),
        ("approval.asked", "done"),
        ("approval.given", "allowed"),
        ("approval.refused", "refused"),
        ("approval.used", "done"),
        ("person.added", "done"),
        ("person.changed", "done"),
        ("person.removed", "done"),
    ]
    assert next(one.actor for one in entries if one.kind == "approval.given") == "key_ofSomebodyEl"
    assert "Ada" not in json.dumps([one.payload() for one in entries])


def test_jobs_leave_evidence_of_their_beginning_and_their_end(world: World) -> None:
    jobs = DynamoJobs(world.table, fixed_sealer())
    job = Job(ids.new_id("job", NOW), PROJECT, "erasure", ACTOR, NOW, "rows", subject="usr_" + "a" * 26)
    running = replace(job, version=2, phase="exports")
    once = replace(running, version=3, status="done", finished_at=NOW, recheck_at=NOW + 9, removed={"rows": 4})
    again = replace(once, version=4, status="running", phase="rows")
    left = replace(once, version=5, status="incomplete", recheck_at=None, remains={"rows": 1})
    with acting("system:privacy"):
        for version, one in enumerate((job, running, once, again, left)):
            assert jobs.put(one, version)
        assert not jobs.put(left, 2)
    entries = world.evidence()
    assert sorted((one.kind, one.outcome) for one in entries) == [
        ("erasure.begun", "done"),
        ("erasure.done", "done"),
        ("erasure.done", "failed"),
    ]
    assert "usr_a" not in json.dumps([one.payload() for one in entries])


def test_silences_leave_evidence_when_they_are_set_and_ended(world: World) -> None:
    store = DynamoSilences(world.table, fixed_sealer())
    hour = clock.now_ms() + clock.HOUR
    silence = Silence("0d0c7c43-6f4f-4c5b-8a53-5a51a3a5d6f5", (), NOW, hour, NOW, "ada@team.example", "deploying")
    with acting(ACTOR, TRACE):
        store.put(PROJECT, silence)
        store.put(PROJECT, replace(silence, ends_at=NOW))
    entries = world.evidence()
    assert sorted(map(told, entries)) == [(f"silence.{one}", ACTOR, TRACE, "done") for one in ("ended", "set")]
    assert "ada@team.example" not in json.dumps([one.payload() for one in entries])


def test_the_rotation_of_token_keys_belongs_to_the_deployment(world: World) -> None:
    with acting(ACTOR, TRACE):
        assert DynamoKeySet(world.table).put({"keys": []}, 0)
        assert not DynamoKeySet(world.table).put({"keys": []}, 0)
    (left,) = world.evidence()
    assert (left.project, *told(left)) == (DEPLOYMENT, "token_keys.rotated", ACTOR, TRACE, "done")


def test_a_denial_is_evidence_once_a_minute_and_names_no_address(world: World) -> None:
    denials = Denials(world.table, lambda: b"p" * 32)
    ada = Principal(PROJECT, "0190abcdEFGH", frozenset())
    minute = NOW - NOW % clock.MINUTE

    def note(code: str, operation: str, caller: Principal | None, at: int) -> bool:
        return denials.note(code, operation, caller, "192.0.2.7", TRACE, at)

    assert note("ERR_SCOPE", "list_keys", ada, minute)
    assert not note("ERR_SCOPE", "list_keys", ada, minute + 59_999)
    assert note("ERR_SELF_APPROVAL", "approve", ada, minute)
    assert note("ERR_AUTH_INVALID", "unknown", None, minute)
    assert not note("ERR_SCHEMA", "send_events", ada, minute), "what is wrong with a request is in the log"
    assert note("ERR_SCOPE", "list_keys", ada, minute - clock.MINUTE), "another minute"
    entries = world.evidence()
    assert len({one.id for one in entries}) == len(entries) == 4
    found = {(one.kind, one.project, one.actor, one.action, one.outcome) for one in entries}
    assert found == {
        ("denied.scope", PROJECT, ada.credential, "request:list_keys", "refused"),
        ("denied.self_approval", PROJECT, ada.credential, "request:approve", "refused"),
        ("denied.auth_invalid", DEPLOYMENT, "system:nobody", "request:unknown", "refused"),
    }
    assert "192.0.2" not in json.dumps([one.payload() for one in entries])
    assert Denials(world.table, lambda: b"p" * 32).note("ERR_SCOPE", "list_keys", ada, "", TRACE, minute)
    assert len({one.id for one in world.evidence()}) == 5, "another process says it for itself"


def test_guessing_writes_a_bounded_number_of_rows(world: World) -> None:
    denials = Denials(world.table, lambda: b"p" * 32)
    wrote = [denials.note("ERR_AUTH_INVALID", "x", None, f"192.0.2.{n}", TRACE, NOW) for n in range(200)]
    assert sum(wrote) == MOST
    assert wrote[:MOST] == [True] * MOST
    ada = Principal(PROJECT, "0190abcdEFGH", frozenset())
    assert denials.note("ERR_SCOPE", "list_keys", ada, "", TRACE, NOW), "guessing leaves room for who is known"
