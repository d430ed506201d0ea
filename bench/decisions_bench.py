"""Decisions beside what others offer: `make bench-decisions`, in the environment of requirements/bench.txt.

A registry of n services spread over 40 capabilities, and 4,000 different requests. What is measured, one after another
in one process, by processor time, the best of three rounds:

- decisions/s, from parsed requests to the service (`Engine.winner`), with a receipt (`Engine.decide`), and from JSON;
- requests of shapes never seen before, for which nothing is remembered;
- LiteLLM's router (`get_available_deployment`, its default strategy) with n deployments, in 40 groups and in one, and
  ours with n services that all offer the same;
- Cedar (cedarpy), asked by the same rules whether one service is permitted: one of the gates, of one candidate;
- certificates: made, checked by both checkers, in bytes; hot swap: a service registered, the new state decided by.

The decisions differ: LiteLLM's choice is random among the healthy and proves nothing, ours is the least by weight of
those that pass fourteen gates. So the ratio says what a checkable decision costs beside the one that people use.
"""

from __future__ import annotations

import json
import logging
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench import report
from tools import checker

from tocsin.decisions import certificates
from tocsin.decisions.documents import LEVELS
from tocsin.decisions.policies import PROFILES, validate
from tocsin.decisions.routing import Engine, Health, Request, request_of
from tocsin.decisions.snapshots import EMPTY, Edit, Snapshot, edited

ROOT = Path(__file__).resolve().parents[1]
SIZES = (10, 100, 1_000, 10_000)
CAPABILITIES = [f"work.{i}" for i in range(40)]
SCOPES = [f"part{i}:use" for i in range(8)]
TAGS = ("eu", "gdpr", "pci", "phi", "pii")
REQUESTS = 4_000
ROUNDS = 3
#: Seconds that a baseline is asked for; it is much slower.
BASELINE_S = 1.0


def _text(longest: int) -> dict[str, Any]:
    text = {"type": "string", "maxLength": longest}
    return {"type": "object", "properties": {"text": text}, "required": ["text"]}


def _result(names: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}


#: What offers the same takes texts up to some length, and gives some of the same results.
TAKES = [_text(longest) for longest in (1_000, 4_000, 16_000)]
SENDS = [_text(longest) for longest in (500, 2_000, 8_000)]
GIVES = [_result(names) for names in (["result"], ["language", "result"], ["language", "result", "score"])]
WANTS = [_result(names) for names in (["result"], ["language", "result"])]
POLICY = validate(
    {
        "version": 1,
        "profiles": {name: dict(of) for name, of in PROFILES.items()},
        "rules": [
            {"id": "all", "effect": "permit", "when": ["value", True]},
            {
                "id": "gdpr-trust",
                "effect": "forbid",
                "when": [
                    "and",
                    ["in", ["value", "gdpr"], ["request", "tags"]],
                    ["le", ["service", "trust"], ["value", 19]],
                ],
            },
            {
                "id": "dear-guests",
                "effect": "forbid",
                "when": [
                    "and",
                    ["in", ["request", "principal"], ["value", ["key_0", "key_1", "key_2"]]],
                    ["le", ["value", 15_000], ["service", "cost_pusd"]],
                ],
            },
        ],
    }
)


def contract(rnd: random.Random, number: int) -> dict[str, Any]:
    return {
        "name": f"service-{number:05d}",
        "version": rnd.randrange(1, 9),
        "capabilities": sorted(rnd.sample(CAPABILITIES, rnd.randrange(1, 5))),
        "input": rnd.choice(TAKES),
        "output": rnd.choice(GIVES),
        "scopes": sorted(rnd.sample(SCOPES, rnd.choice([0, 1, 1, 2]))),
        "data_class": {"level": rnd.choice(LEVELS), "tags": sorted(tag for tag in TAGS if rnd.random() < 0.6)},
        "trust": rnd.randrange(101),
        "cost_pusd": rnd.randrange(1, 20_000),
        "latency_us": rnd.randrange(1, 5_000),
        "error_ppb": rnd.choice([100, 1_000, 10_000, 50_000]),
        "deterministic": True,
        "lease_ms": 1_000,
        "state": "active" if rnd.random() < 0.95 else "draining",
        "since_ms": 0,
    }


def registry(size: int) -> list[dict[str, Any]]:
    rnd = random.Random(size)
    return [contract(rnd, i) for i in range(size)]


def sent(rnd: random.Random, offered: list[str]) -> dict[str, Any]:
    """A request as a caller sends it, for something that somebody offers."""
    return {
        "principal": f"key_{rnd.randrange(50)}",
        "capabilities": [rnd.choice(offered)],
        "input": rnd.choice(SENDS),
        "output": rnd.choice(WANTS),
        "scopes": sorted(scope for scope in SCOPES if rnd.random() < 0.7),
        "data_class": {"level": rnd.choice(LEVELS[:3]), "tags": rnd.sample(TAGS, int(rnd.random() < 0.4))},
        "trust": rnd.randrange(60),
        "cost_pusd": rnd.randrange(2_000, 20_000),
        "latency_us": rnd.randrange(500, 5_000),
        "error_ppb": rnd.choice([1_000, 10_000, 50_000]),
        "profile": rnd.choice(sorted(PROFILES)),
    }


def per_second(each: Callable[[Any], Any], over: Iterable[Any], rounds: int = ROUNDS) -> float:
    """Calls per second of processor time, the best of some rounds over the same things."""
    things, best = list(over), 0.0
    for _ in range(rounds):
        began = time.process_time()
        for one in things:
            each(one)
        best = max(best, len(things) / (time.process_time() - began))
    return best


def for_a_while(each: Callable[[], Any]) -> float:
    """Calls per second of processor time, for BASELINE_S."""
    calls, began = 0, time.process_time()
    while (took := time.process_time() - began) < BASELINE_S:
        each()
        calls += 1
    return calls / took


def decisions(snapshot: Snapshot, health: Health) -> dict[str, float]:
    rnd = random.Random(7)
    offered = sorted({word for one in snapshot.contracts for word in one["capabilities"]})
    texts = [json.dumps(sent(rnd, offered)) for _ in range(REQUESTS)]
    requests, engine = [request_of(json.loads(text)) for text in texts], Engine(snapshot)
    found = sum(engine.winner(request, health) is not None for request in requests)
    return {
        "winner": per_second(lambda request: engine.winner(request, health), requests),
        "receipt": per_second(lambda request: engine.decide(request, health), requests),
        "from_json": per_second(lambda text: engine.decide(request_of(json.loads(text)), health), texts, 1),
        "unseen": REQUESTS / _first_sight(snapshot, health, texts),
        "found": found / REQUESTS,
    }


def _first_sight(snapshot: Snapshot, health: Health, texts: list[str]) -> float:
    """Seconds for requests whose shapes the engine has not seen; its indexes are made before."""
    engine, fresh = Engine(snapshot), [request_of(json.loads(text)) for text in texts]
    for request in fresh:
        engine.ranking(request)
    began = time.process_time()
    for request in fresh:
        engine.winner(request, health)
    return time.process_time() - began


def litellm(size: int, groups: int) -> float:
    """LiteLLM's choices per second among `size` deployments in `groups` groups."""
    logging.disable(logging.WARNING)
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the network when it is imported
    from litellm import Router

    deployments = [
        {
            "model_name": f"work.{i % groups}",
            "litellm_params": {"model": f"openai/m{i}", "api_key": "unused"},
            "model_info": {"id": str(i)},
        }
        for i in range(size)
    ]
    router, rnd = Router(model_list=deployments), random.Random(7)
    asked = [{"role": "user", "content": "hello"}]
    last = min(groups, size)
    return for_a_while(lambda: router.get_available_deployment(f"work.{rnd.randrange(last)}", messages=asked))


CEDAR = """
permit (principal, action, resource);
forbid (principal, action, resource) when { context.tags.contains("gdpr") && resource.trust <= 19 };
forbid (principal, action, resource)
  when { ["key_0", "key_1", "key_2"].contains(context.principal) && 15000 <= resource.cost };
"""


def cedar(snapshot: Snapshot) -> float:
    """Cedar's answers per second about one service."""
    import cedarpy

    rnd, size = random.Random(7), len(snapshot.contracts)
    entities = [
        {
            "uid": {"type": "Service", "id": str(i)},
            "attrs": {"trust": one["trust"], "cost": one["cost_pusd"]},
            "parents": [],
        }
        for i, one in enumerate(snapshot.contracts[:1])
    ]

    def ask() -> None:
        asked = {
            "principal": 'User::"u"',
            "action": 'Action::"use"',
            "resource": 'Service::"0"',
            "context": {"tags": ["gdpr"], "principal": f"key_{rnd.randrange(size)}"},
        }
        cedarpy.is_authorized(asked, CEDAR, entities)

    return for_a_while(ask)


def _a_winning(engine: Engine, health: Health, snapshot: Snapshot, count: int) -> list[Request]:
    rnd, found = random.Random(11), list[Request]()
    offered = sorted({word for one in snapshot.contracts for word in one["capabilities"]})
    for _ in range(20_000):
        request = request_of(sent(rnd, offered))
        if engine.winner(request, health) is not None:
            found.append(request)
        if len(found) == count:
            break
    return found


def of_certificates(snapshot: Snapshot, health: Health) -> dict[str, dict[str, float]]:
    """Bytes, and ms of making and checking one, by form; the headers are audited beforehand (once per snapshot)."""
    engine = Engine(snapshot)
    requests = _a_winning(engine, health, snapshot, 20)
    made: dict[str, dict[str, float]] = {}
    for form in certificates.FORMS:
        count = len(requests) if form == "short" or len(snapshot.contracts) <= 1_000 else 3
        receipts = [(request, engine.decide(request, health)) for request in requests[:count]]
        began = time.process_time()
        texts = [certificates.derive(receipt, engine, request, health, form) for request, receipt in receipts]
        making = (time.process_time() - began) / count
        world = json.loads(certificates.context(engine, form)), json.loads(certificates.health_document(health))
        began = time.process_time()
        for text in texts:
            checker.verify(*world, text)
        checking = (time.process_time() - began) / count
        made[form] = {
            "bytes": statistics.median(len(text) for text in texts),
            "largest": max(len(text) for text in texts),
            "make_ms": making * 1e3,
            "python_ms": checking * 1e3,
            "node_ms": _by_node(engine, health, form, texts),
        }
    return made


_NODE = """
import { readFileSync } from "node:fs";
const [, checker, snapshot, health, ...files] = process.argv.slice(1);  // the first stands where a program would
const { open, verify } = await import(checker);
const texts = files.map((file) => readFileSync(file, "utf8"));
const header = JSON.parse(readFileSync(snapshot, "utf8"));
const contracts = header.contracts;
delete header.contracts;  // the audit is not what is measured
const canonical = (v) => Array.isArray(v) ? `[${v.map(canonical).join(",")}]` : v && typeof v === "object"
  ? `{${Object.keys(v).sort().map((k) => JSON.stringify(k) + ":" + canonical(v[k])).join(",")}}` : JSON.stringify(v);
const world = open(canonical(header), readFileSync(health, "utf8"));
world.snapshot.contracts = contracts;
const began = process.cpuUsage();
for (const text of texts) verify(world, text);
const used = process.cpuUsage(began);
console.log((used.user + used.system) / 1000 / texts.length);
"""


def _by_node(engine: Engine, health: Health, form: str, texts: list[bytes]) -> float:
    """ms of the other checker for one certificate, in one process."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"snapshot": certificates.context(engine, form), "health": certificates.health_document(health)}
        files |= {f"certificate{i}": text for i, text in enumerate(texts)}
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        paths = [str(Path(folder) / name) for name in files]
        command = ["node", "--input-type=module", "-e", _NODE, ".", str(ROOT / "tools" / "checker.mjs"), *paths]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def hot_swap(snapshot: Snapshot, health: Health) -> float:
    """ms from a new contract to the first decision by the state with it, its name and indexes included."""
    rnd, took = random.Random(13), list[float]()
    for number in range(3):
        new = contract(rnd, 90_000 + number)
        request = request_of(sent(rnd, new["capabilities"]))
        began = time.process_time()
        snapshot = edited(snapshot, Edit(put=[new]))
        Engine(snapshot).decide(request, health)
        took.append(time.process_time() - began)
    return statistics.median(took) * 1e3


def run() -> dict[str, Any]:
    """Print and return every figure."""
    report.title("decisions beside LiteLLM's router and Cedar")
    figures: dict[str, Any] = {}
    for size in SIZES:
        held = registry(size)
        health = Health(1, {f"{one['name']}@{one['version']}": "breaker" for one in held[:: max(10, size // 20)]})
        snapshot = edited(EMPTY, Edit(put=held, policy=POLICY))
        alike = edited(EMPTY, Edit(put=[{**one, "capabilities": CAPABILITIES[:1]} for one in held], policy=POLICY))
        figures[str(size)] = {
            **decisions(snapshot, health),
            "litellm_spread": litellm(size, len(CAPABILITIES)),
            "receipt_one": decisions(alike, health)["receipt"],
            "litellm_one": litellm(size, 1),
            "cedar": cedar(snapshot),
            "certificates": of_certificates(snapshot, health),
            "hot_swap_ms": hot_swap(snapshot, health),
        }
    rows = [(f"{int(size):,}", one) for size, one in figures.items()]
    rates = ("winner", "receipt", "unseen", "from_json", "receipt_one", "litellm_spread", "litellm_one", "cedar")
    report.table(
        ("per second", "winner", "receipt", "new shape", "JSON", "one group", "LiteLLM", "LiteLLM one group", "Cedar"),
        [(size, *(f"{one[name]:,.0f}" for name in rates)) for size, one in rows],
    )
    report.line("")
    report.table(
        ("with receipt, times", "LiteLLM in 40 groups", "in one group", "Cedar", "somebody found", "hot swap ms"),
        [
            (
                size,
                f"{one['receipt'] / one['litellm_spread']:,.0f}",
                f"{one['receipt_one'] / one['litellm_one']:,.0f}",
                f"{one['receipt'] / one['cedar']:,.0f}",
                f"{one['found']:.0%}",
                f"{one['hot_swap_ms']:.1f}",
            )
            for size, one in rows
        ],
    )
    report.line("")
    report.table(
        ("certificate", "bytes p50", "largest", "make ms", "checker.py ms", "checker.mjs ms"),
        [
            (
                f"{form}, {size}",
                f"{of['bytes']:,.0f}",
                f"{of['largest']:,.0f}",
                *(f"{of[name]:.2f}" for name in ("make_ms", "python_ms", "node_ms")),
            )
            for size, one in rows
            for form, of in one["certificates"].items()
        ],
    )
    return figures
