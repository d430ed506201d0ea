"""Correlation: the partition is that of the links, whatever the order, the batches and the transactions."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.kernel import ids
from tocsin.kernel.clock import HOUR, MINUTE, SECOND, rfc3339
from tocsin.kernel.errors import Refusal
from tocsin.signals import correlation
from tocsin.signals.correlation import Effects, Incident, Policy, Signal, View
from tocsin.signals.incidents import MAX_RECENT
from tocsin.signals.onsets import FRESH_MS, mentions
from tocsin.signals.topology import HUB_DEPENDENTS, Topology

T0 = 1_767_225_600_000
POLICY = Policy()
SHOP = Topology.from_document(
    {
        "services": {
            "web": {"deps": ["cart", "auth"]},
            "cart": {"deps": ["pay-db"]},
            "auth": {"deps": ["pay-db"]},
            "pay-db": {},
            "mail": {"nodes": ["n1"]},
            "search": {"nodes": ["n1", "n2"]},
        }
    }
)


class Table:
    """Index and incidents in memory; every row goes through its stored form, as it would in a table."""

    def __init__(self, topology: Topology = SHOP, policy: Policy = POLICY) -> None:
        self.topology, self.policy = topology, policy
        self.rows: dict[str, dict[str, Any]] = {}
        self.index: dict[str, list[str]] = {}
        self.assigned: dict[tuple[int, int], str] = {}
        self.members: dict[str, list[tuple[int, int]]] = {}
        self.transitions: list[correlation.Transition] = []
        self.timers: list[tuple[str, int]] = []
        self.overflow: dict[str, list[dict[str, Any]]] = {}

    def get(self, name: str) -> Incident:
        return Incident.from_row(copy.deepcopy(self.rows[name]))

    def view(self, tokens: Iterable[str], also: Iterable[str] = ()) -> View:
        index = {token: list(self.index[token]) for token in tokens if token in self.index}
        wanted = [*also, *(name for row in index.values() for name in correlation.incident_ids(row))]
        incidents: dict[str, Incident] = {}
        while wanted:
            name = wanted.pop()
            if name not in incidents:
                incidents[name] = self.get(name)
                wanted += [onward] if (onward := incidents[name].merged_into) else []
        return View(incidents, index)

    def save(self, effects: Effects) -> None:
        for name, incident in effects.incidents.items():
            self.rows[name] = copy.deepcopy(incident.to_row())
        self.index.update(effects.index)
        self.assigned.update(effects.assignments)
        for name, members in effects.members.items():
            self.members.setdefault(name, []).extend(members)
        self.transitions += effects.transitions
        self.timers += effects.timers
        for name, entries in effects.overflow.items():
            self.overflow.setdefault(name, []).extend(entries)

    def members_of(self, name: str) -> list[tuple[int, int]]:
        """Members of an incident by this name: those that left its row, then those in it."""
        return self.members.get(name, []) + self.get(name).recent

    def take(self, signals: Sequence[Signal], now: int = T0, max_items: int = 80) -> None:
        rounds = 0
        while signals:
            view = self.view(correlation.needed(signals, self.topology, self.policy))
            before = copy.deepcopy(view)
            effects = correlation.correlate(
                signals,
                view,
                project="p1",
                topology=self.topology,
                now=now,
                policy=self.policy,
                max_items=max_items,
            )
            assert view == before, "the view was changed"
            assert effects.items() <= max(max_items, 40)
            self.save(effects)
            signals = signals[effects.consumed :]
            rounds += 1
            assert rounds < 10_000

    def final(self, name: str) -> str:
        while onward := self.rows[name].get("merged_into"):
            name = onward
        return name

    def incident_of(self, signal: Signal) -> Incident | None:
        name = self.assigned.get((signal.n, signal.i))
        return None if name is None else self.get(self.final(name))

    def partition(self, signals: Iterable[Signal]) -> set[frozenset[str]]:
        groups: dict[str, set[str]] = {}
        for signal in signals:
            name = self.assigned.get((signal.n, signal.i))
            if name is not None:
                groups.setdefault(self.final(name), set()).add(signal.event_id)
        return {frozenset(group) for group in groups.values()}

    def alive(self) -> list[Incident]:
        return [self.get(name) for name, row in self.rows.items() if row["status"] != "merged"]


def signal(number: int, service: str | None = "web", at: int = 0, **more: Any) -> Signal:
    """Event `number` of a service, `at` seconds after T0."""
    entity = more.pop("entity", f"service:{service}")
    base: dict[str, Any] = {
        "n": number // 3 + 1,
        "i": number % 3,
        "event_id": f"evt_{number:04d}",
        "at": T0 + at * SECOND,
        "received_at": T0 + at * SECOND,
        "score": 0.7,
        "tier": "high",
        "severity_id": 4,
        "status": "firing",
        "source": "prom",
        "type": "latency",
        "title": f"{service} is slow",
        "entity": entity,
        "service": service,
        "dedup_key": f"prom|latency|{entity}",
    }
    return Signal(**(base | more))


def names(one: Signal) -> set[str]:
    kind, _, name = one.entity.partition(":")
    return {found for found in (one.service, name if kind == "service" else None) if found}


def linked(one: Signal, other: Signal) -> bool:
    """The definition, written without tokens: the oracle of the properties below."""
    apart = abs(one.at - other.at)
    window = POLICY.busy if one.busy or other.busy else POLICY.window
    if one.service == other.service and one.service is not None and apart <= window:
        return True
    if one.entity == other.entity and apart <= window:
        return True
    if (f"service:{one.service}" == other.entity or f"service:{other.service}" == one.entity) and apart <= window:
        return True
    own = [s.busy or s.dedup_key != f"{s.source}|{s.type}|{s.entity}" for s in (one, other)]
    if one.dedup_key == other.dedup_key and all(own) and apart <= POLICY.window:
        return True
    for a, b in ((one, other), (other, one)):
        named = set(mentions(a.title)) if a.at - a.began <= FRESH_MS else set()
        if named & names(b) and abs(a.began - b.at) <= POLICY.near:
            return True
    if any(s.at - s.began > FRESH_MS for s in (one, other)):
        return False
    apart = abs(one.began - other.began)
    if set(mentions(one.title)) & set(mentions(other.title)) and apart <= POLICY.near:
        return True
    near = {other_name for name in names(one) for other_name in SHOP.neighbours(name)}
    if near & names(other) and apart <= POLICY.near:
        return True
    rare = [0 if SHOP.nodes(s.service or "") else s.near_s // (4 if s.service in SHOP else 1) for s in (one, other)]
    if rare[0] == rare[1] != 0 and apart <= rare[0] * SECOND:
        return True
    hosts = [set([s.tags["node"]] if "node" in s.tags else SHOP.nodes(s.service or "")) for s in (one, other)]
    return bool(hosts[0] & hosts[1]) and apart <= POLICY.host


def components(signals: Sequence[Signal]) -> set[frozenset[str]]:
    core = [s for s in signals if s.status == "firing" and s.score >= POLICY.gate]
    group = {s.event_id: {s.event_id} for s in core}
    for k, one in enumerate(core):
        for other in core[:k]:
            if linked(one, other) and group[one.event_id] is not group[other.event_id]:
                joined = group[one.event_id] | group[other.event_id]
                for name in joined:
                    group[name] = joined
    return {frozenset(one) for one in group.values()}


@st.composite
def storms(draw: st.DrawFn) -> list[Signal]:
    events = []
    at = 0
    for number in range(draw(st.integers(1, 24))):
        service = draw(st.sampled_from(["web", "cart", "auth", "pay-db", "mail", "search", "lone", None]))
        entity = draw(st.sampled_from(["host:a", "host:b", "service:web"])) if service is None else f"service:{service}"
        at += draw(st.sampled_from([0, 2, 3, 8, 9, 12, 13, 60, 75, 76, 300, 355, 365, 890, 901]))
        age = draw(st.sampled_from([None, None, 0, 20, 120, 121, 600]))
        near_s = draw(st.sampled_from([0, 8, 8, 16]))
        busy = draw(st.integers(0, 2)) == 0
        reached = draw(st.sampled_from(["", "", "call to pay-db failed", "connection to no-such refused"]))
        tags = {"node": draw(st.sampled_from(["n1", "n9"]))} if draw(st.integers(0, 9)) == 0 else {}
        key = "shared" if draw(st.integers(0, 9)) == 0 else f"prom|latency|{entity}"
        score = draw(st.sampled_from([0.39, 0.4, 0.7, 0.9]))
        events.append(
            signal(
                number,
                service,
                at,
                entity=entity,
                tags=tags,
                dedup_key=key,
                score=score,
                tier=correlation.tier(score),
                received_at=T0 + 2 * HOUR,
                onset=None if age is None else T0 + (at - age) * SECOND,
                near_s=near_s,
                busy=busy,
                title=reached or f"{service} is slow",
            )
        )
    return events


@settings(max_examples=200, deadline=None)
@given(storms(), st.randoms(use_true_random=False), st.integers(20, 80))
def test_incidents_are_the_components_in_any_order_and_any_batches(
    events: list[Signal], shuffle: random.Random, max_items: int
) -> None:
    expected = components(events)
    for _ in range(3):
        order = list(events)
        shuffle.shuffle(order)
        table = Table()
        while order:
            size = shuffle.randint(1, len(order))
            table.take(order[:size], max_items=max_items)
            order = order[size:]
        assert table.partition(events) == expected
        for incident in table.alive():
            members = [s for s in events if (i := table.incident_of(s)) and i.id == incident.id]
            assert incident.events == len(members)
            assert incident.first == min(s.at for s in members)
            assert incident.last == max(s.at for s in members)
            assert incident.score == max(s.score for s in members)
            assert len(incident.entities) == len({s.entity for s in members})
            held = [place for name in incident.names for place in table.members_of(name)]
            assert sorted(held) == sorted((s.n, s.i) for s in members)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["web", "cart", "lone"]), st.integers(0, 600)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_resolutions_find_their_alert_in_any_order(fired: list[tuple[str, int]], shuffle: random.Random) -> None:
    events = [signal(number, service, at) for number, (service, at) in enumerate(fired)]
    ends = {service: max(s.at for s in events if s.service == service) for service in {s for s, _ in fired}}
    over = [
        replace(signal(100 + number, service, 0, status="resolved", score=0.0), at=end + MINUTE)
        for number, (service, end) in enumerate(sorted(ends.items()))
    ]
    order = events + over
    shuffle.shuffle(order)
    table = Table()
    while order:
        size = shuffle.randint(1, 4)
        table.take(order[:size])
        order = order[size:]
    assert all((s.n, s.i) in table.assigned for s in events + over)
    for signal_ in over:
        fired_first = next(s for s in events if s.service == signal_.service)
        assert table.incident_of(signal_) == table.incident_of(fired_first)
    assert {incident.status for incident in table.alive()} == {"resolved"}
    assert {incident.resolution for incident in table.alive()} == {"all alerts resolved"}


@settings(max_examples=60, deadline=None)
@given(storms())
def test_links_are_symmetric(events: list[Signal]) -> None:
    for one in events:
        for other in events:
            a, b = correlation.tokens(one, SHOP), correlation.tokens(other, SHOP)
            assert bool(set(a[0]) & set(b[1])) == bool(set(b[0]) & set(a[1]))


def test_neighbours_join_with_a_reason() -> None:
    table = Table()
    first, second = signal(0, "pay-db"), signal(1, "cart", 70)
    table.take([first])
    view = table.view(correlation.needed([second], SHOP))
    effects = correlation.correlate([second], view, project="p1", topology=SHOP, now=T0)
    assert effects.reasons[second.n, second.i] == "cart depends on pay-db and both fired within 1 min"
    (incident,) = effects.incidents.values()
    assert incident.root == {
        "service": "pay-db",
        "why": ["1 of 1 other services depend on pay-db", "pay-db fired first"],
    }
    assert list(incident.links.values()) == [[0.7, "cart depends on pay-db and both fired within 1 min", 1]]


def root_of(*signals: Signal, topology: Topology | None = None) -> dict[str, Any]:
    table = Table(topology or Topology.empty())
    table.take([replace(one, tags={"node": "n1"}) for one in signals])
    (incident,) = table.alive()
    assert incident.root is not None
    return incident.root


def test_without_a_topology_the_root_is_what_others_cannot_reach() -> None:
    told = root_of(
        signal(0, "web", 0, title="call to auth-api failed"),
        signal(1, "auth-api", 2, title="call to pay-db failed"),
        signal(2, "pay-db", 4),
        signal(3, "mail", 5),
    )
    assert told["service"] == "pay-db"
    assert told["why"][0] == "2 more say that they cannot reach it, or one that depends on it"


def test_what_is_declared_and_what_is_said_count_together() -> None:
    told = root_of(
        signal(0, "web", 0), signal(1, "cart", 2), signal(2, "mail", 3, title="call to pay-db failed"),
        signal(3, "pay-db", 5), topology=SHOP,
    )  # fmt: skip
    assert told["service"] == "pay-db"
    assert told["why"][:2] == [
        "2 of 3 other services depend on pay-db",
        "1 more says that they cannot reach it, or one that depends on it",
    ]


def test_among_equals_the_root_is_the_most_severe_then_the_one_heard_of_first() -> None:
    first, later = signal(0, "mail", 0), signal(1, "search", 5)
    assert root_of(first, later) == {"service": "mail", "why": ["mail fired first"]}
    severe = root_of(first, replace(later, severity_id=5))
    assert severe == {
        "service": "search",
        "why": ["its alerts are the most severe", "search fired 5 s after the first alert"],
    }
    skewed = root_of(replace(first, received_at=T0 + 60_000), later)
    assert skewed["service"] == "search"


def test_neighbours_far_apart_in_time_stay_apart() -> None:
    table = Table()
    table.take([signal(0, "pay-db"), signal(1, "cart", 76)])
    assert len(table.alive()) == 2


def test_between_two_alerts_of_a_service_its_neighbour_is_not_near() -> None:
    table = Table()
    table.take([signal(0, "pay-db", 0), signal(1, "pay-db", 840), signal(2, "cart", 420)])
    assert len(table.alive()) == 2
    assert signal(2).event_id in {next(iter(one)) for one in table.partition([signal(2, "cart", 420)])}


def test_coverage_of_both_sides_survives_a_merge() -> None:
    table = Table()
    table.take([signal(0, "web", 0), signal(1, "web", 1_800), signal(2, "web", 900)])
    table.take([signal(3, "cart", 1_870), signal(4, "cart", -70)])
    assert len(table.alive()) == 1


def test_incidents_that_only_overlap_on_neighbours_stay_apart() -> None:
    table = Table()
    for minute in range(10):
        table.take([signal(2 * minute, "pay-db", 60 * minute, onset=T0)])
        if minute >= 5:
            table.take([signal(2 * minute + 1, "cart", 60 * minute, onset=T0 + 5 * MINUTE)])
    assert len(table.alive()) == 2


def test_without_a_topology_onsets_link_where_they_are_rare() -> None:
    for near_s, apart, incidents in ((0, 0, 2), (8, 8, 1), (8, 9, 2), (32, 32, 1)):
        table = Table(Topology.empty())
        table.take([signal(0, "a", 6, near_s=near_s), signal(1, "b", 6 + apart, near_s=near_s)])
        assert len(table.alive()) == incidents
    reason = next(iter(table.alive()[0].links.values()))[1]
    assert reason == "b began to fire within 32 s of another alert, and alerts seldom begin so close here"


def test_what_an_alert_cannot_reach_links_it_without_a_topology() -> None:
    for order in ((0, 1), (1, 0)):
        table = Table(Topology.empty())
        events = [signal(0, "pay-db", 0), signal(1, "cart", 60, title="call to pay-db failed (request 7)")]
        table.take([events[k] for k in order])
        (one,) = table.alive()
        assert "pay-db as what it cannot reach" in next(iter(one.links.values()))[1]


def test_whatever_is_about_a_service_shares_its_index_row() -> None:
    one = signal(0, "cart", title="call to pay-db failed")
    assert correlation.needed([one], SHOP) == {"s:cart", "s:pay-db", "s:web", "d:prom|latency|service:cart"}
    table = Table()
    table.take([one])
    assert set(table.index) == {"s:cart", "s:pay-db"}


def test_a_service_named_by_tag_meets_one_named_by_entity() -> None:
    table = Table()
    table.take([signal(0, "mail", 0, entity="service:web"), signal(1, "web", 300)])
    assert len(table.alive()) == 1
    table.take([signal(2, "lone", 400, entity="service:cart"), signal(3, "web", 410)])
    assert len(table.alive()) == 1


def test_merging_respects_the_cap() -> None:
    table = Table(policy=Policy(cap=1_700 * SECOND))
    table.take([signal(0, "web", 0), signal(1, "web", 1_000), signal(2, "web", 1_790), signal(3, "web", 895)])
    assert max(incident.last - incident.first for incident in table.alive()) <= 1_700 * SECOND
    assert len(table.alive()) == 2


@pytest.mark.parametrize(("busy", "expected"), [((False, False), 1), ((True, True), 2), ((True, False), 2)])
def test_a_silence_on_a_service_ends_sooner_where_alerts_begin_often(busy: tuple[bool, bool], expected: int) -> None:
    table = Table()
    first = signal(0, at=0, type="errors", dedup_key="prom|errors|service:web", busy=busy[0])
    table.take([first, signal(1, at=600, busy=busy[1])])
    assert len(table.alive()) == expected


def test_an_alert_that_fires_again_stays_with_itself_for_the_whole_window() -> None:
    table = Table()
    table.take([signal(0, at=0, busy=True), signal(1, at=840, busy=True)])
    assert len(table.alive()) == 1


def test_without_a_declaration_services_stay_apart() -> None:
    table = Table(Topology.empty())
    table.take([signal(0, "pay-db"), signal(1, "cart", 1)])
    assert len(table.alive()) == 2


def test_same_text_in_one_cluster_joins_undeclared_services_only() -> None:
    def both(topology: Topology, clusters: Sequence[str], apart: int) -> int:
        table = Table(topology)
        table.take(
            [
                signal(
                    k,
                    ("mail", "search")[k],
                    k * apart,
                    fingerprint="f1",
                    tags={"cluster": clusters[k], "node": f"x{k}"},
                )
                for k in (0, 1)
            ]
        )
        return len(table.alive())

    assert both(Topology.empty(), ["c1", "c1"], 180) == 1
    assert both(Topology.empty(), ["c1", "c1"], 181) == 2
    assert both(Topology.empty(), ["c1", "c2"], 10) == 2
    assert both(SHOP, ["c1", "c1"], 10) == 2


def test_hub_is_linked_both_ways_without_listing_its_dependents() -> None:
    services: dict[str, Any] = {f"s{k}": {"deps": ["dns"]} for k in range(HUB_DEPENDENTS + 8)}
    topology = Topology.from_document({"services": services})
    hub, one, other = signal(0, "dns"), signal(1, "s1", 10), signal(2, "s2", 20)
    assert len(correlation.needed([hub], topology)) < 6
    for order in ([hub, one, other], [one, other, hub]):
        table = Table(topology)
        table.take(order)
        assert table.partition(order) == {frozenset(s.event_id for s in order)}
    table = Table(topology)
    table.take([one, other])
    assert len(table.alive()) == 2, "dependents of a hub are not linked with each other"


def test_one_signal_that_joins_very_many_incidents_needs_several_transactions() -> None:
    services: dict[str, Any] = {f"s{k}": {"deps": ["dns"]} for k in range(60)}
    topology = Topology.from_document({"services": services})
    events = [signal(k, f"s{k}", k % 7) for k in range(60)]
    hub = signal(60, "dns", 5)
    table = Table(topology)
    table.take(events)
    assert len(table.alive()) == 60
    table.take([hub], max_items=80)
    (incident,) = table.alive()
    assert incident.events == 61
    assert len(incident.absorbed) == 59
    assert incident.root is not None
    assert incident.root["service"] == "dns"


def test_noise_below_the_gate_opens_and_extends_nothing() -> None:
    table = Table()
    quiet = [signal(k, "web", k * 60, score=0.399999) for k in range(20)]
    table.take(quiet)
    assert not table.rows
    assert not correlation.needed(quiet, SHOP)
    bridge = [signal(30, "web", 0), signal(31, "web", 800, score=0.2), signal(32, "web", 1600)]
    table.take(bridge)
    assert len(table.alive()) == 2


def test_late_event_merges_and_the_earliest_survives() -> None:
    table = Table()
    early, late, bridge = signal(0, "web", 0), signal(1, "web", 1700), signal(2, "web", 850)
    table.take([late], now=T0 + HOUR)
    table.take([early], now=T0 + HOUR)
    assert len(table.alive()) == 2
    table.take([replace(bridge, received_at=T0 + 2 * HOUR)], now=T0 + 2 * HOUR)
    (survivor,) = table.alive()
    loser = next(table.get(name) for name in table.rows if name != survivor.id)
    assert survivor.first == early.at
    assert survivor.absorbed == [loser.id]
    assert (loser.status, loser.merged_into) == ("merged", survivor.id)
    assert not loser.tokens
    assert [t.kind for t in table.transitions if t.incident_id == loser.id] == ["opened", "merged"]
    assert table.transitions[-1].summary["merged_into"] == survivor.id


def test_incident_opened_and_merged_in_one_call_is_not_announced() -> None:
    table = Table()
    table.take([signal(0, "web", 0), signal(1, "web", 1700), signal(2, "web", 850)])
    assert [t.kind for t in table.transitions] == ["opened"]


def test_identity_follows_from_the_founding_event() -> None:
    names = set()
    for _ in range(2):
        table = Table()
        table.take([signal(0)])
        names |= set(table.rows)
    (name,) = names
    assert ids.INCIDENT_ID.fullmatch(name)
    assert ids.id_time_ms(name) == T0


def test_reopened_by_firing_after_a_person_resolved_it() -> None:
    table = Table()
    table.take([signal(0, at=0)])
    (incident,) = table.alive()
    table.save(correlation.resolve(incident, by="ana", now=T0 + 5 * MINUTE))
    table.take([signal(1, at=200)], now=T0 + 6 * MINUTE)
    assert table.alive()[0].status == "resolved", "it fired before it was resolved"
    table.take([signal(2, at=400)], now=T0 + 7 * MINUTE)
    assert [t.kind for t in table.transitions] == ["opened", "resolved", "reopened"]
    assert [t.seq for t in table.transitions] == [1, 2, 3]
    assert table.alive()[0].status == "open"


@pytest.mark.parametrize(
    ("version", "expected"), [("fp1", ["opened", "resolved", "reopened"]), ("fp2", ["opened", "resolved", "opened"])]
)
def test_a_new_version_of_fingerprints_reopens_nothing(version: str, expected: list[str]) -> None:
    """The same text in the same cluster links; a later version names it anew, and old incidents keep their rest."""

    def said(number: int, service: str, at: int, print_: str) -> Signal:
        return signal(number, service, at, fingerprint=print_, tags={"cluster": "c1"})

    table = Table(Topology.empty())
    table.take([said(0, "web", 0, "fp1_disk")])
    (incident,) = table.alive()
    table.save(correlation.resolve(incident, by="ana", now=T0 + MINUTE))
    table.take([said(1, "mail", 120, f"{version}_disk")], now=T0 + 2 * MINUTE)
    assert [t.kind for t in table.transitions] == expected


def test_after_the_window_a_new_incident_opens() -> None:
    table = Table()
    table.take([signal(0, at=0)])
    table.save(correlation.resolve(table.alive()[0], by="ana", now=T0 + MINUTE))
    table.take([signal(1, at=901)])
    assert len(table.alive()) == 2


def test_resolved_when_every_alert_is_and_reopened_when_one_fires_again() -> None:
    table = Table()
    table.take([signal(0, "web"), signal(1, "cart", 30)])
    table.take([signal(2, "web", 60, status="resolved", score=0.0)])
    assert table.alive()[0].status == "open"
    table.take([signal(3, "cart", 90, status="resolved", score=0.0)])
    (incident,) = table.alive()
    assert (incident.status, incident.resolution, incident.resolved_at) == (
        "resolved",
        "all alerts resolved",
        T0 + 90 * SECOND,
    )
    assert incident.events == 4
    table.take([signal(4, "web", 200)])
    assert table.alive()[0].status == "open"


def test_resolution_that_overtakes_its_alert_still_counts() -> None:
    table = Table()
    over, fired = signal(1, at=60, status="resolved", score=0.0), signal(0, at=0)
    table.take([over])
    assert not table.rows
    table.take([fired])
    (incident,) = table.alive()
    assert (incident.status, incident.events) == ("resolved", 2)
    assert table.assigned[over.n, over.i] == incident.id
    assert not [mark for row in table.index.values() for mark in row if mark.startswith("?")]


def test_resolution_without_alert_opens_nothing() -> None:
    table = Table()
    table.take([signal(k, at=k, status="resolved", score=0.0) for k in range(20)])
    assert not table.rows
    assert max(map(len, table.index.values())) <= 4


def test_acknowledged_at_the_source() -> None:
    table = Table()
    table.take([signal(0), signal(1, at=10, status="acknowledged", score=0.0)])
    (incident,) = table.alive()
    assert (incident.status, incident.acknowledged_by) == ("acknowledged", "prom")


def test_rise_of_tier_is_a_transition_once() -> None:
    table = Table()
    table.take([signal(0, score=0.45, tier="medium")])
    table.take([signal(1, at=5, score=0.9, tier="critical", severity_id=6)])
    table.take([signal(2, at=6, score=0.85, tier="critical")])
    assert [t.kind for t in table.transitions] == ["opened", "escalated"]
    assert table.transitions[-1].summary["tier"] == "critical"
    (incident,) = table.alive()
    assert (incident.score, incident.severity_id, incident.events) == (0.9, 6, 3)


def test_cap_ends_an_incident_that_never_pauses() -> None:
    policy = Policy(cap=HOUR)
    table = Table(policy=policy)
    table.take([signal(k, at=k * 600) for k in range(20)])
    spans = [incident.last - incident.first for incident in table.alive()]
    assert len(spans) > 1
    assert max(spans) <= HOUR


def _split_apart() -> tuple[Table, str, str]:
    table = Table()
    web, cart = [signal(k, "web", k) for k in range(3)], [signal(k, "cart", k) for k in range(3, 6)]
    table.take(web + cart)
    (incident,) = table.alive()
    view = table.view(correlation.split_tokens(cart, SHOP), [incident.id])
    table.save(correlation.split(incident, cart, web, view, project="p1", by="ana", now=T0 + MINUTE, topology=SHOP))
    fresh = next(name for name in table.rows if name != incident.id)
    return table, incident.id, fresh


def test_split_moves_members_and_recounts() -> None:
    table, old, fresh = _split_apart()
    assert (table.get(old).events, table.get(fresh).events) == (3, 3)
    assert set(table.get(old).services) == {"web"}
    assert set(table.get(fresh).services) == {"cart"}
    assert table.incident_of(signal(4, "cart")) == table.get(fresh)
    assert table.transitions[-1].kind == "split"
    assert table.transitions[-1].incident_id == fresh
    assert table.get(old).moved == [[2, 0, fresh], [2, 1, fresh], [2, 2, fresh]]


def test_split_is_sticky_and_links_go_to_the_better_match() -> None:
    table, old, fresh = _split_apart()
    table.take([signal(10, "web", 20), signal(11, "cart", 21), signal(12, "pay-db", 22), signal(13, "web", 60)])
    assert len(table.alive()) == 2
    assert table.assigned[signal(10).n, signal(10).i] == old
    assert table.assigned[signal(11).n, signal(11).i] == fresh
    assert table.assigned[signal(12).n, signal(12).i] == fresh


@pytest.mark.parametrize(("side", "at"), [("web", -500), ("cart", -500)])
def test_either_side_of_a_split_may_absorb_others(side: str, at: int) -> None:
    table, old, fresh = _split_apart()
    earlier = signal(20, side, at - 500)
    table.take([earlier, signal(21, side, at)])
    assert len(table.alive()) == 2
    for number, service in enumerate(["web", "cart", "pay-db", "auth", "web", "cart"]):
        table.take([signal(30 + number, service, 30 + number)])
    assert len(table.alive()) == 2
    assert table.final(old) != table.final(fresh)


def test_split_stays_sticky_after_a_side_was_merged_away() -> None:
    table, old, fresh = _split_apart()
    table.take([signal(20, "cart", -1000), signal(21, "cart", -500)])
    survivor = table.final(fresh)
    assert survivor != fresh
    table.take([signal(22, "web", 30), signal(23, "cart", 31)])
    assert table.final(old) != table.final(fresh)


def test_a_person_may_merge_what_was_split() -> None:
    table, old, fresh = _split_apart()
    table.save(correlation.merge([table.get(fresh), table.get(old)], by="ana", now=T0 + HOUR))
    (survivor,) = table.alive()
    assert (survivor.id, survivor.events, survivor.apart, survivor.moved) == (old, 6, [], [])
    table.take([signal(30, "cart", 40)])
    assert len(table.alive()) == 1


@pytest.mark.parametrize(("taken", "code"), [([], "ERR_SCHEMA"), ([0, 1], "ERR_SCHEMA"), ([0], "ERR_CONFLICT")])
def test_split_refusals(taken: list[int], code: str) -> None:
    table = Table()
    events = [signal(0), signal(1, at=1)]
    table.take(events)
    chosen = [events[k] for k in taken]
    kept = [s for s in events if s not in chosen]
    (incident,) = table.alive()
    if code == "ERR_CONFLICT":
        incident.events += 1
    with pytest.raises(Refusal) as caught:
        correlation.split(incident, chosen, kept, View(), project="p1", by="ana", now=T0, topology=SHOP)
    assert caught.value.code == code


def test_storm_of_5000_entities_stays_one_bounded_row() -> None:
    import json

    table = Table()
    events = [
        signal(
            k,
            "web" if k % 2 else "cart",
            k // 5,
            entity=f"pod:web-{k:05d}-abcdefghij",
            dedup_key=f"custom-key-{k}",
            tags={"node": f"node-{k % 400}"},
        )
        for k in range(5_000)
    ]
    for start in range(0, len(events), 500):
        table.take(events[start : start + 500], now=T0 + start, max_items=2_000)
    (incident,) = table.alive()
    assert incident.events == 5_000
    assert len(json.dumps(table.rows[incident.id])) < 200_000
    assert len(incident.entities) + incident.entity_overflow == 5_000
    assert incident.key_overflow == 5_000 - POLICY.max_keys
    assert max(map(len, table.index.values())) <= POLICY.max_index + 64
    table.take([signal(6_000, "web", 1_050)])
    assert len(table.alive()) == 1


def _event(occurred: int, received: int, **more: Any) -> dict[str, Any]:
    return {
        "event_id": "evt_a",
        "source": "prom",
        "type": "latency",
        "title": "slow",
        "occurred_at": rfc3339(occurred),
        "received_at": rfc3339(received),
        "entity": {"type": "service", "id": "cart-3"},
        "tags": {},
        "score": 0.614,
        "severity_id": 4,
        "status": "firing",
        "dedup_key": "prom|latency|service:cart-3",
        **more,
    }


def test_signal_of_an_event() -> None:
    made = correlation.signal_of(_event(T0, T0 + MINUTE), 7, 2, SHOP)
    assert (made.n, made.i, made.at, made.received_at) == (7, 2, T0, T0 + MINUTE)
    assert (made.tier, made.service, made.entity) == ("high", "cart", "service:cart-3")
    assert correlation.signal_of(_event(T0, T0, ruling_ms=T0 - 5), 1, 0, SHOP).at == T0 - 5


@pytest.mark.parametrize(
    ("occurred", "flags"),
    [(T0 - 2 * HOUR - 1, ("late",)), (T0 + 5 * MINUTE + 1, ("clock_skew",))],
)
def test_wrong_clocks_are_flagged_and_received_at_rules(occurred: int, flags: tuple[str, ...]) -> None:
    made = correlation.signal_of(_event(occurred, T0), 1, 0, SHOP)
    assert (made.at, made.flags) == (T0, flags)


def test_members_stay_in_their_incidents_row_until_they_are_many() -> None:
    table = Table()
    fired = [signal(number, "web", number) for number in range(2 * MAX_RECENT + 5)]
    for one in fired:
        table.take([one])
    (incident,) = table.alive()
    assert len(incident.recent) == 2 * MAX_RECENT + 5 - 2 * (MAX_RECENT + 1)
    assert len(table.members[incident.id]) == 2 * (MAX_RECENT + 1)
    assert table.members_of(incident.id) == [(one.n, one.i) for one in fired], "in the order in which they joined"
