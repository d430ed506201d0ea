"""Random registries, requests, policies and health: small worlds with many ties and many near misses."""

from __future__ import annotations

import random
from typing import Any

from tocsin.decisions.documents import LEVELS
from tocsin.decisions.policies import ATTRIBUTES, PROFILES, validate

CAPABILITIES = ("mail", "sms", "page")
SCOPES = ("a:read", "b:read", "c:read")
TAGS = ("eu", "gdpr", "pci")
TYPES: tuple[Any, ...] = (
    True,
    {"type": "string"},
    {"type": "string", "maxLength": 9},
    {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]},
    {"type": "object"},
)
NOW = 1_800_000_000_000


def some(rnd: random.Random, words: tuple[str, ...], share: float) -> list[str]:
    return sorted(word for word in words if rnd.random() < share)


def contract(rnd: random.Random, name: str, version: int = 1) -> dict[str, Any]:
    """A contract as it stands in a snapshot."""
    return {
        "name": name,
        "version": version,
        "capabilities": some(rnd, CAPABILITIES, 0.7) or ["mail"],
        "input": rnd.choice(TYPES[:3]),
        "output": rnd.choice(TYPES[2:]),
        "scopes": some(rnd, SCOPES, 0.2),
        "data_class": {"level": rnd.choice(LEVELS[1:]), "tags": some(rnd, TAGS, 0.8)},
        "trust": rnd.choice([30, 50, 80]),
        "cost_pusd": rnd.choice([100, 200, 300]),
        "latency_us": rnd.choice([10, 20, 30]),
        "error_ppb": rnd.choice([5, 50]),
        "deterministic": rnd.random() < 0.5,
        "lease_ms": 1_000,
        "state": "active" if rnd.random() < 0.9 else rnd.choice(["draft", "draining", "retired"]),
        "since_ms": NOW,
    }


def registry(rnd: random.Random, size: int) -> list[dict[str, Any]]:
    return [contract(rnd, f"s{i // 2}", 1 + i % 2) for i in range(size)]


def request(rnd: random.Random) -> dict[str, Any]:
    """A request as it is hashed."""
    return {
        "principal": rnd.choice(["key_a", "key_b"]),
        "capabilities": [rnd.choice(CAPABILITIES)] if rnd.random() < 0.8 else ["mail", "sms"],
        "input": rnd.choice(TYPES[1:3]),
        "output": rnd.choice([True, True, *TYPES]),
        "scopes": some(rnd, SCOPES, 0.85),
        "data_class": {"level": rnd.choice(LEVELS[:3]), "tags": some(rnd, TAGS, 0.2)},
        "trust": rnd.choice([0, 40, 60]),
        "cost_pusd": rnd.choice([200, 300, 900]),
        "latency_us": rnd.choice([20, 30, 90]),
        "error_ppb": rnd.choice([5, 50, 900]),
        "profile": rnd.choice(sorted(PROFILES)),
    }


def health(rnd: random.Random, contracts: list[dict[str, Any]]) -> dict[str, Any]:
    down = {f"{one['name']}@{one['version']}": rnd.choice(["lease", "breaker"]) for one in contracts}
    return {
        "epoch": rnd.randrange(100),
        "down": {name: why for name, why in down.items() if rnd.random() < 0.1},
        "attested": [name for name in down if rnd.random() < 0.2],
    }


def operand(rnd: random.Random, kind: str) -> list[Any]:
    """An attribute or a constant of a kind."""
    side = rnd.choice(["request", "service"])
    names = [name for name, of in ATTRIBUTES[side].items() if of == kind]
    if names and rnd.random() < 0.6:
        return [side, rnd.choice(names)]
    constant: Any = {
        "integer": rnd.choice([0, 10, 40, 50, 200]),
        "level": rnd.choice(LEVELS),
        "text": rnd.choice(["key_a", "s1", "gdpr", "mail", "cheap"]),
        "words": some(rnd, TAGS, 0.5),
        "boolean": rnd.random() < 0.5,
    }[kind]
    return ["value", constant]


def condition(rnd: random.Random, depth: int = 2) -> list[Any]:
    """A condition of the rule language."""
    roll = rnd.random()
    if depth and roll < 0.5:
        operator = rnd.choice(["and", "or", "not"])
        return [operator, *(condition(rnd, depth - 1) for _ in range(1 if operator == "not" else rnd.randrange(1, 4)))]
    if roll < 0.6:
        return operand(rnd, "boolean")
    operator, *kinds = rnd.choice(
        [
            ("le", "integer", "integer"),
            ("le", "level", "level"),
            ("eq", "integer", "integer"),
            ("eq", "level", "level"),
            ("eq", "text", "text"),
            ("eq", "boolean", "boolean"),
            ("in", "text", "words"),
            ("subset", "words", "words"),
        ]
    )
    a, b = (operand(rnd, kind) for kind in kinds)
    if "level" in kinds and a[0] == b[0] == "value":
        a = ["request", "level"]
    return [operator, a, b]


def policy(rnd: random.Random, rules: int | None = None) -> dict[str, Any]:
    """A policy that permits often enough to be interesting."""
    count = rnd.randrange(4) if rules is None else rules
    made = [{"id": f"r{i}", "effect": rnd.choice(["permit", "forbid"]), "when": condition(rnd)} for i in range(count)]
    if rnd.random() < 0.8:
        made.append({"id": "all", "effect": "permit", "when": ["value", True]})
    return validate({"version": 1, "rules": made, "profiles": {name: dict(of) for name, of in PROFILES.items()}})
