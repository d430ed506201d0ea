"""Correlation: which events belong to one incident.

Two firing signals that pass the noise gate are *linked* when they share a token (service, entity, alert,
host, text in a cluster) or stand for declared neighbours, and their ruling times differ by no more than the
gap of that kind of link. Incidents are the connected components of that relation. The relation looks at the
two signals only, and a component does not depend on the order in which its edges are found, so the incidents
of a set of events are a function of the set: not of arrival order, batch boundaries or the worker that saw
them. docs/correlation.md gives the argument, the exceptions and the measured quality.

The cost of a signal is that of its tokens. Open incidents are never scanned: an inverted index leads from a
token to the few incidents that hold it, and each incident remembers per token which intervals it covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.ids import base32_digest
from tocsin.signals.calibration import tier
from tocsin.signals.incidents import (
    DEFAULT_POLICY,
    MAX_RECENT,
    Change,
    Effects,
    Incident,
    Policy,
    Signal,
    Transition,
    View,
    absorb,
    acknowledge,
    all_resolved,
    derived_incident_id,
    distance,
    give_verdict,
    incident_ids,
    key_hash,
    merge,
    note,
    outbox_rows,
    quiet,
    reopen,
    resolve,
    spoken,
    summary,
)
from tocsin.signals.onsets import FRESH_MS, mentions
from tocsin.signals.ports import ASSIGNED_COMMITS
from tocsin.signals.series import ruling_time
from tocsin.signals.topology import Topology

__all__ = [
    "DEFAULT_POLICY",
    "Effects",
    "Incident",
    "Policy",
    "Signal",
    "Transition",
    "View",
    "acknowledge",
    "correlate",
    "give_verdict",
    "incident_ids",
    "matters",
    "merge",
    "needed",
    "note",
    "quiet",
    "reopen",
    "resolve",
    "signal_of",
    "split",
    "split_tokens",
    "summary",
    "tokens",
]

#: How strongly a kind of link binds; decides where a signal goes when it may not join both.
WEIGHTS: Final[Mapping[str, float]] = {
    "alert": 1.0,
    "entity": 1.0,
    "service": 0.9,
    "dependency": 0.7,
    "dependent": 0.7,
    "mention": 0.6,
    "host": 0.5,
    "text": 0.4,
    "onset": 0.3,
}
#: Kinds of tokens that share the index row of another kind.
_PLACES: Final = {"o": "s", "m": "s", "S": "s", "E": "e"}
_MAX_TOKEN: Final = 96
_MAX_OPEN_PER_TOKEN: Final = 64
_MAX_EARLY: Final = 4
_MERGES_AT_ONCE: Final = 12
MAX_SPLIT: Final = 200
#: Tokens of one signal; those of hubs come last. Keeps the rows of one signal within one transaction.
MAX_OWN: Final = 40


@dataclass(frozen=True, slots=True)
class Lookup:
    """One way a signal can be linked: a token another signal may own, how near to the moment `at`, and by what."""

    token: str
    gap: int
    kind: str
    mine: str
    other: str
    at: int


def signal_of(event: Mapping[str, Any], n: int, i: int, topology: Topology) -> Signal:
    """The signal of scored event `i` of commit `n`. Its ruling time is event["ruling_ms"] where the score
    stage left it.

    Otherwise occurred_at rules unless it is more than 2 h before or 5 min after received_at, which then
    rules.
    """
    received_at = clock.parse_rfc3339(event["received_at"])
    at, flags = event.get("ruling_ms"), tuple(event.get("flags") or ())
    if at is None:
        at, why = ruling_time(event)
        flags = tuple(dict.fromkeys((*flags, *why)))
    score = float(event["score"])
    entity = event["entity"]
    name = f"{entity['type']}:{entity['id']}"
    return Signal(
        n=n,
        i=i,
        event_id=event["event_id"],
        at=int(at),
        received_at=received_at,
        score=score,
        tier=tier(score),
        severity_id=int(event.get("severity_id", 0)),
        status=event.get("status", "firing"),
        source=event["source"],
        type=event["type"],
        title=event.get("title", ""),
        entity=name,
        service=topology.service_of(event),
        dedup_key=event.get("dedup_key") or f"{event['source']}|{event['type']}|{name}",
        fingerprint=event.get("fingerprint", ""),
        tags=event.get("tags") or {},
        flags=flags,
        trace_id=str(event.get("trace_id") or ""),
        onset=event.get("onset_ms"),
        near_s=int(event.get("onset_near_s") or 0),
        busy=bool(event.get("onset_busy")),
    )


# --- tokens and links ---------------------------------------------------------------------------------------


def _token(kind: str, *parts: str) -> str:
    text = f"{kind}:{':'.join(parts)}"
    return text if len(text) <= _MAX_TOKEN else f"{kind}:#{base32_digest(text.encode(), 26)}"


def _alert_token(signal: Signal) -> str:
    return _token("d", signal.dedup_key)


def _services(signal: Signal) -> list[str]:
    """Names of services a signal stands for: the stated one, and its entity if that is called a service."""
    kind, _, name = signal.entity.partition(":")
    names = [] if signal.service is None else [signal.service]
    # Whatever names a service by its entity must meet whatever names it by a tag.
    return [*names, name] if kind == "service" and name != signal.service else names


def _fresh(signal: Signal) -> bool:
    """Whether the event speaks of the beginning of its alert. Repeats carry no onset: their alert's first event did."""
    return signal.status == "firing" and signal.at - signal.began <= FRESH_MS


def _own(signal: Signal, topology: Topology) -> tuple[str, ...]:
    services = _services(signal)
    own = [_token("S" if signal.busy else "s", name) for name in services]
    if not signal.entity.startswith("service:"):
        own.append(_token("E" if signal.busy else "e", signal.entity))
    if signal.busy or signal.dedup_key != f"{signal.source}|{signal.type}|{signal.entity}":
        own.append(_alert_token(signal))  # else a default key says no more than the entity does
    known = signal.service in topology
    cluster = signal.tags.get("cluster")
    if cluster and signal.fingerprint and not known:
        own.append(_token("f", signal.fingerprint, cluster))
    if _fresh(signal):
        own += [_token("o", name) for name in services if topology.neighbours(name)]
        own += [_token("m", name) for name in mentions(signal.title)]
        host = signal.tags.get("node") or signal.tags.get("host")
        own += [_token("h", one) for one in ((host,) if host else topology.nodes(signal.service or ""))]
        if _near_s(signal, topology):
            own.append(_moment(signal, topology, 0))
        # One token of a hub stands for its many dependents, so that no lookup grows with them.
        own += [_token("u", dep) for name in services for dep in topology.deps(name) if topology.is_hub(dep)]
    return tuple(dict.fromkeys(own))[:MAX_OWN]


def _near_s(signal: Signal, topology: Topology) -> int:
    """Seconds within which the onset of another alert links; 0: never. The less is declared, the more rarity must tell:
    nothing needs guessing of a service whose hosts are declared, and little of one whose dependencies are.
    """
    service = signal.service or ""
    return 0 if topology.nodes(service) else signal.near_s // 4 if service in topology else signal.near_s


def _moment(signal: Signal, topology: Topology, step: int) -> str:
    """Token of the span of time in which the alert began, or of the span `step` further."""
    near_s = _near_s(signal, topology)
    return f"b:{near_s}:{signal.began // (near_s * clock.SECOND) + step}"


def _lookups(signal: Signal, own: Sequence[str], topology: Topology, policy: Policy) -> list[Lookup]:
    found = []
    at, began = signal.at, signal.began
    for token in own:
        kind, name = token[0], token[2:]
        if kind in "sS":
            found += _both_paces(signal, "s", name, "service", name, policy)
            found.append(Lookup(_token("m", name), policy.near, "mention", name, name, at))
        elif kind in "eE":
            found += _both_paces(signal, "e", signal.entity, "entity", signal.entity, policy)
        elif kind == "d":
            found.append(Lookup(token, policy.window, "alert", signal.title, signal.title, at))
        elif kind == "h":
            found.append(Lookup(token, policy.host, "host", signal.entity, name, began))
        elif kind == "f":
            found.append(Lookup(token, policy.similar, "text", signal.entity, signal.tags["cluster"], at))
        elif kind == "m":
            found.append(Lookup(token, policy.near, "mention", signal.entity, name, began))
            found += [Lookup(_token(s, name), policy.near, "mention", signal.entity, name, began) for s in "sS"]
        elif kind == "b":
            gap = _near_s(signal, topology) * clock.SECOND
            found += [
                Lookup(_moment(signal, topology, step), gap, "onset", signal.service or signal.entity, "", began)
                for step in (0, -1, 1)
            ]
    if not _fresh(signal):
        return found
    for name in _services(signal):
        hub = topology.is_hub(name)
        if hub:
            found.append(Lookup(_token("u", name), policy.near, "dependent", name, name, began))
        for other in topology.deps(name) if hub else topology.neighbours(name):
            found.append(Lookup(_token("o", other), policy.near, "dependency", name, other, began))
    return found


def _both_paces(signal: Signal, letter: str, name: str, kind: str, about: str, policy: Policy) -> list[Lookup]:
    """What a signal about something can follow: other signals about it, whichever pace they came at. Only between two
    of a calm pace the whole window counts.
    """
    calm = policy.busy if signal.busy else policy.window
    return [
        Lookup(_token(letter, name), calm, kind, about, about, signal.at),
        Lookup(_token(letter.upper(), name), policy.busy, kind, about, about, signal.at),
    ]


def tokens(
    signal: Signal, topology: Topology, policy: Policy = DEFAULT_POLICY
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(own, lookup) tokens. Signals a and b can be linked only if own(a) and lookup(b) meet, and then so do
    own(b) and lookup(a)."""
    own = _own(signal, topology)
    return own, tuple(dict.fromkeys(one.token for one in _lookups(signal, own, topology, policy)))


def _place(token: str) -> str:
    """The index row that leads to holders of a token: whatever is about a service shares one row."""
    return _PLACES.get(token[0], token[0]) + token[1:]


def needed(signals: Iterable[Signal], topology: Topology, policy: Policy = DEFAULT_POLICY) -> set[str]:
    """Index rows that must be in the View for these signals; then every incident those rows name
    (see incidents.incident_ids), following merged_into."""
    wanted: set[str] = set()
    for signal in signals:
        if not matters(signal, policy):
            continue
        if signal.status == "firing":
            own, lookup = tokens(signal, topology, policy)
            wanted.update(map(_place, own), map(_place, lookup), (_alert_token(signal),))
        else:
            wanted.update(map(_place, _own(signal, topology)), (_alert_token(signal),))
    return wanted


def matters(signal: Signal, policy: Policy = DEFAULT_POLICY) -> bool:
    """Whether a signal can change an incident; one that fires below the gate cannot."""
    return signal.status != "firing" or signal.score >= policy.gate


def _reason(link: Lookup, apart: int, topology: Topology) -> str:
    within = f"within {spoken(apart)}" if apart >= clock.SECOND else "at the same time"
    if link.kind == "dependency":
        down, up = (link.mine, link.other) if link.other in topology.deps(link.mine) else (link.other, link.mine)
        return f"{down} depends on {up} and both fired {within}"
    if link.kind == "dependent":
        return f"{link.mine} and a service that depends on it both fired {within}"
    if link.kind == "mention":
        return (
            f"an alert names {link.other} as what it cannot reach, and {link.other} fired {within}"
            if link.mine == link.other
            else f"{link.mine} names {link.other} as what it cannot reach, as others do or while it fires, {within}"
        )
    if link.kind == "onset":
        return f"{link.mine} began to fire {within} of another alert, and alerts seldom begin so close here"
    if link.kind == "host":
        return f"{link.mine} and another alert share host {link.other} and fired {within}"
    if link.kind == "text":
        return f"the same text came from cluster {link.other} {within}"
    if link.kind == "alert":
        return f"the same alert fired again {within}"
    return f"{link.other} fired again {within}"


# --- the engine ---------------------------------------------------------------------------------------------


def correlate(
    signals: Sequence[Signal],
    view: View,
    *,
    project: str,
    topology: Topology,
    now: int,
    policy: Policy = DEFAULT_POLICY,
    max_items: int = 80,
) -> Effects:
    """Put signals, in this order, into incidents. `view` must hold what needed() asks for and is not changed.

    Stops before a signal whose effects could exceed `max_items` rows (Effects.items). It takes at least one,
    or, when one signal ties together very many incidents, takes none and merges some of them. Either way,
    calling again with the new state and what was not consumed comes to an end.
    """
    engine = _Engine(view, project, topology, policy, now)
    for signal in signals:
        if not engine.take(signal, max_items):
            break
        engine.change.effects.consumed += 1
    return engine.change.finish(topology)


class _Engine:
    """One call of correlate."""

    def __init__(self, view: View, project: str, topology: Topology, policy: Policy, now: int) -> None:
        self.change = Change(view, policy, now)
        self.project, self.topology, self.policy = project, topology, policy
        self._rows = 0  # upper bound of Effects.items() so far
        self._full: set[str] = set()  # incidents whose members will leave for a row of their own
        self._assigned: set[int] = set()

    def take(self, signal: Signal, max_items: int) -> bool:
        """Deal with one signal; False if it has to wait for the next transaction."""
        if not matters(signal, self.policy):
            return True
        return self._fire(signal, max_items) if signal.status == "firing" else self._hear(signal, max_items)

    def _row(self, token: str) -> list[str]:
        place = _place(token)
        row = self.change.effects.index.get(place)
        return self.change.view.index.get(place, []) if row is None else row

    # firing signals

    def _fire(self, signal: Signal, max_items: int) -> bool:
        own = _own(signal, self.topology)
        found = self._candidates(_lookups(signal, own, self.topology, self.policy))
        chosen = self._compatible(signal, found)
        early = [mark for mark in self._row(_alert_token(signal)) if mark.startswith("?")]
        effects = self.change.effects
        cost = (
            sum(1 for one in chosen if one.id not in effects.incidents)
            + len({_place(token) for token in own if not any(token in x.tokens for x in chosen)} - effects.index.keys())
            + 4 * max(0, len(chosen) - 1)  # per merge: merged, reopened, timeline rows
            + 6  # incident, timer, opened or escalated, timeline row, member row, assignment row
            + 4 * len(early)
        )
        if self._spent() + cost > max_items:
            if effects.consumed:
                return False
            if len(chosen) > _MERGES_AT_ONCE:
                # It ties together more incidents than one transaction holds: merge some now, take it next
                # time.
                self._merge(chosen[:_MERGES_AT_ONCE], signal, found)
                return False
        if chosen:
            survivor = self._merge(chosen, signal, found)
            weight, apart, link = max((found[one.id] for one in chosen), key=lambda hit: (hit[0], -hit[1]))
            reason = _reason(link, apart, self.topology)
            self._link(survivor, signal, link, weight, reason)
            self._maybe_reopen(survivor, signal)
            fresh = absorb(self.change, survivor, signal, own)
            self._maybe_reopen_unresolved(survivor, signal)
        else:
            survivor = self.change.open(derived_incident_id(self.project, signal), signal.at, signal.received_at)
            reason = "opened the incident"
            fresh = absorb(self.change, survivor, signal, own)
            self.change.log(survivor, "opened", signal.at, f"opened by {signal.title[:200]}", event_id=signal.event_id)
            self.change.transition(survivor, "opened")
        for place in dict.fromkeys(map(_place, fresh)):
            self._enter(place, survivor)
        self._member(survivor, signal.n, signal.i, reason)
        self._catch_up(survivor, signal, early)
        return True

    def _merge(
        self, chosen: Sequence[Incident], signal: Signal, found: Mapping[str, tuple[float, int, Lookup]]
    ) -> Incident:
        """One incident of those a signal links; the earliest, then the smallest id, survives."""
        first, *rest = sorted(chosen, key=lambda one: (one.first, one.id))
        survivor = self.change.own(first)
        for loser in rest:
            _, apart, link = found[loser.id]
            self.change.join(survivor, self.change.own(loser), signal.at, _reason(link, apart, self.topology))
        return survivor

    def _candidates(self, lookups: Sequence[Lookup]) -> dict[str, tuple[float, int, Lookup]]:
        """Incidents the signal is linked to, each with weight, ms apart and kind of its best link."""
        found: dict[str, tuple[float, int, Lookup]] = {}
        for link in lookups:
            row = self._row(link.token)
            if not row:
                continue
            weight = WEIGHTS[link.kind]
            seen = set()
            for name in row:
                incident = None if name.startswith("?") else self.change.get(name)
                if incident is None or incident.id in seen:
                    continue
                seen.add(incident.id)
                apart = distance(incident.tokens.get(link.token, ()), link.at)
                if apart is None or apart > link.gap:
                    continue
                best = found.get(incident.id)
                if best is None or (weight, -apart) > (best[0], -best[1]):
                    found[incident.id] = (weight, apart, link)
        return found

    def _compatible(self, signal: Signal, found: Mapping[str, tuple[float, int, Lookup]]) -> list[Incident]:
        """The best match and all others that may become one incident with it: not kept apart, within the
        caps.
        """
        ranked = [one for one in map(self.change.get, found) if one is not None]
        ranked.sort(key=lambda one: (-found[one.id][0], found[one.id][1], -one.last, one.id))
        chosen: list[Incident] = []
        first, last, absorbed = signal.at, signal.at, 0
        names: set[str] = set()
        for one in ranked:
            begin, end = min(first, one.first), max(last, one.last)
            kept_apart = not names.isdisjoint(one.apart)  # `apart` is kept on both sides of a split
            if kept_apart or end - begin > self.policy.cap:
                continue
            if chosen and absorbed + len(one.absorbed) + 1 > self.policy.max_absorbed:
                continue
            chosen.append(one)
            first, last = begin, end
            absorbed += len(one.absorbed) + 1
            names |= one.names
        return chosen

    def _link(self, incident: Incident, signal: Signal, link: Lookup, weight: float, reason: str) -> None:
        key = "|".join((link.kind, *sorted({link.mine, link.other})))[:200]
        held = incident.links.get(key)
        if held is not None:
            held[2] += 1
            return
        if len(incident.links) < self.policy.max_links:
            incident.links[key] = [weight, reason, 1]
        if signal.service and signal.service not in incident.services:
            self.change.log(
                incident, "joined", signal.at, f"{signal.service} joined: {reason}", event_id=signal.event_id
            )

    def _maybe_reopen(self, incident: Incident, signal: Signal) -> None:
        ended = incident.resolved_at
        if incident.status != "resolved" or ended is None or incident.resolution == "all alerts resolved":
            return
        if signal.at > ended:
            self.change.reopen(incident, signal.at, f"reopened: {signal.title[:200]} fired after it was resolved")

    def _maybe_reopen_unresolved(self, incident: Incident, signal: Signal) -> None:
        """An incident that ended because all its alerts were resolved is open again as soon as one is not."""
        ended = incident.status == "resolved" and incident.resolution == "all alerts resolved"
        if ended and not all_resolved(incident):
            self.change.reopen(incident, signal.at, f"reopened: {signal.title[:200]} fires")

    def _enter(self, token: str, incident: Incident) -> None:
        """Put an incident first in the index row of a token it now holds; merged names become their
        survivors'.
        """
        names = [incident.id]
        closed = 0
        marks = []
        for name in self._row(token):
            if name.startswith("?"):
                marks.append(name)
                continue
            held = self.change.get(name)
            if held is None or held.id in names:
                continue
            if held.status in ("open", "acknowledged"):
                names.append(held.id)
            elif closed < self.policy.max_index:
                closed += 1
                names.append(held.id)
        self._write(token, names[: self.policy.max_index + _MAX_OPEN_PER_TOKEN] + marks[:_MAX_EARLY])

    # signals that say an alert ended or is looked after

    def _hear(self, signal: Signal, max_items: int) -> bool:
        """Attach a resolved or acknowledged event to the incident where its alert fired last before it."""
        if self.change.effects.consumed and self._spent() + 8 > max_items:
            return False
        holder = self._holder(signal)
        if holder is None:
            token = _alert_token(signal)
            marks = [mark for mark in self._row(token) if mark.startswith("?")]
            mark = f"?{signal.n}.{signal.i}@{signal.at}:{signal.status}"
            self._write(token, [*incident_ids(self._row(token)), mark, *marks[: _MAX_EARLY - 1]])
            return True
        held = self.change.own(holder)
        self._apply(held, signal.dedup_key, signal.status, signal.at, signal.source)
        self._member(held, signal.n, signal.i, f"the alert is {signal.status}")
        return True

    def _holder(self, signal: Signal) -> Incident | None:
        key = key_hash(signal.dedup_key)
        best: tuple[int, str] | None = None
        holder = None
        for token in (*_own(signal, self.topology), _alert_token(signal)):
            for name in incident_ids(self._row(token)):
                incident = self.change.get(name)
                alert = incident.keys.get(key) if incident else None
                if incident is None or alert is None or not alert[2] <= signal.at <= alert[0] + self.policy.cap:
                    continue
                if best is None or (alert[2], incident.id) > best:
                    best, holder = (alert[2], incident.id), incident
        return holder

    def _apply(self, incident: Incident, dedup_key: str, status: str, at: int, source: str) -> None:
        incident.events += 1
        if status == "resolved":
            alert = incident.keys.get(key_hash(dedup_key))
            if alert is not None:
                alert[1] = max(alert[1], at)
            self.change.settle(incident)
        elif incident.status == "open":
            incident.status, incident.acknowledged_by = "acknowledged", source
            self.change.log(incident, "acknowledged", at, f"acknowledged at {source}", source)
            self.change.transition(incident, "acknowledged")

    def _catch_up(self, incident: Incident, signal: Signal, early: Sequence[str]) -> None:
        """Apply what was heard about this alert before it was known to fire."""
        if not early:
            return
        token = _alert_token(signal)
        rest = []
        for mark in early:
            place, _, about = mark[1:].partition("@")
            when, _, status = about.partition(":")
            at = int(when)
            if at < signal.at:
                if at > signal.at - self.policy.horizon:
                    rest.append(mark)
                continue
            n, _, i = place.partition(".")
            self._apply(incident, signal.dedup_key, status, at, signal.source)
            self._member(incident, int(n), int(i), f"the alert is {status}")
        self._write(token, incident_ids(self._row(token)) + rest)

    # bookkeeping

    def _write(self, token: str, names: list[str]) -> None:
        self.change.effects.index[_place(token)] = names

    def _member(self, incident: Incident, n: int, i: int, reason: str) -> None:
        effects = self.change.effects
        incident.recent.append((n, i))
        if len(incident.recent) > MAX_RECENT:
            self._full.add(incident.id)
        effects.assignments[n, i] = incident.id
        effects.reasons[n, i] = reason
        self._assigned.add(n // ASSIGNED_COMMITS)

    def _spent(self) -> int:
        effects = self.change.effects
        return (
            len(effects.incidents)
            + len(effects.index)
            + len(self._full)
            + len(self._assigned)
            + outbox_rows(self.change.announced(), effects.timers)
            + sum(map(len, effects.overflow.values()))
        )


# --- split by a person --------------------------------------------------------------------------------------


def split_tokens(taken: Iterable[Signal], topology: Topology) -> set[str]:
    """Index rows that must be in the View for split()."""
    return {_place(token) for signal in taken for token in _own(signal, topology)}


def split(
    incident: Incident,
    taken: Sequence[Signal],
    kept: Sequence[Signal],
    view: View,
    *,
    project: str,
    by: str,
    now: int,
    topology: Topology,
    policy: Policy = DEFAULT_POLICY,
    max_items: int = 80,
) -> Effects:
    """A person moves the members `taken` to an incident of their own; `kept` are the others.

    Coverage and roll-ups of both are computed again from their members, so that later signals find the right
    one. The two are never joined automatically again. Refuses ERR_CONFLICT when the members are not those of
    the incident as it now is, ERR_SCHEMA for an empty side, ERR_BATCH_TOO_LARGE for more than one transaction
    holds.
    """
    if incident.merged_into is not None:
        raise Refusal("ERR_CONFLICT", "the incident was merged into another one")
    fired = [signal for signal in taken if signal.status == "firing"]
    if not fired or not any(signal.status == "firing" for signal in kept):
        detail = Detail("members", "both_sides", "leave at least one firing event on each side")
        raise Refusal("ERR_SCHEMA", "a split needs two sides", [detail])
    if len(taken) + len(kept) != incident.events:
        raise Refusal("ERR_CONFLICT", "the incident has other members by now; read it again")
    if len(taken) > MAX_SPLIT:
        raise Refusal("ERR_BATCH_TOO_LARGE", f"at most {MAX_SPLIT} events can be split off at once")
    change = Change(view, policy, now)
    old = change.own(incident)
    founder = min(fired, key=lambda signal: (signal.at, signal.event_id))
    fresh = change.open(
        derived_incident_id(project, founder, incident.id, str(incident.seq)), founder.at, founder.received_at
    )
    for held, members in ((fresh, taken), (old, kept)):
        _refill(change, held, members, topology)
    fresh.apart = sorted({*old.apart, *old.names})
    old.apart = sorted({*old.apart, fresh.id})
    old.moved += [[signal.n, signal.i, fresh.id] for signal in taken]
    change.log(fresh, "split", now, f"split from {old.id} by {by}", by, incident_id=old.id)
    change.log(old, "split", now, f"{len(taken)} events split off into {fresh.id} by {by}", by, incident_id=fresh.id)
    change.transition(fresh, "split")
    for signal in taken:
        change.effects.assignments[signal.n, signal.i] = fresh.id
        change.effects.reasons[signal.n, signal.i] = f"split off by {by}"
    change.effects.members[fresh.id] = [(signal.n, signal.i) for signal in taken]
    for place in dict.fromkeys(map(_place, fresh.tokens)):
        rest = [name for name in view.index.get(place, [old.id]) if name != fresh.id]
        change.effects.index[place] = [fresh.id, *rest]
    effects = change.finish(topology)
    if effects.items() > max_items:
        raise Refusal("ERR_BATCH_TOO_LARGE", "these events cannot be split off at once; choose fewer")
    return effects


def _refill(change: Change, incident: Incident, members: Sequence[Signal], topology: Topology) -> None:
    """Compute an incident's contents from its members, oldest first."""
    ordered = sorted(members, key=lambda signal: (signal.at, signal.event_id))
    begun = next(signal for signal in ordered if signal.status == "firing")
    incident.first, incident.last, incident.seen = begun.at, begun.at, begun.received_at
    incident.score, incident.tier, incident.severity_id, incident.events = 0.0, "info", 0, 0
    incident.title, incident.title_rank = "", (-1.0, 0, "")
    incident.entities, incident.sources, incident.services, incident.tags = {}, {}, {}, {}
    incident.origins = {}
    incident.keys, incident.tokens, incident.links = {}, {}, {}
    incident.entity_overflow = incident.key_overflow = 0
    for signal in ordered:
        if signal.status == "firing":
            incident.events = 0  # what was announced before is not announced again
            absorb(change, incident, signal, _own(signal, topology))
        else:
            alert = incident.keys.get(key_hash(signal.dedup_key))
            if alert is not None and signal.status == "resolved":
                alert[1] = max(alert[1], signal.at)
    incident.events = len(members)
