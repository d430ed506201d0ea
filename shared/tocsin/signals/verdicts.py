"""Learning from verdicts: what people said of incidents becomes a calibrator and a reliability per source.

One sample per judged incident and source that has a member in it: the loudest evidence of that source, and
whether the incident was worth somebody's time (`useful`: yes; `noise`: no; `duplicate`: no at half weight, since
it tells less of the signal than of the grouping). Figures come from cross-validation: a sample is never judged
by a calibrator that has seen its incident.

The fit is Platt scaling (J. Platt, "Probabilistic outputs for support vector machines", 1999) by Newton's method
(H.-T. Lin, C.-J. Lin, R. Weng, "A note on Platt's probabilistic outputs", 2007), drawn towards the identity by a
Gaussian prior, so that few verdicts move little. Brier score: G. Brier, 1950. ECE and reliability diagram: Guo et al.,
"On calibration of modern neural networks", 2017, with ten bins of equal width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final, Self

from tocsin.kernel.errors import Detail, Refusal
from tocsin.signals.calibration import IDENTITY, MICRO, Calibrator, Calibrators
from tocsin.signals.features import BY_NAME, SCALE
from tocsin.signals.scoring import SCORER_VERSION

Json = dict[str, Any]

#: Judged incidents that a source must have before it gets a calibrator of its own.
MIN_JUDGED: Final = 10
#: Versions that are kept, the active one always among them.
MAX_VERSIONS: Final = 20
MAX_SOURCES: Final = 50
BINS: Final = 10
FOLDS: Final = 5

#: Useful or not, and how much the verdict weighs.
_MEANING: Final[Mapping[str, tuple[float, float]]] = {
    "useful": (1.0, 1.0),
    "noise": (0.0, 1.0),
    "duplicate": (0.0, 0.5),
}
#: Precision of the prior: slope 1 and offset 0 count like about so many verdicts.
_PRIOR: Final = 2.0
_SLOPES: Final = (0.1, 10.0)
_OFFSETS: Final = (-10.0, 10.0)
_STEPS: Final = 50


@dataclass(frozen=True, slots=True)
class Sample:
    """The loudest evidence of one source in one judged incident. `micro_logit` is without source_reliability."""

    incident_id: str
    source: str
    micro_logit: int
    useful: float
    weight: float

    @property
    def fold(self) -> int:
        return blake2b(self.incident_id.encode(), digest_size=2).digest()[0] % FOLDS


def samples_of(incident_id: str, verdict: str, members: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Samples of one judged incident from its members, by source; what older scorers weighed is left out."""
    useful, weight = _MEANING[verdict]
    loudest: dict[str, int] = {}
    for event in members:
        if event["scored_by"] != SCORER_VERSION:
            continue
        compact = event["explain"]
        logit = compact["logit"] - sum(micro for name, _, micro in compact["terms"] if name == "source_reliability")
        loudest[event["source"]] = max(logit, loudest.get(event["source"], logit))
    return [Sample(incident_id, source, logit, useful, weight) for source, logit in sorted(loudest.items())]


@dataclass(frozen=True, slots=True)
class Figures:
    """How well S foretold the verdicts. Brier and ECE in [0, 1], less is better.

    `diagram` has a row [samples' weight, mean S, share useful] for each tenth of S, None where nothing fell.
    """

    brier: float
    ece: float
    diagram: Sequence[Sequence[float] | None]

    def as_json(self) -> Json:
        return {"brier": self.brier, "ece": self.ece, "diagram": list(self.diagram)}


def figures(judged: Sequence[tuple[float, Sample]]) -> Figures:
    """Figures of predictions S for samples. Needs at least one."""
    bins: list[list[tuple[float, Sample]]] = [[] for _ in range(BINS)]
    for value, sample in judged:
        bins[min(int(value * BINS), BINS - 1)].append((value, sample))
    total = sum(sample.weight for _, sample in judged)
    brier = sum(sample.weight * (value - sample.useful) ** 2 for value, sample in judged) / total
    ece = 0.0
    diagram: list[list[float] | None] = []
    for part in bins:
        weight = sum(sample.weight for _, sample in part)
        if not part:
            diagram.append(None)
            continue
        mean = sum(sample.weight * value for value, sample in part) / weight
        share = sum(sample.weight * sample.useful for _, sample in part) / weight
        ece += weight / total * abs(mean - share)
        diagram.append([round(weight, 2), round(mean, 4), round(share, 4)])
    return Figures(round(brier, 4), round(ece, 4), diagram)


def platt(samples: Sequence[Sample], extra: int, version: str) -> Calibrator:
    """The calibrator that makes the verdicts most probable under the prior; `extra` micro-logits are added to each."""
    points = [((sample.micro_logit + extra) / MICRO, sample.useful, sample.weight) for sample in samples]
    a, b = 1.0, 0.0
    for _ in range(_STEPS):
        ga, gb = _PRIOR * (a - 1.0), _PRIOR * b
        haa, hab, hbb = _PRIOR, 0.0, _PRIOR
        for z, useful, weight in points:
            p = 1.0 / (1.0 + math.exp(-max(min(a * z + b, 30.0), -30.0)))
            slack, curve = weight * (p - useful), weight * p * (1.0 - p)
            ga, gb = ga + slack * z, gb + slack
            haa, hab, hbb = haa + curve * z * z, hab + curve * z, hbb + curve
        det = haa * hbb - hab * hab  # > 0: the prior makes the matrix positive definite
        da, db = (hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det
        step = min(1.0, 2.0 / max(abs(da), abs(db), 1e-12))
        a = min(max(a - step * da, _SLOPES[0]), _SLOPES[1])
        b = min(max(b - step * db, _OFFSETS[0]), _OFFSETS[1])
        if abs(da) + abs(db) < 1e-9:
            break
    return Calibrator(version, round(a * MICRO), round(b * MICRO))


def _share(samples: Sequence[Sample]) -> float:
    """Share of confirmed samples, with one of either kind assumed (Laplace), so that it is never sure."""
    total = sum(sample.weight for sample in samples)
    return round((sum(sample.weight * sample.useful for sample in samples) + 1.0) / (total + 2.0), 4)


def _added(reliability: float) -> int:
    """Micro-logits that the feature source_reliability adds for a source."""
    return BY_NAME["source_reliability"].contribution(round(reliability * SCALE))


@dataclass(frozen=True, slots=True)
class Learned:
    """What one source's verdicts gave. `better` is whether cross-validation found an improvement worth having."""

    calibrator: Calibrator
    reliability: float
    judged: int
    before: Figures
    after: Figures

    @property
    def better(self) -> bool:
        return self.after.brier < self.before.brier

    def as_json(self) -> Json:
        return {
            "slope": self.calibrator.slope,
            "offset": self.calibrator.offset,
            "reliability": self.reliability,
            "judged": self.judged,
            "in_use": self.better,
            "before": self.before.as_json(),
            "after": self.after.as_json(),
        }


def learn(samples: Sequence[Sample], current: Calibrators, version: str) -> dict[str, Learned]:
    """Calibrator, reliability and cross-validated figures of every source with MIN_JUDGED samples, by source."""
    by_source: dict[str, list[Sample]] = {}
    for sample in samples:
        by_source.setdefault(sample.source, []).append(sample)
    enough = sorted(
        (s for s, own in by_source.items() if len(own) >= MIN_JUDGED), key=lambda s: (-len(by_source[s]), s)
    )
    return {source: _learned(by_source[source], source, current, version) for source in sorted(enough[:MAX_SOURCES])}


def _learned(own: Sequence[Sample], source: str, current: Calibrators, version: str) -> Learned:
    known = _added(current.reliability.get(source, 0.0))
    before = [(current.of(source).score(sample.micro_logit + known), sample) for sample in own]
    after = []
    for fold in range(FOLDS):
        seen = [sample for sample in own if sample.fold != fold]
        extra = _added(_share(seen))
        held_out = platt(seen, extra, version)
        after += [(held_out.score(s.micro_logit + extra), s) for s in own if s.fold == fold]
    reliability = _share(own)
    fitted = platt(own, _added(reliability), version)
    return Learned(fitted, reliability, len(own), figures(before), figures(after))


@dataclass(frozen=True, slots=True)
class Calibration:
    """All versions of a project's calibration and which is active; version 0 is the identity, for all sources.

    `versions` are rows {"version", "at", "by", "judged", "sources"}; `history` holds the activations
    {"version", "at", "by"}, oldest first. Times are Unix ms.
    """

    active: int = 0
    versions: tuple[Json, ...] = ()
    history: tuple[Json, ...] = ()

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> Self:
        if not document:
            return cls()
        return cls(document["active"], tuple(document["versions"]), tuple(document["history"]))

    def to_document(self) -> Json:
        return {"active": self.active, "versions": list(self.versions), "history": list(self.history)}

    @property
    def label(self) -> str:
        """Name of the active version, as commits and explanations record it."""
        return _label(self.active)

    def _row(self, version: int) -> Json:
        return next((row for row in self.versions if row["version"] == version), {})

    def calibrators(self) -> Calibrators:
        """What scoring uses while the active version is active."""
        return self._calibrators(self.active)

    def named(self, label: str) -> Calibrators | None:
        """The calibrators that a commit recorded as `label`; None when that version is not kept."""
        versions = (0, *(row["version"] for row in self.versions))
        return next((self._calibrators(version) for version in versions if _label(version) == label), None)

    def _calibrators(self, version: int) -> Calibrators:
        used = {name: one for name, one in self._row(version).get("sources", {}).items() if one["in_use"]}
        name = _label(version)
        return Calibrators(
            {source: Calibrator(name, one["slope"], one["offset"]) for source, one in used.items()},
            {source: one["reliability"] for source, one in used.items()},
        )

    def fit(self, samples: Sequence[Sample], *, by: str, at: int) -> Calibration:
        """A new version from all verdicts there are, active at once. Refuses ERR_CONFLICT while there are too few.

        A source whose cross-validated Brier score does not improve keeps what it has: nothing is changed for it.
        """
        version = max((row["version"] for row in self.versions), default=0) + 1
        learned = learn(samples, self.calibrators(), _label(version))
        if not learned:
            fix = (
                f"judge at least {MIN_JUDGED} incidents with members of one source (verdict useful, noise or duplicate)"
            )
            raise Refusal("ERR_CONFLICT", "There are too few verdicts.", [Detail("verdict", "enough", fix)])
        kept: Mapping[str, Json] = self._row(self.active).get("sources", {})
        sources = {name: one for name, one in kept.items() if one["in_use"] and name not in learned}
        for name, one in learned.items():
            stays = not one.better and name in kept
            sources[name] = {**one.as_json(), **(_parameters(kept[name]) if stays else {})}
        judged = len({sample.incident_id for sample in samples})
        row = {"version": version, "at": at, "by": by, "judged": judged, "sources": sources}
        versions = [*(one for one in self.versions if one["version"] != self.active), self._row(self.active)]
        versions = sorted(filter(None, versions[-(MAX_VERSIONS - 1) :]), key=lambda one: one["version"])
        return replace(self, versions=(*versions, row)).activate(version, by=by, at=at)

    def activate(self, version: int | None, *, by: str, at: int) -> Calibration:
        """Make a kept version active; None is the one that was active before. Refuses ERR_CONFLICT when not kept."""
        wanted = version
        if wanted is None:
            wanted = self.history[-2]["version"] if len(self.history) > 1 else 0
        if wanted != 0 and not self._row(wanted):
            known = ", ".join(str(one) for one in (0, *(row["version"] for row in self.versions)))
            raise Refusal(
                "ERR_CONFLICT", "That version is not kept.", [Detail("version", "kept", f"use one of {known}")]
            )
        history = (*self.history, {"version": wanted, "at": at, "by": by})[-100:]
        return replace(self, active=wanted, history=history)


def _parameters(source: Mapping[str, Any]) -> Json:
    """What of a source's row decides scores."""
    return {name: source[name] for name in ("slope", "offset", "reliability", "in_use")}


def _label(version: int) -> str:
    return f"calibration-{version}" if version else IDENTITY.version
