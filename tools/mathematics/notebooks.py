"""Notebooks that verify lemmas a second way: what they hold, and what their cells print when they are run.

A cell that verifies says so in its first lines (`# VERIFY:L07`) and prints `VERIFY:L07 ok: …` when it did. Notebooks
named verify_* must not import the project, so that they are evidence for the mathematics; *_implementation_verification
may, and are evidence that the code follows it. They are kept without outputs and run in a fresh, isolated interpreter.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.mathematics.symbolic import ROOT

FOLDER: Final = ROOT / "notebooks" / "math"
#: What a verify_* notebook may import.
ALLOWED: Final = frozenset({"collections", "fractions", "functools", "itertools", "math"})
_MARK: Final = re.compile(r"^# VERIFY:([LR]\d\d)$", re.MULTILINE)
_DONE: Final = re.compile(r"^VERIFY:([LR]\d\d) (ok: .+)$", re.MULTILINE)
_TIMEOUT_S: Final = 120
#: Runs the cells that come in, one after another in one namespace.
_RUNNER: Final = """
import json, sys
sys.path[:0] = sys.argv[1:]
held = {"__name__": "__main__"}
for name, source in json.load(sys.stdin):
    exec(compile(source, name, "exec"), held)
"""


@dataclass(frozen=True, slots=True)
class Cell:
    id: str
    source: str
    lemmas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook: its code cells in order, and whether it may import the project."""

    name: str
    sha256: str
    cells: tuple[Cell, ...]
    may_import: bool

    @property
    def lemmas(self) -> list[str]:
        return sorted({lemma for cell in self.cells for lemma in cell.lemmas})


def normal(document: Any) -> str:
    """The one form in which a notebook is kept: no outputs, sorted keys."""
    cells = [
        {**cell, "execution_count": None, "outputs": []} if cell["cell_type"] == "code" else cell
        for cell in document["cells"]
    ]
    return json.dumps({**document, "cells": cells}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read(path: Path) -> Notebook:
    """A notebook. Raises ValueError when it is not in its one form, or imports what it must not."""
    text = path.read_text("utf-8")
    document = json.loads(text)
    if normal(document) != text:
        raise ValueError(f"{path.name}: clear all outputs, and save it with sorted keys and an indent of 1")
    cells = []
    for cell in document["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            cells.append(Cell(cell["id"], source, tuple(_MARK.findall(source))))
    may_import = path.stem.endswith("_implementation_verification")
    if not may_import and not path.stem.startswith("verify_"):
        raise ValueError(f"{path.name}: name it verify_* or *_implementation_verification")
    for cell in () if may_import else cells:
        if foreign := imported(cell.source) - ALLOWED:
            raise ValueError(f"{path.name}: {cell.id} imports {', '.join(sorted(foreign))}")
    return Notebook(path.stem, hashlib.sha256(text.encode()).hexdigest(), tuple(cells), may_import)


def imported(source: str) -> set[str]:
    """Top-level names of the modules that code imports, and the functions with which it could do so unseen."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or ".").partition(".")[0])
        elif isinstance(node, ast.Name) and node.id in ("__import__", "exec", "eval", "open", "__builtins__"):
            found.add(node.id)
    return found


def every() -> list[Notebook]:
    return [read(path) for path in sorted(FOLDER.glob("*.ipynb"))]


def run(notebook: Notebook) -> dict[str, str]:
    """What the notebook says of each lemma. Raises ValueError when a cell fails or leaves out what it announced."""
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", _RUNNER, *([str(ROOT / "shared")] if notebook.may_import else [])],
        input=json.dumps([(cell.id, cell.source) for cell in notebook.cells]),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"{notebook.name}: {done.stderr.strip()[-1_000:]}")
    said = dict(_DONE.findall(done.stdout))
    if sorted(said) != notebook.lemmas:
        raise ValueError(f"{notebook.name}: announced {notebook.lemmas}, printed {sorted(said)}")
    return said
