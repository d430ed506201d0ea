"""What is remembered between events: small packed states per fingerprint, per series and per metric.

Hot states are at most 128 bytes, full states (the record bank of a metric that repeats) at most 5 KB. Every
state begins with version, kind and the time it last changed, so that a store can drop old ones without
knowing more. A state of another version or size counts as absent: states are statistics, losing one costs
sensitivity and nothing else.

Arithmetic is +, -, *, / and square roots of IEEE doubles in a fixed order, so states are the same bytes on
every machine. Time never runs backwards in a state: a late event counts at the time of the latest one
before it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any, ClassVar, Final, Self

from tocsin.kernel import clock
from tocsin.kernel.ids import length_prefixed
from tocsin.signals.calibration import half_power

VERSION: Final = 2
HOT_LIMIT: Final = 128
FULL_LIMIT: Final = 5 * 1024
_PREFIX: Final = struct.Struct("<BBQ")

#: occurred_at rules within this distance of received_at; beyond it received_at does.
LATE_MS: Final = 2 * clock.HOUR
SKEW_MS: Final = 5 * clock.MINUTE
#: A fingerprint or series silent for longer is new again.
FORGET_MS: Final = 30 * clock.DAY


def _unix_ms(value: str | int) -> int:
    if isinstance(value, int):
        return value
    if len(value) == 24 and value[-1] == "Z":  # the form that ingest writes: half a microsecond instead of five
        return round(datetime.fromisoformat(value).timestamp() * 1000)
    return clock.parse_rfc3339(value)


def ruling_time(event: Any) -> tuple[int, tuple[str, ...]]:
    """Time (Unix ms) that rules for an event, and why: flags `late` or `clock_skew` when received_at had to.

    occurred_at rules unless it lies more than 2 h before or more than 5 min after received_at. Either may
    be RFC 3339 text or Unix ms; one of them may be missing. Raises ValueError when both are.
    """
    occurred, received = event.get("occurred_at"), event.get("received_at")
    if occurred is None or received is None:
        if occurred is None and received is None:
            raise ValueError("the event has neither occurred_at nor received_at")
        return _unix_ms(received if occurred is None else occurred), ()
    occurred_ms, received_ms = _unix_ms(occurred), _unix_ms(received)
    if received_ms - occurred_ms > LATE_MS:
        return received_ms, ("late",)
    if occurred_ms - received_ms > SKEW_MS:
        return received_ms, ("clock_skew",)
    return occurred_ms, ()


@lru_cache(maxsize=8192)
def state_key(kind: str, *parts: str) -> bytes:
    """8-byte key of a state: a hash of its kind and of what it is about. Unique within a project."""
    return blake2b(length_prefixed(kind, *parts), digest_size=8).digest()


def last_changed(state: bytes) -> int:
    """Unix ms at which a state of any kind last changed; 0 for bytes that are no state."""
    return int(_PREFIX.unpack_from(state)[2]) if len(state) >= _PREFIX.size else 0


def decay(elapsed_ms: int, half_life_ms: int) -> float:
    """2^(-elapsed / half-life), for elapsed >= 0."""
    return half_power(elapsed_ms / half_life_ms)


_SKETCH_BITS: Final = 64
_SKETCH_ALL: Final = (1 << 4 * _SKETCH_BITS) - 1
_GENERATION_MS: Final = 5 * clock.MINUTE
#: Linear counting (Whang et al. 1990): distinct things that leave k of 64 bits set; a full bitmap counts as
#: 267.
_DISTINCT: Final = tuple(
    max(k, round(-_SKETCH_BITS * math.log((_SKETCH_BITS - k) / _SKETCH_BITS))) if k < _SKETCH_BITS else 267
    for k in range(_SKETCH_BITS + 1)
)


@dataclass(slots=True)
class FingerprintState:
    """How often a fingerprint comes, since when, and to how many entities at once. 78 bytes packed."""

    KIND: ClassVar[int] = 1
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBQQIddQ32s")
    FAST_MS: ClassVar[int] = 5 * clock.MINUTE
    SLOW_MS: ClassVar[int] = 12 * clock.HOUR
    #: Observation without events that a new fingerprint starts with, so that two quick ones are no surprise.
    PRIOR_MS: ClassVar[int] = 30 * clock.MINUTE

    last: int
    first: int
    count: int = 0
    fast: float = 0.0
    slow: float = 0.0
    generation: int = 0
    sketch: int = 0

    @classmethod
    def unpack(cls, data: bytes | None) -> Self | None:
        if data is None or len(data) != cls.LAYOUT.size or data[0] != VERSION or data[1] != cls.KIND:
            return None
        _, _, last, first, count, fast, slow, generation, sketch = cls.LAYOUT.unpack(data)
        return cls(last, first, count, fast, slow, generation, int.from_bytes(sketch, "little"))

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            VERSION,
            self.KIND,
            self.last,
            self.first,
            self.count,
            self.fast,
            self.slow,
            self.generation,
            self.sketch.to_bytes(32, "little"),
        )

    def add(self, at: int, entity_bit: int | None) -> tuple[float, float, int]:
        """Count one event. Returns events seen and expected over about 7 minutes, and distinct entities now.

        The fast counter sums events with a half-life of 5 minutes, which is as much as a window of 7.2
        minutes holds at a steady rate. What was expected of it follows from the slow counter before this
        event.
        """
        now = max(at, self.last)
        gap = now - self.last
        self.slow *= decay(gap, self.SLOW_MS)
        observed = self.SLOW_MS * _WINDOW * (1.0 - decay(now - self.first, self.SLOW_MS)) + self.PRIOR_MS
        expected = self.slow / observed * (self.FAST_MS * _WINDOW)
        self.fast = self.fast * decay(gap, self.FAST_MS) + 1.0
        self.slow += 1.0
        self.count = min(self.count + 1, 0xFFFFFFFF)
        self.last = now
        generation = now // _GENERATION_MS
        steps = min(generation - self.generation, 4)
        sketch = (self.sketch << steps * _SKETCH_BITS) & _SKETCH_ALL
        if entity_bit is not None:
            sketch |= 1 << entity_bit
        self.generation, self.sketch = generation, sketch
        window = sketch | sketch >> 64 | sketch >> 128 | sketch >> 192
        return self.fast, expected, _DISTINCT[(window & 0xFFFFFFFFFFFFFFFF).bit_count()]


#: Window (in half-lives) whose plain count equals the decayed count at a steady rate: 1 / ln 2.
_WINDOW: Final = 1.4426950408889634

FIRING: Final = 0
ACKNOWLEDGED: Final = 1
RESOLVED: Final = 2
STATUS: Final = {"firing": FIRING, "acknowledged": ACKNOWLEDGED, "resolved": RESOLVED}


@dataclass(slots=True)
class SeriesState:
    """Status of one thing that fires and resolves (one dedup_key), since when, how much it flaps. 39 bytes packed."""

    KIND: ClassVar[int] = 2
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBQQBIdQ")
    FLAP_MS: ClassVar[int] = clock.HOUR
    RETURN_MS: ClassVar[int] = clock.DAY
    #: An alert that fires again after a longer silence has begun anew.
    EPISODE_MS: ClassVar[int] = 15 * clock.MINUTE

    last: int
    first: int
    status: int
    count: int = 0
    flaps: float = 0.0
    onset: int = 0  #: when it began to fire this time; flapping does not begin it anew

    @classmethod
    def unpack(cls, data: bytes | None) -> Self | None:
        if data is None or len(data) != cls.LAYOUT.size or data[0] != VERSION or data[1] != cls.KIND:
            return None
        return cls(*cls.LAYOUT.unpack(data)[2:])

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            VERSION, self.KIND, self.last, self.first, self.status, self.count, self.flaps, self.onset
        )

    def add(self, at: int, status: int) -> bool:
        """Take one event. True when it fires again within a day of its resolution; `flaps` counts such
        changes.
        """
        now = max(at, self.last)
        gap = now - self.last
        if self.onset == 0 or gap > self.EPISODE_MS:
            self.onset = at if status == FIRING else 0
        elif at < self.onset and self.onset - at <= self.EPISODE_MS:
            self.onset = at
        self.flaps *= decay(gap, self.FLAP_MS)
        changed = (status == RESOLVED) != (self.status == RESOLVED)
        if changed:
            self.flaps += 1.0
        self.last, self.status = now, status
        self.count = min(self.count + 1, 0xFFFFFFFF)
        return changed and status == FIRING and gap <= self.RETURN_MS


#: Metric values beyond this count as this, so that squares stay finite.
_HUGE: Final = 1e150


@dataclass(slots=True)
class MetricState:
    """Level, spread and record of one metric of one series: the measure of anomaly until a bank knows more.

    62 bytes packed. `size` is the mean magnitude; a spread under 5 % of it is not believed from so few
    points.
    """

    KIND: ClassVar[int] = 3
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBQQI5d")
    MIN_POINTS: ClassVar[int] = 5
    #: A bank is kept for series with this many points ...
    BANK_POINTS: ClassVar[int] = 8
    #: ... that come at least this often on average.
    BANK_INTERVAL_MS: ClassVar[int] = clock.HOUR

    last: int
    first: int
    count: int = 0
    level: float = 0.0
    variance: float = 0.0
    size: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def unpack(cls, data: bytes | None) -> Self | None:
        if data is None or len(data) != cls.LAYOUT.size or data[0] != VERSION or data[1] != cls.KIND:
            return None
        return cls(*cls.LAYOUT.unpack(data)[2:])

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            VERSION,
            self.KIND,
            self.last,
            self.first,
            self.count,
            self.level,
            self.variance,
            self.size,
            self.low,
            self.high,
        )

    @property
    def deserves_bank(self) -> bool:
        return self.count >= self.BANK_POINTS and self.last - self.first <= self.count * self.BANK_INTERVAL_MS

    def add(self, at: int, value: float, least: float = 0.0) -> float:
        """Take one point; anomaly in [0, 1): 0 inside the record, else how many usual spreads off the level. `least`
        is a spread below which the usual one is not believed.
        """
        x = min(max(value, -_HUGE), _HUGE)
        n = self.count
        off = abs(x - self.level)
        anomaly = 0.0
        if n >= self.MIN_POINTS and not self.low <= x <= self.high:
            spread = max(math.sqrt(self.variance), 0.05 * self.size, least)
            z = off / spread if off < 1e6 * spread else 1e6
            if z > 3.0:
                anomaly = (z - 3.0) / (z + 5.0) * n / (n + 4.0)
        rate = max(1.0 / (n + 1), 0.05)
        step = rate * (x - self.level)
        self.variance = (1.0 - rate) * (self.variance + step * (x - self.level))
        self.level += step
        self.size += rate * (abs(x) - self.size)
        self.low, self.high = min(self.low, x), max(self.high, x)
        self.count = min(n + 1, 0xFFFFFFFF)
        self.last = max(at, self.last)
        return anomaly


_ROOT_HALF: Final = math.sqrt(0.5)


def log2(value: float) -> float:
    """Logarithm of a value > 0, the same bits on every platform (math.log2 is not); error < 1e-7."""
    fraction, exponent = math.frexp(value)
    z = (fraction - _ROOT_HALF) / (fraction + _ROOT_HALF)
    square = z * z
    return exponent - 0.5 + 2.0 * _WINDOW * z * (1.0 + square * (1.0 / 3.0 + square * (0.2 + square / 7.0)))


class RecordBank:
    """Three views of a metric, each of which alarms when it breaks its own record: the full state of a series.

    The views are the deviation from the mean of the last 100 points; the mean distance to the usual value at this time
    of day; and the order of magnitude of the spread of the last 50 points. A view's alarm is how far it lies outside
    what it has shown, in units of its own tail (`_surprise`), so that views need no weights. The strongest counts,
    unless it is weaker than the echo of an alarm just before: what goes on is not a second anomaly. docs/scoring.md
    says what each part adds.

    O(1) per point: only the header and a few cells of the packed state are touched. Values are kept as
    single-precision offsets from `origin` in units of `scale`, so that size and unit of the metric do not matter.
    """

    KIND: Final = 6
    #: version, kind, last, count, step (s), bins; origin, scale, size, three running sums, distance, echo; then low,
    #: high, count, mean and mean absolute deviation of each view
    HEAD: Final = struct.Struct("<BBQIHH8d15d")
    CELL: Final = struct.Struct("<f")
    LONG: Final = 100
    SHORT: Final = 50
    DAY_AT: Final = HEAD.size + 4 * LONG
    #: Widths of a time-of-day bin, in seconds; a bin should see about one point a day.
    STEPS: Final = (300, 600, 900, 1800, 3600)
    DAY_S: Final = 86_400
    #: Share of the way to what is seen that both ends of a record go with each point: it fades within 300,000 points.
    FADE: Final = 3e-6
    #: Points over which a view's mean and mean deviation are taken, once there are as many.
    SETTLED: Final = 3_000.0
    #: What is left of an echo after one point.
    ECHO: Final = 0.97
    #: Bound of offsets in units of scale.
    FAR: Final = 1e12

    def __init__(self, data: bytearray) -> None:
        self.data = data

    @classmethod
    def start(cls, metric: MetricState) -> Self:
        """An empty bank for a metric whose level, spread and pace are roughly known."""
        interval_s = (metric.last - metric.first) // 1000 // max(metric.count - 1, 1)
        step = next((s for s in cls.STEPS if s >= interval_s), cls.STEPS[-1])
        bins = cls.DAY_S // step
        spread = max(math.sqrt(metric.variance), 1e-3 * metric.size)
        scale = math.ldexp(1.0, math.frexp(spread)[1]) if spread > 1e-290 else 1.0
        data = bytearray(cls.DAY_AT + 4 * bins)
        cls.HEAD.pack_into(data, 0, VERSION, cls.KIND, 0, 0, step, bins, metric.level, scale, *(0.0,) * 21)
        for i in range(bins):
            cls.CELL.pack_into(data, cls.DAY_AT + 4 * i, math.nan)
        return cls(data)

    @classmethod
    def unpack(cls, data: bytes | None) -> Self | None:
        if data is None or len(data) < cls.DAY_AT or data[0] != VERSION or data[1] != cls.KIND:
            return None
        return cls(bytearray(data))

    def pack(self) -> bytes:
        return bytes(self.data)

    @property
    def count(self) -> int:
        return int.from_bytes(self.data[10:14], "little")

    def add(self, at: int, value: float) -> float:
        """Take one point; the strongest alarm that is no echo, >= 0 and not bounded above."""
        data, cell = self.data, self.CELL
        read, write = cell.unpack_from, cell.pack_into
        _, _, last, n, step, bins, origin, scale, size, s100, s50, q50, distance, echo, *shown = self.HEAD.unpack_from(
            data
        )
        far = self.FAR
        x = ((value if -_HUGE < value < _HUGE else math.copysign(_HUGE, value)) - origin) / scale
        at_ring = self.HEAD.size + 4 * (n % self.LONG)
        (oldest,) = read(data, at_ring)
        write(data, at_ring, x if -far < x < far else math.copysign(far, x))
        (x,) = read(data, at_ring)  # as rounded: what is added to a sum now is taken from it later
        magnitude = abs(x + origin / scale)
        size += ((magnitude if magnitude < far else far) - size) / (n + 1)
        alarm = 0.0

        if n >= self.LONG:
            alarm = _surprise(shown, 0, x - s100 / self.LONG)
            s100 -= oldest
        s100 += x

        at_day = self.DAY_AT + 4 * (at // 1000 % self.DAY_S // step)
        (usual,) = read(data, at_day)
        if usual != usual:
            write(data, at_day, x)
        else:
            write(data, at_day, usual + 0.3 * (x - usual))
            distance += 0.05 * (abs(x - usual) - distance)
            found = _surprise(shown, 5, distance)
            alarm = found if found > alarm else alarm

        if n >= self.SHORT:
            (left,) = read(data, self.HEAD.size + 4 * ((n - self.SHORT) % self.LONG))
            s50 -= left
            q50 -= left * left
        s50 += x
        q50 += x * x
        n += 1
        if n >= self.SHORT:
            mean = s50 / self.SHORT
            variance = q50 / self.SHORT - mean * mean
            spread = math.sqrt(variance) if variance > 0.0 else 0.0
            found = _surprise(shown, 10, log2(spread + 1e-2 * size + 1e-12))
            alarm = found if found > alarm else alarm

        echo *= self.ECHO
        heard = 0.0
        if alarm > echo:
            heard, echo = alarm, min(alarm, far)
        if n % self.LONG == 0:  # sums from the ring itself, so that rounding never piles up
            ring = struct.unpack_from(f"<{self.LONG}f", data, self.HEAD.size)
            s100, _ = sum_exact(ring)
            s50, q50 = sum_exact(ring[-self.SHORT :])
        self.HEAD.pack_into(
            data, 0, VERSION, self.KIND, at if at > last else last, min(n, 0xFFFFFFFF), step, bins, origin, scale, size,
            s100, s50, q50, distance, echo, *shown,
        )  # fmt: skip
        return heard


def _surprise(shown: list[float], k: int, view: float) -> float:
    """How surprising a view is to what it has shown so far, 0 within its record; takes it into `shown[k:k + 5]`.

    log2(n) · over / sqrt(range · 8 · mean absolute deviation), where n counts the values seen. The excess over a record
    is measured by the scale of the tail, of which range / 2 ln(n) is one estimate (extremes of exponential and of
    normal values both grow so) and the mean absolute deviation another; their product stands between a tail that is
    heavier than the bulk and one that is lighter. The longer a record has stood, the more it means to break it.
    """
    count = shown[k + 2]
    if count == 0.0:
        shown[k : k + 5] = view, view, 1.0, view, 0.0
        return 0.0
    low, high, surprise = shown[k], shown[k + 1], 0.0
    if low <= view <= high:
        shown[k] = low + (view - low) * RecordBank.FADE
        shown[k + 1] = high + (view - high) * RecordBank.FADE
    else:
        if high > low:
            over = view - high if view > high else low - view
            tail = (high - low) * 8.0 * max(shown[k + 4], 1e-4 * (high - low))
            surprise = log2(count) * over / math.sqrt(tail)
        shown[k if view < low else k + 1] = view
    share = 1.0 / count if count < RecordBank.SETTLED else 1.0 / RecordBank.SETTLED
    off = view - shown[k + 3]
    shown[k + 2] = count + 1.0
    shown[k + 3] += share * off
    shown[k + 4] += share * (abs(off) - shown[k + 4])
    return surprise


def sum_exact(values: tuple[float, ...]) -> tuple[float, float]:
    """Correctly rounded sum and sum of squares."""
    return math.fsum(values), math.fsum(v * v for v in values)
