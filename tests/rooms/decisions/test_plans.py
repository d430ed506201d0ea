"""Plans: the least weight within the limits, by exhaustion; and a certificate that is checked without searching."""

from __future__ import annotations

import json
import random
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import plan_checker
from tools.checker import audit

from tests.rooms.decisions.test_routing import BASE, OPEN
from tocsin.decisions.contracts import Contract
from tocsin.decisions.plans import Goal, Planned, Total, compose, goal_of, plan, ways, weigh
from tocsin.decisions.policies import validate
from tocsin.decisions.routing import Health, first_failure
from tocsin.decisions.snapshots import EMPTY, Edit, Snapshot, edited
from tocsin.decisions.types import normalise, subtype
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Refusal

SEEDS = st.integers(0, 2**64)
KINDS = 4


def kind(i: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"k{i}": {"type": "string"}}, "required": [f"k{i}"]}


def both(i: int, j: int) -> Any:
    return normalise({"type": "object", "properties": {"x": kind(i), "y": kind(j)}, "required": ["x", "y"]})


def service(name: str, takes: Any, gives: Any, cost: int, latency: int, error: int, **more: Any) -> Contract:
    quantities = {"cost_pusd": cost, "latency_us": latency, "error_ppb": error}
    return {
        **BASE,
        "name": name,
        "input": normalise(takes),
        "output": normalise(gives),
        "scopes": [],
        **quantities,
        **more,
    }


GOAL: dict[str, Any] = {
    "principal": "key_a",
    "capabilities": ["mail"],
    "have": {"a": kind(0)},
    "want": kind(1),
    "scopes": [],
    "data_class": {"level": "public", "tags": []},
}


def world(seed: int) -> tuple[Snapshot, Goal, Health]:
    rnd = random.Random(seed)
    held = []
    for i in range(rnd.randrange(3, 11)):
        takes = both(rnd.randrange(KINDS), rnd.randrange(KINDS)) if rnd.random() < 0.3 else kind(rnd.randrange(KINDS))
        quantities = (rnd.randrange(1, 7), rnd.randrange(1, 7), rnd.randrange(1, 7))
        level = rnd.choice(["internal", "internal", "public"])
        label = {"level": level, "tags": ["eu"]}
        held.append(service(f"s{i}", takes, kind(rnd.randrange(KINDS)), *quantities, data_class=label))
    have = {"a": kind(0)} | ({"b": kind(2)} if rnd.random() < 0.5 else {})
    limits = {name: rnd.choice([9, 13, 17]) for name in ("cost_pusd", "latency_us", "error_ppb")}
    label = {"level": rnd.choice(["public", "internal"]), "tags": []}
    goal = goal_of(
        {**GOAL, **limits, "have": have, "data_class": label, "profile": rnd.choice(["cheap", "fast", "balanced"])}
    )
    down = {f"s{i}@1": "breaker" for i in range(len(held)) if rnd.random() < 0.1}
    return edited(EMPTY, Edit(put=held, policy=OPEN)), goal, Health(1, down)


def totals_by_exhaustion(snapshot: Snapshot, goal: Goal, health: Health) -> set[Total]:
    """Every total within the limits that some way of making what is wanted has. Finite: everything costs something."""
    limits = [goal.document[name] for name in ("cost_pusd", "latency_us", "error_ppb")]
    able = [
        contract
        for contract in snapshot.contracts
        if first_failure(goal.step_request(contract), contract, snapshot.policy, health) is None
    ]
    found: dict[bytes, set[Total]] = {}
    types = {canonical_json(one): one for one in [*goal.document["have"].values(), *(c["output"] for c in able)]}
    for one in goal.document["have"].values():
        found.setdefault(canonical_json(one), set()).add((0, 0, 0))
    while True:
        before = sum(map(len, found.values()))
        for contract in able:
            for slots in ways(contract):
                sources = [
                    sorted({t for key, totals in found.items() if subtype(types[key], slot) for t in totals})
                    for _, slot in slots
                ]
                for fed in product(*sources):
                    total = compose(contract, fed)
                    if all(a <= b for a, b in zip(total, limits, strict=True)):
                        found.setdefault(canonical_json(contract["output"]), set()).add(total)
        if sum(map(len, found.values())) == before:
            return {t for key, totals in found.items() if subtype(types[key], goal.document["want"]) for t in totals}


def accepted(snapshot: Snapshot, health: Health, certificate: Any) -> bool:
    data = certificate if isinstance(certificate, bytes) else canonical_json(certificate)
    try:
        plan_checker.verify(snapshot.document(), health.document, data)
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    return True


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_the_plan_is_the_least_by_exhaustion_and_its_certificate_holds(seed: int) -> None:
    snapshot, goal, health = world(seed)
    made = plan(goal, snapshot, health)
    weights = snapshot.policy["profiles"][goal.document["profile"]]
    totals = totals_by_exhaustion(snapshot, goal, health)
    best = min((weigh(total, weights) for total in totals), default=None)
    found = made.certificate["total"]
    assert (found and weigh(tuple(found), weights)) == best
    assert accepted(snapshot, health, made.certificate)


def test_the_sampler_meets_plans_of_several_steps_and_none() -> None:
    lengths = set()
    for seed in range(300):
        snapshot, goal, health = world(seed)
        steps = plan(goal, snapshot, health).steps
        lengths.add(None if steps is None else len(steps))
    assert {None, 1, 2, 3} <= lengths


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_no_worse_plan_and_no_front_with_a_gap_is_accepted(seed: int) -> None:
    """Another plan in the place of the best, and every label of the fronts that is needed left out."""
    snapshot, goal, health = world(seed)
    made = plan(goal, snapshot, health)
    for at, (kind_, totals) in enumerate(made.certificate["fronts"]):
        for gone in range(len(totals)):
            fewer = [*made.certificate["fronts"]]
            fewer[at] = [kind_, totals[:gone] + totals[gone + 1 :]]
            assert not accepted(snapshot, health, {**made.certificate, "fronts": fewer})
    weights = snapshot.policy["profiles"][goal.document["profile"]]
    for contract in snapshot.contracts:  # without one of its services the best plan is another, and not the best
        fewer_services = edited(snapshot, Edit(drop=[(contract["name"], contract["version"])]))
        other = plan(goal, fewer_services, health).certificate
        if (other["total"] and weigh(tuple(other["total"]), weights)) != (
            made.certificate["total"] and weigh(tuple(made.certificate["total"]), weights)
        ):
            forged = {**made.certificate, "steps": other["steps"], "total": other["total"]}
            forged["receipt"] = {**forged["receipt"], "plan": other["receipt"]["plan"]}
            assert not accepted(snapshot, health, forged)
            assert not accepted(snapshot, health, {**forged, "fronts": other["fronts"]})


def assembled() -> tuple[Snapshot, Goal, Planned]:
    held = [
        service("left", kind(0), kind(2), 5, 10, 7),
        service("right", kind(0), kind(3), 6, 30, 8),
        service("join", both(2, 3), kind(1), 7, 100, 9),
        service("dear", kind(0), kind(1), 900, 900, 900),
    ]
    snapshot = edited(EMPTY, Edit(put=held, policy=OPEN))
    goal = goal_of(GOAL)
    return snapshot, goal, plan(goal, snapshot, Health())


def test_inputs_are_made_side_by_side_and_assembled() -> None:
    _, _, made = assembled()
    assert made.steps == [
        {"name": "left", "version": 1, "inputs": {"": {"have": "a"}}},
        {"name": "right", "version": 1, "inputs": {"": {"have": "a"}}},
        {"name": "join", "version": 1, "inputs": {"x": {"step": 0}, "y": {"step": 1}}},
    ]
    assert made.certificate["total"] == [5 + 6 + 7, 30 + 100, 7 + 8 + 9]


def test_guarantees_carry_their_word() -> None:
    snapshot, goal, made = assembled()
    words = {name: one["word"] for name, one in made.guarantees.items()}
    assert words["admissible"] == words["data_class"] == "proved"
    assert {words[name] for name in ("cost_pusd", "latency_us", "error_ppb", "trust", "deterministic")} == {"declared"}
    watched = Health(1, {}, frozenset({"left@1", "right@1", "join@1"}))
    held = plan(goal, snapshot, watched).guarantees
    assert (held["latency_us"], held["cost_pusd"]["word"]) == ({"value": 130, "word": "attested"}, "declared")
    partly = Health(1, {}, frozenset({"left@1", "right@1"}))
    assert plan(goal, snapshot, partly).guarantees["error_ppb"]["word"] == "declared"


def test_every_changed_byte_of_a_plan_certificate_is_refused() -> None:
    snapshot, _, made = assembled()
    document = snapshot.document()
    audit(document["header"], document["policy"], document["contracts"])
    data = canonical_json(made.certificate)
    assert accepted(snapshot, Health(), data)
    fronts = data.index(b'"fronts"'), data.index(b'"goal"')
    for at, byte in enumerate(data):
        if not fronts[0] <= at < fronts[1]:  # a front may say less than it could and still prove the plan
            assert not accepted(snapshot, Health(), data[:at] + bytes([byte ^ 1]) + data[at + 1 :]), at


def test_limits_data_classes_health_and_rules_keep_services_out() -> None:
    held = [service("cheap", kind(0), kind(1), 1, 9, 1), service("quick", kind(0), kind(1), 9, 1, 1)]
    snapshot = edited(EMPTY, Edit(put=held, policy=OPEN))

    def names(health: Health | None = None, snapshot: Snapshot = snapshot, **more: Any) -> list[str] | None:
        made = plan(goal_of({**GOAL, "profile": "cheap", **more}), snapshot, health or Health())
        assert accepted(snapshot, health or Health(), made.certificate)
        return None if made.steps is None else [step["name"] for step in made.steps]

    assert names() == ["cheap"]
    assert names(profile="fast") == ["quick"]
    assert names(latency_us=8) == ["quick"]
    assert names(latency_us=8, cost_pusd=8) is None
    assert names(Health(1, {"cheap@1": "breaker"})) == ["quick"]
    assert names(data_class={"level": "restricted", "tags": []}) is None
    assert names(trust=51) is None
    assert names(capabilities=["sms"]) is None
    assert names(want=kind(0)) == []
    rule = {"id": "r", "effect": "forbid", "when": ["in", ["service", "name"], ["value", ["cheap"]]]}
    ruled = edited(snapshot, Edit(policy=validate({**OPEN, "rules": [*OPEN["rules"], rule]})))
    assert names(snapshot=ruled) == ["quick"]


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin.decisions.plans.MAX_TRIED", 2)
    with pytest.raises(Refusal) as refused:
        assembled()
    assert refused.value.details[0].rule == "plan-size"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"have": []}, "have"),
        ({"have": {"A": True}}, "have"),
        ({"have": {"a": {"pattern": "x"}}}, "have.a.pattern"),
        ({"want": {"oneOf": []}}, "want.oneOf"),
        ({"capabilities": []}, "capabilities"),
        ({"input": True}, "input"),
    ],
)
def test_goals_are_closed(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refused:
        goal_of({**GOAL, **change})
    assert refused.value.details[0].field == field


def test_the_checker_runs_by_itself(tmp_path: Path) -> None:
    snapshot, _, made = assembled()
    files = {"snapshot": snapshot.document(), "health": Health().document, "good": made.certificate}
    for name, document in files.items():
        (tmp_path / name).write_bytes(canonical_json(document))
    (tmp_path / "bad").write_bytes(canonical_json({**made.certificate, "total": [0, 0, 0]}))
    root = Path(plan_checker.__file__).parent
    for name, code in (("good", 0), ("bad", 1)):
        command = ["python3", "-I", str(root / "plan_checker.py"), "snapshot", "health", name]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == code
    assert json.loads((tmp_path / "good").read_bytes())["v"] == 1
