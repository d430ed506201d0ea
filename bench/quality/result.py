"""One line of the table: our figure beside baselines measured on the same data, published figures, and the aim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """`ours` in the unit of `measure`; `aim` as text with its direction, such as "≥ .94"."""

    data: str
    what: str
    measure: str
    ours: float
    baselines: Mapping[str, float] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)
    aim: str = ""
    digits: int = 3

    def cells(self) -> tuple[str, ...]:
        def many(figures: Mapping[str, float]) -> str:
            return "; ".join(f"{name} {value:.{self.digits}f}" for name, value in figures.items()) or "-"

        ours = f"{self.ours:,.{self.digits}f}"
        return (self.data, self.what, self.measure, ours, many(self.baselines), many(self.published), self.aim or "-")
