"""From evidence to probability: the sigmoid that rounds S, tiers, and one calibrator per source.

A calibrator is Platt's form (J. Platt, "Probabilistic outputs for support vector machines", 1999) on the
logit, S = sigmoid(a·logit + b), with integer parameters and a > 0: exact to store, the same on every
machine, and monotone, so more evidence never lowers S.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MICRO: Final = 1_000_000
TIERS: Final = ("info", "low", "medium", "high", "critical")
#: Smallest risk_score of each tier.
TIER_FROM: Final = (0, 20, 40, 60, 80)
TIERS_VERSION: Final = 1

_LN2: Final = 0.6931471805599453
#: Beyond this S is 0 or 1 to six decimals.
_FLAT: Final = 20 * MICRO


def _roots() -> tuple[float, ...]:
    """2^(-i/64) for i = 0..64, from square roots and products only, which IEEE 754 defines to the last
    bit.
    """
    root = 0.5
    for _ in range(6):
        root = math.sqrt(root)
    powers = [1.0]
    for _ in range(64):
        powers.append(powers[-1] * root)
    return tuple(powers)


_ROOTS: Final = _roots()


def half_power(halvings: float) -> float:
    """2^(-halvings) for halvings >= 0, the same bits on every platform (math.exp is not); relative error
    < 1e-12.
    """
    if halvings >= 1000.0:
        return 0.0
    whole = int(halvings)
    position = (halvings - whole) * 64.0
    index = int(position)
    r = (position - index) * (_LN2 / 64.0)
    series = 1.0 - r * (1.0 - r * (0.5 - r * (1.0 / 6.0 - r / 24.0)))
    return math.ldexp(_ROOTS[index] * series, -whole)


def sigmoid(micro_logit: int) -> float:
    """S of a logit in micro-logits: 1 / (1 + e^-logit) rounded to 6 decimals. The only place where S is
    rounded.
    """
    if micro_logit >= _FLAT:
        return 1.0
    if micro_logit <= -_FLAT:
        return 0.0
    e = half_power(abs(micro_logit) / MICRO / _LN2)
    return round((1.0 if micro_logit >= 0 else e) / (1.0 + e), 6)


def risk_score(score: float) -> int:
    """OCSF risk_score of S: round(100·S), 0 to 100."""
    return round(100 * score)


def tier(score: float) -> str:
    """Tier of S: info below 20, low below 40, medium below 60, high below 80, then critical, all on
    risk_score(S).
    """
    risk = risk_score(score)
    if risk < 40:
        return "low" if risk >= 20 else "info"
    if risk < 60:
        return "medium"
    return "high" if risk < 80 else "critical"


def _first_logit(risk: int) -> int:
    """Smallest micro-logit whose S has at least this risk_score."""
    low, high = -_FLAT, _FLAT
    while low < high:
        middle = (low + high) // 2
        if risk_score(sigmoid(middle)) >= risk:
            high = middle
        else:
            low = middle + 1
    return low


#: Smallest calibrated micro-logit of each tier above the first.
TIER_LOGITS: Final = tuple(_first_logit(risk) for risk in TIER_FROM[1:])


@dataclass(frozen=True, slots=True)
class Calibrator:
    """Platt scaling with `slope` (a, in millionths, > 0) and `offset` (b, in micro-logits). Default:
    identity.
    """

    version: str = "identity"
    slope: int = MICRO
    offset: int = 0

    def __post_init__(self) -> None:
        if self.slope <= 0:
            raise ValueError("slope must be positive, or more evidence would lower the score")

    @property
    def is_identity(self) -> bool:
        return self.slope == MICRO and self.offset == 0

    def apply(self, micro_logit: int) -> int:
        """Calibrated micro-logit of an evidence logit."""
        return self.slope * micro_logit // MICRO + self.offset

    def invert(self, calibrated: int) -> int:
        """Smallest evidence micro-logit that apply() turns into at least `calibrated`."""
        return -((self.offset - calibrated) * MICRO // self.slope)

    def score(self, micro_logit: int) -> float:
        """S in [0, 1], 6 decimals, of an evidence logit."""
        return sigmoid(self.apply(micro_logit))


IDENTITY: Final = Calibrator()


@dataclass(frozen=True, slots=True)
class Calibrators:
    """Calibrators and learned reliabilities of one project, by source. Sources without one use the identity.

    `reliability` is the share of a source's judged signals that people confirmed, 0 to 1.
    """

    by_source: Mapping[str, Calibrator] = field(default_factory=dict)
    reliability: Mapping[str, float] = field(default_factory=dict)

    def of(self, source: str) -> Calibrator:
        return self.by_source.get(source, IDENTITY)


DEFAULT: Final = Calibrators()
