"""Score: evidence in an event, weighed against what was seen before, with an exact explanation.

    prepare   per event, without state: fingerprint, severity, cues, keys (outside the project's lock)
    needs     which states to load for a batch
    score     in list order: features from state, integer contributions, S, changed states
    explain   words and numbers of a scored event, at read time

The logit is an integer number of micro-logits: BIAS plus contributions that are never negative. So they sum
exactly, S grows with every piece of evidence, and it is never below what its strongest piece alone would
give. Nothing here depends on where one batch ends and the next begins.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Protocol

from tocsin.kernel import clock
from tocsin.signals import calibration, features, fingerprints, onsets, severity
from tocsin.signals.calibration import Calibrator, Calibrators, risk_score, tier
from tocsin.signals.features import BIAS, BY_NAME, REGISTRY, SCALE
from tocsin.signals.series import (
    FIRING,
    FORGET_MS,
    STATUS,
    FingerprintState,
    MetricState,
    RecordBank,
    SeriesState,
    log2,
    ruling_time,
    state_key,
)

__all__ = [
    "SCORER_VERSION",
    "Prepared",
    "Scored",
    "Topology",
    "explain",
    "narrow",
    "needs",
    "prepare",
    "risk_score",
    "score",
    "tier",
]

#: Names everything that decides a score: weights, features, state layout and fingerprints.
SCORER_VERSION: Final = f"score3-fp{fingerprints.VERSION}"
#: What a commit records beside topology and calibrators, so that replay can use the same.
VERSIONS: Final[Mapping[str, str]] = {
    "scorer": SCORER_VERSION,
    "fingerprint": f"fp{fingerprints.VERSION}",
}
EXPLAIN_VERSION: Final = 1
#: Metrics of one event that are looked at, by name.
MAX_METRICS: Final = 8
#: Ratios of neighbouring metrics, by name, of one event that are looked at.
MAX_RATIOS: Final = 3
#: Least spread of a ratio that is believed (log2): 11 %, so that one that never moved must move by a third to count.
RATIO_SPREAD: Final = 0.15
#: A bank speaks once it has seen this many points; until then level and record do.
BANK_READY: Final = 100
#: Bank alarm that counts half. On NAB the best single threshold lies at .32.
BANK_HALF: Final = 0.55
#: Logit from which the onset of an alert counts: tier medium, as in the noise gate of correlation.
NOTABLE: Final = calibration.TIER_LOGITS[1]
#: Last millisecond of the year 9999.
LAST_MS: Final = 253_402_300_799_999
NOVEL_FOR_MS: Final = clock.HOUR
SILENCE_MS: Final = 7 * clock.DAY

Event = dict[str, Any]


class Topology(Protocol):
    """What scoring asks of a declared topology."""

    def service_of(self, event: Mapping[str, Any]) -> str | None: ...

    def criticality(self, service: str) -> float: ...


@dataclass(slots=True)
class Prepared:
    """Everything about an event that does not depend on what came before it. Values x are in ten-
    thousandths.
    """

    event: Event
    at: int
    status: int
    fingerprint: str
    fingerprint_key: bytes
    series_key: bytes
    entity_bit: int | None
    severity: int
    severity_x: int
    cues_x: int
    cue: str
    service: str | None
    criticality_x: int
    metrics: tuple[tuple[str, bytes, float], ...]
    ratios: tuple[tuple[str, bytes, float], ...]


@dataclass(slots=True)
class Scored:
    """Outcome of a batch: states that changed (key to bytes) and the events, scored, in order."""

    hot: dict[bytes, bytes]
    full: dict[bytes, bytes]
    events: list[Event]


def _in_scale(value: float) -> int:
    """A value of 0 to 1 in ten-thousandths; what lies outside is cut off, NaN counts as 0."""
    return int(min(value, 1.0) * SCALE) if value > 0.0 else 0


def prepare(event: Event, topology: Topology) -> Prepared:
    """The static part of scoring one event. Raises ValueError when the event has no time at all."""
    at, _ = ruling_time(event)
    source, kind = event.get("source", ""), event.get("type", "")
    entity = event.get("entity") or {}
    entity_type, entity_id = entity.get("type", ""), entity.get("id", "")
    print_ = fingerprints.fingerprint(event)
    level = event.get("severity_id") or severity.severity_id(source, event.get("severity_raw"))
    cues_x, cue = features.text_cues(event.get("title", ""), kind, event.get("body") or "")
    service = topology.service_of(event)
    about = (source, kind, entity_type, entity_id)
    metrics = _metrics(event.get("metrics") or {}, about)
    return Prepared(
        event=event,
        at=min(max(at, 0), LAST_MS),
        status=STATUS.get(event.get("status", "firing"), FIRING),
        fingerprint=print_,
        fingerprint_key=state_key("fingerprint", print_),
        series_key=state_key("series", event.get("dedup_key") or f"{source}|{kind}|{entity_type}:{entity_id}"),
        entity_bit=_entity_bit(entity_type, entity_id) if entity_id else None,
        severity=level,
        severity_x=features.SEVERITY_X.get(level, features.SEVERITY_X[severity.UNKNOWN]),
        cues_x=cues_x,
        cue=cue,
        service=service,
        criticality_x=_in_scale(2 * topology.criticality(service) - 1) if service is not None else 0,
        metrics=metrics,
        ratios=_ratios(metrics, about) if len(metrics) > 1 else (),
    )


def _metrics(metrics: Mapping[str, float], about: tuple[str, ...]) -> tuple[tuple[str, bytes, float], ...]:
    """Name, state key and value of the metrics that are looked at, by name."""
    return tuple(
        (name, state_key("metric", *about, name), value)
        for name in sorted(metrics)[:MAX_METRICS]
        if (value := _finite(metrics[name])) is not None
    )


def _ratios(
    metrics: Sequence[tuple[str, bytes, float]], about: tuple[str, ...]
) -> tuple[tuple[str, bytes, float], ...]:
    """Name, state key and logarithm of the ratios of neighbouring metrics, where both are positive.

    Two metrics that keep their ranges can still part company: errors that stay at their daily peak while requests fall
    to their nightly low.
    """
    return tuple(
        (f"{one} / {other}", state_key("ratio", *about, one, other), log2(a) - log2(b))
        for (one, _, a), (other, _, b) in itertools.pairwise(metrics[: MAX_RATIOS + 1])
        if a > 0.0 and b > 0.0
    )


def _finite(value: float) -> float | None:
    """A metric's value as a double, or None when it is not finite or too large for one."""
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _entity_bit(entity_type: str, entity_id: str) -> int:
    """Bit of an entity in a fingerprint's bitmap of 64."""
    return blake2b(f"{entity_type}:{entity_id}".encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] & 63


def needs(prepared: Sequence[Prepared]) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """Keys of the hot and full states that score() may want. Many full keys may not exist; narrow()
    tells which can.
    """
    hot, full = {onsets.KEY}, set()
    for p in prepared:
        hot.add(p.fingerprint_key)
        hot.add(p.series_key)
        hot.update(key for _, key, _ in p.ratios)
        for _, key, _ in p.metrics:
            full.add(key)
    return frozenset(hot | full), frozenset(full)


def narrow(prepared: Sequence[Prepared], hot: Mapping[bytes, bytes]) -> frozenset[bytes]:
    """Full keys that can exist given the hot states: metrics with enough points, often enough. Saves
    most reads.
    """
    keys = {key for p in prepared for _, key, _ in p.metrics}
    return frozenset(key for key in keys if (state := MetricState.unpack(hot.get(key))) and state.deserves_bank)


class States:
    """States of a batch, unpacked once and packed once."""

    def __init__(self, hot: Mapping[bytes, bytes], full: Mapping[bytes, bytes]) -> None:
        self._hot, self._full = hot, full
        self._fingerprints: dict[bytes, FingerprintState] = {}
        self._series: dict[bytes, SeriesState] = {}
        self._metrics: dict[bytes, MetricState] = {}
        self._banks: dict[bytes, RecordBank] = {}
        self._onsets: onsets.OnsetRate | None = None
        self._begun = False

    def onset(self, at: int) -> None:
        """Count the beginning of a notable alert."""
        self._onsets = self.pace() or onsets.OnsetRate(at, at)
        self._onsets.add(at)
        self._begun = True

    def pace(self) -> onsets.OnsetRate | None:
        """How often alerts begin in this project; None before the first."""
        if self._onsets is None:
            self._onsets = onsets.OnsetRate.unpack(self._hot.get(onsets.KEY))
        return self._onsets

    def fingerprint(self, key: bytes, at: int) -> FingerprintState:
        state = self._fingerprints.get(key) or FingerprintState.unpack(self._hot.get(key))
        if state is None or at - state.last > FORGET_MS:
            state = FingerprintState(at, at)
        self._fingerprints[key] = state
        return state

    def series(self, key: bytes, at: int, status: int) -> SeriesState:
        state = self._series.get(key) or SeriesState.unpack(self._hot.get(key))
        if state is None or at - state.last > FORGET_MS:
            state = SeriesState(at, at, status)
        self._series[key] = state
        return state

    def metric(self, key: bytes, at: int) -> MetricState:
        state = self._metrics.get(key)
        if state is None:
            state = self._metrics[key] = MetricState.unpack(self._hot.get(key)) or MetricState(at, at)
        return state

    def anomaly(self, key: bytes, at: int, value: float) -> float:
        """Anomaly of one point in [0, 1), by the bank when it is ready and by level and record until then."""
        state = self.metric(key, at)
        bank = self._banks.get(key)
        if bank is None and state.deserves_bank:
            bank = self._banks[key] = RecordBank.unpack(self._full.get(key)) or RecordBank.start(state)
        simple = state.add(at, value)
        if bank is None:
            return simple
        ready = bank.count >= BANK_READY
        alarm = bank.add(at, value)
        return alarm / (alarm + BANK_HALF) if ready else simple

    def changed(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        hot = {
            key: state.pack()
            for states in (self._fingerprints, self._series, self._metrics)
            for key, state in states.items()
        }
        if self._begun and self._onsets is not None:
            hot[onsets.KEY] = self._onsets.pack()
        return hot, {key: bank.pack() for key, bank in self._banks.items()}


def _novelty(fingerprint: FingerprintState, series_first: int, at: int) -> tuple[float, str]:
    """x of novelty before this event is counted, and its words."""
    if fingerprint.count == 0:
        return 1.0, "nothing like it was seen before"
    age, gap = max(at - fingerprint.first, 0), max(at - fingerprint.last, 0)
    young = NOVEL_FOR_MS / (NOVEL_FOR_MS + age)
    silent = gap / (gap + SILENCE_MS)
    young_series = 0.5 * NOVEL_FOR_MS / (NOVEL_FOR_MS + max(at - series_first, 0))
    if silent >= young and silent >= young_series:
        return silent, f"it is back after {_duration(gap)} of silence"
    if young >= young_series:
        return young, f"it was first seen {_duration(age)} ago"
    return young_series, "this entity has not said it before"


def _duration(ms: int) -> str:
    for unit, name in ((clock.DAY, "d"), (clock.HOUR, "h"), (clock.MINUTE, "min")):
        if ms >= unit:
            return f"{ms // unit} {name}"
    return f"{ms // clock.SECOND} s"


def _weigh(p: Prepared, states: States, series: SeriesState, calibrators: Calibrators) -> list[tuple[str, int, str]]:
    """Evidence of one event, (feature, x, detail) in registry order without zeros; updates the states."""
    at = p.at
    anomaly, metric = 0.0, ""
    for name, key, value in p.metrics:
        found = states.anomaly(key, at, value)
        if found > anomaly:
            anomaly, metric = found, name[:64]
    for name, key, value in p.ratios:
        found = states.metric(key, at).add(at, value, RATIO_SPREAD)
        if found > anomaly:
            anomaly, metric = found, name[:64]
    returned = series.add(at, p.status)
    if p.status != FIRING:  # the end of trouble is no evidence of trouble, and no new occurrence either
        return []
    state = states.fingerprint(p.fingerprint_key, at)
    new, why_new = _novelty(state, series.first, at)
    seen, expected, entities = state.add(at, p.entity_bit)
    surprise = ((seen - expected) / math.sqrt(expected + 1.0) - 2.0) / 8.0
    reliable = calibrators.reliability.get(p.event.get("source", ""), 0.0)
    evidence = [("severity", p.severity_x, severity.CAPTIONS.get(p.severity, "unknown"))]
    if anomaly > 0.0:
        evidence.append(("metric_anomaly", _in_scale(anomaly), metric))
    if entities > 1:
        evidence.append(("blast_radius", _in_scale((entities - 1) / (entities + 4)), str(entities)))
    if p.cues_x:
        evidence.append(("text_cues", p.cues_x, p.cue))
    if surprise > 0.0:
        evidence.append(("rate_surprise", _in_scale(surprise), f"{seen:.0f}, usually {expected:.1f}"))
        if p.severity in (severity.UNKNOWN, severity.OTHER):
            evidence.append(("ungraded_burst", _in_scale(surprise), ""))
    evidence.append(("novelty", _in_scale(new / (1.0 + series.flaps)), why_new))
    if p.criticality_x:
        evidence.append(("criticality", p.criticality_x, p.service or ""))
    if returned:
        evidence.append(("recurrence", _in_scale(1.0 / max(series.flaps - 1.0, 1.0)), ""))
    if reliable > 0.0:
        evidence.append(("source_reliability", _in_scale(reliable), p.event["source"][:64]))
    return [one for one in evidence if one[1] > 0]


def _stamp(event: Event, p: Prepared, states: States, series: SeriesState) -> None:
    """Say since when the alert fires, where that is not since this event, how near other onsets mean something, and
    whether alerts begin so often that only short silences do.
    """
    if p.status != FIRING:
        return
    if series.onset != p.at:
        event["onset_ms"] = series.onset
    judged = event["explain"]
    learned = sum(micro for name, _, micro in judged["terms"] if name == "source_reliability")
    if judged["logit"] - learned < NOTABLE:  # by its own evidence: states do not depend on calibrators
        return
    if series.onset == p.at:
        states.onset(p.at)
    pace = states.pace()
    if pace is None:
        return
    if pace.usual_ms() < onsets.BUSY_MS:
        event["onset_busy"] = True
    near = pace.near_s() if p.at - series.onset <= onsets.FRESH_MS else 0
    if near:
        event["onset_near_s"] = near


def _scored(p: Prepared, evidence: Sequence[tuple[str, int, str]], calibrator: Calibrator) -> Event:
    """The event with score and compact explanation filled in; the event that was sent is left as it is."""
    terms: list[list[Any]] = [[name, x / SCALE, BY_NAME[name].contribution(x)] for name, x, _ in evidence]
    logit = BIAS + sum(micro for _, _, micro in terms)
    value = calibrator.score(logit)
    compact: dict[str, Any] = {
        "v": EXPLAIN_VERSION,
        "bias": BIAS,
        "terms": terms,
        "logit": logit,
        "calibrator": calibrator.version,
        "detail": {name: detail for name, _, detail in evidence if detail},
    }
    if not calibrator.is_identity:
        compact["platt"] = [calibrator.slope, calibrator.offset]
    return {
        **p.event,
        "ruling_ms": p.at,
        "severity_id": p.severity,
        "fingerprint": p.fingerprint,
        "features": {name: x for name, x, _ in terms},
        "score": value,
        "tier": tier(value),
        "explain": compact,
        "scored_by": SCORER_VERSION,
    }


def score(
    prepared: Sequence[Prepared],
    hot: Mapping[bytes, bytes],
    full: Mapping[bytes, bytes],
    calibrators: Calibrators = calibration.DEFAULT,
) -> Scored:
    """Score events in list order on top of the given states. Pure: repeating it with the same input
    changes nothing.
    """
    states = States(hot, full)
    events = []
    for p in prepared:
        series = states.series(p.series_key, p.at, p.status)
        event = _scored(p, _weigh(p, states, series, calibrators), calibrators.of(p.event.get("source", "")))
        _stamp(event, p, states, series)
        events.append(event)
    return Scored(*states.changed(), events)


def explain(event: Mapping[str, Any]) -> dict[str, Any]:
    """A scored event's judgement in words and numbers.

    `contributions` are sorted by size and sum, with `bias`, to `logit` exactly (micro-logits).
    `to_next_tier` and `to_lower_tier` tell the smallest change of evidence that would move the tier; they are
    None at either end and for events of another scorer version. Raises KeyError for an event without a score.
    """
    compact = event["explain"]
    details = compact.get("detail", {})
    slope, offset = compact.get("platt", (calibration.MICRO, 0))
    calibrator = Calibrator(compact["calibrator"], slope, offset)
    logit, value = compact["logit"], event["score"]
    terms = sorted(compact["terms"], key=lambda term: (-term[2], term[0]))
    contributions = [
        {
            "feature": name,
            "value": x,
            "micro_logits": micro,
            "meaning": BY_NAME[name].meaning if name in BY_NAME else name,
            "text": f"{_words(name, details.get(name, ''))}: +{micro / calibration.MICRO:.2f}",
        }
        for name, x, micro in terms
    ]
    rank = calibration.TIERS.index(tier(value))
    up = down = None
    current = event.get("scored_by") == SCORER_VERSION  # weights of another version would give wrong advice
    if current and rank + 1 < len(calibration.TIERS):
        up = _way_up(terms, calibrator.invert(calibration.TIER_LOGITS[rank]) - logit, calibration.TIERS[rank + 1])
    if current and rank > 0:
        excess = logit - calibrator.invert(calibration.TIER_LOGITS[rank - 1]) + 1
        down = _way_down(terms, excess, calibration.TIERS[rank - 1])
    return {
        "score": value,
        "risk_score": risk_score(value),
        "tier": tier(value),
        "bias": compact["bias"],
        "contributions": contributions,
        "logit": logit,
        "calibrator": {"version": calibrator.version, "slope": slope, "offset": offset},
        "to_next_tier": up,
        "to_lower_tier": down,
        "fingerprint": {
            "value": event.get("fingerprint"),
            "template": fingerprints.template(event.get("title", ""), (event.get("entity") or {}).get("id", "")),
        },
        "scored_by": event.get("scored_by"),
        "text": _summary(value, contributions),
    }


def _words(name: str, detail: str) -> str:
    return BY_NAME[name].words.format(detail=detail) if name in BY_NAME else f"{name} {detail}".strip()


def _summary(value: float, contributions: Sequence[Mapping[str, Any]]) -> str:
    head = f"Risk {risk_score(value)} of 100 ({tier(value)})"
    if not contributions:
        return f"{head}: no evidence of trouble."
    reasons = "; ".join(c["text"].rpartition(":")[0] for c in contributions[:3])
    return f"{head}, because {reasons}."


def _way_up(terms: Sequence[Sequence[Any]], missing: int, to: str) -> dict[str, Any]:
    """The single feature that has to grow least, in its own range, to add the missing micro-logits."""
    have = {name: round(x * SCALE) for name, x, _ in terms}
    ways = []
    for feature in REGISTRY:
        if feature.name == "ungraded_burst":  # it never moves alone
            continue
        x = have.get(feature.name, 0)
        target = -(-(feature.contribution(x) + missing) * SCALE // feature.weight)
        if feature.name == "severity":
            target = min((step for step in features.SEVERITY_X.values() if step >= target), default=SCALE + 1)
        if target <= SCALE:
            ways.append((target - x, feature.name, x, target))
    if not ways:
        return {
            "tier": to,
            "micro_logits": missing,
            "by": None,
            "text": f"no single feature is enough for {to}",
        }
    _, name, x, target = min(ways)
    by = [{"feature": name, "from": x / SCALE, "to": target / SCALE}]
    text = f"{name} at {target / SCALE:g} instead of {x / SCALE:g} would make it at least {to}"
    return {"tier": to, "micro_logits": missing, "by": by, "text": text}


def _way_down(terms: Sequence[Sequence[Any]], excess: int, to: str) -> dict[str, Any]:
    """The fewest contributions that must shrink to take the excess micro-logits away; the last only as
    far as needed.
    """
    by, left = [], excess
    fitting = min((term for term in terms if term[2] >= excess), key=lambda term: term[2], default=None)
    for name, x, micro in [fitting] if fitting else terms:
        if name not in BY_NAME or left <= 0:
            continue
        weight = BY_NAME[name].weight
        target = max((micro - left + 1) * SCALE - 1, 0) // weight if micro > left else 0
        if name == "severity":
            target = max((step for step in features.SEVERITY_X.values() if step <= target), default=0)
        by.append({"feature": name, "from": x, "to": target / SCALE})
        left -= micro - BY_NAME[name].contribution(target)
    parts = " and ".join(f"{way['feature']} at {way['to']:g} instead of {way['from']:g}" for way in by)
    return {"tier": to, "micro_logits": -excess, "by": by, "text": f"{parts} would make it at most {to}"}
