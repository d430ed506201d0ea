"""Approvals, single-use marks, the token key set and usage in the table; implements ports of tocsin.access."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from tocsin.access.approvals import Approval
from tocsin.access.usage import STORED
from tocsin.aws import evidence, keys
from tocsin.aws.key_store import APPROVAL_LIFE, put_versioned
from tocsin.aws.ledger import used_of
from tocsin.aws.rows import open_row, seal_row
from tocsin.aws.table import Row, Table, Update
from tocsin.kernel import clock
from tocsin.kernel.sealing import Sealer


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
        left = evidence.of_token_keys(document, expected_version + 1, clock.now_ms())
        return put_versioned(self._table, self._KEY, row, expected_version, [left])


class DynamoApprovals:
    """Implements ApprovalStore. What is asked for, and why, are texts of people: rows are sealed."""

    def __init__(self, table: Table, sealer: Sealer) -> None:
        self._table, self._sealer = table, sealer

    def get(self, project: str, approval_id: str) -> Approval | None:
        row = self._table.get(keys.Key(keys.partition(project, "approvals"), approval_id))
        return self._approval(project, row) if row else None

    def page(self, project: str, position: str | None, limit: int) -> tuple[Sequence[Approval], str | None]:
        rows = self._table.query(
            keys.partition(project, "approvals"), high=position, newest_first=True, limit=limit + 2
        )
        ordered = [row for row in rows if row["sk"] != position]
        page = [self._approval(project, row) for row in ordered[:limit]]
        return page, page[-1].id if page and len(ordered) > limit else None

    def put(self, approval: Approval, expected_version: int) -> bool:
        key = keys.Key(keys.partition(approval.project, "approvals"), approval.id)
        row = {
            "z": seal_row(self._sealer, approval.project, key, asdict(approval)),
            "version": approval.version,
            "exp": (approval.requested_at + APPROVAL_LIFE) // 1000,
        }
        left = evidence.of_approval(approval, clock.now_ms())
        return put_versioned(self._table, key, row, expected_version, [left])

    def _approval(self, project: str, row: Row) -> Approval:
        return Approval(**open_row(self._sealer, project, row))


class DynamoUsage:
    """Implements UsageStore: one row of counters per project and day, and the day that still runs in the log's head,
    where a commit counts it at no extra write.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def add(self, project: str, day: str, amounts: Mapping[str, int]) -> None:
        self._table.update(Update(keys.usage(project, day), add=amounts))

    def days(self, project: str, first: str, last: str) -> Sequence[tuple[str, Mapping[str, int]]]:
        rows = self._table.query(keys.usage(project, first).pk, low=first, high=last)
        found = {row["sk"]: {k: v for k, v in row.items() if k not in ("pk", "sk")} for row in rows}
        day, *counted = used_of(self._table.get(keys.log_head(project)) or {})
        if first <= day <= last:
            row = found.setdefault(day, {})
            row |= {name: row.get(name, 0) + value for name, value in zip(STORED, counted, strict=True)}
        return sorted(found.items())

    def exported(self, project: str, day: str, meter: str) -> bool:
        return self._table.get(keys.usage_exported(project, day, meter)) is not None

    def mark_exported(self, project: str, day: str, meter: str, value: int, at: int) -> None:
        self._table.put(keys.usage_exported(project, day, meter), {"value": value, "at": at})
