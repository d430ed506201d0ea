"""The lemmas: Z3 and cvc5 give the answers that the files expect, and the index says what the files say."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import cvc5
import pytest
import z3

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "configs" / "math").glob("*.smt2"))
LINK = re.compile(r"^\| \[(\w+)\]\(\.\./\.\./configs/math/([\w.]+)\) \| (.+) \|$", re.MULTILINE)


def expected(text: str) -> list[str]:
    return re.findall(r"^\(push 1\) ; expect (unsat|sat)\b", text, re.MULTILINE)


def by_z3(text: str) -> list[str]:
    context = z3.Context()
    return str(z3.Z3_eval_smtlib2_string(context.ref(), text)).split()


def by_cvc5(text: str) -> list[str]:
    solver = cvc5.Solver(cvc5.TermManager())
    solver.setOption("incremental", "true")
    solver.setOption("tlimit-per", "20000")
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "lemma")
    symbols, answers = parser.getSymbolManager(), []
    while not (command := parser.nextCommand()).isNull():
        answers += str(command.invoke(solver, symbols)).split()
    return answers


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_both_solvers_agree_with_the_file(path: Path) -> None:
    text = path.read_text("utf-8")
    answers = expected(text)
    assert len(answers) == text.count("(check-sat)")
    assert by_z3(text) == answers
    assert by_cvc5(text) == answers
    # a proof beside a weakening that fails; refutations are all witnesses
    assert set(answers) == ({"sat"} if path.stem.startswith("R") else {"sat", "unsat"})


def head(path: Path) -> tuple[str, str, list[str]]:
    """Id, statement and names of code."""
    lines, code = [], list[str]()
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("; "):
            break
        if line.startswith("; code: "):
            code = line.removeprefix("; code: ").split(", ")
        else:
            lines.append(line[2:])
    name, _, statement = " ".join(lines).partition(": ")
    return name, statement, code


def test_the_index_says_what_the_files_say() -> None:
    rows = LINK.findall((ROOT / "docs" / "math" / "lemma_appendix.md").read_text("utf-8"))
    assert rows == [(head(path)[0], path.name, head(path)[1]) for path in FILES]
    assert len(FILES) > 15
    calculus = (ROOT / "docs" / "math" / "master_calculus.md").read_text("utf-8")
    named = {path.stem[:3] for path in FILES}
    assert set(re.findall(r"\b[LR]\d\d\b", calculus)) == named


def test_the_code_that_lemmas_name_exists() -> None:
    for path in FILES:
        for name in head(path)[2]:
            module, _, attribute = name.rpartition(".")
            full = module if module.startswith("tools.") else f"tocsin.decisions.{module}"
            assert hasattr(importlib.import_module(full), attribute), name
        assert head(path)[2] or path.stem.startswith("R")
