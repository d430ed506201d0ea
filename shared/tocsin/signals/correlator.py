"""The correlate stage: a cursor over each project's numbered commit log.

A wake-up only says that there may be something new. Whoever holds it processes everything from the cursor on and moves
the cursor in the same transaction as the incidents it changed, so duplicate, late and racing wake-ups are harmless and
a lost one costs time, not data (the supervisor wakes projects whose log is ahead of their cursor).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from typing import Final, TypeVar

from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.ids import derived_id
from tocsin.signals import correlation
from tocsin.signals.incidents import OUTBOX_SHARE, Effects, Signal, View
from tocsin.signals.ports import Cursor, Event, HeadMoved, IncidentStore, Ledger, Outbox, OutboxRow, TopologyReader
from tocsin.signals.topology import Topology

#: Commits read at a time and events correlated in one transaction.
COMMITS_PER_ROUND: Final = 10
EVENTS_PER_ROUND: Final = 2_000
#: Signals that matter tried in the first transaction of a call; later ones follow what the one before could take.
FIRST_PORTION: Final = 256
#: Nothing is begun with less time left than this.
MIN_REMAINING_MS: Final = 3 * clock.SECOND
MAX_RACES: Final = 400
#: Rows of effects per transaction; with the cursor, the evidence and the directory rows of facts, timers and
#: evidence it stays below DynamoDB's 100. More is cheaper: an incident that many rounds touch is written by each.
ITEMS_PER_ROUND: Final = 94
SAVE_ATTEMPTS: Final = 8

#: Bus fact of each transition kind.
FACTS: Final = {
    "opened": "IncidentOpened",
    "escalated": "IncidentUpdated",
    "acknowledged": "IncidentAcknowledged",
    "resolved": "IncidentResolved",
    "reopened": "IncidentReopened",
    "merged": "IncidentMerged",
    "split": "IncidentSplit",
}

Change = Callable[[View], Effects]
Item = TypeVar("Item")


class CorrelateWorker:
    """Keeps a project's incidents up to date with its log, its timers and its people."""

    def __init__(
        self,
        ledger: Ledger,
        incidents: IncidentStore,
        outbox: Outbox,
        topologies: TopologyReader,
        *,
        policy: correlation.Policy,
        now: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._ledger = ledger
        self._incidents = incidents
        self._outbox = outbox
        self._topologies = topologies
        self._policy = policy
        self._now = now

    def catch_up(self, project: str, remaining_ms: Callable[[], int]) -> int:
        """Correlate everything the log holds; returns how many events. Raises Retry when time runs out."""
        done = races = 0
        size = FIRST_PORTION
        cursor = self._incidents.cursor(project)
        pending: list[Signal] = []
        end, topology = cursor, Topology.empty()
        while True:
            if remaining_ms() < MIN_REMAINING_MS:
                raise Retry(f"project {project} has more to correlate than one call may take")
            if not pending:
                if (end.n, end.i) != (cursor.n, cursor.i):  # commits without a signal still move the cursor
                    cursor = self._save(project, cursor, end, Effects(), self._now())
                pending, end, topology = self._read(project, cursor)
                if end == cursor:
                    return done
                continue
            reach = self._reach(pending, size)
            try:
                cursor, effects = self._portion(project, cursor, pending[:reach], pending[reach:], end, topology)
            except HeadMoved:
                races += 1
                if races > MAX_RACES:
                    raise Retry(f"project {project} is contended") from None
                cursor = self._incidents.cursor(project)
                pending, end = [], cursor
                continue
            done += effects.consumed
            if effects.consumed < reach:  # the transaction was full
                mattered = sum(correlation.matters(one, self._policy) for one in pending[: effects.consumed])
                size = max(4 * mattered, FIRST_PORTION // 8)
            del pending[: effects.consumed]

    def _reach(self, pending: Sequence[Signal], size: int) -> int:
        """How many signals to try at once: as many as hold `size` that matter. The others cost a round nothing."""
        mattering = (place for place, one in enumerate(pending, 1) if correlation.matters(one, self._policy))
        last = next(islice(mattering, size - 1, None), len(pending))
        return min(last, EVENTS_PER_ROUND)

    def _read(self, project: str, cursor: Cursor) -> tuple[list[Signal], Cursor, Topology]:
        """Signals from the cursor on, where the cursor is once they are dealt with (itself: nothing there), and the
        topology that all of them were scored with. It rules, not the one declared by now: so the log repeats.
        """
        entries = self._ledger.read(project, cursor.n, COMMITS_PER_ROUND)
        if not entries:
            behind = self._ledger.head(project).n - cursor.n
            if behind < 0:
                return [], cursor, Topology.empty()
            # What stood here has left by retention.
            after = replace(cursor, n=cursor.n + min(COMMITS_PER_ROUND, behind + 1), i=0)
            return [], after, Topology.empty()
        entries = list(takewhile(lambda entry: entry.topology == entries[0].topology, entries))
        topology = self._topologies.named(project, entries[0].topology) or Topology.empty()
        signals = []
        for entry in entries:
            start = cursor.i if entry.n == cursor.n else 0
            for i in range(start, len(entry.events)):
                signal = self._signal(project, entry.events[i], entry.n, i, topology)
                if signal is not None:
                    signals.append(signal)
        return signals, replace(cursor, n=entries[-1].n + 1, i=0), topology

    def _signal(self, project: str, event: Event, n: int, i: int, topology: Topology) -> Signal | None:
        """The signal of a stored event; one that is damaged is put on record and left out, so that others go on."""
        try:
            return correlation.signal_of(event, n, i, topology)
        except (KeyError, TypeError, ValueError) as error:
            self._leave_out(project, str(event.get("event_id", "")), error)
            return None

    def _portion(
        self,
        project: str,
        cursor: Cursor,
        signals: Sequence[Signal],
        rest: Sequence[Signal],
        end: Cursor,
        topology: Topology,
    ) -> tuple[Cursor, Effects]:
        """Correlate and save as many of `signals` as fit one transaction; fewer where that fails, until the one at
        fault is alone and left out on record."""
        now = self._now()
        try:
            view = self._incidents.view(project, correlation.needed(signals, topology, self._policy))
            effects = correlation.correlate(
                signals,
                view,
                project=project,
                topology=topology,
                now=now,
                policy=self._policy,
                max_items=ITEMS_PER_ROUND,
            )
            following = [*signals[effects.consumed : effects.consumed + 1], *rest[:1]]
            after = replace(end, n=following[0].n, i=following[0].i) if following else end
            return self._save(project, cursor, after, effects, now), effects
        except (HeadMoved, Retry):
            raise
        except Exception as defect:
            if len(signals) > 1:
                half = len(signals) // 2
                return self._portion(project, cursor, signals[:half], [*signals[half : half + 1]], end, topology)
            self._leave_out(project, signals[0].event_id, defect)
            after = replace(end, n=rest[0].n, i=rest[0].i) if rest else end
            return self._save(project, cursor, after, Effects(), now), Effects(consumed=1)

    def _leave_out(self, project: str, event_id: str, reason: Exception) -> None:
        text = f"stored, but not correlated: {type(reason).__name__}"
        self._ledger.refuse(project, event_id, b"", self._now(), text)

    def quiet(self, project: str, incident_ids: Collection[str], remaining_ms: Callable[[], int]) -> dict[str, str]:
        """Quiet timers fell due: resolve the incidents in which nothing fired since, set the timers of others again.

        Returns the incidents for which that failed, and why: their timers have to come back.
        """
        failed: dict[str, str] = {}
        for some in _shares(sorted(set(incident_ids))):
            if remaining_ms() < MIN_REMAINING_MS:
                failed |= dict.fromkeys(some, "no time")
            else:
                failed |= self._quiet(project, some)
        return failed

    def _quiet(self, project: str, incident_ids: Sequence[str]) -> dict[str, str]:
        def change(view: View) -> Effects:
            found = [view.incidents[one] for one in incident_ids if one in view.incidents]
            return correlation.quiet(found, now=self._now(), policy=self._policy)

        try:
            self._change(project, incident_ids, change)
        except Retry as busy:
            return dict.fromkeys(incident_ids, busy.reason)
        except Exception as defect:
            if len(incident_ids) == 1:
                return {incident_ids[0]: type(defect).__name__}
            # One of them may be damaged: the others must not share its fate.
            return {one: why for each in incident_ids for one, why in self._quiet(project, [each]).items()}
        return {}

    def operate(
        self,
        project: str,
        incident_ids: Sequence[str],
        operation: Change,
        *,
        expected_version: int | None = None,
        tokens: Collection[str] = (),
    ) -> Effects:
        """Apply a person's operation to incidents; `expected_version` is of the first. Refuses unknown ids with 404."""

        def change(view: View) -> Effects:
            missing = [one for one in incident_ids if one not in view.incidents]
            if missing:
                raise Refusal("ERR_NOT_FOUND", "no such incident")
            first = view.incidents[incident_ids[0]]
            if expected_version is not None and first.version != expected_version:
                raise Refusal("ERR_CONFLICT", f"the incident is at version {first.version}; read it again")
            return operation(view)

        return self._change(project, incident_ids, change, tokens)

    def _change(
        self, project: str, incident_ids: Sequence[str], change: Change, tokens: Collection[str] = ()
    ) -> Effects:
        for _ in range(SAVE_ATTEMPTS * 4):
            cursor = self._incidents.cursor(project)
            effects = change(self._incidents.view(project, tokens, incident_ids))
            if not effects.incidents:
                return effects
            try:
                self._save(project, cursor, cursor, effects, self._now())
            except HeadMoved:
                continue
            return effects
        raise Retry(f"project {project} is contended")

    def _save(self, project: str, before: Cursor, after: Cursor, effects: Effects, now: int) -> Cursor:
        """Write effects and move the cursor to the place of `after`; returns the cursor as it then is."""
        after = replace(after, version=before.version + 1)
        rows = self._rows(project, effects, now)
        self._incidents.save(project, before, after, effects, rows, now)
        self._outbox.publish([row for row in rows if row.due <= now])
        return after

    def _rows(self, project: str, effects: Effects, now: int) -> list[OutboxRow]:
        """Outbox rows of effects. Their ids follow from what they announce, so that a repeat is the same row."""
        rows = []
        for told in _shares(effects.transitions):
            facts = [
                {
                    "kind": FACTS[transition.kind],
                    "detail": {
                        "project": project,
                        "incident_id": transition.incident_id,
                        "seq": transition.seq,
                        "kind": transition.kind,
                        "at": transition.at,
                        "summary": transition.summary,
                        "trace_id": transition.summary["trace_id"],
                    },
                }
                for transition in told
            ]
            names = [part for transition in told for part in (transition.incident_id, str(transition.seq))]
            rows.append(OutboxRow(project, derived_id("out", now, project, *names), "fact", now, {"facts": facts}))
        together: dict[int, list[str]] = {}
        for incident_id, due in effects.timers:
            together.setdefault(due, []).append(incident_id)
        for due, waiting in together.items():
            for some in _shares(waiting):
                payload = {"timer": "quiet", "project": project, "incident_ids": some}
                rows.append(OutboxRow(project, derived_id("out", due, project, *some, "quiet"), "timer", due, payload))
        return rows


def _shares(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in portions that share an outbox row."""
    return (items[start : start + OUTBOX_SHARE] for start in range(0, len(items), OUTBOX_SHARE))
