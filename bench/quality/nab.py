"""Metric anomaly on the Numenta Anomaly Benchmark, cross-validated: tuned on some files, reported on the others.

The files are dealt at random into five parts, twenty times. What is tuned maximises a profile over four parts and is
used on the fifth, each in its turn; a deal's score is that of all files under settings they had no say in, given by the
reference tool, and the figure is the mean over the deals. Tuned are the threshold alone (`held out`: with the views of
the product, which were chosen looking at all these files) and, more strictly, the threshold together with the views:
any one to four of the seven tried last (`views too`). Views have no weights. Ours is the anomaly that the scorer gives
every point of a metric; no detector sees a file's future, its minimum and maximum included. Lavin and Ahmad, Evaluating
Real-Time Anomaly Detection Algorithms, ICMLA 2015.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
from bench import report
from bench.quality import shared
from bench.quality.result import Row

from tocsin.signals import scoring
from tocsin.signals.series import MetricState, RecordBank, state_key

#: Weight of a false alarm and of a missed window in each profile.
PROFILES: Final = {"standard": (0.11, 1.0), "low_FP": (0.22, 1.0), "low_FN": (0.11, 2.0)}
#: Standard profile over all 58 files. The last two are told each file's minimum and maximum in advance.
PUBLISHED: Final = {"KNN-CAD": 58.0, "record bank": 61.1, "HTM (look-ahead)": 70.1, "ARTime (look-ahead)": 74.9}
DEALS: Final = 20
#: Thresholds tried.
THRESHOLDS: Final = np.geomspace(1e-4, 1e2, 400)
#: Views of the product's bank, and others that were tried beside them.
OURS: Final = ("deviation from the mean of 100", "distance to the time of day", "spread of 50")
TRIED: Final = ("deviation in sigmas of 50", "magnitude", "the value itself", "residual to the time of day")

Corpus = Mapping[str, Any]
#: The points of a file that alarm, with how much.
Alarms = Sequence[tuple[int, float]]
Detector = Callable[[Sequence[int], Sequence[float]], list[float]]
#: What breaking a record is divided by, given the values seen, their range and their mean absolute deviation.
Scale = Callable[[int, float, float], float]


def ours(times: Sequence[int], values: Sequence[float]) -> list[float]:
    """The scorer's anomaly of each point; times in Unix ms."""
    states = scoring.States({}, {})
    key = state_key("metric", "nab")
    return [states.anomaly(key, at, value) for at, value in zip(times, values, strict=True)]


def range_exit(_: Sequence[int], values: Sequence[float]) -> list[float]:
    """A baseline: how far a value leaves the range seen so far, in units of that range."""
    low = high = values[0]
    found = []
    for value in values:
        over = max(value - high, low - value, 0.0)
        found.append(over / (high - low) if high > low else 0.0)
        low, high = min(low, value), max(high, value)
    return found


def level_and_record(times: Sequence[int], values: Sequence[float]) -> list[float]:
    """A baseline: what the scorer says of a metric before it has a record bank."""
    state = MetricState(times[0], times[0])
    return [state.add(at, value) for at, value in zip(times, values, strict=True)]


# --- views, stated plainly -------------------------------------------------------------------------------------------


def views(times: Sequence[int], values: Sequence[float]) -> dict[str, list[float | None]]:
    """Every view of a metric, point by point; None where it has nothing to say yet."""
    found: dict[str, list[float | None]] = {name: [None] * len(values) for name in (*OURS, *TRIED)}
    sums, squares = ([0.0, *np.cumsum(np.power(values, power)).tolist()] for power in (1, 2))
    interval_s = (times[8] - times[0]) / 8_000
    step = next((s for s in RecordBank.STEPS if s >= interval_s), RecordBank.STEPS[-1])
    usual: dict[int, float] = {}
    size = distance = 0.0

    def spread(end: int) -> float:
        mean = (sums[end] - sums[end - 50]) / 50
        return math.sqrt(max((squares[end] - squares[end - 50]) / 50 - mean * mean, 0.0))

    for i, (at, x) in enumerate(zip(times, values, strict=True)):
        size += (abs(x) - size) / (i + 1)
        if i >= 100:
            found["deviation from the mean of 100"][i] = x - (sums[i] - sums[i - 100]) / 100
        if i >= 50:
            sigmas = (x - (sums[i] - sums[i - 50]) / 50) / (spread(i) + 1e-3 * size + 1e-12)
            found["deviation in sigmas of 50"][i] = min(max(sigmas, -50.0), 50.0)
            found["spread of 50"][i] = math.log2(spread(i + 1) + 1e-2 * size + 1e-12)
        time_bin = at // 1000 % 86_400 // step
        if time_bin in usual:
            off = x - usual[time_bin]
            distance += 0.05 * (abs(off) - distance)
            found["distance to the time of day"][i] = distance
            found["residual to the time of day"][i] = off
        usual[time_bin] = usual.get(time_bin, x) + 0.3 * (x - usual.get(time_bin, x))
        found["magnitude"][i] = math.log2(abs(x) + 1e-2 * size + 1e-12)
        found["the value itself"][i] = x
    return found


def tail(count: int, width: float, spread: float) -> float:
    """The product's: the geometric mean of two estimates of the tail's scale, less the longer the record stood."""
    return math.sqrt(width * 8.0 * max(spread, 1e-4 * width)) / math.log2(count)


#: What else an excess may be measured by; thresholds make up for constants.
SCALES: Final[Mapping[str, Scale]] = {
    "length of the record": lambda _, width, spread: tail(2, width, spread),
    "mean deviation (range alone)": lambda count, width, _: width / math.log2(count),
    "range (mean deviation alone)": lambda count, width, spread: max(spread, 1e-4 * width) / math.log2(count),
    "either (range alone, any length)": lambda _, width, __: width,
}


def breaks(view: Sequence[float | None], scale: Scale = tail) -> Alarms:
    """Where a view breaks its own record, and how far in units of `scale`."""
    low = high = mean = spread = 0.0
    count = 0
    found = []
    for i, x in enumerate(view):
        if x is None:
            continue
        if count == 0:
            low = high = mean = x
        over, width = max(x - high, low - x), high - low
        if over > 0.0 and width > 0.0:
            found.append((i, over / scale(count, width, spread)))
        fade = 0.0 if over > 0.0 else RecordBank.FADE
        low, high = min(low + fade * (x - low), x), max(high + fade * (x - high), x)
        share = max(1.0 / max(count, 1), 1.0 / RecordBank.SETTLED)
        off = x - mean
        mean, spread = mean + share * off, spread + share * (abs(off) - spread)
        count += 1
    return found


def heard(alarms: Sequence[Alarms], decay: float = RecordBank.ECHO) -> Alarms:
    """The strongest alarm of each point, unless it is weaker than the echo of one before."""
    strongest: dict[int, float] = {}
    for one in alarms:
        for i, alarm in one:
            strongest[i] = max(alarm, strongest.get(i, 0.0))
    found, echo, last = [], 0.0, 0
    for i in sorted(strongest):
        echo *= decay ** (i - last)
        last = i
        if strongest[i] > echo:
            echo = strongest[i]
            found.append((i, echo))
    return found


# --- tuning ----------------------------------------------------------------------------------------------------------


def deals(files: Sequence[str], count: int = 5, times: int = DEALS) -> Iterator[list[tuple[list[str], list[str]]]]:
    """(files to tune on, files to use it on) for each of `count` parts, dealt at random `times` times."""
    rng = random.Random(1)
    for _ in range(times):
        dealt = sorted(files)
        rng.shuffle(dealt)
        used = [dealt[k::count] for k in range(count)]
        yield [([name for name in dealt if name not in held], held) for held in used]


def gains(one: Mapping[str, Any], alarms: Alarms, false: float, missed: float) -> Any:
    """What a file adds to the raw score at each threshold, over that of silence."""
    at = np.zeros(len(THRESHOLDS) + 1)
    best: dict[int, float] = {}
    for i, alarm in sorted(alarms, key=lambda point: -point[1]):
        place = int(np.searchsorted(THRESHOLDS, alarm, side="right"))  # thresholds below this one let it through
        window, worth = int(one["win"][i]), float(one["raw"][i])
        if i < one["prob"]:
            continue
        if window < 0:
            at[place] += false * worth
        else:
            at[place] += max(worth - best[window], 0.0) if window in best else missed + worth
            best[window] = max(worth, best.get(window, worth))
    return at[::-1].cumsum()[::-1][1:]


def held_out(corpus: Corpus, choices: Sequence[Mapping[str, Alarms]], profile: str, count: int = 5) -> list[float]:
    """Score of each deal, every part under the choice and the threshold that were best on the others."""
    nabfast = shared.tool("nabfast")
    gain = {f: np.array([gains(corpus[f], choice[f], *PROFILES[profile]) for choice in choices]) for f in corpus}
    scores = []
    for deal in deals(list(corpus), count):
        flagged = {name: np.zeros(len(corpus[name]["v"])) for name in corpus}
        for tuned_on, used_on in deal:
            total = sum(gain[name] for name in tuned_on)
            choice, threshold = np.unravel_index(int(total.argmax()), total.shape)
            for name in used_on:
                flagged[name][[i for i, alarm in choices[choice][name] if alarm >= THRESHOLDS[threshold]]] = 1.0
        scores.append(float(nabfast.score(corpus, flagged)[profile][0]))
    return scores


def run() -> list[Row]:
    nabfast = shared.tool("nabfast")
    corpus = nabfast.load(str(shared.folder() / "data/nab"))
    report.title(f"NAB: {len(corpus)} files, {sum(len(one['v']) for one in corpus.values()):,} points")
    points = {name: ([round(at * 1000) for at in one["t"].tolist()], one["v"].tolist()) for name, one in corpus.items()}
    figures: dict[str, float] = {}
    table = []

    def judge(name: str, alarms: Mapping[str, Alarms], spent: str = "") -> None:
        scores = {file: np.zeros(len(corpus[file]["v"])) for file in corpus}
        for file, found in alarms.items():
            scores[file][[i for i, _ in found]] = [alarm for _, alarm in found]
        best = nabfast.score(corpus, scores)
        held = {profile: statistics.fmean(held_out(corpus, [alarms], profile)) for profile in PROFILES}
        figures[name] = held["standard"]
        table.append((name, *(f"{x:.1f}" for profile in PROFILES for x in (held[profile], best[profile][0])), spent))

    speed = 0.0
    detectors: dict[str, Detector] = {"ours": ours, "level and record": level_and_record, "range exit": range_exit}
    for name, detector in detectors.items():
        began = time.process_time()
        scores = {file: detector(*one) for file, one in points.items()}
        spent = (time.process_time() - began) / sum(len(times) for times, _ in points.values()) * 1e6
        speed = spent if name == "ours" else speed
        alarms = {file: [(i, x) for i, x in enumerate(found) if x > 0.0] for file, found in scores.items()}
        judge(name, alarms, f"{spent:.1f}")
    seen = {file: views(*one) for file, one in points.items()}
    broken = {file: {name: breaks(view) for name, view in one.items()} for file, one in seen.items()}

    def bank(names: Sequence[str], decay: float = RecordBank.ECHO) -> dict[str, Alarms]:
        return {file: heard([one[name] for name in names], decay) for file, one in broken.items()}

    judge("the bank, stated plainly", bank(OURS))
    for name in OURS:
        judge(f"  without {name}", bank([other for other in OURS if other != name]))
    judge("  without the echo", bank(OURS, 0.0))
    for name, scale in SCALES.items():
        other = {file: heard([breaks(one[view], scale) for view in OURS]) for file, one in seen.items()}
        judge(f"  without {name}", other)
    for name in TRIED:
        judge(f"  with {name}", bank([*OURS, name]))
    head = [f"{profile} {how}" for profile in PROFILES for how in ("held out", "best")]
    report.table(("detector", *head, "µs/point"), table)
    subsets = [names for count in range(1, 5) for names in combinations((*OURS, *TRIED), count)]
    choices = [bank(names) for names in subsets]
    strict = held_out(corpus, choices, "standard")
    report.line(
        f"standard with the views chosen too, among {len(subsets)} sets of views: {statistics.fmean(strict):.1f}"
        f" ({min(strict):.1f} to {max(strict):.1f} in {len(strict)} deals)"
    )
    halves = [held_out(corpus, some, "standard", 2) for some in ([bank(OURS)], choices)]
    report.line(
        "tuned on one half and used on the other instead: {:.1f}, with the views chosen too {:.1f}".format(
            *map(statistics.fmean, halves)
        )
    )
    beside = {name: figures[name] for name in detectors if name != "ours"}
    return [
        Row("NAB, half", "anomaly", "standard, held out", figures["ours"], beside, PUBLISHED, "≥ 66", 1),
        Row("NAB, half", "anomaly", "standard, views too", statistics.fmean(strict), beside, PUBLISHED, "≥ 66", 1),
        Row("NAB, half", "anomaly", "µs a point", speed, aim="≤ 10", digits=1),
    ]
