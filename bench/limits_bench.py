"""What limits cost: writes per request, what is admitted, and µs per decision.

    PYTHONPATH=shared:. python -m bench limits

Processes and clock are simulated over a store in memory, so the figures are of the algorithm alone and the same every
time; only the µs are this machine's.
"""

from __future__ import annotations

import random
import time
from typing import Any

from bench import report

from tocsin.access.limits import SECOND_US, Limiter, Rate, advance
from tocsin.access.ports import Advance
from tocsin.access.projects import Quota

START_US = 1_800_000_000 * SECOND_US


class Memory:
    """A store in memory that counts its writes."""

    def __init__(self) -> None:
        self.tats: dict[tuple[str, str], int] = {}
        self.writes = 0

    def advance(self, project: str, name: str, by_us: int, now_us: int, latest_us: int, _: int) -> Advance:
        self.writes += 1
        taken, tat = advance(self.tats.get((project, name), 0), by_us, now_us, latest_us)
        self.tats[project, name] = tat
        return Advance(taken, tat)


def simulate(rate: Rate, offered: float, processes: int, requests: int, skew_us: int = 0) -> dict[str, float]:
    """Poisson arrivals at `offered` per second over processes whose clocks are up to `skew_us` apart."""
    at, store, rng = START_US, Memory(), random.Random(7)

    def clock_of(ahead: int) -> Any:
        return lambda: at + ahead

    spread = [skew_us * n // max(1, processes - 1) for n in range(processes)]
    limiters = [Limiter(store, clock_of(ahead)) for ahead in spread]
    admitted = 0
    for _ in range(requests):
        at += int(rng.expovariate(offered) * SECOND_US)
        admitted += rng.choice(limiters).take("p", "k", rate, ordinary=1).ordinary
    allowed = rate.burst + (at - START_US) // rate.interval_us
    return {
        "admitted": admitted,
        "refused": requests - admitted,
        "beyond": max(0, admitted - allowed),
        "writes_per_request": round(store.writes / requests, 3),
    }


def decision_us(count: int = 200_000) -> float:
    """µs per decision of a process that holds a lease most of the time."""
    at, rate = START_US, Rate(2_000, 20_000)
    limiter = Limiter(Memory(), lambda: at)
    began = time.perf_counter()
    for _ in range(count):
        at += 1_000
        limiter.take("p", "k", rate, ordinary=1)
    return (time.perf_counter() - began) / count * 1e6


def run() -> dict[str, Any]:
    """Prints and returns the figures."""
    quota = Quota()
    usual, small = Rate(quota.requests_per_second, quota.requests_burst), Rate(50, 500)
    cases = [(usual, 10.0, 1, 0), (usual, 10.0, 3, 0), (usual, 10.0, 8, 0), (usual, 100.0, 8, 0)]
    cases += [(small, 50.0, 4, 0), (small, 100.0, 4, 0), (small, 1_000.0, 4, 0), (small, 1_000.0, 4, 5 * SECOND_US)]
    figures: dict[str, Any] = {}
    report.title("Request limit, simulated: 1,000 requests (20,000 when over the limit)")
    rows = []
    for rate, offered, processes, skew in cases:
        count = 1_000 if offered <= rate.per_second else 20_000
        told = simulate(rate, offered, processes, count, skew)
        name = (
            f"{rate.per_second}/s burst {rate.burst}, offered {offered:g}/s by {processes}, skew {skew // SECOND_US} s"
        )
        figures[name] = told
        rows.append((name, *told.values()))
    report.table(("case", "admitted", "refused", "beyond", "writes/request"), rows)
    figures["decision_us"] = round(decision_us(), 2)
    report.line(f"one decision: {figures['decision_us']} µs")
    return figures
