"""Invariants (invariants/INV-CAIO-*.yaml): what is promised, and how much of it the evidence bears out.

A file names its evidence and never its status. The status is computed:

    proved   both solvers prove every lemma, a weakening of each breaks it, and the code itself was run on terms
    lemma    as before, but the code is tied to the lemmas by tests, checkers and notebooks only
    tested   by tests and checkers; there is no lemma
    open     something that is named is missing, or does not hold
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import yaml
from tools.mathematics.symbolic import ROOT

FOLDER: Final = ROOT / "invariants"
KINDS: Final = ("smt2", "code", "notebooks", "tests", "checkers")
_FIELDS: Final = {"id", "title", "statement", "lemmas", "evidence"}
_NEEDED: Final = _FIELDS - {"lemmas"}


@dataclass(frozen=True, slots=True)
class Invariant:
    """`evidence` names, by kind: files in configs/math, obligations, `notebook#lemma`, test ids, checkers."""

    id: str
    title: str
    statement: str
    lemmas: tuple[str, ...]
    evidence: Mapping[str, tuple[str, ...]]


def read(name: str, held: Any) -> Invariant:
    if not isinstance(held, dict) or not held.keys() <= _FIELDS or not held.keys() >= _NEEDED or held["id"] != name:
        raise ValueError(f"{name}: fields are {', '.join(sorted(_FIELDS))}; a status is computed, never written")
    evidence = held["evidence"]
    if not evidence or not evidence.keys() <= set(KINDS):
        raise ValueError(f"{name}: evidence is some of {', '.join(KINDS)}")
    named = {kind: tuple(evidence.get(kind, ())) for kind in KINDS}
    return Invariant(name, held["title"], " ".join(held["statement"].split()), tuple(held.get("lemmas", ())), named)


@lru_cache(maxsize=1)
def every() -> list[Invariant]:
    """All invariants by id. Raises ValueError for a file that breaks the form."""
    return [read(path.stem, yaml.safe_load(path.read_text("utf-8"))) for path in sorted(FOLDER.glob("INV-CAIO-*.yaml"))]


@lru_cache(maxsize=64)
def defined_tests(path: str) -> set[str]:
    """Names of the test functions in a file."""
    tree = ast.parse((ROOT / path).read_text("utf-8")) if (ROOT / path).is_file() else ast.parse("")
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def gaps(invariant: Invariant, found: Mapping[str, Mapping[str, bool]]) -> list[str]:
    """What of the named evidence is missing or does not hold; `found` says what was found, by kind and name."""
    missing = [
        f"{kind}: {name}" for kind in KINDS for name in invariant.evidence[kind] if not found[kind].get(name, False)
    ]
    files = {name.partition("_")[0] for name in invariant.evidence["smt2"]}
    missing += [f"lemma without its file: {lemma}" for lemma in invariant.lemmas if lemma not in files]
    missing += [f"never weakened: {lemma}" for lemma in invariant.lemmas if not found["weakened"].get(lemma, False)]
    return missing


def status(invariant: Invariant, found: Mapping[str, Mapping[str, bool]]) -> str:
    if gaps(invariant, found):
        return "open"
    if not invariant.lemmas:
        return "tested"
    return "proved" if invariant.evidence["code"] else "lemma"
