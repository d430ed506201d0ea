"""Push budgets: how many notifications a project and a channel may push before the rest waits for the digest.

Generic cell rate algorithm (ITU-T I.371, the virtual scheduling form) in integer microseconds: the whole
state of a bucket is one number, its theoretical arrival time (TAT). A fifth of each burst is reserved for
critical incidents, so that a storm of lesser ones cannot silence them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tocsin.delivery.model import PushBudget

_HOUR_US: Final = 3_600_000_000
#: Share of the burst that only critical incidents may use, in percent (rounded down, so a burst under 5 has
#: none).
RESERVED_PERCENT: Final = 20
#: Name of the project's own bucket beside those of its channels.
PROJECT_BUCKET: Final = "*"


@dataclass(frozen=True, slots=True)
class BudgetState:
    """TATs in microseconds by bucket name, with the version of the row they were read from (0: no row
    yet).
    """

    version: int
    tats: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Grant:
    """Outcome of asking: either `wait_ms` 0 and the state to write, or the wait and the bucket that is
    empty.
    """

    wait_ms: int
    state: BudgetState
    bucket: str | None = None


def interval_us(budget: PushBudget) -> int:
    """Microseconds between pushes in the long run."""
    return _HOUR_US // budget.per_hour


def take_one(tat: int, budget: PushBudget, now_us: int, critical: bool, cost: int = 1) -> tuple[int, int]:
    """(wait in µs, new TAT) of one bucket. A wait of 0 means granted; otherwise the TAT is unchanged."""
    step = interval_us(budget)
    reserved = 0 if critical else budget.burst * RESERVED_PERCENT // 100
    after = max(tat, now_us) + step * cost
    wait = after - step * (budget.burst - reserved) - now_us
    return (wait, tat) if wait > 0 else (0, after)


def take(state: BudgetState, budgets: Mapping[str, PushBudget], now_ms: int, *, critical: bool, cost: int = 1) -> Grant:
    """Takes `cost` from every bucket of `budgets`, or from none. Buckets that are full again are dropped from
    the state.
    """
    now_us = now_ms * 1000
    tats = {name: tat for name, tat in state.tats.items() if tat > now_us or name in budgets}
    for name, budget in budgets.items():
        wait, tats[name] = take_one(state.tats.get(name, 0), budget, now_us, critical, cost)
        if wait:
            return Grant(-(-wait // 1000), state, name)
    return Grant(0, BudgetState(state.version + 1, tats))


def left(state: BudgetState, name: str, budget: PushBudget, now_ms: int, *, critical: bool = False) -> int:
    """Pushes that could be made right now, for the account shown to people."""
    step = interval_us(budget)
    reserved = 0 if critical else budget.burst * RESERVED_PERCENT // 100
    used = max(0, state.tats.get(name, 0) - now_ms * 1000)
    return max(0, (step * (budget.burst - reserved) - used) // step)
