"""Digests: what was withheld from a channel since its last digest, and what is open, once per slot.

Slots are the full hours (hourly) or 08:00 UTC (daily). A digest is one notification record keyed by its slot,
so it is sent once however often a schedule fires, and retried like everything else. The ledger of a channel
is moved before the notes are read; from then on no older note can be added, so nothing falls between two
digests and a digest begun by a worker that died is finished with the same lines. Slots that passed without a
run are caught up by one late digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tocsin.delivery.dispatch import Dispatcher
from tocsin.delivery.model import DIGEST, TIERS, Channel, NotificationRecord
from tocsin.delivery.ports import ChannelStore, DigestLedger, DigestStore, OpenIncidents, Projects, Withheld
from tocsin.kernel import clock

DAILY_AT_MS: Final = 8 * clock.HOUR
#: Notes read for one digest; what is beyond is said to be beyond.
MAX_NOTES: Final = 5_000
#: Incidents listed one by one.
MAX_LISTED: Final = 50
MAX_OPEN: Final = 20


def slot_of(mode: str, at: int) -> int:
    """Start, in Unix ms, of the slot that `at` belongs to; the digest of a slot is due at its start."""
    if mode == "hourly":
        return at - at % clock.HOUR
    return (at - DAILY_AT_MS) // clock.DAY * clock.DAY + DAILY_AT_MS


def _period(mode: str) -> int:
    return clock.HOUR if mode == "hourly" else clock.DAY


@dataclass(frozen=True, slots=True)
class Digester:
    """Sends the digests that are due."""

    channels: ChannelStore
    store: DigestStore
    dispatcher: Dispatcher
    open_incidents: OpenIncidents
    projects: Projects
    clock: Callable[[], int] = clock.now_ms

    def tick(self, scheduled_at: int, projects: Iterable[str] | None = None) -> list[NotificationRecord]:
        """Runs the slots that `scheduled_at` (Unix ms) belongs to, for all projects or the given ones."""
        return [
            record
            for project in (self.projects() if projects is None else projects)
            for record in self.run(project, scheduled_at)
        ]

    def run(self, project: str, scheduled_at: int) -> list[NotificationRecord]:
        """The digests of one project's channels that are due at `scheduled_at`."""
        records: list[NotificationRecord] = []
        for channel in self.channels.get_all(project):
            if channel.enabled and channel.digest != "off":
                records += self._run_channel(channel, slot_of(channel.digest, scheduled_at))
        return records

    def _run_channel(self, channel: Channel, slot: int) -> list[NotificationRecord]:
        ledger = self.store.ledger(channel.project, channel.id)
        sent: list[NotificationRecord | None] = []
        if ledger is not None and ledger.open:
            # A worker died here: its slot is finished first, from the same notes.
            sent.append(self._finish(channel, ledger, late=ledger.slot < slot))
            ledger = replace(ledger, open=False, version=ledger.version + 1)
        if ledger is not None and ledger.slot >= slot:
            return [record for record in sent if record]
        missed = None if ledger is None else slot - _period(channel.digest)
        if ledger is not None and missed is not None and ledger.slot < missed:
            ledger = self._begin(channel, ledger, missed, end=missed)
            if ledger is None:
                return [record for record in sent if record]
            sent.append(self._finish(channel, ledger, late=True))
            ledger = replace(ledger, open=False, version=ledger.version + 1)
        begun = self._begin(channel, ledger, slot, end=self.clock())
        if begun is not None:
            sent.append(self._finish(channel, begun, late=False))
        return [record for record in sent if record]

    def _begin(self, channel: Channel, ledger: DigestLedger | None, slot: int, end: int) -> DigestLedger | None:
        """Moves the ledger to `slot`, closing the time up to `end`; None when another worker was first."""
        start = channel.created_at - 1 if ledger is None else ledger.end
        begun = DigestLedger(
            project=channel.project,
            channel_id=channel.id,
            slot=slot,
            start=start,
            end=max(start, end),
            open=True,
            version=1 if ledger is None else ledger.version + 1,
        )
        return begun if self.store.move(begun) else None

    def _finish(self, channel: Channel, ledger: DigestLedger, *, late: bool) -> NotificationRecord | None:
        """Claims and sends the digest of an open ledger, then closes it. Hourly digests with nothing to say
        are not sent.
        """
        notes = self.store.withheld(channel.project, channel.id, ledger.start, ledger.end, MAX_NOTES + 1)
        record = None
        if notes or channel.digest == "daily":
            record = self.dispatcher.announce(self._record(channel, ledger, notes, late), channel)
        # A lost race here means that another worker closed the same slot after the same claim.
        self.store.move(replace(ledger, open=False, version=ledger.version + 1))
        return record

    def _record(
        self, channel: Channel, ledger: DigestLedger, notes: Sequence[Withheld], late: bool
    ) -> NotificationRecord:
        day = clock.rfc3339(ledger.slot)[:10].replace("-", "")
        return NotificationRecord(
            project=channel.project,
            incident_id=f"digest_{day}",
            seq=ledger.slot // clock.SECOND,
            kind=DIGEST,
            channel_id=channel.id,
            decision="pending",
            created_at=self.clock(),
            tier=max((note.tier for note in notes), key=TIERS.index, default="info"),
            payload={
                "at": ledger.slot,
                "data": {
                    "project": channel.project,
                    "mode": channel.digest,
                    "slot": clock.rfc3339(ledger.slot),
                    "late": late,
                    "since": clock.rfc3339(max(0, ledger.start)),
                    "until": clock.rfc3339(ledger.end),
                    "withheld": account(notes),
                    "open_incidents": [dict(item) for item in self.open_incidents(channel.project, MAX_OPEN)],
                },
            },
        )


def account(notes: Sequence[Withheld]) -> dict[str, Any]:
    """What was withheld: totals by reason and tier, and the incidents it was about, loudest first.

    {"total", "by_reason", "by_tier", "incidents": [{incident_id, tier, score, title, kind, at, count,
    reasons}], "more", "truncated"}; `more` counts the incidents beyond the listed ones, `truncated` says that
    even counting was cut short.
    """
    counted = notes[:MAX_NOTES]
    incidents: dict[str, list[Withheld]] = {}
    for note in counted:
        incidents.setdefault(note.incident_id, []).append(note)
    ranked = sorted(
        incidents.values(),
        key=lambda group: (
            -max(TIERS.index(note.tier) for note in group),
            -group[-1].score,
            group[-1].incident_id,
        ),
    )
    return {
        "total": len(counted),
        "by_reason": _counts(note.reason for note in counted),
        "by_tier": _counts(note.tier for note in counted),
        "incidents": [_line(group) for group in ranked[:MAX_LISTED]],
        "more": max(0, len(ranked) - MAX_LISTED),
        "truncated": len(notes) > MAX_NOTES,
    }


def _line(group: Sequence[Withheld]) -> Mapping[str, Any]:
    last = max(group, key=lambda note: (note.at, note.seq))
    return {
        "incident_id": last.incident_id,
        "tier": last.tier,
        "score": last.score,
        "title": last.title,
        "kind": last.kind,
        "at": clock.rfc3339(last.at),
        "count": len(group),
        "reasons": _counts(note.reason for note in group),
    }


def _counts(words: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return dict(sorted(counts.items()))
