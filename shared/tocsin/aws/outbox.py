"""The outbox: rows written in the action's own transaction, sent right after it, and swept by the relay if that fails.

Rows sit in a partition per project, minute and shard. A directory row per such partition (`due#<minute>`) lets the
relay find what is due without a scan. A row is deleted when it was sent; a directory row leaves by TTL.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from tocsin.aws import keys
from tocsin.aws.keys import Key
from tocsin.aws.table import Table, Write
from tocsin.kernel import clock
from tocsin.kernel.errors import Retry
from tocsin.signals.ports import Bus, Fact, OutboxRow

#: Rows younger than this are still in the hands of the worker that wrote them.
GRACE_MS: Final = 10 * clock.SECOND
_DIRECTORY_LIFE_S: Final = 14 * clock.DAY // 1000
#: Evidence may wait so long for the journal; its alarm goes off after minutes.
_EVIDENCE_LIFE_S: Final = 90 * clock.DAY // 1000


class Sender(Protocol):
    """A queue that takes messages for one kind of outbox row."""

    def send(self, message: Mapping[str, Any]) -> None: ...


def outbox_key(row: OutboxRow) -> Key:
    if row.kind == "evidence":
        return keys.evidence(row.project, row.due, row.row_id)
    return keys.outbox(row.project, row.due, row.row_id)


def outbox_writes(table: Table, rows: Sequence[OutboxRow], now: int) -> list[Write]:
    """Members of a transaction that record `rows` and the partitions they are found in."""
    writes = []
    directories: dict[Key, int] = {}
    for row in rows:
        evidence = row.kind == "evidence"
        life_s = max(row.due, now) // 1000 + (_EVIDENCE_LIFE_S if evidence else _DIRECTORY_LIFE_S)
        content = {"kind": row.kind, "due": row.due, "payload": row.payload, "project": row.project, "exp": life_s}
        if evidence:
            content["written"], directory = now, keys.evidence_due(now, row.project, row.due)
        else:
            directory = keys.due(keys.minute(row.due), row.project, keys.outbox_shard(row.row_id))
        writes.append(table.put_write(outbox_key(row), content | {"row_id": row.row_id}))
        directories[directory] = max(life_s, directories.get(directory, 0))
    writes += [table.put_write(key, {"exp": life_s}) for key, life_s in sorted(directories.items())]
    return writes


class DynamoOutbox:
    """Sends outbox rows: facts to the bus, deliveries to the notify queue, timers to the correlate queue."""

    def __init__(self, table: Table, bus: Bus, deliveries: Sender, timers: Sender) -> None:
        self._table = table
        self._bus = bus
        self._senders = {"deliver": deliveries, "timer": timers}

    def publish(self, rows: Sequence[OutboxRow]) -> None:
        """Send rows and delete those that were taken; anything else stays for the relay."""
        sent = [row for row in rows if row.kind in self._senders and self._sent(row)]
        facts = [row for row in rows if row.kind == "fact"]
        try:
            self._bus.publish([Fact(row.payload["kind"], row.payload["detail"]) for row in facts])
            sent += facts
        except Retry:
            pass  # the rows stay; the relay sends them within a minute
        if sent:
            self._table.delete_all(outbox_key(row) for row in sent)

    def _sent(self, row: OutboxRow) -> bool:
        try:
            self._senders[row.kind].send(row.payload)
        except Retry:
            return False
        return True

    def sweep(self, now: int, limit: int = 500) -> int:
        """Send everything that is overdue, oldest minute first; returns the number of rows sent.

        The watermark is the first minute that may still hold unsent rows; it moves only over minutes found empty.
        """
        watermark = keys.relay_watermark()
        row = self._table.get(watermark)
        start = int(row["minute"]) if row else now // clock.MINUTE - 60
        current = now // clock.MINUTE
        sent, first_open = 0, None
        for minute in range(start, current + 1):
            left = False
            for due_row in self._table.query(keys.due(f"{minute:010d}", "p", 0).pk):
                project, _, shard = due_row["sk"].rpartition("#")
                batch, waiting = self._overdue(project, minute, int(shard), now)
                self.publish(batch)
                sent += len(batch)
                left = left or waiting or bool(batch)
                if sent >= limit:
                    return sent
            if left and first_open is None:
                first_open = minute
        # Rows may still be added to the current minute and, by slow workers, to the one before it.
        reached = min(first_open if first_open is not None else current, current - 2)
        if reached > start:
            self._table.put(watermark, {"minute": reached, "at": now})
        return sent

    def _overdue(self, project: str, minute: int, shard: int, now: int) -> tuple[list[OutboxRow], bool]:
        """Rows of one partition to send now, and whether others must wait."""
        batch, waiting = [], False
        for row in self._rows(project, minute, shard):
            grace = GRACE_MS if row.kind == "fact" else 0
            if row.due + grace <= now:
                batch.append(row)
            else:
                waiting = True
        return batch, waiting

    def _rows(self, project: str, minute: int, shard: int) -> Iterator[OutboxRow]:
        for row in self._table.query(keys.outbox_partition(project, f"{minute:010d}", shard)):
            yield OutboxRow(row["project"], row["row_id"], row["kind"], row["due"], row["payload"])
