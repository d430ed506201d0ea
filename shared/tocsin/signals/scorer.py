"""The score stage: claims events, scores them under the project's log head, and commits them once.

The protocol, in the order of the code (docs/architecture.md proves it; tests/stack/test_chaos.py attacks it):

1. Every attempt has a fresh commit id and claims a mark per event (put if absent).
2. A mark of another attempt is a duplicate only if that attempt's commit row exists. A young mark without a commit
   row is left alone: its message fails and comes back. An old one is buried with a tombstone under its commit id, so
   that it can never commit afterwards, and then taken over under a condition on the old owner.
3. One transaction writes commit row, numbered log row, head and counters. It fails as a whole when the head moved
   (score again on fresh state) or when the attempt was buried (the messages come back).

A batch is worked off in portions of bounded size, each opened, committed and announced before the next is opened. What
there is no time for goes back unopened.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.ids import new_id
from tocsin.signals import scoring
from tocsin.signals.calibration import Calibrators
from tocsin.signals.ports import (
    Bus,
    CalibratorReader,
    Commit,
    CommitDead,
    Event,
    Fact,
    HeadMoved,
    Ledger,
    LogHead,
    Mark,
    Message,
    Sealed,
    TopologyReader,
)

#: Attempts to commit on a moving head before the messages are given back; time usually runs out first.
COMMIT_ATTEMPTS: Final = 64
#: Unpacked bytes (some 2,000 events) at which a portion is full; the message that fills it may be larger by itself.
PORTION_BYTES: Final = 2 * 1024 * 1024
#: Nothing is begun with less time left than this.
MIN_REMAINING_MS: Final = 3 * clock.SECOND
#: Added to an attempt's longest life before its marks may be taken: covers clock skew and a slow start.
CLAIM_MARGIN_MS: Final = 5 * clock.SECOND


@dataclass(slots=True)
class Outcome:
    """What became of a batch: ids of messages to give back, and counts of events by fate.

    `unreadable` counts messages that could not be opened, `reasons` says why messages were given back. `announced` is
    False when events were committed but the bus did not take the fact; the supervisor then wakes the next stage.
    """

    failed: set[str] = field(default_factory=set)
    unreadable: int = 0
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    announced: bool = True
    reasons: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Arrival:
    """One distinct event of a batch, the messages that carry it, and the digests of its further copies."""

    event: Event
    digest: bytes
    messages: list[str] = field(default_factory=list)
    copies: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one call knows while it works on one project."""

    project: str
    outcome: Outcome
    facts: list[Fact]
    remaining_ms: Callable[[], int]
    lifetime_ms: int


def _spoken(reason: Exception) -> str:
    return f"{type(reason).__name__}: {reason}"[:200]


def _scored(
    ledger: Ledger, project: str, head: LogHead, prepared: Sequence[scoring.Prepared], calibrators: Calibrators
) -> scoring.Scored:
    """Scores on the state that the log has at `head`."""
    hot, _ = ledger.states(project, head, scoring.needs(prepared)[0], ())
    _, full = ledger.states(project, head, (), scoring.narrow(prepared, hot))
    return scoring.score(prepared, hot, full, calibrators)


def preview(
    project: str, events: Sequence[Event], ledger: Ledger, topologies: TopologyReader, calibrations: CalibratorReader
) -> Sequence[Event]:
    """Events as a commit on the log's present head would score them, in order. Nothing is written."""
    _, topology = topologies.topology(project)
    _, calibrators = calibrations.calibrators(project)
    prepared = [scoring.prepare(event, topology) for event in events]
    return _scored(ledger, project, ledger.head(project), prepared, calibrators).events


class ScoreWorker:
    """Turns queue messages into committed, scored events."""

    def __init__(
        self,
        ledger: Ledger,
        bus: Bus,
        topologies: TopologyReader,
        calibrations: CalibratorReader,
        *,
        now: Callable[[], int] = clock.now_ms,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pause = pause
        self._ledger = ledger
        self._bus = bus
        self._topologies = topologies
        self._calibrations = calibrations
        self._now = now

    def handle(self, messages: Sequence[Sealed], remaining_ms: Callable[[], int]) -> Outcome:
        """Process messages of any mix of projects.

        `remaining_ms` tells the time left before this call is killed. Taken at the start it bounds the life of any
        other attempt too, which is how old a mark must be before its attempt may be buried.
        """
        outcome = Outcome()
        lifetime_ms = remaining_ms() + CLAIM_MARGIN_MS
        waiting = deque(messages)
        longest = 0
        while waiting:
            begun = remaining_ms()
            if begun < MIN_REMAINING_MS + longest:  # the next portion may take as long as the longest so far
                outcome.failed.update(sealed.message_id for sealed in waiting)
                outcome.reasons.append(f"no time for {len(waiting)} more messages")
                break
            self._portion(self._open(waiting, outcome), outcome, remaining_ms, lifetime_ms)
            longest = max(longest, begun - remaining_ms())
        return outcome

    @staticmethod
    def _open(waiting: deque[Sealed], outcome: Outcome) -> list[Message]:
        """Take messages off `waiting` and open them until a portion is full; unreadable ones are given back, those of
        deleted projects dropped."""
        opened: list[Message] = []
        size = 0
        while waiting and size < PORTION_BYTES:
            sealed = waiting.popleft()
            try:
                message = sealed.open()
            except (Refusal, Retry) as reason:
                if isinstance(reason, Refusal) and reason.code == "ERR_PROJECT_DELETED":
                    continue  # nobody can read it any more: it is not given back
                outcome.failed.add(sealed.message_id)
                outcome.unreadable += 1
                outcome.reasons.append(_spoken(reason))
                continue
            opened.append(message)
            size += message.size
        return opened

    def _portion(
        self, messages: Sequence[Message], outcome: Outcome, remaining_ms: Callable[[], int], lifetime_ms: int
    ) -> None:
        """One commit per project of these messages, announced at once: a worker that dies later has told so far."""
        by_project: dict[str, list[Message]] = {}
        for message in messages:
            by_project.setdefault(message.project, []).append(message)
        facts: list[Fact] = []
        for project, group in by_project.items():
            self._project(_Attempt(project, outcome, facts, remaining_ms, lifetime_ms), group)
        try:
            self._bus.publish(facts)
        except Retry:
            outcome.announced = False

    def _project(self, attempt: _Attempt, messages: Sequence[Message]) -> None:
        """Commit what these messages carry; those for which that fails are given back."""
        if attempt.remaining_ms() < MIN_REMAINING_MS:
            attempt.outcome.failed.update(message.message_id for message in messages)
            return
        commit_id = new_id("cmt", self._now())
        try:
            self._commit_messages(attempt, commit_id, messages)
        except (CommitDead, Retry) as failure:
            self._give_back(attempt, commit_id, messages, failure)
        except Exception as defect:  # one message of the group may be poison: the others must not share its fate
            if len(messages) == 1 or not self._bury(attempt, commit_id):
                self._give_back(attempt, commit_id, messages, defect)
                return
            for message in messages:
                self._project(attempt, [message])

    def _give_back(self, attempt: _Attempt, commit_id: str, messages: Sequence[Message], reason: Exception) -> None:
        """Let the messages come back, and free what this attempt had claimed, so that nobody waits for it to age."""
        self._bury(attempt, commit_id)
        attempt.outcome.failed.update(message.message_id for message in messages)
        attempt.outcome.reasons.append(_spoken(reason))

    def _bury(self, attempt: _Attempt, commit_id: str) -> bool:
        """Give this attempt up. False when even that failed, or when its commit stands after all."""
        try:
            return self._ledger.bury(attempt.project, commit_id, self._now()) == "dead"
        except Exception:  # whatever keeps the ledger away: the marks age, and another attempt buries this one
            return False

    def _commit_messages(self, attempt: _Attempt, commit_id: str, messages: Sequence[Message]) -> None:
        project, outcome = attempt.project, attempt.outcome
        arrivals = self._distinct(messages)
        claimed = self._claim(attempt, commit_id, arrivals)
        if not claimed:
            return
        number = self._commit(attempt, commit_id, messages[0].trace_id, claimed)
        outcome.stored += len(claimed)
        for arrival in claimed:
            self._account(attempt, arrival, arrival.digest, arrival.copies)
        attempt.facts.append(Fact("EventScored", {"project": project, "n": number, "count": len(claimed)}))

    @staticmethod
    def _distinct(messages: Sequence[Message]) -> dict[str, _Arrival]:
        arrivals: dict[str, _Arrival] = {}
        for message in messages:
            events, digests = message.payload["events"], message.payload["digests"]
            for event, digest in zip(events, map(bytes.fromhex, digests), strict=True):
                first = arrivals.setdefault(event["event_id"], _Arrival(event, digest))
                first.messages.append(message.message_id)
                if first.event is not event:
                    first.copies.append(digest)
        return arrivals

    def _account(self, attempt: _Attempt, arrival: _Arrival, stored: bytes, sent: Sequence[bytes]) -> None:
        """Say what became of further copies of an event that is stored with digest `stored`."""
        for digest in sent:
            if digest == stored:
                attempt.outcome.duplicates += 1
                continue
            attempt.outcome.refused += 1
            reason = "ERR_IDEMPOTENCY_MISMATCH: the id is stored with other content"
            self._ledger.refuse(attempt.project, arrival.event["event_id"], digest, self._now(), reason)

    def _claim(self, attempt: _Attempt, commit_id: str, arrivals: dict[str, _Arrival]) -> list[_Arrival]:
        """Arrivals that this attempt owns, in order; settles the fate of all others."""
        now, project = self._now(), attempt.project
        foreign = self._ledger.claim(project, commit_id, {k: a.digest for k, a in arrivals.items()}, now)
        fates = self._fates(project, foreign, now, attempt.lifetime_ms)
        dead = {event_id: mark for event_id, mark in foreign.items() if fates[mark.commit_id] == "dead"}
        digests = {event_id: arrivals[event_id].digest for event_id in dead}
        taken = self._ledger.take_over(project, dead, commit_id, digests, self._now()) if dead else set()
        owned = []
        for event_id, arrival in arrivals.items():
            mark = foreign.get(event_id)
            if mark is None or event_id in taken:
                owned.append(arrival)
            elif fates[mark.commit_id] == "committed":
                self._account(attempt, arrival, mark.digest, [arrival.digest, *arrival.copies])
            else:
                attempt.outcome.failed.update(arrival.messages)
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

    def _commit(self, attempt: _Attempt, commit_id: str, trace_id: str, claimed: Sequence[_Arrival]) -> int:
        project = attempt.project
        topology_version, topology = self._topologies.topology(project)
        calibration_version, calibrators = self._calibrations.calibrators(project)
        prepared = [scoring.prepare(arrival.event, topology) for arrival in claimed]
        for race in itertools.count():
            if attempt.remaining_ms() < MIN_REMAINING_MS or race == COMMIT_ATTEMPTS:
                break
            if race:
                self._pause(random.uniform(0, min(0.02 * 2**race, 1.0)))  # noqa: S311 - jitter, not a secret
            head = self._ledger.head(project)
            scored = _scored(self._ledger, project, head, prepared, calibrators)
            commit = Commit(
                commit_id=commit_id,
                head=head,
                at=self._now(),
                trace_id=trace_id,
                events=scored.events,
                hot=scored.hot,
                full=scored.full,
                versions={**scoring.VERSIONS, "topology": topology_version, "calibrators": calibration_version},
            )
            try:
                return self._ledger.commit(project, commit)
            except HeadMoved:
                continue
        raise Retry(f"project {project} is too busy to commit to")
