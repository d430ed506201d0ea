"""Deliberate weakenings (configs/math/weakenings.yaml), and which proofs each of them breaks."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Final

import yaml
from tools.mathematics import lemmas, symbolic
from tools.mathematics.obligations import DECISIONS, proved
from tools.mathematics.symbolic import ROOT

FILE: Final = ROOT / "configs" / "math" / "weakenings.yaml"


@dataclass(frozen=True, slots=True)
class Weakening:
    """One place of a file, changed."""

    id: str
    of: str  # "lemmas" or "code"
    file: str
    why: str
    old: str
    new: str


def every() -> list[Weakening]:
    held = yaml.safe_load(FILE.read_text("utf-8"))
    return [Weakening(of=of, **one) for of in ("lemmas", "code") for one in held[of]]


def breaks(weakening: Weakening) -> list[str]:
    """Names of the proofs that fail with it. Raises ValueError when the solvers disagree or the place is not there."""
    if weakening.of == "lemmas":
        lemma = lemmas.read(lemmas.FOLDER / weakening.file)
        text = symbolic.changed(lemma.text, weakening.file, weakening.old, weakening.new)
        found = [lemmas.broken(lemma, solve(text)) for solve in lemmas.SOLVERS.values()]
        if found[0] != found[1]:
            raise ValueError(f"{weakening.id}: the solvers disagree")
        return [f"{lemma.name}/{number}" for number in found[0]]
    path = weakening.file if "/" in weakening.file else DECISIONS + weakening.file
    module = symbolic.load(path, weakening.old, weakening.new)
    return [name for name, holds in proved({path: module}, _within(path, weakening.old)).items() if not holds]


def _within(path: str, old: str) -> str:
    """The function or class of a module in which a place is; what is proved of others is not touched by it."""
    text = (ROOT / path).read_text("utf-8")
    line = text.count("\n", 0, text.index(old)) + 1
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.lineno <= line <= (node.end_lineno or 0):
            return node.name
    return ""
