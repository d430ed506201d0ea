"""Lemma files: what they say, what Z3 and cvc5 answer, and what becomes of the answers when a lemma is weakened."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cvc5
import z3
from tools.mathematics.symbolic import ROOT

FOLDER: Final = ROOT / "configs" / "math"
_QUERY: Final = re.compile(r"^\(push 1\) ; expect (unsat|sat)\b(?:: )?(.*)$", re.MULTILINE)
_CVC5_MS: Final = "20000"


@dataclass(frozen=True, slots=True)
class Query:
    """One question of a file: the answer that it expects, and what it means."""

    expected: str
    says: str


@dataclass(frozen=True, slots=True)
class Lemma:
    """A file of SMT-LIB: id, statement, the code that it is about, and its queries in order."""

    name: str
    file: str
    statement: str
    code: tuple[str, ...]
    queries: tuple[Query, ...]
    text: str

    @property
    def is_refutation(self) -> bool:
        return self.name.startswith("R")


def read(path: Path) -> Lemma:
    """A lemma file. Raises ValueError when a query lacks the answer that it expects."""
    text = path.read_text("utf-8")
    lines, code = list[str](), tuple[str, ...]()
    for line in text.splitlines():
        if not line.startswith("; "):
            break
        if line.startswith("; code: "):
            code = tuple(line.removeprefix("; code: ").split(", "))
        else:
            lines.append(line[2:])
    name, _, statement = " ".join(lines).partition(": ")
    queries = tuple(Query(*found) for found in _QUERY.findall(text))
    if len(queries) != text.count("(check-sat)"):
        raise ValueError(f"{path.name}: a query without the answer that it expects")
    return Lemma(name, path.name, statement, code, queries, text)


def every() -> list[Lemma]:
    return [read(path) for path in sorted(FOLDER.glob("*.smt2"))]


def by_z3(text: str) -> list[str]:
    """Answers of Z3 to the queries of a file, in order."""
    context = z3.Context()
    return str(z3.Z3_eval_smtlib2_string(context.ref(), text)).split()


def by_cvc5(text: str) -> list[str]:
    """Answers of cvc5 to the queries of a file, in order."""
    solver = cvc5.Solver(cvc5.TermManager())
    solver.setOption("incremental", "true")
    solver.setOption("tlimit-per", _CVC5_MS)
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "lemma")
    symbols, answers = parser.getSymbolManager(), list[str]()
    while not (command := parser.nextCommand()).isNull():
        answers += str(command.invoke(solver, symbols)).split()
    return answers


SOLVERS: Final = {"cvc5": by_cvc5, "z3": by_z3}


def broken(lemma: Lemma, answers: list[str]) -> list[int]:
    """Numbers, from 1, of the proofs of a lemma that the answers no longer give."""
    if len(answers) != len(lemma.queries):
        raise ValueError(f"{lemma.file}: {len(answers)} answers to {len(lemma.queries)} queries")
    return [
        i
        for i, (query, answer) in enumerate(zip(lemma.queries, answers, strict=True), 1)
        if query.expected == "unsat" and answer == "sat"
    ]
