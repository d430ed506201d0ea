"""Small versioned documents of a project (topology, routing, settings), one sealed row each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from tocsin.aws import evidence, keys
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.rows import open_row, seal_row
from tocsin.aws.table import ConditionFailed, Row, Table
from tocsin.kernel import clock
from tocsin.kernel.envelope import pack
from tocsin.kernel.errors import Refusal
from tocsin.kernel.sealing import Sealer
from tocsin.signals.calibration import Calibrators
from tocsin.signals.topology import Topology
from tocsin.signals.verdicts import Calibration

#: A document's packed size; DynamoDB rows end at 400 KB.
MAX_BYTES: Final = 350 * 1024
_CACHE_MS: Final = 5 * clock.SECOND

Form = TypeVar("Form")


class Documents:
    """Reads and writes documents by name under optimistic versions (0 = does not exist yet)."""

    def __init__(self, table: Table, sealer: Sealer) -> None:
        self._table, self._sealer = table, sealer

    def get(self, project: str, name: str) -> tuple[int, Any]:
        """(version, document), or (0, None)."""
        row = self._table.get(keys.document(project, name))
        return (row["version"], open_row(self._sealer, project, row)) if row else (0, None)

    def all(self, project: str) -> list[tuple[str, int, Any]]:
        """(name, version, document) of every document as it is."""
        rows = self._table.query(keys.document(project, "any").pk)
        return [(row["sk"], row["version"], open_row(self._sealer, project, row)) for row in rows]

    def put(self, project: str, name: str, document: Any, expected_version: int | None, now: int) -> int:
        """Store a document; returns its new version. Refuses ERR_CONFLICT when `expected_version` is stale."""
        current = self.get(project, name)[0]
        if expected_version is not None and expected_version != current:
            raise Refusal("ERR_CONFLICT", f"the document is at version {current}; read it again")
        if len(pack(document)) > MAX_BYTES:
            raise Refusal("ERR_SCHEMA", "the document is too large to keep")
        key, kept = keys.document(project, name), keys.document_version(project, name, current + 1)

        def row(place: keys.Key) -> Row:
            return {"version": current + 1, "z": seal_row(self._sealer, project, place, document), "at": now}

        condition = "version = :current" if current else "attribute_not_exists(pk)"
        left = evidence.of_document(project, name, current + 1, document, now)
        writes = [
            self._table.put_write(key, row(key), condition=condition, **({"current": current} if current else {})),
            self._table.put_write(kept, row(kept)),
            *outbox_writes(self._table, [left], now),
        ]
        try:
            self._table.transact(writes)
        except ConditionFailed as failure:
            if self.get(project, name) != (current + 1, document):  # else it is our own write, whose answer was lost
                raise Refusal("ERR_CONFLICT", "the document was changed meanwhile; read it again") from failure
        return current + 1

    def at(self, project: str, name: str, version: int) -> Any | None:
        """The document as it was at a version; None when that was never written."""
        row = self._table.get(keys.document_version(project, name, version))
        return open_row(self._sealer, project, row) if row else None


class _Cached(Generic[Form]):
    """One document of each project in the form its readers want, built anew when its version moved."""

    def __init__(self, documents: Documents, name: str, build: Callable[[Any], Form]) -> None:
        self._documents = documents
        self._name = name
        self._build = build
        self._known: dict[str, tuple[int, int, Form]] = {}

    def get(self, project: str) -> tuple[int, Form]:
        """(version, form), at most _CACHE_MS old."""
        known = self._known.get(project)
        now = clock.now_ms()
        if known and now - known[0] < _CACHE_MS:
            return known[1:]
        version, document = self._documents.get(project, self._name)
        form = known[2] if known and known[1] == version else self._build(document)
        self._known[project] = (now, version, form)
        return version, form


class TopologyDocuments:
    """Declared topology per project; implements tocsin.signals.ports.TopologyReader."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._cached = _Cached(documents, "topology", lambda it: Topology.from_document(it) if it else Topology.empty())
        self._last: dict[str, tuple[str, Topology]] = {}

    def topology(self, project: str) -> tuple[str, Topology]:
        version, topology = self._cached.get(project)
        return f"topology-{version}", topology

    def named(self, project: str, label: str) -> Topology | None:
        """The topology that a commit recorded as `label`; None when it is not kept."""
        for known, topology in (self.topology(project), self._last.get(project, ("", Topology.empty()))):
            if known == label:
                return topology
        version = int(label.removeprefix("topology-"))
        document = self._documents.at(project, "topology", version) if version else None
        if version and not document:
            return None
        self._last[project] = label, Topology.from_document(document) if document else Topology.empty()
        return self._last[project][1]


def _in_use(document: Any) -> tuple[str, Calibrators]:
    calibration = Calibration.from_document(document)
    return calibration.label, calibration.calibrators()


class CalibrationDocuments:
    """Active calibrators per project; implements tocsin.signals.ports.CalibratorReader."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._cached = _Cached(documents, "calibration", _in_use)

    def calibrators(self, project: str) -> tuple[str, Calibrators]:
        return self._cached.get(project)[1]

    def named(self, project: str, label: str) -> Calibrators | None:
        """The calibrators of a kept version by its label; None when it is not kept."""
        _, document = self._documents.get(project, "calibration")
        return Calibration.from_document(document).named(label)
