"""What the keyed routes need from the rest of Tocsin. Implemented by tocsin.aws and, in tests, in memory.

Readers answer JSON objects in their public form. A position is any small JSON value; it travels inside a
sealed cursor and comes back as it was given. Times are Unix ms.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from tocsin.access.admin import Directory, Keys, People
from tocsin.access.approvals import Approvals
from tocsin.access.ports import UsageStore
from tocsin.access.projects import Projects
from tocsin.api.filters import EventFilters, IncidentFilters, JournalFilters
from tocsin.defense.mitigations import Mitigations
from tocsin.defense.notices import Notices
from tocsin.defense.quarantine import Quarantines
from tocsin.delivery.channels import Channels
from tocsin.delivery.dispatch import Dispatcher
from tocsin.delivery.ports import NotificationStore, RoutingStore
from tocsin.journal.audit import Audit
from tocsin.privacy.jobs import Enqueue
from tocsin.privacy.ports import JobStore
from tocsin.signals.incidents import Incident
from tocsin.signals.intake import Intake

if TYPE_CHECKING:
    from tocsin.access.tokens import Tokens
    from tocsin.decisions.deciding import Decider
    from tocsin.decisions.invoking import Invoker
    from tocsin.defense.probes import Http

Json = dict[str, Any]
#: Most log segments that one request may open. A listing that needs more answers a partial page.
MAX_SEGMENTS: Final = 20


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Part of a listing. `next_position` is None at the end; `scanned` counts the segments or rows that were
    read.

    A page may hold fewer items than asked for, even none, and still have a next position.
    """

    items: Sequence[Item]
    next_position: Any
    scanned: int


@dataclass(frozen=True, slots=True)
class Change:
    """What a person does to one incident; at least one of status, verdict and note is given.

    `status` is "open" (reopen), "acknowledged" or "resolved". `actor` is the id of the caller's key; `at` is
    Unix ms.
    """

    actor: str
    at: int
    status: str | None = None
    verdict: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Merge:
    """Unite these incidents with the one addressed."""

    actor: str
    at: int
    others: tuple[str, ...]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """Move these members (server event ids) of the incident addressed into a new one."""

    actor: str
    at: int
    events: tuple[str, ...]
    note: str | None = None


Operation = Change | Merge | Split


class EventReader(Protocol):
    def page(self, project: str, filters: EventFilters, position: Any, limit: int) -> Page[Json]:
        """Events newest first that match `filters`, from `position` (None: the newest). Opens <= MAX_SEGMENTS
        segments.
        """
        ...

    def get(self, project: str, event_id: str) -> Json | None:
        """The event of a server id, with incident_id when it belongs to one."""
        ...

    def refusals(self, project: str, position: Any, limit: int) -> Page[Json]:
        """Events that were refused after they had been accepted, newest day first: event_id, at, reason."""
        ...

    def by_sender_id(self, project: str, sender_id: str) -> Sequence[Json]:
        """Every event that was sent with this id, one per source."""
        ...


class IncidentReader(Protocol):
    def page(self, project: str, filters: IncidentFilters, position: Any, limit: int) -> Page[Incident]:
        """Incidents, most recently opened first."""
        ...

    def get(self, project: str, incident_id: str) -> Incident | None:
        """The incident as it is now; merged ones carry merged_into."""
        ...

    def overflow(self, project: str, incident_id: str) -> Sequence[Mapping[str, Any]]:
        """Timeline entries that no longer fit the incident itself, oldest first."""
        ...

    def members(self, project: str, incident_id: str, position: Any, limit: int) -> Page[Json]:
        """Its events in the order of their ruling times."""
        ...

    def judged(self, project: str, most: int) -> Iterable[tuple[str, str, Sequence[Json]]]:
        """Incidents that people judged, newest first: id, verdict, and the first members; merged ones are left out."""
        ...


class IncidentWriter(Protocol):
    def apply(
        self, project: str, incident_id: str, operation: Operation, expected_version: int | None
    ) -> Sequence[Incident]:
        """Do it and answer the incidents as they are now: the one addressed or its survivor, then (split) the
        new one.

        Refuses ERR_NOT_FOUND for incidents the project does not have; ERR_CONFLICT when the version is not
        `expected_version` (None: any) or the incident's standing does not allow it; ERR_SCHEMA or
        ERR_BATCH_TOO_LARGE for a split whose members are not the incident's, leave one side empty, or are too
        many at once. A Change with several parts is applied in the order status, verdict, note, all of it or
        nothing.
        """
        ...


class DocumentStore(Protocol):
    """Small documents of a project by name ("topology"), each under a version that counts its writes."""

    def get(self, project: str, name: str) -> tuple[int, Any]:
        """(version, document), or (0, None) while there is none."""
        ...

    def put(self, project: str, name: str, document: Any, expected_version: int | None, now: int) -> int:
        """Store it and answer its new version. Refuses ERR_CONFLICT when the version is not
        `expected_version`.
        """
        ...


class JournalReader(Protocol):
    def page(self, filters: JournalFilters, position: Any, limit: int) -> Page[Json]:
        """Sealed entries newest first, {index, entry}."""
        ...


class HealingReader(Protocol):
    def page(self, position: Any, limit: int) -> Page[Json]:
        """The supervisor's records of this deployment, newest first."""
        ...


class HealthReader(Protocol):
    def parts(self) -> Sequence[Json]:
        """One row per part: {"part", "kind", "status": "up" | "degraded" | "down", "detail",
        "measured_at"}.
        """
        ...

    def metrics(self) -> Sequence[tuple[str, str, str, Mapping[str, str], float]]:
        """Samples (name, type, help, labels, value) in the words of Prometheus; one family's samples are
        adjacent.
        """
        ...


@dataclass(frozen=True, slots=True)
class AccessRooms:
    """Who may do what. `tokens` builds on first use, because it needs cryptography that few calls need."""

    projects: Projects
    keys: Keys
    people: People
    directory: Directory
    approvals: Approvals
    usage: UsageStore
    tokens: Callable[[], Tokens]


@dataclass(frozen=True, slots=True)
class PrivacyRooms:
    """What export, deletion and erasure begin with. `pseudonym_of` takes a project and a user identifier, `link` an
    object's key and for how many seconds the address works.
    """

    jobs: JobStore
    enqueue: Enqueue
    pseudonym_of: Callable[[str, str], str]
    link: Callable[[str, int], str]


class Front(Protocol):
    """What every function that answers keyed routes has. `origin` is the one web origin that may call from a browser,
    or None; `cursor_key` authenticates cursors (32 bytes).
    """

    @property
    def access(self) -> Callable[[], AccessRooms]: ...

    @property
    def cursor_key(self) -> bytes: ...

    @property
    def origin(self) -> str | None: ...

    @property
    def flags(self) -> Collection[str]:
        """What this deployment has switched on."""
        ...


class PolicyHistory(Protocol):
    def policies(self, before: int | None, limit: int) -> Sequence[Json]:
        """Policies that were in force, newest first, of versions below `before`: version, policy, at (Unix ms)."""
        ...


@dataclass(frozen=True, slots=True)
class DecisionRooms:
    """What routing stands on, by project. `check_url` refuses addresses that may not be called; `verify` says whether
    an Ed25519 signature (public key, message, signature) is good; `now` is Unix ms.
    """

    decider: Callable[[str], Decider]
    invoker: Callable[[str], Invoker]
    history: Callable[[str], PolicyHistory]
    check_url: Callable[[str], None]
    verify: Callable[[bytes, bytes, bytes], bool]
    access: Callable[[], AccessRooms]
    cursor_key: bytes
    now: Callable[[], int]
    origin: str | None = None
    flags: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class ApiRooms:
    """Everything the keyed routes stand on. `access` and `privacy` are built on first use. `now` is Unix ms."""

    events: EventReader
    incidents: IncidentReader
    writer: IncidentWriter
    documents: DocumentStore
    channels: Channels
    routing: RoutingStore
    dispatcher: Dispatcher
    notifications: NotificationStore
    healings: HealingReader
    journal: JournalReader
    audit: Audit
    health: HealthReader
    access: Callable[[], AccessRooms]
    privacy: Callable[[], PrivacyRooms]
    cursor_key: bytes
    now: Callable[[], int]
    origin: str | None = None
    flags: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Probing:
    """What probes stand on: the stack's own API and its address, tokens as of a time (Unix ms), the kind of key that
    the stage takes, and where evidence is left (project, run, probe).
    """

    http: Http
    front: str
    tokens: Callable[[int], Tokens]
    env: str
    keep: Callable[[str, str, Json], None]


@dataclass(frozen=True, slots=True)
class DefenseRooms:
    """Everything that the routes of the defend function stand on. `probing` is built on use. `preview` gives events the
    scores that a commit would give them now.
    """

    intake: Intake
    events: EventReader
    incidents: IncidentReader
    preview: Callable[[str, Sequence[Json]], Sequence[Json]]
    mitigations: Mitigations
    notices: Notices
    probing: Callable[[], Probing]
    quarantines: Quarantines
    access: Callable[[], AccessRooms]
    cursor_key: bytes
    now: Callable[[], int]
    origin: str | None = None
    flags: Collection[str] = ()
