"""Routing: the fast engine says what the definition says; every service gets the first reason; order is nothing."""

from __future__ import annotations

import random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms.decisions import samples
from tocsin.decisions import routing
from tocsin.decisions.contracts import Contract
from tocsin.decisions.policies import PROFILES, key, validate
from tocsin.decisions.routing import (
    GATES,
    Engine,
    Health,
    Request,
    Service,
    decide_by_definition,
    first_failure,
    health_of,
    request_of,
    weights_of,
)
from tocsin.decisions.snapshots import EMPTY, Edit, Snapshot, edited
from tocsin.kernel.errors import Refusal

SEEDS = st.integers(0, 2**64)
OPEN = validate(
    {
        "version": 1,
        "rules": [{"id": "all", "effect": "permit", "when": ["value", True]}],
        "profiles": {name: dict(of) for name, of in PROFILES.items()},
    }
)


def world(rnd: random.Random, size: int = 12) -> tuple[Snapshot, Request, Health]:
    held = samples.registry(rnd, rnd.randrange(size))
    snapshot = edited(EMPTY, Edit(put=held, policy=samples.policy(rnd)))
    return snapshot, request_of(samples.request(rnd)), health_of(samples.health(rnd, held))


@settings(max_examples=600, deadline=None)
@given(SEEDS)
def test_the_engine_decides_as_defined(seed: int) -> None:
    rnd = random.Random(seed)
    snapshot, request, health = world(rnd)
    engine = Engine(snapshot)
    for tried in (0, 2, 24):  # limits of all at once, after some, of each
        with patch.object(routing, "_TRIED", tried):
            assert engine.decide(request, health).decision == decide_by_definition(request, snapshot, health)
        request, health = request_of(samples.request(rnd)), health_of(samples.health(rnd, list(snapshot.contracts)))


def test_the_sampler_meets_every_gate_rules_winners_and_none() -> None:
    rnd, seen = random.Random(3), set[str]()
    for _ in range(400):
        snapshot, request, health = world(rnd)
        reasons = [verdict.reason for verdict in Engine(snapshot).explain(request, health)]
        seen |= {reason.partition(":")[0] for reason in reasons}
        seen.add("some" if "winner" in reasons else "none")
    assert seen == {*GATES, "forbid", "permit", "winner", "dominated", "some", "none"}


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_reasons_partition_the_services(seed: int) -> None:
    snapshot, request, health = world(random.Random(seed))
    receipt = Engine(snapshot).decide(request, health)
    found = Engine(snapshot).explain(request, health)
    assert [verdict.service for verdict in found] == [Service(c["name"], c["version"]) for c in snapshot.contracts]
    assert [verdict.service for verdict in found if verdict.reason == "winner"] == (
        [receipt.decision] if receipt.decision else []
    )
    best = min(
        (
            key(c, weights_of(request, snapshot.policy))
            for c in snapshot.contracts
            if admissible(request, c, snapshot, health)
        ),
        default=None,
    )
    assert (best and Service(*best[1:])) == receipt.decision


def admissible(request: Request, contract: Contract, snapshot: Snapshot, health: Health) -> bool:
    return first_failure(request, contract, snapshot.policy, health) is None


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_parts_and_bystanders(seed: int) -> None:
    """The monoid: the decision over a whole is the least over its parts, and losers may come and go."""
    rnd = random.Random(seed)
    snapshot, request, health = world(rnd)
    winner = decide_by_definition(request, snapshot, health)
    cut = rnd.randrange(len(snapshot.contracts) + 1)
    halves = [
        edited(EMPTY, Edit(put=part, policy=snapshot.policy))
        for part in (snapshot.contracts[:cut], snapshot.contracts[cut:])
    ]
    found = [one for half in halves if (one := Engine(half).winner(request, health))]
    least = min((key(one, weights_of(request, snapshot.policy)) for one in found), default=None)
    assert (least and Service(*least[1:])) == winner
    losers = [c for c in snapshot.contracts if Service(c["name"], c["version"]) != winner]
    if losers:
        gone = rnd.choice(losers)
        fewer = edited(snapshot, Edit(drop=[(gone["name"], gone["version"])]))
        assert Engine(fewer).decide(request, health).decision == winner


BASE: dict[str, Any] = {
    "name": "s",
    "version": 1,
    "capabilities": ["mail"],
    "input": {"type": "string"},
    "output": {"type": "object"},
    "scopes": ["a:read"],
    "data_class": {"level": "internal", "tags": ["eu"]},
    "trust": 50,
    "cost_pusd": 100,
    "latency_us": 10,
    "error_ppb": 5,
    "deterministic": True,
    "lease_ms": 1,
    "state": "active",
    "since_ms": 0,
}
ASKED: dict[str, Any] = {
    "principal": "key_a",
    "capabilities": ["mail"],
    "input": {"type": "string", "maxLength": 9},
    "output": {"type": ["object", "null"]},
    "scopes": ["a:read", "b:read"],
    "data_class": {"level": "internal", "tags": ["eu"]},
    "trust": 50,
    "cost_pusd": 100,
    "latency_us": 10,
    "error_ppb": 5,
    "profile": "cheap",
}


def reason(
    contract: dict[str, Any], asked: dict[str, Any], health: Health | None = None, policy: Any = OPEN
) -> str | None:
    snapshot = edited(EMPTY, Edit(put=[{**BASE, **contract}], policy=policy))
    request = request_of({**ASKED, **asked})
    (verdict,) = Engine(snapshot).explain(request, health or Health())
    return verdict.reason


@pytest.mark.parametrize(
    ("contract", "asked", "gate"),
    [
        ({}, {}, "winner"),
        ({"state": "draining"}, {}, "active"),
        ({"capabilities": ["sms"]}, {}, "capabilities"),
        ({}, {"capabilities": ["mail", "sms"]}, "capabilities"),
        ({}, {"input": {"type": ["string", "null"]}}, "input"),
        ({"output": True}, {}, "output"),
        ({"scopes": ["a:read", "c:read"]}, {}, "scopes"),
        ({}, {"data_class": {"level": "confidential", "tags": []}}, "level"),
        ({}, {"data_class": {"level": "public", "tags": ["eu", "pci"]}}, "tags"),
        ({"trust": 49}, {}, "trust"),
        ({"cost_pusd": 101}, {}, "cost"),
        ({"latency_us": 11}, {}, "latency"),
        ({"error_ppb": 6}, {}, "error"),
        # the first of several
        ({"error_ppb": 6, "scopes": ["z:z"], "output": True}, {}, "output"),
    ],
)
def test_each_gate_at_its_edge(contract: dict[str, Any], asked: dict[str, Any], gate: str) -> None:
    assert reason(contract, asked) == gate


def test_health_and_policy_are_gates_too() -> None:
    assert reason({}, {}, Health(1, {"s@1": "breaker"})) == "healthy"
    assert reason({}, {}, Health(1, {"s@2": "breaker"})) == "winner"
    assert reason({}, {}, policy=EMPTY.policy) == "permit"
    forbid = {"id": "no-a", "effect": "forbid", "when": ["eq", ["request", "principal"], ["value", "key_a"]]}
    policy = validate({**OPEN, "rules": [*OPEN["rules"], forbid]})
    assert reason({}, {}, policy=policy) == "forbid:no-a"
    assert reason({}, {"principal": "key_b"}, policy=policy) == "winner"


def test_what_is_remembered_of_a_request_is_not_used_for_another() -> None:
    """One engine, requests that differ in one field at a time, each decided twice in both orders."""
    forbid = {"id": "no-a", "effect": "forbid", "when": ["eq", ["request", "principal"], ["value", "key_a"]]}
    policy = validate({**OPEN, "rules": [*OPEN["rules"], forbid]})
    snapshot = edited(EMPTY, Edit(put=[BASE], policy=policy))
    other = request_of({**ASKED, "principal": "key_b"})
    changes: list[dict[str, Any]] = [
        {"principal": "key_a"},
        {"scopes": []},
        {"data_class": {"level": "restricted", "tags": ["eu"]}},
        {"data_class": {"level": "internal", "tags": ["pci"]}},
        {"input": {"type": "null"}},
        {"output": {"type": "null"}},
        {"trust": 51},
        {"cost_pusd": 99},
        {"latency_us": 9},
        {"error_ppb": 4},
    ]
    for change in changes:
        refused = request_of({**ASKED, "principal": "key_b", **change})
        for first, second in ((other, refused), (refused, other)):
            engine = Engine(snapshot)
            for request in (first, second, first, second):
                assert (engine.decide(request, Health()).decision is None) == (request is refused), change


def test_ties_go_by_name_then_version_and_an_unknown_capability_names_nobody() -> None:
    held = [
        {**BASE, "name": name, "version": version} for name, version in (("b", 1), ("a", 2), ("a", 1), ("B".lower(), 3))
    ]
    snapshot = edited(EMPTY, Edit(put=held, policy=OPEN))
    engine = Engine(snapshot)
    assert engine.decide(request_of(ASKED), Health()).decision == Service("a", 1)
    assert engine.decide(request_of({**ASKED, "capabilities": ["unknown"]}), Health()).decision is None


def test_sums_beyond_two_to_the_53_are_exact() -> None:
    near = 2**53 - 1
    held = [{**BASE, "name": "dear", "cost_pusd": near}, {**BASE, "name": "less-dear", "cost_pusd": near - 1}]
    snapshot = edited(EMPTY, Edit(put=held, policy=OPEN))
    request = request_of({**ASKED, "cost_pusd": near})
    assert Engine(snapshot).decide(request, Health()).decision == Service("less-dear", 1)


def test_the_least_a_caller_must_say() -> None:
    sent = {name: ASKED[name] for name in ("principal", "capabilities", "input", "scopes", "data_class")}
    made = request_of(sent)
    assert made.document["output"] is True
    assert made.digest == request_of({**sent, "profile": "balanced", "scopes": ["b:read", "a:read"]}).digest


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"capabilities": []}, "capabilities", "items"),
        ({"trust": 101}, "trust", "range"),
        ({"principal": "a b"}, "principal", "pattern"),
        ({"input": {"pattern": "x"}}, "input.pattern", "keyword"),
        ({"now": 1}, "now", "unknown-field"),
    ],
)
def test_requests_are_closed(change: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(Refusal) as refused:
        request_of({**ASKED, **change})
    assert [(detail.field, detail.rule) for detail in refused.value.details] == [(field, rule)]


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    with pytest.raises(Refusal) as refused:
        Engine(EMPTY).decide(request_of({**ASKED, "profile": "best"}), Health())
    assert refused.value.details[0].fix == "send one of balanced, cheap, fast, safe"


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"epoch": -1}, "epoch"),
        ({"down": []}, "down"),
        ({"down": {"s": "lease"}}, "down"),
        ({"down": {"s@1": "Because"}}, "down.s@1"),
        ({"attested": {}}, "attested"),
        ({"attested": ["s@1", "s"]}, "attested[1]"),
    ],
)
def test_health_is_closed(sent: Any, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        health_of({"epoch": 1, "down": {}, "attested": []} | sent)
    assert refused.value.details[0].field == field
