"""Small versioned documents of a project (topology, routing, settings), one row each."""

from __future__ import annotations

from typing import Any, Final

from tocsin.aws import keys
from tocsin.aws.table import ConditionFailed, Table
from tocsin.kernel import clock
from tocsin.kernel.envelope import pack, unpack
from tocsin.kernel.errors import Refusal
from tocsin.signals.topology import Topology

#: A document's packed size; DynamoDB rows end at 400 KB.
MAX_BYTES: Final = 350 * 1024
_CACHE_MS: Final = 5 * clock.SECOND


class Documents:
    """Reads and writes documents by name under optimistic versions (0 = does not exist yet)."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, project: str, name: str) -> tuple[int, Any]:
        """(version, document), or (0, None)."""
        row = self._table.get(keys.document(project, name))
        return (row["version"], unpack(row["z"])) if row else (0, None)

    def put(self, project: str, name: str, document: Any, expected_version: int | None, now: int) -> int:
        """Store a document; returns its new version. Refuses ERR_CONFLICT when `expected_version` is stale."""
        current = self.get(project, name)[0]
        if expected_version is not None and expected_version != current:
            raise Refusal("ERR_CONFLICT", f"the document is at version {current}; read it again")
        packed = pack(document)
        if len(packed) > MAX_BYTES:
            raise Refusal("ERR_SCHEMA", "the document is too large to keep")
        row = {"version": current + 1, "z": packed, "at": now}
        key = keys.document(project, name)
        try:
            if current:
                self._table.put(key, row, condition="version = :current", current=current)
            else:
                self._table.put(key, row, condition="attribute_not_exists(pk)")
        except ConditionFailed as failure:
            if self.get(project, name) != (current + 1, document):  # else it is our own write, whose answer was lost
                raise Refusal("ERR_CONFLICT", "the document was changed meanwhile; read it again") from failure
        return current + 1


class TopologyDocuments:
    """Declared topology per project, cached for a few seconds; implements tocsin.signals.ports.TopologyReader."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._cache: dict[str, tuple[int, str, Topology]] = {}

    def topology(self, project: str) -> tuple[str, Topology]:
        cached = self._cache.get(project)
        now = clock.now_ms()
        if cached and now - cached[0] < _CACHE_MS:
            return cached[1], cached[2]
        version, document = self._documents.get(project, "topology")
        label = f"topology-{version}"
        if cached and cached[1] == label:
            topology = cached[2]
        else:
            topology = Topology.from_document(document) if document else Topology.empty()
        self._cache[project] = (now, label, topology)
        return label, topology
