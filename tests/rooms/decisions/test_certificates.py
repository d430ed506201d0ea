"""Certificates: both checkers accept each genuine one and nothing else: no other winner, no changed byte."""

from __future__ import annotations

import ast
import base64
import json
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from tools import checker

from tests.rooms.decisions import samples
from tests.rooms.decisions.test_routing import ASKED, BASE, OPEN
from tocsin.decisions import certificates, merkle
from tocsin.decisions.certificates import FORMS
from tocsin.decisions.policies import key
from tocsin.decisions.routing import Engine, Health, Request, Service, health_of, request_of
from tocsin.decisions.snapshots import EMPTY, Edit, edited
from tocsin.kernel.canonical import canonical_json, digest
from tocsin.kernel.errors import Refusal

ROOT = Path(__file__).resolve().parents[3]
REGISTRIES = 1_000

World = tuple[Engine, Request, Health]
#: Snapshot, health, certificates; bytes.
Case = tuple[bytes, bytes, Sequence[bytes]]


def world(seed: int, size: int = 9) -> World:
    rnd = random.Random(seed)
    held = samples.registry(rnd, rnd.randrange(2, size))
    snapshot = edited(EMPTY, Edit(put=held, policy=samples.policy(rnd)))
    return Engine(snapshot), request_of(samples.request(rnd)), health_of(samples.health(rnd, held))


def genuine(engine: Engine, request: Request, health: Health, form: str) -> bytes:
    return certificates.derive(engine.decide(request, health), engine, request, health, form)


def by_python(cases: Sequence[Case], checker: Any = checker) -> list[list[str | None]]:
    """Digests of the receipts, None for what is refused; each header audited where there are contracts."""
    answers = []
    for snapshot_data, health_data, given in cases:
        try:
            snapshot, health = json.loads(snapshot_data), json.loads(health_data)
            if "contracts" in snapshot:
                checker.audit(snapshot["header"], snapshot["policy"], snapshot["contracts"])
        except (ValueError, LookupError, TypeError, AttributeError):
            answers.append([None for _ in given])
            continue
        answers.append([one_by_python(checker, snapshot, health, data) for data in given])
    return answers


def one_by_python(checker: Any, snapshot: Any, health: Any, data: bytes) -> str | None:
    try:
        return checker.verify(snapshot, health, data)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def by_node(cases: Sequence[Case], checker: Path = ROOT / "tools" / "checker.mjs") -> list[list[str | None]]:
    """The same by the other checker, all in one process."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    lines = [
        json.dumps({"snapshot": text(snapshot), "health": text(health), "certificates": [text(one) for one in given]})
        for snapshot, health, given in cases
    ]
    done = subprocess.run(
        ["node", str(ROOT / "tests/rooms/decisions/batch.mjs"), str(checker)],
        input="\n".join(lines).encode(),
        capture_output=True,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases)
    return answers


def drawn(services: list[int], policy: int, asked: int, sick: int) -> World:
    """A world of seeds, so that equal services, ties and near misses are as common as hypothesis makes equal seeds."""
    held = [samples.contract(random.Random(seed), f"s{i // 2}", 1 + i % 2) for i, seed in enumerate(services)]
    snapshot = edited(EMPTY, Edit(put=held, policy=samples.policy(random.Random(policy))))
    request = request_of(samples.request(random.Random(asked)))
    return Engine(snapshot), request, health_of(samples.health(random.Random(sick), held))


@lru_cache(maxsize=1)
def registries() -> list[World]:
    """Registries drawn by hypothesis, all at once: the other checker judges them in one process."""
    made: list[World] = []
    seed = st.integers(0, 2**32)

    @hypothesis.settings(max_examples=REGISTRIES, deadline=None, database=None, derandomize=True)
    @hypothesis.given(st.builds(drawn, st.lists(seed, min_size=4, max_size=8), seed, seed, seed))
    def collect(one: World) -> None:
        made.append(one)

    collect()
    assert len(made) >= REGISTRIES
    return made


def test_both_checkers_accept_every_genuine_certificate_and_name_its_receipt() -> None:
    cases, expected = [], []
    for engine, request, health in registries():
        receipt = digest(engine.decide(request, health).document()).hex()
        for form in FORMS:
            data = genuine(engine, request, health, form)
            cases.append((certificates.context(engine, form), certificates.health_document(health), [data]))
            expected.append([receipt])
    assert by_python(cases) == expected
    assert by_node(cases) == expected


def forgeries(engine: Engine, request: Request, health: Health) -> Iterator[bytes]:
    """Certificates in which every other service, or none, is presented as the winner, as plausibly as can be."""
    snapshot = engine.snapshot
    receipt, verdicts = engine.decide(request, health), engine.explain(request, health)
    weights = snapshot.policy["profiles"][request.document["profile"]]
    ranking = snapshot.ranking(request.document["capabilities"][0], request.document["profile"])
    leaves = [snapshot.leaves[i] for i in ranking]
    why = {verdict.service: verdict.reason for verdict in verdicts}
    others: list[Service | None] = [one.service for one in verdicts if one.service != receipt.decision]
    excuses = ("healthy", "input", "error", "permit")
    for n, other in enumerate([*others, None] if receipt.decision else others):
        claim = replace(receipt, decision=other).document()
        head = {"v": 1, "receipt": claim, "request": request.document}
        keys = {service: key(contract, weights) for service, contract in zip(why, snapshot.contracts, strict=True)}
        excuse = excuses[n % 4] if n % 2 else "dominated"
        reasons = []
        for service, reason in why.items():
            better = other is not None and keys[service] < keys[other]
            if service == other:
                reasons.append("winner")
            elif service == receipt.decision or (reason == "dominated" and (better or other is None)):
                reasons.append(excuse)
            else:
                reasons.append(reason)
        yield canonical_json({**head, "form": "full", "reasons": reasons})
        shown, words = [], []
        for i in ranking:
            service = Service(snapshot.contracts[i]["name"], snapshot.contracts[i]["version"])
            shown.append(snapshot.contracts[i])
            words.append("winner" if service == other else why[service].replace("winner", excuse))
            if service == other:
                break
        proof = [node.hex() for node in merkle.prefix_proof(leaves, len(shown))]
        short = {**head, "form": "short", "reasons": words, "shown": shown, "rest": proof}
        yield canonical_json(short)
        if other is not None and shown:  # only the forged winner, or all but the true one
            yield canonical_json({**short, "shown": shown[-1:], "reasons": words[-1:]})
            kept = [
                n
                for n, contract in enumerate(shown)
                if Service(contract["name"], contract["version"]) != receipt.decision
            ]
            yield canonical_json({**short, "shown": [shown[n] for n in kept], "reasons": [words[n] for n in kept]})


def misproofs(engine: Engine, request: Request, health: Health) -> Iterator[bytes]:
    """The right reasons with the wrong part of the ranking: less, so that nobody seems to win; more; a spare node."""
    ranking = engine.snapshot.ranking(request.document["capabilities"][0], request.document["profile"])
    leaves = [engine.snapshot.leaves[i] for i in ranking]
    honest = json.loads(genuine(engine, request, health, "short"))
    why = [one.reason for one in engine.explain(request, health)]
    for known in range(len(ranking) + 1):
        if known != len(honest["shown"]):
            proof = [node.hex() for node in merkle.prefix_proof(leaves, known)]
            part = {"shown": [engine.snapshot.contracts[i] for i in ranking[:known]], "rest": proof}
            part["reasons"] = [why[i] for i in ranking[:known]]
            nobody = honest["receipt"] | {"decision": None}
            short_of = known < len(honest["shown"])
            yield canonical_json({**honest, **part, "receipt": nobody if short_of else honest["receipt"]})
    yield canonical_json({**honest, "rest": [*honest["rest"], merkle.EMPTY.hex()]})


def test_no_other_part_of_a_ranking_is_accepted() -> None:
    cases = [
        (
            certificates.context(engine, "short"),
            certificates.health_document(health),
            list(misproofs(engine, request, health)),
        )
        for engine, request, health in registries()[:300]
    ]
    assert by_python(cases) == by_node(cases) == [[None] * len(given) for _, _, given in cases]


def encodings(data: bytes) -> Iterator[bytes]:
    """The same certificate in other bytes."""
    yield data + b"\n"
    yield data.replace(b":", b": ", 1)
    yield json.dumps(json.loads(data)).encode()
    yield data[:-1] + b',"v":1}'
    yield data[:-1] + b".0}" if data.endswith(b"1}") else data.replace(b'"v":1', b'"v":1.0')
    yield data.replace(b'"v":1', b'"v":1e0')
    yield data.replace(b'"form"', b'"f\\u006frm"')
    yield b"\xef\xbb\xbf" + data


def test_no_other_encoding_is_accepted() -> None:
    engine, request, health = small_world()
    cases = [
        (
            certificates.context(engine, form),
            certificates.health_document(health),
            list(encodings(genuine(engine, request, health, form))),
        )
        for form in FORMS
    ]
    assert by_python(cases) == by_node(cases) == [[None] * len(given) for _, _, given in cases]


def test_no_forged_winner_is_ever_accepted() -> None:
    """At least 1,000 registries; in each, every other service and nobody."""
    cases = [
        (
            certificates.context(engine, "full"),
            certificates.health_document(health),
            list(forgeries(engine, request, health)),
        )
        for engine, request, health in registries()
    ]
    forged = sum(len(given) for _, _, given in cases)
    assert forged > 15 * REGISTRIES
    refused = [[None] * len(given) for _, _, given in cases]
    assert by_python(cases) == refused
    assert by_node(cases) == refused


def damaged(data: bytes, rnd: random.Random, before: bytes = b"", after: bytes = b"") -> Iterator[bytes]:
    """Every byte changed in two ways, left out, and doubled; with what stands before and after them."""
    for at, byte in enumerate(data):
        left, right = before + data[:at], data[at + 1 :] + after
        for other in (byte ^ 1, rnd.randrange(256)):
            if other != byte:
                yield left + bytes([other]) + right
        if right[:1] != bytes([byte]):  # leaving out the first of two equal bytes is leaving out the second
            yield left + right
            yield left + bytes([byte, byte]) + right


def test_no_certificate_of_any_registry_may_be_tampered_with() -> None:
    """In each registry a few bytes of the genuine certificates, each changed, left out or doubled."""
    rnd, cases = random.Random(9), []
    for engine, request, health in registries():
        tampered = []
        for form in FORMS:
            data = genuine(engine, request, health, form)
            for at in rnd.sample(range(len(data)), 2):
                tampered += list(damaged(data[at:][:1], rnd, data[:at], data[at + 1 :]))
        cases.append((certificates.context(engine, "full"), certificates.health_document(health), tampered))
    assert sum(len(given) for _, _, given in cases) > 10 * REGISTRIES
    refused = [[None] * len(given) for _, _, given in cases]
    assert by_python(cases) == refused
    assert by_node(cases) == refused


def small_world() -> World:
    """One in which a service wins, one fails a gate, one a rule, and one is dominated."""
    forbid = {"id": "no-b", "effect": "forbid", "when": ["in", ["service", "name"], ["value", ["b"]]]}
    held = [
        {**BASE, "name": "a", "trust": 49},
        {**BASE, "name": "b"},
        {**BASE, "name": "c"},
        {**BASE, "name": "d"},
    ]
    snapshot = edited(EMPTY, Edit(put=held, policy={**OPEN, "rules": [OPEN["rules"][0], forbid]}))
    return Engine(snapshot), request_of(ASKED), Health(3, {"a@2": "lease"})


def test_every_changed_byte_of_a_certificate_is_refused() -> None:
    engine, request, health = small_world()
    reasons = [verdict.reason for verdict in engine.explain(request, health)]
    assert reasons == ["trust", "forbid:no-b", "winner", "dominated"]
    rnd, cases = random.Random(7), []
    for form in FORMS:
        data = genuine(engine, request, health, form)
        context, healthy = certificates.context(engine, form), certificates.health_document(health)
        assert None not in by_python([(context, healthy, [data])])[0]
        cases.append((context, healthy, list(damaged(data, rnd))))
    assert sum(len(given) for _, _, given in cases) > 8_000
    refused = [[None] * len(given) for _, _, given in cases]
    assert by_python(cases) == refused
    assert by_node(cases) == refused


def test_every_changed_byte_of_snapshot_and_health_is_refused() -> None:
    engine, request, health = small_world()
    rnd = random.Random(8)
    data = genuine(engine, request, health, "full")
    context, healthy = certificates.context(engine, "full"), certificates.health_document(health)
    cases: list[Case] = [(one, healthy, [data]) for one in damaged(context, rnd) if rnd.random() < 0.25]
    cases += [(context, one, [data]) for one in damaged(healthy, rnd)]
    assert by_python(cases) == [[None]] * len(cases)
    assert by_node(cases) == [[None]] * len(cases)


def test_a_certificate_of_another_world_is_refused() -> None:
    engine, request, health = small_world()
    later = Engine(edited(engine.snapshot, Edit(drop=[("a", 1)])))
    sick = Health(4, {"c@1": "breaker"})
    for form in FORMS:
        data = genuine(engine, request, health, form)
        cases = [
            (certificates.context(later, form), certificates.health_document(health), [data]),
            (certificates.context(engine, form), certificates.health_document(sick), [data]),
        ]
        assert by_python(cases) == by_node(cases) == [[None], [None]]


def test_a_receipt_is_enough_and_only_its_own_inputs_will_do() -> None:
    engine, request, health = small_world()
    kept = json.loads(json.dumps(engine.decide(request, health).document()))
    receipt = certificates.receipt_of(kept)
    assert certificates.derive(receipt, Engine(engine.snapshot), request_of(ASKED), health, "short") == genuine(
        engine, request, health, "short"
    )
    nobody = replace(receipt, decision=None)
    assert certificates.receipt_of(nobody.document()) == nobody
    for other in (Health(9), health):
        with pytest.raises(Refusal) as refused:
            certificates.derive(receipt if other.epoch == 9 else nobody, engine, request, other, "full")
        assert refused.value.code == "ERR_CONFLICT"
    with pytest.raises(Refusal) as refused:
        certificates.derive(receipt, engine, request, health, "long")
    assert refused.value.code == "ERR_QUERY"


def test_weights_that_need_more_than_53_bits_are_compared_exactly_by_all_three() -> None:
    near = 2**53 - 1
    held = [{**BASE, "name": "a", "cost_pusd": near}, {**BASE, "name": "b", "cost_pusd": near - 1}]
    engine = Engine(edited(EMPTY, Edit(put=held, policy=OPEN)))
    request = request_of({**ASKED, "cost_pusd": near})
    assert engine.decide(request, Health()).decision == Service("b", 1)
    cases = [
        (
            certificates.context(engine, form),
            certificates.health_document(Health()),
            [genuine(engine, request, Health(), form)],
        )
        for form in FORMS
    ]
    assert by_python(cases) == by_node(cases)
    assert None not in by_python(cases)[0]


def test_a_short_certificate_grows_with_what_is_shown_not_with_the_registry() -> None:
    held = [{**BASE, "name": f"s{i}", "cost_pusd": i % 97} for i in range(10_000)]
    engine = Engine(edited(EMPTY, Edit(put=held, policy=OPEN)))
    request = request_of(ASKED)
    data = genuine(engine, request, Health(1, {"s0@1": "breaker"}), "short")
    assert len(json.loads(data)["shown"]) == 2
    assert len(json.loads(data)["rest"]) <= 14
    assert len(data) <= 10_240


def test_the_checkers_run_by_themselves(tmp_path: Path) -> None:
    engine, request, health = small_world()
    files = {
        "snapshot": certificates.context(engine, "full"),
        "health": certificates.health_document(health),
        "good": genuine(engine, request, health, "short"),
        "bad": next(forgeries(engine, request, health)),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    receipt = digest(engine.decide(request, health).document()).hex()
    for command in (["python3", "-I", str(ROOT / "tools/checker.py")], ["node", str(ROOT / "tools/checker.mjs")]):
        good, bad = (
            subprocess.run(
                [*command, "snapshot", "health", name], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            for name in ("good", "bad")
        )
        assert (good.returncode, good.stdout) == (0, f"VERIFIED good: receipt {receipt}\n")
        assert bad.returncode == 1
        assert (bad.stdout + bad.stderr).startswith("NOT VERIFIED")


def test_the_checkers_share_nothing_with_the_service() -> None:
    source = (ROOT / "tools/checker.py").read_text("utf-8")
    assert len(source.splitlines()) < 150
    imported = {
        name
        for node in ast.walk(ast.parse(source))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported == {"hashlib", "json", "sys", "pathlib", "typing"}
    other = (ROOT / "tools/checker.mjs").read_text("utf-8")
    assert set(re.findall(r'from "([^"]+)"', other)) == {"node:crypto", "node:fs", "node:url"}
    assert "require(" not in other
    assert "import(" not in other
