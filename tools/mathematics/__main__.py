"""The mathematics behind decisions, from the command line.

status           every invariant with its status, from what was promoted (at once)
plan             which notebook cell verifies which lemma, and what is missing
validate         prove, weaken and run everything anew, and compare the generated files (--quiet: only what is wrong)
validate-local   validate, the tests that invariants name, and the digest on every Python there is
promote-local    write the generated files, when validate-local was green and nothing has changed since
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from tools.mathematics import evidence, invariants, lemmas, notebooks
from tools.mathematics.symbolic import ROOT


def status() -> list[str]:
    held = json.loads((evidence.GENERATED / "scorecard.json").read_text("utf-8"))
    for name, row in held["rows"].items():
        print(f"  {'green' if row['green'] else 'RED':6}{name:14}{row['says']}")
    print((invariants.FOLDER / "INDEX.yaml").read_text("utf-8").partition("\n")[2], end="")
    now = evidence.stamps()
    changed = sorted(name for name in {*now, *held["stamps"]} if now.get(name) != held["stamps"].get(name))
    return [f"{name} has changed since it was validated" for name in changed]


def plan() -> list[str]:
    cells: dict[str, list[str]] = {lemma.name: [] for lemma in lemmas.every()}
    independent = set[str]()
    for notebook in notebooks.every():
        for cell in notebook.cells:
            for lemma in cell.lemmas:
                cells.setdefault(lemma, []).append(f"{notebook.name}#{cell.id}")
                independent |= set() if notebook.may_import else {lemma}
    for lemma, where in cells.items():
        print(f"  VERIFY:{lemma}  {', '.join(where) or '-'}")
    return [f"no notebook verifies {lemma} without the code" for lemma in cells if lemma not in independent]


def problems_of(now: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """Whatever keeps the scorecard from being green, in words."""
    found = evidence.found_in(now, record)
    problems = [
        f"{file}: {query['says'] or query['expected']}: expected {query['expected']}, {solver} says {query[solver]}"
        for file, one in now["lemmas"].items()
        for query in one["queries"]
        for solver in lemmas.SOLVERS
        if query[solver] != query["expected"]
    ]
    problems += [
        f"{one['module']}: not proved: {one['statement']}" for one in now["code"].values() if not one["proved"]
    ]
    problems += [f"weakening {name} breaks nothing" for name, one in now["weakenings"].items() if not one["breaks"]]
    problems += [f"no weakening breaks {name}" for name in evidence.unbroken(now)]
    problems += [f"{one.id}: {gap}" for one in invariants.every() for gap in invariants.gaps(one, found)]
    card = evidence.scorecard(now, record)
    problems += [f"scorecard: {name}: {row['says']}" for name, row in card["rows"].items() if not row["green"]]
    return problems


def validate() -> list[str]:
    now, record = evidence.measured(), evidence.promoted()
    old = evidence.stale(evidence.render(now, record))
    problems = problems_of(now, record)
    return problems + [f"{name} is not what it would be made anew: make validate-local promote-local" for name in old]


def validate_local() -> list[str]:
    now, record = evidence.measured(), evidence.recorded()
    evidence.LOCAL.parent.mkdir(parents=True, exist_ok=True)
    evidence.LOCAL.write_text(evidence.text_of({"measured": now, "record": record}))
    for name, row in evidence.scorecard(now, record)["rows"].items():
        print(f"  {'green' if row['green'] else 'RED':6}{name:14}{row['says']}")
    return problems_of(now, record)


def promote_local() -> list[str]:
    if not evidence.LOCAL.exists():
        return ["nothing was validated: run make validate-local first"]
    held = json.loads(evidence.LOCAL.read_text("utf-8"))
    problems = problems_of(held["measured"], held["record"])
    if problems:
        return [*problems, "not promoted: only what is green is"]
    for path, text in evidence.render(held["measured"], held["record"]).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        print(f"  wrote {path.relative_to(ROOT)}")
    return []


COMMANDS = {
    "status": status,
    "plan": plan,
    "validate": validate,
    "validate-local": validate_local,
    "promote-local": promote_local,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--quiet", action="store_true", help="say nothing when all is well")
    options = parser.parse_args()
    try:
        problems = COMMANDS[options.command]()
    except ValueError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"mathematics: {problem}", file=sys.stderr)
    if not problems and not options.quiet and options.command.startswith("validate"):
        print("  all proofs hold, every weakening breaks one, and the generated files are what they would be made anew")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
