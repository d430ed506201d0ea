"""Quarantines and mitigations in the table; implements ports of tocsin.defense."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from tocsin.aws import evidence, keys
from tocsin.aws.decision_store import DynamoDecisionLog
from tocsin.aws.key_store import APPROVAL_LIFE, DynamoKeys
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.rows import open_row, seal_row
from tocsin.aws.table import ConditionFailed, Row, Table, Update, Write
from tocsin.decisions.ports import SnapshotStore
from tocsin.decisions.snapshots import Snapshot
from tocsin.defense import plans
from tocsin.defense.mitigations import Effect, Mitigation, batch_of
from tocsin.defense.plans import Planned
from tocsin.defense.ports import Json
from tocsin.defense.quarantine import Quarantine, opened, released
from tocsin.kernel import clock
from tocsin.kernel.canonical import canonical_json, digest
from tocsin.kernel.cause import cause
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.sealing import Sealer
from tocsin.signals.ports import OutboxRow

_TRIES: Final = 5


class DynamoQuarantines:
    """Implements QuarantineStore: one sealed row per project, so that a door needs one read."""

    def __init__(self, table: Table, sealer: Sealer) -> None:
        self._table = table
        self._sealer = sealer

    def get(self, project: str) -> tuple[int, Sequence[Quarantine]]:
        row = self._table.get(keys.quarantines(project))
        if row is None:
            return 0, ()
        return row["version"], [Quarantine(**one) for one in open_row(self._sealer, project, row)]

    def put(
        self, project: str, entries: Sequence[Quarantine], expected: int, change: tuple[str, Quarantine], now: int
    ) -> bool:
        write, left = self.write(project, entries, expected, change, now)
        try:
            self._table.transact([write, *outbox_writes(self._table, [left], now)])
        except ConditionFailed:
            return False
        return True

    def write(
        self, project: str, entries: Sequence[Quarantine], expected: int, change: tuple[str, Quarantine], now: int
    ) -> tuple[Write, OutboxRow]:
        """The member of a transaction that replaces the list, and the evidence that goes with it."""
        key = keys.quarantines(project)
        row = {
            "z": seal_row(self._sealer, project, key, [asdict(one) for one in entries]),
            "version": expected + 1,
        }
        if expected:
            write = self._table.put_write(key, row, condition="version = :was", was=expected)
        else:
            write = self._table.put_write(key, row, condition="attribute_not_exists(pk)")
        verb, held = change
        return write, evidence.of_quarantine("open" if verb == "open" else "release", project, held, now)


class DynamoMitigations:
    """Implements MitigationStore: a sealed row per mitigation, and one by what it does, which keeps two of the same
    apart. What a step does to quarantines and keys is in the transaction that moves the step.
    """

    def __init__(
        self, table: Table, sealer: Sealer, objects: Callable[[str], SnapshotStore], *, retention_days: int
    ) -> None:
        self._table, self._sealer, self._objects, self._days = table, sealer, objects, retention_days
        self._kept: set[tuple[str, str]] = set()
        self._quarantines = DynamoQuarantines(table, sealer)

    def _expiry(self, made: Mitigation) -> int:
        return (made.created_at + self._days * clock.DAY) // 1000

    def get(self, project: str, mitigation_id: str) -> Mitigation | None:
        row = self._table.get(keys.mitigation(project, mitigation_id))
        return self._mitigation(project, row) if row else None

    def _mitigation(self, project: str, row: Row) -> Mitigation:
        held = open_row(self._sealer, project, row)
        return Mitigation(**{**held, "steps": tuple(held["steps"]), "decided": tuple(held["decided"])})

    def page(self, project: str, position: str | None, limit: int) -> tuple[Sequence[Mitigation], str | None]:
        partition = keys.mitigation_partition(project)
        rows = list(self._table.query(partition, high=position, newest_first=True, limit=limit + 2))
        ordered = [row for row in rows if row["sk"] != position]
        page = [self._mitigation(project, row) for row in ordered[:limit]]
        return page, page[-1].id if page and len(ordered) > limit else None

    def named(self, project: str, name: str) -> Mitigation | None:
        row = self._table.get(keys.mitigation_name(project, name))
        return self.get(project, row["id"]) if row else None

    def create(self, made: Mitigation, planned: Planned, instead_of: str, now: int) -> bool:
        name, row = keys.mitigation_name(made.project, made.name), {"id": made.id, "exp": self._expiry(made)}
        if instead_of:
            claim = self._table.put_write(name, row, condition="id = :was", was=instead_of)
        else:
            claim = self._table.put_write(name, row, condition="attribute_not_exists(pk)")
        row_of = self._write(made, "attribute_not_exists(pk)")
        writes = [claim, row_of, *outbox_writes(self._table, [evidence.of_mitigation(made, now)], now)]
        if planned.decided:
            self._keep_snapshot(made.project)
            log = DynamoDecisionLog(self._table, self._sealer, made.project, retention_days=self._days)
            writes += log.writes(batch_of(made.id), planned.decided, now)
            for health in planned.healths:
                log.put_health(digest(health).hex(), health)
        try:
            self._table.transact(_each_row_once(writes))
        except ConditionFailed:
            return False
        return True

    def _keep_snapshot(self, project: str) -> None:
        """Put the responders' snapshot where decisions of the project are derived from, once per process."""
        snapshot = plans.engine().snapshot
        if (project, snapshot.name) not in self._kept:
            keep_snapshot(self._objects(project), snapshot)
            self._kept.add((project, snapshot.name))

    def _write(self, made: Mitigation, condition: str, **values: Any) -> Write:
        key = keys.mitigation(made.project, made.id)
        row = {
            "z": seal_row(self._sealer, made.project, key, asdict(made)),
            "version": made.version,
            "exp": self._expiry(made),
        }
        return self._table.put_write(key, row, condition=condition, **values)

    def save(self, after: Mitigation, expected: int, effect: Effect | None, now: int) -> str:
        for _ in range(_TRIES):
            try:
                writes, left = self._effect(after, effect, now) if effect else ((), ())
                rows = [evidence.of_mitigation(after, now), *left]
                moves = self._write(after, "version = :was", was=expected)
                self._table.transact([moves, *writes, *outbox_writes(self._table, rows, now)])
            except Refusal as refusal:
                return refusal.message
            except ConditionFailed as failure:
                if 0 in failure.positions:
                    # The answer to our own first try may have been lost
                    return "done" if self.get(after.project, after.id) == after else "moved"
                continue  # the list of quarantines moved, or the key ended
            return "done"
        raise Retry("what the mitigation changes is contended")

    def _effect(self, made: Mitigation, effect: Effect, now: int) -> tuple[Sequence[Write], Sequence[OutboxRow]]:
        """What a step does, as members of its transaction, with its evidence. Refuses what cannot be done."""
        project = made.project
        if effect.kind == "revoke":
            key_id = effect.name.removeprefix("key_")
            record = DynamoKeys(self._table).get(key_id)
            if record is None or record.project != project or record.refusal_code(now):
                raise Refusal("ERR_NOT_FOUND", "The project has no such key, or it has ended.")
            update = Update(
                keys.api_key(key_id),
                set={"revoked_at": now, "exp": (now + APPROVAL_LIFE) // 1000},
                condition="attribute_exists(pk) AND revoked_at = :none",
                values={"none": None},
            )
            return [self._table.update_write(update)], [evidence.of_key("revoke", record, now)]
        version, entries = self._quarantines.get(project)
        if effect.quarantine is not None:
            after, change = opened(entries, effect.quarantine, now), ("open", effect.quarantine)
        else:
            after = released(entries, effect.name, cause().actor, now)
            held = next((one for one in after if one.id == effect.name and one.released_at == now), None)
            if held is None:
                return (), ()  # it has ended already
            change = ("release", held)
        write, left = self._quarantines.write(project, after, version, change, now)
        return [write], [left]


def keep_snapshot(objects: SnapshotStore, snapshot: Snapshot) -> None:
    """Put a snapshot where certificates of the project's decisions are derived from; again is harmless."""
    objects.create(f"snapshot/{snapshot.name}", canonical_json(snapshot.document()))


def _each_row_once(writes: Sequence[Write]) -> list[Write]:
    """Members of a transaction without repeats: groups of evidence may share a directory row."""
    return list({json.dumps(write.operation, sort_keys=True, default=repr): write for write in writes}.values())


class ProbeLog:
    """Leaves the evidence of probes."""

    def __init__(self, table: Table, now: Callable[[], int]) -> None:
        self._table, self._now = table, now

    def keep(self, project: str, run_id: str, probe: Json) -> None:
        now = self._now()
        self._table.transact(outbox_writes(self._table, [evidence.of_probe(project, run_id, probe, now)], now))
