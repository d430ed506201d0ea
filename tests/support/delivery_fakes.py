"""Delivery's ports in memory, with the same conditions as the tables, and a receiver whose answers tests
script.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from typing import Any

from tocsin.delivery.budget import BudgetState
from tocsin.delivery.dispatch import Dispatcher, Policy, Ports
from tocsin.delivery.model import Channel, NotificationRecord
from tocsin.delivery.ports import Claim, DigestLedger, Page, SendResult, Withheld
from tocsin.delivery.routing import Routing

Ref = tuple[str, str, int, str]


def ref(record: NotificationRecord) -> Ref:
    return (record.project, record.incident_id, record.seq, record.channel_id)


class Killed(BaseException):
    """The worker dies here. Not an Exception, so that no handler can survive it."""


@dataclass
class World:
    """All state of delivery, and a clock that only tests move."""

    now: int = 1_800_000_000_000
    records: dict[Ref, NotificationRecord] = field(default_factory=dict)
    outbox: dict[Ref, int] = field(default_factory=dict)
    channels: dict[tuple[str, str], Channel] = field(default_factory=dict)
    documents: dict[str, Routing] = field(default_factory=dict)
    budgets: dict[str, BudgetState] = field(default_factory=dict)
    slots: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    ledgers: dict[tuple[str, str], DigestLedger] = field(default_factory=dict)
    notes: list[Withheld] = field(default_factory=list)
    kill_before_save: int = 0

    def clock(self) -> int:
        return self.now

    # NotificationStore
    def claim(
        self,
        record: NotificationRecord,
        *,
        budget: tuple[BudgetState, BudgetState] | None = None,
        note: Withheld | None = None,
    ) -> Claim:
        if ref(record) in self.records:
            return Claim.EXISTS
        if budget and self.load(record.project).version != budget[0].version:
            return Claim.RACED
        if note:
            ledger = self.ledgers.get((note.project, note.channel_id))
            if ledger and ledger.end >= note.at:
                return Claim.RACED
            self.notes.append(note)
        if budget:
            self.budgets[record.project] = budget[1]
        self.records[ref(record)] = record
        if record.wake_at is not None:
            self.outbox[ref(record)] = record.wake_at
        return Claim.WON

    def save(self, old: NotificationRecord, new: NotificationRecord) -> bool:
        if self.kill_before_save:
            self.kill_before_save -= 1
            if not self.kill_before_save:
                raise Killed
        if self.records[ref(old)].version != old.version:
            return False
        self.records[ref(new)] = new
        self.outbox.pop(ref(old), None)
        if new.wake_at is not None:
            self.outbox[ref(new)] = new.wake_at
        return True

    def get_record(self, project: str, incident_id: str, seq: int, channel_id: str) -> NotificationRecord | None:
        return self.records.get((project, incident_id, seq, channel_id))

    # BudgetStore
    def load(self, project: str) -> BudgetState:
        return self.budgets.get(project, BudgetState(0, {}))

    # SlotStore
    def enter(self, project: str, channel_id: str, owner: str, now: int, until: int, limit: int) -> bool:
        held = self.slots.setdefault((project, channel_id), {})
        for name in [name for name, end in held.items() if end <= now]:
            del held[name]
        if len(held) >= limit:
            return False
        held[owner] = until
        return True

    def leave(self, project: str, channel_id: str, owner: str) -> None:
        self.slots[(project, channel_id)].pop(owner, None)

    # DigestStore
    def ledger(self, project: str, channel_id: str) -> DigestLedger | None:
        return self.ledgers.get((project, channel_id))

    def move(self, new: DigestLedger) -> bool:
        current = self.ledgers.get((new.project, new.channel_id))
        if (current.version if current else 0) != new.version - 1:
            return False
        self.ledgers[(new.project, new.channel_id)] = new
        return True

    def withheld(self, project: str, channel_id: str, start: int, end: int, limit: int) -> Sequence[Withheld]:
        found = [n for n in self.notes if (n.project, n.channel_id) == (project, channel_id) and start < n.at <= end]
        return sorted(found, key=lambda note: note.at)[:limit]


class Records:
    """The NotificationStore view of a world."""

    def __init__(self, world: World) -> None:
        self.claim, self.save, self.get = world.claim, world.save, world.get_record
        self._world = world

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
        rows = sorted(
            (r for r in self._world.records.values() if r.project == project),
            key=lambda r: (r.created_at, r.id),
            reverse=True,
        )
        rows = [r for r in rows if incident_id in (None, r.incident_id)]
        start = int(cursor or 0)
        page = [r for r in rows[start:] if decision in (None, r.decision)][:limit]
        return Page(page, None, len(rows))


class ChannelRows:
    """The ChannelStore view of a world."""

    def __init__(self, world: World) -> None:
        self._rows = world.channels

    def get_all(self, project: str) -> list[Channel]:
        return [channel for (owner, _), channel in sorted(self._rows.items()) if owner == project]

    def get(self, project: str, channel_id: str) -> Channel | None:
        return self._rows.get((project, channel_id))

    def put(self, channel: Channel, expected_version: int | None) -> bool:
        current = self._rows.get((channel.project, channel.id))
        if (current.version if current else None) != expected_version:
            return False
        self._rows[(channel.project, channel.id)] = channel
        return True

    def delete(self, project: str, channel_id: str, expected_version: int) -> bool:
        current = self._rows.get((project, channel_id))
        if current is None or current.version != expected_version:
            return False
        del self._rows[(project, channel_id)]
        return True


class RoutingRows:
    """The RoutingStore view of a world."""

    def __init__(self, world: World) -> None:
        self._rows = world.documents

    def get(self, project: str) -> Routing | None:
        return self._rows.get(project)

    def put(self, project: str, routing: Routing, expected_version: int) -> bool:
        current = self._rows.get(project)
        if (current.version if current else 0) != expected_version:
            return False
        self._rows[project] = replace(routing, version=expected_version + 1)
        return True


@dataclass
class Receiver:
    """A webhook endpoint: answers from `script`, then 200. Keeps what it was sent, as the wire would show
    it.
    """

    script: deque[SendResult] = field(default_factory=deque)
    got: list[tuple[str, str, bytes, int]] = field(default_factory=list)
    during: Callable[[], None] = lambda: None

    def send(self, channel: Channel, message_id: str, body: bytes, now: int) -> SendResult:
        self.got.append((channel.id, message_id, body, now))
        self.during()
        return self.script.popleft() if self.script else SendResult(200, ms=3)


@dataclass
class Postbox:
    """A mail service that takes everything unless told otherwise."""

    sender: str = "Tocsin <alarm@tocsin.example>"
    script: deque[SendResult] = field(default_factory=deque)
    got: list[tuple[EmailMessage, tuple[str, ...]]] = field(default_factory=list)

    def send(self, message: EmailMessage, to: Sequence[str]) -> SendResult:
        self.got.append((message, tuple(to)))
        return self.script.popleft() if self.script else SendResult(250, ms=2)


@dataclass
class Bench:
    """A world with its dispatcher and receivers."""

    world: World = field(default_factory=World)
    receiver: Receiver = field(default_factory=Receiver)
    postbox: Postbox = field(default_factory=Postbox)
    policy: Policy = field(default_factory=lambda: Policy(api_url="https://api.example/prod"))

    def ports(self) -> Ports:
        return Ports(
            notifications=Records(self.world),
            channels=ChannelRows(self.world),
            routing=RoutingRows(self.world),
            budgets=self.world,
            slots=self.world,
            webhooks=self.receiver,
            mails=self.postbox,
            clock=self.world.clock,
            chance=lambda: 0.5,
        )

    def dispatcher(self) -> Dispatcher:
        return Dispatcher(self.ports(), self.policy)

    def add(self, channel: Channel) -> Channel:
        self.world.channels[(channel.project, channel.id)] = channel
        return channel

    def relay(self, until: int) -> list[NotificationRecord | None]:
        """Plays the relay: every outbox row due up to `until` is sent and deleted, in order of its due
        time.
        """
        done = []
        while due := [(at, key) for key, at in self.world.outbox.items() if at <= until]:
            at, key = min(due)
            del self.world.outbox[key]
            self.world.now = max(self.world.now, at)
            project, incident_id, seq, channel_id = key
            done.append(
                self.dispatcher().deliver(
                    {
                        "project": project,
                        "incident_id": incident_id,
                        "seq": seq,
                        "channel_id": channel_id,
                        "wake_at": at,
                    }
                )
            )
        return done


def webhook(name: str = "ops", project: str = "acme", **changes: Any) -> Channel:
    base = Channel(
        id=f"chn_{name}",
        project=project,
        kind="webhook",
        name=name,
        created_at=1,
        url="https://hooks.example/in",
    )
    return replace(base, **changes)


def mailbox(name: str = "mail", project: str = "acme", **changes: Any) -> Channel:
    base = Channel(id=f"chn_{name}", project=project, kind="email", name=name, created_at=2, to=("duty@example.org",))
    return replace(base, **changes)


def fact(seq: int = 1, kind: str = "opened", *, incident: str = "inc_1", **summary: Any) -> dict[str, Any]:
    """The detail of a bus message about one incident of project acme."""
    content: Mapping[str, Any] = {
        "title": "database unreachable",
        "tier": "high",
        "score": 0.81,
        "status": "open",
        "services": ["checkout"],
        "entities": [{"type": "service", "id": "db-1"}],
        "sources": ["prometheus"],
        "tags": {"team": ["db"], "env": "prod"},
        "events": 3,
        "reasons": [{"text": "same entity service:db-1"}],
        **summary,
    }
    return {
        "project": "acme",
        "incident_id": incident,
        "seq": seq,
        "kind": kind,
        "at": 1_800_000_000_000,
        "summary": content,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }


class Context:
    """A Lambda context with time left."""

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        return 20_000
