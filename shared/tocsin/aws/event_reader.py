"""Stored events for the API, read from the commit log; implements tocsin.api.ports.EventReader.

Nothing is indexed per event. A listing walks the log from its end: rows whose summary rules a match out are skipped,
the others are opened, at most MAX_SEGMENTS per request. One event is found through its mark and its commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from tocsin.api.filters import EventFilters
from tocsin.api.ports import MAX_SEGMENTS, Page
from tocsin.aws import keys, segments
from tocsin.aws.incident_store import DynamoIncidentStore
from tocsin.aws.ledger import DynamoLedger, facet
from tocsin.aws.table import Row, Table
from tocsin.kernel import clock
from tocsin.kernel.envelope import as_json
from tocsin.kernel.ids import event_id as server_id
from tocsin.kernel.ids import native_sender_id

#: A page ends when its events are this large: a function's answer ends at 6 MB.
MAX_PAGE_BYTES: Final = 3 * 1024 * 1024
#: Log rows looked at per request, opened or not.
_MAX_ROWS: Final = 400
#: How far back refusals are listed.
_REFUSAL_DAYS: Final = 7

Json = dict[str, Any]


def wanted_facets(filters: EventFilters) -> list[bytes]:
    """Facets that a log row's summary must list for any of its events to match."""
    pairs = [
        ("source", filters.source),
        ("type", filters.type),
        ("entity", filters.entity),
        ("tier", filters.tier),
        ("status", filters.status),
        *(("tag", f"{key}:{value}") for key, value in filters.tags),
    ]
    return [facet(name, value) for name, value in pairs if value is not None]


def may_match(row: Row, filters: EventFilters, facets: Sequence[bytes]) -> bool:
    """Whether a log row can hold a match: its time range overlaps and its summary lists what is asked for."""
    if filters.from_ms is not None and row["t1"] < filters.from_ms:
        return False
    if filters.to_ms is not None and row["t0"] >= filters.to_ms:
        return False
    if "facets" not in row:
        return True
    packed = row["facets"]
    listed = {packed[i : i + 3] for i in range(0, len(packed), 3)}
    return all(one in listed for one in facets)


class DynamoEventReader:
    """Reads events of one project at a time, with the incident each belongs to now."""

    def __init__(self, table: Table, ledger: DynamoLedger, incidents: DynamoIncidentStore) -> None:
        self._table = table
        self._ledger = ledger
        self._incidents = incidents

    def page(self, project: str, filters: EventFilters, position: Any, limit: int) -> Page[Json]:
        head = self._ledger.head(project).n
        n, i = (position[0], position[1]) if position else (head, None)
        facets = wanted_facets(filters)
        found: list[tuple[int, int, Json]] = []
        opened = looked = 0
        room = MAX_PAGE_BYTES
        for number, row in self._descending(project, n):
            looked += 1
            if may_match(row, filters, facets):
                opened += 1
                events = self._open(project, [row])[0]
                start = len(events) - 1 if i is None or number != n else i
                for index in range(start, -1, -1):
                    event = events[index]
                    if filters.matches(event, event["ruling_ms"]):
                        found.append((number, index, event))
                        room -= len(as_json(event))
                        if len(found) == limit or room < 0:
                            following = [number, index - 1] if index else [number - 1, None]
                            return self._page(project, found, following if following[0] else None, looked)
            if opened == MAX_SEGMENTS or looked == _MAX_ROWS:
                return self._page(project, found, [number - 1, None] if number > 1 else None, looked)
        return self._page(project, found, None, looked)

    def _page(self, project: str, found: Sequence[tuple[int, int, Json]], following: Any, scanned: int) -> Page[Json]:
        return Page(self._with_incidents(project, found), following, scanned)

    def _descending(self, project: str, n: int) -> Iterator[tuple[int, Row]]:
        """Log rows from number n down to the oldest that is kept."""
        while n >= 1:
            first = max(n // keys.LOG_BUCKET * keys.LOG_BUCKET, 1)
            rows = self._ledger.rows(project, first, n - first + 1)
            yield from reversed(rows)
            if not rows:
                return  # everything older has left by retention
            n = first - 1

    def _open(self, project: str, rows: Sequence[Row]) -> list[list[Json]]:
        return [segments.decode_events(body) for body in self._ledger.bodies(project, rows)]

    def _with_incidents(self, project: str, found: Sequence[tuple[int, int, Json]]) -> list[Json]:
        assigned = self._incidents.assigned(project, {n for n, _, _ in found})
        return [event | {"incident_id": assigned.get((n, i), (None,))[0]} for n, i, event in found]

    def at(self, project: str, places: Collection[tuple[int, int]]) -> dict[tuple[int, int], Json]:
        """Events by (commit number, index), without their incidents; places that left by retention are missing."""
        rows = self._ledger.rows_at(project, {n for n, _ in places})
        opened = dict(zip(rows, self._open(project, list(rows.values())), strict=True))
        return {(n, i): opened[n][i] for n, i in places if n in opened}

    def refusals(self, project: str, position: Any, limit: int) -> Page[Json]:
        """Events refused after they had been accepted, newest day first, in the order of their ids within a day."""
        now = clock.now_ms()
        at, low = position if position else (now, None)
        found: list[Json] = []
        for _ in range(_REFUSAL_DAYS):
            rows = self._table.query(keys.refusal_partition(project, keys.day(at)), low=low, limit=limit - len(found))
            for row in rows:
                found.append({"event_id": row["event_id"], "at": clock.rfc3339(row["at"]), "reason": row["reason"]})
                low = row["sk"] + "~"
            if len(found) == limit:
                return Page(found, [at, low], len(found))
            at, low = at - clock.DAY, None
        return Page(found, None, len(found))

    def get(self, project: str, event_id: str) -> Json | None:
        return next(iter(self._get_many(project, [event_id])), None)

    def by_sender_id(self, project: str, sender_id: str) -> Sequence[Json]:
        native = native_sender_id(sender_id)
        sources = self._ledger.sources(project)
        return self._get_many(project, [server_id(project, source, native) for source in sources])

    def _get_many(self, project: str, event_ids: Sequence[str]) -> list[Json]:
        """Committed events among the ids: mark, then commit row, then the segment."""
        marks = self._ledger.marks(project, event_ids)
        by_commit = {event_id: mark.commit_id for event_id, mark in marks.items()}
        commits = self._table.batch_get({keys.commit(project, one) for one in by_commit.values()})
        numbers: Mapping[str, int] = {
            event_id: commits[keys.commit(project, commit_id)]["n"]
            for event_id, commit_id in by_commit.items()
            if "n" in commits.get(keys.commit(project, commit_id), {})
        }
        rows = self._ledger.rows_at(project, set(numbers.values()))
        opened = dict(zip(rows, self._open(project, list(rows.values())), strict=True))
        found = [
            (n, i, event)
            for event_id, n in numbers.items()
            for i, event in enumerate(opened.get(n, ()))
            if event["event_id"] == event_id
        ]
        return self._with_incidents(project, found)
