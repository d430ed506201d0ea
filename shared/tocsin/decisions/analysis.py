"""What a change of policy newly allows and newly forbids, and which rules can never matter: by proof, with Z3.

The question is asked over every request and every contract there could be, not over those at hand, and only where
the gates before the policy hold: a rule that forbids what a gate keeps out anyway never matters. Texts and words
become numbers: those that the rules name, and enough others for every witness that a condition could ask for, so
that an answer "none" is a proof. Z3 is imported here only; whoever publishes policies has it, whoever decides need not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tocsin.decisions.contracts import MAX_TRUST, MAX_VERSION, PPB
from tocsin.decisions.documents import LEVELS, MAX_INT
from tocsin.decisions.policies import ATTRIBUTES, WORD, Condition, Policy, nodes
from tocsin.kernel.errors import Detail, Refusal, Retry

#: How long one question may take in all, in seconds.
_TIMEOUT_S: Final = 12.0
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "trust": (0, MAX_TRUST),
    "error_ppb": (0, PPB),
    "version": (1, MAX_VERSION),
    "lease_ms": (1, 86_400_000),
}


@dataclass(frozen=True, slots=True)
class Witness:
    """A request and a service, by the attributes that the rules read, for which two policies differ."""

    request: Mapping[str, Any]
    service: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """An example of what is newly allowed and of what is newly forbidden; None is a proof that there is none."""

    allows: Witness | None
    forbids: Witness | None


class _World:
    """Every request and every service, as Z3 terms, for the rules of some policies."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        import z3

        self._z3 = z3
        self._solver: Any = None
        self._until = time.monotonic() + _TIMEOUT_S
        read = [node for policy in policies for rule in policy["rules"] for node in nodes(rule["when"])]
        named = {text for node in read if node[0] == "value" for text in _texts(node[1])}
        subsets = {str(node) for node in read if node[0] == "subset"}
        others = sum(kind == "text" for of in ATTRIBUTES.values() for kind in of.values()) + len(subsets) + 1
        self._texts = sorted(named) + [f"other-{i}" for i in range(others)]
        self._number = {text: i for i, text in enumerate(self._texts)}
        self._read = {(node[0], node[1]) for node in read if node[0] in ATTRIBUTES}
        self.domain: list[Any] = []
        self._terms = {(side, name): self._term(side, name) for side, of in ATTRIBUTES.items() for name in of}
        self._assume_gates()

    def _term(self, side: str, name: str) -> Any:
        z3, kind, label = self._z3, ATTRIBUTES[side][name], f"{side}.{name}"
        if kind == "words":
            members = [z3.Bool(f"{label}.{text}") for text in self._texts]
            self.domain += [
                z3.Not(has) for text, has in zip(self._texts, members, strict=True) if not WORD.fullmatch(text)
            ]
            self.domain.append(z3.AtMost(*members, 32))
            if name == "capabilities":
                self.domain.append(z3.Or(members))
            return members
        if kind == "boolean":
            return z3.Bool(label)
        term = z3.Int(label)
        low, high = _RANGES.get(name, (0, MAX_INT))
        high = {"level": len(LEVELS) - 1, "text": len(self._texts) - 1}.get(kind, high)
        self.domain += [term >= low, term <= high]
        return term

    def _assume_gates(self) -> None:
        request = {name: self._terms["request", name] for name in ATTRIBUTES["request"]}
        service = {name: self._terms["service", name] for name in ATTRIBUTES["service"]}
        self.domain += [
            self._subset(request["capabilities"], service["capabilities"]),
            self._subset(service["scopes"], request["scopes"]),
            request["level"] <= service["level"],
            self._subset(request["tags"], service["tags"]),
            service["trust"] >= request["trust"],
            *(service[name] <= request[name] for name in ("cost_pusd", "latency_us", "error_ppb")),
        ]

    def _subset(self, a: list[Any], b: list[Any]) -> Any:
        return self._z3.And([self._z3.Implies(x, y) for x, y in zip(a, b, strict=True)])

    def _value(self, node: Condition, level: bool) -> Any:
        """Term of an operand; `level` says that a text constant is the name of a level."""
        if node[0] != "value":
            return self._terms[node[0], node[1]]
        value = node[1]
        if isinstance(value, str):
            return LEVELS.index(value) if level else self._number[value]
        if isinstance(value, list):
            return [self._z3.BoolVal(text in value) for text in self._texts]
        return value

    def holds(self, node: Condition) -> Any:
        """The condition as a formula."""
        z3, operator = self._z3, node[0]
        if operator == "value":
            return z3.BoolVal(node[1])
        if operator in ATTRIBUTES:
            return self._terms[node[0], node[1]]
        if operator == "not":
            return z3.Not(self.holds(node[1]))
        if operator in ("and", "or"):
            return (z3.And if operator == "and" else z3.Or)([self.holds(part) for part in node[1:]])
        if operator == "eq" and _is_condition(node[1]):
            return self.holds(node[1]) == self.holds(node[2])
        level = any(ATTRIBUTES[part[0]][part[1]] == "level" for part in node[1:] if part[0] in ATTRIBUTES)
        a, b = self._value(node[1], level), self._value(node[2], level)
        if operator == "le":
            return z3.simplify(z3.IntVal(0) + a <= b)
        if operator == "eq":
            return z3.simplify(z3.IntVal(0) + a == b)
        if operator == "subset":
            return self._subset(a, b)
        if node[1][0] == "value":
            return b[a]
        if node[2][0] == "value":
            return z3.Or([a == self._number[text] for text in node[2][1]])
        return z3.Or([z3.And(a == i, has) for i, has in enumerate(b)])

    def permits(self, rules: Sequence[Mapping[str, Any]]) -> Any:
        z3 = self._z3
        by = {
            effect: [self.holds(rule["when"]) for rule in rules if rule["effect"] == effect]
            for effect in ("permit", "forbid")
        }
        return z3.And(z3.Or(by["permit"]), z3.Not(z3.Or(by["forbid"])))

    def find(self, formula: Any) -> Witness | None:
        """A witness of the formula, or None when there is none. Raises Retry when Z3 does not know in time."""
        if self._solver is None:
            self._solver = self._z3.Solver()
            self._solver.add(*self.domain)
        left = self._until - time.monotonic()
        self._solver.set("timeout", max(1, int(left * 1000)))
        self._solver.push()
        try:
            self._solver.add(formula)
            answer = self._solver.check()
            if left <= 0 or answer == self._z3.unknown:
                raise Retry("the policy is too hard to analyse in time")
            return self._witness(self._solver.model()) if answer == self._z3.sat else None
        finally:
            self._solver.pop()

    def _witness(self, model: Any) -> Witness:
        made: dict[str, dict[str, Any]] = {"request": {}, "service": {}}
        for side, name in sorted(self._read):
            kind, term = ATTRIBUTES[side][name], self._terms[side, name]
            if kind == "words":
                value: Any = [
                    text
                    for text, has in zip(self._texts, term, strict=True)
                    if self._z3.is_true(model.eval(has, model_completion=True))
                ]
            elif kind == "boolean":
                value = self._z3.is_true(model.eval(term, model_completion=True))
            else:
                number = model.eval(term, model_completion=True).as_long()
                value = {"level": LEVELS, "text": self._texts}[kind][number] if kind != "integer" else number
            made[side][name] = value
        return Witness(made["request"], made["service"])


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return value if isinstance(value, list) else []


def _is_condition(node: Condition) -> bool:
    """Whether an operand is true or false rather than a number, text or set."""
    if node[0] in ATTRIBUTES:
        return ATTRIBUTES[node[0]][node[1]] == "boolean"
    return isinstance(node[1], bool) if node[0] == "value" else True


def change(old: Policy, new: Policy) -> Change:
    """What `new` allows that `old` does not, and the other way round. Both are validated."""
    world = _World([old, new])
    before, after = world.permits(old["rules"]), world.permits(new["rules"])
    z3 = world._z3
    return Change(world.find(z3.And(after, z3.Not(before))), world.find(z3.And(before, z3.Not(after))))


def idle_rules(policy: Policy) -> list[str]:
    """Ids of rules without which the policy would decide the same, each judged with all others in place."""
    world, rules = _World([policy]), policy["rules"]
    z3, holds = world._z3, [world.holds(rule["when"]) for rule in rules]

    def others(effect: str, but: int) -> Any:
        return z3.Or([holds[i] for i, rule in enumerate(rules) if rule["effect"] == effect and i != but])

    def matters(i: int) -> Any:
        """Where the rule decides: it holds, no other forbids, and what permits is others (a forbid) or it alone."""
        permitted = others("permit", i)
        alone = permitted if rules[i]["effect"] == "forbid" else z3.Not(permitted)
        return z3.And(holds[i], alone, z3.Not(others("forbid", i)))

    return [rule["id"] for i, rule in enumerate(rules) if world.find(matters(i)) is None]


def check_rules_matter(policy: Policy) -> None:
    """Refuse ERR_SCHEMA a policy with rules that can never matter, naming them."""
    idle = set(idle_rules(policy))
    fix = "leave the rule out, or change it: with and without it every request is decided alike"
    details = [Detail(f"rules[{i}]", "matters", fix) for i, rule in enumerate(policy["rules"]) if rule["id"] in idle]
    if details:
        raise Refusal("ERR_SCHEMA", "A rule can never matter.", details[:20])
