"""The push budget: exact, never more than the burst plus the rate allows, with a share kept for critical
incidents.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.delivery import budget
from tocsin.delivery.budget import PROJECT_BUCKET, BudgetState
from tocsin.delivery.model import PushBudget

NOW = 1_800_000_000_000
EMPTY = BudgetState(0, {})


def _spend(limit: PushBudget, times: list[int], critical: bool = False) -> list[int]:
    state, granted = EMPTY, []
    for at in times:
        grant = budget.take(state, {"c": limit}, at, critical=critical)
        if not grant.wait_ms:
            granted.append(at)
        state = grant.state
    return granted


def test_a_full_bucket_gives_its_burst_less_the_reserve_and_then_its_rate() -> None:
    limit = PushBudget(per_hour=60, burst=10)
    assert len(_spend(limit, [NOW] * 50)) == 8
    assert len(_spend(limit, [NOW] * 50, critical=True)) == 10
    assert len(_spend(limit, [NOW] * 50 + [NOW + 60_000] * 50)) == 9


def test_a_small_burst_has_no_reserve() -> None:
    assert len(_spend(PushBudget(60, 4), [NOW] * 9)) == 4


def test_the_wait_is_exact() -> None:
    limit = PushBudget(per_hour=60, burst=1)
    state = budget.take(EMPTY, {"c": limit}, NOW, critical=False).state
    refused = budget.take(state, {"c": limit}, NOW + 1, critical=False)
    assert (refused.wait_ms, refused.bucket) == (59_999, "c")
    assert refused.state is state, "a refusal costs nothing"
    assert budget.take(state, {"c": limit}, NOW + 59_999, critical=False).wait_ms == 1
    assert budget.take(state, {"c": limit}, NOW + 60_000, critical=False).wait_ms == 0


def test_both_buckets_or_none() -> None:
    limits = {"c": PushBudget(60, 4), PROJECT_BUCKET: PushBudget(60, 1)}
    state = budget.take(EMPTY, limits, NOW, critical=False).state
    refused = budget.take(state, limits, NOW, critical=False)
    assert refused.bucket == PROJECT_BUCKET
    assert refused.state.tats["c"] == state.tats["c"]


def test_full_buckets_leave_the_state() -> None:
    state = budget.take(EMPTY, {"old": PushBudget(60, 4)}, NOW, critical=False).state
    later = budget.take(state, {"c": PushBudget(60, 4)}, NOW + 3_600_000, critical=False).state
    assert set(later.tats) == {"c"}
    assert later.version == 2


def test_left_counts_what_could_be_pushed_now() -> None:
    limit = PushBudget(60, 10)
    state = EMPTY
    for spent in range(8):
        assert budget.left(state, "c", limit, NOW) == 8 - spent
        state = budget.take(state, {"c": limit}, NOW, critical=False).state
    assert budget.left(state, "c", limit, NOW) == 0
    assert budget.left(state, "c", limit, NOW, critical=True) == 2


@settings(max_examples=100, deadline=None)
@given(
    per_hour=st.integers(1, 3600),
    burst=st.integers(1, 50),
    gaps=st.lists(st.integers(0, 400_000), min_size=1, max_size=120),
    critical=st.booleans(),
)
def test_no_window_ever_holds_more_than_burst_plus_rate(
    per_hour: int, burst: int, gaps: list[int], critical: bool
) -> None:
    times, at = [], NOW
    for gap in gaps:
        at += gap
        times.append(at)
    granted = _spend(PushBudget(per_hour, burst), times, critical)
    assert granted, "the first is always granted"
    for i, start in enumerate(granted):
        for count, end in enumerate(granted[i:], 1):
            assert count <= burst + (end - start) * 1000 // (3_600_000_000 // per_hour)
