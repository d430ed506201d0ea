"""The stores of defense in memory and in the table keep the same promises; what is stored is sealed and on record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.rooms.decisions.memory import Objects
from tests.support.defense_fakes import ALL_WELL, Ears, MitigationRows, QuarantineRows
from tests.support.keys import FixedRing

from tocsin.access.principals import KeyRecord
from tocsin.aws import keys
from tocsin.aws.decision_store import DynamoDecisionLog
from tocsin.aws.defense_store import DynamoMitigations, DynamoQuarantines, ProbeLog
from tocsin.aws.key_store import DynamoKeys
from tocsin.aws.table import Table
from tocsin.defense import plans
from tocsin.defense.mitigations import Mitigation, Mitigations
from tocsin.defense.quarantine import Quarantine
from tocsin.kernel import clock
from tocsin.kernel.cause import acting
from tocsin.kernel.envelope import unpack
from tocsin.kernel.sealing import Sealer, is_sealed

NOW = clock.now_ms()
ATTACK = {"event_id": "evt_1", "type": "attack.x", "tier": "high", "score": 0.8, "entity": {"type": "bot", "id": "b"}}
LEAK = {"event_id": "evt_2", "type": "key.leaked", "tier": "critical", "score": 0.95}
LEAK |= {"entity": {"type": "key", "id": "key_ofSomebody0"}}


def entry(name: str = "edge") -> Quarantine:
    return Quarantine(f"qua_{name}", "source", name, "a test", NOW, NOW + clock.HOUR, "key_x")


def stored(table: Table) -> DynamoMitigations:
    return DynamoMitigations(table, Sealer(FixedRing()), lambda _: Objects(), retention_days=30)


@pytest.fixture(params=["memory", "dynamodb"])
def quarantines(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        return QuarantineRows()
    return DynamoQuarantines(request.getfixturevalue("table"), Sealer(FixedRing()))


@pytest.fixture(params=["memory", "dynamodb"])
def mitigations(request: pytest.FixtureRequest) -> Any:
    return MitigationRows() if request.param == "memory" else stored(request.getfixturevalue("table"))


def planned(store: Any, event: dict[str, Any] = ATTACK) -> tuple[Mitigations, Mitigation]:
    room = Mitigations(store, Ears(), lambda project, spoken, own: ALL_WELL)
    facts = plans.facts_of({"event_ids": [event["event_id"]]}, [event])
    return room, room.plan("p1", facts, "key_caller", "trace-of-test", NOW)[0]


def entries(table: Table) -> list[dict[str, Any]]:
    """Evidence that waits for the journal."""
    rows = table.query(keys.evidence_partition("p1", keys.day(NOW)))
    return [one for row in rows for one in unpack(row["z"])["entries"]]


def test_a_list_is_replaced_under_its_version_only(quarantines: Any) -> None:
    assert quarantines.get("p1")[0] == 0
    assert quarantines.put("p1", [entry()], 0, ("open", entry()), NOW)
    assert not quarantines.put("p1", [entry("other")], 0, ("open", entry("other")), NOW)
    version, held = quarantines.get("p1")
    assert (version, list(held)) == (1, [entry()])
    assert quarantines.put("p1", [], 1, ("release", entry()), NOW)
    assert quarantines.get("p2")[0] == 0


def test_a_list_is_sealed_and_every_change_of_it_is_evidence(table: Table) -> None:
    rows = DynamoQuarantines(table, Sealer(FixedRing()))
    with acting("key_ofTheCaller0", "trace-of-test"):
        rows.put("p1", [entry()], 0, ("open", entry()), NOW)
        rows.put("p1", [], 1, ("release", entry()), NOW)
    row = table.get(keys.quarantines("p1"))
    assert row is not None
    assert is_sealed(row["z"])
    told = [(one["kind"], one["action"], one["actor"], one["trace_id"]) for one in entries(table)]
    assert sorted(told) == [
        ("quarantine.opened", "quarantine:open", "key_ofTheCaller0", "trace-of-test"),
        ("quarantine.released", "quarantine:release", "key_ofTheCaller0", "trace-of-test"),
    ]


def test_a_mitigation_is_kept_listed_and_found_by_what_it_does(mitigations: Any) -> None:
    _, made = planned(mitigations)
    assert mitigations.get("p1", made.id) == made
    assert mitigations.get("p2", made.id) is None
    assert mitigations.named("p1", made.name) == made
    page, following = mitigations.page("p1", None, 10)
    assert (list(page), following) == ([made], None)


def test_of_two_new_ones_that_do_the_same_one_is_kept(mitigations: Any) -> None:
    _, made = planned(mitigations)
    other = replace(made, id=made.id[:-1] + ("0" if made.id[-1] != "0" else "1"))
    again = plans.plan(plans.facts_of({"event_ids": ["evt_1"]}, [ATTACK]), ALL_WELL)
    assert not mitigations.create(other, again, "", NOW)
    assert mitigations.create(other, again, made.id, NOW)
    assert mitigations.named("p1", made.name).id == other.id


def test_effects_are_in_the_transaction_that_moves_the_step(mitigations: Any) -> None:
    room, made = planned(mitigations)
    stale = made
    done = room.apply(made, NOW)
    assert (done.status, room.get("p1", made.id).status) == ("applied", "applied")
    again = room.apply(stale, NOW)
    assert again.version == done.version
    back = room.rollback(done, NOW + 1)
    assert back.status == "rolled_back"
    held = mitigations.quarantines if isinstance(mitigations, MitigationRows) else mitigations._quarantines
    assert [one.status(NOW + 2) for one in held.get("p1")[1]] == ["released"]


def test_a_key_is_revoked_only_in_its_own_project_and_once(table: Table) -> None:
    rows = DynamoKeys(table)
    record = KeyRecord("ofSomebody0", "p2", "live", bytes(32), frozenset({"ingest:write"}), NOW)
    rows.add(record)
    room, made = planned(stored(table), LEAK | {"entity": {"type": "key", "id": "key_ofSomebody0"}})
    assert room.apply(made, NOW, "apr_1").status == "failed", "another project's key"
    assert rows.get("ofSomebody0") == record
    rows.restore(replace(record, project="p1"))
    room, made = planned(stored(table), LEAK)
    assert room.apply(made, NOW, "apr_1").status == "applied"
    after = rows.get("ofSomebody0")
    assert after is not None
    assert after.revoked_at == NOW


def test_decisions_are_kept_where_certificates_are_derived_and_all_is_evidence(table: Table) -> None:
    objects = Objects()
    store = DynamoMitigations(table, Sealer(FixedRing()), lambda _: objects, retention_days=30)
    room, made = planned(store)
    room.apply(made, NOW)
    log = DynamoDecisionLog(table, Sealer(FixedRing()), "p1", retention_days=30)
    for name, kept in zip(made.decision_ids, made.decided, strict=True):
        found = log.get(name)
        assert found is not None
        assert found.receipt == kept["receipt"]
        assert log.health(kept["receipt"]["health"]) == kept["health"]
    assert objects.get(f"snapshot/{plans.engine().snapshot.name}") is not None
    kinds = [one["kind"] for one in entries(table)]
    assert set(kinds) == {
        *("mitigation.planned", "decision.made", "mitigation.applying", "quarantine.opened", "mitigation.applied"),
    }
    names = [one["id"] for one in entries(table)]
    assert len(set(names)) == len(names)
    row = table.get(keys.mitigation("p1", made.id))
    assert row is not None
    assert is_sealed(row["z"])


def test_probes_leave_evidence_of_what_held_and_what_did_not(table: Table) -> None:
    log = ProbeLog(table, lambda: NOW)
    for name, held in (("weak_key", True), ("replay", False)):
        log.keep("p1", "run_019a9f00-0000-7000-8000-000000000001", {"name": name, "held": held, "met": []})
    assert sorted((one["kind"], one["outcome"]) for one in entries(table)) == [
        ("probe.broken", "failed"),
        ("probe.held", "done"),
    ]
