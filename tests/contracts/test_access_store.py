"""The stores of access in memory and in DynamoDB keep the same promises."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from tests.support.access_fakes import (
    NOW,
    ApprovalRows,
    Buckets,
    FailureRows,
    KeyRowsFake,
    KeySetRow,
    OnceRows,
    PeopleRows,
    ProjectRows,
    UsageRows,
)
from tests.support.keys import fixed_sealer

from tocsin.access import keys
from tocsin.access.admin import Person
from tocsin.access.approvals import Approval
from tocsin.access.limits import Limiter, Rate
from tocsin.access.principals import KeyRecord
from tocsin.access.projects import Project, ProjectSettings, Quota
from tocsin.access.usage import llm_tokens
from tocsin.aws import keys as table_keys
from tocsin.aws.access_store import DynamoApprovals, DynamoKeySet, DynamoOnce, DynamoUsage
from tocsin.aws.bucket import Bucket
from tocsin.aws.key_store import APPROVAL_LIFE, DynamoKeys, DynamoPeople, DynamoProjects
from tocsin.aws.keys import day
from tocsin.aws.ledger import DynamoLedger
from tocsin.aws.limit_store import DynamoFailures, DynamoLimits
from tocsin.aws.table import Table
from tocsin.kernel import clock
from tocsin.kernel.errors import Retry
from tocsin.kernel.ids import new_id, uuid7
from tocsin.signals.ports import Commit


class MemoryBucket(Bucket):
    """Nothing of these tests is large enough for a bucket."""

    def __init__(self) -> None:
        return


@dataclass
class Stores:
    """One implementation of every store."""

    projects: Any
    keys: Any
    people: Any
    once: Any
    key_set: Any
    approvals: Any
    usage: Any
    limits: Any
    failures: Any
    table: Table | None = None


@pytest.fixture(params=["memory", "dynamodb"])
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "memory":
        rows = (ProjectRows(), KeyRowsFake(), PeopleRows(), OnceRows(), KeySetRow(), ApprovalRows(), UsageRows())
        return Stores(*rows, Buckets(), FailureRows())
    table: Table = request.getfixturevalue("table")
    client = boto3.client("dynamodb")
    return Stores(
        DynamoProjects(table),
        DynamoKeys(table),
        DynamoPeople(table),
        DynamoOnce(table),
        DynamoKeySet(table),
        DynamoApprovals(table, fixed_sealer()),
        DynamoUsage(table),
        DynamoLimits(client, "t"),
        DynamoFailures(client, "t"),
        table,
    )


def _record(project: str = "p1", at: int = NOW, **changes: Any) -> KeyRecord:
    _, key_id = keys.mint()
    base = KeyRecord(key_id, project, "live", b"h" * 32, frozenset({"events:*", "ingest:write"}), at)
    return replace(base, **changes)


def test_a_project_is_written_over_the_version_that_was_read(stores: Stores) -> None:
    settings = ProjectSettings(("iban",), "on", "prose")
    project = Project("prj_1", "Shop", NOW, "key_x", "active", settings, Quota(requests_per_second=5), 1)
    assert stores.projects.get("prj_1") is None
    assert stores.projects.put(project, 0)
    assert not stores.projects.put(project, 0)
    assert stores.projects.get("prj_1") == project
    changed = replace(project, status="suspended", version=2)
    assert not stores.projects.put(changed, 7)
    assert stores.projects.put(changed, 1)
    assert stores.projects.get("prj_1") == changed
    older = Project("prj_2", "Before", NOW - 1, version=1)
    assert stores.projects.put(older, 0)
    assert list(stores.projects.all()) == [older, changed]


def test_a_key_is_found_by_id_and_listed_by_project_in_order(stores: Stores) -> None:
    made = [_record(at=NOW + n, name=f"k{n}", last_four="abcd", created_by="key_x", owner="per_1") for n in range(3)]
    for record in made:
        assert stores.keys.add(record)
    assert stores.keys.add(_record("p2"))
    assert not stores.keys.add(replace(made[0], project="p2")), "an id that is taken is nobody else's"
    assert stores.keys.get(made[0].key_id) == made[0]
    assert stores.keys.get("0" * 12) is None
    assert list(stores.keys.of_project("p1")) == made


def test_a_key_is_revoked_once_and_not_changed_afterwards(stores: Stores) -> None:
    record = _record()
    stores.keys.add(record)
    assert stores.keys.change(replace(record, name="new", expires_at=NOW + 5, scopes=frozenset({"admin:*"})))
    found = stores.keys.get(record.key_id)
    assert found == replace(record, name="new", expires_at=NOW + 5), "scopes are not taken"
    assert not stores.keys.revoke("p2", record.key_id, NOW)
    assert stores.keys.revoke("p1", record.key_id, NOW)
    assert not stores.keys.revoke("p1", record.key_id, NOW + 1)
    assert stores.keys.get(record.key_id).revoked_at == NOW
    if stores.table:
        row = stores.table.get(table_keys.api_key(record.key_id)) or {}
        assert row["exp"] * 1000 == NOW + APPROVAL_LIFE, "gone when nothing names it any more"
    assert not stores.keys.change(record)


def test_last_use_moves_at_most_once_a_minute(stores: Stores) -> None:
    record = _record()
    stores.keys.add(record)
    assert stores.keys.touch(record.key_id, NOW, NOW - clock.MINUTE)
    assert not stores.keys.touch(record.key_id, NOW + 59_999, NOW - 1)
    assert stores.keys.get(record.key_id).last_used_at == NOW
    assert stores.keys.touch(record.key_id, NOW + clock.MINUTE, NOW)


def test_people_are_kept_by_project_and_version(stores: Stores) -> None:
    person = Person(new_id("per", NOW), "p1", "Ada", frozenset({"events:*"}), NOW, "key_x")
    assert stores.people.put(person, 0)
    assert stores.people.get("p1", person.id) == person
    assert stores.people.get("p2", person.id) is None
    removed = replace(person, removed_at=NOW, version=2)
    assert stores.people.put(removed, 1)
    assert not stores.people.put(person, 1)
    assert list(stores.people.all("p1")) == [removed]


def test_a_thing_happens_once(stores: Stores) -> None:
    assert stores.once.first("p1", "token", "a", NOW + 1000)
    assert not stores.once.first("p1", "token", "a", NOW + 9000)
    assert stores.once.first("p1", "nonce#k", "a", NOW)
    assert stores.once.first("p2", "token", "a", NOW)
    if stores.table:
        rows = boto3.client("dynamodb").scan(TableName="t")["Items"]
        assert all(int(row["exp"]["N"]) >= NOW // 1000 for row in rows)


def test_the_key_set_is_replaced_over_its_version(stores: Stores) -> None:
    assert stores.key_set.get() == (0, None)
    document = {"keys": [{"n": 1, "since": 0, "retire_at": None}]}
    assert stores.key_set.put(document, 0)
    assert not stores.key_set.put({"keys": []}, 0)
    assert stores.key_set.get() == (1, document)
    assert stores.key_set.put({"keys": []}, 1)


def _approval(at: int = NOW) -> Approval:
    described = {"method": "DELETE", "path": "/v1/x", "query": {"a": ["1"]}, "body": {"n": [1, None, 2.5, "\u00e9"]}}
    return Approval(new_id("apr", at), "p1", "00" * 32, described, "why", "key_a", at)


def test_an_approval_is_read_back_whole_and_moves_by_version(stores: Stores) -> None:
    approval = _approval()
    assert stores.approvals.put(approval, 0)
    assert not stores.approvals.put(approval, 0)
    assert stores.approvals.get("p1", approval.id) == approval
    assert stores.approvals.get("p2", approval.id) is None
    approved = replace(approval, status="approved", decided_by="key_b", decided_at=NOW, version=2)
    assert stores.approvals.put(approved, 1)
    assert not stores.approvals.put(replace(approved, status="rejected"), 1)
    assert stores.approvals.get("p1", approval.id) == approved


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 10])
def test_approvals_are_listed_newest_first_without_gap(stores: Stores, limit: int) -> None:
    made = [_approval(NOW + n) for n in range(5)]
    for approval in made:
        stores.approvals.put(approval, 0)
    found, position = [], None
    for _ in range(6):
        page, position = stores.approvals.page("p1", position, limit)
        assert len(page) <= limit
        found += page
        if position is None:
            break
    assert found == made[::-1]


def test_usage_is_added_by_day_and_exported_marks_stay_apart(stores: Stores) -> None:
    stores.usage.add("p1", "20261119", {"events": 2, "bytes": 10})
    stores.usage.add("p1", "20261119", {"events": 3})
    stores.usage.add("p1", "20261120", {"llm_tokens": 1})
    stores.usage.add("p2", "20261120", {"llm_tokens": 9})
    assert not stores.usage.exported("p1", "20261119", "events")
    stores.usage.mark_exported("p1", "20261119", "events", 5, NOW)
    assert stores.usage.exported("p1", "20261119", "events")
    told = [(day, dict(row)) for day, row in stores.usage.days("p1", "20261101", "20261130")]
    assert told == [("20261119", {"events": 5, "bytes": 10}), ("20261120", {"llm_tokens": 1})]
    assert [day for day, _ in stores.usage.days("p1", "20261120", "20261120")] == ["20261120"]


def test_commits_count_their_events_and_bytes_by_day_at_no_extra_row(table: Table) -> None:
    ledger, usage = DynamoLedger(table, MemoryBucket(), fixed_sealer(), retention_days=90), DynamoUsage(table)

    def commit(count: int, at: int) -> None:
        event = {"source": "s", "type": "t", "entity": {"type": "", "id": ""}, "tier": "low", "status": "firing"}
        metrics = {"gen_ai.usage.input_tokens": 40, "gen_ai.usage.output_tokens": 2.0, "p99_ms": 9}
        events = [{**event, "tags": {}, "ruling_ms": at, "title": "x", "metrics": metrics} for _ in range(count)]
        ledger.commit("p1", Commit(uuid7(at), ledger.head("p1"), at, "t", events, {}, {}, {}))

    def rows() -> int:
        return len(boto3.client("dynamodb").scan(TableName="t")["Items"])

    commit(2, NOW)
    one = dict(usage.days("p1", day(NOW), day(NOW)))[day(NOW)]
    assert (one["events"], one["llm_tokens"]) == (2, 84)
    assert one["bytes"] > 100
    before = rows()
    commit(3, NOW + 1)
    assert rows() - before == 2, "the commit and its log row"
    commit(5, NOW + clock.DAY)
    commit(7, NOW)  # by a worker whose clock is a day behind
    usage.add("p1", day(NOW + clock.DAY), {"llm_tokens": 8})
    told = dict(usage.days("p1", day(NOW), day(NOW + 9 * clock.DAY)))
    assert {name: row["events"] for name, row in told.items()} == {day(NOW): 5, day(NOW + clock.DAY): 12}
    assert told[day(NOW)]["bytes"] > one["bytes"]
    assert told[day(NOW + clock.DAY)]["llm_tokens"] == 12 * 42 + 8
    assert told[day(NOW)]["llm_tokens"] == 5 * 42


@pytest.mark.parametrize(
    ("metrics", "counted"),
    [
        ({}, 0),
        ({"gen_ai.usage.input_tokens": 7}, 7),
        ({"gen_ai.usage.input_tokens": -7, "gen_ai.usage.output_tokens": 3}, 3),
        ({"gen_ai.usage.output_tokens": 1e18}, 0),
        ({"tokens": 7}, 0),
    ],
)
def test_tokens_are_what_an_event_says_within_reason(metrics: dict[str, float], counted: int) -> None:
    assert llm_tokens({"metrics": metrics}) == counted


def test_failures_of_a_source_add_up_within_a_minute(stores: Stores) -> None:
    assert stores.failures.add("192.0.2.1", 7, 5) == 5
    assert stores.failures.add("192.0.2.1", 7, 5) == 10
    assert stores.failures.add("192.0.2.1", 8, 5) == 5
    assert stores.failures.add("192.0.2.2", 7, 1) == 1


def test_a_bucket_says_the_same_as_the_arithmetic(stores: Stores) -> None:
    """Random calls, with right and wrong hints, answered as the pure function answers them."""
    rng, model = random.Random(5), Buckets()
    now = NOW * 1000
    for _ in range(300):
        now += rng.choice((0, 1, 50, 4_000))
        by, latest = rng.randrange(1, 3_000), now + rng.randrange(0, 5_000)
        hint = rng.choice((0, now - 1, now + 2_000, model.tats.get(("p1", "k"), 0)))
        expected = model.advance("p1", "k", by, now, latest, 0)
        answer = stores.limits.advance("p1", "k", by, now, latest, hint)
        assert (answer.taken, max(answer.tat_us, now)) == (expected.taken, max(expected.tat_us, now))


def test_buckets_of_two_projects_are_two(stores: Stores) -> None:
    assert stores.limits.advance("p1", "k", 100, NOW, NOW, 0).taken
    assert not stores.limits.advance("p1", "k", 100, NOW, NOW, NOW + 100).taken
    assert stores.limits.advance("p2", "k", 100, NOW, NOW, 0).taken


def test_the_limiter_writes_seldom_over_the_table(table: Table) -> None:
    """At 10 requests per second, 1,000 of them: at most 0.1 UpdateItem per request."""
    client, us = boto3.client("dynamodb"), NOW * 1000
    calls = 0

    def count(**_: Any) -> None:
        nonlocal calls
        calls += 1

    client.meta.events.register("before-call.dynamodb.UpdateItem", count)
    limiter = Limiter(DynamoLimits(client, table.name), lambda: us)
    for _ in range(1_000):
        us += 100_000
        assert limiter.take("p1", "requests#k", Rate(200, 2_000), ordinary=1).ordinary == 1
    assert 0 < calls <= 100


class Failing:
    """A client whose every call fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def update_item(self, **_: Any) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "UpdateItem"),
        ClientError({"Error": {"Code": "InternalServerError"}}, "UpdateItem"),
        ReadTimeoutError(endpoint_url="x"),
    ],
)
def test_trouble_is_told_as_trouble(error: Exception) -> None:
    with pytest.raises(Retry):
        DynamoLimits(Failing(error), "t").advance("p1", "k", 1, NOW, NOW, 0)
    with pytest.raises(Retry):
        DynamoFailures(Failing(error), "t").add("192.0.2.1", 1, 1)


def test_a_known_key_is_restored_as_often_as_one_likes(table: Table) -> None:
    record, store = _record(), DynamoKeys(table)
    for _ in range(2):
        store.restore(record)
    assert store.get(record.key_id) == record
    assert list(store.of_project("p1")) == [record]


def test_the_operator_is_the_project_of_operations(table: Table) -> None:
    projects = DynamoProjects(table)
    assert not projects.is_operator("p1")
    table.put(table_keys.ops_project(), {"project": "p1"})
    assert projects.is_operator("p1")
    assert not projects.is_operator("p2")


def test_everything_of_a_project_lies_under_its_prefix(table: Table) -> None:
    """So that deleting a prefix deletes it all; the rest is global by name."""
    DynamoKeys(table).add(_record())
    DynamoProjects(table).put(Project("p1", "x", version=1), 0)
    DynamoPeople(table).put(Person("per_1", "p1", "x", frozenset(), NOW, ""), 0)
    DynamoOnce(table).first("p1", "token", "a", NOW)
    DynamoApprovals(table, fixed_sealer()).put(_approval(), 0)
    DynamoUsage(table).add("p1", "20261120", {"events": 1})
    DynamoLimits(boto3.client("dynamodb"), "t").advance("p1", "k", 1, NOW, NOW, 0)
    DynamoFailures(boto3.client("dynamodb"), "t").add("192.0.2.1", 1, 1)
    DynamoKeySet(table).put({}, 0)
    places = {row["pk"]["S"] for row in boto3.client("dynamodb").scan(TableName="t")["Items"]}
    others = {pk for pk in places if not pk.startswith(("p#p1#", "p#deployment#evidence#"))}
    assert all(pk.startswith(tuple(table_keys.GLOBAL)) for pk in others)
    assert {pk.split("#")[0] for pk in others} == {"jrn", "key", "sys"}
