"""Stores in memory that can fail on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tocsin.decisions.control import Budget, Watch
from tocsin.decisions.ports import Decided, Deed, Step, Taken, decision_ids
from tocsin.decisions.routing import Health
from tocsin.kernel.errors import Refusal, Retry


@dataclass
class Objects:
    kept: dict[str, bytes] = field(default_factory=dict)
    broken: bool = False

    def get(self, name: str) -> bytes | None:
        if self.broken:
            raise Retry("store")
        return self.kept.get(name)

    def create(self, name: str, data: bytes) -> None:
        if self.broken:
            raise Retry("store")
        assert self.kept.setdefault(name, data) == data, "an immutable document was changed"


@dataclass
class Cell:
    """The pointer. `before_swap` runs once before the next swap, as another publisher might."""

    data: bytes | None = None
    version: int = 0
    broken: bool = False
    before_swap: Callable[[], None] | None = None
    deeds: list[Deed] = field(default_factory=list)

    def read(self) -> tuple[bytes | None, str]:
        if self.broken:
            raise Retry("pointer")
        return self.data, str(self.version)

    def swap(self, data: bytes, token: str, deed: Deed | None = None) -> bool:
        if self.before_swap:
            run, self.before_swap = self.before_swap, None
            run()
        if token != str(self.version):
            return False
        self.data, self.version = data, self.version + 1
        self.deeds += [deed] if deed else []
        return True


@dataclass
class Log:
    """Decisions of one project."""

    kept: dict[str, Decided] = field(default_factory=dict)
    healths: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def append(self, batch_id: str, decided: Sequence[Decided]) -> None:
        self.kept |= dict(zip(decision_ids(batch_id, len(decided)), decided, strict=True))

    def get(self, decision_id: str) -> Decided | None:
        return self.kept.get(decision_id)

    def together(self, batch_id: str) -> Mapping[str, Decided]:
        return {name: one for name, one in self.kept.items() if name.partition("-n")[0] == batch_id}

    def put_health(self, digest: str, health: Mapping[str, Any]) -> None:
        self.healths[digest] = health

    def health(self, digest: str) -> Mapping[str, Any] | None:
        return self.healths.get(digest)


@dataclass
class Control:
    """What is known of one project's services."""

    kept: dict[str, Watch] = field(default_factory=dict)
    latest: Health = field(default_factory=Health)

    def watches(self) -> Mapping[str, Watch]:
        return dict(self.kept)

    def beat(self, service: str, at_ms: int) -> None:
        known = self.kept.get(service, Watch(0))
        self.kept[service] = replace(known, beat_ms=max(known.beat_ms, at_ms))

    def health(self) -> Health:
        return self.latest

    def advance(self, health: Health) -> bool:
        if health.epoch != self.latest.epoch + 1:
            return False
        self.latest = health
        return True


@dataclass
class CallRows:
    """Calls of one project over the watches of its control."""

    control: Control
    money: Budget = field(default_factory=lambda: Budget(0))
    kept: dict[str, tuple[str, int, Mapping[str, Any] | None]] = field(default_factory=dict)
    lanes: dict[str, str] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=lambda: {"calls": 0, "call_cost_pusd": 0})

    def claim(self, call_id: str, digest: str, until_ms: int) -> Mapping[str, Any] | None:
        known, until, answer = self.kept.setdefault(call_id, (digest, until_ms, None))
        if known != digest:
            raise Refusal("ERR_IDEMPOTENCY_MISMATCH", "The id was used for another call.")
        if answer is None and until != until_ms:
            raise Refusal("ERR_CONFLICT", "The call still runs.")
        return answer

    def answer(self, call_id: str, answer: Mapping[str, Any], spent_pusd: int) -> None:
        digest, until, _ = self.kept[call_id]
        self.kept[call_id] = (digest, until, answer)
        self.used = {"calls": self.used["calls"] + 1, "call_cost_pusd": self.used["call_cost_pusd"] + spent_pusd}

    def take(self, service: str, step: Step) -> Taken:
        taken = step(self.control.kept.get(service, Watch(0)), self.money)
        if taken.refused is None and taken.watch and taken.budget:
            self.control.kept[service], self.money = taken.watch, taken.budget
        return taken

    def incumbent(self, lane: str) -> str | None:
        return self.lanes.get(lane)

    def set_incumbent(self, lane: str, service: str) -> None:
        self.lanes[lane] = service

    def budget(self) -> Budget:
        return self.money

    def set_limit(self, limit_pusd: int) -> Budget:
        self.money = replace(self.money, limit=limit_pusd)
        return self.money
