"""Limits: what is admitted stays within the rate whoever holds leases, at few writes; firing events go first."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.access_fakes import Access, Buckets, Clock, FailureRows, refused, request

from tocsin.access.limits import (
    SECOND_US,
    Brake,
    EventQuota,
    Gate,
    Limiter,
    Rate,
    RequestLimit,
    Scheme,
    retry_after,
    source_of,
)
from tocsin.access.ports import Advance
from tocsin.access.principals import Principal, credential
from tocsin.access.projects import Project, Quota
from tocsin.kernel.errors import Refusal

T0 = 1_800_000_000 * SECOND_US


@dataclass
class World:
    """Processes that share one store and differ by their clocks; what they admitted, in true time (µs)."""

    rate: Rate
    skews: list[int]
    us: int = T0
    store: Any = field(default_factory=Buckets)
    admitted: list[int] = field(default_factory=list)
    asked: int = 0

    def __post_init__(self) -> None:
        def clock_of(skew: int) -> Callable[[], int]:
            return lambda: self.us + skew

        self.processes = [Limiter(self.store, clock_of(skew)) for skew in self.skews]

    def ask(self, process: int, cells: int = 1) -> int:
        self.asked += cells
        got = self.processes[process].take("p", "k", self.rate, ordinary=cells).ordinary
        self.admitted += [self.us] * got
        return got

    def excess(self) -> int:
        """Most cells admitted within any time beyond burst + time / interval."""
        interval, lowest, worst = self.rate.interval_us, 0, -self.rate.burst * self.rate.interval_us
        for i, at in enumerate(sorted(self.admitted)):
            lowest = min(lowest, i * interval - at) if i else -at
            worst = max(worst, (i + 1 - self.rate.burst) * interval - at - lowest)
        return -(-worst // interval)


steps = st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 2), st.integers(1, 12)), min_size=1, max_size=80)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.integers(1, 60), steps)
def test_no_time_ever_sees_more_than_burst_plus_rate(
    per_second: int, burst: int, asks: list[tuple[int, int, int]]
) -> None:
    world = World(Rate(per_second, burst), [0, 0, 0])
    for wait, process, cells in asks:
        world.us += wait
        world.ask(process, cells)
    assert world.excess() <= 0


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(1, 60),
    st.lists(st.integers(-2 * SECOND_US, 2 * SECOND_US), min_size=3, max_size=3),
    steps,
)
def test_clock_skew_costs_at_most_skew_over_interval(
    per_second: int, burst: int, skews: list[int], asks: list[tuple[int, int, int]]
) -> None:
    """F16: processes whose clocks differ by e admit at most e / interval cells more."""
    world = World(Rate(per_second, burst), skews)
    for wait, process, cells in asks:
        world.us += wait
        world.ask(process, cells)
    skew = max(skews) - min(skews)
    assert world.excess() <= -(-skew // world.rate.interval_us)


def test_the_skew_bound_can_be_reached() -> None:
    """A process five seconds ahead does buy what the bound says; the bound is not vacuous."""
    world = World(Rate(10, 5), [0, 5 * SECOND_US])
    for process in (0, 1):
        for _ in range(60):
            world.ask(process)
    assert 0 < world.excess() <= 50


@pytest.mark.parametrize("processes", [1, 3, 8])
@pytest.mark.parametrize("offered", [10, 50, 150])
def test_below_the_limit_nothing_is_refused_and_writes_are_few(processes: int, offered: int) -> None:
    """At most 0.1 write per request over 1,000 requests at 10/s and more, with the default quota."""
    quota, rng = Quota(), random.Random(7)
    world = World(Rate(quota.requests_per_second, quota.requests_burst), [0] * processes)
    for _ in range(1_000):
        world.us += int(rng.expovariate(offered) * SECOND_US)
        assert world.ask(rng.randrange(processes)) == 1
    assert world.store.writes <= 100


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize("factor", [1.0, 2.0, 20.0])
def test_a_saturated_bucket_gives_its_whole_rate_at_few_writes(processes: int, factor: float) -> None:
    world, rng = World(Rate(50, 500), [0] * processes), random.Random(11)
    while world.us < T0 + 60 * SECOND_US:
        world.us += int(rng.expovariate(50 * factor) * SECOND_US)
        world.ask(rng.randrange(processes))
    assert world.excess() <= 0
    assert len(world.admitted) >= 0.95 * min(world.asked, 60 * 50)
    assert world.store.writes <= 0.1 * world.asked


def test_a_standing_start_may_use_half_of_the_burst_at_once() -> None:
    world = World(Rate(10, 100), [0])
    assert sum(world.ask(0) for _ in range(200)) == 50


def test_a_burst_of_one_spaces_requests_evenly() -> None:
    world = World(Rate(2, 1), [0])
    got = []
    for _ in range(5):
        got.append(world.ask(0))
        world.us += 250_000
    assert got == [1, 0, 1, 0, 1]


def test_unspent_leases_are_lost_not_saved_up() -> None:
    world = World(Rate(10, 100), [0, 0, 0, 0])
    for _ in range(40):
        for process in range(4):
            world.us += 1_000
            world.ask(process)
    world.us += 3_600 * SECOND_US
    world.admitted.clear()
    for process in range(4):
        for _ in range(100):
            world.ask(process)
    assert len(world.admitted) <= 100


def test_without_the_store_the_limit_holds_per_process() -> None:
    world = World(Rate(10, 20), [0, 0])
    world.store.away = True
    for _ in range(50):
        world.ask(0)
    first = len(world.admitted)
    assert 10 <= first <= 20
    for _ in range(50):
        world.ask(1)
    assert len(world.admitted) == 2 * first


def test_racing_processes_never_share_a_cell() -> None:
    """A store that another process moves under a lease answers with its state, and the caller takes what is left."""

    class Raced(Buckets):
        def advance(self, project: str, name: str, by_us: int, now_us: int, latest_us: int, seen_us: int) -> Advance:
            super().advance(project, name, 100_000 * 8, now_us, now_us + 10**9, 0)
            return super().advance(project, name, by_us, now_us, latest_us, seen_us)

    world = World(Rate(10, 20), [0], store=Raced())
    assert sum(world.ask(0) for _ in range(20)) <= 10


def test_memory_is_bounded() -> None:
    limiter = Limiter(Buckets(), lambda: T0, size=3)
    for n in range(10):
        limiter.take("p", f"k{n}", Rate(1, 1), ordinary=1)
    assert len(limiter._buckets) == 3


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (1, 0), (10**7, 1), (1, 10**7)])
def test_a_rate_has_bounds(per_second: int, burst: int) -> None:
    with pytest.raises(ValueError, match="1 to"):
        Rate(per_second, burst)


def test_a_rate_that_does_not_divide_a_second_is_rounded_down() -> None:
    assert Rate(3, 1).interval_us * 3 >= SECOND_US


@pytest.mark.parametrize(("wait", "header"), [(1, "1"), (SECOND_US, "1"), (SECOND_US + 1, "2"), (0, "1")])
def test_retry_after_is_whole_seconds(wait: int, header: str) -> None:
    assert retry_after(wait) == header


# --- the request limit


def test_requests_over_the_limit_are_told_when_to_come_back() -> None:
    clock = Clock()
    limit = RequestLimit(Limiter(Buckets(), clock.us))
    caller, quota = Principal("p1", "k" * 12, frozenset()), Quota(requests_per_second=1, requests_burst=1)
    limit.check(caller, quota)
    refusal = refused(limit.check, caller, quota)
    assert (refusal.code, refusal.status) == ("ERR_RATE_LIMITED", 429)
    clock.ms += int(refusal.headers["Retry-After"]) * 1000
    limit.check(caller, quota)


def test_a_flood_of_one_key_costs_the_others_nothing() -> None:
    """F38: one key at 20 times the limit beside five at half of it."""
    clock, rng = Clock(), random.Random(3)
    limit = RequestLimit(Limiter(Buckets(), clock.us))
    quota = Quota(requests_per_second=10, requests_burst=20)
    callers = [Principal("p1", f"k{n:011d}", frozenset()) for n in range(6)]
    flooded = 0
    for _ in range(3_000):
        clock.ms += 5
        try:
            limit.check(callers[0], quota)
        except Refusal:
            flooded += 1
        for caller in callers[1:]:
            if rng.random() < 0.025:
                limit.check(caller, quota)
    assert flooded > 2_500


# --- the event quota


def test_items_of_a_batch_are_refused_one_by_one_informational_first() -> None:
    quota = EventQuota(Limiter(Buckets(), lambda: T0))
    urgent = [False, True] * 10
    decided = quota.decide("p1", urgent, Quota(events_per_second=1, events_burst=24))
    assert [one is None for one in decided[1::2]] == [True] * 10
    informational = decided[::2]
    assert informational[-1] is not None
    assert informational[-1].status == 429
    assert int(informational[-1].headers["Retry-After"]) >= 1
    assert quota.decide("p1", [], Quota()) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 900_000), st.lists(st.booleans(), min_size=1, max_size=30)), min_size=1, max_size=40
    )
)
def test_no_firing_event_is_refused_where_an_informational_one_passes(batches: list[tuple[int, list[bool]]]) -> None:
    at = T0
    quota = EventQuota(Limiter(Buckets(), lambda: at))
    for wait, kinds in batches:
        at += wait
        decided = quota.decide("p1", kinds, Quota(events_per_second=20, events_burst=40))
        firing_refused = any(one is not None for one, kind in zip(decided, kinds, strict=True) if kind)
        info_passed = any(one is None for one, kind in zip(decided, kinds, strict=True) if not kind)
        assert not (firing_refused and info_passed)


def test_under_a_sustained_flood_of_informational_events_firing_ones_pass() -> None:
    """Ten times the quota in informational events, a fifth of it in firing ones, for two minutes."""
    clock, limits = Clock(), Quota(events_per_second=50, events_burst=500)
    quota = EventQuota(Limiter(Buckets(), clock.us))
    refused_firing = passed = 0
    for _ in range(1_200):
        clock.ms += 100
        decided = quota.decide("p1", [False] * 50 + [True], limits)
        refused_firing += decided[-1] is not None
        passed += sum(one is None for one in decided)
    assert refused_firing == 0
    assert 50 * 120 * 0.95 <= passed <= 500 + 50 * 120


# --- the brake


def test_the_brake_shuts_after_twenty_failures_and_opens_again() -> None:
    """A15."""
    clock, rows = Clock(), FailureRows()
    brake = Brake(rows, clock.s)
    for n in range(20):
        brake.check("198.51.100.7", f"wrong {n}")
        brake.failed("198.51.100.7")
    for n in range(980):
        refusal = refused(brake.check, "198.51.100.7", f"wrong {n}")
        assert (refusal.code, refusal.headers["Retry-After"]) == ("ERR_RATE_LIMITED", "60")
    assert rows.writes == 4, "one write per five failures, none while shut"
    brake.check("198.51.100.8", "good")
    clock.ms += 60_000
    brake.check("198.51.100.7", "again")


def test_the_brake_works_across_processes() -> None:
    clock, rows = Clock(), FailureRows()
    processes = [Brake(rows, clock.s) for _ in range(4)]
    tries = 0
    for n in range(400):
        brake = processes[n % 4]
        try:
            brake.check("198.51.100.7", "wrong")
        except Refusal:
            continue
        tries += 1
        brake.failed("198.51.100.7")
    assert tries <= 20 + 4 * 4


def test_slow_failures_do_not_add_up_for_ever() -> None:
    clock = Clock()
    brake = Brake(FailureRows(), clock.s)
    for _ in range(100):
        clock.ms += 6_000
        brake.check("198.51.100.7", "wrong")
        brake.failed("198.51.100.7")


def test_a_proven_credential_passes_from_a_shut_source() -> None:
    clock = Clock()
    brake = Brake(FailureRows(), clock.s)
    brake.proved("the owner's key")
    for _ in range(20):
        brake.failed("198.51.100.7")
    brake.check("198.51.100.7", "the owner's key")
    assert refused(brake.check, "198.51.100.7", "another key").status == 429


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("", "not an address", True),
    ],
)
def test_a_source_is_an_address_or_a_network(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


def test_the_brake_remembers_a_bounded_number_of_sources() -> None:
    brake = Brake(FailureRows(), Clock().s, size=10)
    for n in range(1_000):
        brake.failed(f"10.0.{n // 250}.{n % 250}")
        brake.proved(f"key {n}")
    assert len(brake._sources) == 10
    assert len(brake._proven) == 10
    with pytest.raises(ValueError, match="batch"):
        Brake(FailureRows(), Clock().s, batch=0)


# --- the gate


@dataclass
class Door:
    access: Access = field(default_factory=Access)
    status: str = "active"
    quota: Quota = field(default_factory=Quota)
    used: list[str] = field(default_factory=list)
    proofs: int = 0

    def gate(self, prove: Callable[[Any], Principal] | None = None) -> Gate:
        def key(request: Any) -> Principal:
            self.proofs += 1
            if credential(request) != "good":
                raise Refusal("ERR_AUTH_INVALID", "no")
            return self.access.root

        def project_of(name: str) -> Project:
            if self.status != "active":
                raise Refusal("ERR_SCOPE", "suspended")
            return Project(name, name, quota=self.quota)

        signed = Scheme(lambda r: "signature" in r.headers, lambda r: "s", key)
        keyed = Scheme(lambda r: "x-api-key" in r.headers, credential, prove or key)
        clock = self.access.clock
        return Gate(
            [signed, keyed],
            Brake(FailureRows(), clock.s),
            RequestLimit(Limiter(Buckets(), clock.us)),
            project_of,
            lambda principal: principal,
            lambda principal: self.used.append(principal.key_id),
        )


def test_the_gate_lets_a_good_caller_in_and_notes_it() -> None:
    door = Door()
    assert door.gate().principal_of(request(headers={"x-api-key": "good"})) == door.access.root
    assert door.used == [door.access.root.key_id]


def test_credentials_of_two_kinds_are_ambiguous() -> None:
    """A09, across kinds."""
    door = Door()
    refusal = refused(door.gate().principal_of, request(headers={"x-api-key": "good", "signature": "x"}))
    assert (refusal.code, refusal.status, door.proofs) == ("ERR_AUTH_AMBIGUOUS", 400, 0)


def test_no_credential_is_missing_and_is_no_failed_try() -> None:
    """A01."""
    door = Door()
    gate = door.gate()
    for _ in range(50):
        assert refused(gate.principal_of, request()).code == "ERR_AUTH_MISSING"
    gate.principal_of(request(headers={"x-api-key": "good"}))


@pytest.mark.parametrize("code", ["ERR_AUTH_REVOKED", "ERR_AUTH_REPLAY", "ERR_AUTH_ENV", "ERR_SIG_TIME"])
def test_a_forgotten_job_with_an_old_key_does_not_shut_out_its_neighbours(code: str) -> None:
    door, ended = Door(), True

    def prove(_: Any) -> Principal:
        if ended:
            raise Refusal(code, "no longer")
        return door.access.root

    gate = door.gate(prove)
    for _ in range(100):
        assert refused(gate.principal_of, request(headers={"x-api-key": "old"})).code == code
    ended = False
    gate.principal_of(request(headers={"x-api-key": "another"}))


@pytest.mark.parametrize(
    "dodge",
    [
        {"x-forwarded-for": "203.0.113.9"},
        {"forwarded": "for=203.0.113.9"},
        {"x-real-ip": "203.0.113.9"},
        {"true-client-ip": "203.0.113.9"},
    ],
)
def test_a_source_is_what_the_front_saw_not_what_the_request_says(dodge: dict[str, str]) -> None:
    """A15 and A69: a thousand wrong keys; other sources and their good keys are not affected."""
    door = Door()
    gate = door.gate()
    codes = [
        refused(gate.principal_of, request(headers={"x-api-key": f"wrong {n}", **dodge})).code for n in range(1_000)
    ]
    assert codes == ["ERR_AUTH_INVALID"] * 20 + ["ERR_RATE_LIMITED"] * 980
    assert door.proofs == 20, "nothing is looked up while a source is shut"
    gate.principal_of(request(headers={"x-api-key": "good"}, source_ip="192.0.2.2"))


@pytest.mark.parametrize(
    "dodge",
    [
        {"path": "//v1//events"},
        {"path": "/v1/events/"},
        {"method": "PATCH"},
        {"headers": {"x-api-key": "good", "x-http-method-override": "GET"}},
        {"headers": {"x-api-key": " good"}},
        {"headers": {"x-api-key": "good", "x-forwarded-for": "1.2.3.4"}},
        {"source_ip": "192.0.2.77"},
    ],
)
def test_the_request_limit_goes_by_key_and_cannot_be_dodged(dodge: dict[str, Any]) -> None:
    """A69."""
    door = Door(quota=Quota(requests_per_second=1, requests_burst=1))
    gate = door.gate()
    gate.principal_of(request(headers={"x-api-key": "good"}))
    refusal = refused(gate.principal_of, request(**{"headers": {"x-api-key": "good"}, **dodge}))
    assert (refusal.code, refusal.status) == ("ERR_RATE_LIMITED", 429)


def test_a_suspended_project_is_closed_to_its_keys() -> None:
    door = Door(status="suspended")
    assert refused(door.gate().principal_of, request(headers={"x-api-key": "good"})).status == 403
    assert door.used == []
