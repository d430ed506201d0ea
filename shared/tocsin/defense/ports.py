"""What the supervisor sees, does and remembers. Implemented by tocsin.aws.watch and by the tests' fakes.

Every method that asks the outside raises Retry when it gets no answer; no answer is never taken for bad
health. Times are Unix ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tocsin.defense.quarantine import Quarantine

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """An event source mapping: `name` is the function it feeds, `state` the service's own word (Enabled,
    Disabling …).

    One that should be there and is not has the state Missing.
    """

    name: str
    uuid: str
    state: str
    changed_at: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A rule of the clock or, with `bus`, of a bus of one's own. `state` is ENABLED, DISABLED or MISSING."""

    name: str
    state: str
    bus: str | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """What a queue holds: messages that wait, and messages that a worker has in hand."""

    visible: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Lag:
    """Correlation of one project: `head` commits were logged, all before commit `next` are correlated."""

    project: str
    head: int
    next: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on work that only one worker may do: it was to end at `until`. `version` fences its release."""

    name: str
    holder: str
    until: int
    version: int


class Surroundings(Protocol):
    """Everything that is watched."""

    def mappings(self) -> Sequence[SourceMapping]:
        """Event source mappings of this deployment's functions."""
        ...

    def schedules(self) -> Sequence[Schedule]: ...

    def queues(self) -> Mapping[str, Depth]:
        """Depth of each work queue by name (score, correlate …)."""
        ...

    def dead_letters(self) -> Mapping[str, Depth]:
        """Depth of each dead-letter queue, by the name of the queue it belongs to."""
        ...

    def beats(self) -> Mapping[str, int]:
        """When each periodic worker last finished a run. One that never did is left out."""
        ...

    def lags(self, position: str | None, limit: int) -> tuple[Sequence[Lag], str | None]:
        """Up to `limit` projects after `position`; the second value continues, None at the end of the
        register.
        """
        ...

    def leases(self) -> Sequence[Lease]: ...


class Repairs(Protocol):
    """Everything the supervisor may do. Each is harmless when repeated, and raises Retry when it was not
    taken.
    """

    def enable_mapping(self, mapping: SourceMapping) -> None: ...

    def enable_schedule(self, schedule: Schedule) -> None: ...

    def wake(self, project: str) -> None:
        """Ask correlation to catch up with a project's log."""
        ...

    def tick(self, queue: str, delays_s: Sequence[int], now: int) -> None:
        """Enqueue one tick per delay (0..900 s) on the relay or supervise queue."""
        ...

    def release(self, lease: Lease) -> bool:
        """Free a lease unless it moved since it was seen; False when it did."""
        ...

    def replay(self, queue: str, limit: int, before: int) -> int:
        """Send up to `limit` of a queue's dead letters back that were first sent before `before` (Unix ms), in bounded
        batches; how many were. 0 says that none of those is left.
        """
        ...


@dataclass(slots=True)
class Memory:
    """What one run leaves to the next. `samples` are the last judgements per target, newest last."""

    version: int = 0
    ticked_until: int = 0
    depth_at: int = 0
    position: str | None = None
    samples: dict[str, list[bool]] = field(default_factory=dict)
    since: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    repairs: dict[str, list[int]] = field(default_factory=dict)
    paged: dict[str, int] = field(default_factory=dict)
    replayed: dict[str, int] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    open: dict[str, Json] = field(default_factory=dict)


class MemoryStore(Protocol):
    """The supervisor's memory, held by one run at a time."""

    def take(self, now: int) -> Memory | None:
        """The memory, or None while another run has it. A run that died loses it after some seconds."""
        ...

    def give_back(self, memory: Memory) -> None:
        """Keep it for the next run, unless another run took it meanwhile."""
        ...


class HealingLog(Protocol):
    def record(self, healing: Mapping[str, Any]) -> None:
        """Write or replace the record of `healing["id"]`; the id (a prefixed UUIDv7) carries its time."""
        ...


class EventSink(Protocol):
    def send(self, event: Mapping[str, Any], now: int) -> None:
        """Put an event of the supervisor's own into the pipeline."""
        ...


class QuarantineStore(Protocol):
    """The list of a project's quarantines, changed as a whole under its version."""

    def get(self, project: str) -> tuple[int, Sequence[Quarantine]]:
        """(version, entries); (0, ()) while there is none."""
        ...

    def put(
        self, project: str, entries: Sequence[Quarantine], expected: int, change: tuple[str, Quarantine], now: int
    ) -> bool:
        """Replace it with the evidence of what changed, ("open" or "release", entry); False when the version is not
        `expected`.
        """
        ...
