"""Metric anomaly on the Numenta Anomaly Benchmark, cross-validated: threshold chosen on one part, used on the other.

The files are dealt alternately into two parts, category by category. A threshold maximises the standard profile of one
part and is applied to the other, both ways; the score is that of all files under the threshold they did not choose.
Ours is the anomaly that the scorer gives every point of a metric; no detector sees a file's future, its minimum and
maximum included. Lavin and Ahmad, Evaluating Real-Time Anomaly Detection Algorithms, ICMLA 2015.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bench import report
from bench.quality import shared
from bench.quality.result import Row

from tocsin.signals import scoring
from tocsin.signals.series import MetricState, state_key

PROFILES: Final = ("standard", "low_FP", "low_FN")
#: Standard profile over all 58 files. The last two are told each file's minimum and maximum in advance.
PUBLISHED: Final = {"KNN-CAD": 58.0, "record bank": 61.1, "HTM (look-ahead)": 70.1, "ARTime (look-ahead)": 74.9}

Detector = Callable[[Sequence[int], Sequence[float]], list[float]]


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


def parts(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files dealt alternately, in the order of category and name."""
    ordered = sorted(files)
    return ordered[::2], ordered[1::2]


def held_out(corpus: Mapping[str, Any], scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Score per profile, each part under the threshold that was best on the other."""
    nabfast = shared.tool("nabfast")
    one, other = parts(list(corpus))
    result = {}
    for profile in PROFILES:
        flagged: dict[str, list[float]] = {}
        for chosen_on, used_on in ((one, other), (other, one)):
            threshold = nabfast.score(corpus, scores, chosen_on)[profile][1]
            flagged |= {name: [float(x >= threshold) for x in scores[name]] for name in used_on}
        result[profile] = nabfast.score(corpus, flagged)[profile][0]
    return result


def run() -> list[Row]:
    nabfast = shared.tool("nabfast")
    corpus = nabfast.load(str(shared.folder() / "data/nab"))
    report.title(f"NAB: {len(corpus)} files, {sum(len(one['v']) for one in corpus.values()):,} points")
    detectors: dict[str, Detector] = {"ours": ours, "level and record": level_and_record, "range exit": range_exit}
    figures: dict[str, dict[str, float]] = {}
    table = []
    speed = 0.0
    for name, detector in detectors.items():
        began, points, scores = time.process_time(), 0, {}
        for file, one in corpus.items():
            times = [round(at * 1000) for at in one["t"].tolist()]
            scores[file] = detector(times, one["v"].tolist())
            points += len(times)
        spent = (time.process_time() - began) / points * 1e6
        speed = spent if name == "ours" else speed
        best = nabfast.score(corpus, scores)
        figures[name] = held_out(corpus, scores)
        shown = (f"{x:.1f}" for profile in PROFILES for x in (figures[name][profile], best[profile][0]))
        table.append((name, *shown, f"{spent:.1f}"))
    head = [f"{profile} {how}" for profile in PROFILES for how in ("held out", "best")]
    report.table(("detector", *head, "µs/point"), table)
    beside = {name: one["standard"] for name, one in figures.items() if name != "ours"}
    return [
        Row("NAB, half", "anomaly", "standard, held out", figures["ours"]["standard"], beside, PUBLISHED, "≥ 66", 1),
        Row("NAB, half", "anomaly", "µs a point", speed, aim="≤ 10", digits=1),
    ]
