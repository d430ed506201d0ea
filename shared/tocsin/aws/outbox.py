"""The outbox: rows written in the action's own transaction, sent right after it, and swept by the relay if that fails.

Rows sit, packed, in a partition per project, minute and shard; those of one moment share one. A directory row per
such partition (`due#<minute>`) lets the relay find what is due without a scan. A row is deleted when it was sent; a
directory row leaves by TTL.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from tocsin.aws import keys
from tocsin.aws.keys import Key
from tocsin.aws.rows import open_row, seal_row
from tocsin.aws.table import ConditionFailed, Table, Write
from tocsin.kernel import clock
from tocsin.kernel.envelope import pack
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.sealing import Sealer
from tocsin.signals.ports import Bus, Fact, OutboxRow

#: Rows younger than this are still in the hands of the worker that wrote them.
GRACE_MS: Final = 10 * clock.SECOND
#: How far back the very first sweep of a deployment looks.
_FIRST_LOOK_MINUTES: Final = 24 * 60
#: A sweep stops with this much time left, in ms.
_STOP_MS: Final = 5_000
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


def outbox_writes(table: Table, rows: Sequence[OutboxRow], now: int, sealer: Sealer | None = None) -> list[Write]:
    """Members of a transaction that record `rows` and the partitions they are found in.

    With a sealer payloads are sealed: facts hold text of people, deliveries and timers only refer to it, and evidence
    holds digests, which outlive the project's key.
    """
    writes = []
    directories: dict[Key, int] = {}
    for row in rows:
        evidence = row.kind == "evidence"
        life_s = max(row.due, now) // 1000 + (_EVIDENCE_LIFE_S if evidence else _DIRECTORY_LIFE_S)
        content = {
            "kind": row.kind,
            "due": row.due,
            "project": row.project,
            "turn": row.turn,
            "exp": life_s,
            "z": pack(row.payload),
        }
        if sealer and not evidence:
            content["z"] = seal_row(sealer, row.project, outbox_key(row), row.payload)
        if evidence:
            content["written"], directory = now, keys.evidence_due(now, row.project, row.due, row.row_id)
        else:
            directory = keys.due(keys.minute(row.due), row.project, keys.outbox_shard(row.due))
        writes.append(table.put_write(outbox_key(row), content | {"row_id": row.row_id}))
        directories[directory] = max(life_s, directories.get(directory, 0))
    writes += [table.put_write(key, {"exp": life_s}) for key, life_s in sorted(directories.items())]
    return writes


def _facts(row: OutboxRow) -> list[Fact]:
    return [Fact(fact["kind"], fact["detail"]) for fact in row.payload["facts"]]


class DynamoOutbox:
    """Sends outbox rows: facts to the bus, deliveries to the notify queue, timers to the correlate queue."""

    def __init__(self, table: Table, bus: Bus, deliveries: Sender, timers: Sender, sealer: Sealer) -> None:
        self._table = table
        self._sealer = sealer
        self._bus = bus
        self._senders = {"deliver": deliveries, "timer": timers}

    def publish(self, rows: Sequence[OutboxRow]) -> Collection[str]:
        """Send rows and delete those that were taken; returns their ids. Anything else stays for the relay.

        A row of several facts stays, as a whole, until each was taken: whoever hears facts may hear one again.
        """
        sent = [row for row in rows if row.kind in self._senders and self._sent(row)]
        told = {row.row_id: _facts(row) for row in rows if row.kind == "fact"}
        everything = [fact for facts in told.values() for fact in facts]
        if not self._told(everything):
            told = {name: facts for name, facts in told.items() if len(everything) > 1 and self._each_told(facts)}
        sent += [row for row in rows if row.row_id in told]
        if sent:
            self._table.delete_all(outbox_key(row) for row in sent)
        return {row.row_id for row in sent}

    def _each_told(self, facts: Sequence[Fact]) -> bool:
        """Tell facts one by one: one that cannot be sent must not hold back the others."""
        return sum(self._told([fact]) for fact in facts) == len(facts)

    def _told(self, facts: Sequence[Fact]) -> bool:
        try:
            self._bus.publish(facts)
        except Retry:
            return False
        return True

    def _sent(self, row: OutboxRow) -> bool:
        try:
            self._senders[row.kind].send(row.payload)
        except Retry:
            return False
        return True

    def sweep(self, now: int, remaining_ms: Callable[[], int] = lambda: 60_000) -> int:
        """Send everything that is overdue, oldest minute first; returns the number of rows sent.

        The watermark is the first minute that may still hold unsent rows. A row that cannot be sent moves to a later
        minute, so the watermark always advances and one project's trouble is nobody else's.
        """
        watermark = keys.relay_watermark()
        row = self._table.get(watermark)
        start = int(row["minute"]) if row else now // clock.MINUTE - _FIRST_LOOK_MINUTES
        current = now // clock.MINUTE
        # Rows may still be added to the current minute and, by slow workers, to the ones right before it.
        closed = current - 2
        sent, reached = 0, start
        for minute in range(start, current + 1):
            if remaining_ms() < _STOP_MS:
                break
            for due_row in self._table.query(keys.due(f"{minute:010d}", "p", 0).pk):
                project, _, shard = due_row["sk"].rpartition("#")
                sent += self._send_overdue(project, minute, int(shard), now)
            reached = minute
        reached = min(reached, closed)
        if reached > start:
            self._table.put(watermark, {"minute": reached, "at": now})
        return sent

    def _send_overdue(self, project: str, minute: int, shard: int, now: int) -> int:
        overdue = self._overdue(project, minute, shard, now)
        sent = self.publish(overdue)
        for row in overdue:
            if row.row_id not in sent:
                self._postpone(row, now)
        return len(sent)

    def _postpone(self, row: OutboxRow, now: int) -> None:
        """Move a row that could not be sent to a later minute, further away with every try."""
        turn = row.turn + 1
        later = replace(row, due=now + min(2**turn * 10 * clock.SECOND, clock.HOUR), turn=turn)
        delete = self._table.delete_write(outbox_key(row), condition="attribute_exists(pk)")
        try:
            self._table.transact([delete, *outbox_writes(self._table, [later], now, self._sealer)])
        except ConditionFailed:
            return  # somebody sent it meanwhile

    def _overdue(self, project: str, minute: int, shard: int, now: int) -> list[OutboxRow]:
        """Rows of one partition to send now; in a minute that is over, those are all."""
        over = minute < now // clock.MINUTE - 2
        return [
            row
            for row in self._rows(project, minute, shard)
            if over or row.due + (GRACE_MS if row.kind == "fact" and not row.turn else 0) <= now
        ]

    def _rows(self, project: str, minute: int, shard: int) -> Iterator[OutboxRow]:
        for row in self._table.query(keys.outbox_partition(project, f"{minute:010d}", shard)):
            if "z" not in row:
                continue  # a row in another form is not ours to send, and must not stop the sweep
            try:
                payload = open_row(self._sealer, project, row)
            except Refusal as refusal:
                if refusal.code != "ERR_PROJECT_DELETED":
                    raise
                continue  # nobody is left to be told
            yield OutboxRow(row["project"], row["row_id"], row["kind"], row["due"], payload, row.get("turn", 0))
