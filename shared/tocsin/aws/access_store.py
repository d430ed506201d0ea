"""Projects, keys, people, approvals, single-use marks, token key set and usage in the table; implements the
ports of tocsin.access.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from tocsin.access.admin import Person
from tocsin.access.approvals import Approval
from tocsin.access.principals import KeyRecord
from tocsin.access.projects import Project, ProjectSettings, Quota
from tocsin.aws import keys
from tocsin.aws.table import ConditionFailed, Row, Table, Update, Write
from tocsin.kernel import clock
from tocsin.kernel.envelope import pack, unpack

#: Approvals stay readable this long, in ms.
APPROVAL_LIFE: Final = 400 * clock.DAY


def versioned(table: Table, key: keys.Key, row: Mapping[str, Any], expected: int) -> Write:
    """A put over the given version; 0 means that there is no row yet. For a transaction of the caller's own."""
    if expected == 0:
        return table.put_write(key, row, condition="attribute_not_exists(pk)")
    return table.put_write(key, row, condition="version = :was", was=expected)


def _put(table: Table, write: Write) -> bool:
    try:
        table.transact([write])
    except ConditionFailed:
        return False
    return True


class DynamoProjects:
    """Implements ProjectStore."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, project_id: str) -> Project | None:
        row = self._table.get(keys.document(project_id, "project"))
        if row is None:
            return None
        settings = dict(row["settings"])
        quota = Quota(**settings.pop("quota"))
        redact_keys = tuple(settings.pop("redact_keys"))
        return Project(
            id=project_id,
            name=row["name"],
            created_at=row["created_at"],
            created_by=row["created_by"],
            status=row["status"],
            settings=ProjectSettings(redact_keys=redact_keys, quota=quota, **settings),
            version=row["version"],
        )

    def put(self, project: Project, expected_version: int) -> bool:
        row = {
            "name": project.name,
            "created_at": project.created_at,
            "created_by": project.created_by,
            "status": project.status,
            "settings": asdict(project.settings),
            "version": project.version,
        }
        return _put(self._table, versioned(self._table, keys.document(project.id, "project"), row, expected_version))

    def is_operator(self, project_id: str) -> bool:
        """Whether a project is the one that runs the deployment."""
        row = self._table.get(keys.ops_project())
        return row is not None and row["project"] == project_id


def _place(project: str, record: KeyRecord) -> keys.Key:
    """A key's place in its project's list, in the order of making."""
    return keys.Key(keys.partition(project, "keys"), f"{record.created_at:015d}#{record.key_id}")


def _key_row(record: KeyRecord) -> Row:
    row = {**asdict(record), "scopes": sorted(record.scopes)}
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
        return self._update(
            record.key_id,
            {"name": record.name, "expires_at": record.expires_at},
            "attribute_exists(pk) AND revoked_at = :none",
            none=None,
        )

    def revoke(self, project: str, key_id: str, at: int) -> bool:
        record = self.get(key_id)
        if record is None or record.project != project:
            return False
        return self._update(key_id, {"revoked_at": at}, "attribute_exists(pk) AND revoked_at = :none", none=None)

    def touch(self, key_id: str, at: int, not_after: int) -> bool:
        condition = "attribute_exists(pk) AND (attribute_not_exists(last_used_at) OR last_used_at <= :latest)"
        return self._update(key_id, {"last_used_at": at}, condition, latest=not_after)

    def _update(self, key_id: str, changes: Mapping[str, Any], condition: str, **values: Any) -> bool:
        try:
            self._table.update(Update(keys.api_key(key_id), set=changes, condition=condition, values=values))
        except ConditionFailed:
            return False
        return True


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
        return _put(self._table, versioned(self._table, key, row, expected_version))

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


class DynamoOnce:
    """Implements OnceStore: one row per thing that may happen once, gone some time after it no longer matters."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def first(self, project: str, kind: str, name: str, until: int) -> bool:
        return self._table.put_if_absent(
            keys.Key(keys.partition(project, "once", kind, name), "o"), {"exp": until // 1000 + 60}
        )


class DynamoKeySet:
    """Implements KeySetStore. Numbers and times only; key material is derived from a secret."""

    _KEY: Final = keys.Key("sys#tokens", "keys")

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self) -> tuple[int, Any]:
        row = self._table.get(self._KEY)
        return (row["version"], row["document"]) if row else (0, None)

    def put(self, document: Any, expected_version: int) -> bool:
        row = {"document": document, "version": expected_version + 1}
        return _put(self._table, versioned(self._table, self._KEY, row, expected_version))


class DynamoApprovals:
    """Implements ApprovalStore."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, project: str, approval_id: str) -> Approval | None:
        row = self._table.get(keys.Key(keys.partition(project, "approvals"), approval_id))
        return Approval(**unpack(row["z"])) if row else None

    def page(self, project: str, position: str | None, limit: int) -> tuple[Sequence[Approval], str | None]:
        rows = self._table.query(
            keys.partition(project, "approvals"), high=position, newest_first=True, limit=limit + 2
        )
        ordered = [row for row in rows if row["sk"] != position]
        page = [Approval(**unpack(row["z"])) for row in ordered[:limit]]
        return page, page[-1].id if page and len(ordered) > limit else None

    def put(self, approval: Approval, expected_version: int) -> bool:
        return _put(self._table, self.put_write(approval, expected_version))

    def put_write(self, approval: Approval, expected_version: int) -> Write:
        """The write as a member of another transaction, so that an approval is spent with its action."""
        row = {
            "z": pack(asdict(approval)),
            "version": approval.version,
            "exp": (approval.requested_at + APPROVAL_LIFE) // 1000,
        }
        key = keys.Key(keys.partition(approval.project, "approvals"), approval.id)
        return versioned(self._table, key, row, expected_version)


class DynamoUsage:
    """Implements UsageStore: one row of counters per project and day."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def add(self, project: str, day: str, amounts: Mapping[str, int]) -> None:
        if amounts:
            self._table.update(self._update(project, day, amounts))

    def add_write(self, project: str, day: str, amounts: Mapping[str, int]) -> Write:
        """The same as a member of a transaction, so that what is counted is what was stored."""
        return self._table.update_write(self._update(project, day, amounts))

    @staticmethod
    def _update(project: str, day: str, amounts: Mapping[str, int]) -> Update:
        return Update(keys.Key(keys.partition(project, "usage"), day), add=amounts)

    def days(self, project: str, first: str, last: str) -> Sequence[tuple[str, Mapping[str, int]]]:
        rows = self._table.query(keys.partition(project, "usage"), low=first, high=last)
        return [(row["sk"], {k: v for k, v in row.items() if k not in ("pk", "sk")}) for row in rows]

    def exported(self, project: str, day: str, meter: str) -> bool:
        return self._table.get(self._mark(project, day, meter)) is not None

    def mark_exported(self, project: str, day: str, meter: str, value: int, at: int) -> None:
        self._table.put(self._mark(project, day, meter), {"value": value, "at": at})

    @staticmethod
    def _mark(project: str, day: str, meter: str) -> keys.Key:
        return keys.Key(keys.partition(project, "usage"), f"sent#{day}#{meter}")
