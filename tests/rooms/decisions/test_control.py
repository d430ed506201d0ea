"""Control: every step keeps its invariant, over all short histories or all integers that hypothesis tries."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms.decisions.test_routing import BASE
from tocsin.decisions.contracts import PPB
from tocsin.decisions.control import UNIT, Breaker, Budget, Monitor, Retries, Watch, Window, health, switches
from tocsin.decisions.routing import Health

NATURAL = st.integers(0, 10**15)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=60), st.integers(1, 30))
def test_hysteresis_bounds_the_switches_by_what_the_weights_moved(weights: list[tuple[int, int]], margin: int) -> None:
    on, count, moved = 0, 0, 0
    start = last = weights[0][0]
    for pair in weights:
        moved += abs(pair[on] - last)
        if switches(pair[1 - on], pair[on], margin):
            on, count = 1 - on, count + 1
        last = pair[on]
    assert count * margin <= start + moved
    assert switches(10**9, None, margin)


def test_a_breaker_over_every_short_history() -> None:
    """What is called happens only when admitted; an open breaker admits one probe per cooldown and no more."""
    for history in product(("ok", "fail", "wait"), repeat=8):
        breaker, now, streak, probes_left = Breaker(threshold=2, cooldown_ms=10), 0, 0, 1
        for step in history:
            now += 11 if step == "wait" else 1
            if step == "wait":
                probes_left = 1
                continue
            admitted, breaker = breaker.admit(now)
            if streak >= 2:
                assert not admitted or probes_left
                probes_left -= admitted
            else:
                assert admitted
            if not admitted:
                continue
            streak = 0 if step == "ok" else streak + 1
            breaker = breaker.succeeded() if step == "ok" else breaker.failed(now)
            assert (breaker.state == "closed") == (streak < 2)
            probes_left = probes_left if streak >= 2 and step == "fail" else 1
            if breaker.state == "open":
                probes_left = 0


def test_two_callers_at_a_half_open_breaker_are_one_probe() -> None:
    breaker = Breaker(threshold=1, cooldown_ms=10).failed(0)
    admitted, breaker = breaker.admit(10)
    assert admitted
    assert [breaker.admit(at)[0] for at in (10, 15, 19)] == [False, False, False]
    assert breaker.admit(20)[0], "a probe that never answered is not waited for for ever"


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 50), st.integers(0, 50), st.integers(0, 65_536))
def test_a_window_stays_in_its_bounds(history: list[bool], least: int, width: int, kept: int) -> None:
    window = Window(least=least, most=least + width, kept=kept, size=least)
    for good in history:
        window = window.grown() if good else window.shrunk()
        assert window.least <= window.size <= window.most


@given(NATURAL, NATURAL, st.integers(0, 100))
def test_windows_that_see_the_same_come_together(a: int, b: int, step: int) -> None:
    one, two = Window(0, 2 * 10**15, step, size=a), Window(0, 2 * 10**15, step, size=b)
    assert abs(one.grown().size - two.grown().size) <= abs(a - b)
    assert abs(one.shrunk().size - two.shrunk().size) <= (abs(a - b) + 1) // 2


@given(st.lists(st.booleans(), max_size=200), st.integers(0, 1_000), st.integers(0, 5))
def test_retries_are_bounded_by_requests(history: list[bool], per_mille: int, burst: int) -> None:
    budget, requests, retries = Retries(per_mille, burst, burst * 1_000), 0, 0
    for is_request in history:
        if is_request:
            budget, requests = budget.requested(), requests + 1
        elif after := budget.retry():
            budget, retries = after, retries + 1
        assert 1_000 * retries <= per_mille * requests + 1_000 * burst
        assert budget.milli_tokens >= 0


@settings(max_examples=200)
@given(
    st.integers(0, 100),
    st.lists(st.tuples(st.sampled_from("rcxe"), st.integers(0, 4), st.integers(-5, 60)), max_size=40),
)
def test_a_budget_is_never_overdrawn_and_counts_every_call_once(
    limit: int, history: list[tuple[str, int, int]]
) -> None:
    budget, now = Budget(limit), 0
    for step, call, amount in history:
        name, before, now = f"call-{call}", budget, now + 1
        if step == "r":
            made = budget.reserve(name, amount, now + amount)
            budget = made or budget
            if made is None:
                assert amount < 0 or before.spent + before.held + amount > limit
        elif step == "c":
            budget = budget.commit(name, amount)
            assert budget.spent - before.spent <= before.held - budget.held
        elif step == "x":
            budget = budget.release(name)
            assert budget.spent == before.spent
        else:
            budget = budget.expire(now)
            assert budget.spent + budget.held == before.spent + before.held
            assert all(hold.until_ms > now for hold in budget.holds.values())
        assert budget.spent >= 0
        assert budget.spent + budget.held <= limit
        assert budget.commit("call-9", 50) == budget


def test_reserving_twice_holds_once() -> None:
    budget = Budget(10).reserve("a", 6, 5)
    assert budget is not None
    assert budget.reserve("a", 6, 9) == budget
    assert budget.reserve("b", 5, 9) is None
    assert budget.commit("a", 99).spent == 6


@given(st.integers(0, PPB), st.fractions(0, 1))
def test_each_bet_has_mean_at_most_one_under_what_it_bets_against(error: int, share: Fraction) -> None:
    """E[factor] for every rate p at most the promise (against), and for every rate at least it (favour); exactly."""
    promised, above, below = Monitor(error)._bounds
    assert 0 < below < promised < above < PPB
    promise = Fraction(promised, PPB)
    for bet, rate in ((above, promise * share), (below, promise + (1 - promise) * share)):
        broken, kept = Fraction(bet, promised), Fraction(PPB - bet, PPB - promised)
        assert rate * broken + (1 - rate) * kept <= 1


def test_all_stakes_together_are_one_unit() -> None:
    assert UNIT // 2 + sum(UNIT // (2 * block * (block + 1)) for block in range(1, 100_000)) <= UNIT


def lives(rate: float, calls: int, runs: int, healthy_for: int = 0) -> list[Monitor]:
    made = []
    for run in range(runs):
        rnd, monitor = random.Random(run), Monitor(error_ppb=PPB // 100)
        for call in range(calls):
            monitor = monitor.called(rnd.random() >= (rate if call >= healthy_for else 0.01))
        made.append(monitor)
    return made


def test_honest_services_are_hardly_ever_quarantined() -> None:
    """At exactly the promised rate, looked at after each of 2,000 calls; the bound is 1 in 100 lives."""
    assert sum(one.verdict == "quarantined" for one in lives(0.01, 2_000, 100)) <= 3


def test_liars_are_quarantined_early_or_late_and_good_ones_attested() -> None:
    assert sum(one.verdict == "quarantined" for one in lives(0.05, 1_000, 40)) >= 38
    assert sum(one.verdict == "quarantined" for one in lives(0.10, 2_000, 40, healthy_for=1_000)) >= 38
    assert sum(one.verdict == "attested" for one in lives(0.0005, 2_000, 40)) >= 38


def test_a_promise_of_no_error_at_all_ends_with_the_first_broken_calls() -> None:
    monitor = Monitor(error_ppb=0)
    for _ in range(6):
        monitor = monitor.called(False)
    assert monitor.verdict == "quarantined"
    assert monitor.called(True) == monitor


@pytest.mark.parametrize(
    ("watch", "why"),
    [
        (None, "lease"),
        (Watch(beat_ms=998), "lease"),
        (Watch(beat_ms=999), None),
        (Watch(1_000, Breaker(threshold=1).failed(1_000)), "breaker"),
        (Watch(1_000, Breaker(threshold=1, cooldown_ms=5).failed(995)), None),
        (Watch(1_000, monitor=Monitor(5, verdict="quarantined")), "quarantined"),
        (Watch(1_000, monitor=Monitor(5, verdict="declared")), None),
    ],
)
def test_health_says_why(watch: Watch | None, why: str | None) -> None:
    found = health(Health(4), [BASE], {"s@1": watch} if watch else {}, 1_000)
    assert found.down == ({"s@1": why} if why else {})
    assert found.epoch == (5 if why else 4)


def test_health_attests_and_counts_epochs_by_change() -> None:
    watches = {"s@1": Watch(1_000, monitor=Monitor(5, verdict="attested"))}
    first = health(Health(), [BASE], watches, 1_000)
    assert (first.epoch, first.attested) == (1, {"s@1"})
    assert health(first, [BASE], watches, 1_001) is first
    assert health(first, [BASE], watches, 2_000).epoch == 2
