"""Mitigations: each step once whatever dies or races, approval before consequence, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.defense_fakes import ALL_WELL, Ears, Killed, MitigationRows
from tocsin.defense import plans
from tocsin.defense.mitigations import LEASE_MS, Mitigation, Mitigations
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal

NOW = 1_800_000_000_000
ATTACK = {"event_id": "evt_1", "type": "attack.x", "tier": "high", "score": 0.8, "entity": {"type": "bot", "id": "b"}}
LEAK = {"event_id": "evt_2", "type": "key.leaked", "tier": "critical", "score": 0.95}
LEAK |= {"entity": {"type": "key", "id": "key_ofSomebody0"}}


class Desk:
    """Mitigations over memory."""

    def __init__(self) -> None:
        self.rows, self.ears = MitigationRows(), Ears()
        self.room = Mitigations(self.rows, self.ears, lambda project, spoken, own: ALL_WELL)

    def plan(self, event: dict[str, Any] = ATTACK, now: int = NOW) -> Mitigation:
        facts = plans.facts_of({"event_ids": [event["event_id"]]}, [event])
        return self.room.plan("demo", facts, "key_caller", "trace-of-test", now)[0]

    def stored(self, made: Mitigation) -> Mitigation:
        return self.room.get("demo", made.id)


def outline(made: Mitigation) -> list[str]:
    return [str(step["status"]) for step in made.steps]


def test_a_plan_of_low_risk_is_carried_out_and_undone() -> None:
    desk = Desk()
    made = desk.room.apply(desk.plan(), NOW)
    assert (made.status, outline(made)) == ("applied", ["applied", "applied"])
    assert desk.rows.effects == ["open"]
    assert desk.ears.told == [(made.id, 1, False)]
    back = desk.room.rollback(made, NOW + 1)
    assert (back.status, outline(back)) == ("rolled_back", ["rolled_back", "rolled_back"])
    assert desk.rows.effects == ["open", "release"]
    assert desk.ears.told == [(made.id, 1, False), (made.id, 1, True)], "last step first"
    assert desk.room.rollback(back, NOW + 2) == back


def test_the_same_facts_meet_the_same_mitigation_until_it_is_over() -> None:
    desk = Desk()
    first = desk.room.apply(desk.plan(), NOW)
    assert desk.plan(now=NOW + 5) == first
    desk.room.rollback(first, NOW + 6)
    second = desk.plan(now=NOW + 7)
    assert second.id != first.id
    later = NOW + 7 + plans.LIFE
    assert desk.plan(now=later).id != second.id, "nobody applied it within its life"


@given(st.integers(1, 6), st.integers(1, 6))
def test_a_worker_that_dies_anywhere_is_gone_on_with_and_nothing_is_done_twice(first: int, second: int) -> None:
    desk = Desk()
    made = desk.plan()
    desk.rows.deaths = {first, first + second}
    now = NOW
    for _ in range(3):
        try:
            desk.room.apply(desk.stored(made), now)
            break
        except Killed:
            now += LEASE_MS
    done = desk.stored(made)
    assert (done.status, outline(done)) == ("applied", ["applied", "applied"])
    assert desk.rows.effects == ["open"]
    assert desk.ears.told == [(made.id, 1, False)]


def test_while_one_worker_is_at_it_another_does_nothing() -> None:
    desk = Desk()
    made = desk.plan()
    desk.rows.deaths = {2}
    with pytest.raises(Killed):
        desk.room.apply(made, NOW)
    waiting = desk.room.apply(desk.stored(made), NOW + LEASE_MS - 1)
    assert (waiting.status, desk.rows.effects) == ("applying", [])
    assert desk.room.rollback(waiting, NOW + LEASE_MS - 1).status == "applying"


def test_a_worker_that_wakes_up_after_another_undid_its_work_does_nothing() -> None:
    """The zombie: paused before its first step, overtaken, rolled back, then it goes on."""
    desk = Desk()
    made, paused = desk.plan(), []

    def overtake() -> None:
        if desk.rows.saves == 1 and not paused:
            paused.append(True)
            other = desk.room.apply(desk.stored(made), NOW + LEASE_MS)
            desk.room.rollback(other, NOW + LEASE_MS + 1)

    desk.rows.before = overtake
    left = desk.room.apply(made, NOW)
    assert left.status == "rolled_back"
    assert desk.rows.effects == ["open", "release"]
    assert desk.rows.quarantines.lists["demo"][1][0].status(NOW + LEASE_MS + 2) == "released"


def test_two_that_start_at_once_do_the_work_of_one() -> None:
    desk = Desk()
    made = desk.plan()
    stale = made
    desk.room.apply(made, NOW)
    assert desk.room.apply(stale, NOW).status == "applied"
    assert desk.rows.effects == ["open"]


def test_consequence_waits_for_approval_and_uses_it_once() -> None:
    desk = Desk()
    made = desk.plan(LEAK)
    assert [step["responder"] for step in made.plan["steps"]] == ["quarantine", "revoke-key", "page"]
    with pytest.raises(Refusal) as caught:
        desk.room.apply(made, NOW)
    assert caught.value.code == "ERR_APPROVAL_REQUIRED"
    assert made.id in caught.value.details[0].fix
    assert (desk.rows.effects, desk.stored(made).status) == ([], "planned")
    done = desk.room.apply(made, NOW, "apr_1")
    assert (done.status, done.approval, desk.rows.revoked) == ("applied", "apr_1", ["key_ofSomebody0"])
    assert desk.room.rollback(done, NOW).status == "rolled_back"
    assert desk.rows.revoked == ["key_ofSomebody0"], "nothing brings a key back"


def test_a_plan_that_nobody_approved_in_time_is_over() -> None:
    desk = Desk()
    made = desk.plan(LEAK)
    assert made.status_at(NOW + plans.LIFE) == "expired"
    with pytest.raises(Refusal) as caught:
        desk.room.apply(made, NOW + plans.LIFE, "apr_1")
    assert caught.value.code == "ERR_CONFLICT"


def test_what_has_ended_by_itself_is_expired_unless_something_lasts() -> None:
    desk = Desk()
    made = desk.room.apply(desk.plan(), NOW)
    assert made.status_at(NOW + clock.HOUR - 1) == "applied"
    assert made.status_at(NOW + clock.HOUR) == "expired"
    lasting = desk.room.apply(desk.plan(LEAK), NOW, "apr_1")
    assert lasting.status_at(NOW + clock.DAY) == "applied"


def test_a_step_that_cannot_be_done_fails_the_plan_and_what_was_done_can_be_undone() -> None:
    desk = Desk()
    desk.rows.revoked = ["key_ofSomebody0"]
    made = desk.room.apply(desk.plan(LEAK), NOW, "apr_1")
    assert (made.status, outline(made)) == ("failed", ["applied", "failed", "planned"])
    assert "no such key" in str(made.steps[1]["outcome"])
    back = desk.room.rollback(made, NOW)
    assert (back.status, outline(back)) == ("rolled_back", ["rolled_back", "failed", "planned"])
    assert desk.ears.told == []


def test_a_plan_is_withdrawn_without_a_trace_outside() -> None:
    desk = Desk()
    back = desk.room.rollback(desk.plan(LEAK), NOW)
    assert (back.status, desk.rows.effects, desk.ears.told) == ("rolled_back", [], [])


def test_the_decisions_of_a_plan_are_named_after_it() -> None:
    made = Desk().plan(LEAK)
    assert made.decision_ids == [f"dec_{made.id[4:]}-n{n}" for n in range(3)]
    assert [step["decision_id"] for step in made.as_json(NOW)["plan"]["steps"]] == made.decision_ids


def test_a_certificate_of_responders_that_changed_since_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    made = desk.plan()
    assert desk.room.certificate(made, 0, "short")["decision_id"] == made.decision_ids[0]
    with pytest.raises(Refusal):
        desk.room.certificate(made, 9, "short")
    fewer = plans.engine_of([one.contract for one in plans.responders().values() if one.contract["name"] != "watch"])
    monkeypatch.setattr(plans, "engine", lambda: fewer)
    with pytest.raises(Refusal) as caught:
        desk.room.certificate(made, 0, "short")
    assert caught.value.code == "ERR_NOT_FOUND"
