"""Scoring and correlating the recorded log again: to prove that judgement repeats, or to see what another would change.

A commit records its events as they were scored, the bytes of every series state it changed, and the versions it used.
So the states at any point of the log are the latest recorded bytes of each key before it, and scoring on top of them
with the same versions must give the same bytes again. With other calibrators, or with this code after a change, the
difference is what going live would mean.

Both sides are correlated here in one go, without people: incidents that somebody merged, split or resolved look in the
account of a replay as they would have looked by themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tocsin.kernel.canonical import canonical_json
from tocsin.signals import correlation, scoring
from tocsin.signals.calibration import Calibrators
from tocsin.signals.incidents import Incident, Signal, View
from tocsin.signals.ports import Recorded
from tocsin.signals.topology import Topology

Event = dict[str, Any]
Json = dict[str, Any]
States = dict[bytes, bytes]

#: What scoring adds to an event; the rest is what was sent and what ingest made of it. `severity_id` may have been
#: sent, and scoring an event again keeps it either way.
SCORED: Final = frozenset(
    (
        *("ruling_ms", "onset_ms", "onset_near_s", "onset_busy"),
        *("fingerprint", "features", "score", "tier", "explain", "scored_by"),
    )
)
#: Changed events that an account lists, those whose score moved most.
MOST_SHOWN: Final = 20
_CHUNK: Final = 256


class _Incidents:
    """Incidents of one side of the comparison, kept in memory."""

    def __init__(self, project: str, policy: correlation.Policy) -> None:
        self._project = project
        self._policy = policy
        self._view = View()
        self._timers: list[tuple[int, str]] = []
        self._assigned: dict[tuple[int, int], str] = {}

    def take(self, signals: Sequence[Signal], topology: Topology, now: int) -> None:
        self._let_rest(now)
        left = list(signals)
        while left:
            made = correlation.correlate(
                left[:_CHUNK], self._view, project=self._project, topology=topology, now=now, policy=self._policy
            )
            self._apply(made)
            del left[: made.consumed]

    def _let_rest(self, now: int) -> None:
        """Resolve what was quiet for long enough by then."""
        due = sorted(timer for timer in self._timers if timer[0] <= now)
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for at, incident_id in due:
            self._apply(correlation.quiet([self._view.incidents[incident_id]], now=at, policy=self._policy))

    def _apply(self, made: Any) -> None:
        self._view.incidents.update(made.incidents)
        self._view.index.update(made.index)
        self._assigned.update(made.assignments)
        self._timers += [(at, incident_id) for incident_id, at in made.timers]

    def incidents(self) -> dict[str, Incident]:
        """Incidents that stand, by id."""
        return {name: one for name, one in self._view.incidents.items() if not one.merged_into}

    def groups(self) -> dict[frozenset[tuple[int, int]], str]:
        """The places of the log that belong together, with the incident they belong to."""
        found: dict[str, set[tuple[int, int]]] = {}
        for place, name in self._assigned.items():
            while (into := self._view.incidents[name].merged_into) is not None:
                name = into
            found.setdefault(name, set()).add(place)
        return {frozenset(places): name for name, places in found.items()}


@dataclass(slots=True)
class Account:
    """What a replay found. `moves` counts (tier before, tier after) of events that changed tier."""

    events: int = 0
    identical: int = 0
    commits: int = 0
    #: Commits whose recorded states came out byte for byte.
    same_states: int = 0
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    changed: list[Json] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    incidents: Json = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether everything came out byte for byte, states and incidents included."""
        return (
            self.identical == self.events
            and self.same_states == self.commits
            and self.incidents["only_before"] == self.incidents["only_after"] == 0
        )

    def as_json(self) -> Json:
        return {
            "exact": self.exact,
            "events": self.events,
            "identical": self.identical,
            "commits": self.commits,
            "same_states": self.same_states,
            "tier_moves": [{"from": a, "to": b, "events": n} for (a, b), n in sorted(self.moves.items())],
            "most_changed": self.changed,
            "incidents": self.incidents,
            "versions_not_kept": sorted(self.missing),
        }


class Replay:
    """Scores a project's log again, commit by commit, from a point whose states are given by warm()."""

    def __init__(
        self,
        project: str,
        *,
        topology_of: Callable[[str], Topology | None],
        calibrators_of: Callable[[str], Calibrators | None],
        against: str | None = None,
        policy: correlation.Policy = correlation.DEFAULT_POLICY,
    ) -> None:
        """`against` names the calibrators to score with; None is those of each commit.

        `topology_of` and `calibrators_of` find what a recorded version label names; None when it is not kept.
        """
        self._topology_of = topology_of
        self._calibrators_of = calibrators_of
        self._against = against
        self._hot: States = {}
        self._full: States = {}
        self._before, self._after = _Incidents(project, policy), _Incidents(project, policy)
        self._account = Account()

    def warm(self, recorded: Recorded) -> None:
        """Take over the states of a commit before the point from which is compared."""
        self._hot.update(recorded.hot)
        self._full.update(recorded.full)

    def take(self, recorded: Recorded) -> None:
        """Score one commit again and compare."""
        account = self._account
        topology = self._known(self._topology_of, recorded.versions["topology"]) or Topology.empty()
        label = self._against or recorded.versions["calibrators"]
        calibrators = self._known(self._calibrators_of, label) or Calibrators()
        sent = [{name: value for name, value in event.items() if name not in SCORED} for event in recorded.events]
        prepared = [scoring.prepare(event, topology) for event in sent]
        hot_keys, _ = scoring.needs(prepared)
        hot = {key: self._hot[key] for key in hot_keys if key in self._hot}
        full = {key: self._full[key] for key in scoring.narrow(prepared, hot) if key in self._full}
        scored = scoring.score(prepared, hot, full, calibrators)
        self._hot.update(scored.hot)
        self._full.update(scored.full)
        account.commits += 1
        account.same_states += scored.hot == recorded.hot and scored.full == recorded.full
        for old, new in zip(recorded.events, scored.events, strict=True):
            self._compare(old, new)
        for side, events in ((self._before, recorded.events), (self._after, scored.events)):
            signals = [correlation.signal_of(event, recorded.n, i, topology) for i, event in enumerate(events)]
            side.take(signals, topology, recorded.at)

    def _known(self, find: Callable[[str], Any], label: str) -> Any:
        found = find(label)
        if found is None:
            self._account.missing.add(label)
        return found

    def _compare(self, old: Event, new: Event) -> None:
        account = self._account
        account.events += 1
        if canonical_json(old) == canonical_json(new):
            account.identical += 1
            return
        if old["tier"] != new["tier"]:
            account.moves[old["tier"], new["tier"]] += 1
        account.changed.append(
            {
                "event_id": old["event_id"],
                "title": old["title"],
                "before": {"score": old["score"], "tier": old["tier"], "scored_by": old["scored_by"]},
                "after": {"score": new["score"], "tier": new["tier"], "scored_by": new["scored_by"]},
            }
        )
        if len(account.changed) > 10 * MOST_SHOWN:
            account.changed = _loudest(account.changed)

    def account(self) -> Account:
        """What was found so far."""
        account = self._account
        account.changed = _loudest(account.changed)
        before, after = self._before.groups(), self._after.groups()
        account.incidents = {
            "before": len(before),
            "after": len(after),
            "same_members": len(before.keys() & after.keys()),
            "only_before": len(before.keys() - after.keys()),
            "only_after": len(after.keys() - before.keys()),
            "tiers_before": dict(Counter(one.tier for one in self._before.incidents().values())),
            "tiers_after": dict(Counter(one.tier for one in self._after.incidents().values())),
        }
        return account

    def incidents(self) -> dict[str, Incident]:
        """Incidents of the side that was scored again, by id."""
        return self._after.incidents()


def _loudest(changed: Iterable[Json]) -> list[Json]:
    return sorted(changed, key=lambda one: -abs(one["after"]["score"] - one["before"]["score"]))[:MOST_SHOWN]
