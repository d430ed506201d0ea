"""The defend function over the sample world: what it answers, and what it refuses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from functions.defend import handler as function
from tests.support import api_fakes
from tests.support.api_fakes import OTHER, caller, request
from tests.support.defense_fakes import sample_defense
from tests.support.ingest_fakes import MemoryMarks, MemoryOutbound

from tocsin import wiring
from tocsin.access.principals import Principal
from tocsin.api import defense
from tocsin.api.ports import DefenseRooms
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Answer, Request
from tocsin.kernel.ids import event_id
from tocsin.routes import EXAMPLE_INCIDENT, EXAMPLE_MITIGATION, EXAMPLE_QUARANTINE, ROUTES, Example, Route
from tocsin.signals import events
from tocsin.signals.intake import Intake

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "events" / "defend").glob("*.json"))
OWN = [route for route in ROUTES if route.function == "defend"]
CALLS = [(route, example) for route in OWN for example in route.examples]


@pytest.fixture
def rooms() -> DefenseRooms:
    return sample_defense()


def send(rooms: DefenseRooms, method: str, path: str, principal: Principal | None = None, **rest: Any) -> Answer:
    return defense.dispatch(request(method, path, **rest), lambda _: principal or caller(), rooms)


def refusal(rooms: DefenseRooms, method: str, path: str, principal: Principal | None = None, **rest: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        send(rooms, method, path, principal, **rest)
    return caught.value


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_event_is_answered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "defense", lambda: sample_defense(("ENABLE_SENTINELRED",)))
    monkeypatch.setattr(wiring, "principal_of", lambda _: caller())
    event = json.loads(path.read_text())
    token = api_fakes.admin_token(event["httpMethod"], event["path"], json.loads(event["body"] or "null"))
    result = function.handler(json.loads(path.read_text().replace("{admin_token}", token)), None)
    assert result["statusCode"] in (200, 201, 202), result["body"]
    assert result["headers"]["X-Trace-Id"] == api_fakes.TRACE or result["headers"]["X-Trace-Id"]
    assert json.loads(result["body"])["meta"]["trace_id"] == result["headers"]["X-Trace-Id"]


def test_there_is_a_sample_for_every_operation_and_a_service() -> None:
    operations = {route.operation_id for route in OWN}
    assert operations == {name for name in operations if any(path.stem.startswith(name) for path in SAMPLES)}
    assert defense.SERVICES.keys() == operations


@pytest.mark.parametrize(("route", "example"), CALLS, ids=lambda value: getattr(value, "operation_id", None))
def test_an_alias_answers_the_same(route: Route, example: Example) -> None:
    def told(path: str) -> Any:
        sent = api_fakes.example_request(route, example, path)
        answer = defense.dispatch(sent, lambda _: caller(), sample_defense((route.flag,)))
        return answer.status, api_fakes.settled(answer.data)

    expected = told(route.path)
    assert expected[0] == example.status
    for alias in route.aliases:
        assert told(alias) == expected


@pytest.mark.parametrize("route", OWN, ids=lambda route: route.operation_id)
def test_a_route_wants_its_scope(route: Route) -> None:
    sent = api_fakes.example_request(route, route.examples[0])
    others = {f"{family}:*" for family in ("admin", "events", "ingest", "journal")}
    with pytest.raises(Refusal) as caught:
        defense.dispatch(sent, lambda _: caller(*others), sample_defense((route.flag,)))
    assert (caught.value.code, caught.value.details[0].rule) == ("ERR_SCOPE", route.scope)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/v1/quarantines/{EXAMPLE_QUARANTINE}"),
        ("DELETE", f"/v1/quarantines/{EXAMPLE_QUARANTINE}"),
        ("GET", f"/v1/mitigations/{EXAMPLE_MITIGATION}"),
        ("GET", f"/v1/mitigations/{EXAMPLE_MITIGATION}/certificate"),
        ("POST", f"/v1/mitigations/{EXAMPLE_MITIGATION}/apply"),
        ("POST", f"/v1/mitigations/{EXAMPLE_MITIGATION}/rollback"),
    ],
)
def test_what_is_another_projects_is_not_there(rooms: DefenseRooms, method: str, path: str) -> None:
    assert refusal(rooms, method, path, caller(project=OTHER)).code == "ERR_NOT_FOUND"
    assert send(rooms, method, path).status == 200


def test_telemetry_needs_the_scope_to_send_and_an_incident_does_not(rooms: DefenseRooms) -> None:
    event = next(route for route in OWN if route.operation_id == "defend").examples[0].body
    without = caller("defend:write")
    assert refusal(rooms, "POST", "/v1/defend", without, body=event).details[0].rule == "ingest:write"
    made = send(rooms, "POST", "/v1/defend", without, body={"incident_id": EXAMPLE_INCIDENT})
    assert made.data["mitigation"]["plan"]["subject"] == {"incident_id": EXAMPLE_INCIDENT}
    assert made.data["telemetry"] is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"incident_id": EXAMPLE_INCIDENT, "id": "e-1"}, "ERR_SCHEMA"),
        ({"incident_id": "inc_1"}, "ERR_SCHEMA"),
        ({"incident_id": EXAMPLE_INCIDENT[:-1] + "f"}, "ERR_NOT_FOUND"),
        ([], "ERR_SCHEMA"),
        ("text", "ERR_SCHEMA"),
    ],
)
def test_what_is_neither_telemetry_nor_an_incident_is_refused(rooms: DefenseRooms, body: Any, code: str) -> None:
    assert refusal(rooms, "POST", "/v1/defend", body=body).code == code


def test_telemetry_that_is_refused_makes_no_plan(rooms: DefenseRooms) -> None:
    answer = send(rooms, "POST", "/v1/defend", body={"id": "e-1", "source": "s"})
    assert (answer.status, answer.error and answer.error["code"]) == (400, "ERR_SCHEMA")
    assert len(send(rooms, "GET", "/v1/mitigations").data["items"]) == 1


def test_what_is_known_and_gone_makes_no_plan(rooms: DefenseRooms) -> None:
    event = next(route for route in OWN if route.operation_id == "defend").examples[0].body
    sent = events.validate(dict(event))
    digest = hashlib.sha256(events.sent_bytes(sent)).digest()[:16].hex()
    marks = MemoryMarks()
    marks.known[event_id(api_fakes.PROJECT, "ids", "ids-981")] = (digest, True)
    known = Intake(MemoryOutbound(), marks=marks, protect=lambda project, one: dict(one), now=lambda: api_fakes.NOW)
    assert refusal(replace(rooms, intake=known), "POST", "/v1/defend", body=event).code == "ERR_NOT_FOUND"


def test_no_key_is_no_entry(rooms: DefenseRooms) -> None:
    def nobody(_: Request) -> Principal:
        raise Refusal("ERR_AUTH_MISSING", "no key")

    for route in OWN:
        if not route.flag:
            with pytest.raises(Refusal, match="no key"):
                defense.dispatch(api_fakes.example_request(route, route.examples[0]), nobody, rooms)
