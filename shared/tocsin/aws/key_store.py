"""Keys, projects and people in the table: what every keyed request goes by; implements ports of tocsin.access."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Literal

from tocsin.access.admin import Person
from tocsin.access.principals import KeyRecord
from tocsin.access.projects import Project, ProjectSettings, Quota
from tocsin.aws import evidence, keys
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.table import ConditionFailed, Row, Table, Update, Write
from tocsin.kernel import clock
from tocsin.signals.ports import OutboxRow

#: Approvals, and keys that ended, stay readable this long, in ms.
APPROVAL_LIFE: Final = 400 * clock.DAY


def put_versioned(
    table: Table, key: keys.Key, row: Mapping[str, Any], expected: int, left: Sequence[OutboxRow] = ()
) -> bool:
    """A put over the version `expected`, 0 when there must be no row yet, with the evidence `left` of it; False when
    the version is another one.

    As a transaction even of one, because the SDK's own repeat of a put whose answer was lost would meet its first try.
    """
    if expected == 0:
        write = table.put_write(key, row, condition="attribute_not_exists(pk)")
    else:
        write = table.put_write(key, row, condition="version = :was", was=expected)
    try:
        table.transact([write, *outbox_writes(table, left, clock.now_ms())])
    except ConditionFailed:
        return False
    return True


def _place(project: str, record: KeyRecord) -> keys.Key:
    """A key's place in its project's list, in the order of making."""
    return keys.Key(keys.partition(project, "keys"), f"{record.created_at:015d}#{record.key_id}")


def _leaves(ended_at: int | None) -> dict[str, int]:
    """When the row of a key that ends is dropped: as late as an approval that names it."""
    return {} if ended_at is None else {"exp": (ended_at + APPROVAL_LIFE) // 1000}


def _key_row(record: KeyRecord) -> Row:
    row = {**asdict(record), "scopes": sorted(record.scopes), **_leaves(record.expires_at)}
    if record.last_used_at is None:
        del row["last_used_at"]
    return row


def _key_record(row: Row) -> KeyRecord:
    return KeyRecord(
        key_id=row["key_id"],
        project=row["project"],
        env=row["env"],
        hash=row["hash"],
        scopes=frozenset(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row.get("expires_at"),
        revoked_at=row.get("revoked_at"),
        name=row.get("name", ""),
        last_four=row.get("last_four", ""),
        created_by=row.get("created_by", ""),
        owner=row.get("owner", ""),
        signing=row.get("signing", False),
        last_used_at=row.get("last_used_at"),
    )


class DynamoKeys:
    """Implements KeyRows. A key is found by its id; each project has a list of the ids of its keys."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, key_id: str) -> KeyRecord | None:
        row = self._table.get(keys.api_key(key_id))
        return _key_record(row) if row else None

    def add(self, record: KeyRecord) -> bool:
        writes = [
            self._table.put_write(keys.api_key(record.key_id), _key_row(record), condition="attribute_not_exists(pk)"),
            self._table.put_write(_place(record.project, record), {"key_id": record.key_id}),
            *self._evidence("create", record),
        ]
        try:
            self._table.transact(writes)
        except ConditionFailed:
            return False
        return True

    def restore(self, record: KeyRecord) -> None:
        """Write a key whole, over an older one of the same id: for the bootstrap, which seeds known keys."""
        self._table.transact(
            [
                self._table.put_write(keys.api_key(record.key_id), _key_row(record)),
                self._table.put_write(_place(record.project, record), {"key_id": record.key_id}),
            ]
        )

    def of_project(self, project: str) -> Sequence[KeyRecord]:
        places = self._table.query(keys.partition(project, "keys"))
        wanted = list(dict.fromkeys(keys.api_key(row["key_id"]) for row in places))
        found = self._table.batch_get(wanted)
        return [_key_record(found[key]) for key in wanted if key in found]

    def change(self, record: KeyRecord) -> bool:
        changes = {"name": record.name, "expires_at": record.expires_at, **_leaves(record.expires_at)}
        return self._while_good(record, changes, "change")

    def revoke(self, project: str, key_id: str, at: int) -> bool:
        record = self.get(key_id)
        if record is None or record.project != project:
            return False
        return self._while_good(record, {"revoked_at": at, **_leaves(at)}, "revoke")

    def touch(self, key_id: str, at: int, not_after: int) -> bool:
        condition = "attribute_exists(pk) AND (attribute_not_exists(last_used_at) OR last_used_at <= :latest)"
        values = {"latest": not_after}
        try:
            self._table.update(
                Update(keys.api_key(key_id), set={"last_used_at": at}, condition=condition, values=values)
            )
        except ConditionFailed:
            return False
        return True

    def _while_good(self, record: KeyRecord, changes: Row, change: Literal["change", "revoke"]) -> bool:
        """Change a key that is not revoked, and say so in the journal."""
        good = "attribute_exists(pk) AND revoked_at = :none"
        update = Update(keys.api_key(record.key_id), set=changes, condition=good, values={"none": None})
        try:
            self._table.transact([self._table.update_write(update), *self._evidence(change, record)])
        except ConditionFailed:
            return False
        return True

    def _evidence(self, change: Literal["create", "change", "revoke"], record: KeyRecord) -> list[Write]:
        now = clock.now_ms()
        return outbox_writes(self._table, [evidence.of_key(change, record, now)], now)


class DynamoProjects:
    """Implements ProjectStore. Records lie in one partition, so that the operator can list them."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, project_id: str) -> Project | None:
        row = self._table.get(keys.project(project_id))
        return self._project(row) if row else None

    def all(self) -> Sequence[Project]:
        found = [self._project(row) for row in self._table.query(keys.project("any").pk)]
        return sorted(found, key=lambda project: project.created_at)

    def put(self, project: Project, expected_version: int) -> bool:
        row = {name: value for name, value in asdict(project).items() if name != "id"}
        left = evidence.of_project(expected_version, project, clock.now_ms())
        return put_versioned(self._table, keys.project(project.id), row, expected_version, [left])

    def is_operator(self, project_id: str) -> bool:
        """Whether a project is the one that runs the deployment."""
        row = self._table.get(keys.ops_project())
        return row is not None and row["project"] == project_id

    @staticmethod
    def _project(row: Row) -> Project:
        settings = {**row["settings"], "redact_keys": tuple(row["settings"]["redact_keys"])}
        return Project(
            id=row["sk"],
            name=row["name"],
            created_at=row["created_at"],
            created_by=row["created_by"],
            status=row["status"],
            settings=ProjectSettings(**settings),
            quota=Quota(**row["quota"]),
            version=row["version"],
        )


class DynamoPeople:
    """Implements PersonStore."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, project: str, person_id: str) -> Person | None:
        row = self._table.get(keys.Key(keys.partition(project, "people"), person_id))
        return self._person(project, row) if row else None

    def all(self, project: str) -> Sequence[Person]:
        return [self._person(project, row) for row in self._table.query(keys.partition(project, "people"))]

    def put(self, person: Person, expected_version: int) -> bool:
        row = {
            "name": person.name,
            "scopes": sorted(person.scopes),
            "created_at": person.created_at,
            "created_by": person.created_by,
            "removed_at": person.removed_at,
            "version": person.version,
        }
        key = keys.Key(keys.partition(person.project, "people"), person.id)
        left = evidence.of_person(expected_version, person, clock.now_ms())
        return put_versioned(self._table, key, row, expected_version, [left])

    @staticmethod
    def _person(project: str, row: Row) -> Person:
        return Person(
            id=row["sk"],
            project=project,
            name=row["name"],
            scopes=frozenset(row["scopes"]),
            created_at=row["created_at"],
            created_by=row["created_by"],
            removed_at=row["removed_at"],
            version=row["version"],
        )
