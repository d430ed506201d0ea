"""Plans: every playbook's cases, equal bytes for equal inputs, and certificates that strangers accept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.api_fakes import scored
from tests.support.defense_fakes import ALL_WELL
from tocsin.decisions import certificates, contracts, routing
from tocsin.defense import plans
from tocsin.defense.plans import Facts, Planned
from tocsin.kernel.canonical import canonical_json

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "shared/tocsin/defense/playbooks"
CASES = [
    pytest.param(path.name.partition(".")[0], case, id=f"{path.name.partition('.')[0]}: {case['name']}")
    for path in sorted(FOLDER.glob("*.cases.json"))
    for case in json.loads(path.read_text())
]


def facts_of_case(case: dict[str, Any]) -> Facts:
    events = [
        scored(sent["id"], at="2026-11-20T10:20:00Z", **{name: one for name, one in sent.items() if name != "id"})
        for sent in case["telemetry"]
    ]
    return plans.facts_of({"event_ids": sorted(one["event_id"] for one in events)}, events, case.get("tier", ""))


def planned(case: dict[str, Any]) -> Planned:
    return plans.plan(facts_of_case(case), replace(ALL_WELL, **case.get("conditions", {})))


@pytest.mark.parametrize(("book", "case"), CASES)
def test_a_playbook_does_what_its_case_says(book: str, case: dict[str, Any]) -> None:
    made = planned(case).plan
    shown = [
        [
            one["responder"],
            one["target"]["kind"],
            None if one["target"]["kind"] == "incident" else one["target"]["name"],
        ]
        for one in made["steps"]
    ]
    told = {"playbook": made["playbook"], "risk": made["risk"], "steps": shown, "unmet": len(made["unmet"])}
    assert told == case["expect"]
    assert made["approval"] == (made["risk"] == "high")


def test_every_playbook_has_cases_and_every_responder_is_used_by_one() -> None:
    assert {book.name for book in plans.playbooks()} == {str(one.values[0]) for one in CASES}
    used = {step[0] for one in CASES for step in one.values[1]["expect"]["steps"]}  # type: ignore[index]
    assert used == plans.responders().keys()
    for one in CASES:
        assert one.values[1]["expect"]["playbook"] == one.values[0]  # type: ignore[index]


def test_files_say_nothing_unknown() -> None:
    for book in plans.playbooks():
        for step in book.steps:
            assert step.on in plans.TARGETS
            assert step.tier in plans.TIERS
            assert set(step.by) <= {"email", "webhook"}
            offered = {word for one in plans.responders().values() for word in one.contract["capabilities"]}
            assert set(step.needs) <= offered
    for one in plans.responders().values():
        for need in one.needs:
            ALL_WELL.hold(need, "key", "key_ofSomebody0")
        assert set(one.risk.values()) <= {"low", "high"}


@pytest.mark.parametrize(("book", "case"), CASES)
def test_each_step_has_a_certificate_that_both_checkers_take_and_no_other_winner(
    book: str, case: dict[str, Any], tmp_path: Path
) -> None:
    made, engine = planned(case), plans.engine()
    for step, decided, known in zip(made.plan["steps"], made.decided, made.healths, strict=True):
        request, health = routing.Request(decided.request), routing.health_of(known)
        data = certificates.derive(certificates.receipt_of(decided.receipt), engine, request, health, "full")
        files = [tmp_path / name for name in ("snapshot", "health", "certificate")]
        contents = certificates.context(engine, "full"), certificates.health_document(health), data
        for path, content in zip(files, contents, strict=True):
            path.write_bytes(content)
        checkers = ([sys.executable, "tools/checker.py"], ["node", "tools/checker.mjs"])
        for checker in checkers if step["n"] == 0 else checkers[:1]:
            run = subprocess.run([*checker, *map(str, files)], cwd=ROOT, capture_output=True, check=False)
            assert run.returncode == 0, run.stdout
        forged = json.loads(data)
        forged["receipt"]["decision"]["name"] = "watch" if step["responder"] != "watch" else "page"
        files[2].write_bytes(canonical_json(forged))
        run = subprocess.run([*checkers[0], *map(str, files)], cwd=ROOT, capture_output=True, check=False)
        assert run.returncode != 0


def digest_of_all() -> str:
    return "".join(str(canonical_json(planned(one.values[1]).plan)) for one in CASES)  # type: ignore[arg-type]


def test_equal_inputs_give_equal_bytes_in_every_process() -> None:
    program = "from tests.rooms.defense.test_plans import digest_of_all; print(digest_of_all())"
    for seed in ("0", "1", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "shared:."}
        run = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == digest_of_all()


@given(st.permutations(range(6)))
def test_the_order_of_events_does_not_matter(order: list[int]) -> None:
    events = [
        {"event_id": f"evt_{n}", "type": "attack.x", "tier": "high", "score": 0.5 + n / 100}
        | {"entity": {"type": "bot", "id": f"b-{n}"}}
        for n in range(6)
    ]
    one = plans.plan(plans.facts_of({"event_ids": ["a"]}, events), ALL_WELL)
    other = plans.plan(plans.facts_of({"event_ids": ["a"]}, [events[n] for n in order]), ALL_WELL)
    assert one.plan == other.plan
    kept_out = [step["target"]["name"] for step in one.plan["steps"] if step["responder"] == "quarantine"]
    assert kept_out == [f"bot:b-{n}" for n in (5, 4, 3, 2, 1)], "the loudest first, at most five"
    assert [entry["why"] for entry in one.plan["unmet"]] == ["more than 5 of kind entity"]


def test_the_callers_own_key_is_never_the_target_of_what_acts() -> None:
    case = next(one.values[1] for one in CASES if one.values[0] == "key-abuse")
    made = plans.plan(facts_of_case(case), replace(ALL_WELL, own_key="key_ofSomebody0"))  # type: ignore[arg-type]
    assert [step["responder"] for step in made.plan["steps"]] == ["page", "page"]


def test_responders_are_good_contracts() -> None:
    assert [contracts.identity(one) for one in plans.engine().snapshot.contracts] == sorted(
        (name, 1) for name in plans.responders()
    )
