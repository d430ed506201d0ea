"""The keyed routes over the sample world: what they answer, what they refuse, and that refusals change
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from functions.api import handler as function
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.functions.conftest import DenialsFake
from tests.support import api_fakes
from tests.support.api_fakes import FOREIGN_INCIDENT, NOW, OTHER, ApiWorld, caller, request, sample_world

from tocsin import wiring
from tocsin.access.principals import FAMILIES, VERBS, Principal
from tocsin.api import health
from tocsin.api.router import dispatch
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.http import Answer, Request
from tocsin.routes import (
    EXAMPLE_CHANNEL,
    EXAMPLE_EVENT,
    EXAMPLE_INCIDENT,
    EXAMPLE_OTHER_INCIDENT,
    ROUTES,
    Example,
    Route,
)

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "events" / "api").glob("*.json"))
KEYED = [route for route in ROUTES if route.function == "api"]
#: For tests that only read and run often.
SHARED = sample_world()
CALLS = [(route, example) for route in KEYED for example in route.examples]


@pytest.fixture
def world() -> ApiWorld:
    return sample_world()


def send(world: ApiWorld, method: str, path: str, principal: Principal | None = None, **rest: Any) -> Answer:
    return dispatch(request(method, path, **rest), lambda _: principal or caller(), world.rooms)


def refusal(world: ApiWorld, method: str, path: str, principal: Principal | None = None, **rest: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        send(world, method, path, principal, **rest)
    return caught.value


def ids(answer: Answer) -> list[str]:
    return [item.get("event_id") or item["id"] for item in answer.data["items"]]


def picture(world: ApiWorld) -> str:
    """Everything stored, to compare."""
    held = {project: {k: v.to_row() for k, v in found.items()} for project, found in world.store.held.items()}
    return repr((held, world.store.documents, world.bench.world.channels, world.bench.world.documents))


# --- the function itself
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_event_is_answered(path: Path, world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "api", lambda: world.rooms, raising=False)
    monkeypatch.setattr(wiring, "principal_of", lambda _: caller())
    token = api_fakes.admin_token("POST", "/v1/tokens/keys/rotate", {})
    result = function.handler(json.loads(path.read_text().replace("{admin_token}", token)), None)
    assert result["statusCode"] in (200, 201, 202), result["body"]
    assert result["headers"]["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in result["headers"]
    if result["headers"]["Content-Type"].startswith("application/json"):
        assert json.loads(result["body"])["meta"]["trace_id"]


def test_there_is_a_sample_for_every_operation() -> None:
    assert {route.operation_id for route in KEYED} == {
        route.operation_id for route in KEYED if any(path.stem.startswith(route.operation_id) for path in SAMPLES)
    }


def test_a_refusal_has_the_error_shape(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "api", lambda: world.rooms, raising=False)
    monkeypatch.setattr(wiring, "principal_of", lambda _: caller())
    event = json.loads(SAMPLES[0].read_text()) | {"path": "/v1/nothing"}
    result = function.handler(event, None)
    assert result["statusCode"] == 404
    assert json.loads(result["body"])["error"].keys() == {"code", "message", "details", "trace_id"}


# --- every route
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("route", "example"), CALLS, ids=lambda value: getattr(value, "operation_id", None))
def test_an_alias_answers_the_same(route: Route, example: Example) -> None:
    def told(path: str) -> Any:
        answer = dispatch(api_fakes.example_request(route, example, path), lambda _: caller(), sample_world().rooms)
        return answer.status, api_fakes.settled(answer.data), answer.raw

    expected = told(route.path)
    assert expected[0] == example.status
    for alias in route.aliases:
        assert told(alias) == expected


@pytest.mark.parametrize("route", KEYED, ids=lambda route: route.operation_id)
def test_a_route_wants_a_key_and_its_scope_before_it_reads_anything(route: Route, world: ApiWorld) -> None:
    def nobody(_: Request) -> Principal:
        raise Refusal("ERR_AUTH_MISSING", "no key")

    sent = api_fakes.example_request(route, route.examples[0])
    world.store.reads, before = 0, picture(world)
    with pytest.raises(Refusal) as caught:
        dispatch(sent, nobody, world.rooms)
    assert caught.value.code == "ERR_AUTH_MISSING"
    others = {f"{family}:{verb}" for family in FAMILIES for verb in VERBS - {"*"}}
    with pytest.raises(Refusal) as caught:
        dispatch(sent, lambda _: caller(*(others - {str(route.scope)})), world.rooms)
    assert caught.value.code == "ERR_SCOPE"
    assert world.store.reads == 0
    assert picture(world) == before
    # Keys and roles of the examples may send, which nobody grants who may not.
    assert dispatch(sent, lambda _: caller(str(route.scope), "ingest:write"), world.rooms).status in route.success


@pytest.mark.parametrize("route", [route for route in KEYED if route.names], ids=lambda route: route.operation_id)
def test_what_belongs_to_others_is_not_there(route: Route, world: ApiWorld) -> None:
    foreign = {
        "event": world.store.log[OTHER][0]["event_id"],
        "incident": FOREIGN_INCIDENT,
        "channel": EXAMPLE_CHANNEL[:-1] + "f",
        "project": OTHER,
        "key": api_fakes.FOREIGN_KEY,
        "person": api_fakes.FOREIGN_PERSON,
        "approval": api_fakes.FOREIGN_APPROVAL,
        "entry": "1",
    }[str(route.names)]
    unknown = {
        "event": "evt_" + "a" * 26,
        "incident": FOREIGN_INCIDENT[:-1] + "e",
        "channel": EXAMPLE_CHANNEL[:-1] + "e",
        "project": "prj_of_nobody",
        "key": "key_" + "0" * 12,
        "person": api_fakes.FOREIGN_PERSON[:-1] + "e",
        "approval": api_fakes.FOREIGN_APPROVAL[:-1] + "e",
        "entry": "4000",
    }[str(route.names)]
    example = route.examples[0]
    before, told = picture(world), []
    for identity in (foreign, unknown):
        found = refusal(world, route.method, route.path.replace("{id}", identity), body=example.body)
        told.append((found.code, found.status, found.message, tuple(found.details), tuple(found.headers)))
    assert told[0] == told[1], "existence shows"
    assert told[0][0] == "ERR_NOT_FOUND"
    assert picture(world) == before


@pytest.mark.parametrize(
    "identity", ["../../etc", "%2e%2e%2f", "%252e%252e", "%00", "x" * 5000, "a b", "a#b", "é", "%ff", "."]
)
@pytest.mark.parametrize("route", [route for route in KEYED if route.names], ids=lambda route: route.operation_id)
def test_what_is_no_id_is_not_there(route: Route, identity: str, world: ApiWorld) -> None:
    found = refusal(world, route.method, route.path.replace("{id}", identity), body=route.examples[0].body)
    assert (found.status, found.code) == (404, "ERR_NOT_FOUND")


# --- paths and methods
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/v1",
        "/v1/",
        "/v2/events",
        "/v1/events/",
        "//v1/events",
        "/v1/incidents/a/b/c",
        "/V1/events",
        "/readyz/x",
    ],
)
def test_an_unknown_path_is_not_found_with_or_without_key(path: str, world: ApiWorld) -> None:
    assert refusal(world, "GET", path).code == "ERR_NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/v1/events", "GET, OPTIONS, POST"),
        ("POST", "/v1/incidents", "GET, OPTIONS"),
        ("PUT", "/v1/incidents/x", "GET, OPTIONS, PATCH"),
        ("GET", "/v1/incidents/x/merge", "OPTIONS, POST"),
        ("HEAD", "/v1/topology", "GET, OPTIONS, PUT"),
        ("TRACE", "/v1/channels/x", "DELETE, GET, OPTIONS, PATCH"),
    ],
)
def test_a_known_path_names_the_methods_it_takes(method: str, path: str, allow: str, world: ApiWorld) -> None:
    found = refusal(world, method, path)
    assert (found.status, found.code, found.headers["Allow"]) == (405, "ERR_METHOD", allow)


def test_a_method_override_header_overrides_nothing(world: ApiWorld) -> None:
    sent = {"X-HTTP-Method-Override": "DELETE"}
    assert send(world, "GET", f"/v1/channels/{EXAMPLE_CHANNEL}", headers=sent).status == 200
    assert world.rooms.channels.get("demo", EXAMPLE_CHANNEL)


def test_a_sending_route_is_not_answered_here(world: ApiWorld) -> None:
    assert refusal(world, "POST", "/v1/events", body={"id": "x"}).code == "ERR_NOT_FOUND"


# --- origins
# ---------------------------------------------------------------------------------------------------------


def test_options_is_answered_without_a_key_and_without_cors(world: ApiWorld) -> None:
    answer = send(world, "OPTIONS", "/v1/incidents/x")
    assert (answer.status, answer.headers) == (204, {"Allow": "GET, OPTIONS, PATCH"})


@pytest.mark.parametrize("method", ["OPTIONS", "GET"])
def test_the_configured_origin_is_allowed(method: str, world: ApiWorld) -> None:
    rooms = world.with_origin("https://console.example")
    sent = request(method, "/v1/incidents", headers={"Origin": "https://console.example"})
    answer = dispatch(sent, lambda _: caller(), rooms)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://console.example"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert answer.headers["Vary"] == "Origin"


def test_a_refusal_can_be_read_by_the_configured_origin(world: ApiWorld) -> None:
    sent = request("GET", "/v1/incidents", query=[("x", "1")], headers={"Origin": "https://console.example"})
    with pytest.raises(Refusal) as caught:
        dispatch(sent, lambda _: caller(), world.with_origin("https://console.example"))
    assert caught.value.headers["Access-Control-Allow-Origin"] == "https://console.example"


@pytest.mark.parametrize("configured", [None, "https://console.example"])
@pytest.mark.parametrize("origin", ["null", "https://evil.example", "https://console.example.evil.example", "*", ""])
@pytest.mark.parametrize("method", ["OPTIONS", "GET"])
def test_any_other_origin_is_refused(method: str, origin: str, configured: str | None, world: ApiWorld) -> None:
    rooms = world.with_origin(configured) if configured else world.rooms
    with pytest.raises(Refusal) as caught:
        dispatch(request(method, "/v1/incidents", headers={"Origin": origin}), lambda _: caller(), rooms)
    assert caught.value.status == 403
    assert not any(name.startswith("Access-Control") for name in caught.value.headers)


def test_our_own_pages_may_call_us(world: ApiWorld) -> None:
    sent = request("GET", "/v1/incidents", headers={"Origin": "https://api.example", "Host": "api.example"})
    assert dispatch(sent, lambda _: caller(), world.rooms).status == 200


# --- queries
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ([("nope", "1")], "nope"),
        ([("limit", "0")], "limit"),
        ([("limit", "101")], "limit"),
        ([("limit", "1e1")], "limit"),
        ([("limit", "٣")], "limit"),
        ([("limit", "-1")], "limit"),
        ([("limit", "5"), ("limit", "6")], "limit"),
        ([("from", "yesterday")], "from"),
        ([("from", "2026-11-20")], "from"),
        ([("from", "2026-11-20T00:00:00 00:00")], "from"),
        ([("from", "2026-11-20T10:00:00Z"), ("to", "2026-11-20T10:00:00Z")], "to"),
        ([("tier", "HIGH")], "tier"),
        ([("status", "open")], "status"),
        ([("tag", "env")], "tag"),
        ([("tag", ":prod")], "tag"),
        ([("tag", "env:")], "tag"),
        ([("tag", f"a:{i}") for i in range(11)], "tag"),
        ([("source", "")], "source"),
        ([("source", "x" * 257)], "source"),
        ([("source", "a\x00b")], "source"),
        ([("source", "a\u202eb")], "source"),
        ([("q", "a\nb")], "q"),
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(query: Sequence[tuple[str, str]], field: str, world: ApiWorld) -> None:
    found = refusal(world, "GET", "/v1/events", query=query)
    assert (found.status, found.code) == (400, "ERR_QUERY")
    assert [detail.field for detail in found.details] == [field]
    assert found.details[0].fix


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.lists(st.text(max_size=20), max_size=3), max_size=3))
def test_no_query_does_worse_than_being_refused(query: Mapping[str, list[str]]) -> None:
    pairs = [(name, value) for name, values in query.items() for value in values]
    found: Refusal | None = None
    try:
        assert send(SHARED, "GET", "/v1/events", query=pairs).status == 200
    except Refusal as refused:
        found = refused
    if found is not None:
        assert found.code in ("ERR_QUERY", "ERR_CURSOR")
        assert all(len(detail.field) <= 64 and detail.field.isascii() for detail in found.details)


@pytest.mark.parametrize("trick", ["#n", ":v", "OR 1=1", "x' OR '1'='1", "attribute_exists(pk)", "demo#E#"])
def test_words_of_a_query_language_are_only_words(trick: str, world: ApiWorld) -> None:
    assert ids(send(world, "GET", "/v1/events", query=[("source", trick)])) == []
    assert ids(send(world, "GET", "/v1/events", query=[("q", trick)])) == []


@pytest.mark.parametrize(
    ("query", "senders"),
    [
        ([], ["deploy-9", "pay-4712", "pay-4712", "pay-4711", "db-1"]),
        ([("source", "checkout")], ["pay-4712", "pay-4711"]),
        ([("entity", "service:ledger-db")], ["db-1"]),
        ([("entity", "ledger-db")], ["db-1"]),
        ([("type", "deploy.finished")], ["deploy-9"]),
        ([("tag", "env:prod")], ["pay-4712", "pay-4712", "pay-4711"]),
        ([("tag", "env:prod"), ("tag", "env:test")], []),
        ([("from", "2026-11-20T10:21:00Z"), ("to", "2026-11-20T10:25:00Z")], ["pay-4712", "pay-4712"]),
        ([("from", "2026-11-20T11:21:00.000+01:00"), ("to", "2026-11-20T10:22:00Z")], ["pay-4712"]),
        ([("tier", "critical")], ["pay-4712"]),
        ([("status", "resolved")], []),
        ([("q", "PAY lat")], ["pay-4711"]),
        ([("q", "latency payment")], ["pay-4711"]),
        ([("q", "db")], ["db-1"]),
        ([("q", "ayment")], []),
    ],
)
def test_filters_narrow_events(query: Sequence[tuple[str, str]], senders: list[str], world: ApiWorld) -> None:
    answer = send(world, "GET", "/v1/events", query=query)
    assert [event["id"] for event in answer.data["items"]] == senders


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ([], [EXAMPLE_INCIDENT, EXAMPLE_OTHER_INCIDENT]),
        ([("source", "ci")], []),
        ([("source", "checkout")], [EXAMPLE_INCIDENT]),
        ([("entity", "service:ledger-db")], [EXAMPLE_OTHER_INCIDENT]),
        ([("entity", "ledger-db")], [EXAMPLE_OTHER_INCIDENT]),
        ([("service", "payments")], [EXAMPLE_INCIDENT]),
        ([("status", "acknowledged")], []),
        ([("tier", "critical")], [EXAMPLE_INCIDENT]),
        ([("q", "out of conn")], [EXAMPLE_OTHER_INCIDENT]),
        ([("to", "2026-11-20T10:20:00Z")], [EXAMPLE_OTHER_INCIDENT]),
    ],
)
def test_filters_narrow_incidents(query: Sequence[tuple[str, str]], found: list[str], world: ApiWorld) -> None:
    assert ids(send(world, "GET", "/v1/incidents", query=query)) == found


# --- pages and cursors
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/events", "/v1/incidents", "/v1/healings"])
def test_pages_turn_to_the_end_without_gap_or_repeat(path: str, world: ApiWorld) -> None:
    everything = ids(send(world, "GET", path))
    turned: list[str] = []
    query: list[tuple[str, str]] = [("limit", "1")]
    for _ in range(len(everything)):
        answer = send(world, "GET", path, query=query)
        assert answer.meta is not None
        turned += ids(answer)
        query = [("limit", "1"), ("cursor", answer.meta["next_cursor"])]
    assert turned == everything
    assert len(everything) > 1
    assert answer.meta["next_cursor"] is None


def test_members_are_paged(world: ApiWorld) -> None:
    path = f"/v1/incidents/{EXAMPLE_INCIDENT}"
    first = send(world, "GET", path, query=[("limit", "2")])
    assert first.meta is not None
    second = send(world, "GET", path, query=[("limit", "2"), ("cursor", first.meta["next_cursor"])])
    members = [one["event_id"] for answer in (first, second) for one in answer.data["members"]]
    assert members == world.store.joined[EXAMPLE_INCIDENT]
    other = f"/v1/incidents/{EXAMPLE_OTHER_INCIDENT}"
    assert refusal(world, "GET", other, query=[("cursor", first.meta["next_cursor"])]).code == "ERR_CURSOR"


def test_a_cursor_fits_its_own_query_and_project_only(world: ApiWorld) -> None:
    answer = send(world, "GET", "/v1/events", query=[("limit", "1"), ("tag", "env:prod")])
    assert answer.meta is not None
    cursor = answer.meta["next_cursor"]
    assert (
        send(world, "GET", "/v1/events", query=[("limit", "3"), ("tag", "env:prod"), ("cursor", cursor)]).status == 200
    )
    assert send(world, "GET", "/events", query=[("tag", "env:prod"), ("cursor", cursor)]).status == 200
    world.store.reads = 0
    cases: list[tuple[str, list[tuple[str, str]], Principal]] = [
        ("/v1/events", [("cursor", cursor)], caller()),
        ("/v1/events", [("tag", "env:test"), ("cursor", cursor)], caller()),
        ("/v1/incidents", [("cursor", cursor)], caller()),
        ("/v1/events", [("tag", "env:prod"), ("cursor", cursor)], caller(project=OTHER)),
        ("/v1/events", [("tag", "env:prod"), ("cursor", cursor[:-1])], caller()),
        ("/v1/events", [("tag", "env:prod"), ("cursor", "")], caller()),
        ("/v1/events", [("tag", "env:prod"), ("cursor", "c1." + "x" * 10_240)], caller()),
    ]
    for path, query, principal in cases:
        assert refusal(world, "GET", path, principal, query=query).code == "ERR_CURSOR"
    assert world.store.reads == 0


# --- events
# ----------------------------------------------------------------------------------------------------------


def test_an_id_of_several_sources_is_ambiguous_until_one_is_named(world: ApiWorld) -> None:
    found = refusal(world, "GET", "/v1/events/pay-4712")
    assert (found.status, found.code) == (409, "ERR_AMBIGUOUS")
    assert "checkout, prometheus" in found.details[0].fix
    answer = send(world, "GET", "/v1/events/pay-4712", query=[("source", "prometheus")])
    assert (answer.data["id"], answer.data["source"]) == ("pay-4712", "prometheus")
    assert refusal(world, "GET", "/v1/events/pay-4712", query=[("source", "nobody")]).code == "ERR_NOT_FOUND"
    assert refusal(world, "GET", "/v1/events/pay-4712/explain").code == "ERR_AMBIGUOUS"


def test_a_server_id_with_the_wrong_source_is_not_found(world: ApiWorld) -> None:
    assert refusal(world, "GET", f"/v1/events/{EXAMPLE_EVENT}", query=[("source", "ci")]).code == "ERR_NOT_FOUND"


def test_percent_encoding_of_an_id_is_undone_once(world: ApiWorld) -> None:
    assert send(world, "GET", "/v1/events/pay%2D4711").data["event_id"] == EXAMPLE_EVENT


def test_contributions_of_an_explanation_add_up(world: ApiWorld) -> None:
    told = send(world, "GET", f"/v1/events/{EXAMPLE_EVENT}/explain").data
    assert told["bias"] + sum(one["micro_logits"] for one in told["contributions"]) == told["logit"]
    assert told["contributions"]
    assert told["incident_id"] == EXAMPLE_INCIDENT


# --- incidents
# -------------------------------------------------------------------------------------------------------

INCIDENT = f"/v1/incidents/{EXAMPLE_INCIDENT}"


def test_an_incident_tells_members_reasons_and_timeline(world: ApiWorld) -> None:
    answer = send(world, "GET", INCIDENT)
    assert answer.headers["ETag"] == '"1"'
    assert [one["text"] for one in answer.data["reasons"]] == ["same service payments"]
    assert answer.data["timeline"][0] | {"text": ""} == {
        "pos": 0, "at": clock.rfc3339(NOW - 9 * 60_000), "kind": "opened", "by": "tocsin", "text": "",
    }  # fmt: skip
    assert answer.data["root"]["service"] == "payments"
    assert answer.data["event_count"] == len(answer.data["members"]) == 3


def test_what_a_person_does_is_on_record(world: ApiWorld) -> None:
    send(world, "PATCH", INCIDENT, body={"status": "acknowledged"})
    body = {"status": "resolved", "verdict": "useful", "note": "Pool was\ntoo small."}
    answer = send(world, "PATCH", INCIDENT, body=body)
    assert (answer.data["status"], answer.data["verdict"]["value"]) == ("resolved", "useful")
    timeline = send(world, "GET", INCIDENT).data["timeline"]
    assert [one["kind"] for one in timeline] == ["opened", "acknowledged", "resolved", "verdict", "note"]
    assert {one["by"] for one in timeline[1:]} == {caller().key_id}
    assert send(world, "PATCH", INCIDENT, body={"status": "open"}).data["status"] == "open"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "ERR_SCHEMA"),
        ([], "ERR_SCHEMA"),
        ("x", "ERR_SCHEMA"),
        (None, "ERR_BODY_REQUIRED"),
        ({"status": "merged"}, "ERR_SCHEMA"),
        ({"status": "Acknowledged"}, "ERR_SCHEMA"),
        ({"verdict": "true"}, "ERR_SCHEMA"),
        ({"note": ""}, "ERR_SCHEMA"),
        ({"note": "x" * 2001}, "ERR_SCHEMA"),
        ({"note": "a\x00b"}, "ERR_SCHEMA"),
        ({"note": "a\u202eb"}, "ERR_SCHEMA"),
        ({"note": 5}, "ERR_SCHEMA"),
        ({"note": "x", "version": "1"}, "ERR_SCHEMA"),
        ({"note": "x", "version": True}, "ERR_SCHEMA"),
        ({"note": "x", "surprise": 1}, "ERR_SCHEMA"),
        ({"tier": "info"}, "ERR_READONLY_FIELD"),
        ({"merged_into": EXAMPLE_OTHER_INCIDENT, "note": "x"}, "ERR_READONLY_FIELD"),
    ],
)
def test_a_change_that_cannot_be_meant_is_refused(body: Any, code: str, world: ApiWorld) -> None:
    before = picture(world)
    assert refusal(world, "PATCH", INCIDENT, body=body).code == code
    assert picture(world) == before


@pytest.mark.parametrize(
    ("raw", "headers", "code"),
    [
        (b'{"note":"a","note":"b"}', {}, "ERR_JSON_DUPLICATE_KEY"),
        (b'{"version": NaN}', {}, "ERR_JSON_NONFINITE"),
        (b'{"note": "\xff"}', {}, "ERR_JSON_ENCODING"),
        (b'{"note": "\\ud800"}', {}, "ERR_JSON_ENCODING"),
        (b"{", {}, "ERR_JSON_SYNTAX"),
        (b"[" * 40 + b"]" * 40, {}, "ERR_JSON_DEPTH"),
        (b'{"note": "x"}', {"Content-Type": "text/plain"}, "ERR_CONTENT_TYPE"),
        (b'{"note": "x"}', {"Content-Type": "application/x-ndjson"}, "ERR_CONTENT_TYPE"),
        (b'{"note": "x"}', {"Content-Encoding": "gzip"}, "ERR_BODY_ENCODING"),
        (b" " * 1_048_577, {}, "ERR_BODY_TOO_LARGE"),
    ],
)
def test_a_body_that_is_no_strict_json_is_refused(
    raw: bytes, headers: Mapping[str, str], code: str, world: ApiWorld
) -> None:
    assert refusal(world, "PATCH", INCIDENT, raw=raw, headers=headers).code == code


def test_a_stale_version_is_a_conflict(world: ApiWorld) -> None:
    note = {"note": "x"}
    assert refusal(world, "PATCH", INCIDENT, body=note | {"version": 9}).code == "ERR_CONFLICT"
    assert refusal(world, "PATCH", INCIDENT, body=note, headers={"If-Match": '"9"'}).code == "ERR_CONFLICT"
    assert (
        refusal(world, "PATCH", INCIDENT, body=note | {"version": 1}, headers={"If-Match": '"9"'}).code == "ERR_SCHEMA"
    )
    assert refusal(world, "PATCH", INCIDENT, body=note, headers={"If-Match": "abc"}).code == "ERR_SCHEMA"
    assert send(world, "PATCH", INCIDENT, body=note, headers={"If-Match": '"1"'}).headers["ETag"] == '"2"'
    assert send(world, "PATCH", INCIDENT, body=note | {"version": 2}, headers={"If-Match": "*"}).status == 200


def test_a_merge_survives_in_the_earliest(world: ApiWorld) -> None:
    answer = send(world, "POST", f"{INCIDENT}/merge", body={"incidents": [EXAMPLE_OTHER_INCIDENT]})
    assert answer.data["id"] == EXAMPLE_OTHER_INCIDENT
    assert answer.data["merged_from"] == [EXAMPLE_INCIDENT]
    assert send(world, "GET", INCIDENT).data["merged_into"] == EXAMPLE_OTHER_INCIDENT
    assert refusal(world, "PATCH", INCIDENT, body={"note": "x"}).code == "ERR_CONFLICT"


@pytest.mark.parametrize(
    ("others", "code"),
    [
        ([], "ERR_SCHEMA"),
        ([EXAMPLE_INCIDENT], "ERR_SCHEMA"),
        (["inc_x"], "ERR_SCHEMA"),
        ([FOREIGN_INCIDENT], "ERR_NOT_FOUND"),
    ],
)
def test_a_merge_with_nothing_itself_or_others_is_refused(others: list[str], code: str, world: ApiWorld) -> None:
    before = picture(world)
    assert refusal(world, "POST", f"{INCIDENT}/merge", body={"incidents": others}).code == code
    assert picture(world) == before


def test_a_split_answers_both_sides(world: ApiWorld) -> None:
    answer = send(world, "POST", f"{INCIDENT}/split", body={"events": [EXAMPLE_EVENT]})
    left, made = answer.data["incident"], answer.data["split"]
    assert (left["event_count"], made["event_count"]) == (2, 1)
    assert answer.headers["Location"] == f"/v1/incidents/{made['id']}"
    assert send(world, "GET", answer.headers["Location"]).data["id"] == made["id"]


def test_a_split_that_leaves_nothing_is_refused(world: ApiWorld) -> None:
    everything = world.store.joined[EXAMPLE_INCIDENT]
    assert refusal(world, "POST", f"{INCIDENT}/split", body={"events": everything}).code == "ERR_SCHEMA"


# --- topology
# --------------------------------------------------------------------------------------------------------


def test_a_topology_is_replaced_under_its_version(world: ApiWorld) -> None:
    body = {"services": {"web": {"deps": ["api"]}}}
    assert send(world, "PUT", "/v1/topology", body=body | {"version": 0}).data["version"] == 1
    assert refusal(world, "PUT", "/v1/topology", body=body | {"version": 0}).code == "ERR_CONFLICT"
    assert send(world, "GET", "/v1/topology").data == {"version": 1, "services": {"web": {"deps": ["api"]}}}
    assert send(world, "GET", "/v1/topology", caller(project=OTHER)).data["version"] == 0


@pytest.mark.parametrize("path", ["/v1/healings", "/api/health", "/metrics"])
def test_the_deployment_shows_itself_to_its_operator_only(path: str, world: ApiWorld) -> None:
    assert send(world, "GET", path).status == 200
    assert refusal(world, "GET", path, caller(project=OTHER)).code == "ERR_SCOPE"


def test_entries_of_the_deployment_are_for_its_operator(world: ApiWorld) -> None:
    query = [("of", "deployment")]
    assert send(world, "GET", "/v1/journal", query=query).status == 200
    assert refusal(world, "GET", "/v1/journal", caller(project=OTHER), query=query).code == "ERR_SCOPE"


def test_what_was_learned_is_used_until_it_is_taken_back(world: ApiWorld) -> None:
    before = send(world, "GET", "/v1/calibration").data
    assert (before["active"], before["version"]) == (1, 1)
    learned = send(world, "POST", "/v1/calibration", body={"version": 1}).data
    assert (learned["active"], [row["version"] for row in learned["versions"]]) == (2, [2, 1])
    assert learned["versions"][0]["sources"]["checkout"]["judged"] == 24
    assert refusal(world, "POST", "/v1/calibration/rollback", body={"version": 1}).code == "ERR_CONFLICT"
    assert refusal(world, "POST", "/v1/calibration/rollback", body={"to": 9}).code == "ERR_CONFLICT"
    back = send(world, "POST", "/v1/calibration/rollback", body={}).data
    assert (back["active"], back["version"]) == (1, 3)
    assert refusal(world, "POST", "/v1/calibration", caller(project=OTHER), body={}).code == "ERR_CONFLICT"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"services": []},
        {"services": {"web": {"deps": "api"}}},
        {"services": {"web": {"deps": ["web"]}}},
        {"services": {"a b": {}}},
        {"services": {"web": {"criticality": 2}}},
        {"services": {"web": {"extra": 1}}},
        {"services": {"web": {"criticality": "1"}}},
    ],
)
def test_a_topology_that_correlation_cannot_use_is_refused(body: Any, world: ApiWorld) -> None:
    assert refusal(world, "PUT", "/v1/topology", body=body).code == "ERR_SCHEMA"
    assert send(world, "GET", "/v1/topology").data["version"] == 0


def test_a_topology_may_have_two_thousand_services(world: ApiWorld) -> None:
    body = {"services": {f"service-{index}": {} for index in range(2000)}}
    assert len(send(world, "PUT", "/v1/topology", body=body).data["services"]) == 2000
    body["services"]["one-more"] = {}
    assert refusal(world, "PUT", "/v1/topology", body=body).status == 400


# --- delivery
# --------------------------------------------------------------------------------------------------------

CHANNEL = f"/v1/channels/{EXAMPLE_CHANNEL}"


def test_a_secret_is_shown_at_creation_and_rotation_only(world: ApiWorld) -> None:
    body = {"kind": "webhook", "name": "new", "url": "https://hooks.example.com/x"}
    made = send(world, "POST", "/v1/channels", body=body)
    assert made.data["secret"].startswith("whsec_")
    shown = send(world, "GET", made.headers["Location"])
    assert "secret" not in shown.data
    assert all("secret" not in one for one in send(world, "GET", "/v1/channels").data["items"])
    rotated = send(world, "POST", f"{made.headers['Location']}/rotate")
    assert rotated.data["secret"] != made.data["secret"]
    changed = send(world, "PATCH", made.headers["Location"], body={"name": "newer"})
    assert (changed.data["name"], "secret" in changed.data) == ("newer", False)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"kind": "webhook", "name": "x"}, "ERR_SCHEMA"),
        ({"kind": "pager", "name": "x", "url": "https://a.example"}, "ERR_SCHEMA"),
        ({"kind": "webhook", "name": "x", "url": "javascript:alert(1)"}, "ERR_URL"),
        (
            {"kind": "webhook", "name": "x", "url": "https://a.example", "secret": "mine"},
            "ERR_READONLY_FIELD",
        ),
        (
            {"kind": "webhook", "name": "x", "url": "https://a.example", "project": "other"},
            "ERR_READONLY_FIELD",
        ),
        ({"kind": "webhook", "name": "x", "url": "https://a.example", "to": ["a@b.example"]}, "ERR_SCHEMA"),
        ({"kind": "email", "name": "x", "to": ["a@b.example\r\nBcc: c@d.example"]}, "ERR_SCHEMA"),
    ],
)
def test_a_channel_that_cannot_be_is_refused(body: Any, code: str, world: ApiWorld) -> None:
    before = picture(world)
    assert refusal(world, "POST", "/v1/channels", body=body).code == code
    assert picture(world) == before


def test_a_channel_that_rules_name_stays(world: ApiWorld) -> None:
    send(world, "PUT", "/v1/routing", body={"rules": [{"name": "all", "channels": [EXAMPLE_CHANNEL]}]})
    assert refusal(world, "DELETE", CHANNEL).code == "ERR_CONFLICT"
    send(world, "PUT", "/v1/routing", body={"rules": []})
    assert send(world, "DELETE", CHANNEL).data == {"id": EXAMPLE_CHANNEL, "deleted": True}
    assert refusal(world, "GET", CHANNEL).code == "ERR_NOT_FOUND"


def test_a_channel_changes_under_its_version(world: ApiWorld) -> None:
    body = {"name": "newer"}
    assert refusal(world, "PATCH", CHANNEL, body=body, headers={"If-Match": '"9"'}).code == "ERR_CONFLICT"
    assert send(world, "PATCH", CHANNEL, body=body, headers={"If-Match": '"1"'}).headers["ETag"] == '"2"'


def test_a_test_message_is_sent_and_its_outcome_told(world: ApiWorld) -> None:
    sent = len(world.bench.receiver.got)
    told = send(world, "POST", f"{CHANNEL}/test").data
    assert (told["decision"], told["kind"], len(told["attempts"])) == ("delivered", "test", 1)
    assert len(world.bench.receiver.got) == sent + 1


def test_rules_are_replaced_under_their_version(world: ApiWorld) -> None:
    body = {"rules": [{"name": "all", "channels": [EXAMPLE_CHANNEL]}]}
    assert send(world, "PUT", "/v1/routing", body=body, headers={"If-Match": '"0"'}).data["version"] == 1
    assert refusal(world, "PUT", "/v1/routing", body=body | {"version": 0}).code == "ERR_CONFLICT"
    foreign = {"rules": [{"name": "all", "channels": [EXAMPLE_CHANNEL[:-1] + "f"]}]}
    assert refusal(world, "PUT", "/v1/routing", body=foreign).code == "ERR_SCHEMA"
    assert send(world, "GET", "/v1/routing").data["rules"][0]["name"] == "all"


def test_a_dry_run_sends_nothing(world: ApiWorld) -> None:
    sent, records = len(world.bench.receiver.got), dict(world.bench.world.records)
    stored = send(world, "POST", "/v1/routing/dry-run", body={"tier": "critical"})
    assert [one["decision"] for one in stored.data["channels"]] == ["push"]
    muted = {"tier": "critical", "rules": [{"name": "quiet", "mute": True, "reason": "holiday"}]}
    assert send(world, "POST", "/v1/routing/dry-run", body=muted).data["channels"][0]["reason"] == "muted"
    assert (len(world.bench.receiver.got), world.bench.world.records) == (sent, records)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ([], 1),
        ([("incident", EXAMPLE_INCIDENT)], 1),
        ([("incident", EXAMPLE_OTHER_INCIDENT)], 0),
        ([("decision", "delivered")], 1),
        ([("decision", "withheld")], 0),
        ([("channel", EXAMPLE_CHANNEL)], 1),
        ([("channel", EXAMPLE_CHANNEL[:-1] + "f")], 0),
    ],
)
def test_the_account_of_notifications_is_filtered(
    query: Sequence[tuple[str, str]], count: int, world: ApiWorld
) -> None:
    assert len(send(world, "GET", "/v1/notifications", query=query).data["items"]) == count


def test_ids_in_a_query_have_their_grammar(world: ApiWorld) -> None:
    assert refusal(world, "GET", "/v1/notifications", query=[("incident", "x")]).code == "ERR_QUERY"


# --- operations
# ------------------------------------------------------------------------------------------------------


def test_the_worst_part_speaks_for_all(world: ApiWorld) -> None:
    assert send(world, "GET", "/api/health").data["status"] == "degraded"


def test_labels_are_escaped_in_metrics() -> None:
    text = health.exposition(
        [
            ("a", "gauge", "one\nline", {"x": 'q"\\\n'}, float("inf")),
            ("a", "gauge", "", {}, 0.5),
            ("b", "counter", "B.", {}, 2),
        ]
    )
    assert text == (
        '# HELP a one\\nline\n# TYPE a gauge\na{x="q\\"\\\\\\n"} +Inf\na 0.5\n# HELP b B.\n# TYPE b counter\nb 2\n'
    )


def test_who_is_turned_away_is_noted_with_the_key_that_was_shown(
    world: ApiWorld, denials: DenialsFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gate:
        def principal_of(self, request: Request) -> Principal:
            if request.header("x-api-key") == "nobody's":
                raise Refusal("ERR_AUTH_INVALID", "no")
            return caller("events:read")

    monkeypatch.setattr(wiring, "api", lambda: world.rooms)
    monkeypatch.setattr(wiring, "_gate", Gate)
    event = json.loads(next(path for path in SAMPLES if path.stem.startswith("list_keys")).read_text())
    assert function.handler(event, None)["statusCode"] == 403
    stranger = {**event, "multiValueHeaders": {"x-api-key": ["nobody's"]}, "headers": {}}
    assert function.handler(stranger, None)["statusCode"] == 401
    known, unknown = denials.noted
    assert known == ("ERR_SCOPE", "list_keys", caller().credential)
    assert unknown[:2] == ("ERR_AUTH_INVALID", "list_keys")
    assert not unknown[2].startswith("key_")


def test_a_denial_that_cannot_be_noted_is_still_answered(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def note(self, *_: Any) -> bool:
            raise Retry("the table is away")

    monkeypatch.setattr(wiring, "denials", Away)
    monkeypatch.setattr(wiring, "api", lambda: world.rooms)
    monkeypatch.setattr(wiring, "principal_of", lambda _: caller("events:read"))
    event = json.loads(next(path for path in SAMPLES if path.stem.startswith("list_keys")).read_text())
    assert function.handler(event, None)["statusCode"] == 403
