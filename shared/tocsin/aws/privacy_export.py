"""Writes a project's export: gzip NDJSON under exports/<project>/<job>/, and a manifest that names every file.

Implements tocsin.privacy.ports.Exports. A part is one object; which part comes next depends on the job alone, so that
one written twice is written over.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from tocsin.access.admin import key_json
from tocsin.access.ports import KeyRows, PersonStore, ProjectStore
from tocsin.aws import keys
from tocsin.aws.bucket import Bucket
from tocsin.aws.decision_store import DynamoPointer, RegistryObjects
from tocsin.aws.documents import Documents
from tocsin.aws.incident_store import DynamoIncidentStore
from tocsin.aws.ledger import DynamoLedger
from tocsin.aws.table import Table
from tocsin.decisions.snapshots import Registry
from tocsin.delivery.ports import ChannelStore, NotificationStore
from tocsin.kernel import clock
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.envelope import as_json
from tocsin.privacy.jobs import Job
from tocsin.privacy.ports import Step

FORMAT: Final = "tocsin-export/1"
#: Most commits in a part of events, and most incidents in a part of incidents.
COMMITS: Final = 500
INCIDENTS: Final = 200
_NOTIFICATIONS: Final = 10_000
_POLICIES: Final = 1_000

Json = dict[str, Any]


def folder(project: str, job_id: str) -> str:
    return f"exports/{project}/{job_id}/"


class ProjectExports:
    """Implements Exports on the stores that the API reads from."""

    def __init__(
        self,
        table: Table,
        bucket: Bucket,
        ledger: DynamoLedger,
        incidents: DynamoIncidentStore,
        notifications: NotificationStore,
        channels: ChannelStore,
        documents: Documents,
        projects: ProjectStore,
        key_rows: KeyRows,
        people: PersonStore,
        *,
        retention_days: int,
        now: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._table, self._bucket, self._ledger, self._incidents = table, bucket, ledger, incidents
        self._notifications, self._channels, self._documents = notifications, channels, documents
        self._projects, self._keys, self._people = projects, key_rows, people
        self._retention_days, self._now = retention_days, now

    def _file(self, job: Job, name: str, content: str, rows: Iterable[Any]) -> list[Json]:
        """One object of `rows`, one JSON text per line, and its entry in the manifest; none when there are no rows."""
        lines = [as_json(row) for row in rows]
        if not lines:
            return []
        data = gzip.compress(b"\n".join(lines) + b"\n", mtime=0)
        self._bucket.put(folder(job.project, job.id) + name, data)
        digest = hashlib.sha256(data).hexdigest()
        return [{"name": name, "content": content, "rows": len(lines), "bytes": len(data), "sha256": digest}]

    def events(self, job: Job) -> Step:
        first: int = job.position or self._first(job.project)
        entries = self._ledger.read(job.project, first, COMMITS)
        last = self._ledger.head(job.project).n
        events = [event for entry in entries for event in entry.events]
        name = f"events-{first:010d}.ndjson.gz"
        following = entries[-1].n + 1 if entries else first + COMMITS
        made = self._file(job, name, "events", events)
        return Step({"events": len(events)}, following if following <= last else None, made)

    def _first(self, project: str) -> int:
        """Number of the oldest commit that is still there, found by halving: rows leave from the oldest on."""
        low, high = 1, max(1, self._ledger.head(project).n)
        while low < high:
            middle = (low + high) // 2
            if self._ledger.rows_at(project, [middle]):
                high = middle
            else:
                low = middle + 1
        return low

    def incidents(self, job: Job) -> Step:
        """A day's incidents or a part of them, newest day first, each with the notifications about it."""
        day, before = job.position or (0, None)
        oldest = (self._now() - job.requested_at) // clock.DAY + self._retention_days + 1
        at = job.requested_at - day * clock.DAY
        found: list[Json] = []
        told: list[Json] = []
        position = None
        for incident in self._incidents.listed(job.project, keys.day(at), before):
            found.append({**incident.to_row(), "overflow": self._incidents.overflow(job.project, incident.id)})
            told += self._told(job.project, incident.id)
            if len(found) >= INCIDENTS:
                position = [day, incident.id]
                break
        part = f"{keys.day(at)}-{(before or 'first')[-12:]}"
        files = self._file(job, f"incidents-{part}.ndjson.gz", "incidents", found)
        files += self._file(job, f"notifications-{part}.ndjson.gz", "notifications", told)
        if position is None and day + 1 <= oldest:
            position = [day + 1, None]
        return Step({"incidents": len(found), "notifications": len(told)}, position, files)

    def _told(self, project: str, incident_id: str) -> list[Json]:
        found: list[Json] = []
        cursor = None
        while len(found) < _NOTIFICATIONS:
            page = self._notifications.list_for(
                project, incident_id=incident_id, limit=100, cursor=cursor, now=self._now()
            )
            found += [{**asdict(record), "id": record.id} for record in page.records]
            cursor = page.cursor
            if cursor is None:
                break
        return found

    def settings(self, job: Job) -> Step:
        project = job.project
        record = self._projects.get(project)
        documents = [
            {"name": name, "version": version, "document": document}
            for name, version, document in self._documents.all(project)
        ]
        pointer = DynamoPointer(self._table, project)
        registry = Registry(RegistryObjects(self._bucket, project), pointer, self._now)
        tables: Sequence[tuple[str, list[Any]]] = (
            ("project", [record.as_json()] if record else []),
            ("channels", [channel.as_json() for channel in self._channels.get_all(project)]),
            ("documents", documents),
            ("contracts", list(registry.current().contracts)),
            ("policies", [row["policy"] for row in pointer.policies(None, _POLICIES)]),
            ("people", [person.as_json() for person in self._people.all(project)]),
            ("keys", [key_json(one, self._now()) for one in self._keys.of_project(project)]),
        )
        files: list[Json] = []
        for name, rows in tables:
            files += self._file(job, f"{name}.ndjson.gz", name, rows)
        return Step({name: len(rows) for name, rows in tables}, None, files)

    def manifest(self, job: Job) -> Step:
        record = self._projects.get(job.project)
        document = {
            "format": FORMAT,
            "job": job.id,
            "project": job.project,
            "requested_by": job.requested_by,
            "requested_at": clock.rfc3339(job.requested_at),
            "made_at": clock.rfc3339(self._now()),
            "versions": {"event": "1.0", "project": record.version if record else 0},
            "counts": dict(job.removed),
            "files": list(job.files),
        }
        self._bucket.put(folder(job.project, job.id) + "manifest.json", canonical_json(document))
        return Step()
