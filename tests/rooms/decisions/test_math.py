"""The mathematics: everything is proved anew, every weakening breaks a proof, and a red scorecard is possible."""

from __future__ import annotations

import copy
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.mathematics import __main__ as commands
from tools.mathematics import evidence, invariants, lemmas, notebooks, symbolic, weakenings
from tools.mathematics.obligations import OBLIGATIONS

ROOT = Path(__file__).resolve().parents[3]
LEMMAS = lemmas.every()
MATH = ROOT / "docs" / "math"


def test_everything_is_proved_anew_and_the_generated_files_are_what_they_would_be() -> None:
    """Both solvers on every lemma, the code on terms, every weakening, every notebook; then byte by byte."""
    assert commands.validate() == []


@pytest.mark.parametrize("lemma", LEMMAS, ids=lambda lemma: str(lemma.name))
def test_a_proof_stands_beside_a_weakening_that_fails(lemma: lemmas.Lemma) -> None:
    """Refutations are all witnesses."""
    assert {query.expected for query in lemma.queries} == ({"sat"} if lemma.is_refutation else {"sat", "unsat"})


def test_there_are_enough_weakenings_of_the_lemmas_the_engine_and_the_checker() -> None:
    every = weakenings.every()
    assert len({one.id for one in every}) == len(every)
    assert {one.file[:3] for one in every if one.of == "lemmas"} == {
        one.name for one in LEMMAS if not one.is_refutation
    }
    engine = {one.file for one in every if one.of == "code"}
    assert engine == {one.module.removeprefix("shared/tocsin/decisions/") for one in OBLIGATIONS.values()}
    assert len(every) >= 18


def test_a_weakening_whose_place_is_gone_is_an_error() -> None:
    gone = weakenings.Weakening("x", "code", "routing.py", "gone", "no such text", "")
    with pytest.raises(ValueError, match="must be there once"):
        weakenings.breaks(gone)
    harmless = weakenings.Weakening("y", "code", "plans.py", "harmless", "def compose(", "def compose(")
    assert weakenings.breaks(harmless) == []


def test_paths_meets_every_answer_that_is_possible_and_no_other() -> None:
    n = symbolic.Int("n")

    def sign() -> str:
        if n < 0:
            return "negative"
        return "zero" if n == 0 else "both" if n < 0 else "positive"

    assert sorted(result for _, result in symbolic.paths(sign)) == ["negative", "positive", "zero"]
    assert [result for _, result in symbolic.paths(sign, n > 3)] == ["positive"]


def test_the_index_says_what_the_files_say() -> None:
    link = re.compile(r"^\| \[(\w+)\]\(\.\./\.\./configs/math/([\w.]+)\) \| (.+) \|$", re.MULTILINE)
    rows = link.findall((MATH / "lemma_appendix.md").read_text("utf-8"))
    assert rows == [(lemma.name, lemma.file, lemma.statement) for lemma in LEMMAS]
    assert len(LEMMAS) > 15
    proofs = re.findall(
        r"^\| `([\w-]+)` \| (.+) \| (.+) \| (.+) \|$", (MATH / "lemma_appendix.md").read_text("utf-8"), re.M
    )
    assert proofs == [
        (one.name, ", ".join(f"`{code}`" for code in one.code), ", ".join(one.lemmas), one.statement)
        for one in OBLIGATIONS.values()
    ]
    named = set[str]()
    for page in ("master_calculus.md", "control_calculus.md"):
        named |= set(re.findall(r"\b[LR]\d\d\b", (MATH / page).read_text("utf-8")))
    assert named == {lemma.name for lemma in LEMMAS}


def test_the_code_that_is_named_exists() -> None:
    for lemma in LEMMAS:
        assert lemma.code or lemma.is_refutation
    for name in {*(one for lemma in LEMMAS for one in lemma.code), *(c for o in OBLIGATIONS.values() for c in o.code)}:
        module, _, attribute = name.rpartition(".")
        full = module if module.startswith("tools.") else f"tocsin.decisions.{module}"
        assert hasattr(importlib.import_module(full), attribute), name


def notebook(source: str, name: str = "verify_x", **cell: Any) -> str:
    made = {"cell_type": "code", "id": "a", "metadata": {}, "source": [source], "execution_count": None, "outputs": []}
    return notebooks.normal({"cells": [made], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).replace(
        '"outputs": []', cell.get("outputs", '"outputs": []')
    )


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("from tocsin.decisions import routing", "imports tocsin"),
        ("import os, tools.checker", "imports os, tools"),
        ("__import__('tocsin')", "imports __import__"),
        ("from . import x", "imports"),
    ],
)
def test_a_notebook_that_imports_the_code_is_no_second_way(source: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "verify_x.ipynb"
    path.write_text(notebook(source), "utf-8")
    with pytest.raises(ValueError, match=what):
        notebooks.read(path)


def test_notebooks_are_kept_without_outputs_and_must_do_what_they_announce(tmp_path: Path) -> None:
    path = tmp_path / "verify_x.ipynb"
    path.write_text(notebook("1", outputs='"outputs": [1]'), "utf-8")
    with pytest.raises(ValueError, match="clear all outputs"):
        notebooks.read(path)
    path.write_text(notebook("# VERIFY:L01\nprint('hello')"), "utf-8")
    with pytest.raises(ValueError, match="announced"):
        notebooks.run(notebooks.read(path))
    path.write_text(notebook("# VERIFY:L01\nassert 1 == 2"), "utf-8")
    with pytest.raises(ValueError, match="AssertionError"):
        notebooks.run(notebooks.read(path))
    path.write_text(notebook("# VERIFY:L01\nprint('VERIFY:L01 ok: 1')"), "utf-8")
    assert notebooks.run(notebooks.read(path)) == {"L01": "ok: 1"}
    other = path.rename(tmp_path / "some.ipynb")
    with pytest.raises(ValueError, match="name it"):
        notebooks.read(other)


def held(name: str) -> Any:
    return json.loads((evidence.GENERATED / name).read_text("utf-8"))


def test_every_row_of_the_scorecard_can_be_red() -> None:
    """What was found, damaged in one place at a time: the row that is about it turns red, and so does the whole."""
    good = {**held("proofs.json"), "notebooks": held("notebooks.json")}
    record = evidence.promoted()
    assert evidence.scorecard(good, record)["green"]

    def red(change: Any) -> set[str]:
        found, kept = copy.deepcopy(good), copy.deepcopy(record)
        change(found, kept)
        card = evidence.scorecard(found, kept)
        assert card["green"] is False
        assert commands.problems_of(found, kept)
        return {name for name, row in card["rows"].items() if not row["green"]}

    assert "proofs" in red(lambda f, _: f["lemmas"]["L05_bitsets.smt2"]["queries"][0].update(z3="unknown"))
    assert "proofs" in red(lambda f, _: f["code"]["gates"].update(proved=False))
    assert "anti-vacuity" in red(lambda f, _: f["weakenings"]["C01-draining"].update(breaks=[]))
    assert "anti-vacuity" in red(lambda f, _: f["weakenings"]["K07-checker-subset"].update(breaks=["gates"]))
    assert "notebooks" in red(lambda f, _: f["notebooks"]["verify_control"]["says"].pop("L14"))
    assert "checkers" in red(lambda _, k: k["tests"].remove(evidence.CHECKER_TESTS[1]))
    assert "determinism" in red(lambda _, k: k["determinism"].update(pythons=["3.11"]))
    assert "determinism" in red(lambda _, k: k["determinism"].update(digest=None))
    assert "invariants" in red(lambda _, k: k["tests"].clear())
    assert "freshness" in red(lambda _, k: k["stamps"].update({"tools/checker.py": "0" * 64}))


def test_nothing_red_or_changed_is_promoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {**held("proofs.json"), "notebooks": held("notebooks.json")}
    monkeypatch.setattr(evidence, "LOCAL", tmp_path / "evidence.json")
    monkeypatch.setattr(evidence, "render", lambda *_: {tmp_path / "written": "x"})
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    assert "validate-local" in commands.promote_local()[0]
    stale = evidence.promoted()
    stale["stamps"]["tools/checker.py"] = "0" * 64
    evidence.LOCAL.write_text(json.dumps({"measured": good, "record": stale}))
    assert "not promoted" in commands.promote_local()[-1]
    assert not (tmp_path / "written").exists()
    evidence.LOCAL.write_text(json.dumps({"measured": good, "record": evidence.promoted()}))
    assert commands.promote_local() == []
    assert (tmp_path / "written").read_text() == "x"


def test_a_status_is_computed_and_never_written() -> None:
    path = invariants.FOLDER / "INV-CAIO-01.yaml"
    written = yaml.safe_load(path.read_text("utf-8"))
    with pytest.raises(ValueError, match="computed"):
        invariants.read("INV-CAIO-01", {**written, "status": "proved"})
    one = invariants.read("INV-CAIO-01", written)
    everything = {kind: dict.fromkeys(one.evidence[kind], True) for kind in invariants.KINDS}
    everything["weakened"] = {"L01": True}
    assert invariants.status(one, everything) == "proved"
    for kind in ("smt2", "code", "notebooks", "tests"):
        assert invariants.status(one, {**everything, kind: {}}) == "open"
    assert invariants.status(one, {**everything, "weakened": {"L01": False}}) == "open"
    bare = invariants.read("INV-CAIO-01", {**written, "evidence": {**written["evidence"], "code": []}})
    assert invariants.status(bare, everything) == "lemma"


def test_commands_say_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.status() == []
    assert commands.plan() == []
    said = capsys.readouterr().out
    assert "INV-CAIO-20" in said
    assert "VERIFY:L17" in said
