"""Policies against Cedar, an engine of others: the same rules permit the same requests."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import cedarpy

from tests.rooms.decisions import samples
from tocsin.decisions.documents import LEVELS
from tocsin.decisions.policies import ATTRIBUTES, attributes, failing_rule

PAIRS = 600


def cedar(condition: Any, level: bool = False) -> str:
    """The condition in Cedar's words; levels are numbers there. `level` says that a text names a level."""
    operator, *parts = condition
    if operator in ATTRIBUTES:
        return f"context.{operator}.{parts[0]}"
    if operator == "value":
        return json.dumps(LEVELS.index(parts[0]) if level else parts[0])
    if operator in ("not", "and", "or"):
        inner = [cedar(part) for part in parts]
        return f"(!{inner[0]})" if operator == "not" else f"({(' && ' if operator == 'and' else ' || ').join(inner)})"
    levels = any(part[0] in ATTRIBUTES and ATTRIBUTES[part[0]][part[1]] == "level" for part in parts)
    a, b = (cedar(part, levels) for part in parts)
    return {
        "le": f"({a} <= {b})",
        "eq": f"({a} == {b})",
        "in": f"{b}.contains({a})",
        "subset": f"{b}.containsAll({a})",
    }[operator]


def record(of: Mapping[str, Any], side: str) -> dict[str, Any]:
    """What conditions can read, with levels as numbers."""
    return {name: LEVELS.index(of[name]) if kind == "level" else of[name] for name, kind in ATTRIBUTES[side].items()}


def test_cedar_decides_alike() -> None:
    permitted = 0
    for seed in range(PAIRS):
        rnd = random.Random(seed)
        policy = samples.policy(rnd, 4)
        request, service = attributes(samples.request(rnd)), attributes(samples.contract(rnd, rnd.choice(["s1", "s2"])))
        rules = "\n".join(
            f"{rule['effect']}(principal, action, resource) when {{ {cedar(rule['when'])} }};"
            for rule in policy["rules"]
        )
        asked = {
            "principal": 'Key::"a"',
            "action": 'Action::"call"',
            "resource": 'Service::"s"',
            "context": {"request": record(request, "request"), "service": record(service, "service")},
        }
        answer = cedarpy.is_authorized(asked, rules, [])
        assert not answer.diagnostics.errors, rules
        allowed = failing_rule(policy, request, service) is None
        assert (answer.decision == cedarpy.Decision.Allow) == allowed, rules
        permitted += allowed
    assert PAIRS / 5 < permitted < PAIRS * 4 / 5
