"""What delivery needs from the world. Each port has two implementations: the AWS adapter and the tests'
memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from enum import Enum
from typing import Any, Protocol

from tocsin.delivery.budget import BudgetState
from tocsin.delivery.model import Channel, NotificationRecord
from tocsin.delivery.routing import Routing


class Claim(Enum):
    """Answer to a claim: ours, somebody's already, or something it depended on moved (read again and
    repeat).
    """

    WON = "won"
    EXISTS = "exists"
    RACED = "raced"


@dataclass(frozen=True, slots=True)
class Withheld:
    """The note a digest will carry for one notification that was not pushed. `score` is 0 to 1."""

    project: str
    channel_id: str
    incident_id: str
    seq: int
    kind: str
    tier: str
    score: float
    title: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class Page:
    """A bounded page of records, newest first. `cursor` continues it (None at the end); `scanned` counts rows
    read.
    """

    records: Sequence[NotificationRecord]
    cursor: str | None
    scanned: int


@dataclass(frozen=True, slots=True)
class SendResult:
    """Answer of a receiver. `status` is 0 when there was none; `retry_after_s` is what it asked for, in
    seconds.
    """

    status: int
    error: str | None = None
    retry_after_s: int | None = None
    ms: int = 0

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class DigestLedger:
    """How far a channel's digests are. The digest of `slot` carries what was withheld at times in (start,
    end].

    `open` says that slot was begun and its record may not exist yet. No note with a time up to `end` can be
    added any more (claims check it), so that a digest repeated after a crash holds the same lines.
    """

    project: str
    channel_id: str
    slot: int
    start: int
    end: int
    open: bool
    version: int


class NotificationStore(Protocol):
    """Records, their outbox rows and their digest notes, changed together or not at all."""

    def claim(
        self,
        record: NotificationRecord,
        *,
        budget: tuple[BudgetState, BudgetState] | None = None,
        note: Withheld | None = None,
    ) -> Claim:
        """Puts a record if none exists, with its outbox row (`record.wake_at`), the budget it uses (old and
        new state) and its digest note. RACED when the budget row moved, or when the channel's ledger is past
        `note.at`.
        """

    def save(self, old: NotificationRecord, new: NotificationRecord) -> bool:
        """Replaces `old` (same version, else False) and moves its outbox row from `old.wake_at` to
        `new.wake_at`.
        """

    def get(self, project: str, incident_id: str, seq: int, channel_id: str) -> NotificationRecord | None: ...

    def list_for(
        self,
        project: str,
        *,
        incident_id: str | None = None,
        decision: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        now: int,
    ) -> Page:
        """Newest first, of one incident or of the project's last 31 days before `now`."""


class ChannelStore(Protocol):
    def get_all(self, project: str) -> Sequence[Channel]: ...

    def get(self, project: str, channel_id: str) -> Channel | None: ...

    def put(self, channel: Channel, expected_version: int | None) -> bool:
        """Writes a channel over the given version (None: it must not exist). False when another writer was
        first.
        """

    def delete(self, project: str, channel_id: str, expected_version: int) -> bool: ...


class RoutingStore(Protocol):
    def get(self, project: str) -> Routing | None: ...

    def put(self, project: str, routing: Routing, expected_version: int) -> bool:
        """Writes a document over the given version (0: none yet). False when another writer was first."""


class BudgetStore(Protocol):
    def load(self, project: str) -> BudgetState: ...


class SlotStore(Protocol):
    """Leases that cap how many attempts are under way towards one endpoint, over all workers."""

    def enter(self, project: str, channel_id: str, owner: str, now: int, until: int, limit: int) -> bool: ...

    def leave(self, project: str, channel_id: str, owner: str) -> None: ...


class DigestStore(Protocol):
    def ledger(self, project: str, channel_id: str) -> DigestLedger | None: ...

    def move(self, new: DigestLedger) -> bool:
        """Writes a ledger over version `new.version - 1` (0: none yet). False when another worker was
        first.
        """

    def withheld(self, project: str, channel_id: str, start: int, end: int, limit: int) -> Sequence[Withheld]:
        """Notes with start < at <= end, oldest first, read consistently."""


class WebhookSender(Protocol):
    def send(self, channel: Channel, message_id: str, body: bytes, now: int) -> SendResult:
        """Signs afresh and posts once. Never raises for what a receiver does; that is a SendResult."""


class MailSender(Protocol):
    @property
    def sender(self) -> str:
        """The From address."""

    def send(self, message: EmailMessage, to: Sequence[str]) -> SendResult:
        """Hands one message to the mail service. Never raises for what the service answers."""


class Projects(Protocol):
    def __call__(self) -> Iterable[str]: ...


class OpenIncidents(Protocol):
    def __call__(self, project: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """Summaries of open incidents, loudest first."""
