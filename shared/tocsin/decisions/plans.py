"""Plans: several services, each fed with what the caller has or others gave, under limits on the whole.

A service takes its input whole, or, when it takes an object, assembled from one value for each required property. So
services are hyperedges between types, and a plan is a hyperpath from what one has to what one wants. Costs add up,
latencies add up along a path and the longest counts where inputs are made side by side, errors add up (the union
bound: true whatever depends on what). A value that is used twice is made, and counted, twice.

The search keeps, for every type, the front of what making it can total: triples (cost, latency, error) none of which
is at most another in all three. The fronts are the dual certificate: they are closed under every admissible service,
so that nothing that stays within the limits totals less than something in them, and the plan weighs no more than
anything in the fronts of what is wanted. tools/plan_checker.py checks just that, without searching.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Final

from tocsin.decisions import documents
from tocsin.decisions.contracts import MAX_TRUST, PPB, Contract, service_id
from tocsin.decisions.documents import LEVELS
from tocsin.decisions.routing import DEFAULTS, SENT, Health, Request, first_failure, weights_of
from tocsin.decisions.snapshots import Snapshot
from tocsin.decisions.types import Type, normalise, subtype
from tocsin.kernel.canonical import canonical_json, digest
from tocsin.kernel.errors import Detail, Refusal

#: (cost in pico-USD, latency in µs, error in ppb) of making a value.
Total = tuple[int, int, int]

_LIMITS: Final = ("cost_pusd", "latency_us", "error_ppb")
_GOAL: Final = documents.closed(
    {
        **{name: field for name, field in SENT.items() if name not in ("input", "output", "capabilities")},
        "capabilities": documents.words(1, 32, "What steps may do; a service takes part that does one of them."),
        "have": {"description": "JSON Schemas (declared subset) of what there is, by name."},
        "want": {"description": "JSON Schema (declared subset) of what is to be made."},
    },
    frozenset({"principal", "scopes", "data_class", "capabilities", "have", "want"}),
)
_NAME: Final = documents.text("[a-z][a-z0-9_]{0,63}", "")
MAX_HAVE: Final = 16
#: Work that a search may do before it is refused: totals tried.
MAX_TRIED: Final = 200_000


@dataclass(frozen=True)
class Goal:
    """What is wanted of what there is, in its one form."""

    document: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        return digest(self.document).hex()

    def step_request(self, contract: Contract) -> Request:
        """What is asked of a service as one step: all gates of routing, with its own input and any output."""
        shared = {name: value for name, value in self.document.items() if name not in ("have", "want")}
        offered = sorted({*self.document["capabilities"]} & {*contract["capabilities"]})
        # A service that does nothing of what steps may do fails the gate of capabilities.
        asked = offered or self.document["capabilities"]
        return Request({**shared, "capabilities": asked, "input": contract["input"], "output": True})


@dataclass(frozen=True, slots=True)
class Made:
    """A way to make a value: by a service from others, or None for what one has, and what it totals."""

    total: Total
    type: Type
    have: str | None = None
    service: Contract | None = None
    inputs: tuple[tuple[str, Made], ...] = ()


def json_schema() -> dict[str, Any]:
    """JSON Schema of a goal."""
    return dict(_GOAL)


def goal_of(sent: Any) -> Goal:
    """The goal that a caller sent, in its one form. Raises Refusal ERR_SCHEMA."""
    documents.check(sent, _GOAL, "goal")
    made = {**{name: value for name, value in DEFAULTS.items() if name != "output"}, **sent}
    have = made["have"]
    if not isinstance(have, dict) or len(have) > MAX_HAVE:
        detail = Detail("have", "items", f"send at most {MAX_HAVE} schemas by name")
        raise Refusal("ERR_SCHEMA", "The goal breaks its schema.", [detail])
    for name in have:
        documents.check(name, _NAME, "goal", "have")
    made["have"] = {name: normalise(have[name], f"have.{name}") for name in sorted(have)}
    made["want"] = normalise(made["want"], "want")
    made["capabilities"], made["scopes"] = sorted(made["capabilities"]), sorted(made["scopes"])
    made["data_class"] = documents.as_label(made["data_class"])
    return Goal(made)


def ways(contract: Contract) -> Iterator[tuple[tuple[str, Type], ...]]:
    """How a service can be fed: its input whole, under the name "", or one value for each required property."""
    taken = contract["input"]
    yield (("", taken),)
    if isinstance(taken, dict) and taken.get("type") == "object" and "" not in taken.get("required", [""]):
        named, rest = taken.get("properties", {}), taken.get("additionalProperties", True)
        yield tuple((name, named.get(name, rest)) for name in taken["required"])


def compose(contract: Mapping[str, Any], inputs: Sequence[Total]) -> Total:
    """What a service totals when it is fed with these."""
    return (
        contract["cost_pusd"] + sum(cost for cost, _, _ in inputs),
        contract["latency_us"] + max((latency for _, latency, _ in inputs), default=0),
        min(PPB, contract["error_ppb"] + sum(error for _, _, error in inputs)),
    )


def weigh(total: Total, weights: Mapping[str, int]) -> int:
    """J of a whole plan. Trust is a gate of each step, not a weight of the whole."""
    return weights["cost"] * total[0] + weights["latency"] * total[1] + weights["error"] * total[2]


def _at_most(a: Total, b: Total) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a[2] <= b[2]


class _Search:
    """Fronts by type, grown until no admissible service adds to them."""

    def __init__(self, goal: Goal, snapshot: Snapshot, health: Health) -> None:
        self._limits: Total = tuple(goal.document[name] for name in _LIMITS)
        self._services = [
            contract
            for contract in snapshot.contracts
            if first_failure(goal.step_request(contract), contract, snapshot.policy, health) is None
        ]
        self.fronts: dict[bytes, list[Made]] = {}
        self._types: dict[bytes, Type] = {}
        self._fits: dict[tuple[bytes, bytes], bool] = {}
        self._tried = 0
        for name, type_ in goal.document["have"].items():
            self._add(Made((0, 0, 0), type_, have=name))
        grown = True
        while grown:
            grown = False
            for contract in self._services:
                grown |= self._grow(contract)

    def _add(self, made: Made) -> bool:
        key = canonical_json(made.type)
        self._types[key] = made.type
        front = self.fronts.setdefault(key, [])
        if any(_at_most(other.total, made.total) for other in front):
            return False
        front[:] = [other for other in front if not _at_most(made.total, other.total)] + [made]
        return True

    def supplies(self, slot: Type) -> list[Made]:
        """Every way in the fronts to make a value of the slot's type, in a fixed order."""
        key = canonical_json(slot)
        found = []
        for kind in sorted(self.fronts):
            fits = self._fits.get((kind, key))
            if fits is None:
                fits = self._fits[kind, key] = subtype(self._types[kind], slot)
            if fits:
                found += self.fronts[kind]
        return found

    def _grow(self, contract: Contract) -> bool:
        grown = False
        for slots in ways(contract):
            for inputs in product(*[self.supplies(slot) for _, slot in slots]):
                self._tried += 1
                if self._tried > MAX_TRIED:
                    detail = Detail("(body)", "plan-size", "tighten the limits, or name fewer capabilities")
                    raise Refusal("ERR_SCHEMA", "There are too many ways to combine services.", [detail])
                total = compose(contract, [made.total for made in inputs])
                if _at_most(total, self._limits):
                    names = [name for name, _ in slots]
                    fed = tuple(zip(names, inputs, strict=True))
                    grown |= self._add(Made(total, contract["output"], None, contract, fed))
        return grown


def _steps(made: Made) -> list[dict[str, Any]]:
    """The plan as steps, each after those that feed it. A source is {"have": name} or {"step": number from 0}."""
    steps: list[dict[str, Any]] = []

    def walk(node: Made) -> dict[str, Any]:
        if node.service is None:
            return {"have": node.have}
        inputs = {name: walk(source) for name, source in node.inputs}
        steps.append({"name": node.service["name"], "version": node.service["version"], "inputs": inputs})
        return {"step": len(steps) - 1}

    walk(made)
    return steps


def guarantees(services: Sequence[Contract], total: Total, goal: Mapping[str, Any], health: Health) -> dict[str, Any]:
    """What holds of a plan or of a single call, each with its word.

    proved: of the decision, from its inputs. attested: claims that the service level monitor has watched and not
    found wanting, for every service of the plan. declared: claims of contracts. None of it says that a call succeeds.
    """
    watched = all(service_id(service) in health.attested for service in services)
    word = "attested" if watched else "declared"
    labels = [service["data_class"] for service in services]
    return {
        "admissible": {"value": True, "word": "proved"},
        "cost_pusd": {"value": total[0], "word": "declared"},
        "latency_us": {"value": total[1], "word": word},
        "error_ppb": {"value": total[2], "word": word},
        "data_class": {"value": goal["data_class"], "word": "proved"},
        "cleared_level": {
            "value": min((label["level"] for label in labels), key=LEVELS.index, default=LEVELS[-1]),
            "word": "declared",
        },
        "trust": {"value": min((service["trust"] for service in services), default=MAX_TRUST), "word": "declared"},
        "deterministic": {"value": all(service["deterministic"] for service in services), "word": "declared"},
    }


def _services(made: Made) -> Iterator[Contract]:
    if made.service is not None:
        for _, source in made.inputs:
            yield from _services(source)
        yield made.service


@dataclass(frozen=True, slots=True)
class Planned:
    """The outcome of planning: steps (None: no plan stays within the limits), totals and guarantees, and the
    certificate. No steps at all: something one has is what one wants.
    """

    steps: Sequence[Mapping[str, Any]] | None
    guarantees: Mapping[str, Any]
    certificate: Mapping[str, Any]


def plan(goal: Goal, snapshot: Snapshot, health: Health) -> Planned:
    """The plan of least weight within the limits; ties by total, then by a fixed order of services and types.

    Raises Refusal ERR_SCHEMA: unknown profile, or more combinations than MAX_TRIED.
    """
    weights = weights_of(Request(goal.document), snapshot.policy)
    search = _Search(goal, snapshot, health)
    found = search.supplies(goal.document["want"])
    best = min(found, key=lambda made: (weigh(made.total, weights), made.total), default=None)
    steps = None if best is None else _steps(best)
    receipt = {
        "v": 1,
        "goal": goal.digest,
        "snapshot": snapshot.name,
        "health": health.digest,
        "plan": digest(steps).hex(),
    }
    certificate = {
        "v": 1,
        "form": "plan",
        "receipt": receipt,
        "goal": goal.document,
        "steps": steps,
        "total": None if best is None else list(best.total),
        "fronts": [
            [search.fronts[kind][0].type, sorted(list(made.total) for made in search.fronts[kind])]
            for kind in sorted(search.fronts)
        ],
    }
    holds = {} if best is None else guarantees(list(_services(best)), best.total, goal.document, health)
    return Planned(steps, holds, certificate)
