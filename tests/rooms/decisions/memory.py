"""Stores in memory that can fail on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tocsin.decisions.ports import Decided, decision_ids
from tocsin.kernel.errors import Retry


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

    def read(self) -> tuple[bytes | None, str]:
        if self.broken:
            raise Retry("pointer")
        return self.data, str(self.version)

    def swap(self, data: bytes, token: str) -> bool:
        if self.before_swap:
            run, self.before_swap = self.before_swap, None
            run()
        if token != str(self.version):
            return False
        self.data, self.version = data, self.version + 1
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

    def put_health(self, digest: str, health: Mapping[str, Any]) -> None:
        self.healths[digest] = health

    def health(self, digest: str) -> Mapping[str, Any] | None:
        return self.healths.get(digest)
