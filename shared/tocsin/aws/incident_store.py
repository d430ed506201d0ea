"""Incidents, their token index and members in DynamoDB; implements tocsin.signals.ports.IncidentStore."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tocsin.aws import evidence, keys
from tocsin.aws.keys import Key
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.rows import open_row, seal_row
from tocsin.aws.table import ConditionFailed, Row, Table, Write
from tocsin.kernel import clock
from tocsin.kernel.envelope import pack, unpack
from tocsin.kernel.sealing import Sealer
from tocsin.signals.incidents import Effects, Incident, View, incident_ids, summary
from tocsin.signals.ports import Cursor, HeadMoved, OutboxRow

#: How long a token row outlives its last change: the longest incident plus the allowed lateness.
_TOKEN_LIFE_S: Final = 3 * clock.DAY // 1000
#: Longest chain of merges that is followed; the engine follows as many.
_MERGE_HOPS: Final = 64
#: How far a digest looks back for open incidents, and how many it looks at.
_OPEN_DAYS: Final = 7
_MOST_OPEN: Final = 500

#: Sorts before every member row.
_FIRST_PLACE: Final = "0"

#: Place of an event in the log: (commit number, index).
Member = tuple[int, int]


def _members(row: Row) -> list[Member]:
    return [(n, i) for n, i in unpack(row["z"])]


class DynamoIncidentStore:
    """Incident rows are {z: sealed incident, version, status}; one transaction changes them with the cursor."""

    def __init__(self, table: Table, sealer: Sealer, *, retention_days: int) -> None:
        self._table = table
        self._sealer = sealer
        self._retention_s = retention_days * clock.DAY // 1000

    def _incident(self, project: str, row: Row) -> Incident:
        return Incident.from_row(open_row(self._sealer, project, row))

    def cursor(self, project: str) -> Cursor:
        row = self._table.get(keys.cursor(project))
        return Cursor(row["n"], row["i"], row["version"]) if row else Cursor()

    def get(self, project: str, incident_id: str) -> Incident | None:
        row = self._table.get(keys.incident(project, incident_id))
        return self._incident(project, row) if row else None

    def get_many(self, project: str, incident_ids: Iterable[str]) -> dict[str, Incident]:
        wanted = {keys.incident(project, one): one for one in incident_ids}
        rows = self._table.batch_get(wanted)
        return {wanted[key]: self._incident(project, row) for key, row in rows.items()}

    def view(self, project: str, tokens: Collection[str], also: Collection[str] = ()) -> View:
        by_key = {keys.token(project, token): token for token in tokens}
        rows = self._table.batch_get(by_key)
        index = {by_key[key]: list(row["ids"]) for key, row in rows.items()}
        incidents: dict[str, Incident] = {}
        wanted = {one for row in index.values() for one in incident_ids(row)} | set(also)
        for _ in range(_MERGE_HOPS):
            missing = wanted - incidents.keys()
            if not missing:
                break
            found = self.get_many(project, missing)
            incidents |= found
            wanted = {one.merged_into for one in found.values() if one.merged_into}
        return View(incidents=incidents, index=index)

    def save(
        self,
        project: str,
        before: Cursor,
        after: Cursor,
        effects: Effects,
        rows: Sequence[OutboxRow],
        now: int,
    ) -> None:
        first = before.version == 0
        expiry = now // 1000 + self._retention_s
        writes = [
            self._table.put_write(
                keys.cursor(project),
                {"n": after.n, "i": after.i, "version": after.version, "at": now},
                condition="attribute_not_exists(pk)" if first else "version = :version",
                **({} if first else {"version": before.version}),
            )
        ]
        writes += list(self._effect_writes(project, effects, after.version, now, expiry))
        left = evidence.of_incidents(project, effects, now)
        writes += outbox_writes(self._table, [*rows, *left], now, self._sealer)
        try:
            self._table.transact(writes)
        except ConditionFailed as failure:
            raise HeadMoved(project) from failure

    def _effect_writes(self, project: str, effects: Effects, version: int, now: int, expiry: int) -> Iterator[Write]:
        put = self._table.put_write
        for incident_id, incident in effects.incidents.items():
            key = keys.incident(project, incident_id)
            sealed = seal_row(self._sealer, project, key, incident.to_row())
            yield put(key, {"z": sealed, "version": incident.version, "status": incident.status, "exp": expiry})
        for token, ids in effects.index.items():
            yield put(keys.token(project, token), {"ids": ids, "exp": now // 1000 + _TOKEN_LIFE_S})
        for incident_id, members in effects.members.items():
            row = {"z": pack(members), "count": len(members), "exp": expiry}
            yield put(keys.member(project, incident_id, version), row)
        together: dict[Key, dict[int, dict[int, tuple[str, str]]]] = {}
        for (n, i), incident_id in effects.assignments.items():
            assigned = together.setdefault(keys.assignment(project, n, version), {})
            assigned.setdefault(n, {})[i] = (incident_id, effects.reasons.get((n, i), ""))
        for key, assigned in together.items():
            yield put(key, {"z": seal_row(self._sealer, project, key, assigned), "exp": expiry})
        for incident_id, entries in effects.overflow.items():
            for entry in entries:
                key = keys.timeline(project, incident_id, entry["pos"])
                yield put(key, {"z": seal_row(self._sealer, project, key, entry), "exp": expiry})

    # reads for the API
    def assigned(self, project: str, numbers: Collection[int]) -> dict[Member, tuple[str, str]]:
        """Incident as it is now, and reason, of each correlated event of the commits in `numbers`."""
        found: dict[Member, tuple[str, str]] = {}
        by_bucket: dict[int, set[int]] = {}
        for n in numbers:
            by_bucket.setdefault(n // keys.LOG_BUCKET, set()).add(n)
        for group in by_bucket.values():
            low, high = keys.assignment_group(min(group)), f"{keys.assignment_group(max(group))}#~"
            for row in self._table.query(keys.assignment_partition(project, min(group)), low=low, high=high):
                for n, assigned in open_row(self._sealer, project, row).items():
                    if int(n) in group:
                        for i, (incident_id, reason) in assigned.items():
                            found[int(n), int(i)] = (incident_id, reason)
        incidents = self.view(project, (), {incident_id for incident_id, _ in found.values()}).incidents
        return {place: (_survivor(one, incidents), reason) for place, (one, reason) in found.items()}

    def member_lists(
        self, project: str, incident_id: str, low: str | None = None, limit: int | None = None
    ) -> tuple[list[tuple[str, list[Member]]], bool]:
        """Events that joined an incident, in that order, from place `low` on: lists of (commit number, index), each
        with its place, and whether these are all. At most `limit` lists, and the one in the incident's own row.

        Members move from there to a row of their own, of the same place and order: a place stays good.
        """
        row = self._table.get(
            keys.incident(project, incident_id)
        )  # first: what moves in between is seen twice, not never
        rows = list(self._table.query(keys.member_partition(project, incident_id), low=low, limit=limit))
        lists = [(one["sk"], _members(one)) for one in rows]
        if len(lists) == limit:
            return lists, False
        recent = self._incident(project, row).recent if row else []
        if recent and not any(recent[0] in members for _, members in lists):
            lists.append((f"{lists[-1][0]}~" if lists else low or _FIRST_PLACE, recent))
        return lists, True

    def listed(self, project: str, yyyymmdd: str, before: str | None = None) -> Iterator[Incident]:
        """Incidents whose id is of one day, newest first, strictly before id `before` when given."""
        rows = self._table.query(keys.incident_day(project, yyyymmdd), high=before, newest_first=True, consistent=False)
        return (self._incident(project, row) for row in rows if row["sk"] != before)

    def open_summaries(self, project: str, limit: int) -> list[dict[str, Any]]:
        """Summaries of open incidents of the last days, loudest first; see tocsin.signals.incidents.summary."""
        now = clock.now_ms()
        found: list[Incident] = []
        for days in range(_OPEN_DAYS):
            for incident in self.listed(project, keys.day(now - days * clock.DAY)):
                if incident.status in ("open", "acknowledged"):
                    found.append(incident)
                if len(found) >= _MOST_OPEN:
                    break
        found.sort(key=lambda incident: (-incident.score, incident.id))
        return [summary(incident) for incident in found[:limit]]

    def overflow(self, project: str, incident_id: str, limit: int = 200) -> list[dict[str, Any]]:
        """Timeline entries that no longer fit the incident's row: the newest `limit` of them, oldest first."""
        rows = self._table.query(keys.timeline_partition(project, incident_id), newest_first=True, limit=limit)
        return [open_row(self._sealer, project, row) for row in rows][::-1]


def _survivor(incident_id: str, incidents: Mapping[str, Incident]) -> str:
    for _ in range(_MERGE_HOPS):
        incident = incidents.get(incident_id)
        if incident is None or not incident.merged_into:
            break
        incident_id = incident.merged_into
    return incident_id
