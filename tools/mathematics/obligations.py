"""What is proved of the code itself: its functions, run on Z3 terms, do what the calculi say, for all integers.

The specifications here are written apart from the code: sets bit by bit, orders by negation, sums term by term. Each
obligation names the code that it is about and the lemmas that then hold of that code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from types import ModuleType
from typing import Any, Final

import z3
from tools.mathematics import symbolic
from tools.mathematics.symbolic import Bool, Down, Int, State, Text, Words, paths, term, type_of

DECISIONS: Final = "shared/tocsin/decisions/"
CHECKER: Final = "tools/checker.py"
PPB: Final = 10**9

#: (facts under which, what then must hold).
Claim = tuple[Any, Any]
Claims = Callable[[ModuleType], Iterator[Claim]]


@dataclass(frozen=True, slots=True)
class Obligation:
    """One thing to prove of one module: `claims` runs the code and says what must hold on each of its paths."""

    name: str
    statement: str
    module: str
    code: tuple[str, ...]
    lemmas: tuple[str, ...]
    claims: Claims


OBLIGATIONS: Final[dict[str, Obligation]] = {}


def _of(name: str, statement: str, module: str, code: str, lemmas: str) -> Callable[[Claims], Claims]:
    def keep(claims: Claims) -> Claims:
        path = module if "/" in module else f"{DECISIONS}{module}.py"
        OBLIGATIONS[name] = Obligation(name, statement, path, tuple(code.split()), tuple(lemmas.split()), claims)
        return claims

    return keep


@lru_cache(maxsize=64)
def _copy(path: str) -> ModuleType:
    return symbolic.load(path)


def holds(obligation: Obligation, module: ModuleType | None = None) -> bool:
    """Whether Z3 proves the obligation of its module, or of the weakened copy that is given."""
    tried = 0
    for facts, claim in obligation.claims(module or _copy(obligation.module)):
        tried += 1
        solver = z3.Solver()
        solver.set("timeout", 20_000)
        solver.add(facts, z3.Not(term(claim)))
        if solver.check() != z3.unsat:
            return False
    if not tried:
        raise AssertionError(f"{obligation.name} claims nothing")
    return True


# Gates

_GATES: Final = (
    "active",
    "healthy",
    "capabilities",
    "input",
    "output",
    "scopes",
    "level",
    "tags",
    "trust",
    "cost",
    "latency",
    "error",
)


def _inside(a: Words, b: Words) -> Any:
    """Every element of a is one of b; element by element."""
    return z3.And([z3.Implies(z3.Extract(i, i, a.of) == 1, z3.Extract(i, i, b.of) == 1) for i in range(symbolic.WIDTH)])


def _side(name: str) -> dict[str, Any]:
    """Any request or contract."""
    return {
        "name": "s",
        "version": 1,
        "capabilities": Words(f"{name}_capabilities"),
        "input": type_of(f"{name}_input"),
        "output": type_of(f"{name}_output"),
        "scopes": Words(f"{name}_scopes"),
        "data_class": {"level": Int(f"{name}_level"), "tags": Words(f"{name}_tags")},
        "trust": Int(f"{name}_trust"),
        "cost_pusd": Int(f"{name}_cost"),
        "latency_us": Int(f"{name}_latency"),
        "error_ppb": Int(f"{name}_error"),
        "permits": Bool(z3.Bool(f"{name}_permits")),
        "forbids": Bool(z3.Bool(f"{name}_forbids")),
    }


_POLICY: Final = {
    "rules": [
        {"id": "no", "effect": "forbid", "when": ["service", "forbids"]},
        {"id": "yes", "effect": "permit", "when": ["service", "permits"]},
    ]
}


def _gates(run: Callable[[Any, Any, Any], Any]) -> Iterator[Claim]:
    """Each path ends in the first gate that fails by specification, or in None when all hold."""
    r, s = _side("r"), _side("s")
    active, down = Bool(z3.Bool("active")), Bool(z3.Bool("down"))
    s["state"] = State(active)
    gates = {
        "active": active.of,
        "healthy": z3.Not(down.of),
        "capabilities": _inside(r["capabilities"], s["capabilities"]),
        "input": symbolic.subtype(r["input"], s["input"]).of,
        "output": symbolic.subtype(s["output"], r["output"]).of,
        "scopes": _inside(s["scopes"], r["scopes"]),
        "level": z3.Not(r["data_class"]["level"].of > s["data_class"]["level"].of),
        "tags": _inside(r["data_class"]["tags"], s["data_class"]["tags"]),
        "trust": z3.Not(s["trust"].of < r["trust"].of),
        "cost": z3.Not(s["cost_pusd"].of > r["cost_pusd"].of),
        "latency": z3.Not(s["latency_us"].of > r["latency_us"].of),
        "error": z3.Not(s["error_ppb"].of > r["error_ppb"].of),
        "forbid:no": z3.Not(s["forbids"].of),
        "permit": s["permits"].of,
    }
    seen = set()
    for facts, reason in paths(partial(run, r, s, down)):
        seen.add(reason)
        before = list(gates)[: list(gates).index(reason)] if reason else list(gates)
        failing = z3.Not(gates[reason]) if reason in gates else z3.BoolVal(reason is None)
        yield facts, z3.And(*[gates[name] for name in before], failing)
    yield z3.BoolVal(True), z3.BoolVal(seen == {*gates, None})


class _Request:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.attributes = {**document, **document["data_class"]}


class _Health:
    def __init__(self, down: Bool) -> None:
        self.down = Down(down)


@_of(
    "gates",
    "The reason that the engine gives is the first gate that fails, and it gives none exactly when all hold.",
    "routing",
    "routing.first_failure",
    "L04 L06 L10",
)
def _engine_gates(routing: ModuleType) -> Iterator[Claim]:
    return _gates(lambda r, s, down: routing.first_failure(_Request(r), s, _POLICY, _Health(down)))


@_of(
    "checker-gates",
    "The independent checker's reasons are those of the same specification.",
    CHECKER,
    "tools.checker.reason",
    "L04 L06 L16",
)
def _checker_gates(checker: ModuleType) -> Iterator[Claim]:
    return _gates(lambda r, s, down: checker.reason(r, s, _POLICY, {"down": Down(down)}))


# Rules


@_of(
    "rules",
    "A policy permits exactly when some permit rule holds and no forbid rule does; the first forbid rule is named.",
    "policies",
    "policies.failing_rule",
    "L04",
)
def _rules(policies: ModuleType) -> Iterator[Claim]:
    return _permitting(lambda rules, held: policies.failing_rule({"rules": rules}, {}, held))


@_of("checker-rules", "So it does in the independent checker.", CHECKER, "tools.checker.reason", "L04 L16")
def _checker_rules(checker: ModuleType) -> Iterator[Claim]:
    nothing = frozenset[str]()
    side = {
        **dict.fromkeys(("trust", "cost_pusd", "latency_us", "error_ppb"), 0),
        **dict.fromkeys(("capabilities", "scopes"), nothing),
        "input": type_of("t"),
        "output": type_of("t"),
        "data_class": {"level": 0, "tags": nothing},
    }
    service = {**side, "name": "s", "version": 1, "state": "active"}
    same = symbolic.subtype(side["input"], side["input"])

    def run(rules: Any, held: Any) -> Any:
        return checker.reason(side, {**service, **held}, {"rules": rules}, {"down": {}})

    return _permitting(run, same)


def _permitting(run: Callable[[Any, Any], Any], *given: Bool) -> Iterator[Claim]:
    for effects in ((), ("permit",), ("forbid", "permit"), ("permit", "forbid", "permit", "forbid")):
        held = {f"c{i}": Bool(z3.Bool(f"c{i}")) for i in range(len(effects))}
        rules = [{"id": f"r{i}", "effect": effect, "when": ["service", f"c{i}"]} for i, effect in enumerate(effects)]
        forbids = [i for i, effect in enumerate(effects) if effect == "forbid"]
        permitted = z3.Or(*[held[f"c{i}"].of for i, effect in enumerate(effects) if effect == "permit"])
        none = z3.And(*[z3.Not(held[f"c{i}"].of) for i in forbids])
        for facts, reason in paths(partial(run, rules, held), *given):
            if reason is None or reason == "permit":
                yield facts, z3.And(none, permitted if reason is None else z3.Not(permitted))
            else:
                at = next((i for i in forbids if reason == f"forbid:r{i}"), None)
                first = [z3.Not(held[f"c{i}"].of) for i in forbids if at is not None and i < at]
                yield facts, z3.And(z3.BoolVal(at is not None), *first, held[f"c{at}"].of if at is not None else True)


@_of(
    "conditions",
    "Every operator of the rule language means what the calculus of rules says.",
    "policies",
    "policies.evaluate",
    "L04",
)
def _conditions(policies: ModuleType) -> Iterator[Claim]:
    return _operators(lambda node, r, s: policies.evaluate(node, r, s))


@_of(
    "checker-conditions",
    "So it does in the independent checker.",
    CHECKER,
    "tools.checker.value",
    "L04 L16",
)
def _checker_conditions(checker: ModuleType) -> Iterator[Claim]:
    return _operators(lambda node, r, s: checker.value(node, {**r, "data_class": {}}, {**s, "data_class": {}}))


def _operators(run: Callable[[Any, Any, Any], Any]) -> Iterator[Claim]:
    r: dict[str, Any] = {"n": Int("n"), "w": Words("w"), "p": Bool(z3.Bool("p")), "t": Text("t")}
    s: dict[str, Any] = {"n": Int("m"), "w": Words("v"), "p": Bool(z3.Bool("q")), "t": Text("u")}
    n, m, p, q = r["n"].of, s["n"].of, r["p"].of, s["p"].of
    meanings: list[tuple[Any, Any]] = [
        (["le", ["request", "n"], ["service", "n"]], z3.Not(n > m)),
        (["le", ["service", "n"], ["value", 7]], z3.Not(m > 7)),
        (["eq", ["request", "n"], ["service", "n"]], z3.And(n <= m, n >= m)),
        (["eq", ["request", "t"], ["service", "t"]], r["t"].of == s["t"].of),
        (["subset", ["request", "w"], ["service", "w"]], _inside(r["w"], s["w"])),
        (["in", ["request", "t"], ["service", "w"]], _member(r["t"], s["w"])),
        (["not", ["request", "p"]], z3.Not(p)),
        (["and", ["request", "p"], ["service", "p"], ["request", "p"]], z3.And(p, q)),
        (["or", ["request", "p"], ["service", "p"]], z3.Or(p, q)),
        (["not", ["or", ["not", ["request", "p"]], ["le", ["request", "n"], ["service", "n"]]]], z3.And(p, n > m)),
    ]
    for node, meaning in meanings:
        for facts, value in paths(partial(run, node, r, s)):
            yield facts, term(value) == meaning


def _member(word: Text, words: Words) -> Any:
    return z3.Or(*[z3.And(word.of == i, z3.Extract(i, i, words.of) == 1) for i in range(symbolic.WIDTH)])


# The order


def _weights() -> tuple[dict[str, Int], dict[str, Int]]:
    weights = {name: Int(f"w_{name}") for name in ("cost", "latency", "error", "distrust")}
    service = {name: Int(name) for name in ("cost_pusd", "latency_us", "error_ppb", "trust")}
    return weights, service


def _j(weights: Mapping[str, Int], service: Mapping[str, Int]) -> Any:
    missing = 100 - service["trust"].of
    parts = (service["cost_pusd"].of, service["latency_us"].of, service["error_ppb"].of, missing)
    return z3.Sum(*[weight.of * part for weight, part in zip(weights.values(), parts, strict=True)])


@_of(
    "weight", "J is w·(cost, latency, error, 100 - trust), exactly.", "policies", "policies.weight policies.key", "L01"
)
def _weight(policies: ModuleType) -> Iterator[Claim]:
    weights, service = _weights()
    named = {**service, "name": "s", "version": 3}
    for facts, (j, name, version) in paths(lambda: policies.key(named, weights)):
        yield facts, z3.And(j.of == _j(weights, service), z3.BoolVal((name, version) == ("s", 3)))


@_of("checker-weight", "So it is in the independent checker.", CHECKER, "tools.checker.key", "L01 L16")
def _checker_weight(checker: ModuleType) -> Iterator[Claim]:
    weights, service = _weights()
    for facts, (j, name, version) in paths(lambda: checker.key({**service, "name": "s", "version": 3}, weights)):
        yield facts, z3.And(j.of == _j(weights, service), z3.BoolVal((name, version) == ("s", 3)))


class _Snapshot:
    def __init__(self, names: tuple[tuple[str, int], ...]) -> None:
        self.policy: dict[str, Any] = {"profiles": {"p": {}}}
        self.contracts = [{"name": name, "version": version} for name, version in names]


class _Asked:
    document: Final = {"profile": "p"}


@_of(
    "least",
    "The decision is an admissible service of least (J, name, version), and none exactly when none is admissible.",
    "routing",
    "routing.decide_by_definition",
    "L01 L02 L03",
)
def _least(routing: ModuleType) -> Iterator[Claim]:
    names = (("a", 1), ("a", 2), ("b", 1))
    j = {of: Int(f"j_{of[0]}{of[1]}") for of in names}
    able = {of: Bool(z3.Bool(f"able_{of[0]}{of[1]}")) for of in names}

    def at(contract: Mapping[str, Any]) -> tuple[str, int]:
        return contract["name"], contract["version"]

    routing.__dict__["first_failure"] = lambda _r, contract, *_: None if able[at(contract)] else "gate"
    routing.__dict__["key"] = lambda contract, _: (j[at(contract)], *at(contract))
    try:
        found = list(paths(lambda: routing.decide_by_definition(_Asked(), _Snapshot(names[::-1]), None)))
    finally:
        del routing.__dict__["key"]
    for facts, chosen in found:
        if chosen is None:
            yield facts, z3.Not(z3.Or(*[one.of for one in able.values()]))
        else:
            won = tuple(chosen)
            beaten = [
                z3.Implies(
                    able[of].of, z3.Or(j[won].of < j[of].of, z3.And(j[won].of == j[of].of, z3.BoolVal(won <= of)))
                )
                for of in names
            ]
            yield facts, z3.And(able[won].of, *beaten)


# Guarantees


@_of(
    "totals",
    "A step adds its cost and its error (up to 1) to those of its inputs, and its latency to their longest.",
    "plans",
    "plans.compose",
    "L07 L08",
)
def _totals(plans: ModuleType) -> Iterator[Claim]:
    service = {name: Int(name) for name in ("cost_pusd", "latency_us", "error_ppb")}
    for count in range(4):
        inputs = [(Int(f"c{i}"), Int(f"l{i}"), Int(f"e{i}")) for i in range(count)]
        positive = [part >= 0 for one in inputs for part in one]
        for facts, (cost, latency, error) in paths(partial(plans.compose, service, inputs), *positive):
            added = service["error_ppb"].of + z3.Sum(0, *[e.of for _, _, e in inputs])
            wait = term(latency) - service["latency_us"].of
            longest = z3.And(
                *[wait >= one.of for _, one, _ in inputs], z3.Or(*[wait == one.of for _, one, _ in inputs])
            )
            yield (
                facts,
                z3.And(
                    term(cost) == service["cost_pusd"].of + z3.Sum(0, *[c.of for c, _, _ in inputs]),
                    longest if inputs else wait == 0,
                    z3.If(added > PPB, term(error) == PPB, term(error) == added),
                ),
            )


@_of("fronts", "One total covers another when it is at most it in all three.", "plans", "plans._at_most", "L09")
def _fronts(plans: ModuleType) -> Iterator[Claim]:
    a, b = ([Int(f"{side}{i}") for i in range(3)] for side in "ab")
    covered = z3.And(*[z3.Not(x.of > y.of) for x, y in zip(a, b, strict=True)])
    for facts, value in paths(lambda: bool(plans._at_most(tuple(a), tuple(b)))):
        yield facts, covered if value else z3.Not(covered)


# Control


@_of(
    "retiring",
    "The wait covers publishing, staleness and lease, and one ms.",
    "contracts",
    "contracts.retire_after_ms",
    "L14",
)
def _retiring(contracts: ModuleType) -> Iterator[Claim]:
    decided, effective, asked, called, ends = (Int(n) for n in ("decided", "effective", "asked", "called", "ends"))
    stale, lease = Int("stale"), Int("lease")
    draining = {"since_ms": decided, "lease_ms": lease}
    for facts, at in paths(lambda: contracts.retire_after_ms(draining, stale)):
        world = [
            effective.of <= decided.of + contracts.PUBLISH_MS,
            asked.of <= effective.of,
            called.of <= asked.of + stale.of,
            ends.of <= called.of + lease.of,
        ]
        yield z3.And(facts, *world), at.of > ends.of
        yield facts, at.of <= decided.of + contracts.PUBLISH_MS + stale.of + lease.of + 1


@_of(
    "hysteresis",
    "An incumbent is left only for a challenger that is better by the margin.",
    "control",
    "control.switches",
    "L11",
)
def _hysteresis(control: ModuleType) -> Iterator[Claim]:
    challenger, incumbent, margin = Int("challenger"), Int("incumbent"), Int("margin")
    better = z3.Not(incumbent.of - challenger.of < margin.of)
    for facts, value in paths(lambda: bool(control.switches(challenger, incumbent, margin)), margin > 0):
        yield facts, better if value else z3.Not(better)


@_of("window", "A window stays within its bounds.", "control", "control.Window", "L11")
def _window(control: ModuleType) -> Iterator[Claim]:
    least, most, step, kept, size = (Int(n) for n in ("least", "most", "step", "kept", "size"))
    fine = [least >= 0, least <= size, size <= most, step >= 0]
    made = control.Window(least, most, step, kept, size)
    for facts, after in paths(made.grown, *fine):
        yield facts, z3.And(term(after.size) >= least.of, term(after.size) <= most.of)
        yield facts, z3.Or(term(after.size) == size.of + step.of, term(after.size) == most.of)
    for part in (0, 32_768, 65_536):
        made = control.Window(least, most, step, part, size)
        for facts, after in paths(made.shrunk, *fine):
            yield facts, z3.And(term(after.size) >= least.of, term(after.size) <= most.of, term(after.size) <= size.of)


@_of("retries", "Retries never exceed per_mille of the requests and the burst.", "control", "control.Retries", "L11")
def _retries(control: ModuleType) -> Iterator[Claim]:
    earned, done, tokens, burst, rate = (Int(n) for n in ("earned", "done", "tokens", "burst", "rate"))
    fine = [earned >= 0, done >= 0, burst >= 0, rate >= 0, tokens >= 0]

    def kept(left: Any, earned: Any, done: Any) -> Any:
        return z3.And(term(left) >= 0, term(left) <= 1000 * burst.of + earned - 1000 * done)

    before = control.Retries(rate, burst, tokens)
    known = Bool(kept(tokens, earned.of, done.of))
    for facts, after in paths(before.requested, *fine, known):
        yield facts, kept(after.milli_tokens, earned.of + rate.of, done.of)
    for facts, after in paths(before.retry, *fine, known):
        if after is not None:
            yield facts, kept(after.milli_tokens, earned.of, done.of + 1)
            yield facts, 1000 * (done.of + 1) <= 1000 * burst.of + earned.of
        else:
            yield facts, tokens.of < 1000


@_of(
    "budget",
    "Spent and held together never exceed the limit, whatever a call says that it cost.",
    "control",
    "control.Budget",
    "L12",
)
def _budget(control: ModuleType) -> Iterator[Claim]:
    limit, spent, a, b, more, cost, until, now = (
        Int(n) for n in ("limit", "spent", "a", "b", "more", "cost", "until", "now")
    )
    fine = [spent >= 0, a >= 0, b >= 0, spent + a + b <= limit]
    budget = control.Budget(limit, spent, {"a": control.Hold(a, until), "b": control.Hold(b, until + 1)})
    steps: list[Callable[[], Any]] = [
        lambda: budget.reserve("c", more, until),
        lambda: budget.reserve("a", more, until),
        lambda: budget.commit("a", cost),
        lambda: budget.commit("unknown", cost),
        lambda: budget.release("b"),
        lambda: budget.expire(now),
    ]
    for step in steps:
        for facts, after in paths(step, *fine):
            if after is None:
                yield facts, z3.Or(more.of < 0, spent.of + a.of + b.of + more.of > limit.of)
                continue
            amounts = [term(hold.amount) for hold in after.holds.values()]
            yield facts, z3.And(*[one >= 0 for one in amounts], term(after.spent) >= spent.of)
            yield facts, term(after.spent) + z3.Sum(0, *amounts) <= limit.of
    for facts, after in paths(lambda: budget.expire(now), *fine):
        yield facts, z3.BoolVal("a" in after.holds) == z3.Not(until.of <= now.of)


@_of(
    "breaker",
    "A breaker opens only after enough failures in a row or a failed probe, and lets one probe out.",
    "control",
    "control.Breaker",
    "L13",
)
def _breaker(control: ModuleType) -> Iterator[Claim]:
    threshold, cooldown, failures, since, now = (Int(n) for n in ("threshold", "cooldown", "failures", "since", "now"))
    fine = [threshold >= 1, cooldown > 0, failures >= 0, now >= since]
    for state in ("closed", "open", "half-open"):
        sane = [*fine, failures < threshold] if state == "closed" else fine
        breaker = control.Breaker(threshold, cooldown, state, failures, since)
        for facts, after in paths(breaker.succeeded, *sane):
            yield facts, z3.And(z3.BoolVal(after.state == "closed"), term(after.failures) == 0)
        for facts, after in paths(partial(breaker.failed, now), *sane):
            enough = z3.Or(z3.BoolVal(state == "half-open"), failures.of + 1 >= threshold.of)
            yield facts, z3.BoolVal(after.state in ("open", state))
            if state != "open":  # a call that was let out before it opened may still fail
                yield facts, enough if after.state == "open" else z3.Not(enough)
                yield facts, z3.Implies(z3.BoolVal(after.state == "open"), term(after.since_ms) == now.of)
        for facts, (may, after) in paths(partial(breaker.admit, now), *sane):
            waited = now.of - since.of >= cooldown.of
            yield facts, z3.BoolVal(bool(may)) == (z3.BoolVal(True) if state == "closed" else waited)
            if state != "closed" and may:  # the next one has to wait again
                yield facts, z3.And(z3.BoolVal(after.state == "half-open"), term(after.since_ms) == now.of)


@_of(
    "monitor",
    "While the promise holds, the capital that bets against it does not grow on average, but for the stakes.",
    "control",
    "control.Monitor",
    "L15",
)
def _monitor(control: ModuleType) -> Iterator[Claim]:
    unit = control.UNIT
    for error in (0, 1_000_000, 500_000_000, PPB):
        against, favour = Int("against"), Int("favour")
        before = control.Monitor(error, 10_000_000, 0, against, favour)
        promised = before._bounds[0]
        fine = [against >= 0, favour >= 0, against < 100 * unit, favour < 100 * unit]
        broken = list(paths(partial(before.called, False), *fine))
        for facts, good in paths(partial(before.called, True), *fine):
            yield facts, term(good.against) <= against.of  # so an honester service gains even less
            for others, bad in broken:
                for capital, name in ((against, "against"), (favour, "favour")):
                    after = [term(getattr(one, name)) for one in (bad, good)]
                    yield z3.And(facts, others), promised * after[0] + (PPB - promised) * after[1] <= PPB * capital.of
    # stakes: at most 1/2 * 1/(k (k + 1)) of the unit after block k, which add up to less than 1/2
    for block in range(1, 500):
        stake = control.Monitor(PPB // 2, 10_000_000, 64 * block - 1, 0, 0).called(True).against
        yield z3.BoolVal(True), z3.BoolVal(2 * block * (block + 1) * stake <= unit)


def proved(modules: Mapping[str, ModuleType] | None = None, within: str = "") -> dict[str, bool]:
    """Every obligation with whether it holds: of the project's own modules; or, of the modules given by path, those
    that are about the function or class `within` (all, when none is)."""
    if modules is None:
        return {name: holds(one) for name, one in OBLIGATIONS.items()}
    every = {name: one for name, one in OBLIGATIONS.items() if one.module in modules}
    about = {name: one for name, one in every.items() if any(code.endswith(f".{within}") for code in one.code)}
    return {name: holds(one, modules[one.module]) for name, one in (about or every).items()}
