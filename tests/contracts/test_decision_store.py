"""The stores of decisions in memory and in AWS keep the same promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from tests.rooms.decisions.memory import CallRows, Cell, Control, Log, Objects
from tests.support import api_fakes
from tests.support.keys import FixedRing

from tocsin.aws import keys
from tocsin.aws.bucket import Bucket
from tocsin.aws.decision_store import (
    DynamoCalls,
    DynamoControl,
    DynamoDecisionLog,
    DynamoPointer,
    RegistryObjects,
)
from tocsin.aws.table import Table
from tocsin.decisions import changes, contracts, policies
from tocsin.decisions.control import Budget, Monitor, Watch
from tocsin.decisions.ports import Decided, Deed, Taken, decision_ids
from tocsin.decisions.routing import Health
from tocsin.decisions.snapshots import Registry
from tocsin.kernel import clock
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.cause import acting
from tocsin.kernel.envelope import unpack
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.ids import new_id
from tocsin.kernel.sealing import Sealer, is_sealed

NOW = clock.now_ms()
BATCH = new_id("dec", NOW)
#: What a pointer says.
STATE = canonical_json({"snapshot": "5" * 64})


def decided(n: int) -> Decided:
    receipt = {"v": 1, "request": f"{n:064x}", "snapshot": "5" * 64, "health": "7" * 64, "decision": None}
    return Decided(receipt, {"principal": "key_a", "capabilities": ["mail.send"], "trust": n})


@pytest.fixture(autouse=True)
def _bucket(table: Table) -> None:
    boto3.client("s3").create_bucket(Bucket="registries")


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


@pytest.fixture(params=["memory", "aws"])
def objects(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        return Objects()
    request.getfixturevalue("table")
    return RegistryObjects(Bucket(boto3.client("s3"), "registries"), "p1")


@pytest.fixture(params=["memory", "dynamodb"])
def pointer(request: pytest.FixtureRequest) -> Any:
    return Cell() if request.param == "memory" else DynamoPointer(request.getfixturevalue("table"), "p1")


def test_objects_are_found_by_name_and_storing_them_again_is_harmless(objects: Any) -> None:
    assert objects.get("snapshot/ab") is None
    for _ in range(2):
        objects.create("snapshot/ab", b"{}")
    assert objects.get("snapshot/ab") == b"{}"


def test_objects_are_a_projects_own_and_a_process_remembers_them(table: Table) -> None:
    bucket = Bucket(boto3.client("s3"), "registries")
    first = RegistryObjects(bucket, "p1")
    first.create("delta/ab", b"x")
    assert bucket.get("registry/p1/delta/ab") == b"x"
    assert RegistryObjects(bucket, "p2").get("delta/ab") is None
    reader = RegistryObjects(bucket, "p1")
    assert reader.get("delta/ab") == b"x"
    bucket.delete_many(["registry/p1/delta/ab"])
    assert reader.get("delta/ab") == b"x", "what never changes is not asked for again"


def test_a_pointer_moves_only_from_where_it_was_read(pointer: Any) -> None:
    data, token = pointer.read()
    assert data is None
    assert pointer.swap(b'{"v":1}', token)
    assert not pointer.swap(b'{"v":2}', token)
    data, after = pointer.read()
    assert (data, after != token) == (b'{"v":1}', True)
    assert pointer.swap(b'{"v":2}', after)
    assert pointer.read()[0] == b'{"v":2}'


def test_a_deed_is_on_record_with_the_swap_or_neither_happens(table: Table) -> None:
    pointer, contract = DynamoPointer(table, "p1"), {"name": "mailer", "version": 1}
    policy = {"version": 2, "rules": [], "profiles": {}}
    assert pointer.swap(STATE, "0", Deed("register", "contract", "mailer-v1", contract))
    assert not pointer.swap(STATE, "0", Deed("drain", "contract", "mailer-v1", contract))
    assert pointer.swap(STATE, "1", Deed("publish", "policy", "v2", policy))
    rows = table.query(keys.evidence_partition("p1", keys.day(clock.now_ms())))
    entries = [entry for row in rows for entry in unpack(row["z"])["entries"]]
    found = {(entry["kind"], entry["action"], entry["resource"]) for entry in entries}
    assert {entry["digests"]["snapshot"] for entry in entries} == {f"sha256:{'5' * 64}"}
    assert found == {
        ("contract.registered", "contract:register", "contract:mailer-v1"),
        ("policy.published", "policy:publish", "policy:v2"),
    }
    assert [row["policy"] for row in pointer.policies(None, 5)] == [policy]
    assert pointer.policies(2, 5) == []


class LostAnswers:
    """A table client whose transactions are carried out (or not), and then time out."""

    def __init__(self, client: Any, carried_out: bool) -> None:
        self._client, self._carried_out = client, carried_out

    def transact_write_items(self, **arguments: Any) -> Any:
        if self._carried_out:
            self._client.transact_write_items(**arguments)
        raise ReadTimeoutError(endpoint_url="http://table")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_swap_whose_answer_was_lost_is_told_by_reading(table: Table) -> None:
    client = boto3.client("dynamodb")
    assert DynamoPointer(Table(LostAnswers(client, True), "t"), "p1").swap(b"{}", "0")
    with pytest.raises(Retry):
        DynamoPointer(Table(LostAnswers(client, False), "t"), "p1").swap(b'{"v":2}', "1")
    assert DynamoPointer(table, "p1").read() == (b"{}", "1")


def test_a_registry_in_aws_is_what_it_is_in_memory(table: Table) -> None:
    registries = [
        Registry(
            RegistryObjects(Bucket(boto3.client("s3"), "registries"), "p1"), DynamoPointer(table, "p1"), lambda: NOW
        ),
        Registry(Objects(), Cell(), lambda: NOW),
    ]
    sent = api_fakes.sample_contracts()[0]
    for registry in registries:
        registry.publish(changes.govern(policies.validate(api_fakes.SAMPLE_POLICY)))
        registry.publish(changes.register(contracts.validate(sent, NOW)), changes.deed_of("register"))
        registry.publish(changes.move("mailer", 1, "active", NOW, 30_000), changes.deed_of("activate"))
    ours, theirs = (registry.current() for registry in registries)
    assert ours.name == theirs.name
    fresh = Registry(
        RegistryObjects(Bucket(boto3.client("s3"), "registries"), "p1"), DynamoPointer(table, "p1"), lambda: NOW
    )
    assert fresh.current() == ours
    assert fresh.at(str(ours.previous)).contracts[0]["state"] == "draft"


@pytest.fixture(params=["memory", "dynamodb"])
def control(request: pytest.FixtureRequest) -> Any:
    return Control() if request.param == "memory" else DynamoControl(request.getfixturevalue("table"), "p1")


def test_an_owners_call_never_moves_backwards(control: Any) -> None:
    assert dict(control.watches()) == {}
    for at in (5, 9, 7):
        control.beat("mailer@1", at)
    assert dict(control.watches()) == {"mailer@1": Watch(9)}


def test_health_advances_one_epoch_at_a_time(control: Any) -> None:
    assert control.health() == Health()
    first = Health(1, {"mailer@1": "lease"}, frozenset({"sms@2"}))
    assert not control.advance(replace(first, epoch=2))
    assert control.advance(first)
    assert not control.advance(replace(first, down={}))
    assert control.health() == first
    assert control.advance(Health(2))


@pytest.fixture(params=["memory", "dynamodb"])
def calls(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        return CallRows(Control())
    return DynamoCalls(request.getfixturevalue("table"), Sealer(FixedRing()), "p1")


def test_a_call_is_begun_once_and_answered_again(calls: Any) -> None:
    until, answer = clock.now_ms() + 60_000, {"status": "done", "output": {"id": "m-1"}, "attempts": []}
    assert calls.claim("c-1", "aa", until) is None
    for digest, code in (("aa", "ERR_CONFLICT"), ("bb", "ERR_IDEMPOTENCY_MISMATCH")):
        with pytest.raises(Refusal) as refused:
            calls.claim("c-1", digest, until + 1)
        assert refused.value.code == code
    calls.answer("c-1", answer, 7)
    assert calls.claim("c-1", "aa", until + 1) == answer
    with pytest.raises(Refusal):
        calls.claim("c-1", "bb", until)


def test_a_call_that_never_ended_may_be_begun_again(table: Table) -> None:
    calls = DynamoCalls(table, Sealer(FixedRing()), "p1")
    assert calls.claim("c-1", "aa", clock.now_ms() - 1) is None
    assert calls.claim("c-1", "aa", clock.now_ms() + 60_000) is None


def test_watch_and_budget_change_together_or_not_at_all(calls: Any) -> None:
    assert calls.set_limit(100) == Budget(100) == calls.budget()

    def step(amount: int) -> Callable[[Watch, Budget], Taken]:
        def taken(watch: Watch, budget: Budget) -> Taken:
            held = budget.reserve(f"call-{amount}", amount, NOW + 60_000)
            if held is None:
                return Taken("budget")
            after = replace(watch, running={**watch.running, f"call-{amount}": 5}, monitor=Monitor(1_000))
            return Taken(None, replace(after, breaker=watch.breaker.failed(NOW)), held)

        return taken

    assert calls.take("mailer@1", step(60)).refused is None
    assert calls.take("mailer@1", step(50)).refused == "budget"
    assert calls.take("mailer@1", step(40)).refused is None
    assert calls.budget().held == 100
    seen: list[Watch] = []
    calls.take("mailer@1", lambda watch, budget: seen.append(watch) or Taken("enough"))  # type: ignore[func-returns-value]
    assert dict(seen[0].running) == {"call-60": 5, "call-40": 5}
    assert seen[0].breaker.failures == 2
    assert seen[0].monitor == Monitor(1_000)


def test_a_step_that_met_another_is_taken_again(table: Table) -> None:
    calls, tries = DynamoCalls(table, Sealer(FixedRing()), "p1"), []

    def step(watch: Watch, budget: Budget) -> Taken:
        tries.append(1)
        if len(tries) == 1:
            calls.take("mailer@1", lambda seen, money: Taken(None, replace(seen, running={"other": 1}), money))
        return Taken(None, replace(watch, running={**watch.running, "mine": 2}), budget)

    taken = calls.take("mailer@1", step)
    assert (len(tries), taken.watch and dict(taken.watch.running)) == (2, {"other": 1, "mine": 2})
    DynamoControl(table, "p1").beat("mailer@1", 44)
    assert DynamoControl(table, "p1").watches()["mailer@1"].beat_ms == 44


def test_a_kind_of_requests_remembers_where_it_went(calls: Any) -> None:
    assert calls.incumbent("ab") is None
    calls.set_incumbent("ab", "mailer@1")
    assert calls.incumbent("ab") == "mailer@1"
