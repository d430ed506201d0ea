"""The ingest function: its samples through the real handler, and what its answers look like from outside."""

from __future__ import annotations

import io
import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from functions.ingest.handler import handler
from tests.support.delivery_fakes import Context
from tests.support.ingest_fakes import (
    PRINCIPAL,
    MemoryOutbound,
    body_of,
    memory_intake,
    rest_event,
    sample,
    url_event,
)

from tocsin import wiring
from tocsin.access import keys
from tocsin.access.principals import Principal
from tocsin.entry import _shown, logger
from tocsin.kernel.errors import Refusal

FOLDER = Path(__file__).parents[2] / "events" / "ingest"
SAMPLES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
#: Sample → status and number of events queued.
EXPECTED = {
    "rest_batch": (202, 3),
    "rest_cloudevent": (202, 1),
    "rest_cloudevent_binary": (202, 1),
    "rest_cloudevents_batch": (202, 2),
    "rest_ndjson_gzip": (202, 3),
    "rest_one": (202, 1),
    "rest_some_refused": (207, 1),
    "url_ndjson": (202, 3),
}


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> MemoryOutbound:
    outbound = MemoryOutbound()
    monkeypatch.setattr(wiring, "principal_of", lambda request: PRINCIPAL)
    monkeypatch.setattr(wiring, "origin", lambda: None)
    monkeypatch.setattr(wiring, "intake", lambda: memory_intake(outbound), raising=False)
    return outbound


def test_every_sample_has_an_expectation() -> None:
    assert set(SAMPLES) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_samples(name: str, queue: MemoryOutbound) -> None:
    result = handler(SAMPLES[name], None)
    status, queued = EXPECTED[name]
    assert (result["statusCode"], len(queue.events)) == (status, queued)
    assert len(queue.sent) == 1
    assert result["isBase64Encoded"] is False


def test_both_fronts_give_the_same_events(queue: MemoryOutbound) -> None:
    body = json.dumps(sample()).encode()
    headers = {"x-trace-id": "trace-0001"}
    assert handler(rest_event(body, headers), None)["statusCode"] == 202
    assert handler(url_event(body.decode(), headers), None)["statusCode"] == 202
    first, second = queue.events
    assert first == second


def test_the_trace_goes_from_header_to_answer_to_queue(queue: MemoryOutbound) -> None:
    parent = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{parent}-00f067aa0ba902b7-01"}
    result = handler(rest_event(json.dumps(sample()), headers), None)
    assert result["headers"]["X-Trace-Id"] == body_of(result)["meta"]["trace_id"] == parent
    assert queue.sent[0].trace_id == queue.events[0]["trace_id"] == parent


def test_errors_carry_the_trace(queue: MemoryOutbound) -> None:
    for body in ("{}", "[", json.dumps([sample(), {}])):
        result = handler(rest_event(body, {"x-trace-id": "trace-0001"}), None)
        assert body_of(result)["error"]["trace_id"] == "trace-0001"


def test_a_key_without_the_scope_is_refused_before_anything_is_read(
    queue: MemoryOutbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Principal("demo", "key_2", frozenset({"events:read", "admin:*"}))
    monkeypatch.setattr(wiring, "principal_of", lambda request: reader)
    result = handler(rest_event("not json"), None)
    assert (result["statusCode"], body_of(result)["error"]["code"]) == (403, "ERR_SCOPE")
    assert queue.sent == []


def test_an_unknown_caller_is_refused_first(queue: MemoryOutbound, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(request: Any) -> Principal:
        raise Refusal("ERR_AUTH_MISSING", "Send an API key.")

    monkeypatch.setattr(wiring, "principal_of", unknown)
    result = handler(rest_event("not json", {"content-type": "text/plain"}), None)
    assert (result["statusCode"], queue.sent) == (401, [])


def test_the_queue_is_away(queue: MemoryOutbound) -> None:
    queue.broken = True
    result = handler(rest_event(json.dumps(sample())), None)
    assert (result["statusCode"], body_of(result)["error"]["code"]) == (503, "ERR_UNAVAILABLE")
    assert result["headers"]["Retry-After"] == "3"


def test_log_lines_hold_no_content_and_stay_one_line_each(queue: MemoryOutbound) -> None:
    log = io.StringIO()
    log_handler = cast("logging.StreamHandler[io.StringIO]", logger.registered_handler)
    before = log_handler.setStream(log)
    try:
        forged = 'x\r\n{"level":"ERROR","message":"forged"}'
        handler(rest_event(json.dumps([sample(title=forged), sample(id=forged), {forged: 1}])), None)
        handler(rest_event(forged), None)
    finally:
        log_handler.setStream(cast("io.StringIO", before))
    assert "forged" not in log.getvalue()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["message"], line.get("code"), line.get("accepted")) for line in lines] == [
        ("answered", "ERR_PARTIAL", 1),
        ("answered", "ERR_JSON_SYNTAX", None),
    ]


def test_a_key_in_a_path_is_not_logged(queue: MemoryOutbound) -> None:
    log = io.StringIO()
    log_handler = cast("logging.StreamHandler[io.StringIO]", logger.registered_handler)
    before = log_handler.setStream(log)
    try:
        key = keys.mint("test")[0]
        handler(rest_event("{}") | {"path": f"/integrations/generic/20131114/alert/{key}/team"}, None)
    finally:
        log_handler.setStream(cast("io.StringIO", before))
    assert json.loads(log.getvalue())["path"] == "/integrations/generic/20131114/alert/{key}/{routing_key}"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/events", "/v1/events"),
        ("/events", "/v1/events"),
        ("/v1/events/ada@example.com", "/v1/events/{id}"),
        ("/v1/keys/key_4Yx0exampleK", "/v1/keys/{id} key_4Yx0exampleK"),
        ("/v1/projects/demo/subjects/usr_mfzwizltoqqhg5dbojzs4mzom5", "/v1/projects/{id}/subjects/{pseudonym}"),
        ("/v2/alerts/ada@example.com/close", "/v2/alerts/{identifier}/close"),
        ("/ada@example.com", "unknown"),
    ],
)
def test_a_path_is_logged_as_its_route_with_ids_of_our_making(path: str, shown: str) -> None:
    assert _shown(path) == shown


def test_the_smallest_event_of_the_documentation_is_accepted(queue: MemoryOutbound) -> None:
    text = (FOLDER.parents[1] / "docs" / "data_schema.md").read_text(encoding="utf-8")
    example = text.split("```json\n", 1)[1].split("```", 1)[0]
    assert handler(rest_event(example), None)["statusCode"] == 202


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/nope", 404, "ERR_NOT_FOUND"),
        ("POST", "/v1/incidents", 405, "ERR_METHOD"),
        ("PUT", "/v1/events", 405, "ERR_METHOD"),
        ("DELETE", "/", 405, "ERR_METHOD"),
        ("GET", "/v1/events", 404, "ERR_NOT_FOUND"),
        ("POST", "/livez", 405, "ERR_METHOD"),
    ],
)
def test_only_its_own_paths_and_methods_are_taken(
    method: str, path: str, status: int, code: str, queue: MemoryOutbound
) -> None:
    event = url_event(json.dumps(sample()).encode())
    event["rawPath"], event["requestContext"]["http"]["method"] = path, method
    result = handler(event, None)
    assert (result["statusCode"], body_of(result)["error"]["code"]) == (status, code)
    assert queue.sent == []


@pytest.mark.parametrize("path", ["", "/", "/v1/events", "/v1/events:batch", "/events"])
def test_the_function_url_takes_events_without_a_path_too(path: str, queue: MemoryOutbound) -> None:
    event = url_event(json.dumps(sample()).encode())
    event["rawPath"] = path
    assert handler(event, None)["statusCode"] == 202


def test_browsers_may_ask_first_and_only_the_configured_origin_is_allowed(
    queue: MemoryOutbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "origin", lambda: "https://console.example")
    body = json.dumps(sample())

    def ask(method: str, origin: str) -> dict[str, Any]:
        event = rest_event(body, {"origin": origin})
        return handler(event | {"httpMethod": method}, None)

    asked = ask("OPTIONS", "https://console.example")
    assert (asked["statusCode"], asked["body"]) == (204, "")
    assert asked["headers"]["Access-Control-Allow-Origin"] == "https://console.example"
    assert "POST" in asked["headers"]["Access-Control-Allow-Methods"]
    assert "x-api-key" in asked["headers"]["Access-Control-Allow-Headers"]
    taken = ask("POST", "https://console.example")
    assert (taken["statusCode"], taken["headers"]["Access-Control-Allow-Origin"]) == (202, "https://console.example")
    for method in ("OPTIONS", "POST"):
        foreign = ask(method, "https://evil.example")
        assert (foreign["statusCode"], body_of(foreign)["error"]["code"]) == (403, "ERR_ORIGIN")
        assert "Access-Control-Allow-Origin" not in foreign["headers"]
    assert len(queue.sent) == 1


class Invocation(Context):
    aws_request_id = "run-1"


def test_a_line_has_its_long_and_its_short_names(queue: MemoryOutbound) -> None:
    log = io.StringIO()
    log_handler = cast("logging.StreamHandler[io.StringIO]", logger.registered_handler)
    before = log_handler.setStream(log)
    try:
        for _ in range(2):
            handler(rest_event(json.dumps(sample()), {"x-trace-id": "trace-0001"}), Invocation())
    finally:
        log_handler.setStream(cast("io.StringIO", before))
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert (line["svc"], line["lvl"], line["evt"]) == (line["service"], line["level"], line["message"])
        assert line["trace"] == line["trace_id"] == "trace-0001"
        assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None
        assert line["project_id"] == "demo"
        assert line["run_id"] == "run-1"
        assert "request_id" in line
    assert lines[0]["span_id"] != lines[1]["span_id"]
