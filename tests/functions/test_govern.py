"""The govern function: no policy comes into force without the proof of what it changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from functions.govern import handler as function
from tests.support.api_fakes import PROJECT, SAMPLE_POLICY, caller, request, sample_decisions

from tocsin import wiring
from tocsin.api.governing import SERVICES, dispatch
from tocsin.api.ports import DecisionRooms
from tocsin.decisions import analysis
from tocsin.kernel.errors import Refusal, Retry
from tocsin.routes import ROUTES

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "events" / "govern").glob("*.json"))
POLICY: dict[str, Any] = next(route for route in ROUTES if route.operation_id == "publish_policy").examples[0].body


@pytest.fixture
def rooms() -> DecisionRooms:
    return sample_decisions()


def send(rooms: DecisionRooms, path: str, body: Any) -> Any:
    return dispatch(request("POST", path, body=body), lambda _: caller(), rooms)


def in_force(rooms: DecisionRooms) -> int:
    version: int = rooms.decider(PROJECT).registry.current().policy["version"]
    return version


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_event_is_answered(path: Path, rooms: DecisionRooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "decisions", lambda: rooms)
    monkeypatch.setattr(wiring, "principal_of", lambda _: caller())
    result = function.handler(json.loads(path.read_text()), None)
    assert result["statusCode"] in (200, 201), result["body"]


def test_every_operation_of_the_function_has_a_service() -> None:
    assert SERVICES.keys() == {route.operation_id for route in ROUTES if route.function == "govern"}


def test_a_change_is_shown_and_comes_into_force_on_record(rooms: DecisionRooms) -> None:
    shown = send(rooms, "/v1/policies:analyse", POLICY).data
    assert in_force(rooms) == 2
    made = send(rooms, "/v1/policies", POLICY)
    assert made.status == 201
    assert made.data == shown
    assert made.data["newly_allows"] is None
    witness = made.data["newly_forbids"]
    assert "gdpr" in witness["request"]["tags"]
    assert witness["service"]["trust"] <= 49
    assert in_force(rooms) == 3
    pointer: Any = rooms.decider(PROJECT).registry.pointer
    assert [(deed.verb, deed.sort, deed.name) for deed in pointer.deeds] == [("publish", "policy", "v3")]


def test_a_rule_that_can_never_matter_is_refused_and_nothing_changes(rooms: DecisionRooms) -> None:
    twice = {**POLICY, "rules": [*POLICY["rules"], {**POLICY["rules"][1], "id": "again"}]}
    for path in ("/v1/policies", "/v1/policies:analyse"):
        with pytest.raises(Refusal) as caught:
            send(rooms, path, twice)
        assert [one.rule for one in caught.value.details] == ["matters", "matters"]
    assert in_force(rooms) == 2


def test_a_policy_made_from_an_older_one_is_refused(rooms: DecisionRooms) -> None:
    with pytest.raises(Refusal) as caught:
        send(rooms, "/v1/policies", {**SAMPLE_POLICY, "version": 2})
    assert caught.value.code == "ERR_CONFLICT"


def test_what_cannot_be_analysed_is_not_published(rooms: DecisionRooms, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any) -> Any:
        raise Retry("the policy is too hard to analyse in time")

    monkeypatch.setattr(analysis, "change", busy)
    with pytest.raises(Refusal) as caught:
        send(rooms, "/v1/policies", POLICY)
    assert [(one.field, one.rule) for one in caught.value.details] == [("rules", "analysis")]
    assert in_force(rooms) == 2
