"""What the evidence says: measured anew every time, but for tests and other Pythons, which `validate-local` runs.

    measured()   lemmas by both solvers, the code on terms, every weakening, every notebook: seconds
    recorded()   the tests that invariants name, and the determinism digest on every Python there is: a minute
    render()     the generated files, from both

Generated files are a function of the repository and of what was promoted: no times, no machine. So `validate` can make
them again and compare bytes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from tools.mathematics import determinism, invariants, lemmas, notebooks, obligations, weakenings
from tools.mathematics.symbolic import ROOT

GENERATED: Final = ROOT / "configs" / "generated"
PROMOTED: Final = GENERATED / "evidence.json"
#: What validate-local leaves for promote-local.
LOCAL: Final = ROOT / ".local" / "mathematics" / "evidence.json"
CHECKERS: Final = ("tools/checker.mjs", "tools/checker.py")
_CERTIFICATES: Final = "tests/rooms/decisions/test_certificates.py::"
#: What has to pass for a checker to count as evidence.
CHECKER_TESTS: Final = tuple(
    _CERTIFICATES + name
    for name in (
        "test_both_checkers_accept_every_genuine_certificate_and_name_its_receipt",
        "test_no_forged_winner_is_ever_accepted",
        "test_every_changed_byte_of_a_certificate_is_refused",
        "test_the_checkers_share_nothing_with_the_service",
    )
)


def text_of(document: Any) -> str:
    """JSON as generated files hold it."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def stamps() -> dict[str, str]:
    """SHA-256 of everything that states or checks the mathematics. The engine itself is stamped by what it decides."""
    folders = ((lemmas.FOLDER, "*"), (notebooks.FOLDER, "*.ipynb"), (invariants.FOLDER, "INV-*.yaml"))
    files = [path for folder, pattern in folders for path in folder.glob(pattern)]
    files += [ROOT / name for name in CHECKERS]
    return {str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def measured() -> dict[str, Any]:
    """Everything that can be had in seconds. Raises ValueError for a file that breaks its form."""
    found: dict[str, Any] = {"lemmas": {}, "code": {}, "weakenings": {}, "notebooks": {}}
    for lemma in lemmas.every():
        answers = {name: solve(lemma.text) for name, solve in lemmas.SOLVERS.items()}
        queries = [{"expected": query.expected, "says": query.says} for query in lemma.queries]
        found["lemmas"][lemma.file] = {
            "lemma": lemma.name,
            "statement": lemma.statement,
            "code": list(lemma.code),
            "queries": [
                {**query, **{name: given[i] if i < len(given) else "none" for name, given in answers.items()}}
                for i, query in enumerate(queries)
            ],
        }
    holding = obligations.proved()
    for name, one in obligations.OBLIGATIONS.items():
        found["code"][name] = {
            "statement": one.statement,
            "module": one.module,
            "code": list(one.code),
            "lemmas": list(one.lemmas),
            "proved": holding[name],
        }
    for weakening in weakenings.every():
        found["weakenings"][weakening.id] = {
            "of": weakening.file,
            "why": weakening.why,
            "breaks": weakenings.breaks(weakening),
        }
    for notebook in notebooks.every():
        found["notebooks"][notebook.name] = {
            "imports_the_code": notebook.may_import,
            "cells": {cell.id: list(cell.lemmas) for cell in notebook.cells if cell.lemmas},
            "says": notebooks.run(notebook),
        }
    return found


def recorded() -> dict[str, Any]:
    """What the tests that invariants name say, and the digest on every Python that there is."""
    named = sorted({*CHECKER_TESTS, *(test for one in invariants.every() for test in one.evidence["tests"])})
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *named]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        # written by the line above, a moment ago
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []  # noqa: S314
    outcome = dict[str, bool]()
    for case in cases:
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
        outcome[name] = outcome.get(name, True) and not len(case)  # a failure, an error or a skip is an element in it
    found = determinism.digests(determinism.pythons())
    every = {digest for of in found.values() for digest in of.values()}
    return {
        "stamps": stamps(),
        "tests": [name for name in named if outcome.get(name)],
        "determinism": {
            "digest": every.pop() if len(every) == 1 else None,
            "pythons": sorted(found),
            "hash_seeds": list(determinism.SEEDS),
        },
    }


def found_in(now: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, dict[str, bool]]:
    """What holds, by kind of evidence and name."""
    passed = set(record["tests"])
    defined = {
        name: name.partition("::")[2] in invariants.defined_tests(name.partition("::")[0]) for name in sorted(passed)
    }
    broken = [name for one in now["weakenings"].values() for name in one["breaks"]]
    return {
        "smt2": {
            file: all(query["expected"] == query[solver] for query in one["queries"] for solver in lemmas.SOLVERS)
            for file, one in now["lemmas"].items()
        },
        "code": {name: one["proved"] for name, one in now["code"].items()},
        "notebooks": {f"{name}#{lemma}": True for name, one in now["notebooks"].items() for lemma in one["says"]},
        "tests": defined,
        "checkers": {name: all(defined.get(test, False) for test in CHECKER_TESTS) for name in CHECKERS},
        "weakened": {
            one["lemma"]: any(name.startswith(f"{one['lemma']}/") for name in broken) for one in now["lemmas"].values()
        },
    }


def unbroken(now: Mapping[str, Any]) -> list[str]:
    """Proofs, of lemmas and of code, that no weakening breaks: they might be vacuous."""
    proofs = {
        f"{one['lemma']}/{number}"
        for one in now["lemmas"].values()
        for number, query in enumerate(one["queries"], 1)
        if query["expected"] == "unsat"
    }
    return sorted({*proofs, *now["code"]} - {name for one in now["weakenings"].values() for name in one["breaks"]})


def scorecard(now: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Rows, each green or not, with what was counted."""
    found, every = found_in(now, record), invariants.every()
    by_status: dict[str, int] = {}
    for one in every:
        state = invariants.status(one, found)
        by_status[state] = by_status.get(state, 0) + 1
    queries = sum(len(one["queries"]) for one in now["lemmas"].values())
    idle = [name for name, one in now["weakenings"].items() if not one["breaks"]]
    never = unbroken(now)
    names = {one["lemma"] for one in now["lemmas"].values()}
    verified = {lemma for one in now["notebooks"].values() if not one["imports_the_code"] for lemma in one["says"]}
    same = record["determinism"]
    rows = {
        "proofs": (
            all(found["smt2"].values()) and all(found["code"].values()),
            f"{len(found['smt2'])} lemma files, {queries} queries, answered alike by Z3 and cvc5; "
            f"{len(found['code'])} proofs of the code itself",
        ),
        "anti-vacuity": (
            not idle and not never,
            f"{len(now['weakenings'])} weakenings, {len(idle)} of them break nothing; "
            f"{len(never)} proofs are broken by none",
        ),
        "notebooks": (verified == names, f"{len(verified)} of {len(names)} lemmas verified without the code"),
        "checkers": (
            all(found["checkers"].values()),
            f"{len(CHECKERS)} independent checkers accept what is genuine and nothing else",
        ),
        "determinism": (
            same["digest"] is not None
            and len(same["pythons"]) >= determinism.REQUIRED
            and len(same["hash_seeds"]) >= 3,
            f"one digest on Python {', '.join(same['pythons'])}, hash seeds {', '.join(same['hash_seeds'])}",
        ),
        "invariants": (
            "open" not in by_status,
            ", ".join(f"{count} {state}" for state, count in sorted(by_status.items())),
        ),
        "freshness": (
            record["stamps"] == stamps(),
            f"{len(record['stamps'])} files are those that were validated",
        ),
    }
    return {
        "green": all(green for green, _ in rows.values()),
        "rows": {name: {"green": green, "says": says} for name, (green, says) in rows.items()},
        "stamps": stamps(),
    }


_HEAD: Final = "generated by `python -m tools.mathematics`; edit what it is made of instead"


def render(now: Mapping[str, Any], record: Mapping[str, Any]) -> dict[Path, str]:
    """The generated files."""
    found, card = found_in(now, record), scorecard(now, record)
    index = [
        {"id": one.id, "title": one.title, "lemmas": list(one.lemmas), "status": invariants.status(one, found)}
        for one in invariants.every()
    ]
    rows = "".join(
        f"| {name} | {'green' if row['green'] else 'RED'} | {row['says']} |\n" for name, row in card["rows"].items()
    )
    listed = "".join(
        f"| [{one['id']}](../../invariants/{one['id']}.yaml) | {one['title']} | {', '.join(one['lemmas'])} "
        f"| {one['status']} |\n"
        for one in index
    )
    page = (
        f"<!-- {_HEAD} -->\n# Scorecard\n\n**{'Green' if card['green'] else 'RED'}**\n\n"
        f"| row | state | what was found |\n|---|---|---|\n{rows}\n## Invariants\n\n"
        "What the states mean: [guarantees](guarantees.md).\n\n"
        f"| id | invariant | lemmas | status |\n|---|---|---|---|\n{listed}"
    )
    return {
        GENERATED / "proofs.json": text_of({name: now[name] for name in ("lemmas", "code", "weakenings")}),
        GENERATED / "notebooks.json": text_of(now["notebooks"]),
        GENERATED / "scorecard.json": text_of(card),
        PROMOTED: text_of(record),
        invariants.FOLDER / "INDEX.yaml": f"# {_HEAD}\n"
        + yaml.safe_dump({"invariants": index}, sort_keys=False, width=120, allow_unicode=True),
        ROOT / "docs" / "math" / "scorecard.md": page,
    }


def promoted() -> dict[str, Any]:
    """What was promoted last. Raises ValueError when nothing was."""
    if not PROMOTED.exists():
        raise ValueError("nothing was promoted yet: run make validate-local promote-local")
    held: dict[str, Any] = json.loads(PROMOTED.read_text("utf-8"))
    return held


def stale(files: Mapping[Path, str]) -> list[str]:
    """Generated files that are not what they would be made anew."""
    return [
        str(path.relative_to(ROOT))
        for path, text in files.items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
