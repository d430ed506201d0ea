"""Quarantine: who is kept out, for how long, and what it costs the doors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.defense_fakes import QuarantineRows
from tocsin.access.principals import Principal
from tocsin.defense import quarantine
from tocsin.defense.quarantine import FRESH_MS, Cordon, Quarantine, Quarantines
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal, Retry

NOW = 1_800_000_000_000
CALLER = Principal("demo", "ofTheCaller0", frozenset({"defend:write"}))


def entry(kind: str = "source", name: str = "edge", **fields: Any) -> Quarantine:
    made = Quarantine(f"qua_{kind}-{name}", kind, name, "a test", NOW, NOW + clock.HOUR, "key_x")
    return replace(made, **fields)


class Door:
    """A cordon with a clock that the test moves."""

    def __init__(self, *entries: Quarantine) -> None:
        self.rows, self.now, self.asked = QuarantineRows(), NOW, 0
        self.rows.lists["demo"] = 1, list(entries)
        self.cordon = Cordon(self.rows, lambda: self.now, self._entity, lambda project, name, rate: None)

    def _entity(self, project: str, event: Any) -> str | None:
        self.asked += 1
        entity = event.get("entity")
        return f"{entity['type']}:{entity['id']}" if entity else None

    def code(self, event: dict[str, Any], project: str = "demo") -> str | None:
        refusal = self.cordon.judge(project, {"source": "other"} | event)
        return refusal.code if refusal else None


def test_a_source_and_an_entity_are_refused_and_nobody_else() -> None:
    door = Door(entry(), entry("entity", "bot:b-1"))
    assert door.code({"source": "edge"}) == "ERR_QUARANTINED"
    assert door.code({"entity": {"type": "bot", "id": "b-1"}}) == "ERR_QUARANTINED"
    assert door.code({"source": "edge-2", "entity": {"type": "bot", "id": "b-2"}}) is None
    assert door.code({"source": "edge"}, project="other") is None


def test_the_reason_and_the_way_out_are_told() -> None:
    refusal = Door(entry()).cordon.judge("demo", {"source": "edge"})
    assert refusal is not None
    assert (refusal.status, refusal.details[0].field) == (403, "source")
    assert "a test" in refusal.message
    assert "qua_source-edge" in refusal.details[0].fix


def test_a_key_is_refused_whole() -> None:
    door = Door(entry("key", CALLER.credential))
    with pytest.raises(Refusal) as caught:
        door.cordon.admit(CALLER)
    assert (caught.value.code, caught.value.status) == ("ERR_QUARANTINED", 403)
    door.cordon.admit(replace(CALLER, key_id="another00000"))


def test_a_request_costs_no_read_while_the_list_is_fresh() -> None:
    door = Door()
    for _ in range(1_000):
        assert door.code({"source": "edge"}) is None
        door.cordon.admit(CALLER)
    assert (door.rows.reads, door.asked) == (1, 0)
    door.now += FRESH_MS
    door.code({})
    assert door.rows.reads == 2


def test_an_entry_takes_effect_and_ends_within_the_bound_and_its_time_is_exact() -> None:
    door = Door()
    assert door.code({"source": "edge"}) is None
    door.rows.lists["demo"] = 2, [entry(until=NOW + FRESH_MS + 100)]
    door.now += FRESH_MS
    assert door.code({"source": "edge"}) == "ERR_QUARANTINED"
    door.now += 99
    assert door.code({"source": "edge"}) == "ERR_QUARANTINED"
    door.now += 1
    assert door.code({"source": "edge"}) is None, "the end by time needs no reading"
    assert FRESH_MS <= 10_000


def test_a_list_that_cannot_be_read_lets_nobody_through_unseen() -> None:
    door = Door(entry())
    door.rows.broken = True
    with pytest.raises(Retry):
        door.cordon.judge("demo", {"source": "edge"})
    with pytest.raises(Retry):
        door.cordon.admit(CALLER)


def test_an_entity_is_compared_in_its_stored_form_only_where_one_is_held() -> None:
    door = Door(entry())
    door.code({"entity": {"type": "bot", "id": "b-1"}})
    assert door.asked == 0
    door = Door(entry("entity", "bot:b-1"))
    door.code({"entity": {"type": "bot", "id": "b-1"}})
    assert door.asked == 1


def test_a_trickle_is_asked_of_the_limiter_under_the_entrys_own_name() -> None:
    rows, asked = QuarantineRows(), []
    rows.lists["demo"] = 1, [entry(per_second=2)]

    def trickle(project: str, name: str, per_second: int) -> Refusal | None:
        asked.append((project, name, per_second))
        return Refusal("ERR_RATE_LIMITED", "slowly") if len(asked) > 1 else None

    cordon = Cordon(rows, lambda: NOW, lambda *_: None, trickle)
    assert cordon.judge("demo", {"source": "edge"}) is None
    second = cordon.judge("demo", {"source": "edge"})
    assert second is not None
    assert second.code == "ERR_RATE_LIMITED"
    assert asked == [("demo", "quarantine#qua_source-edge", 2)] * 2


def test_a_new_entry_replaces_an_active_one_of_the_same_thing() -> None:
    after = quarantine.opened([entry()], entry(id="qua_2", until=NOW + 1), NOW)
    assert [(one.id, one.status(NOW)) for one in after] == [("qua_source-edge", "released"), ("qua_2", "active")]


def test_the_list_is_bounded_on_both_sides() -> None:
    held = [entry(name=f"s-{n}") for n in range(quarantine.MAX_ACTIVE)]
    assert not quarantine.has_room(held, NOW)
    with pytest.raises(Refusal) as caught:
        quarantine.opened(held, entry(name="one-more"), NOW)
    assert caught.value.details[0].rule == "count"
    gone = [entry(name=f"g-{n}", released_at=NOW - n) for n in range(150)]
    after = quarantine.opened(gone, entry(), NOW)
    assert len(after) == quarantine.MAX_ENDED + 1
    assert quarantine.opened([entry(released_at=NOW - quarantine.ENDED_MS)], entry(name="b"), NOW) == [entry(name="b")]


def test_release_is_once_and_again_harmless() -> None:
    rows = QuarantineRows()
    desk = Quarantines(rows)
    made = desk.open("demo", entry(), NOW)
    assert desk.release("demo", made.id, "key_a", NOW + 1).released_by == "key_a"
    assert desk.release("demo", made.id, "key_b", NOW + 2).released_by == "key_a"
    assert [verb for verb, _ in rows.changes] == ["open", "release"]
    with pytest.raises(Refusal) as caught:
        desk.release("demo", "qua_none", "key_a", NOW)
    assert caught.value.code == "ERR_NOT_FOUND"


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"kind": "key", "name": "tcn_live_4Yx0exampleK"}, "key"),
        ({"kind": "key", "name": CALLER.credential}, "own-key"),
        ({"kind": "entity", "name": "b-1"}, "entity"),
        ({"kind": "key", "name": "key_4Yx0exampleK", "per_second": 5}, "kind"),
    ],
)
def test_what_is_no_quarantine_is_refused_by_its_rule(body: dict[str, Any], rule: str) -> None:
    with pytest.raises(Refusal) as caught:
        quarantine.parse(body | {"reason": "r"}, CALLER, NOW)
    assert [detail.rule for detail in caught.value.details] == [rule]
