"""The score stage: claims events, scores them under the project's log head, and commits them once.

The protocol, in the order of the code (docs/architecture.md proves it; tests/stack/test_chaos.py attacks it):

1. Every attempt has a fresh commit id and claims a mark per event (put if absent).
2. A mark of another attempt is a duplicate only if that attempt's commit row exists. A young mark without a commit
   row is left alone: its message fails and comes back. An old one is buried with a tombstone under its commit id, so
   that it can never commit afterwards, and then taken over under a condition on the old owner.
3. One transaction writes commit row, numbered log row, head and counters. It fails as a whole when the head moved
   (score again on fresh state) or when the attempt was buried (the messages come back).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tocsin.kernel import clock
from tocsin.kernel.errors import Retry
from tocsin.kernel.ids import new_id
from tocsin.signals import scoring
from tocsin.signals.ports import (
    Bus,
    Commit,
    CommitDead,
    Event,
    Fact,
    HeadMoved,
    Ledger,
    Mark,
    Message,
    TopologyReader,
)

#: Attempts to commit on a moving head before the messages are given back.
COMMIT_ATTEMPTS: Final = 12
#: Added to an attempt's longest life before its marks may be taken: covers clock skew and a slow start.
CLAIM_MARGIN_MS: Final = 5 * clock.SECOND


@dataclass(slots=True)
class Outcome:
    """What became of a batch: ids of messages to give back, and counts of events by fate.

    `announced` is False when events were committed but the bus did not take the fact; the supervisor then wakes
    the next stage.
    """

    failed: set[str] = field(default_factory=set)
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    announced: bool = True


@dataclass(slots=True)
class _Arrival:
    """One distinct event of a batch and the messages that carry it."""

    event: Event
    digest: bytes
    messages: list[str]


class ScoreWorker:
    """Turns queue messages into committed, scored events."""

    def __init__(
        self,
        ledger: Ledger,
        bus: Bus,
        topologies: TopologyReader,
        *,
        now: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._ledger = ledger
        self._bus = bus
        self._topologies = topologies
        self._now = now

    def handle(self, messages: Sequence[Message], remaining_ms: Callable[[], int]) -> Outcome:
        """Process messages of any mix of projects.

        `remaining_ms` tells the time left before this call is killed. Taken at the start it bounds the life of any
        other attempt too, which is how old a mark must be before its attempt may be buried.
        """
        outcome = Outcome()
        lifetime_ms = remaining_ms() + CLAIM_MARGIN_MS
        by_project: dict[str, list[Message]] = {}
        for message in messages:
            by_project.setdefault(message.project, []).append(message)
        facts = []
        for project, group in by_project.items():
            if remaining_ms() < 3 * clock.SECOND:
                outcome.failed.update(message.message_id for message in group)
                continue
            fact = self._project(project, group, outcome, remaining_ms, lifetime_ms)
            if fact:
                facts.append(fact)
        try:
            self._bus.publish(facts)
        except Retry:
            outcome.announced = False
        return outcome

    def _project(
        self,
        project: str,
        messages: Sequence[Message],
        outcome: Outcome,
        remaining_ms: Callable[[], int],
        lifetime_ms: int,
    ) -> Fact | None:
        commit_id = new_id("cmt", self._now())
        arrivals = self._distinct(project, messages, outcome)
        try:
            claimed = self._claim(project, commit_id, arrivals, outcome, lifetime_ms)
            if not claimed:
                return None
            number = self._commit(project, commit_id, messages[0].trace_id, claimed, remaining_ms)
        except (CommitDead, Retry):
            outcome.failed.update(message.message_id for message in messages)
            return None
        outcome.stored += len(claimed)
        return Fact("EventScored", {"project": project, "n": number, "count": len(claimed)})

    def _distinct(self, project: str, messages: Sequence[Message], outcome: Outcome) -> dict[str, _Arrival]:
        arrivals: dict[str, _Arrival] = {}
        for message in messages:
            events, digests = message.payload["events"], message.payload["digests"]
            for event, digest in zip(events, map(bytes.fromhex, digests), strict=True):
                event_id = event["event_id"]
                first = arrivals.get(event_id)
                if first is None:
                    arrivals[event_id] = _Arrival(event, digest, [message.message_id])
                    continue
                first.messages.append(message.message_id)
                self._repeat(project, event_id, first.digest, digest, outcome)
        return arrivals

    def _repeat(self, project: str, event_id: str, kept: bytes, sent: bytes, outcome: Outcome) -> None:
        """Account for a second copy of an event that is or will be stored."""
        if kept == sent:
            outcome.duplicates += 1
            return
        outcome.refused += 1
        self._ledger.refuse(
            project, event_id, sent, self._now(), "ERR_IDEMPOTENCY_MISMATCH: the id is stored with other content"
        )

    def _claim(
        self,
        project: str,
        commit_id: str,
        arrivals: dict[str, _Arrival],
        outcome: Outcome,
        lifetime_ms: int,
    ) -> list[_Arrival]:
        """Arrivals that this attempt owns, in order; fills in the fate of all others."""
        now = self._now()
        foreign = self._ledger.claim(project, commit_id, {k: a.digest for k, a in arrivals.items()}, now)
        fates = self._fates(project, foreign, now, lifetime_ms)
        owned = []
        for event_id, arrival in arrivals.items():
            mark = foreign.get(event_id)
            if mark is None:
                owned.append(arrival)
                continue
            match fates[mark.commit_id]:
                case "committed":
                    self._repeat(project, event_id, mark.digest, arrival.digest, outcome)
                case "dead" if self._ledger.take_over(project, event_id, mark, commit_id, arrival.digest, self._now()):
                    owned.append(arrival)
                case _:
                    outcome.failed.update(arrival.messages)
        return owned

    def _fates(self, project: str, foreign: dict[str, Mark], now: int, lifetime_ms: int) -> dict[str, str]:
        """What became of the attempts that hold our events: committed, dead (their marks may be taken) or alive."""
        if not foreign:
            return {}
        youngest: dict[str, int] = {}
        for mark in foreign.values():
            youngest[mark.commit_id] = max(mark.at, youngest.get(mark.commit_id, mark.at))
        fates: dict[str, str] = {}
        for commit_id, status in self._ledger.statuses(project, youngest).items():
            if status != "absent":
                fates[commit_id] = status
            elif now - youngest[commit_id] < lifetime_ms:
                fates[commit_id] = "alive"
            else:
                fates[commit_id] = self._ledger.bury(project, commit_id, now)
        return fates

    def _commit(
        self,
        project: str,
        commit_id: str,
        trace_id: str,
        claimed: Sequence[_Arrival],
        remaining_ms: Callable[[], int],
    ) -> int:
        topology_version, topology = self._topologies.topology(project)
        prepared = [scoring.prepare(arrival.event, topology) for arrival in claimed]
        hot_keys, _ = scoring.needs(prepared)
        for _ in range(COMMIT_ATTEMPTS):
            if remaining_ms() < 2 * clock.SECOND:
                break
            head = self._ledger.head(project)
            hot, _ = self._ledger.states(project, head, hot_keys, ())
            _, full = self._ledger.states(project, head, (), scoring.narrow(prepared, hot))
            scored = scoring.score(prepared, hot, full)
            commit = Commit(
                commit_id=commit_id,
                head=head,
                at=self._now(),
                trace_id=trace_id,
                events=scored.events,
                hot=scored.hot,
                full=scored.full,
                versions={"scorer": scoring.SCORER_VERSION, "topology": topology_version},
            )
            try:
                return self._ledger.commit(project, commit)
            except HeadMoved:
                continue
        raise Retry(f"project {project} is too busy to commit to")
