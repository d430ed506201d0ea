"""What the pipeline needs from storage and the bus. Implemented by tocsin.aws for AWS and by the tests' fakes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from tocsin.signals.calibration import Calibrators

if TYPE_CHECKING:  # the score function never loads correlation
    from tocsin.signals.incidents import Effects, Incident, View
    from tocsin.signals.topology import Topology

Event = dict[str, Any]
#: Unpacked size of the commits read at a time; a worker's memory holds several times this as objects.
MAX_READ_BYTES: Final = 24 * 1024 * 1024
#: Commits whose assignments to incidents are recorded together.
ASSIGNED_COMMITS: Final = 10
CommitStatus = Literal["committed", "dead", "absent"]


class HeadMoved(Exception):
    """Another worker committed to this project first; read the state again and redo the work."""


class CommitDead(Exception):
    """Another worker gave this attempt up for dead (put a tombstone under its commit id); it can never commit."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Claim on one event: the attempt that holds it, the digest of what was sent (16 bytes), and when (Unix ms)."""

    commit_id: str
    digest: bytes
    at: int


@dataclass(frozen=True, slots=True)
class LogHead:
    """End of a project's commit log: `n` commits so far, states folded into their buckets through commit `folded`.

    `folded_at` is when (Unix ms; before the first fold: when the log began). `used` is what the UTC day of the last
    commit has used so far: (yyyymmdd, events, bytes of events, tokens of language models).
    """

    n: int
    folded: int
    folded_at: int = 0
    used: tuple[str, int, int, int] = ("", 0, 0, 0)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One commit as it was recorded: its number, its scored events, and what is needed to list and replay it."""

    n: int
    commit_id: str
    committed_at: int
    trace_id: str
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One commit of the log: number, time (Unix ms), scored events, changed states, versions by what they name."""

    n: int
    at: int
    events: Sequence[Event]
    hot: Mapping[bytes, bytes]
    full: Mapping[bytes, bytes]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything one attempt wants to make true at once for one project."""

    commit_id: str
    head: LogHead
    at: int
    trace_id: str
    events: Sequence[Event]
    hot: Mapping[bytes, bytes]
    full: Mapping[bytes, bytes]
    versions: Mapping[str, str]


class Ledger(Protocol):
    """Marks, commits and the numbered log of one deployment. All times are Unix ms."""

    def claim(self, project: str, commit_id: str, digests: Mapping[str, bytes], now: int) -> dict[str, Mark]:
        """Claim event ids for `commit_id`; returns the marks of others for ids that were already claimed."""
        ...

    def statuses(self, project: str, commit_ids: Collection[str]) -> dict[str, CommitStatus]: ...

    def bury(self, project: str, commit_id: str, now: int) -> CommitStatus:
        """Put a tombstone under an attempt unless it committed; returns what holds now: "dead" or "committed"."""
        ...

    def take_over(
        self, project: str, marks: Mapping[str, Mark], commit_id: str, digests: Mapping[str, bytes], now: int
    ) -> set[str]:
        """Move marks from dead attempts to this one; returns the event ids that are now ours."""
        ...

    def head(self, project: str) -> LogHead: ...

    def states(
        self, project: str, head: LogHead, hot: Collection[bytes], full: Collection[bytes]
    ) -> tuple[Mapping[bytes, bytes], Mapping[bytes, bytes]]:
        """Series states as of `head` for the keys asked for; keys that never existed are left out."""
        ...

    def commit(self, project: str, commit: Commit) -> int:
        """Make it so and return the commit's number. Raises HeadMoved or CommitDead, and then nothing was written."""
        ...

    def refuse(self, project: str, event_id: str, digest: bytes, now: int, reason: str) -> None:
        """Record an event that was refused after it had been accepted."""
        ...

    def read(self, project: str, first: int, limit: int, max_bytes: int = MAX_READ_BYTES) -> list[LogEntry]:
        """Commits from number `first` on, in order: up to `limit`, or as many as unpack to `max_bytes`, at least one.

        Commits that have left by retention are not there; what follows them is.
        """
        ...


@dataclass(frozen=True, slots=True)
class Cursor:
    """Next event to correlate: index `i` of commit `n`. `version` counts every change of the project's incidents."""

    n: int = 1
    i: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Fact:
    """A past-tense fact for the bus: `kind` is the EventBridge detail-type."""

    kind: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """Work that became due with a commit. `kind`: fact, deliver, timer or evidence; `due` in Unix ms.

    `payload` of a fact row is {"facts": [{kind, detail}, …]}. `turn` counts the times the row could not be sent.
    """

    project: str
    row_id: str
    kind: Literal["fact", "deliver", "timer", "evidence"]
    due: int
    payload: dict[str, Any]
    turn: int = 0


class IncidentStore(Protocol):
    """Incidents of a project, changed only under its cursor's version."""

    def cursor(self, project: str) -> Cursor: ...

    def view(self, project: str, tokens: Collection[str], also: Collection[str] = ()) -> View:
        """Index rows for `tokens` and every incident that they or `also` name, following merged_into."""
        ...

    def save(
        self, project: str, before: Cursor, after: Cursor, effects: Effects, rows: Sequence[OutboxRow], now: int
    ) -> None:
        """Write effects, outbox rows and the new cursor at once. Raises HeadMoved when `before` is no longer true."""
        ...

    def get(self, project: str, incident_id: str) -> Incident | None: ...


class Outbox(Protocol):
    def publish(self, rows: Sequence[OutboxRow]) -> Collection[str]:
        """Send rows that are due now and forget them; returns their ids. What cannot be sent stays for the relay."""
        ...


class Bus(Protocol):
    def publish(self, facts: Sequence[Fact]) -> None:
        """Put facts on the bus; failed entries are retried. Raises Retry when some could not be sent."""
        ...


class TopologyReader(Protocol):
    def topology(self, project: str) -> tuple[str, Topology]:
        """Current topology of a project with its version label."""
        ...


class CalibratorReader(Protocol):
    def calibrators(self, project: str) -> tuple[str, Calibrators]:
        """Calibrators in use for a project with their version label."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One queue message after its envelope was opened; `size` is about its unpacked bytes."""

    message_id: str
    project: str
    trace_id: str
    payload: dict[str, Any] = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True, slots=True)
class Sealed:
    """A queue message that was not opened yet: unpacked, a batch of them may be more than a worker's memory holds.

    `open` raises Refusal when it is not authentic, Retry when its content cannot be had now.
    """

    message_id: str
    open: Callable[[], Message]
