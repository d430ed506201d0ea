"""Delivery's rows in DynamoDB; implements the stores of tocsin.delivery.ports.

A notification is one row in its incident's partition and a pointer in the partition of its day. Whatever must
change together (record, outbox row, budget, digest note) is one transaction. What rows say (`z`) is sealed with the
project's data key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from tocsin.aws import evidence, keys
from tocsin.aws.documents import Documents
from tocsin.aws.outbox import outbox_key, outbox_writes
from tocsin.aws.rows import open_row, seal_row
from tocsin.aws.table import ConditionFailed, Row, Table, Write
from tocsin.delivery.budget import BudgetState
from tocsin.delivery.model import Attempt, Channel, NotificationRecord, PushBudget
from tocsin.delivery.ports import Claim, DigestLedger, Page, Withheld
from tocsin.delivery.routing import Routing, stored_routing
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal
from tocsin.kernel.sealing import Sealer
from tocsin.signals.ports import OutboxRow

#: Days a listing of the whole project goes back.
LISTED_DAYS: Final = 31
#: Pointers read for one page; a page may be partial and then has a cursor.
MAX_SCANNED: Final = 200
_ROUTING: Final = "routing"


def _record(content: dict[str, Any]) -> NotificationRecord:
    content["attempts"] = tuple(Attempt(**attempt) for attempt in content["attempts"])
    return NotificationRecord(**content)


def _channel(content: dict[str, Any]) -> Channel:
    content["to"] = tuple(content["to"])
    content["budget"] = PushBudget(**content["budget"])
    return Channel(**content)


def _wake(record: NotificationRecord) -> OutboxRow | None:
    """The outbox row that brings an unfinished record back."""
    if record.wake_at is None:
        return None
    reference = {
        "project": record.project,
        "incident_id": record.incident_id,
        "seq": record.seq,
        "channel_id": record.channel_id,
        "wake_at": record.wake_at,
    }
    payload = {"kind": "deliver", "record": reference}
    return OutboxRow(record.project, record.id, "deliver", record.wake_at, payload)


class DynamoNotifications:
    """Implements NotificationStore."""

    def __init__(self, table: Table, sealer: Sealer, *, retention_days: int) -> None:
        self._table = table
        self._sealer = sealer
        self._retention_s = retention_days * clock.DAY // 1000

    def claim(
        self,
        record: NotificationRecord,
        *,
        budget: tuple[BudgetState, BudgetState] | None = None,
        note: Withheld | None = None,
    ) -> Claim:
        table = self._table
        exp = record.created_at // 1000 + self._retention_s
        at = (record.incident_id, record.seq, record.channel_id)
        pointer = {"incident_id": at[0], "seq": at[1], "channel_id": at[2], "exp": exp}
        writes = [
            self._put(record, condition="attribute_not_exists(pk)"),
            table.put_write(keys.notification_pointer(record.project, record.created_at, *at), pointer),
        ]
        wake = _wake(record)
        writes += outbox_writes(
            table,
            [*([wake] if wake else ()), *evidence.of_notification(record, record.created_at)],
            record.created_at,
        )
        if budget:
            before, after = budget
            row = {"version": after.version, "tats": dict(after.tats)}
            writes.append(_versioned(table, keys.push_budget(record.project), row, before.version))
        if note:
            key = keys.withheld(note.project, note.channel_id, note.at, note.incident_id, note.seq)
            sealed = seal_row(self._sealer, note.project, key, asdict(note))
            writes.append(table.put_write(key, {"z": sealed, "exp": exp}))
            ledger = keys.digest_ledger(note.project, note.channel_id)
            condition = "attribute_not_exists(pk) OR upto < :at"
            writes.append(table.check_write(ledger, condition=condition, at=note.at))
        try:
            table.transact(writes)
        except ConditionFailed as failure:
            return Claim.EXISTS if 0 in failure.positions else Claim.RACED
        return Claim.WON

    def save(self, old: NotificationRecord, new: NotificationRecord) -> bool:
        before, after = _wake(old), _wake(new)
        writes = [self._put(new, condition="version = :was", was=old.version)]
        now = clock.now_ms()
        writes += outbox_writes(self._table, [*([after] if after else ()), *evidence.of_notification(new, now)], now)
        if before and before.due != (after.due if after else None):
            writes.append(self._table.delete_write(outbox_key(before)))
        try:
            self._table.transact(writes)
        except ConditionFailed:
            return False
        return True

    def _put(self, record: NotificationRecord, *, condition: str, **values: Any) -> Write:
        key = keys.notification(record.project, record.incident_id, record.seq, record.channel_id)
        row = {
            "z": seal_row(self._sealer, record.project, key, asdict(record)),
            "version": record.version,
            "decision": record.decision,
            "exp": record.created_at // 1000 + self._retention_s,
        }
        return self._table.put_write(key, row, condition=condition, **values)

    def get(self, project: str, incident_id: str, seq: int, channel_id: str) -> NotificationRecord | None:
        row = self._table.get(keys.notification(project, incident_id, seq, channel_id))
        return _record(open_row(self._sealer, project, row)) if row else None

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
        rows = self._of_incident(project, incident_id, cursor) if incident_id else self._of_days(project, cursor, now)
        found: list[NotificationRecord] = []
        scanned = 0
        for position, row in rows:
            scanned += 1
            if row and decision in (None, row["decision"]):
                found.append(_record(open_row(self._sealer, project, row)))
            if len(found) >= limit or scanned >= MAX_SCANNED:
                return Page(found, position, scanned)
        return Page(found, None, scanned)

    def _of_incident(self, project: str, incident_id: str, cursor: str | None) -> Iterator[tuple[str, Row | None]]:
        rows = self._table.query(keys.notification_partition(project, incident_id), high=cursor, newest_first=True)
        return ((row["sk"], row) for row in rows if row["sk"] != cursor)

    def _of_days(self, project: str, cursor: str | None, now: int) -> Iterator[tuple[str, Row | None]]:
        """Rows behind the day pointers, newest first, read in groups; the position is the pointer's sort
        key.
        """
        newest = int(cursor.partition("#")[0]) if cursor else now
        for day_at in range(newest, now - LISTED_DAYS * clock.DAY, -clock.DAY):
            pk = keys.notification_day(project, keys.day(day_at))
            pointers = self._table.query(pk, high=cursor, newest_first=True)
            for group in _groups((row for row in pointers if row["sk"] != cursor), 25):
                at = [keys.notification(project, row["incident_id"], row["seq"], row["channel_id"]) for row in group]
                rows = self._table.batch_get(at)
                yield from ((row["sk"], rows.get(key)) for row, key in zip(group, at, strict=True))
            cursor = None


def _groups(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _versioned(table: Table, key: keys.Key, row: Mapping[str, Any], expected: int) -> Write:
    """A put over the given version; 0 means that there is no row yet."""
    if expected == 0:
        return table.put_write(key, row, condition="attribute_not_exists(pk)")
    return table.put_write(key, row, condition="version = :was", was=expected)


def _carried_out(table: Table, *writes: Write) -> bool:
    try:
        table.transact(writes)
    except ConditionFailed:
        return False
    return True


class DynamoChannels:
    """Implements ChannelStore. Addresses of people are among the content, so it is sealed too."""

    def __init__(self, table: Table, sealer: Sealer) -> None:
        self._table = table
        self._sealer = sealer

    def get_all(self, project: str) -> Sequence[Channel]:
        rows = self._table.query(keys.channel_partition(project))
        return [_channel(open_row(self._sealer, project, row)) for row in rows]

    def get(self, project: str, channel_id: str) -> Channel | None:
        row = self._table.get(keys.channel(project, channel_id))
        return _channel(open_row(self._sealer, project, row)) if row else None

    def put(self, channel: Channel, expected_version: int | None) -> bool:
        key, now = keys.channel(channel.project, channel.id), clock.now_ms()
        row = {"z": seal_row(self._sealer, channel.project, key, asdict(channel)), "version": channel.version}
        left = evidence.of_channel("change" if expected_version else "create", channel, now)
        write = _versioned(self._table, key, row, expected_version or 0)
        return _carried_out(self._table, write, *outbox_writes(self._table, [left], now))

    def delete(self, project: str, channel_id: str, expected_version: int) -> bool:
        channel, now = self.get(project, channel_id), clock.now_ms()
        if channel is None:
            return False
        key = keys.channel(project, channel_id)
        write = self._table.delete_write(key, condition="version = :was", was=expected_version)
        left = evidence.of_channel("delete", channel, now)
        return _carried_out(self._table, write, *outbox_writes(self._table, [left], now))


class DynamoRouting:
    """Implements RoutingStore on the project's documents."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def get(self, project: str) -> Routing | None:
        version, document = self._documents.get(project, _ROUTING)
        return stored_routing(document, version) if version else None

    def put(self, project: str, routing: Routing, expected_version: int) -> bool:
        try:
            self._documents.put(project, _ROUTING, routing.as_json(), expected_version, clock.now_ms())
        except Refusal as refusal:
            if refusal.code == "ERR_CONFLICT":
                return False
            raise
        return True


class DynamoBudgets:
    """Implements BudgetStore: all buckets of a project in one small row, written by claims."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def load(self, project: str) -> BudgetState:
        row = self._table.get(keys.push_budget(project))
        return BudgetState(row["version"], row["tats"]) if row else BudgetState(0, {})


class DynamoSlots:
    """Implements SlotStore: a row per slot, free when it is absent or its lease has ended."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._held: dict[str, int] = {}

    def enter(self, project: str, channel_id: str, owner: str, now: int, until: int, limit: int) -> bool:
        row = {"held_by": owner, "held_until": until, "exp": until // 1000 + 3600}
        free = "attribute_not_exists(pk) OR held_until <= :now"
        for n in range(limit):
            try:
                self._table.put(keys.delivery_slot(project, channel_id, n), row, condition=free, now=now)
            except ConditionFailed:
                continue
            self._held[owner] = n
            return True
        return False

    def leave(self, project: str, channel_id: str, owner: str) -> None:
        n = self._held.pop(owner, None)
        if n is None:
            return
        try:
            key = keys.delivery_slot(project, channel_id, n)
            self._table.delete(key, condition="held_by = :owner", owner=owner)
        except ConditionFailed:
            return  # the lease ended and somebody else has the slot


class DynamoDigests:
    """Implements DigestStore."""

    def __init__(self, table: Table, sealer: Sealer, *, retention_days: int) -> None:
        self._table = table
        self._sealer = sealer
        self._retention_ms = retention_days * clock.DAY

    def ledger(self, project: str, channel_id: str) -> DigestLedger | None:
        row = self._table.get(keys.digest_ledger(project, channel_id))
        return DigestLedger(**open_row(self._sealer, project, row)) if row else None

    def move(self, new: DigestLedger) -> bool:
        key = keys.digest_ledger(new.project, new.channel_id)
        row = {
            "z": seal_row(self._sealer, new.project, key, asdict(new)),
            "upto": new.end,
            "version": new.version,
        }
        return _carried_out(self._table, _versioned(self._table, key, row, new.version - 1))

    def withheld(self, project: str, channel_id: str, start: int, end: int, limit: int) -> Sequence[Withheld]:
        names = {field.name for field in fields(Withheld)}
        found: list[Withheld] = []
        first = max(start + 1, end - self._retention_ms)
        last_day = end - end % clock.DAY
        for day_at in range(first - first % clock.DAY, last_day + 1, clock.DAY):
            rows = self._table.query(
                keys.withheld_day(project, channel_id, keys.day(day_at)),
                low=f"{first:015d}",
                high=f"{end:015d}#~",
            )
            for row in rows:
                note = open_row(self._sealer, project, row)
                found.append(Withheld(**{name: note[name] for name in names}))
                if len(found) >= limit:
                    return found
        return found


def known_projects(table: Table) -> Iterator[str]:
    """Projects that ever committed an event: those that can have something to report."""
    return (row["sk"] for row in table.query(keys.known_project("any").pk))
