"""The stores of access in memory, with a clock that tests move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tocsin.access import keys
from tocsin.access.admin import Directory, Keys, People, Person
from tocsin.access.approvals import Approval
from tocsin.access.limits import advance
from tocsin.access.ports import Advance
from tocsin.access.principals import KeyRecord, Principal
from tocsin.access.projects import Project
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.http import Request

NOW = 1_800_000_000_000
PEPPER = bytes(range(32))
MASTER = bytes(range(1, 33))


@dataclass
class Clock:
    """Time in ms that stands still until a test moves it."""

    ms: int = NOW

    def now(self) -> int:
        return self.ms

    def us(self) -> int:
        return self.ms * 1000

    def s(self) -> float:
        return self.ms / 1000


class ProjectRows:
    def __init__(self) -> None:
        self.rows: dict[str, Project] = {}

    def get(self, project_id: str) -> Project | None:
        return self.rows.get(project_id)

    def all(self) -> Sequence[Project]:
        return sorted(self.rows.values(), key=lambda row: row.created_at)

    def put(self, project: Project, expected_version: int) -> bool:
        found = self.rows.get(project.id)
        if (found.version if found else 0) != expected_version:
            return False
        self.rows[project.id] = project
        return True


class KeyRowsFake:
    def __init__(self) -> None:
        self.rows: dict[str, KeyRecord] = {}
        self.touches = 0

    def get(self, key_id: str) -> KeyRecord | None:
        return self.rows.get(key_id)

    def add(self, record: KeyRecord) -> bool:
        return self.rows.setdefault(record.key_id, record) is record

    def of_project(self, project: str) -> Sequence[KeyRecord]:
        return [row for row in self.rows.values() if row.project == project]

    def change(self, record: KeyRecord) -> bool:
        found = self.rows.get(record.key_id)
        if found is None or found.revoked_at is not None:
            return False
        self.rows[record.key_id] = replace(found, name=record.name, expires_at=record.expires_at)
        return True

    def revoke(self, project: str, key_id: str, at: int) -> bool:
        found = self.rows.get(key_id)
        if found is None or found.project != project or found.revoked_at is not None:
            return False
        self.rows[key_id] = replace(found, revoked_at=at)
        return True

    def touch(self, key_id: str, at: int, not_after: int) -> bool:
        self.touches += 1
        found = self.rows[key_id]
        if found.last_used_at is not None and found.last_used_at > not_after:
            return False
        self.rows[key_id] = replace(found, last_used_at=at)
        return True


class PeopleRows:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Person] = {}

    def get(self, project: str, person_id: str) -> Person | None:
        return self.rows.get((project, person_id))

    def all(self, project: str) -> Sequence[Person]:
        return [row for (name, _), row in self.rows.items() if name == project]

    def put(self, person: Person, expected_version: int) -> bool:
        found = self.rows.get((person.project, person.id))
        if (found.version if found else 0) != expected_version:
            return False
        self.rows[person.project, person.id] = person
        return True


class OnceRows:
    def __init__(self) -> None:
        self.seen: dict[tuple[str, str, str], int] = {}

    def first(self, project: str, kind: str, name: str, until: int) -> bool:
        if (project, kind, name) in self.seen:
            return False
        self.seen[project, kind, name] = until
        return True


class KeySetRow:
    def __init__(self) -> None:
        self.version, self.document, self.reads = 0, None, 0

    def get(self) -> tuple[int, Any]:
        self.reads += 1
        return self.version, self.document

    def put(self, document: Any, expected_version: int) -> bool:
        if expected_version != self.version:
            return False
        self.version, self.document = self.version + 1, document
        return True


class ApprovalRows:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Approval] = {}

    def get(self, project: str, approval_id: str) -> Approval | None:
        return self.rows.get((project, approval_id))

    def page(self, project: str, position: str | None, limit: int) -> tuple[Sequence[Approval], str | None]:
        ordered = sorted((row for (name, _), row in self.rows.items() if name == project), key=lambda row: row.id)
        left = [row for row in reversed(ordered) if position is None or row.id < position]
        return left[:limit], left[limit - 1].id if len(left) > limit else None

    def put(self, approval: Approval, expected_version: int) -> bool:
        found = self.rows.get((approval.project, approval.id))
        if (found.version if found else 0) != expected_version:
            return False
        self.rows[approval.project, approval.id] = approval
        return True


class Buckets:
    """LimitStore in memory; `away` makes it answer nothing."""

    def __init__(self) -> None:
        self.tats: dict[tuple[str, str], int] = {}
        self.writes = 0
        self.away = False

    def advance(self, project: str, name: str, by_us: int, now_us: int, latest_us: int, seen_us: int) -> Advance:
        if self.away:
            raise Retry("away")
        self.writes += 1
        taken, tat = advance(self.tats.get((project, name), 0), by_us, now_us, latest_us)
        self.tats[project, name] = tat
        return Advance(taken, tat)


class FailureRows:
    def __init__(self) -> None:
        self.counts: dict[tuple[str, int], int] = {}
        self.writes = 0

    def add(self, source: str, minute: int, count: int) -> int:
        self.writes += 1
        self.counts[source, minute] = self.counts.get((source, minute), 0) + count
        return self.counts[source, minute]


class UsageRows:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], dict[str, int]] = {}
        self.sent: set[tuple[str, str, str]] = set()
        self.writes = 0
        self.away = False

    def add(self, project: str, day: str, amounts: Mapping[str, int]) -> None:
        if self.away:
            raise Retry("away")
        self.writes += 1
        row = self.rows.setdefault((project, day), {})
        for name, value in amounts.items():
            row[name] = row.get(name, 0) + value

    def days(self, project: str, first: str, last: str) -> Sequence[tuple[str, Mapping[str, int]]]:
        found = [(day, row) for (name, day), row in self.rows.items() if name == project and first <= day <= last]
        return sorted(found, key=lambda item: item[0])

    def exported(self, project: str, day: str, meter: str) -> bool:
        return (project, day, meter) in self.sent

    def mark_exported(self, project: str, day: str, meter: str, value: int, at: int) -> None:
        self.sent.add((project, day, meter))


@dataclass
class Access:
    """A deployment's access room over memory, with one project `p1` and its bootstrap administrator."""

    clock: Clock = field(default_factory=Clock)
    rows: KeyRowsFake = field(default_factory=KeyRowsFake)
    persons: PeopleRows = field(default_factory=PeopleRows)
    once: OnceRows = field(default_factory=OnceRows)
    approvals: ApprovalRows = field(default_factory=ApprovalRows)

    def __post_init__(self) -> None:
        self.keys = Keys(self.rows, self.persons, PEPPER, MASTER, "live")
        self.people = People(self.persons)
        self.directory = Directory(self.rows, self.persons, self.clock.now)
        self.root = self.bootstrap("p1")

    def bootstrap(self, project: str, *scopes: str) -> Principal:
        """A key as the deployment's bootstrap makes it: nobody's, made by nobody."""
        text, key_id = keys.mint("live")
        held = frozenset(scopes or ("admin:*", "approvals:*", "ingest:*", "events:*", "notify:*"))
        record = KeyRecord(key_id, project, "live", keys.stored_hash(PEPPER, text), held, self.clock.ms)
        self.rows.add(record)
        return Principal(project, key_id, held)

    def person(self, by: Principal, name: str, *scopes: str) -> Person:
        return self.people.add(by, {"name": name, "scopes": list(scopes)}, self.clock.ms)

    def key(self, by: Principal, *scopes: str, **body: Any) -> Principal:
        made = self.keys.create(by, {"scopes": list(scopes), **body} if scopes else body, self.clock.ms)
        return self.principal(made["id"])

    def principal(self, public_id: str) -> Principal:
        record = self.rows.rows[public_id[4:]]
        return Principal(record.project, record.key_id, record.scopes, person=record.owner)


def refused(call: Any, *arguments: Any, **named: Any) -> Refusal:
    """The refusal a call raises; a call that is not refused fails the test."""
    with pytest.raises(Refusal) as caught:
        call(*arguments, **named)
    return caught.value


def request(
    method: str = "POST",
    path: str = "/v1/events",
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, tuple[str, ...]] | None = None,
    body: bytes = b"",
    source_ip: str = "192.0.2.1",
) -> Request:
    held = {name: (value,) for name, value in (headers or {}).items()}
    return Request(method, path, "trace", "req", held, query or {}, {}, body, source_ip)
