"""Defense on the deployed stack: what is kept out at every front, plans that act, an attack's way to its proof."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.stack.conftest import Deployed, Reply, eventually
from tests.stack.test_delivery import Receiver, mailbox
from tests.stack.test_journal import Log

from tocsin.kernel import clock

pytestmark = pytest.mark.stack

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
#: What the doors promise, and something for the way there.
FRESH_S = 5 + 5


def event(name: str, source: str = "edge", **fields: Any) -> Json:
    return {"id": name, "source": source, "type": "login.failed", "title": "no", "severity_raw": "info"} | fields


def page(key: str) -> Json:
    """A new trigger as PagerDuty's senders make it; Tocsin's source for it is pagerduty/h."""
    payload = {"summary": f"at {clock.now_ms()}", "source": "h", "severity": "info"}
    return {"routing_key": key, "event_action": "trigger", "payload": payload}


def refused(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.body["error"]["code"]


def kept_out(reply: Reply) -> bool:
    return reply.status == 403 and reply.body["error"]["code"] == "ERR_QUARANTINED"


# --- quarantine


def test_what_is_in_quarantine_is_refused_at_every_front_until_it_is_released(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    suspect = deployed.new_key(project)
    name = f"key_{suspect.removeprefix('tcn_live_')[:12]}"
    deployed.send(key, event("before"))  # every door has read the list by now, and will read it again
    asked: list[Json] = [
        {"kind": "source", "name": "edge", "reason": "sends made-up events", "minutes": 5},
        {"kind": "entity", "name": "bot:b-1", "reason": "a bot", "minutes": 5},
        {"kind": "key", "name": name, "reason": "leaked", "minutes": 5},
    ]
    assert deployed.call("POST", "/v2/enqueue", page(key)).status == 202
    deployed.made("/v1/quarantines", {"kind": "source", "name": "pagerduty/h", "reason": "r", "minutes": 5}, key)
    held = {one["kind"]: deployed.made("/v1/quarantines", one, key) for one in asked}
    assert {one["status"] for one in held.values()} == {"active"}

    # Both fronts refuse the events one by one, and say why; their neighbours pass.
    for n, base in enumerate(("api_url", "bulk_url")):
        path = "/v1/events" if base == "api_url" else ""
        eventually(
            lambda n=n, base=base, path=path: kept_out(
                deployed.call("POST", path, event(f"x-{clock.now_ms()}"), key=key, base=base)
            ),
            within_s=FRESH_S,
        )
        bot = event(f"b-{n}", "other", entity={"type": "bot", "id": "b-1"})
        mixed = deployed.call("POST", path, [event(f"y-{n}"), event(f"z-{n}", "other"), bot], key=key, base=base)
        assert mixed.status == 207, mixed
        assert [one["status"] for one in mixed.body["data"]["items"]] == ["refused", "accepted", "refused"]
        assert "sends made-up events" in mixed.body["data"]["items"][0]["error"]["message"]
        assert held["entity"]["id"] in mixed.body["data"]["items"][2]["error"]["details"][0]["fix"]

    # A sender in another dialect too, in that dialect.
    eventually(lambda: deployed.call("POST", "/v2/enqueue", page(key)).status == 403, within_s=FRESH_S)

    # A key is refused on every route, those that only read included.
    for path in ("/v1/events", "/v1/quarantines"):
        eventually(lambda path=path: kept_out(deployed.call("GET", path, key=suspect)), within_s=FRESH_S)
    assert kept_out(deployed.call("POST", "/v1/events", event("k-1", "other"), key=suspect))

    for kind in ("source", "key"):
        done = deployed.call("DELETE", f"/v1/quarantines/{held[kind]['id']}", key=key)
        assert (done.status, done.body["data"]["status"]) == (200, "released")
    eventually(
        lambda: deployed.call("POST", "/v1/events", event(f"a-{clock.now_ms()}"), key=key).status == 202,
        within_s=FRESH_S,
    )
    eventually(lambda: deployed.call("GET", "/v1/events", key=suspect).status == 200, within_s=FRESH_S)
    standing = {one["name"]: one["status"] for one in deployed.get("/v1/quarantines", key)["items"]}
    assert standing == {"edge": "released", "bot:b-1": "active", name: "released", "pagerduty/h": "active"}


def test_a_quarantine_that_could_not_be_undone_by_its_maker_is_refused(deployed: Deployed) -> None:
    _, key = deployed.new_project()
    own = f"key_{key.removeprefix('tcn_live_')[:12]}"
    reply = deployed.call("POST", "/v1/quarantines", {"kind": "key", "name": own, "reason": "r"}, key=key)
    assert refused(reply) == (400, "ERR_SCHEMA")
    assert reply.body["error"]["details"][0]["rule"] == "own-key"


# --- plans


def checked(deployed: Deployed, key: str, mitigation: Json, folder: Path) -> int:
    """Both independent checkers over every step's certificate in both forms; how many they verified."""
    done = 0
    for step in mitigation["plan"]["steps"]:
        for form in ("full", "short"):
            path = f"/v1/mitigations/{mitigation['id']}/certificate?step={step['n']}&form={form}"
            proof = deployed.get(path, key)
            assert proof["decision_id"] == step["decision_id"]
            files = []
            for name in ("snapshot", "health", "certificate"):
                (folder / name).write_text(proof[name], "utf-8")
                files.append(str(folder / name))
            for checker in ([sys.executable, "tools/checker.py"], ["node", "tools/checker.mjs"]):
                run = subprocess.run([*checker, *files], cwd=ROOT, capture_output=True, text=True, check=False)
                assert run.stdout.startswith("VERIFIED"), run.stdout + run.stderr
                done += 1
            decision = json.loads(proof["certificate"])["receipt"]["decision"]
            assert decision == {"name": step["responder"], "version": step["version"]}
    return done


def statuses(mitigation: Json) -> list[tuple[str, str]]:
    return [(one["responder"], one["status"]) for one in mitigation["plan"]["steps"]]


def test_the_way_of_an_attack_from_an_event_to_its_proof(deployed: Deployed, tmp_path: Path) -> None:
    """Golden path: event, score, incident, mitigation with certificates, quarantine, journal, mail, webhook."""
    project, key = deployed.new_project()
    reader = deployed.new_key(project, "decisions:read")
    receiver = Receiver(deployed.contract["receiver"])
    try:
        hook = f"/{project}"
        mail = f"{project}@example.com"
        url = deployed.contract["receiver"] + hook
        secret = deployed.made("/v1/channels", {"kind": "webhook", "name": "hook", "url": url}, key)["secret"]
        deployed.made("/v1/channels", {"kind": "email", "name": "on call", "to": [mail]}, key)
        mute = {"rules": [{"name": "incidents are told elsewhere", "mute": True, "reason": "this test counts"}]}
        assert deployed.call("PUT", "/v1/routing", mute, key=key).status == 200
        attack = {
            "id": "atk-1",
            "source": "ids",
            "type": "attack.sqli",
            "title": "SQL injection against checkout",
            "entity": {"type": "session", "id": "s-88123"},
            "severity_raw": "critical",
        }
        reply = deployed.call("POST", "/v1/defend", attack, key=key, X_Trace_Id="attack-of-the-golden-path")
        assert reply.status == 201, reply
        assert reply.headers["x-trace-id"] == "attack-of-the-golden-path"
        made = reply.body["data"]["mitigation"]
        assert (made["status"], made["plan"]["playbook"], made["plan"]["risk"]) == ("applied", "intrusion", "low")
        assert statuses(made) == [("quarantine", "applied"), ("page", "applied")]

        # The event went in once, and the score of the plan is that of the stored event; an incident came of it.
        eventually(lambda: deployed.settled(project, 1))
        stored = deployed.get("/v1/events/atk-1", key)
        assert (made["plan"]["risk_score"], made["plan"]["tier"]) == (round(100 * stored["score"]), stored["tier"])
        incident = deployed.get(f"/v1/incidents/{stored['incident_id']}", key)
        assert incident["status"] == "open"

        # The same telemetry meets the same mitigation.
        again = deployed.call("POST", "/defend", attack, key=key)
        assert (again.status, again.body["data"]["mitigation"]["id"]) == (200, made["id"])
        assert again.body["data"]["telemetry"]["duplicates"] == 1
        assert checked(deployed, key, made, tmp_path) == 8

        # The decisions are kept with all others, where they are proved again.
        kept = made["plan"]["steps"][0]["decision_id"]
        reply = deployed.call("GET", f"/v1/decisions/{kept}/certificate?form=short", key=reader)
        assert reply.status == 200, reply
        assert reply.body["data"]["certificates"][0]["certificate"]["receipt"]["decision"]["name"] == "quarantine"

        # The session is kept out.
        (held,) = deployed.get("/v1/quarantines", key)["items"]
        assert (held["kind"], held["name"], held["mitigation_id"]) == ("entity", "session:s-88123", made["id"])
        eventually(
            lambda: kept_out(deployed.call("POST", "/v1/events", attack | {"id": f"atk-{clock.now_ms()}"}, key=key)),
            within_s=FRESH_S,
        )

        # People and systems are told, each once.
        (post,) = eventually(lambda: receiver.at(hook))
        told = post.verified(secret)
        assert (told["type"], told["data"]["mitigation"]["id"]) == ("dev.tocsin.notice", made["id"])
        assert post.status == 204
        eventually(lambda: [one for one in mailbox(deployed) if mail in str(one)])
        records = eventually(
            lambda: (
                (items := deployed.get("/v1/notifications?decision=delivered", key)["items"])
                and len(items) == 2
                and items
            )
        )
        assert all(200 <= one["attempts"][-1]["status"] < 300 for one in records)

        # All of it is in the journal, with proofs that a checker takes that shares no code with the product.
        log = Log(deployed)
        wanted = {"mitigation.planned", "decision.made", "mitigation.applied", "quarantine.opened"}
        log.tick()
        found = eventually(
            lambda: (
                (items := deployed.get("/v1/journal?limit=100", key)["items"])
                and wanted <= {one["entry"]["kind"] for one in items}
                and items
            ),
            within_s=30,
        )
        entry = next(one for one in found if one["entry"]["kind"] == "quarantine.opened")
        assert entry["entry"]["trace_id"] == "attack-of-the-golden-path"
        path = f"/v1/journal/entries/{entry['index']}"
        shown = eventually(lambda: (r := deployed.call("GET", path, key=key)).status == 200 and r)
        (tmp_path / "proof.json").write_text(json.dumps(shown.body))
        checker = [sys.executable, str(ROOT / "tools/journal_checker.py"), "--proof", str(tmp_path / "proof.json")]
        run = subprocess.run([*checker, *map(str, log.pinned)], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr

        # And it can be undone.
        undone = deployed.call("POST", f"/v1/mitigations/{made['id']}/rollback", key=key).body["data"]
        assert (undone["status"], statuses(undone)[0]) == ("rolled_back", ("quarantine", "rolled_back"))
        assert deployed.get("/v1/quarantines", key)["items"][0]["status"] == "released"
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()


def test_a_plan_of_consequence_waits_for_a_second_person(deployed: Deployed) -> None:
    project, key = deployed.new_project("ingest:write", "defend:*", "approvals:*", "events:*", "notify:*")
    second = deployed.new_key(project, "approvals:*", "ingest:write")
    thief = deployed.new_key(project, "events:read")
    name = f"key_{thief.removeprefix('tcn_live_')[:12]}"
    leak = {
        "id": "leak-1",
        "source": "scanner",
        "type": "key.leaked",
        "title": "An API key was found in a public repository, data loss possible",
        "entity": {"type": "key", "id": name},
        "severity_raw": "fatal",
    }
    made = deployed.call("POST", "/v1/defend", leak, key=key).body["data"]["mitigation"]
    assert (made["status"], made["plan"]["playbook"], made["plan"]["approval"]) == ("planned", "key-abuse", True)
    assert deployed.call("GET", "/v1/events", key=thief).status == 200

    path = f"/v1/mitigations/{made['id']}/apply"
    assert refused(deployed.call("POST", path, key=key)) == (403, "ERR_APPROVAL_REQUIRED")
    asked = deployed.made("/v1/approvals", {"request": {"method": "POST", "path": path}}, key)
    assert refused(deployed.call("POST", path, key=key, X_Approval=asked["id"])) == (403, "ERR_APPROVAL_REQUIRED")
    own = deployed.call("POST", f"/v1/approvals/{asked['id']}/approve", {}, key=key)
    assert refused(own) == (403, "ERR_SELF_APPROVAL")
    assert deployed.call("POST", f"/v1/approvals/{asked['id']}/approve", {}, key=second).status == 200
    applied = deployed.call("POST", path, key=key, X_Approval=asked["id"])
    assert applied.status == 200, applied
    assert (applied.body["data"]["status"], applied.body["data"]["approval_id"]) == ("applied", asked["id"])
    assert ("quarantine", "applied") in statuses(applied.body["data"])
    eventually(lambda: kept_out(deployed.call("GET", "/v1/events", key=thief)), within_s=FRESH_S)
    again = deployed.call("POST", path, key=key)
    assert (again.status, again.body["data"]["version"]) == (200, applied.body["data"]["version"])
    assert deployed.call("POST", f"/v1/mitigations/{made['id']}/rollback", key=key).status == 200


# --- probes


@pytest.fixture
def red(deployed: Deployed) -> Iterator[None]:
    """The deployment with its flag on."""
    lambdas, name = deployed.client("lambda"), f"{deployed.contract['stack']}-defend"
    before = lambdas.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    assert before["TOCSIN_ENABLE_SENTINELRED"] == "false", "it is off unless somebody switches it on"
    lambdas.update_function_configuration(
        FunctionName=name, Environment={"Variables": before | {"TOCSIN_ENABLE_SENTINELRED": "true"}}
    )
    try:
        yield
    finally:
        lambdas.update_function_configuration(FunctionName=name, Environment={"Variables": before})


RED = "/v1/sentinelred"
RED_SCOPES = ("defend:*", "ingest:write", "events:*", "notify:*", "tokens:*", "journal:read")


def allowed_once(deployed: Deployed, key: str, body: Json) -> str:
    asked = {"request": {"method": "POST", "path": RED, "body": body}}
    return str(deployed.made("/v1/tokens", asked, key)["token"])


def test_probes_are_off_for_everybody_unless_the_deployment_has_them(deployed: Deployed) -> None:
    _, key = deployed.new_project(*RED_SCOPES)
    off = (403, "ERR_FLAG_OFF")
    assert refused(deployed.call("POST", RED, {})) == off
    assert refused(deployed.call("POST", RED, {}, key=key)) == off
    assert refused(deployed.call("POST", RED, {}, key=key, X_Admin_Token=allowed_once(deployed, key, {}))) == off


def test_probes_need_a_credential_then_a_token_for_this_request_once(deployed: Deployed, red: None) -> None:
    project, key = deployed.new_project(*RED_SCOPES)
    no_token = (403, "ERR_ADMIN_TOKEN")
    assert refused(deployed.call("POST", RED, {})) == (401, "ERR_AUTH_MISSING")
    assert refused(deployed.call("POST", RED, {}, key=key)) == no_token
    other = allowed_once(deployed, key, {"probes": []})
    for wrong in ("x", other, other[:-2] + ("AA" if other[-2:] != "AA" else "BB")):
        assert refused(deployed.call("POST", RED, {}, key=key, X_Admin_Token=wrong)) == no_token, wrong[:20]
    for target in ("http://169.254.169.254/", "https://example.com", deployed.contract["api_url"] + "@example.com"):
        aimed = {"target": target, "probes": ["weak_key"]}
        token = allowed_once(deployed, key, aimed)
        reply = deployed.call("POST", RED, aimed, key=key, X_Admin_Token=token)
        assert refused(reply) == (403, "ERR_TARGET_DENIED"), target

    token = allowed_once(deployed, key, {})
    reply = deployed.call("POST", RED, {}, key=key, X_Admin_Token=token)
    assert reply.status == 200, reply
    report = reply.body["data"]
    assert [one["name"] for one in report["probes"]] == [
        *("weak_key", "replay", "scope_escalation", "oversized_body", "expired_token", "egress_canary"),
    ]
    assert report["held"], report
    assert refused(deployed.call("POST", RED, {}, key=key, X_Admin_Token=token)) == (401, "ERR_AUTH_REPLAY")

    # Every probe is in the journal, and the one event that probing leaves is there once.
    Log(deployed).tick()
    found = eventually(
        lambda: (items := deployed.get("/v1/journal?kind=probe.held", key)["items"]) and len(items) == 6 and items,
        within_s=30,
    )
    assert {one["entry"]["action"] for one in found} == {f"probe:{one['name']}" for one in report["probes"]}
    eventually(lambda: deployed.settled(project, 1))
