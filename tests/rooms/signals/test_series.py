"""States: small, exact to store, and sensible about time and numbers."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.kernel.clock import DAY, HOUR, MINUTE, SECOND, rfc3339
from tocsin.signals import events
from tocsin.signals.calibration import half_power
from tocsin.signals.series import (
    FIRING,
    FULL_LIMIT,
    HOT_LIMIT,
    RESOLVED,
    FingerprintState,
    MetricState,
    RecordBank,
    SeriesState,
    last_changed,
    log2,
    ruling_time,
    state_key,
)

T0 = 1_767_225_600_000
values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, 1e-300, -1e308, 1e308, 1.0]),
)


@pytest.mark.parametrize(
    ("occurred", "received", "expected"),
    [
        (T0, T0 + 1, (T0, ())),
        (T0, T0 + 2 * HOUR, (T0, ())),
        (T0, T0 + 2 * HOUR + 1, (T0 + 2 * HOUR + 1, ("late",))),
        (T0 + 5 * MINUTE, T0, (T0 + 5 * MINUTE, ())),
        (T0 + 5 * MINUTE + 1, T0, (T0, ("clock_skew",))),
        (None, T0, (T0, ())),
        (T0, None, (T0, ())),
    ],
)
def test_ruling_time(occurred: int | None, received: int | None, expected: tuple[int, tuple[str, ...]]) -> None:
    as_numbers = {"occurred_at": occurred, "received_at": received}
    as_text = {k: None if v is None else rfc3339(v) for k, v in as_numbers.items()}
    assert ruling_time(as_numbers) == ruling_time(as_text) == expected
    if None not in as_numbers.values():
        assert events.ruling_time(as_text) == expected[0]


def test_ruling_time_reads_other_offsets_and_needs_some_time() -> None:
    assert ruling_time({"occurred_at": "2026-01-01T02:00:00+02:00", "received_at": T0})[0] == T0
    with pytest.raises(ValueError, match="neither"):
        ruling_time({})


def test_half_power_is_a_power_of_two() -> None:
    for halvings in [0.0, 1e-9, 0.5, 1.0, 1.37, 10.0, 63.99, 500.25]:
        assert half_power(halvings) == pytest.approx(2.0**-halvings, rel=1e-12)
    assert half_power(5_000.0) == 0.0


def test_keys_are_eight_bytes_and_unambiguous() -> None:
    assert len(state_key("series", "a")) == 8
    assert state_key("series", "ab", "c") != state_key("series", "a", "bc")
    assert state_key("series", "a") != state_key("metric", "a")


def test_every_state_survives_packing_within_its_limit() -> None:
    metric = MetricState(T0, T0)
    bank = None
    for i in range(400):
        metric.add(T0 + i * MINUTE, 100.0 + i % 7)
        if bank is None and metric.deserves_bank:
            bank = RecordBank.start(metric)
        if bank is not None:
            bank.add(T0 + i * MINUTE, 100.0 + i % 7)
    assert bank is not None
    print_ = FingerprintState(T0, T0)
    series = SeriesState(T0, T0, FIRING)
    for i in range(100):
        print_.add(T0 + i * SECOND, i % 64)
        series.add(T0 + i * SECOND, RESOLVED if i % 2 else FIRING)
    for state in (metric, print_, series):
        data = state.pack()
        assert len(data) <= HOT_LIMIT
        assert type(state).unpack(data) == state
        assert last_changed(data) == state.last
    data = bank.pack()
    again = RecordBank.unpack(data)
    assert again is not None
    assert again.pack() == data
    assert len(data) <= FULL_LIMIT
    assert last_changed(data) == T0 + 399 * MINUTE


@pytest.mark.parametrize("kind", [FingerprintState, SeriesState, MetricState, RecordBank])
@pytest.mark.parametrize("data", [None, b"", b"\x01", b"\x63" * 70, b"\x00" * 2000])
def test_foreign_bytes_count_as_absent(kind: type[FingerprintState], data: bytes | None) -> None:
    assert kind.unpack(data) is None


def test_expected_rate_is_learned_and_a_burst_exceeds_it() -> None:
    state = FingerprintState(T0, T0)
    at = T0
    for _ in range(24 * 60):
        at += MINUTE
        seen, expected, _ = state.add(at, 0)
    assert seen == pytest.approx(expected, rel=0.15)
    for _ in range(60):
        at += SECOND
        seen, expected, _ = state.add(at, 0)
    assert seen > 4 * expected


def test_distinct_entities_are_counted_within_the_window_only() -> None:
    state = FingerprintState(T0, T0)
    for bit in range(10):
        _, _, entities = state.add(T0 + bit * SECOND, bit)
    assert 9 <= entities <= 12
    assert state.add(T0 + 14 * MINUTE, 0)[2] >= 9
    assert state.add(T0 + 36 * MINUTE, 0)[2] == 1
    assert state.add(T0 + 36 * MINUTE, None)[2] == 1


def test_late_events_do_not_turn_time_back() -> None:
    state = FingerprintState(T0, T0)
    state.add(T0 + HOUR, 1)
    state.add(T0, 2)
    assert state.last == T0 + HOUR


def test_return_after_resolution_is_seen_and_flapping_is_counted() -> None:
    state = SeriesState(T0, T0, FIRING)
    assert not state.add(T0, FIRING)
    assert not state.add(T0 + MINUTE, RESOLVED)
    assert state.add(T0 + 2 * MINUTE, FIRING)
    assert not state.add(T0 + 3 * MINUTE, FIRING)
    assert 1.9 < state.flaps <= 2.0
    state.add(T0 + 4 * MINUTE, RESOLVED)
    assert not state.add(T0 + 4 * MINUTE + DAY + 1, FIRING)


def test_a_metric_is_anomalous_only_outside_its_record() -> None:
    state = MetricState(T0, T0)
    for i in range(50):
        assert state.add(T0 + i * MINUTE, 100.0 + (i * 7) % 5) < 0.2
    assert state.add(T0 + 51 * MINUTE, 102.0) == 0.0
    assert state.add(T0 + 52 * MINUTE, 400.0) > 0.7
    assert state.add(T0 + 53 * MINUTE, 400.0) == 0.0


def test_the_bank_sees_a_break_that_stays_within_the_seen_range() -> None:
    """A daily wave that stops halfway is inside its range and yet unlike everything before."""
    metric, bank, alarms = MetricState(T0, T0), None, []
    noise = random.Random(7)
    for i in range(288 * 7):
        at = T0 + i * 5 * MINUTE
        value = 50.0 + 40.0 * math.sin(2 * math.pi * i / 288) + noise.gauss(0, 0.5)
        if i >= 288 * 6 + 100:
            value = 25.0 + noise.gauss(0, 0.5)
        metric.add(at, value)
        if bank is None and metric.deserves_bank:
            bank = RecordBank.start(metric)
        alarms.append(bank.add(at, value) if bank is not None else 0.0)
    before, after = alarms[288 * 3 : 288 * 6 + 100], alarms[288 * 6 + 100 : 288 * 6 + 110]
    assert max(after) > 0.1
    assert max(after) > 2 * max(before)


def reference_alarms(points: list[tuple[int, float]], step_s: int) -> list[float]:
    """The three views over plain lists, in the metric's own units."""
    seen: list[float] = []
    usual: dict[int, float] = {}
    shown: dict[str, list[float]] = {}
    records: dict[str, tuple[float, float]] = {}
    spreads: dict[str, tuple[float, float]] = {}
    distance = echo = 0.0
    alarms = []
    for at, x in points:
        views = {}
        if len(seen) >= 100:
            views["deviation"] = x - math.fsum(seen[-100:]) / 100
        time_bin = at // 1000 % 86_400 // step_s
        if time_bin in usual:
            distance += 0.05 * (abs(x - usual[time_bin]) - distance)
            views["time of day"] = distance
        usual[time_bin] = usual[time_bin] + 0.3 * (x - usual[time_bin]) if time_bin in usual else x
        seen.append(x)
        if len(seen) >= 50:
            size = sum(map(abs, seen)) / len(seen)
            views["spread"] = math.log2(statistics.pstdev(seen[-50:]) + 0.01 * size + 1e-12)
        alarm = 0.0
        for name, view in views.items():
            before = shown.setdefault(name, [])
            low, high = records.get(name, (view, view))
            mean, spread = spreads.get(name, (view, 0.0))
            over = max(view - high, low - view, 0.0)
            if over > 0.0 and high > low:
                alarm = max(alarm, math.log2(len(before)) * over / math.sqrt((high - low) * 8.0 * spread))
            fade = 0.0 if over else RecordBank.FADE
            records[name] = min(low + fade * (view - low), view), max(high + fade * (view - high), view)
            if before:
                off = view - mean
                spreads[name] = mean + off / len(before), spread + (abs(off) - spread) / len(before)
            else:
                spreads[name] = view, 0.0
            before.append(view)
        echo *= 0.97
        alarms.append(alarm if alarm > echo else 0.0)
        echo = max(echo, alarm)
    return alarms


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_log2_is_the_logarithm(value: float) -> None:
    assert log2(value) == pytest.approx(math.log2(value), abs=1e-7)


def test_what_goes_on_is_not_a_second_anomaly() -> None:
    r = random.Random(5)
    metric = MetricState(T0, T0)
    for i in range(8):
        metric.add(T0 + i * MINUTE, r.gauss(50, 4))
    bank = RecordBank.start(metric)
    for i in range(400):
        bank.add(T0 + i * MINUTE, r.gauss(50, 4))
    risen = [bank.add(T0 + i * MINUTE, 120.0 + 0.1 * i) for i in range(400, 430)]
    assert risen[0] > 0.5
    assert sum(alarm > 0.0 for alarm in risen) <= 5
    assert max(risen[1:]) < risen[0]


def test_the_bank_agrees_with_its_definition() -> None:
    r = random.Random(11)
    metric = MetricState(T0, T0)
    for i in range(8):
        metric.add(T0 + i * 5 * MINUTE, r.gauss(50, 4))
    bank = RecordBank.start(metric)
    points = [(T0 + i * 5 * MINUTE, r.gauss(50, 4) + 20 * (i % 97 == 0)) for i in range(900)]
    found = [bank.add(at, value) for at, value in points]
    expected = reference_alarms(points, 300)
    # The first exits from a range of two or three values are large and ill-conditioned.
    assert found[60:] == pytest.approx(expected[60:], rel=1e-3, abs=1e-3)
    assert max(found[300:]) > 0.3


@pytest.mark.parametrize("unit", [1e-200, 1.0, 2.0**40, 1e140])
@pytest.mark.parametrize("level", [0.0, 3.0, -1000.0])
def test_unit_and_level_of_a_metric_do_not_matter(unit: float, level: float) -> None:
    def alarms(scale: float, shift: float) -> list[float]:
        metric, bank, out = MetricState(T0, T0), None, []
        r = random.Random(3)
        for i in range(300):
            value = scale * (shift + 10.0 + r.gauss(0, 1) + (30.0 if i == 280 else 0.0))
            metric.add(T0 + i * MINUTE, value)
            if bank is None and metric.deserves_bank:
                bank = RecordBank.start(metric)
            out.append(bank.add(T0 + i * MINUTE, value) if bank is not None else 0.0)
        return out

    found = alarms(unit, level)
    assert found.index(max(found[120:])) == 280
    assert found == pytest.approx(alarms(1.0, level), rel=1e-3, abs=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-3 * HOUR, 2 * HOUR), values), min_size=1, max_size=150))
def test_any_numbers_in_any_order_give_finite_states(points: list[tuple[int, float]]) -> None:
    metric, bank = MetricState(T0, T0), None
    for offset, value in points:
        assert 0.0 <= metric.add(T0 + offset, value) < 1.0
        if bank is None and metric.deserves_bank:
            bank = RecordBank.start(metric)
        if bank is not None:
            assert bank.add(T0 + offset, value) >= 0.0
    assert all(map(math.isfinite, (metric.level, metric.variance, metric.size, metric.low, metric.high)))
    if bank is not None:
        assert not any(v != v for v in RecordBank.HEAD.unpack_from(bank.data))
