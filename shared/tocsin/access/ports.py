"""What the access room needs from storage. Implemented in tocsin.aws and, in tests, in memory.

Times are Unix ms unless a name ends in `_us` (microseconds). Every method raises Retry when the store cannot
answer. A method that answers False lost a race or met another state: the caller reads again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tocsin.access.principals import KeyRecord, KeyStore

if TYPE_CHECKING:
    from tocsin.access.admin import Person
    from tocsin.access.approvals import Approval
    from tocsin.access.projects import Project


class ProjectStore(Protocol):
    def get(self, project_id: str) -> Project | None:
        """The project, or None when it has no record."""

    def all(self) -> Sequence[Project]:
        """Every project that has a record, oldest first."""

    def put(self, project: Project, expected_version: int) -> bool:
        """Write it if the stored version is `expected_version` (0: there is none yet)."""


class KeyRows(KeyStore, Protocol):
    def add(self, record: KeyRecord) -> bool:
        """Write a new key and its place in the project's list; False when the id is taken."""

    def of_project(self, project: str) -> Sequence[KeyRecord]:
        """Every key of a project, oldest first, revoked ones included."""

    def change(self, record: KeyRecord) -> bool:
        """Store name and expiry of a key that is not revoked; False when it is gone or revoked."""

    def revoke(self, project: str, key_id: str, at: int) -> bool:
        """Set revoked_at where it is not set; False when it was revoked before."""

    def touch(self, key_id: str, at: int, not_after: int) -> bool:
        """Set last_used_at to `at` unless it is later than `not_after`."""


class PersonStore(Protocol):
    def get(self, project: str, person_id: str) -> Person | None:
        """The person, or None."""

    def all(self, project: str) -> Sequence[Person]:
        """Every person of a project, oldest first."""

    def put(self, person: Person, expected_version: int) -> bool:
        """Write it if the stored version is `expected_version` (0: there is none yet)."""


class OnceStore(Protocol):
    def first(self, project: str, kind: str, name: str, until: int) -> bool:
        """True for exactly one caller per (project, kind, name); the memory may be dropped after `until`."""


class KeySetStore(Protocol):
    def get(self) -> tuple[int, Any]:
        """(version, document) of the token key set, or (0, None)."""

    def put(self, document: Any, expected_version: int) -> bool:
        """Replace it if the version is `expected_version`."""


class ApprovalStore(Protocol):
    def get(self, project: str, approval_id: str) -> Approval | None:
        """The approval, or None."""

    def page(self, project: str, position: str | None, limit: int) -> tuple[Sequence[Approval], str | None]:
        """Approvals newest first, and where the next page begins (None at the end)."""

    def put(self, approval: Approval, expected_version: int) -> bool:
        """Write it if the stored version is `expected_version` (0: there is none yet)."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Outcome of asking for room in a bucket: whether it was taken, the theoretical arrival time after it
    (or as it is), and how many writes were tried.
    """

    taken: bool
    tat_us: int
    writes: int = 1


class LimitStore(Protocol):
    def advance(self, project: str, name: str, by_us: int, now_us: int, latest_us: int, seen_us: int, /) -> Advance:
        """With start = max(tat, now): if start <= latest, tat becomes start + by. Atomic across processes.

        `seen_us` is the tat this caller knew last, a hint which of the two conditions to try first.
        """


class FailureStore(Protocol):
    def add(self, source: str, minute: int, count: int) -> int:
        """Add failures of a source within a minute (Unix time / 60 s); the total so far."""


class UsageStore(Protocol):
    def add(self, project: str, day: str, amounts: Mapping[str, int]) -> None:
        """Add amounts to a project's counters of a UTC day (yyyymmdd)."""

    def days(self, project: str, first: str, last: str) -> Sequence[tuple[str, Mapping[str, int]]]:
        """(day, counters) of the days that have any, both ends included, oldest first."""

    def exported(self, project: str, day: str, meter: str) -> bool:
        """Whether the exporter has handed over this day's figure."""

    def mark_exported(self, project: str, day: str, meter: str, value: int, at: int) -> None:
        """Remember that it has."""


class BillingSender(Protocol):
    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """(status, body) of a POST to the billing system. Raises Retry when there was no answer."""
