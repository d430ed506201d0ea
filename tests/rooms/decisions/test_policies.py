"""Policies: a total language, default deny, and an analysis whose answers are proofs or real examples."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms.decisions import samples
from tocsin.decisions import analysis
from tocsin.decisions.policies import PROFILES, attributes, check_condition, evaluate, failing_rule, validate
from tocsin.kernel.errors import Refusal

SEEDS = st.integers(0, 2**64)
ALL = {"id": "all", "effect": "permit", "when": ["value", True]}


def policy(*rules: dict[str, Any]) -> dict[str, Any]:
    return validate({"version": 1, "rules": list(rules), "profiles": dict(PROFILES)})


def rule(effect: str, when: Any, name: str = "r") -> dict[str, Any]:
    return {"id": name, "effect": effect, "when": when}


def pair(rnd: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return attributes(samples.request(rnd)), attributes(samples.contract(rnd, rnd.choice(["s1", "s2"])))


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_every_checked_condition_has_a_truth_value(seed: int) -> None:
    rnd = random.Random(seed)
    condition = samples.condition(rnd, 3)
    check_condition(condition, "when")
    for _ in range(5):
        assert type(evaluate(condition, *pair(rnd))) is bool


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_forbid_wins_default_is_deny_and_rules_have_no_order(seed: int) -> None:
    rnd = random.Random(seed)
    made = samples.policy(rnd, 4)
    request, service = pair(rnd)
    holding = [one for one in made["rules"] if evaluate(one["when"], request, service)]
    forbidding = [one["id"] for one in holding if one["effect"] == "forbid"]
    expected = f"forbid:{min(forbidding)}" if forbidding else None if len(holding) > len(forbidding) else "permit"
    assert failing_rule(made, request, service) == expected
    shuffled = {**made, "rules": rnd.sample(made["rules"], len(made["rules"]))}
    assert validate(shuffled) == made


def test_no_rule_permits_nothing() -> None:
    assert failing_rule(policy(), *pair(random.Random(0))) == "permit"


@pytest.mark.parametrize(
    ("when", "field", "broken"),
    [
        ("yes", "w", "condition"),
        ([], "w", "condition"),
        (["div", ["value", 1], ["value", 0]], "w", "operator"),
        (["request", "colour"], "w", "attribute"),
        (["service", "principal"], "w", "attribute"),
        (["request", "trust"], "w", "kinds"),
        (["value", 3], "w", "kinds"),
        (["value", 2**53], "w", "constant"),
        (["value", 1.5], "w", "constant"),
        (["value", None], "w", "constant"),
        (["not"], "w", "kinds"),
        (["not", ["value", True], ["value", True]], "w", "kinds"),
        (["and", ["value", True], ["value", 1]], "w", "kinds"),
        (["le", ["value", True], ["value", False]], "w", "kinds"),
        (["le", ["request", "level"], ["value", "secret"]], "w", "kinds"),
        (["le", ["value", "public"], ["value", "internal"]], "w", "kinds"),
        (["eq", ["request", "tags"], ["service", "tags"]], "w", "kinds"),
        (["eq", ["request", "principal"], ["value", 3]], "w", "kinds"),
        (["in", ["value", "Not A Word"], ["request", "tags"]], "w[1]", "constant"),
        (["in", ["value", "NOT"], ["request", "tags"]], "w", "kinds"),
        (["subset", ["value", "eu"], ["request", "tags"]], "w", "kinds"),
        (["or", ["value", True], ["le", ["value", 1]]], "w[2]", "kinds"),
    ],
)
def test_conditions_outside_the_language_are_refused(when: Any, field: str, broken: str) -> None:
    with pytest.raises(Refusal) as refused:
        check_condition(when, "w")
    (detail,) = refused.value.details
    assert (detail.field, detail.rule) == (field, broken)


def test_size_is_bounded() -> None:
    deep: Any = ["value", True]
    for _ in range(20):
        deep = ["not", deep]
    wide = ["and", *(["or", *[["value", True]] * 32] for _ in range(32))]
    for condition in (deep, wide):
        with pytest.raises(Refusal) as refused:
            check_condition(condition, "w")
        assert refused.value.details[0].rule == "size"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rules": [ALL, ALL]}, "rules[1].id"),
        ({"rules": [{**ALL, "effect": "allow"}]}, "rules[0].effect"),
        ({"profiles": {}}, "profiles"),
        ({"profiles": {"Bad": PROFILES["fast"]}}, "profiles"),
        ({"profiles": {"x": {**PROFILES["fast"], "cost": -1}}}, "profiles.x.cost"),
        ({"version": 0}, "version"),
    ],
)
def test_policies_are_closed(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refused:
        validate({"version": 1, "rules": [ALL], "profiles": dict(PROFILES)} | change)
    assert refused.value.details[0].field == field


LOW_TRUST = rule(
    "forbid", ["and", ["in", ["value", "pci"], ["request", "tags"]], ["le", ["service", "trust"], ["value", 30]]], "pci"
)


def test_a_change_shows_what_it_newly_allows_and_forbids() -> None:
    old, new = policy(ALL, LOW_TRUST), policy(ALL)
    found = analysis.change(old, new)
    assert found.forbids is None
    assert found.allows is not None
    assert "pci" in found.allows.request["tags"]
    assert found.allows.service["trust"] <= 30
    assert analysis.change(new, old).allows is None
    assert analysis.change(old, old) == analysis.Change(None, None)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_the_analysis_is_right_both_ways(seed: int) -> None:
    """A witness is a real difference; without one, no sampled pair that passes the gates differs."""
    rnd = random.Random(seed)
    old = samples.policy(rnd, 2)
    new = validate({**old, "rules": [*old["rules"][:-1], rule("forbid", samples.condition(rnd, 1), "x")]})
    found = analysis.change(old, new)
    for witness, allowing, denying in ((found.allows, new, old), (found.forbids, old, new)):
        if witness:
            assert failing_rule(allowing, witness.request, witness.service) is None
            assert failing_rule(denying, witness.request, witness.service) is not None
    for _ in range(40):
        request, service = pair(rnd)
        request |= {name: service[name] for name in ("capabilities", "tags", "level")} | {
            "scopes": list(samples.SCOPES)
        }
        request |= {name: service[name] + rnd.randrange(20) for name in ("cost_pusd", "latency_us", "error_ppb")}
        request["trust"] = max(0, service["trust"] - rnd.randrange(40))
        before, after = (failing_rule(one, request, service) is None for one in (old, new))
        assert found.allows or not (after and not before)
        assert found.forbids or not (before and not after)


@pytest.mark.parametrize(
    ("rules", "idle"),
    [
        ([ALL, LOW_TRUST], []),
        ([ALL, LOW_TRUST, {**LOW_TRUST, "id": "twin"}], ["pci", "twin"]),
        ([ALL, rule("permit", ["le", ["service", "trust"], ["value", 50]])], ["r"]),
        ([ALL, rule("forbid", ["value", False])], ["r"]),
        # kept out by a gate already
        ([ALL, rule("forbid", ["not", ["le", ["request", "level"], ["service", "level"]]])], ["r"]),
        ([ALL, rule("forbid", ["not", ["subset", ["request", "tags"], ["service", "tags"]]])], ["r"]),
        # outside what a contract can say
        ([ALL, rule("forbid", ["le", ["value", 101], ["service", "trust"]])], ["r"]),
        # no rule names a word here, yet there are words for which it matters
        ([ALL, rule("forbid", ["not", ["subset", ["service", "tags"], ["request", "tags"]]])], []),
        ([ALL, rule("forbid", ["in", ["request", "principal"], ["service", "tags"]])], []),
    ],
)
def test_rules_that_can_never_matter_are_refused_by_name(rules: list[dict[str, Any]], idle: list[str]) -> None:
    made = policy(*rules)
    assert analysis.idle_rules(made) == idle
    if idle:
        with pytest.raises(Refusal) as refused:
            analysis.check_rules_matter(made)
        named = [made["rules"][int(detail.field[6:-1])]["id"] for detail in refused.value.details]
        assert named == idle
    else:
        analysis.check_rules_matter(made)
