"""Routing: d(r, S, P, H), the one service that a request, a snapshot, its policy and a health document name.

A service is admissible when it passes every gate; among admissible ones the least κ = (J, name, version) wins. With ⊤
for "none", (keys ∪ {⊤}, min) is a commutative idempotent monoid: the answer does not depend on order, repetition or
partition, and services that are inadmissible or not least do not influence it.

`first_failure` and `decide_by_definition` say what a decision is. `Engine` says the same fast: per capability and
profile it keeps services in winning order and, for everything a request can ask, the set of services that pass as an
integer with one bit each; a decision is an intersection and its lowest bit. What requests of one shape (all but their
limits) have in common is intersected once and remembered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

from tocsin.decisions import documents, policies
from tocsin.decisions.contracts import MAX_TRUST, PPB, Contract, service_id
from tocsin.decisions.documents import LEVELS, MAX_INT, Schema
from tocsin.decisions.policies import Condition, Policy, attributes, evaluate, failing_rule, key
from tocsin.decisions.snapshots import Snapshot
from tocsin.decisions.types import normalise, subtype
from tocsin.kernel.canonical import canonical_json, digest
from tocsin.kernel.errors import Detail, Refusal

#: What a request says. All are required but the ones in DEFAULTS.
SENT: Final[Mapping[str, Schema]] = {
    "principal": documents.text("[!-~]{1,128}", "Who asks: a key or a part of the system."),
    "capabilities": documents.words(1, 8, "What the service must do; all of them."),
    "input": {"description": "JSON Schema (declared subset) of what will be sent to it."},
    "output": {"description": "JSON Schema (declared subset) of what may come back."},
    "scopes": documents.words(0, 64, "What the caller holds."),
    "data_class": documents.data_class("What will be sent."),
    "trust": documents.integer(0, MAX_TRUST, "Least trust."),
    "cost_pusd": documents.integer(0, MAX_INT, "Most a call may cost, in 1e-12 USD."),
    "latency_us": documents.integer(0, MAX_INT, "Longest a call may take, in µs."),
    "error_ppb": documents.integer(0, PPB, "Largest share of calls that may fail or take longer, in 1e-9."),
    "profile": documents.text("[a-z0-9][a-z0-9_-]{0,63}", "How to weigh cost, latency, error and missing trust."),
}
DEFAULTS: Final[Mapping[str, Any]] = {
    "output": True,
    "trust": 0,
    "cost_pusd": MAX_INT,
    "latency_us": MAX_INT,
    "error_ppb": PPB,
    "profile": "balanced",
}
_REQUEST: Final = documents.closed(SENT, frozenset(SENT) - DEFAULTS.keys())
_HEALTH: Final = documents.closed(
    {
        "epoch": documents.integer(0, MAX_INT, "Counts the changes."),
        "down": {"description": "Why, by name@version."},
        "attested": {"description": "Services, as name@version, whose promises were watched and held."},
    },
    frozenset({"epoch", "down", "attested"}),
)
#: Why a service is down, by name@version.
_ID: Final = documents.text("[a-z0-9][a-z0-9._-]{0,63}@[1-9][0-9]{0,9}", "")
_WHY: Final = documents.text("[a-z][a-z_]{0,31}", "")

#: Gates in the order in which they are tried, before the rules of the policy.
GATES: Final = (
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
#: Gates for which an index learns who passes, one asked value after another.
_LEARNT: Final = ("capabilities", "input", "output", "scopes", "tags")
#: Attributes of a request that are the same for all requests of a shape.
_OF_SHAPE: Final = frozenset({"principal", "profile", "capabilities", "scopes", "tags", "level"})
WINNER: Final = "winner"
DOMINATED: Final = "dominated"
#: Values of a gate that an index remembers, and shapes that an engine does; each costs a bit per service offering.
_CACHED: Final = 256
_SHAPES: Final = 16_384
#: Services whose limits are compared one by one before all are intersected.
_TRIED: Final = 24


@dataclass(frozen=True)
class Request:
    """A request in its one form. `document` is what is hashed and what checkers read."""

    document: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        return digest(self.document).hex()

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        return attributes(self.document)

    @cached_property
    def parts(self) -> Sequence[tuple[str, Any]]:
        """What the engine looks up of the request: gates by name with what is asked, as something to look up by."""
        asked = self.attributes
        return [
            (name, canonical_json(asked[name]) if name in ("input", "output") else tuple(asked[name]))
            for name in _LEARNT
        ]

    @cached_property
    def level(self) -> int:
        return LEVELS.index(self.attributes["level"])

    @cached_property
    def way(self) -> tuple[str, str]:
        """Capability and profile: the ranking in which the winner is looked for."""
        return self.document["capabilities"][0], self.document["profile"]

    @cached_property
    def shape(self) -> bytes:
        """All of it but the limits, as something to look up by."""
        asked = self.attributes
        return canonical_json([asked[name] for name in (*_LEARNT, "level", "profile", "principal")])

    @cached_property
    def limits(self) -> tuple[int, int, int, int]:
        asked = self.document
        return asked["trust"], asked["cost_pusd"], asked["latency_us"], asked["error_ppb"]


@dataclass(frozen=True)
class Health:
    """Which services are down and why, and whose promises are attested, as of an epoch. Part of what is decided by,
    so it is hashed too."""

    epoch: int = 0
    down: Mapping[str, str] = field(default_factory=dict)
    attested: frozenset[str] = frozenset()

    @cached_property
    def document(self) -> Mapping[str, Any]:
        return {"epoch": self.epoch, "down": dict(self.down), "attested": sorted(self.attested)}

    @cached_property
    def digest(self) -> str:
        return digest(self.document).hex()


class Service(NamedTuple):
    """Names a contract."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one service: `reason` is "winner", "dominated", or the first gate or rule that kept it out."""

    service: Service
    reason: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was decided, by what: enough to derive a certificate later. Digests are SHA-256 in hex."""

    request: str
    snapshot: str
    health: str
    decision: Service | None

    def document(self) -> dict[str, Any]:
        chosen = self.decision and {"name": self.decision.name, "version": self.decision.version}
        return {"v": 1, "request": self.request, "snapshot": self.snapshot, "health": self.health, "decision": chosen}


def json_schema() -> dict[str, Any]:
    """JSON Schema of a request."""
    return dict(_REQUEST)


def request_of(sent: Any) -> Request:
    """The request that a caller sent, in its one form. Raises Refusal ERR_SCHEMA."""
    documents.check(sent, _REQUEST, "request")
    made = {**DEFAULTS, **sent}
    for name in ("capabilities", "scopes"):
        made[name] = sorted(made[name])
    for name in ("input", "output"):
        made[name] = normalise(made[name], name)
    made["data_class"] = documents.as_label(made["data_class"])
    return Request(made)


def health_of(sent: Any) -> Health:
    """A health document. Raises Refusal ERR_SCHEMA."""
    documents.check(sent, _HEALTH, "health")
    down = sent["down"]
    if not isinstance(down, dict):
        raise Refusal("ERR_SCHEMA", "The health breaks its schema.", [Detail("down", "type", "send an object")])
    for name, why in down.items():
        documents.check(name, _ID, "health", "down")
        documents.check(why, _WHY, "health", f"down.{name}")
    attested = sent["attested"]
    if not isinstance(attested, list):
        raise Refusal("ERR_SCHEMA", "The health breaks its schema.", [Detail("attested", "type", "send an array")])
    for i, name in enumerate(attested):
        documents.check(name, _ID, "health", f"attested[{i}]")
    return Health(sent["epoch"], dict(down), frozenset(attested))


def first_failure(request: Request, contract: Contract, policy: Policy, health: Health) -> str | None:
    """The first gate, in order, that keeps the service out, or the rule; None when it is admissible."""
    r, s = request.attributes, attributes(contract)
    passed = (
        s["state"] == "active",
        service_id(contract) not in health.down,
        set(r["capabilities"]) <= set(s["capabilities"]),
        subtype(r["input"], s["input"]),
        subtype(s["output"], r["output"]),
        set(s["scopes"]) <= set(r["scopes"]),
        LEVELS.index(r["level"]) <= LEVELS.index(s["level"]),
        set(r["tags"]) <= set(s["tags"]),
        s["trust"] >= r["trust"],
        s["cost_pusd"] <= r["cost_pusd"],
        s["latency_us"] <= r["latency_us"],
        s["error_ppb"] <= r["error_ppb"],
    )
    if not all(passed):
        return GATES[passed.index(False)]
    return failing_rule(policy, r, s)


def decide_by_definition(request: Request, snapshot: Snapshot, health: Health) -> Service | None:
    """d(r, S, P, H) as it is defined, one service after another."""
    weights = weights_of(request, snapshot.policy)
    keys = [
        key(contract, weights)
        for contract in snapshot.contracts
        if first_failure(request, contract, snapshot.policy, health) is None
    ]
    return Service(*min(keys)[1:]) if keys else None


def weights_of(request: Request, policy: Policy) -> Mapping[str, int]:
    """Weights of the request's profile. Refuses 400 ERR_SCHEMA one that the policy does not have."""
    weights: Mapping[str, int] | None = policy["profiles"].get(request.document["profile"])
    if weights is None:
        fix = f"send one of {', '.join(sorted(policy['profiles']))}"
        raise Refusal("ERR_SCHEMA", "The profile is unknown.", [Detail("profile", "enum", fix)])
    return weights


def verdicts(request: Request, snapshot: Snapshot, health: Health, winner: Service | None) -> Iterator[Verdict]:
    """What became of every service of the snapshot, in its order."""
    for contract in snapshot.contracts:
        service = Service(contract["name"], contract["version"])
        failure = first_failure(request, contract, snapshot.policy, health)
        yield Verdict(service, failure or (WINNER if service == winner else DOMINATED))


def _bits(positions: Iterable[int], size: int) -> int:
    """Integer with these bits set."""
    made = bytearray(size // 8 + 1)
    for position in positions:
        made[position >> 3] |= 1 << (position & 7)
    return int.from_bytes(made, "little")


def _where(values: Sequence[Any], test: Callable[[Any], Any]) -> int:
    return _bits((i for i, value in enumerate(values) if test(value)), len(values))


def _by_member(sets: Sequence[Iterable[Any]]) -> dict[Any, int]:
    """Member → the sets that have it, as bits."""
    at: dict[Any, list[int]] = {}
    for i, members in enumerate(sets):
        for member in members:
            at.setdefault(member, []).append(i)
    return {member: _bits(positions, len(sets)) for member, positions in at.items()}


class _AtMost:
    """Which values are at most a limit, as bits, in time that hardly depends on how many there are: the sets for 64
    limits are kept, what lies between two of them is added one by one."""

    def __init__(self, values: Sequence[int]) -> None:
        ordered = sorted((value, i) for i, value in enumerate(values))
        self._values = [value for value, _ in ordered]
        self._positions = [i for _, i in ordered]
        self._step = max(1, len(ordered) // 64)
        self._kept = [0]
        for start in range(0, len(ordered), self._step):
            more = _bits(self._positions[start : start + self._step], len(values))
            self._kept.append(self._kept[-1] | more)

    def bits(self, limit: int) -> int:
        count = bisect_right(self._values, limit)
        whole, rest = divmod(count, self._step)
        made = self._kept[whole]
        for position in self._positions[count - rest : count]:
            made |= 1 << position
        return made


class _Rule(NamedTuple):
    """A rule as a conjunction: what the shape of the request decides, what the rest of it does, which services can
    meet what only services decide, and what has to be asked of both."""

    effect: str
    of_shape: tuple[Condition, ...]
    of_request: tuple[Condition, ...]
    services: int
    of_both: tuple[Condition, ...]


class _Known(NamedTuple):
    """What is known of a shape: services (bits of an index) that pass all gates that it decides, those of them that are
    permitted whatever else is asked, and the rules that are left to ask."""

    of: _Index
    able: int
    permitted: int
    rules: tuple[_Rule, ...]


def _conjuncts(condition: Condition) -> Iterator[Condition]:
    if condition[0] == "and":
        for part in condition[1:]:
            yield from _conjuncts(part)
    else:
        yield condition


class _Index:
    """The services that offer a capability, in winning order under a profile; bit i is the i-th of them."""

    def __init__(self, snapshot: Snapshot, capability: str, profile: str) -> None:
        self.ranking = snapshot.ranking(capability, profile)
        self.contracts = contracts = [snapshot.contracts[i] for i in self.ranking]
        size = len(contracts)
        self.services = [Service(contract["name"], contract["version"]) for contract in contracts]
        self._promises = [(of["trust"], of["cost_pusd"], of["latency_us"], of["error_ppb"]) for of in contracts]
        self.attributes = [attributes(contract) for contract in contracts]
        self._all = (1 << size) - 1
        self._active = _where(contracts, lambda c: c["state"] == "active")
        self._at = {service_id(contract): i for i, contract in enumerate(contracts)}
        self._with = {name: _by_member([of[name] for of in self.attributes]) for name in ("capabilities", "tags")}
        self._needing = _by_member([of["scopes"] for of in self.attributes])
        self._cleared = [
            _bits((i for i, of in enumerate(self.attributes) if LEVELS.index(of["level"]) >= rank), size)
            for rank in range(len(LEVELS))
        ]
        self._types = {
            name: [(contracts[at[0]][name], _bits(at, size)) for at in _groups(contracts, name)]
            for name in ("input", "output")
        }
        self._least_trust = _AtMost([-contract["trust"] for contract in contracts])
        self._limits = [
            _AtMost([contract[name] for contract in contracts]) for name in ("cost_pusd", "latency_us", "error_ppb")
        ]
        self._rules = [self._rule(rule) for rule in snapshot.policy["rules"]]
        self._passing: dict[str, dict[Any, int]] = {kind: {} for kind in _LEARNT}
        self._health: tuple[Health | None, int] = (None, self._all)

    def _rule(self, rule: Mapping[str, Any]) -> _Rule:
        parts: dict[frozenset[str], list[Condition]] = {}
        for part in _conjuncts(rule["when"]):
            parts.setdefault(policies.reads(part), []).append(part)
        alone = [*parts.get(frozenset({"service"}), ()), *parts.get(frozenset(), ())]
        services = _where(self.attributes, lambda of: all(evaluate(part, {}, of) for part in alone))
        both = parts.get(frozenset({"request", "service"}), ())
        asked = parts.get(frozenset({"request"}), ())
        shared = tuple(part for part in asked if _decided_by_shape(part))
        return _Rule(rule["effect"], shared, tuple(one for one in asked if one not in shared), services, tuple(both))

    def _having(self, kind: str, words: tuple[str, ...]) -> int:
        made = self._all
        for word in words:
            made &= self._with[kind].get(word, 0)
        return made

    def _content(self, held: tuple[str, ...]) -> int:
        """Services whose scopes are all held."""
        made = self._all
        for scope, needing in self._needing.items():
            if scope not in held:
                made &= ~needing
        return made

    def first(self, known: _Known, request: Request, health: Health) -> int | None:
        """Position of the winner, or None."""
        able = known.able
        if health.down:
            able &= self._up(health)
        if known.rules:
            return self._permitted(able & self._within(request), known, request.attributes)
        trust, cost, latency, error = request.limits
        for _ in range(_TRIED):
            if not able:
                return None
            lowest = able & -able
            at = lowest.bit_length() - 1
            promised = self._promises[at]
            if promised[0] >= trust and promised[1] <= cost and promised[2] <= latency and promised[3] <= error:
                return at
            able ^= lowest
        able &= self._within(request)
        return (able & -able).bit_length() - 1 if able else None

    def know(self, request: Request) -> _Known:
        """What the shape of a request decides."""
        asked, able = request.attributes, self._active & self._cleared[request.level]
        for kind, value in request.parts:
            passing = self._passing[kind].get(value)
            able &= self._learn(kind, value, asked) if passing is None else passing
        permitted, left = 0, []
        for rule in self._rules:
            if not rule.services & able or not all(evaluate(part, asked, {}) for part in rule.of_shape):
                continue
            if rule.of_request or rule.of_both:
                left.append(rule)
            elif rule.effect == "forbid":
                able &= ~rule.services
            else:
                permitted |= rule.services
        return _Known(self, able if left else able & permitted, permitted, tuple(left))

    def _within(self, request: Request) -> int:
        """Services whose promises are within the request's limits."""
        trust, *most = request.limits
        able = self._least_trust.bits(-trust)
        for limits, limit in zip(self._limits, most, strict=True):
            able &= limits.bits(limit)
        return able

    def _learn(self, kind: str, value: Any, asked: Mapping[str, Any]) -> int:
        """Which services pass a gate for what is asked of it."""
        if kind in ("input", "output"):
            passing = self._typed(kind, asked[kind])
        else:
            passing = self._content(value) if kind == "scopes" else self._having(kind, value)
        known = self._passing[kind]
        if len(known) >= _CACHED:
            known.clear()
        known[value] = passing
        return passing

    def _up(self, health: Health) -> int:
        """Services that are not down, remembered for one health document."""
        known, up = self._health
        if known is not health:
            down = [at for name in health.down if (at := self._at.get(name)) is not None]
            up = self._all & ~_bits(down, len(self.contracts))
            self._health = (health, up)
        return up

    def _typed(self, kind: str, wanted: Any) -> int:
        made = 0
        for offered, services in self._types[kind]:
            if subtype(wanted, offered) if kind == "input" else subtype(offered, wanted):
                made |= services
        return made

    def _permitted(self, able: int, known: _Known, asked: Mapping[str, Any]) -> int | None:
        """Lowest of the able that no forbid rule meets and some permit rule does."""
        permitted, open_rules = known.permitted, []
        for rule in known.rules:
            if not rule.services & able or not all(evaluate(part, asked, {}) for part in rule.of_request):
                continue
            if rule.of_both:
                open_rules.append(rule)
            elif rule.effect == "forbid":
                able &= ~rule.services
            else:
                permitted |= rule.services
        if not open_rules:
            able &= permitted
            return (able & -able).bit_length() - 1 if able else None
        while able:
            lowest = able & -able
            if self._allowed(lowest, asked, bool(permitted & lowest), open_rules):
                return lowest.bit_length() - 1
            able ^= lowest
        return None

    def _allowed(self, bit: int, asked: Mapping[str, Any], permitted: bool, rules: Sequence[_Rule]) -> bool:
        service = self.attributes[bit.bit_length() - 1]
        for rule in rules:
            if rule.services & bit and all(evaluate(part, asked, service) for part in rule.of_both):
                if rule.effect == "forbid":
                    return False
                permitted = True
        return permitted


def _decided_by_shape(condition: Condition) -> bool:
    """Whether a condition on the request has one value for all requests of a shape."""
    return all(node[1] in _OF_SHAPE for node in policies.nodes(condition) if node[0] == "request")


def _groups(contracts: Sequence[Contract], name: str) -> Iterable[list[int]]:
    """Positions of contracts with equal types."""
    at: dict[bytes, list[int]] = {}
    for i, contract in enumerate(contracts):
        at.setdefault(canonical_json(contract[name]), []).append(i)
    return at.values()


class Engine:
    """Decisions by one snapshot. Holds no state but what it remembers of it; safe to share between threads."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._indexes: dict[tuple[str, str], _Index] = {}
        self._shapes: dict[bytes, _Known] = {}

    def _index(self, request: Request) -> _Index:
        index = self._indexes.get(request.way)
        if index is None:
            weights_of(request, self.snapshot.policy)
            index = _Index(self.snapshot, *request.way)
            if index.contracts:  # what nobody offers is not worth remembering, and there is no end of it
                self._indexes[request.way] = index
        return index

    def _known(self, request: Request) -> _Known:
        known = self._shapes.get(request.shape)
        if known is None:
            known = self._index(request).know(request)
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            if known.of.contracts:
                self._shapes[request.shape] = known
        return known

    def ranking(self, request: Request) -> Sequence[int]:
        """Positions, in the snapshot, of the services among which the winner is looked for, in winning order."""
        return self._index(request).ranking

    def winner(self, request: Request, health: Health) -> Contract | None:
        """The contract of d(r, S, P, H). Refuses ERR_SCHEMA a profile that the policy does not have."""
        known = self._known(request)
        at = known.of.first(known, request, health)
        return None if at is None else known.of.contracts[at]

    def decide(self, request: Request, health: Health) -> Receipt:
        """The decision with what it was made of."""
        known = self._known(request)
        at = known.of.first(known, request, health)
        service = None if at is None else known.of.services[at]
        return Receipt(request.digest, self.snapshot.name, health.digest, service)

    def explain(self, request: Request, health: Health) -> list[Verdict]:
        """The decision with what became of every service, in the order of the snapshot."""
        return list(verdicts(request, self.snapshot, health, self.decide(request, health).decision))
