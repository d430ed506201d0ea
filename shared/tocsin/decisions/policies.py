"""Policies: rules that permit or forbid a service for a request, in a language whose evaluation cannot fail.

A policy permits when some permit rule holds and no forbid rule does; with no rule at all it permits nothing. A
condition is a JSON array, operator first:

    ["request", attribute]  ["service", attribute]  ["value", constant]      what the two documents say, and constants
    ["not", c]  ["and", c, …]  ["or", c, …]
    ["le", a, b]       integers, or levels by rank
    ["eq", a, b]       integers, levels, texts, booleans
    ["in", a, b]       a text in a set of words
    ["subset", a, b]   two sets of words

There is no division, no missing attribute, no text made at run time, and the kinds of both sides are checked before a
policy is published: every condition has a value for every request and service, so no error can let anything through.
(Cedar skips a forbid rule whose condition errors.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tocsin.decisions import documents
from tocsin.decisions.contracts import MAX_TRUST
from tocsin.decisions.documents import LEVELS, MAX_INT
from tocsin.kernel.errors import Detail, Refusal

Policy = dict[str, Any]
Condition = list[Any]
Document = Mapping[str, Any]

#: Attribute → kind, for each of the two documents.
ATTRIBUTES: Final[Mapping[str, Mapping[str, str]]] = {
    "request": {
        "principal": "text",
        "profile": "text",
        "capabilities": "words",
        "scopes": "words",
        "tags": "words",
        "level": "level",
        "trust": "integer",
        "cost_pusd": "integer",
        "latency_us": "integer",
        "error_ppb": "integer",
    },
    "service": {
        "name": "text",
        "version": "integer",
        "capabilities": "words",
        "scopes": "words",
        "tags": "words",
        "level": "level",
        "trust": "integer",
        "cost_pusd": "integer",
        "latency_us": "integer",
        "error_ppb": "integer",
        "deterministic": "boolean",
        "lease_ms": "integer",
    },
}
#: Weights of a profile, per pico-USD, µs, ppb and missing point of trust.
WEIGHTS: Final = ("cost", "latency", "error", "distrust")
#: Weights that a project starts with.
PROFILES: Final[Mapping[str, Mapping[str, int]]] = {
    "balanced": {"cost": 10, "latency": 10, "error": 10, "distrust": 10},
    "cheap": {"cost": 100, "latency": 1, "error": 1, "distrust": 0},
    "fast": {"cost": 1, "latency": 100, "error": 1, "distrust": 0},
    "safe": {"cost": 1, "latency": 1, "error": 100, "distrust": 50},
}
EFFECTS: Final = ("forbid", "permit")
MAX_RULES: Final = 1_000
MAX_DEPTH: Final = 16
MAX_NODES: Final = 256
MAX_WEIGHT: Final = 1_000_000
WORD: Final = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,63}", re.ASCII)
_TEXT: Final = re.compile(r"[!-~]{1,128}", re.ASCII)

_RULE: Final = documents.closed(
    {
        "id": documents.text("[a-z0-9][a-z0-9_-]{0,63}", "Names the rule in reasons."),
        "effect": documents.choice(EFFECTS, "What the rule does when its condition holds."),
        "when": {"description": "The condition."},
    },
    frozenset({"id", "effect", "when"}),
)
_PROFILE: Final = documents.closed(
    {name: documents.integer(0, MAX_WEIGHT, f"Weight of {name}.") for name in WEIGHTS}, frozenset(WEIGHTS)
)
_SCHEMA: Final = documents.closed(
    {
        "version": documents.integer(1, MAX_INT, "Greater than every version before it."),
        "rules": {"type": "array", "items": _RULE, "minItems": 0, "maxItems": MAX_RULES},
        "profiles": {"description": "Weights by profile name."},
    },
    frozenset({"version", "rules", "profiles"}),
)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a policy; conditions are described at the top of this module."""
    profiles = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 32,
        "additionalProperties": dict(_PROFILE),
        "description": "Weights of cost, latency, error and missing trust, by the profile's name.",
    }
    return {**_SCHEMA, "properties": {**_SCHEMA["properties"], "profiles": profiles}}


class _Unfit(Exception):
    """A condition outside the language: where, which rule, how to fix it."""

    def __init__(self, where: str, rule: str, fix: str) -> None:
        super().__init__(where)
        self.detail = Detail(where, rule, fix)


def _literal(value: Any, where: str) -> str:
    """Kind of a constant; a text that is a level's name is a level where one is compared."""
    if isinstance(value, bool):
        return "boolean"
    if type(value) is int and abs(value) <= MAX_INT:
        return "integer"
    if isinstance(value, str) and _TEXT.fullmatch(value):
        return "text"
    if isinstance(value, list) and len(value) <= 32 and all(isinstance(v, str) and WORD.fullmatch(v) for v in value):
        return "words"
    raise _Unfit(where, "constant", "send an integer below 2^53, true, false, printable ASCII, or at most 32 words")


_CONNECTIVES: Final = {"not": (1, 1), "and": (1, 32), "or": (1, 32)}
_COMPARISONS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "le": (("integer", "integer"), ("level", "level")),
    "eq": (("integer", "integer"), ("level", "level"), ("text", "text"), ("boolean", "boolean")),
    "in": (("text", "words"),),
    "subset": (("words", "words"),),
}


def _kind(node: Any, where: str, depth: int, left: list[int]) -> str:
    """Kind of a node; raises _Unfit. `left` counts down the nodes that a condition may still have."""
    left[0] -= 1
    if depth > MAX_DEPTH or left[0] < 0:
        raise _Unfit(where, "size", f"nest at most {MAX_DEPTH} operators and use at most {MAX_NODES}")
    if not isinstance(node, list) or not node or not isinstance(node[0], str):
        raise _Unfit(where, "condition", "send an array that begins with an operator")
    operator, parts = node[0], node[1:]
    if operator in ATTRIBUTES:
        known = ATTRIBUTES[operator]
        if len(parts) != 1 or not isinstance(parts[0], str) or parts[0] not in known:
            raise _Unfit(where, "attribute", f"name one of {', '.join(known)}")
        return known[parts[0]]
    if operator == "value":
        if len(parts) != 1:
            raise _Unfit(where, "constant", "send one constant")
        return _literal(parts[0], where)
    kinds = [_kind(part, f"{where}[{i}]", depth + 1, left) for i, part in enumerate(parts, 1)]
    if operator in _CONNECTIVES:
        least, most = _CONNECTIVES[operator]
        if not least <= len(kinds) <= most or set(kinds) != {"boolean"}:
            raise _Unfit(where, "kinds", f"give {operator} {least} to {most} conditions")
        return "boolean"
    if operator in _COMPARISONS:
        able = [fit for fit in _COMPARISONS[operator] if len(parts) == 2 and _fits(parts, kinds, fit)]
        if able:
            return "boolean"
        wanted = " or ".join(f"({a}, {b})" for a, b in _COMPARISONS[operator])
        raise _Unfit(where, "kinds", f"give {operator} {wanted}")
    known_operators = [*ATTRIBUTES, "value", *_CONNECTIVES, *_COMPARISONS]
    raise _Unfit(where, "operator", f"use one of {', '.join(known_operators)}")


def _fits(parts: list[Any], kinds: list[str], wanted: tuple[str, str]) -> bool:
    for part, kind, want in zip(parts, kinds, wanted, strict=True):
        named_level = want == "level" and part[0] == "value" and part[1] in LEVELS if kind == "text" else False
        if kind != want and not named_level:
            return False
    if wanted == ("text", "words") and parts[0][0] == "value":
        return WORD.fullmatch(parts[0][1]) is not None
    return wanted != ("level", "level") or "level" in kinds


def check_condition(node: Any, where: str) -> None:
    """Refuse ERR_SCHEMA a condition that is outside the language."""
    try:
        kind = _kind(node, where, 1, [MAX_NODES])
        if kind != "boolean":
            raise _Unfit(where, "kinds", "send a condition that is true or false")
    except _Unfit as unfit:
        raise Refusal("ERR_SCHEMA", "A condition is outside the rule language.", [unfit.detail]) from None


def validate(sent: Any) -> Policy:
    """A policy in its one form: rules by id. Raises Refusal ERR_SCHEMA."""
    documents.check(sent, _SCHEMA, "policy")
    profiles = sent["profiles"]
    if not isinstance(profiles, dict) or not 1 <= len(profiles) <= 32:
        detail = Detail("profiles", "items", "send 1 to 32 profiles by name")
        raise Refusal("ERR_SCHEMA", "The policy breaks its schema.", [detail])
    for name, weights in profiles.items():
        documents.check(name, documents.text("[a-z0-9][a-z0-9_-]{0,63}", ""), "policy", "profiles")
        documents.check(weights, _PROFILE, "policy", f"profiles.{name}")
    for i, rule in enumerate(sent["rules"]):
        check_condition(rule["when"], f"rules[{i}].when")
    ids = [rule["id"] for rule in sent["rules"]]
    for i, name in enumerate(ids):
        if name in ids[:i]:
            detail = Detail(f"rules[{i}].id", "unique", "give each rule an id of its own")
            raise Refusal("ERR_SCHEMA", "The policy breaks its schema.", [detail])
    return {**sent, "rules": sorted(sent["rules"], key=lambda rule: str(rule["id"]))}


def attributes(document: Document) -> dict[str, Any]:
    """A request or contract with level and tags beside the other fields, as conditions name them."""
    return {**document, **document["data_class"]}


def rank(value: Any) -> int:
    """An integer as it is, a level by its rank."""
    return LEVELS.index(value) if isinstance(value, str) else value


def evaluate(node: Condition, request: Document, service: Document) -> Any:
    """Value of a checked condition for `attributes` of a request and of a contract."""
    operator = node[0]
    if operator == "request":
        return request[node[1]]
    if operator == "service":
        return service[node[1]]
    if operator == "value":
        return node[1]
    if operator == "not":
        return not evaluate(node[1], request, service)
    if operator == "and":
        return all(evaluate(part, request, service) for part in node[1:])
    if operator == "or":
        return any(evaluate(part, request, service) for part in node[1:])
    a, b = evaluate(node[1], request, service), evaluate(node[2], request, service)
    if operator == "le":
        return rank(a) <= rank(b)
    if operator == "eq":
        return a == b
    return a in b if operator == "in" else set(a) <= set(b)


def nodes(node: Condition) -> Iterator[Condition]:
    """The condition and everything below it."""
    yield node
    if node[0] not in ("request", "service", "value"):
        for part in node[1:]:
            yield from nodes(part)


def reads(node: Condition) -> frozenset[str]:
    """Which documents a condition reads: "request", "service", both or neither."""
    return frozenset(one[0] for one in nodes(node) if one[0] in ATTRIBUTES)


def failing_rule(policy: Policy, request: Document, service: Document) -> str | None:
    """Why the policy does not permit: `forbid:<id>` of the first forbid rule that holds, `permit` when no permit
    rule holds, None when it permits. Arguments are `attributes`.
    """
    permitted = False
    for rule in policy["rules"]:
        if rule["effect"] == "forbid" or not permitted:
            holds = evaluate(rule["when"], request, service)
            if holds and rule["effect"] == "forbid":
                return f"forbid:{rule['id']}"
            permitted = permitted or holds
    return None if permitted else "permit"


def weight(service: Document, weights: Mapping[str, int]) -> int:
    """J: what a service counts under a profile; less is better. Exact, and possibly beyond 2^53."""
    return int(
        weights["cost"] * service["cost_pusd"]
        + weights["latency"] * service["latency_us"]
        + weights["error"] * service["error_ppb"]
        + weights["distrust"] * (MAX_TRUST - service["trust"])
    )


def key(service: Document, weights: Mapping[str, int]) -> tuple[int, str, int]:
    """κ = (J, name, version): a total order, so the least service is one and does not depend on how it was found."""
    return weight(service, weights), service["name"], service["version"]
