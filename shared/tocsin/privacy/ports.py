"""What the privacy room needs from storage. Implemented in tocsin.aws and, in tests, in memory.

Every method raises Retry when the store cannot answer. Steps may be repeated: a second removal finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tocsin.privacy.jobs import Job


@dataclass(frozen=True, slots=True)
class Step:
    """One bounded piece of a phase: what it met by name, files it wrote, and where the phase goes on (None: it is
    done; otherwise JSON).
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    position: Any = None
    files: Sequence[Mapping[str, Any]] = ()


class JobStore(Protocol):
    def get(self, project: str, job_id: str) -> Job | None:
        """The job, or None."""

    def put(self, job: Job, expected_version: int) -> bool:
        """Write it if the stored version is `expected_version` (0: there is none yet)."""

    def unfinished(self) -> Sequence[tuple[str, str]]:
        """(project, job id) of every job that has something left to do, oldest first."""


class Stores(Protocol):
    """Everything that holds something of a project. With `remove` false a method counts what it would remove."""

    def stop(self, project: str) -> Step:
        """Reduce the project's record and its keys to what it takes to refuse its callers."""

    def data_keys(self, project: str, *, remove: bool) -> Step:
        """The project's data keys."""

    def rows(self, project: str, position: Any, *, remove: bool, keep_days: int | None = None) -> Step:
        """A page of the project's rows; with `keep_days` those of its history that are older, with their objects."""

    def objects(self, project: str, prefix: str, position: Any, *, remove: bool) -> Step:
        """A page of the project's objects under `prefix`."""

    def letters(self, project: str, *, remove: bool, needle: str = "") -> Step:
        """Dead letters of the project; with `needle` those that hold this text in clear."""

    def occurrences(self, project: str, pseudonym: str, position: Any, *, remove: bool) -> Step:
        """A page of rows and segments that hold a pseudonym; removing puts ERASED in its place."""


class Exports(Protocol):
    """Writes an export, a bounded number of objects per call; the files of a step are entries of the manifest."""

    def events(self, job: Job) -> Step:
        """The next part of the events."""

    def incidents(self, job: Job) -> Step:
        """The next part of incidents and of the notifications about them."""

    def settings(self, job: Job) -> Step:
        """Project, channels, documents, people and keys, which are small."""

    def manifest(self, job: Job) -> Step:
        """What was written, with hashes and counts, once everything else is."""
