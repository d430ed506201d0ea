"""What the journal needs from storage. Implemented by tocsin.aws.journal_store and, in tests, in memory.

Every write may be the last one of a run; the sequencer is correct because each is either conditional on the
head's version or writes bytes that are a function of their name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tocsin.journal.tree import EMPTY_ROOT


class HeadMoved(Exception):
    """Another run has changed the head; whatever was about to be written must be looked at anew."""


class Fork(Exception):
    """Two different things claim the same place in the log. Nothing heals this; a person must look."""


@dataclass(frozen=True, slots=True)
class Head:
    """The durable head. `version` counts every change. A batch of `count` entries from number `first` on is
    reserved while count > 0; it has been appended when size = first + count."""

    version: int = 0
    size: int = 0
    root: bytes = EMPTY_ROOT
    first: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """An evidence row as it waits: `handle` is the storage's own name for it, `at` is Unix ms, `payload` holds the
    entries of one transaction.
    """

    handle: tuple[str, str]
    row_id: str
    project: str
    at: int
    payload: Any


@dataclass(frozen=True, slots=True)
class Reservation:
    """A batch whose order is fixed for ever: entry bytes from number `first` on, and the rows they came from."""

    first: int
    leaves: tuple[bytes, ...]
    handles: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Published:
    """The checkpoint that readers see, and a token that changes with it. `note` is None before the first."""

    note: bytes | None
    token: str | None


class LogFiles(Protocol):
    """What readers see of a log."""

    def read(self, path: str) -> bytes | None:
        """A file of the log, or None."""
        ...

    def published(self) -> Published: ...


class JournalStore(LogFiles, Protocol):
    def head(self) -> Head:
        """The head as it is now, never an older one."""
        ...

    def pending(self, now: int, limit: int) -> Sequence[Evidence]:
        """Evidence that is not yet deleted, oldest first, at most `limit`."""
        ...

    def reserve(self, before: Head, reservation: Reservation) -> Head:
        """Fix a batch. Raises HeadMoved unless `before` is still true."""
        ...

    def reservation(self, head: Head) -> Reservation:
        """The batch that `head` names. Raises HeadMoved when it is gone."""
        ...

    def advance(self, before: Head, size: int, root: bytes) -> Head:
        """Append the reserved batch. Raises HeadMoved unless `before` is still true."""
        ...

    def settle(self, before: Head, reservation: Reservation) -> Head:
        """Index the entries by project, delete their evidence rows, then end the batch; repeatable.

        Raises HeadMoved unless `before` is still true at the end.
        """
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write a file that is never changed. Raises Fork when it exists with other bytes."""
        ...

    def publish(self, note: bytes, before: Published) -> bool:
        """Replace the checkpoint if it is still `before`; False when it is not."""
        ...


class Archive(Protocol):
    """A copy of the log's files, for verification."""

    def read(self, path: str) -> bytes | None: ...

    def paths(self) -> Iterable[str]:
        """Every file there is, relative to the log's prefix."""
        ...
