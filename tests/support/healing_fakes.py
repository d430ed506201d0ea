"""A world in memory for the supervisor: everything it watches can be broken, everything it does is written
down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from tocsin.defense.ports import Depth, Lag, Lease, Memory, Schedule, SourceMapping
from tocsin.kernel.errors import Retry

QUEUES = ("score", "correlate", "relay", "notify", "digest", "supervise")


class World:
    """Surroundings, Repairs, MemoryStore, HealingLog and EventSink at once."""

    def __init__(self) -> None:
        self.states = dict.fromkeys(QUEUES, "Enabled")
        self.changed_at: int | None = None
        self.rules = {"digest": "ENABLED", "supervise": "ENABLED", "facts": "ENABLED"}
        self.depths = {name: Depth(0, 0) for name in QUEUES}
        self.dead = {name: Depth(0, 0) for name in QUEUES}
        #: Dead letters that were never sent back, by queue.
        self.parked_before: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.projects: list[Lag] = []
        self.held: list[Lease] = []
        #: Names of methods that get no answer.
        self.broken: set[str] = set()
        #: Whether a repair changes anything.
        self.curable = True
        self.done: list[tuple[str, str]] = []
        self.ticks: list[tuple[str, list[int]]] = []
        self.kept = Memory()
        self.taken = False
        self.healings: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def _ask(self, name: str) -> None:
        if name in self.broken:
            raise Retry(f"{name} does not answer")

    # Surroundings
    def mappings(self) -> Sequence[SourceMapping]:
        self._ask("mappings")
        return [SourceMapping(name, f"id-{name}", state, self.changed_at) for name, state in self.states.items()]

    def schedules(self) -> Sequence[Schedule]:
        self._ask("schedules")
        return [Schedule(name, state) for name, state in self.rules.items()]

    def queues(self) -> Mapping[str, Depth]:
        self._ask("queues")
        return self.depths

    def dead_letters(self) -> Mapping[str, Depth]:
        self._ask("dead_letters")
        return self.dead

    def beats(self) -> Mapping[str, int]:
        self._ask("beats")
        return self.last

    def lags(self, position: str | None, limit: int) -> tuple[Sequence[Lag], str | None]:
        self._ask("lags")
        rest = [lag for lag in sorted(self.projects, key=lambda one: one.project) if lag.project > (position or "")]
        return rest[:limit], rest[limit - 1].project if len(rest) >= limit else None

    def leases(self) -> Sequence[Lease]:
        self._ask("leases")
        return list(self.held)

    # Repairs
    def enable_mapping(self, mapping: SourceMapping) -> None:
        self._ask("enable_mapping")
        self.done.append(("enable", mapping.name))
        if self.curable:
            self.states[mapping.name] = "Enabled"

    def enable_schedule(self, schedule: Schedule) -> None:
        self._ask("enable_schedule")
        self.done.append(("enable rule", schedule.name))
        if self.curable:
            self.rules[schedule.name] = "ENABLED"

    def wake(self, project: str) -> None:
        self._ask("wake")
        self.done.append(("wake", project))

    def tick(self, queue: str, delays_s: Sequence[int], now: int) -> None:
        self._ask("tick")
        self.ticks.append((queue, list(delays_s)))

    def release(self, lease: Lease) -> bool:
        self._ask("release")
        self.done.append(("release", lease.name))
        if self.curable:
            self.held.remove(lease)
        return True

    def replay(self, queue: str, limit: int, before: int) -> int:
        self._ask("replay")
        fit = min(limit, self.parked_before.get(queue, 0))
        self.done.append(("replay", queue))
        self.parked_before[queue] = self.parked_before.get(queue, 0) - fit
        held = self.dead[queue].visible
        self.dead[queue] = Depth(held - fit if self.curable else held, 0)
        return fit

    # MemoryStore
    def take(self, now: int) -> Memory | None:
        return None if self.taken else deepcopy(self.kept)

    def give_back(self, memory: Memory) -> None:
        self.kept = deepcopy(memory)

    # HealingLog
    def record(self, healing: Mapping[str, Any]) -> None:
        self._ask("record")
        self.healings[healing["id"]] = deepcopy(dict(healing))

    # EventSink
    def send(self, event: Mapping[str, Any], now: int) -> None:
        self._ask("send")
        self.events.append(dict(event))
