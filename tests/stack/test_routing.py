"""Routing on the deployed stack: services come and go while decisions are made, and every one of them is proved."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.stack.conftest import Deployed, Reply, eventually

from tocsin.aws.decision_store import DynamoPointer, RegistryObjects
from tocsin.decisions import contracts, policies, snapshots
from tocsin.decisions.contracts import identity
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.clock import now_ms
from tocsin.routes import EXAMPLE_DECISION, ROUTES

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
CHECKERS = ([sys.executable, "tools/checker.py"], ["node", "tools/checker.mjs"])
SCOPES = ("contracts:*", "policies:*", "decisions:*", "use:*", "journal:read")
BODIES = {route.operation_id: route.examples[0].body for route in ROUTES}
MAILER: dict[str, Any] = {name: value for name, value in BODIES["register_contract"].items() if name != "endpoint"}
ASKED: dict[str, Any] = BODIES["route"]
POLICY: dict[str, Any] = {**BODIES["publish_policy"], "version": 2, "profiles": dict(policies.PROFILES)}
#: How old the snapshot of a router may be while the pointer can be asked, in ms.
REFRESH = 1_000


@dataclass
class Desk:
    """A project with a policy and services, and what was answered."""

    deployed: Deployed
    project: str
    key: str
    batches: list[tuple[float, list[dict[str, Any]]]] = field(default_factory=list)

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        return self.deployed.call(method, path, body, key=self.key)

    def data(self, method: str, path: str, body: Any = None) -> Any:
        reply = self.call(method, path, body)
        assert reply.status in (200, 201), reply
        return reply.body["data"]

    def move(self, name: str, state: str) -> Reply:
        return self.call("PATCH", f"/v1/contracts/{name}/versions/1", {"state": state})

    def winner(self, **asked: Any) -> str | None:
        decision = self.data("POST", "/v1/route", {**ASKED, **asked, "reasons": False})["decision"]
        return decision and str(decision["name"])


def service(name: str, cost: int, **fields: Any) -> dict[str, Any]:
    return {**MAILER, "name": name, "version": 1, "cost_pusd": cost, "lease_ms": 3_600_000, **fields}


@pytest.fixture(scope="module")
def desk(deployed: Deployed) -> Desk:
    """Ten active services and four that have been draining for long enough to retire, put there in one publication;
    and a policy, published over HTTP.
    """
    for name in ("route", "govern"):  # a first call may take a busy machine longer than a caller waits
        deployed.client("lambda").invoke(FunctionName=f"{deployed.contract['stack']}-{name}", Payload=b"{}")
    project, key = deployed.new_project(*SCOPES)
    pointer = DynamoPointer(deployed.table, project)
    registry = snapshots.Registry(RegistryObjects(deployed.bucket, project), pointer, now_ms)
    now = now_ms()
    long_ago = now - contracts.PUBLISH_MS - registry.staleness_ms - 2_000
    put = []
    for n in range(14):
        draft = contracts.validate(service(f"base-{n:02d}", 500_000_000 + n, lease_ms=1 if n >= 10 else 3_600_000), now)
        put.append({**draft, "state": "active" if n < 10 else "draining", "since_ms": now if n < 10 else long_ago})
    registry.publish(lambda _: snapshots.Edit(put=put))
    made = Desk(deployed, project, key)
    published = made.data("POST", "/v1/policies", POLICY)
    # A project begins with a policy that permits nothing.
    assert published["newly_allows"] is not None
    assert published["newly_forbids"] is None
    return made


def changes(desk: Desk, drained: dict[str, float]) -> Iterator[Callable[[], None]]:
    """Services register, become active, drain; others retire. `drained` is told when a draining was answered."""

    def registered(name: str) -> None:
        assert desk.call("POST", "/v1/contracts", service(name, 1_000)).status == 201

    def activated(name: str) -> None:
        assert desk.move(name, "active").status == 200

    def drain(name: str) -> None:
        assert desk.move(name, "draining").status == 200
        drained[name] = time.time() * 1000
        early = desk.move(name, "retired")
        assert (early.status, early.body["error"]["details"][0]["rule"]) == (409, "drain-time")

    def retired(name: str) -> None:
        assert desk.move(name, "retired").status == 200

    for n in range(5):
        for step, name in ((registered, f"hot-{n}"), (activated, f"hot-{n}"), (drain, f"hot-{n}")):
            yield lambda step=step, name=name: step(name)  # type: ignore[misc]
        if n < 4:
            yield lambda name=f"base-{10 + n}": retired(name)  # type: ignore[misc]


def verified(tmp_path: Path, proofs: Sequence[Mapping[str, Any]]) -> None:
    """Both checkers accept every certificate; those by one snapshot and health are checked by one process."""
    worlds: dict[bytes, list[Mapping[str, Any]]] = {}
    for proof in proofs:
        world = canonical_json([proof["snapshot"], proof["health"]])
        worlds.setdefault(world, []).extend(proof["certificates"])
    commands = []
    for n, (world, made) in enumerate(worlds.items()):
        files = []
        snapshot, health = json.loads(world)
        parts = [
            ("snapshot", snapshot),
            ("health", health),
            *((one["decision_id"], one["certificate"]) for one in made),
        ]
        for name, part in parts:
            files.append(tmp_path / f"{n}-{name}")
            files[-1].write_bytes(canonical_json(part))
        commands += [([*checker, *map(str, files)], len(made)) for checker in CHECKERS]

    def run(command: list[str], count: int) -> None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.count("VERIFIED ")) == (0, count), done.stdout[-300:] + done.stderr

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: run(*one), commands))


def test_services_come_and_go_under_load_and_every_decision_is_proved(desk: Desk, tmp_path: Path) -> None:
    drained: dict[str, float] = {}
    steps, turn = list(changes(desk, drained)), threading.Lock()
    asked = {"requests": [{**ASKED, "trust": n} for n in range(25)], "reasons": False}

    def batch(n: int) -> None:
        with turn:
            if n % 2 and steps:
                steps.pop(0)()
        began = time.time() * 1000
        desk.batches.append((began, desk.data("POST", "/v1/route", asked)["items"]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(batch, range(40)))
    assert not steps
    assert sum(len(items) for _, items in desk.batches) == 1_000

    names = [items[0]["decision_id"].partition("-n")[0] for _, items in desk.batches]
    with ThreadPoolExecutor(4) as pool:
        proofs = list(pool.map(lambda one: desk.data("GET", f"/v1/decisions/{one}/certificate?form=full"), names))
    for (_, items), proof in zip(desk.batches, proofs, strict=True):
        by = {one["decision_id"]: one["certificate"]["receipt"] for one in proof["certificates"]}
        assert by == {one["decision_id"]: one["receipt"] for one in items}
    verified(tmp_path, proofs)

    retired = {f"base-{n}" for n in range(10, 14)}
    for began, items in desk.batches:
        won = {one["decision"]["name"] for one in items}
        assert not won & retired
        past = {name for name, at in drained.items() if began > at + REFRESH}
        assert not won & past, "named a service past the bound"

    # The last change is seen by every router within the bound.
    assert desk.call("POST", "/v1/contracts", service("newest", 1)).status == 201
    assert desk.move("newest", "active").status == 200
    eventually(lambda: desk.winner() == "newest", every_s=0.1)
    assert desk.move("newest", "draining").status == 200
    eventually(lambda: desk.winner() == "base-00", every_s=0.1)


def test_a_short_certificate_is_proved_by_header_and_policy(desk: Desk, tmp_path: Path) -> None:
    made = desk.data("POST", "/v1/route", ASKED)
    assert {one["reason"] for one in made["reasons"]} >= {"active", "dominated", "winner"}
    proof = desk.data("GET", f"/v1/decisions/{made['decision_id']}/certificate")
    assert (proof["form"], "contracts" in proof["snapshot"]) == ("short", False)
    verified(tmp_path, [proof])


def test_nothing_of_a_project_is_seen_or_decided_by_another(desk: Desk) -> None:
    stranger = Desk(desk.deployed, *desk.deployed.new_project(*SCOPES))
    made = desk.data("POST", "/v1/route", ASKED)["decision_id"]
    for rest in ("", "/certificate"):
        assert stranger.call("GET", f"/v1/decisions/{made}{rest}").status == 404
    assert stranger.data("GET", "/v1/contracts")["items"] == []
    assert stranger.winner() is None
    assert stranger.data("GET", "/v1/policies/current")["policy"]["rules"] == []
    assert stranger.call("POST", "/v1/contracts/base-00/versions/1/heartbeat", {}).status == 404


def test_a_token_opens_what_its_key_opens(desk: Desk) -> None:
    key = desk.deployed.new_key(desk.project, "tokens:*", "policies:*")
    bearer = {"Authorization": f"Bearer {desk.deployed.made('/v1/tokens', {}, key)['token']}"}
    assert desk.deployed.call("GET", "/v1/policies/current", **bearer).status == 200
    analysed = desk.deployed.call("POST", "/v1/policies:analyse", {**POLICY, "version": 2}, **bearer)
    assert (analysed.status, analysed.body["data"]["newly_allows"]) == (200, None)
    assert desk.deployed.call("GET", "/v1/contracts", **bearer).status == 403


def test_what_cannot_be_is_refused_by_field_and_rule(desk: Desk) -> None:
    twice = {**POLICY, "version": 9, "rules": [*POLICY["rules"], {**POLICY["rules"][1], "id": "again"}]}
    cases: list[tuple[str, str, Any, int, str]] = [
        ("POST", "/v1/policies", twice, 400, "matters"),
        ("POST", "/v1/policies", {**POLICY, "version": 1}, 409, "greater"),
        ("POST", "/v1/contracts", service("base-00", 1), 409, "greater"),
        ("POST", "/v1/contracts", service("x", 1, endpoint="https://169.254.169.254/"), 400, "host"),
        ("POST", "/v1/contracts", service("x", 1, trust=101), 400, "range"),
        ("PATCH", "/v1/contracts/base-00/versions/1", {"state": "retired"}, 409, "order"),
        ("POST", "/v1/route", {**ASKED, "principal": "key_other"}, 403, "caller"),
        ("POST", "/v1/route", {**ASKED, "profile": "none"}, 400, "enum"),
        ("GET", f"/v1/decisions/{EXAMPLE_DECISION}/certificate?form=long", None, 400, "choice"),
    ]
    for method, path, body, status, rule in cases:
        reply = desk.call(method, path, body)
        assert (reply.status, reply.body["error"]["details"][0]["rule"]) == (status, rule), (path, reply)
    bare = Desk(desk.deployed, desk.project, desk.deployed.new_key(desk.project, "decisions:run"))
    assert bare.call("POST", "/v1/route", ASKED).body["error"]["details"][0]["rule"] == "held"


def test_discovery_names_every_exclusion_and_a_plan_is_proved(desk: Desk, tmp_path: Path) -> None:
    found = desk.data("POST", "/v1/discover", BODIES["discover"])
    listed = {identity(one["contract"]) for one in found["items"]}
    excluded = {(one["name"], one["version"]): one["reason"] for one in found["excluded"]}
    held = {identity(one["contract"]) for one in desk.data("GET", "/v1/contracts?limit=100")["items"]}
    assert listed | excluded.keys() == held
    assert not listed & excluded.keys()
    assert excluded["base-10", 1] == "active"
    planned = desk.data("POST", "/v1/plan", BODIES["plan"])
    assert [step["name"] for step in planned["steps"]] == ["base-00"]
    proof = desk.data("GET", f"/v1/decisions/{planned['decision_id']}/certificate")
    files = [tmp_path / name for name in ("snapshot", "health", "plan")]
    for file, part in zip(
        files, (proof["snapshot"], proof["health"], proof["certificates"][0]["certificate"]), strict=True
    ):
        file.write_bytes(canonical_json(part))
    command = [sys.executable, "tools/plan_checker.py", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Services:
    """Local services on the one private address that may be called: each answers by its path what it is told to."""

    def __init__(self, address: str) -> None:
        self.posts: list[tuple[str, dict[str, str], Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.posts.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                status, answer = outer.answers[self.path]
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("X-Cost-Pusd", "7")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        where = urlsplit(address)
        self.server = ThreadingHTTPServer((str(where.hostname), where.port or 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def services(deployed: Deployed) -> Iterator[Services]:
    made = Services(deployed.contract["receiver"])
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_call_goes_through_the_engine_and_around_who_fails(desk: Desk, services: Services) -> None:
    """The cheaper service fails: its breaker opens, and calls go to the other; what may be spent then ends."""
    latency = {"latency_us": 10_000_000, "error_ppb": 400_000_000, "capabilities": ["fax.send"]}
    base = desk.deployed.contract["receiver"]
    for name, cost in (("fax-cheap", 10), ("fax-sure", 1_000_000_000)):
        made = service(name, cost, endpoint=f"{base}/{name}", **latency)
        assert desk.call("POST", "/v1/contracts", made).status == 201
        assert desk.move(name, "active").status == 200
    services.answers = {"/fax-cheap": (500, {}), "/fax-sure": (200, {"id": "fax-1"})}
    eventually(lambda: desk.winner(capabilities=["fax.send"]) == "fax-cheap", every_s=0.1)

    def call(n: int, **fields: Any) -> Any:
        asked = {"call_id": f"fax-{n}", "request": {**ASKED, "capabilities": ["fax.send"]}, "payload": {"to": "x"}}
        return desk.data("POST", "/v1/invoke", asked | fields)

    def outcomes(made: Any) -> list[tuple[str, str]]:
        return [(one["service"], one["outcome"]) for one in made["attempts"]]

    assert outcomes(call(0)) == [("fax-cheap@1", "budget")], "without a limit only what is free is called"
    assert services.posts == []
    desk.data("PUT", "/v1/spending", {"limit_pusd": 1_000_000_100})
    made = call(1, retries=1)
    assert (made["status"], made["output"]) == ("done", {"id": "fax-1"})
    assert outcomes(made) == [("fax-cheap@1", "failed"), ("fax-sure@1", "kept")]
    assert call(1, retries=1) == {**made, "repeated": True}
    assert [path for path, _, _ in services.posts] == ["/fax-cheap", "/fax-sure"]
    assert {headers["idempotency-key"] for _, headers, _ in services.posts} == {"fax-1"}
    assert desk.call("POST", "/v1/invoke", {"call_id": "fax-1", "request": ASKED, "payload": {"to": "y"}}).status == 422
    for one in made["attempts"]:
        kept = desk.data("GET", f"/v1/decisions/{one['decision_id']}/certificate")
        assert len(kept["certificates"]) == 1

    for n in range(2, 6):
        assert outcomes(call(n)) == [("fax-cheap@1", "failed")]
    down = desk.data("GET", "/v1/contracts/fax-cheap/versions/1")
    eventually(lambda: desk.data("GET", "/v1/contracts/fax-cheap/versions/1")["down"] == "breaker", every_s=0.1)
    assert down["contract"]["state"] == "active"
    eventually(lambda: desk.winner(capabilities=["fax.send"]) == "fax-sure", every_s=0.1)
    spent = desk.data("GET", "/v1/spending")
    assert (spent["held_pusd"], spent["spent_pusd"]) == (0, 7 * 6)
    assert call(6)["service"] == "fax-sure@1"
    desk.data("PUT", "/v1/spending", {"limit_pusd": 50})
    assert outcomes(call(7)) == [("fax-sure@1", "budget")]
    wrong = desk.call("POST", "/v1/invoke", {"request": ASKED, "payload": {"to": 7}})
    assert (wrong.status, wrong.body["error"]["details"][0]["field"]) == (400, "payload")


def test_what_was_done_is_in_the_journal(desk: Desk) -> None:
    tick = json.dumps({"tick": {"at": now_ms()}})
    outputs = desk.deployed.outputs
    desk.deployed.client("sqs").send_message(QueueUrl=outputs["SealQueueUrl"], MessageBody=tick)
    wanted = {f"contract.{word}" for word in ("registered", "activated", "drained", "retired")}
    wanted |= {"policy.published", "decision.made", "health.changed", "call.done", "call.failed", "call.refused"}
    wanted.add("spending.limited")

    def kinds() -> bool:
        found: set[str] = set()
        cursor = ""
        while True:
            reply = desk.call("GET", f"/v1/journal?limit=100{cursor}").body
            found |= {one["entry"]["kind"] for one in reply["data"]["items"]}
            if not reply["meta"]["next_cursor"]:
                return wanted <= found
            cursor = f"&cursor={reply['meta']['next_cursor']}"

    eventually(kinds, within_s=90)
