#!/usr/bin/env python3
"""Check certificates of plans: python3 tools/plan_checker.py SNAPSHOT HEALTH CERTIFICATE...

Rebuilds which services may take part, checks that the fronts are closed under all of them, that the steps make what
is wanted within the limits, and that they weigh no more than anything in the fronts. It does not search. Exit status
0: each plan is feasible and none weighs less; 1: not so. Uses tools/checker.py and no code of the service.
"""

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.checker import audit, canonical, need, reason, sha, subtype

PPB = 10**9
Made = tuple[Any, tuple[int, int, int]]
KEYS = {"v", "form", "receipt", "goal", "steps", "total", "fronts"}


def able(goal: Any, service: Any, policy: Any, health: Any) -> bool:
    """Whether a service passes every gate as a step."""
    asked = [word for word in goal["capabilities"] if word in service["capabilities"]] or goal["capabilities"]
    step = {**goal, "capabilities": asked, "input": service["input"], "output": True}
    return reason(step, service, policy, health) is None


def ways(service: Any) -> Any:
    """The slots to fill: the input whole, or each required property."""
    taken = service["input"]
    yield {"": taken}
    if isinstance(taken, dict) and taken.get("type") == "object" and "" not in taken.get("required", [""]):
        rest = taken.get("additionalProperties", True)
        yield {name: taken.get("properties", {}).get(name, rest) for name in taken["required"]}


def composed(service: Any, fed: Any) -> tuple[int, int, int]:
    cost, latency, error = zip(*fed, strict=True) if fed else ((), (), ())
    longest = max(latency, default=0)
    return (
        service["cost_pusd"] + sum(cost),
        service["latency_us"] + longest,
        min(PPB, service["error_ppb"] + sum(error)),
    )


def covered(total: Any, front: Any) -> bool:
    return any(all(a <= b for a, b in zip(kept, total, strict=True)) for kept in front)


def check_closed(goal: Any, services: Any, fronts: Any, limits: Any) -> None:
    """Whatever can be made within the limits totals no less than something in the front of its type."""

    def front_of(wanted: Any) -> Any:
        return [total for made, totals in fronts if canonical(made) == canonical(wanted) for total in totals]

    for name, held in goal["have"].items():
        need(covered((0, 0, 0), front_of(held)), f"what one has is not in the fronts: {name}")
    for service in services:
        result = front_of(service["output"])
        for slots in ways(service):
            sources = [
                [total for made, totals in fronts if subtype(made, slot) for total in totals] for slot in slots.values()
            ]
            for fed in product(*sources):
                total = composed(service, fed)
                within = all(a <= b for a, b in zip(total, limits, strict=True))
                need(not within or covered(total, result), f"the fronts leave out {service['name']}")


def check_steps(goal: Any, services: Any, steps: Any) -> tuple[int, int, int]:
    """Total of the steps, each fed with what it takes, the last one making what is wanted."""
    by = {(service["name"], service["version"]): service for service in services}
    made: list[Made] = []
    used = []

    def value(source: Any) -> Made:
        need(len(source) == 1, "a source is one thing")
        if "have" in source:
            return goal["have"][source["have"]], (0, 0, 0)
        at: int = source["step"]
        need(0 <= at < len(made), "a step uses a later one")
        used.append(at)
        return made[at]

    for step in steps:
        service = by[step["name"], step["version"]]
        slots = next((slots for slots in ways(service) if set(slots) == set(step["inputs"])), None)
        need(slots is not None, "a step is fed with the wrong inputs")
        fed = [(value(step["inputs"][name]), slot) for name, slot in (slots or {}).items()]
        need(all(subtype(kind, slot) for (kind, _), slot in fed), f"{step['name']} is fed with another type")
        made.append((service["output"], composed(service, [total for (_, total), _ in fed])))
    need(sorted(used) == list(range(len(made) - 1)), "a step is not used just once")
    if not made:
        need(any(subtype(held, goal["want"]) for held in goal["have"].values()), "what is wanted is not at hand")
        return (0, 0, 0)
    need(subtype(made[-1][0], goal["want"]), "the last step makes something else")
    return made[-1][1]


def verify(snapshot: Any, health: Any, data: bytes) -> str:
    """Digest of the receipt of a certificate that proves its plan. The snapshot was audited."""
    head, policy, given = snapshot["header"], snapshot["policy"], json.loads(data)
    need(canonical(given) == data and set(given) == KEYS and given["v"] == 1 and given["form"] == "plan", "form")
    goal, steps, fronts = given["goal"], given["steps"], given["fronts"]
    digests = {"goal": sha(goal), "snapshot": sha(head), "health": sha(health), "plan": sha(canonical(steps))}
    need(canonical(given["receipt"]) == canonical({"v": 1, **digests}), "the receipt is of something else")
    need(all(type(x) is int and x >= 0 for _, totals in fronts for total in totals for x in total), "a total")
    limits = [goal[name] for name in ("cost_pusd", "latency_us", "error_ppb")]
    weights = policy["profiles"][goal["profile"]]
    services = [service for service in snapshot["contracts"] if able(goal, service, policy, health)]
    check_closed(goal, services, fronts, limits)

    def weight(total: Any) -> int:
        return sum(int(weights[name]) * x for name, x in zip(("cost", "latency", "error"), total, strict=True))

    rivals = [weight(total) for made, totals in fronts if subtype(made, goal["want"]) for total in totals]
    if steps is None:
        need(not rivals and given["total"] is None, "there is a plan")
        return sha(given["receipt"])
    total = check_steps(goal, services, steps)
    need(list(total) == given["total"], "the total is another")
    need(all(a <= b for a, b in zip(total, limits, strict=True)), "over a limit")
    need(all(weight(total) <= rival for rival in rivals), "another plan may weigh less")
    return sha(given["receipt"])


if __name__ == "__main__":
    try:
        snapshot, health = (json.loads(Path(name).read_bytes()) for name in sys.argv[1:3])
        audit(snapshot["header"], snapshot["policy"], snapshot["contracts"])
        for name in sys.argv[3:]:
            print(f"VERIFIED {name}: receipt {verify(snapshot, health, Path(name).read_bytes())}")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        sys.exit(f"NOT VERIFIED: {type(error).__name__}: {error}")
