"""Incidents: what they hold, how they live, and what people may do to them. Pure functions over values.

    open ──acknowledge──▶ acknowledged ──┐
      │                                  ├─ all alerts resolved · quiet · a person ─▶ resolved ─ fires again
      ─▶ open └──────────────────────────────────┘
    any of them ── a late link, or a person ──▶ merged (final; the survivor carries on)

Every change of standing is a Transition with a number that only grows (`seq`), so that whoever is told about
it can be told exactly once. Sizes are bounded: an incident of any number of events stays one row.
"""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.ids import derived_id
from tocsin.signals.onsets import mentions
from tocsin.signals.ports import ASSIGNED_COMMITS
from tocsin.signals.topology import Topology

Status = Literal["open", "acknowledged", "resolved", "merged"]
Spans = tuple[int, ...]
Entry = dict[str, Any]
Member = tuple[int, int]

TIERS: Final = ("info", "low", "medium", "high", "critical")
VERDICTS: Final = ("useful", "noise", "duplicate")
UNKNOWN_SEVERITY: Final = 99
MAX_TEXT: Final = 2_000
#: Members an incident's own row lists before they leave together for a row of theirs.
MAX_RECENT: Final = 32
#: Transitions that share an outbox row; likewise incidents whose quiet checks are due together, which later share a
#: message and a transaction.
OUTBOX_SHARE: Final = 20
#: Tag keys and values per key that an incident remembers, for filters and routing.
MAX_TAG_KEYS: Final = 20
MAX_TAG_VALUES: Final = 8
#: Names per service of what its alerts say they cannot reach.
MAX_NAMED: Final = 4


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of correlation. Times in ms, scores 0..1; the gaps were chosen on
    the storms of bench/quality, seeds 1..5.
    """

    gate: float = 0.40  #: below it a firing signal opens and extends nothing
    window: int = 15 * clock.MINUTE  #: same alert; same service or entity, where the project is calm
    busy: int = 6 * clock.MINUTE  #: same service or entity, where alerts begin often
    near: int = 75 * clock.SECOND  #: onsets of declared neighbours; onset of who names a service, and the service
    host: int = 12 * clock.SECOND  #: onsets on the same host
    similar: int = 3 * clock.MINUTE  #: same text in the same cluster
    quiet: int = 60 * clock.MINUTE  #: no firing for so long resolves
    cap: int = 24 * clock.HOUR  #: longest incident, first to last firing
    horizon: int = 4 * clock.HOUR  #: how far back coverage is remembered; lateness (2 h) + gaps + margin
    max_tokens: int = 600
    max_points: int = 6_000  #: interval ends over all tokens of an incident
    max_keys: int = 2_000
    max_entities: int = 2_000
    max_services: int = 200
    max_links: int = 40
    max_absorbed: int = 400
    max_timeline: int = 50
    max_index: int = 8  #: closed incidents kept per token, newest first; open ones come on top

    def merge_gap(self, token: str) -> int:
        """Members of one token closer than this form one interval: the shortest gap at which the token is
        looked up.
        """
        kind = token[:1]
        if kind in "sSoum":
            return self.near
        if kind == "b":
            return int(token.split(":", 2)[1]) * clock.SECOND
        if kind == "h":
            return self.host
        if kind in "eE":
            return self.busy
        return self.similar if kind == "f" else self.window


DEFAULT_POLICY: Final = Policy()
#: Kinds of tokens that are covered at the onset of an alert instead of at each of its events.
AT_ONSET: Final = frozenset("obuhm")


@dataclass(frozen=True, slots=True)
class Signal:
    """A scored event as correlation sees it: event `i` of commit `n`; `at` is its ruling time, `received_at`
    when it came.

    Times in Unix ms, `score` 0..1, `severity_id` OCSF, `entity` as "type:id".
    """

    n: int
    i: int
    event_id: str
    at: int
    received_at: int
    score: float
    tier: str
    severity_id: int
    status: str
    source: str
    type: str
    title: str
    entity: str
    service: str | None
    dedup_key: str
    fingerprint: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    trace_id: str = ""
    onset: int | None = None  #: ruling time at which its alert began to fire; None: with this event
    near_s: int = 0  #: seconds within which onsets are no coincidence in the project; 0: never
    busy: bool = False  #: alerts begin so often in the project that only a short silence on a service means anything

    @property
    def began(self) -> int:
        """Ruling time (ms) at which its alert began to fire."""
        return self.at if self.onset is None else self.onset


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of standing, number `seq` of its incident, made at `at` (ms), with what a reader must know to
    act on it.
    """

    incident_id: str
    seq: int
    kind: str
    at: int
    summary: dict[str, Any]


@dataclass(slots=True)
class Incident:
    """Correlated signals with a life. Times in Unix ms. `first`/`last` are ruling times of firing signals.

    `tokens` maps own tokens to covered intervals (start, end, start, end, …). `keys` maps the short hash of
    each dedup key to [last fired, last resolved (0: never), first fired]. `services` maps a service to [first
    fired, events], `origins` to [first received, highest severity_id, names its alerts cannot reach …]. `tags` holds
    values seen per tag key (the first few). `trace_id` is of the last firing
    signal. `recent` lists the newest members, those that are in no member row yet. `absorbed` lists incidents
    merged into this one: their members are this one's. `moved` lists members a person split off, as
    [n, i, incident they went to]: whoever lists the members leaves them out. `apart` lists incidents that are
    never joined with this one automatically.
    """

    id: str
    first: int
    last: int
    seen: int  #: newest received_at of a firing signal; quiet is counted from here
    opened_at: int
    updated_at: int
    status: Status = "open"
    version: int = 0
    seq: int = 0
    score: float = 0.0
    tier: str = "info"
    severity_id: int = 0
    title: str = ""
    title_rank: tuple[float, int, str] = (-1.0, 0, "")
    events: int = 0
    entities: dict[str, int] = field(default_factory=dict)
    entity_overflow: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    services: dict[str, list[int]] = field(default_factory=dict)
    origins: dict[str, list[Any]] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)
    keys: dict[str, list[int]] = field(default_factory=dict)
    key_overflow: int = 0
    tokens: dict[str, Spans] = field(default_factory=dict)
    links: dict[str, list[Any]] = field(default_factory=dict)
    timeline: list[Entry] = field(default_factory=list)
    entries: int = 0
    root: dict[str, Any] | None = None
    resolved_at: int | None = None
    resolution: str | None = None
    acknowledged_by: str | None = None
    verdict: dict[str, Any] | None = None
    merged_into: str | None = None
    absorbed: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)
    moved: list[list[Any]] = field(default_factory=list)
    recent: list[Member] = field(default_factory=list)
    timer_due: int | None = None
    trace_id: str = ""

    def copy(self) -> Incident:
        """An incident that can be changed without touching this one; interval tuples are shared, they never
        change.
        """
        return replace(
            self,
            entities=dict(self.entities),
            sources=dict(self.sources),
            services={name: list(value) for name, value in self.services.items()},
            origins={name: list(value) for name, value in self.origins.items()},
            tags={name: list(values) for name, values in self.tags.items()},
            keys={name: list(value) for name, value in self.keys.items()},
            tokens=dict(self.tokens),
            links={name: list(value) for name, value in self.links.items()},
            timeline=list(self.timeline),
            absorbed=list(self.absorbed),
            apart=list(self.apart),
            moved=list(self.moved),
            recent=list(self.recent),
        )

    @property
    def names(self) -> frozenset[str]:
        """Its id and those of the incidents it absorbed."""
        return frozenset((self.id, *self.absorbed))

    def entity_count(self) -> int:
        """Distinct entities; exact up to Policy.max_entities, a lower bound beyond."""
        return len(self.entities)

    def to_row(self) -> dict[str, Any]:
        """A JSON object from which from_row makes an equal incident; defaults are left out, intervals are
        relative.
        """
        row: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and value not in (0, {}, [], ""):
                row[one.name] = value
        row["title_rank"] = list(self.title_rank)
        row["tokens"] = {token: [point - self.first for point in spans] for token, spans in self.tokens.items()}
        row["keys"] = {key: [at - self.first if at else None for at in alert] for key, alert in self.keys.items()}
        row["first"] = self.first
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Incident:
        """The incident of a row made by to_row."""
        known = {one.name for one in fields(cls)}
        values = {name: value for name, value in row.items() if name in known}
        first = int(values["first"])
        values["tokens"] = {
            token: tuple(int(point) + first for point in spans) for token, spans in values.get("tokens", {}).items()
        }
        values["keys"] = {
            key: [0 if at is None else int(at) + first for at in alert] for key, alert in values.get("keys", {}).items()
        }
        score, at, event = values.get("title_rank", (-1.0, 0, ""))
        values["title_rank"] = (float(score), int(at), str(event))
        values["recent"] = [(n, i) for n, i in values.get("recent", ())]
        for name in ("last", "seen", "opened_at", "updated_at"):
            values.setdefault(name, 0)
        return cls(**values)


@dataclass(slots=True)
class View:
    """What a change may need to see: index rows (token -> incident ids, newest first) and every incident they
    name.

    An index row may also hold marks of early resolutions, which begin with `?`: incident_ids() leaves them
    out.
    """

    incidents: dict[str, Incident] = field(default_factory=dict)
    index: dict[str, list[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Effects:
    """What a change makes true, to be written in one transaction.

    `incidents` and `index` are new values of changed rows; `assignments` say which events joined which incident
    (and `reasons` why), `members` which of an incident's members no longer fit its row; `timers` are quiet checks
    (incident, due ms); `overflow` holds timeline entries that no longer fit their row; `said` is what people said of
    incidents that is no transition (incident, "verdict" or "note", the value). `consumed` counts the signals dealt
    with.
    """

    consumed: int = 0
    incidents: dict[str, Incident] = field(default_factory=dict)
    index: dict[str, list[str]] = field(default_factory=dict)
    members: dict[str, list[Member]] = field(default_factory=dict)
    assignments: dict[Member, str] = field(default_factory=dict)
    reasons: dict[Member, str] = field(default_factory=dict)
    transitions: list[Transition] = field(default_factory=list)
    timers: list[tuple[str, int]] = field(default_factory=list)
    overflow: dict[str, list[Entry]] = field(default_factory=dict)
    said: list[tuple[str, str, Any]] = field(default_factory=list)

    def items(self) -> int:
        """Rows that writing this takes: what must fit one transaction beside the cursor.

        Member rows are one per incident, assignment rows one per ASSIGNED_COMMITS commits; transitions and timers
        of one moment share rows.
        """
        return (
            len(self.incidents)
            + len(self.index)
            + len(self.members)
            + len({n // ASSIGNED_COMMITS for n, _ in self.assignments})
            + outbox_rows(len(self.transitions), self.timers)
            + sum(map(len, self.overflow.values()))
        )


def outbox_rows(transitions: int, timers: Iterable[tuple[str, int]]) -> int:
    """Rows that so many transitions and these quiet checks take."""
    due = Counter(due for _, due in timers)
    return sum(-(-count // OUTBOX_SHARE) for count in (transitions, *due.values()))


def incident_ids(index_row: Iterable[str]) -> list[str]:
    """The incidents an index row names."""
    return [name for name in index_row if not name.startswith("?")]


def key_hash(dedup_key: str) -> str:
    """8 characters (48 bits) that stand for a dedup key inside one incident."""
    return base64.urlsafe_b64encode(hashlib.blake2b(dedup_key.encode(), digest_size=6).digest()).decode("ascii")


# --- intervals ----------------------------------------------------------------------------------------------


def distance(spans: Spans, at: int) -> int | None:
    """ms from `at` to the nearest covered moment (0 inside an interval); None when nothing is covered."""
    if not spans:
        return None
    position = bisect_left(spans, at)
    if position & 1 or (position < len(spans) and spans[position] == at):
        return 0
    before = at - spans[position - 1] if position else None
    after = spans[position] - at if position < len(spans) else None
    if before is None or (after is not None and after < before):
        return after
    return before


def cover(spans: Spans, at: int, gap: int) -> Spans:
    """`spans` with the moment `at`, joined with intervals no further than `gap` away."""
    if not spans:
        return (at, at)
    end = spans[-1]
    if at >= end:
        return (*spans[:-1], at) if at - end <= gap else (*spans, at, at)
    return unite(spans, (at, at), gap)


def unite(one: Spans, other: Spans, gap: int) -> Spans:
    """Intervals covering both, those no further than `gap` apart joined."""
    pairs = sorted(
        [(one[k], one[k + 1]) for k in range(0, len(one), 2)]
        + [(other[k], other[k + 1]) for k in range(0, len(other), 2)]
    )
    out: list[int] = []
    for start, end in pairs:
        if out and start - out[-1] <= gap:
            out[-1] = max(out[-1], end)
        else:
            out += (start, end)
    return tuple(out)


# --- changing an incident -----------------------------------------------------------------------------------


class Change:
    """Collects what happens to incidents during one call, and turns it into Effects at the end."""

    def __init__(self, view: View, policy: Policy, now: int) -> None:
        self.view, self.policy, self.now = view, policy, now
        self.effects = Effects()
        self._pending: list[tuple[Incident, int, str, str]] = []
        self._opened: set[str] = set()
        self._merged: set[str] = set()
        self._grown: set[str] = set()

    def get(self, name: str) -> Incident | None:
        """The incident a name leads to, through merges; None if it was not loaded."""
        for _ in range(64):
            incident = self.effects.incidents.get(name) or self.view.incidents.get(name)
            if incident is None or incident.merged_into is None:
                return incident
            name = incident.merged_into
        return None

    def own(self, incident: Incident) -> Incident:
        """The incident, ready to be changed."""
        held = self.effects.incidents.get(incident.id)
        if held is None:
            held = incident.copy()
            held.version += 1
            held.updated_at = self.now
            self.effects.incidents[held.id] = held
        return held

    def open(self, identity: str, at: int, received_at: int) -> Incident:
        """A new incident without members yet."""
        incident = Incident(identity, at, at, received_at, self.now, self.now, version=1)
        self.effects.incidents[identity] = incident
        self._opened.add(identity)
        self.watch(incident)
        return incident

    def watch(self, incident: Incident) -> None:
        """Set the quiet timer, unless one is running."""
        if incident.timer_due is None or incident.timer_due <= self.now:
            incident.timer_due = self.now + self.policy.quiet
            self.effects.timers.append((incident.id, incident.timer_due))

    def log(self, incident: Incident, kind: str, at: int, text: str, by: str = "tocsin", **more: Any) -> None:
        """Add a timeline entry. `pos` numbers the entries of an incident from 0."""
        incident.timeline.append({"pos": incident.entries, "at": at, "kind": kind, "by": by, "text": text, **more})
        incident.entries += 1
        extra = len(incident.timeline) - self.policy.max_timeline
        if extra > 0:
            self.effects.overflow.setdefault(incident.id, []).extend(incident.timeline[:extra])
            del incident.timeline[:extra]

    def transition(self, incident: Incident, kind: str) -> None:
        """Number and announce a change of standing. A rise of tier while one is being announced anyway is
        part of it.
        """
        told = any(one.id == incident.id and what in ("opened", "escalated") for one, _, what, _ in self._pending)
        if kind == "escalated" and told:
            return
        incident.seq += 1
        self._pending.append((incident, incident.seq, kind, incident.status))

    def announced(self) -> int:
        """Transitions so far."""
        return len(self._pending)

    def grown(self, incident: Incident) -> None:
        """The incident's services changed: find its root again at the end."""
        self._grown.add(incident.id)

    def raise_to(self, incident: Incident, score: float, tier: str, severity_id: int, at: int) -> None:
        """Roll up score, tier and severity; a rise of tier after opening is a transition."""
        incident.score = max(incident.score, score)
        if incident.severity_id in (0, UNKNOWN_SEVERITY) or UNKNOWN_SEVERITY > severity_id > incident.severity_id:
            incident.severity_id = severity_id or incident.severity_id
        if TIERS.index(tier) > TIERS.index(incident.tier):
            before, incident.tier = incident.tier, tier
            if incident.events:
                self.log(incident, "escalated", at, f"tier rose from {before} to {tier}")
                self.transition(incident, "escalated")

    def resolve(self, incident: Incident, at: int, reason: str, by: str = "tocsin", text: str = "") -> None:
        """Close the incident as of `at`."""
        incident.status, incident.resolved_at, incident.resolution = "resolved", at, reason
        self.log(incident, "resolved", at, text or f"resolved: {reason}", by, reason=reason)
        self.transition(incident, "resolved")

    def reopen(self, incident: Incident, at: int, text: str, by: str = "tocsin") -> None:
        """Undo a resolution."""
        incident.status, incident.resolved_at, incident.resolution = "open", None, None
        incident.acknowledged_by = None
        self.log(incident, "reopened", at, text, by)
        self.transition(incident, "reopened")
        self.watch(incident)

    def settle(self, incident: Incident) -> None:
        """Resolve the incident if every alert that fired in it is resolved (and all of them could be
        remembered).
        """
        if incident.status in ("open", "acknowledged") and all_resolved(incident):
            self.resolve(incident, max(alert[1] for alert in incident.keys.values()), "all alerts resolved")

    def join(self, survivor: Incident, loser: Incident, at: int, text: str, by: str = "tocsin") -> None:
        """Merge `loser` into `survivor`: members, tokens, counters and names move; the loser only points
        on.
        """
        policy = self.policy
        for token, spans in loser.tokens.items():
            survivor.tokens[token] = unite(survivor.tokens.get(token, ()), spans, policy.merge_gap(token))
        for key, (fired, resolved, begun) in loser.keys.items():
            alert = survivor.keys.setdefault(key, [fired, resolved, begun])
            alert[:] = max(alert[0], fired), max(alert[1], resolved), min(alert[2], begun)
        for name, (begun, count) in loser.services.items():
            service = survivor.services.setdefault(name, [begun, 0])
            service[0], service[1] = min(service[0], begun), service[1] + count
        for name, (seen, graded, *named) in loser.origins.items():
            _add_origin(survivor, name, seen, graded, named)
        for counter, other in ((survivor.entities, loser.entities), (survivor.sources, loser.sources)):
            for name, count in other.items():
                counter[name] = counter.get(name, 0) + count
        _add_tags(survivor, ((key, value) for key, values in loser.tags.items() for value in values))
        for key, link in loser.links.items():
            _count_link(survivor, key, link[0], link[1], link[2], policy)
        survivor.entity_overflow += loser.entity_overflow
        survivor.key_overflow += loser.key_overflow
        survivor.first, survivor.last = min(survivor.first, loser.first), max(survivor.last, loser.last)
        survivor.seen = max(survivor.seen, loser.seen)
        survivor.absorbed += [loser.id, *loser.absorbed]
        moved = survivor.moved + loser.moved
        survivor.moved = [place for place in moved if place[2] not in survivor.names]
        survivor.apart = sorted({*survivor.apart, *loser.apart} - survivor.names)
        if _rank(loser.title_rank) > _rank(survivor.title_rank):
            survivor.title, survivor.title_rank = loser.title, loser.title_rank
        if loser.status != "resolved" and survivor.status == "resolved":
            self.reopen(survivor, at, f"reopened: {loser.id}, which is {loser.status}, belongs to it", by)
        if loser.status == "acknowledged" and survivor.status == "open":
            survivor.status, survivor.acknowledged_by = "acknowledged", loser.acknowledged_by
        self.raise_to(survivor, loser.score, loser.tier, loser.severity_id, at)
        survivor.events += loser.events
        self.log(survivor, "merged", at, text, by, incident_id=loser.id, events=loser.events)
        loser.status, loser.merged_into = "merged", survivor.id
        self.log(loser, "merged", at, f"merged into {survivor.id}: {text}", by, incident_id=survivor.id)
        self.transition(loser, "merged")
        loser.tokens, loser.keys, loser.origins = {}, {}, {}
        loser.absorbed, loser.apart, loser.moved = [], [], []
        loser.entities, loser.links, loser.tags = {}, {}, {}
        self._merged.add(loser.id)
        self.grown(survivor)

    def finish(self, topology: Topology) -> Effects:
        """Bound the changed incidents, find their roots, and number what has to be announced."""
        for incident in self.effects.incidents.values():
            _bound(incident, self.policy)
            if len(incident.recent) > MAX_RECENT:
                self.effects.members[incident.id], incident.recent = incident.recent, []
            if incident.id in self._grown and incident.merged_into is None:
                incident.root = root_hint(incident, topology)
        untold = self._opened & self._merged  # nobody has heard of them
        for incident, seq, kind, status in self._pending:
            if incident.id not in untold:
                shown = summary(incident) | {"status": status}
                self.effects.transitions.append(Transition(incident.id, seq, kind, self.now, shown))
        return self.effects


def all_resolved(incident: Incident) -> bool:
    """Whether every alert that fired in it was resolved no earlier than it last fired."""
    return (
        bool(incident.keys)
        and not incident.key_overflow
        and all(resolved >= fired for fired, resolved, _ in incident.keys.values())
    )


def _rank(title_rank: tuple[float, int, str]) -> tuple[float, int, str]:
    score, at, event = title_rank
    return score, -at, event


def _count_link(incident: Incident, key: str, weight: float, text: str, count: int, policy: Policy) -> None:
    link = incident.links.get(key)
    if link is not None:
        link[2] += count
    elif len(incident.links) < policy.max_links:
        incident.links[key] = [weight, text, count]


def absorb(change: Change, incident: Incident, signal: Signal, own: Sequence[str]) -> list[str]:
    """Make a core signal a member; returns own tokens the incident did not hold yet."""
    policy = change.policy
    incident.first, incident.last = min(incident.first, signal.at), max(incident.last, signal.at)
    incident.seen = max(incident.seen, signal.received_at)
    incident.trace_id = signal.trace_id
    _add_tags(incident, signal.tags.items())
    change.raise_to(incident, signal.score, signal.tier, signal.severity_id, signal.at)
    incident.events += 1
    rank = (signal.score, signal.at, signal.event_id)
    if _rank(rank) > _rank(incident.title_rank):
        incident.title, incident.title_rank = signal.title[:300], rank
    _tally(incident.sources, signal.source, policy.max_services)
    entity = key_hash(signal.entity) if len(signal.entity) > 60 else signal.entity
    if not _tally(incident.entities, entity, policy.max_entities):
        incident.entity_overflow += 1
    if signal.service:
        service = incident.services.get(signal.service)
        if service is not None:
            if signal.at < service[0]:
                service[0] = signal.at
                change.grown(incident)
            service[1] += 1
        elif len(incident.services) < policy.max_services:
            incident.services[signal.service] = [signal.at, 1]
            change.grown(incident)
        graded = 0 if signal.severity_id == UNKNOWN_SEVERITY else signal.severity_id
        if signal.service in incident.services and _add_origin(
            incident, signal.service, signal.received_at, graded, mentions(signal.title)
        ):
            change.grown(incident)
    key = key_hash(signal.dedup_key)
    alert = incident.keys.get(key)
    if alert is not None:
        alert[0], alert[2] = max(alert[0], signal.at), min(alert[2], signal.at)
    elif len(incident.keys) < policy.max_keys:
        incident.keys[key] = [signal.at, 0, signal.at]
    else:
        incident.key_overflow += 1
    fresh = []
    for token in own:
        spans = incident.tokens.get(token)
        if spans is None:
            if len(incident.tokens) >= 2 * policy.max_tokens:
                continue
            fresh.append(token)
        moment = signal.began if token[0] in AT_ONSET else signal.at
        incident.tokens[token] = cover(spans or (), moment, policy.merge_gap(token))
    return fresh


def _add_origin(incident: Incident, service: str, seen: int, graded: int, named: Iterable[str]) -> bool:
    """Take what tells where trouble began; whether it was new."""
    before = incident.origins.get(service)
    if before is None:
        incident.origins[service] = [seen, graded, *sorted(named)[:MAX_NAMED]]
        return True
    names = sorted({*before[2:], *named})[:MAX_NAMED] if named else before[2:]
    after = [min(before[0], seen), max(before[1], graded), *names]
    incident.origins[service] = after
    return after != before


def _add_tags(incident: Incident, pairs: Iterable[tuple[str, str]]) -> None:
    for key, value in pairs:
        values = incident.tags.get(key)
        if values is None and len(incident.tags) < MAX_TAG_KEYS:
            values = incident.tags[key] = []
        if values is not None and value not in values and len(values) < MAX_TAG_VALUES:
            values.append(value)


def _tally(counter: dict[str, int], name: str, limit: int) -> bool:
    if name not in counter and len(counter) >= limit:
        return False
    counter[name] = counter.get(name, 0) + 1
    return True


def _bound(incident: Incident, policy: Policy) -> None:
    """Forget coverage that no event within the allowed lateness can reach, then the oldest beyond the size
    bounds.
    """
    edge = incident.last - policy.horizon
    for token in [token for token, spans in incident.tokens.items() if spans[0] < edge]:
        spans = incident.tokens[token]
        kept = spans[_first_after(spans, edge) :]
        if kept:
            incident.tokens[token] = kept
        else:
            del incident.tokens[token]
    if len(incident.tokens) > policy.max_tokens:
        # Service tokens reach furthest, so they go last; among equals the longest silent goes first.
        order = sorted(incident.tokens.items(), key=lambda pair: (pair[0][0] in "sSuo", pair[1][-1], pair[0]))
        incident.tokens = dict(order[len(order) - policy.max_tokens :])
    points = sum(map(len, incident.tokens.values()))
    if points > policy.max_points:
        share = max(2, policy.max_points // len(incident.tokens) & ~1)
        incident.tokens = {token: spans[-share:] for token, spans in incident.tokens.items()}
    extra = len(incident.entities) - policy.max_entities
    if extra > 0:  # two full incidents were merged
        incident.entity_overflow += extra
        incident.entities = dict(list(incident.entities.items())[: policy.max_entities])
    extra = len(incident.keys) - policy.max_keys
    if extra > 0:
        incident.key_overflow += extra
        incident.keys = dict(list(incident.keys.items())[: policy.max_keys])
    incident.services = dict(list(incident.services.items())[: policy.max_services])
    incident.sources = dict(list(incident.sources.items())[: policy.max_services])
    if len(incident.origins) > len(incident.services):
        incident.origins = {name: one for name, one in incident.origins.items() if name in incident.services}


def _first_after(spans: Spans, edge: int) -> int:
    """Index of the first interval that ends at or after `edge`."""
    return bisect_left(spans, edge) & ~1


# --- telling about an incident ------------------------------------------------------------------------------


def root_hint(incident: Incident, topology: Topology) -> dict[str, Any] | None:
    """The likeliest origin: the service most of the others lean on, by declaration or because their alerts say that
    they cannot reach it; among equals the one with the most severe alerts, then the one heard of first. What is heard
    first is judged by when events were received: clocks of senders differ by more than cascades take.
    """
    if not incident.services:
        return None
    observed: dict[str, list[str]] = {}
    for name, (_, _, *named) in incident.origins.items():
        for other in named:
            if other != name:
                observed.setdefault(other, []).append(name)
    declared = topology.reach(incident.services)
    reach = topology.reach(incident.services, observed) if observed else declared

    def order(name: str) -> tuple[int, int, int, int, str]:
        began = incident.services[name][0]
        seen, graded, *_ = incident.origins.get(name, (began, 0))
        return -reach[name], -graded, seen, began, name

    root, *others = sorted(incident.services, key=order)
    _, graded, seen, begun, _ = order(root)
    why = []
    if declared[root]:
        why.append(f"{declared[root]} of {len(others)} other services depend on {root}")
    if reach[root] > declared[root]:
        count = reach[root] - declared[root]
        why.append(
            f"{count} more {'says' if count == 1 else 'say'} that they cannot reach it, or one that depends on it"
        )
    if others and graded < min(order(name)[1] for name in others):
        why.append("its alerts are the most severe")
    if seen <= min((order(name)[2] for name in others), default=seen):
        why.append(f"{root} fired first")
    else:
        why.append(f"{root} fired {spoken(begun - incident.first)} after the first alert")
    return {"service": root, "why": why}


def spoken(duration: int) -> str:
    """A duration in ms in words: `40 s`, `2 min`, `1 h 5 min`."""
    seconds = max(0, duration) // clock.SECOND
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def summary(incident: Incident) -> dict[str, Any]:
    """What a notification needs: standing, size, tier, time span and likely root."""
    shown: dict[str, Any] = {
        "id": incident.id,
        "title": incident.title,
        "status": incident.status,
        "tier": incident.tier,
        "score": incident.score,
        "severity_id": incident.severity_id,
        "events": incident.events,
        "entities": sorted(incident.entities, key=lambda name: (-incident.entities[name], name))[:20],
        "entity_count": incident.entity_count() + incident.entity_overflow,
        "tags": {key: values[:4] for key, values in list(incident.tags.items())[:10]},
        "reasons": [link[1] for link in sorted(incident.links.values(), key=lambda link: -link[0])[:5]],
        "trace_id": incident.trace_id,
        "sources": sorted(incident.sources)[:10],
        "services": sorted(incident.services, key=lambda name: (incident.services[name][0], name))[:10],
        "first": incident.first,
        "last": incident.last,
        "version": incident.version,
    }
    for name in ("root", "resolution", "merged_into", "acknowledged_by"):
        value = getattr(incident, name)
        if value is not None:
            shown[name] = value
    return shown


# --- what time and people do --------------------------------------------------------------------------------


def quiet(incidents: Iterable[Incident], *, now: int, policy: Policy = DEFAULT_POLICY) -> Effects:
    """Quiet timers fell due: resolve the incidents in which nothing fired for Policy.quiet, and set the timers of the
    others again.
    """
    change = Change(View(), policy, now)
    for incident in incidents:
        if incident.status not in ("open", "acknowledged"):
            continue
        due = incident.seen + policy.quiet
        held = change.own(incident)
        if now < due:
            due = max(due, now + clock.SECOND)  # never the row that is being sent: it is deleted right after
            held.version -= 1  # a timer is no change that a reader's version should trip over
            held.timer_due = due
            change.effects.timers.append((held.id, due))
        else:
            held.timer_due = None
            change.resolve(held, due, "quiet", text=f"nothing fired for {spoken(policy.quiet)}")
    return change.finish(Topology.empty())


def _begin(incident: Incident, now: int, policy: Policy) -> tuple[Change, Incident]:
    if incident.merged_into is not None:
        detail = Detail("id", "merged", f"use {incident.merged_into}")
        raise Refusal("ERR_CONFLICT", "the incident was merged into another one", [detail])
    change = Change(View(), policy, now)
    return change, change.own(incident)


def acknowledge(incident: Incident, *, by: str, now: int, policy: Policy = DEFAULT_POLICY) -> Effects:
    """Someone looks after it. Repeating it changes nothing; a resolved incident is refused (ERR_CONFLICT)."""
    if incident.status == "acknowledged":
        return Effects()
    change, held = _begin(incident, now, policy)
    if held.status == "resolved":
        raise Refusal("ERR_CONFLICT", "a resolved incident cannot be acknowledged; reopen it first")
    held.status, held.acknowledged_by = "acknowledged", by
    change.log(held, "acknowledged", now, f"acknowledged by {by}", by)
    change.transition(held, "acknowledged")
    return change.finish(Topology.empty())


def resolve(incident: Incident, *, by: str, now: int, text: str = "", policy: Policy = DEFAULT_POLICY) -> Effects:
    """A person closes it. What fires later within the window opens it again; repeating it changes nothing."""
    if incident.status == "resolved":
        return Effects()
    change, held = _begin(incident, now, policy)
    change.resolve(held, now, f"resolved by {by}", by, text[:MAX_TEXT])
    return change.finish(Topology.empty())


def reopen(incident: Incident, *, by: str, now: int, text: str = "", policy: Policy = DEFAULT_POLICY) -> Effects:
    """A person undoes a resolution; an incident that is not resolved stays as it is."""
    if incident.status in ("open", "acknowledged"):
        return Effects()
    change, held = _begin(incident, now, policy)
    held.seen = max(held.seen, now)
    change.reopen(held, now, text[:MAX_TEXT] or f"reopened by {by}", by)
    return change.finish(Topology.empty())


def note(incident: Incident, *, by: str, now: int, text: str, policy: Policy = DEFAULT_POLICY) -> Effects:
    """Put a remark on the timeline (1 to 2,000 characters)."""
    if not 0 < len(text) <= MAX_TEXT:
        raise Refusal("ERR_SCHEMA", "the note is not valid", [Detail("note", "length", f"1 to {MAX_TEXT} characters")])
    change, held = _begin(incident, now, policy)
    change.log(held, "note", now, text, by)
    change.effects.said.append((held.id, "note", text))
    return change.finish(Topology.empty())


def give_verdict(incident: Incident, *, by: str, now: int, verdict: str, policy: Policy = DEFAULT_POLICY) -> Effects:
    """Say whether it was worth someone's time: useful, noise or duplicate. Calibrators learn from it."""
    if verdict not in VERDICTS:
        fix = f"one of {', '.join(VERDICTS)}"
        raise Refusal("ERR_SCHEMA", "the verdict is not known", [Detail("verdict", "enum", fix)])
    if incident.verdict and incident.verdict.get("value") == verdict:
        return Effects()
    change, held = _begin(incident, now, policy)
    held.verdict = {"value": verdict, "by": by, "at": now}
    change.log(held, "verdict", now, f"judged {verdict}", by, verdict=verdict)
    change.effects.said.append((held.id, "verdict", verdict))
    return change.finish(Topology.empty())


def merge(
    incidents: Sequence[Incident],
    *,
    by: str,
    now: int,
    topology: Topology | None = None,
    policy: Policy = DEFAULT_POLICY,
) -> Effects:
    """A person makes one incident of several; the earliest survives. It overrules an earlier split between
    them.
    """
    distinct = list({one.id: one for one in incidents}.values())
    if len(distinct) < 2:
        raise Refusal("ERR_SCHEMA", "nothing to merge", [Detail("incidents", "min_items", "name two or more")])
    change = Change(View(), policy, now)
    held = []
    for one in distinct:
        _begin(one, now, policy)
        held.append(change.own(one))
    held.sort(key=lambda one: (one.first, one.id))
    survivor = held[0]
    for loser in held[1:]:
        change.join(survivor, loser, now, f"merged by {by}", by)
    survivor.apart = sorted(set(survivor.apart) - survivor.names)
    return change.finish(topology or Topology.empty())


def derived_incident_id(project: str, signal: Signal, *more: str) -> str:
    """The id of the incident that a signal founds; the same whenever it is computed again."""
    return derived_id("inc", signal.received_at, project, signal.event_id, *more)
