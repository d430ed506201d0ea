"""Events through the product's own score and correlate functions, with dictionaries for the stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tocsin.signals import correlation, scoring
from tocsin.signals.correlation import Effects, Policy, Signal, View
from tocsin.signals.topology import Topology

Event = dict[str, Any]
#: Events per commit.
BATCH = 25


class Memory:
    """Incidents and index in dictionaries, used as the worker uses the table. Finished rows can be left behind."""

    def __init__(self, topology: Topology, policy: Policy) -> None:
        self.topology, self.policy = topology, policy
        self.incidents: dict[str, correlation.Incident] = {}
        self.index: dict[str, list[str]] = {}
        self.assigned: dict[tuple[int, int], str] = {}
        self.timers: list[tuple[int, str]] = []

    def view(self, signals: Sequence[Signal]) -> View:
        rows = {
            token: self.index[token]
            for token in correlation.needed(signals, self.topology, self.policy)
            if token in self.index
        }
        incidents = {}
        wanted = [name for row in rows.values() for name in correlation.incident_ids(row)]
        while wanted:
            name = wanted.pop()
            if name not in incidents:
                incident = incidents[name] = self.incidents[name]
                if incident.merged_into:
                    wanted.append(incident.merged_into)
        return View(incidents, rows)

    def save(self, effects: Effects) -> None:
        self.incidents.update(effects.incidents)
        self.index.update(effects.index)
        self.assigned.update(effects.assignments)
        self.timers += [(due, name) for name, due in effects.timers]

    def take(self, signals: Sequence[Signal], now: int) -> None:
        """Correlate signals at the time `now` (ms), after running the quiet timers that are due."""
        due = [name for at, name in self.timers if at <= now]
        self.timers = [(at, name) for at, name in self.timers if at > now]
        effects = correlation.quiet([self.incidents[name] for name in due], now=now, policy=self.policy)
        if effects.incidents or effects.timers:
            self.save(effects)
        while signals:
            view = self.view(signals)
            effects = correlation.correlate(
                signals, view, project="bench", topology=self.topology, now=now, policy=self.policy
            )
            self.save(effects)
            signals = signals[effects.consumed :]

    def incident_of(self, number: int) -> str | None:
        """The incident of the event with that number in the stream."""
        name = self.assigned.get((number // BATCH + 1, number % BATCH))
        while name is not None and (onward := self.incidents[name].merged_into):
            name = onward
        return name


def scored(events: Iterable[Event], topology: Topology) -> Iterator[list[Signal]]:
    """The signals of events in order, a commit of BATCH at a time."""
    hot: dict[bytes, bytes] = {}
    full: dict[bytes, bytes] = {}
    batch: list[Event] = []
    number = 0

    def commit() -> list[Signal]:
        result = scoring.score([scoring.prepare(event, topology) for event in batch], hot, full)
        hot.update(result.hot)
        full.update(result.full)
        n = number // BATCH
        return [correlation.signal_of(event, n, i, topology) for i, event in enumerate(result.events)]

    for event in events:
        batch.append(event)
        number += 1
        if len(batch) == BATCH:
            yield commit()
            batch = []
    if batch:
        number += BATCH - len(batch)
        yield commit()


def replay(events: Iterable[Event], topology: Topology, policy: Policy | None = None) -> Memory:
    """Score and correlate events in the order given; each needs event_id, occurred_at and received_at."""
    memory = Memory(topology, policy or Policy())
    for signals in scored(events, topology):
        memory.take(signals, signals[-1].received_at)
    return memory
