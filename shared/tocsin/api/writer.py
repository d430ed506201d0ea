"""What people do to incidents, as one change under the project's cursor; implements
tocsin.api.ports.IncidentWriter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from tocsin.api.ports import Change, Json, Merge, Operation, Split
from tocsin.kernel.errors import Detail, Refusal
from tocsin.signals import correlation
from tocsin.signals.correlation import Effects, Incident, Policy, Signal, View
from tocsin.signals.correlator import CorrelateWorker
from tocsin.signals.ports import TopologyReader

#: Members an incident may have for a split: both sides are computed again from all of them.
MAX_MEMBERS: Final = 2_000


class Members(Protocol):
    """Where an incident's members are read; see tocsin.aws.incident_reader."""

    def get(self, project: str, incident_id: str) -> Incident | None: ...

    def places(self, project: str, incident: Incident, most: int) -> list[tuple[int, int]]: ...

    def own(
        self, project: str, incident_id: str, places: Sequence[tuple[int, int]]
    ) -> list[tuple[tuple[int, int], Json]]: ...


class IncidentOperations:
    """Applies Change, Merge and Split through the correlate worker, so that they are ordered with everything
    else.
    """

    def __init__(self, worker: CorrelateWorker, members: Members, topologies: TopologyReader, policy: Policy) -> None:
        self._worker = worker
        self._members = members
        self._topologies = topologies
        self._policy = policy

    def apply(
        self, project: str, incident_id: str, operation: Operation, expected_version: int | None
    ) -> Sequence[Incident]:
        operate = partial(self._worker.operate, project, expected_version=expected_version)
        if isinstance(operation, Change):
            operate([incident_id], partial(self._changed, incident_id, operation))
        elif isinstance(operation, Merge):
            ids = [incident_id, *operation.others]
            operate(ids, partial(self._merged, project, ids, operation))
        else:
            return self._split(project, incident_id, operation, expected_version)
        return [self._standing(project, incident_id)]

    def _standing(self, project: str, incident_id: str) -> Incident:
        incident = self._members.get(project, incident_id)
        while incident is not None and incident.merged_into:
            incident = self._members.get(project, incident.merged_into)
        if incident is None:
            raise Refusal("ERR_NOT_FOUND", "no such incident")
        return incident

    def _changed(self, incident_id: str, change: Change, view: View) -> Effects:
        """Status, then verdict, then note, each on what the one before made of the incident."""
        common: dict[str, Any] = {"by": change.actor, "now": change.at, "policy": self._policy}
        steps: list[Callable[[Incident], Effects]] = []
        if change.status == "acknowledged":
            steps.append(partial(correlation.acknowledge, **common))
        elif change.status == "resolved":
            steps.append(partial(correlation.resolve, **common))
        elif change.status == "open":
            steps.append(partial(correlation.reopen, **common))
        if change.verdict is not None:
            steps.append(partial(correlation.give_verdict, verdict=change.verdict, **common))
        if change.note is not None:
            steps.append(partial(correlation.note, text=change.note, **common))
        total, incident = Effects(), view.incidents[incident_id]
        for step in steps:
            effects = step(incident)
            incident = effects.incidents.get(incident_id, incident)
            _add(total, effects)
        return total

    def _merged(self, project: str, ids: Sequence[str], operation: Merge, view: View) -> Effects:
        _, topology = self._topologies.topology(project)
        chosen = [view.incidents[one] for one in ids]
        effects = correlation.merge(
            chosen, by=operation.actor, now=operation.at, topology=topology, policy=self._policy
        )
        if operation.note:
            survivor = next(one for one in effects.incidents.values() if one.merged_into is None)
            _add(
                effects,
                correlation.note(
                    survivor,
                    by=operation.actor,
                    now=operation.at,
                    text=operation.note,
                    policy=self._policy,
                ),
            )
        return effects

    def _split(
        self, project: str, incident_id: str, operation: Split, expected_version: int | None
    ) -> Sequence[Incident]:
        incident = self._members.get(project, incident_id)
        if incident is None:
            raise Refusal("ERR_NOT_FOUND", "no such incident")
        _, topology = self._topologies.topology(project)
        taken, kept = self._sides(project, incident, operation, topology)

        def change(view: View) -> Effects:
            effects = correlation.split(
                view.incidents[incident_id],
                taken,
                kept,
                view,
                project=project,
                by=operation.actor,
                now=operation.at,
                topology=topology,
                policy=self._policy,
            )
            if operation.note:
                old = effects.incidents[incident_id]
                text = operation.note
                _add(
                    effects,
                    correlation.note(old, by=operation.actor, now=operation.at, text=text, policy=self._policy),
                )
            return effects

        effects = self._worker.operate(
            project,
            [incident_id],
            change,
            expected_version=expected_version,
            tokens=correlation.split_tokens(taken, topology),
        )
        made = next(one for one in effects.incidents if one != incident_id)
        return [self._standing(project, incident_id), self._standing(project, made)]

    def _sides(
        self, project: str, incident: Incident, operation: Split, topology: Any
    ) -> tuple[list[Signal], list[Signal]]:
        """Members to move and members to keep, as signals."""
        places = self._members.places(project, incident, MAX_MEMBERS)
        if len(places) > MAX_MEMBERS:
            raise Refusal("ERR_BATCH_TOO_LARGE", f"an incident of more than {MAX_MEMBERS} events cannot be split")
        signals = {
            event["event_id"]: correlation.signal_of(event, n, i, topology)
            for (n, i), event in self._members.own(project, incident.id, places)
        }
        missing = [one for one in operation.events if one not in signals]
        if missing:
            detail = Detail("events", "member", "name members of this incident by their event_id")
            raise Refusal("ERR_SCHEMA", f"{len(missing)} of the events are not members", [detail])
        chosen = set(operation.events)
        return (
            [signal for one, signal in signals.items() if one in chosen],
            [signal for one, signal in signals.items() if one not in chosen],
        )


def _add(total: Effects, more: Effects) -> None:
    """Let `more` follow `total` in one transaction."""
    total.incidents.update(more.incidents)
    total.index.update(more.index)
    total.transitions += more.transitions
    total.timers += more.timers
    total.said += more.said
    for incident_id, entries in more.overflow.items():
        total.overflow.setdefault(incident_id, []).extend(entries)
