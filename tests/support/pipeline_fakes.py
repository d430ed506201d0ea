"""In-memory stores and bus for the score and correlate stages, with a hook at every step that can fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence

from tocsin.signals.calibration import Calibrators
from tocsin.signals.incidents import Effects, Incident, View, incident_ids
from tocsin.signals.ports import (
    Commit,
    CommitDead,
    CommitStatus,
    Cursor,
    Fact,
    HeadMoved,
    LogEntry,
    LogHead,
    Mark,
    Message,
    OutboxRow,
    Sealed,
)
from tocsin.signals.topology import Topology

Hook = Callable[[str], None]


def sealed(*messages: Message) -> list[Sealed]:
    """Messages as the score worker gets them."""
    return [Sealed(message.message_id, lambda message=message: message) for message in messages]  # type: ignore[misc]


class MemoryLedger:
    """Same promises as the DynamoDB ledger. A `trust_…` switch breaks one, for tests that must notice."""

    def __init__(
        self, hook: Hook = lambda step: None, *, trust_buried: bool = False, trust_owner: bool = False
    ) -> None:
        self.hook = hook
        self.trust_buried = trust_buried
        self.trust_owner = trust_owner
        self.marks: dict[tuple[str, str], Mark] = {}
        self.commits: dict[tuple[str, str], int | None] = {}
        self.log: dict[str, list[LogEntry]] = {}
        self.hot: dict[str, dict[bytes, bytes]] = {}
        self.full: dict[str, dict[bytes, bytes]] = {}
        self.counters: dict[str, int] = {}
        self.refused: set[tuple[str, str, bytes]] = set()

    def claim(self, project: str, commit_id: str, digests: Mapping[str, bytes], now: int) -> dict[str, Mark]:
        foreign = {}
        for event_id, digest in digests.items():
            self.hook("claim")
            mark = self.marks.setdefault((project, event_id), Mark(commit_id, digest, now))
            if mark.commit_id != commit_id:
                foreign[event_id] = mark
        self.hook("claimed")
        return foreign

    def statuses(self, project: str, commit_ids: Collection[str]) -> dict[str, CommitStatus]:
        self.hook("statuses")
        return {one: self._status(project, one) for one in commit_ids}

    def _status(self, project: str, commit_id: str) -> CommitStatus:
        if (project, commit_id) not in self.commits:
            return "absent"
        return "dead" if self.commits[project, commit_id] is None else "committed"

    def bury(self, project: str, commit_id: str, now: int) -> CommitStatus:
        self.hook("bury")
        self.commits.setdefault((project, commit_id), None)
        return self._status(project, commit_id)

    def take_over(
        self, project: str, marks: Mapping[str, Mark], commit_id: str, digests: Mapping[str, bytes], now: int
    ) -> set[str]:
        taken = set()
        for event_id, old in marks.items():
            self.hook("take over")
            if self.marks[project, event_id].commit_id == old.commit_id or self.trust_owner:
                self.marks[project, event_id] = Mark(commit_id, digests[event_id], now)
                taken.add(event_id)
        return taken

    def head(self, project: str) -> LogHead:
        self.hook("head")
        return LogHead(len(self.log.get(project, ())), 0)

    def states(
        self, project: str, head: LogHead, hot: Collection[bytes], full: Collection[bytes]
    ) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        self.hook("states")
        kept_hot, kept_full = self.hot.get(project, {}), self.full.get(project, {})
        return (
            {key: kept_hot[key] for key in hot if key in kept_hot},
            {key: kept_full[key] for key in full if key in kept_full},
        )

    def commit(self, project: str, commit: Commit) -> int:
        self.hook("commit")
        key = (project, commit.commit_id)
        if key in self.commits and not (self.trust_buried and self.commits[key] is None):
            raise CommitDead(commit.commit_id)
        log = self.log.setdefault(project, [])
        if commit.head.n != len(log):
            raise HeadMoved(project)
        n = len(log) + 1
        self.commits[key] = n
        topology = commit.versions.get("topology", "topology-0")
        log.append(LogEntry(n, commit.commit_id, commit.at, commit.trace_id, list(commit.events), topology))
        self.hot.setdefault(project, {}).update(commit.hot)
        self.full.setdefault(project, {}).update(commit.full)
        self.counters[project] = self.counters.get(project, 0) + len(commit.events)
        self.hook("committed")
        return n

    def refuse(self, project: str, event_id: str, digest: bytes, now: int, reason: str) -> None:
        self.refused.add((project, event_id, digest))

    def read(self, project: str, first: int, limit: int, max_bytes: int = 0) -> list[LogEntry]:
        return self.log.get(project, [])[first - 1 : first - 1 + limit]


class MemoryBus:
    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def publish(self, facts: Sequence[Fact]) -> None:
        self.facts += facts


class FixedTopology:
    """One topology under the label of every version, or those of `earlier` under their own."""

    def __init__(self, topology: Topology | None = None, earlier: Mapping[str, Topology] | None = None) -> None:
        self._topology = topology or Topology.empty()
        self._earlier = earlier or {}

    def topology(self, project: str) -> tuple[str, Topology]:
        return "topology-0", self._topology

    def named(self, project: str, label: str) -> Topology | None:
        return self._earlier.get(label, self._topology)


class FixedCalibration:
    def __init__(self, label: str = "identity", calibrators: Calibrators | None = None) -> None:
        self._fixed = (label, calibrators or Calibrators())

    def calibrators(self, project: str) -> tuple[str, Calibrators]:
        return self._fixed


class MemoryIncidentStore:
    """Incidents under a cursor; rows are kept as JSON so that nothing is shared between worker and store."""

    def __init__(self, hook: Hook = lambda step: None, *, trust_cursor: bool = False) -> None:
        self.hook = hook
        self.trust_cursor = trust_cursor
        self.cursors: dict[str, Cursor] = {}
        self.rows: dict[str, str] = {}
        self.index: dict[str, list[str]] = {}
        self.assigned: dict[tuple[int, int], str] = {}
        self.outbox: list[OutboxRow] = []

    def cursor(self, project: str) -> Cursor:
        self.hook("cursor")
        return self.cursors.get(project, Cursor())

    def view(self, project: str, tokens: Collection[str], also: Collection[str] = ()) -> View:
        self.hook("view")
        index = {token: list(self.index[token]) for token in tokens if token in self.index}
        wanted = {one for row in index.values() for one in incident_ids(row)} | set(also)
        incidents: dict[str, Incident] = {}
        while wanted - incidents.keys():
            found = {one: self._incident(one) for one in wanted - incidents.keys() if one in self.rows}
            incidents |= found
            wanted = {one.merged_into for one in found.values() if one.merged_into}
        return View(incidents=incidents, index=index)

    def _incident(self, incident_id: str) -> Incident:
        return Incident.from_row(json.loads(self.rows[incident_id]))

    def save(
        self,
        project: str,
        before: Cursor,
        after: Cursor,
        effects: Effects,
        rows: Sequence[OutboxRow],
        now: int,
    ) -> None:
        self.hook("save")
        if not self.trust_cursor and self.cursors.get(project, Cursor()).version != before.version:
            raise HeadMoved(project)
        self.cursors[project] = after
        self.rows |= {one: json.dumps(incident.to_row()) for one, incident in effects.incidents.items()}
        self.index |= {token: list(row) for token, row in effects.index.items()}
        self.assigned |= effects.assignments
        self.outbox += rows
        self.hook("saved")

    def get(self, project: str, incident_id: str) -> Incident | None:
        return self._incident(incident_id) if incident_id in self.rows else None

    def partition(self) -> set[frozenset[tuple[int, int]]]:
        """Which events belong together, whatever their incidents are called."""
        groups: dict[str, set[tuple[int, int]]] = {}
        for place, incident_id in self.assigned.items():
            incident = self._incident(incident_id)
            while incident.merged_into:
                incident = self._incident(incident.merged_into)
            groups.setdefault(incident.id, set()).add(place)
        return {frozenset(group) for group in groups.values()}


class MemoryOutbox:
    def __init__(self) -> None:
        self.sent: list[OutboxRow] = []

    def publish(self, rows: Sequence[OutboxRow]) -> set[str]:
        self.sent += rows
        return {row.row_id for row in rows}
