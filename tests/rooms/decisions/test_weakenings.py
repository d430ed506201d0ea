"""Deliberate weakenings of the engine and of both checkers: each must show, or the tests would prove nothing."""

from __future__ import annotations

import random
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest
from tools import checker

from tests.rooms.decisions import samples
from tests.rooms.decisions.test_certificates import (
    ROOT,
    Case,
    by_node,
    by_python,
    damaged,
    encodings,
    forgeries,
    genuine,
    misproofs,
    small_world,
    world,
)
from tocsin.decisions import certificates, routing
from tocsin.decisions.certificates import FORMS
from tocsin.decisions.routing import Request, request_of
from tocsin.kernel.canonical import canonical_json

WORLDS = 100


def replaced(path: Path, old: str, new: str) -> str:
    text = path.read_text("utf-8")
    assert text.count(old) == 1, f"{path.name} changed: {old!r} is there {text.count(old)} times"
    return text.replace(old, new)


def module(path: Path, old: str, new: str) -> ModuleType:
    """A module with one place changed, under a name of its own."""
    made = ModuleType("weakened")
    sys.modules["weakened"] = made
    exec(compile(replaced(path, old, new), "weakened", "exec"), made.__dict__)
    return made


@lru_cache(maxsize=1)
def cases() -> list[Case]:
    """Genuine certificates, forged winners, damaged ones, and ones of another policy, health or ranking."""

    made: list[Case] = []
    for seed in range(WORLDS):
        engine, request, health = world(seed)
        given = [genuine(engine, request, health, form) for form in FORMS]
        forged = [*forgeries(engine, request, health), *misproofs(engine, request, health)]
        given += forged[seed % 7 :: 7]
        made.append((certificates.context(engine, "full"), certificates.health_document(health), given))
    engine, request, health = small_world()
    context, healthy = certificates.context(engine, "full"), certificates.health_document(health)
    for form in FORMS:
        made.append((context, healthy, list(damaged(genuine(engine, request, health, form), random.Random(1)))[::20]))
    data = [genuine(engine, request, health, form) for form in FORMS]
    made.append((context, healthy, [*encodings(data[0]), *encodings(data[1])]))
    made += [(one, healthy, data) for one in damaged(context, random.Random(2))][::40]
    made += [(context, one, data) for one in damaged(healthy, random.Random(3))][::9]
    return made


@lru_cache(maxsize=1)
def truth() -> list[list[str | None]]:
    answers = by_python(cases())
    assert by_node(cases()) == answers
    return answers


CHECKER = [
    ('s["state"] == "active"', "True"),
    ('not in health["down"]', 'not in ("",)'),
    ('set(r["capabilities"]) <= set(s["capabilities"])', 'set(r["capabilities"]) & set(s["capabilities"]) != set()'),
    ('subtype(r["input"], s["input"])', 'subtype(s["input"], r["input"])'),
    ('subtype(s["output"], r["output"])', "True"),
    ('set(s["scopes"]) <= set(r["scopes"])', 'not s["scopes"] or set(s["scopes"]) & set(r["scopes"]) != set()'),
    ('set(r["data_class"]["tags"]) <= set(s["data_class"]["tags"])', "True"),
    ('s["trust"] >= r["trust"]', "True"),
    ("s[name] <= r[name]", "s[name] < r[name]"),
    ('f"forbid:{name}": not holds', 'f"forbid:{name}": True'),
    ('any(holds for effect, _, holds in rules if effect == "permit")', "True"),
    (
        'not holds for effect, name, holds in rules if effect == "forbid"',
        'not holds for effect, name, holds in rules[1:] if effect == "forbid"',
    ),
    ('return j + w["distrust"] * (100 - s["trust"]), s["name"], s["version"]', 'return j, s["name"], s["version"]'),
    ('(100 - s["trust"]), s["name"], s["version"]', '(100 - s["trust"]), s["version"], s["name"]'),
    ('need(root(shown, 0, count, rest) == top, "not the ranking\'s beginning")', "rest.clear()"),
    ("need(not rest and at ==", "need(at =="),
    ("at == (len(shown) - 1 if len(shown) < count or able else None)", "True"),
    ('need(canonical(made) == data, "not the certificate of these inputs")', "pass"),
    ('need(head["policy"] == sha(policy), "the policy is not the header\'s")', "pass"),
    ('need(sha(made) == sha(head), "the header is not of these contracts")', "pass"),
    ('return a == b if op == "eq"', 'return a != b if op == "eq"'),
]


@pytest.mark.parametrize(("old", "new"), CHECKER)
def test_a_weakened_python_checker_is_noticed(old: str, new: str) -> None:
    weak = module(ROOT / "tools" / "checker.py", old, new)
    expected = truth()
    assert any(by_python([case], weak) != [answer] for case, answer in zip(cases(), expected, strict=True))


NODE = [
    ('yield ["active", service.state === "active"]', 'yield ["active", true]'),
    ("!Object.hasOwn(health.down, `${service.name}@${service.version}`)", "true"),
    ("within(request.capabilities, service.capabilities)", "true"),
    ("subtype(request.input, service.input)", "true"),
    ("subtype(service.output, request.output)", "subtype(request.output, service.output)"),
    ("within(service.scopes, request.scopes)", "true"),
    ("within(mine.tags, its.tags)", "true"),
    ("service.trust >= request.trust", "service.trust > request.trust"),
    ("service.error_ppb <= request.error_ppb", "true"),
    ("!holds(rule)]", "true]"),
    ('policy.rules.some((rule) => rule.effect === "permit" && holds(rule))', "true"),
    ("BigInt(weights.distrust) * BigInt(100 - service.trust)", "0n"),
    ('need(receipt.request === hex(request), "the receipt is of another request");', ""),
    ("receipt.snapshot === names.snapshot && receipt.health === names.health", "true"),
    ("canonical(decision) === canonical(receipt.decision)", "true"),
    (
        'certificate.rest).toString("hex") === root,',
        'certificate.rest).toString("hex") !== "",',
    ),
    ("winner ? shown.at(-1) === winner : shown.length === size", "true"),
    ("need(failure === null, `the winner fails ${failure}`)", "need(true)"),
    ("need(reasons[i] === failure, `service ${i} fails ${failure}`)", "need(true)"),
    ("compare(winner, service, weights) < 0", "true"),
    ('need(canonical(made) === canonical(header), "the header is not of these contracts and this policy");', ""),
    ("need(canonical(value) === data, `${what} is not canonical JSON`);", ""),
]


@pytest.mark.parametrize(("old", "new"), NODE)
def test_a_weakened_node_checker_is_noticed(old: str, new: str, tmp_path: Path) -> None:
    weak = tmp_path / "weak.mjs"
    weak.write_text(replaced(ROOT / "tools" / "checker.mjs", old, new), "utf-8")
    assert by_node(cases(), weak) != truth()


ENGINE = [
    ('lambda c: c["state"] == "active"', "lambda c: True"),
    ("if health.down:", "if False:"),
    ("made &= self._with[kind].get(word, 0)", "made &= self._with[kind].get(word, made)"),
    ('subtype(wanted, offered) if kind == "input"', 'subtype(offered, wanted) if kind == "input"'),
    ("if scope not in held:", "if False:"),
    (">= rank), size)", "<= rank), size)"),
    ("count = bisect_right(self._values, limit)", "count = bisect_right(self._values, limit - 1)"),
    ("able = self._least_trust.bits(-trust)", "able = self._all"),
    ("promised[2] <= latency", "True"),
    (
        "able &= ~rule.services\n            else:\n                permitted |= rule.services\n        return",
        "pass\n        return",
    ),
    (
        "able &= ~rule.services\n            else:\n                permitted |= rule.services\n        if not",
        "pass\n        if not",
    ),
    ("able if left else able & permitted", "able"),
    ("able &= permitted\n", "pass\n"),
    ("able &= self._within(request)\n        return", "return"),
    ('(*_LEARNT, "level", "profile", "principal")', '(*_LEARNT, "profile", "principal")'),
    ('(*_LEARNT, "level", "profile", "principal")', '(*_LEARNT, "level", "principal")'),
    (
        'if rule.effect == "forbid":\n                    return False',
        'if rule.effect == "forbid":\n                    return True',
    ),
    ("lowest = able & -able\n            at", "lowest = 1 << able.bit_length() - 1\n            at"),
    ("lowest = able & -able\n            if", "lowest = 1 << able.bit_length() - 1\n            if"),
    (
        "all(evaluate(part, asked, {}) for part in rule.of_request)",
        "any(evaluate(part, asked, {}) for part in rule.of_request)",
    ),
    ("*parts.get(frozenset(), ())]", "]"),
]


def neighbour(request: Request, rnd: random.Random) -> Request:
    """The request with one field as in another: what an index remembers of the one must not be used for the other."""
    other = samples.request(rnd)
    name = rnd.choice(["data_class", "principal", "trust", "scopes", "profile", "input"])
    return request_of({**request.document, name: other[name]})


@pytest.mark.parametrize(("old", "new"), ENGINE)
def test_a_weakened_engine_is_noticed(old: str, new: str) -> None:
    weak = module(Path(routing.__file__), old, new)
    weak.__dict__["_TRIED"] = 2  # so that small worlds meet both ways of comparing limits
    for seed in range(3_000):
        engine, request, health = world(seed, 24)
        rnd, weakened = random.Random(seed), weak.Engine(engine.snapshot)
        for _ in range(4):
            found = weakened.decide(weak.request_of(request.document), health).decision
            if found != routing.decide_by_definition(request, engine.snapshot, health):
                return
            request = neighbour(request, rnd)
    pytest.fail("no difference in any world")


def test_what_was_weakened_was_sound() -> None:
    """The originals agree on every case, and refuse all but the genuine ones."""
    for (_, _, given), answers in zip(cases()[:WORLDS], truth()[:WORLDS], strict=True):
        assert [answer is not None for answer in answers] == [True, True] + [False] * (len(given) - 2)
    assert checker.canonical({"b": 1, "a": [True, None]}) == canonical_json({"a": [True, None], "b": 1})
