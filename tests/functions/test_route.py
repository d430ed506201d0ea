"""The route function: contracts, discovery, decisions, certificates and plans over the sample world."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from functions.route import handler as function
from tests.support.api_fakes import PROJECT, caller, request, sample_contracts, sample_decisions

from tocsin import wiring
from tocsin.access.principals import Principal
from tocsin.api.decisions import SERVICES, dispatch
from tocsin.api.ports import DecisionRooms
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Answer
from tocsin.routes import EXAMPLE_DECISION, ROUTES

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "events" / "route").glob("*.json"))
ASKED: dict[str, Any] = next(route for route in ROUTES if route.operation_id == "route").examples[0].body
MAILER = sample_contracts()[0]


@pytest.fixture
def rooms() -> DecisionRooms:
    return sample_decisions()


def send(rooms: DecisionRooms, method: str, path: str, principal: Principal | None = None, **rest: Any) -> Answer:
    return dispatch(request(method, path, **rest), lambda _: principal or caller(), rooms)


def refused(rooms: DecisionRooms, *call: Any, **rest: Any) -> tuple[str, str]:
    """Code, and the field and rule of the first detail."""
    with pytest.raises(Refusal) as caught:
        send(rooms, *call, **rest)
    first = [f"{one.field} {one.rule}" for one in caught.value.details[:1]]
    return caught.value.code, first[0] if first else ""


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_event_is_answered(path: Path, rooms: DecisionRooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "decisions", lambda: rooms)
    monkeypatch.setattr(wiring, "principal_of", lambda _: caller())
    result = function.handler(json.loads(path.read_text()), None)
    assert result["statusCode"] in (200, 201), result["body"]


def test_every_operation_of_the_function_has_a_service() -> None:
    assert SERVICES.keys() == {route.operation_id for route in ROUTES if route.function == "route"}


def test_deciding_needs_no_z3() -> None:
    program = "import sys, functions.route.handler; sys.exit('z3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": "shared:."}, cwd=ROOT, check=False)
    assert done.returncode == 0


def test_the_cheaper_service_wins_and_every_other_has_its_reason(rooms: DecisionRooms) -> None:
    data = send(rooms, "POST", "/v1/route", body=ASKED).data
    assert data["decision"] == {"name": "cheap-mail", "version": 1}
    assert {one["name"]: one["reason"] for one in data["reasons"]} == {"cheap-mail": "winner", "mailer": "dominated"}
    assert data["guarantees"]["admissible"] == {"value": True, "word": "proved"}
    assert data["guarantees"]["cost_pusd"] == {"value": 90_000_000, "word": "declared"}
    kept = send(rooms, "GET", f"/v1/decisions/{data['decision_id']}").data
    assert kept["receipt"] == data["receipt"]
    assert kept["request"]["principal"] == caller().credential


def test_no_service_is_an_answer_too(rooms: DecisionRooms) -> None:
    data = send(rooms, "POST", "/v1/route", body={**ASKED, "trust": 90}).data
    assert data["decision"] is None
    assert {one["reason"] for one in data["reasons"]} == {"trust"}
    assert data["guarantees"] == {}


def test_several_requests_are_decided_by_one_snapshot_and_proved_together(rooms: DecisionRooms, tmp_path: Path) -> None:
    asked = [ASKED, {**ASKED, "trust": 50}, {**ASKED, "trust": 90}]
    answer = send(rooms, "POST", "/v1/route", body={"requests": asked, "reasons": False})
    names = [one["decision"] and one["decision"]["name"] for one in answer.data["items"]]
    assert names == ["cheap-mail", "mailer", None]
    assert [one["reasons"] for one in answer.data["items"]] == [None] * 3
    batch = answer.data["items"][0]["decision_id"].partition("-n")[0]
    for form in ("short", "full"):
        data = send(rooms, "GET", f"/v1/decisions/{batch}/certificate", query=[("form", form)]).data
        files = []
        parts = [("snapshot", data["snapshot"]), ("health", data["health"])]
        parts += [(one["decision_id"], one["certificate"]) for one in data["certificates"]]
        for name, part in parts:
            files.append(tmp_path / name)
            files[-1].write_bytes(canonical_json(part))
        for checker in ([sys.executable, "tools/checker.py"], ["node", "tools/checker.mjs"]):
            done = subprocess.run([*checker, *files], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.stdout.count("VERIFIED ") == 3, done.stdout + done.stderr
            assert done.returncode == 0


def test_the_certificate_of_one_decision_stands_alone(rooms: DecisionRooms) -> None:
    data = send(rooms, "GET", f"/v1/decisions/{EXAMPLE_DECISION}/certificate").data
    assert data["form"] == "short"
    assert "contracts" not in data["snapshot"]
    assert [one["decision_id"] for one in data["certificates"]] == [EXAMPLE_DECISION]
    call = ("GET", f"/v1/decisions/{EXAMPLE_DECISION[:-1]}f/certificate")
    assert refused(rooms, *call) == ("ERR_NOT_FOUND", "")


def test_nobody_asks_in_anothers_name_or_with_words_they_do_not_hold(rooms: DecisionRooms) -> None:
    call = ("POST", "/v1/route")
    assert refused(rooms, *call, body={**ASKED, "principal": "key_other"}) == ("ERR_SCOPE", "principal caller")
    bare, one = caller("decisions:run"), caller("decisions:run", "use:mail.send")
    assert refused(rooms, *call, bare, body=ASKED) == ("ERR_SCOPE", "scopes held")
    assert send(rooms, *call, one, body=ASKED).data["decision"]
    unsaid = {name: value for name, value in ASKED.items() if name != "scopes"}
    assert send(rooms, *call, one, body=unsaid).data["decision"], "what the key holds is asked with"
    assert {one["reason"] for one in send(rooms, *call, bare, body=unsaid).data["reasons"]} == {"scopes"}
    several = {"requests": [ASKED, {**ASKED, "trust": 101}]}
    assert refused(rooms, *call, body=several) == ("ERR_SCHEMA", "requests[1].trust range")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"requests": []}, "requests items"),
        ({"requests": [1]}, "requests items"),
        ({"requests": [ASKED], "trust": 1}, "trust unknown-field"),
        ({**ASKED, "reasons": 1}, "reasons type"),
        ({**ASKED, "profile": "none"}, "profile enum"),
        ({**ASKED, "colour": "red"}, "colour unknown-field"),
    ],
)
def test_a_request_outside_the_schema_is_refused_by_field(
    rooms: DecisionRooms, body: dict[str, Any], found: str
) -> None:
    assert refused(rooms, "POST", "/v1/route", body=body) == ("ERR_SCHEMA", found)


def test_a_contract_lives_from_draft_to_draining_and_is_on_record(rooms: DecisionRooms) -> None:
    sent = {**MAILER, "version": 2}
    made = send(rooms, "POST", "/v1/contracts", body=sent)
    assert (made.status, made.data["contract"]["state"]) == (201, "draft")
    assert made.headers["Location"] == "/v1/contracts/mailer/versions/2"
    assert send(rooms, "POST", "/v1/contracts", body=sent).data == made.data, "the same again, answered again"
    other = {**sent, "trust": 79}
    assert refused(rooms, "POST", "/v1/contracts", body=other) == ("ERR_CONFLICT", "version greater")
    path = "/v1/contracts/mailer/versions/2"
    assert refused(rooms, "PATCH", path, body={"state": "draining"}) == ("ERR_CONFLICT", "state order")
    for state in ("active", "draining"):
        moved = send(rooms, "PATCH", path, body={"state": state})
        assert send(rooms, "PATCH", path, body={"state": state}).data == moved.data
        assert moved.data["contract"]["state"] == state
    assert moved.data["retire_at"] > "2026-11-20T10:31:30"
    assert refused(rooms, "PATCH", path, body={"state": "retired"}) == ("ERR_CONFLICT", "state drain-time")
    pointer: Any = rooms.decider(PROJECT).registry.pointer
    deeds = [(deed.verb, deed.name) for deed in pointer.deeds]
    assert deeds == [(verb, "mailer-v2") for verb in ("register", "activate", "drain")]


def test_a_further_version_is_of_a_registered_name(rooms: DecisionRooms) -> None:
    body = {**MAILER, "version": 2}
    assert send(rooms, "POST", "/v1/contracts/mailer/versions", body=body).status == 201
    assert refused(rooms, "POST", "/v1/contracts/cheap-mail/versions", body=body) == ("ERR_SCHEMA", "name path")
    other = {**body, "name": "sms"}
    assert refused(rooms, "POST", "/v1/contracts/sms/versions", body=other) == ("ERR_NOT_FOUND", "")
    assert len(send(rooms, "GET", "/v1/contracts/mailer/versions").data["items"]) == 2


def test_an_address_that_may_not_be_called_is_not_registered(rooms: DecisionRooms) -> None:
    body = {**MAILER, "version": 2, "endpoint": "http://10.0.0.1/"}
    assert refused(rooms, "POST", "/v1/contracts", body=body)[0] == "ERR_URL"


def test_a_signature_that_is_not_the_owners_is_refused(rooms: DecisionRooms) -> None:
    body = {**MAILER, "version": 2, "owner": base64.b64encode(b"\x09" * 32).decode(), "signature": "A" * 86 + "=="}
    assert refused(rooms, "POST", "/v1/contracts", body=body) == ("ERR_SIG_INVALID", "signature ed25519")


def test_contracts_are_listed_in_pages_and_filtered(rooms: DecisionRooms) -> None:
    first = send(rooms, "GET", "/v1/contracts", query=[("limit", "1")])
    assert [one["contract"]["name"] for one in first.data["items"]] == ["cheap-mail"]
    assert first.meta is not None
    after = send(rooms, "GET", "/v1/contracts", query=[("limit", "1"), ("cursor", first.meta["next_cursor"])])
    assert [one["contract"]["name"] for one in after.data["items"]] == ["mailer"]
    assert after.meta is not None
    assert after.meta["next_cursor"] is None
    assert send(rooms, "GET", "/v1/contracts", query=[("state", "draft")]).data["items"] == []
    assert send(rooms, "GET", "/v1/contracts", query=[("capability", "sms")]).data["items"] == []


def test_a_service_whose_lease_ran_out_is_down_until_its_owner_calls_in(rooms: DecisionRooms) -> None:
    decider = rooms.decider(PROJECT)
    now = rooms.now() + MAILER["lease_ms"] + 1
    decider.now_ms, later = lambda: now, replace(rooms, now=lambda: now)
    shown = send(later, "GET", "/v1/contracts/mailer/versions/1").data
    assert shown["down"] == "lease"
    assert {one["reason"] for one in send(later, "POST", "/v1/route", body=ASKED).data["reasons"]} == {"healthy"}
    send(later, "POST", "/v1/contracts/mailer/versions/1/heartbeat", body={})
    decider.now_ms = lambda: now + 1_000  # what is known of services may be a second old
    assert send(later, "POST", "/v1/route", body=ASKED).data["decision"] == {"name": "mailer", "version": 1}


def test_discovery_orders_who_can_and_names_why_others_cannot(rooms: DecisionRooms) -> None:
    data = send(rooms, "POST", "/v1/discover", body={"capabilities": ["mail.send"], "profile": "safe"}).data
    assert [one["contract"]["name"] for one in data["items"]] == ["cheap-mail", "mailer"] or data["excluded"]
    typed = {"capabilities": ["mail.send"], "input": {"type": "string"}}
    data = send(rooms, "POST", "/v1/discover", caller("contracts:read", "use:mail.send"), body=typed).data
    assert data["items"] == []
    assert {one["name"]: one["reason"] for one in data["excluded"]} == {"cheap-mail": "input", "mailer": "input"}


def test_a_plan_is_kept_and_proved_like_a_decision(rooms: DecisionRooms) -> None:
    goal = next(route for route in ROUTES if route.operation_id == "plan").examples[0].body
    data = send(rooms, "POST", "/v1/plan", body=goal).data
    assert [step["name"] for step in data["steps"]] == ["cheap-mail"]
    proof = send(rooms, "GET", f"/v1/decisions/{data['decision_id']}/certificate").data
    assert proof["form"] == "full"
    assert proof["certificates"][0]["certificate"]["receipt"] == data["receipt"]


def test_a_contract_goes_out_and_comes_back_as_card_and_entry(rooms: DecisionRooms) -> None:
    path = "/v1/contracts/mailer/versions/1"
    card = send(rooms, "GET", f"{path}/agent-card").data
    entry = send(rooms, "GET", f"{path}/server-entry").data
    for body in ({"agent_card": card}, {"server": entry}):
        fresh = sample_decisions()
        fresh = replace(fresh, decider=sample_decisions().decider)
        assert send(fresh, "POST", "/v1/contracts:import", body=body).data["contract"]["state"] == "active"
        other = caller("contracts:write", project="other")
        assert send(fresh, "POST", "/v1/contracts:import", other, body=body).data["contract"]["name"] == "mailer"
    both = {"agent_card": card, "server": entry}
    assert refused(rooms, "POST", "/v1/contracts:import", body=both)[0] == "ERR_SCHEMA"


def test_policies_are_listed_newest_first(rooms: DecisionRooms) -> None:
    assert [one["policy"]["version"] for one in send(rooms, "GET", "/v1/policies").data["items"]] == [2]
    assert send(rooms, "GET", "/v1/policies/current").data["policy"]["version"] == 2


def test_who_is_turned_away_leaves_evidence(
    rooms: DecisionRooms, monkeypatch: pytest.MonkeyPatch, denials: Any
) -> None:
    monkeypatch.setattr(wiring, "decisions", lambda: rooms)
    monkeypatch.setattr(wiring, "principal_of", lambda _: caller("events:read"))
    result = function.handler(json.loads((SAMPLES[0].parent / "route_mail.json").read_text()), None)
    assert result["statusCode"] == 403
    assert [(code, operation) for code, operation, _ in denials.noted] == [("ERR_SCOPE", "route")]
