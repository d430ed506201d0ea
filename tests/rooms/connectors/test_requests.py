"""Frames, keys and answers: what a sender is told in its own words, and that no request breaks anything."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import connectors as tool

from tests.rooms.connectors.support import IDS, SAMPLES, sample, send
from tocsin.access import principals
from tocsin.connectors import credentials, registry, translate
from tocsin.connectors.registry import Call
from tocsin.connectors.translate import Translation
from tocsin.kernel import clock
from tocsin.kernel.errors import CODES, Detail, Refusal
from tocsin.kernel.http import Answer, Request

NOW = clock.parse_rfc3339("2026-11-21T10:54:10.000Z")


def call_of(name: str) -> Call:
    route = registry.load(name).routes[0]
    path = route.path.replace("{key}", "tcn_demo").replace("{project}", "1").replace("{routing_key}", "team")
    found = registry.find(route.method, path.replace("{key_id}", "key_x"))
    assert found is not None
    assert found.connector.name == name
    return found


def body_of(answer: Answer) -> Any:
    assert answer.raw is not None
    content, media = answer.raw
    return json.loads(content) if media == "application/json" and content else content


def attempt(call: Call, request: Request) -> tuple[Translation | None, list[Refusal]]:
    """What a request is translated to, and every refusal met, whether of all or of one event."""
    try:
        made = translate.translate(call, request, translate.read(call, request), now=NOW)
    except Refusal as refusal:
        return None, [refusal]
    return made, [item.refusal for item in made.items if item.refusal is not None]


# --- addresses ----------------------------------------------------------------------------------------------


def test_addresses_are_each_one_connectors() -> None:
    seen = [(route.method, route.path) for name in registry.names() for route in registry.load(name).routes]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/enqueue"),
        ("POST", "/v2/enqueue/"),
        ("POST", "/v2/alerts//close"),
        ("POST", "/api/1/envelopes/"),
        ("POST", ""),
    ],
)
def test_other_addresses_are_no_connectors(method: str, path: str) -> None:
    assert registry.find(method, path) is None


@pytest.mark.parametrize("identifier", ["a%2Fb%20c", "a/b c"])
def test_parts_of_a_path_are_decoded_whether_or_not_the_gateway_did(identifier: str) -> None:
    call = registry.find("POST", f"/v2/alerts/{identifier}/close")
    assert call is not None
    assert call.params == {"identifier": "a/b c"}


# --- keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "case"), SAMPLES, ids=IDS)
def test_the_key_reaches_access_from_every_style(name: str, case: str) -> None:
    sent = send(sample(name, case))
    moved = credentials.with_key(sent.call, sent.request, sent.body.head)
    if sent.call.connector.auth == "sentry-signature":
        with pytest.raises(Refusal):
            principals.credential(moved)
    else:
        assert principals.credential(moved) == "tcn_demo"


def _request(headers: dict[str, str], query: dict[str, tuple[str, ...]] | None = None) -> Request:
    made = {name: (value,) for name, value in headers.items()}
    return Request("POST", "/", "t" * 32, "r", made, query or {})


@pytest.mark.parametrize(
    ("name", "headers", "body", "key"),
    [
        ("langfuse", {"authorization": "Basic " + base64.b64encode(b"pk:sk").decode()}, None, "sk"),
        ("langfuse", {"authorization": "Basic " + base64.b64encode(b"only:").decode()}, None, "only"),
        ("langfuse", {"authorization": "Basic ***"}, None, "not a key"),
        ("langfuse", {"authorization": "Bearer k"}, None, None),
        ("opsgenie", {"authorization": "GenieKey k"}, None, "k"),
        ("opsgenie", {"authorization": "geniekey  k "}, None, "k"),
        ("pagerduty", {}, {"routing_key": "k"}, "k"),
        ("sentry", {"x-sentry-auth": "Sentry sentry_version=7, sentry_key=k_1, sentry_client=x"}, {}, "k_1"),
        ("sentry", {"authorization": "Sentry sentry_key=k_1"}, {}, "k_1"),
        ("sentry", {}, {"dsn": "https://k_1@host.example/1"}, "k_1"),
        ("sentry", {}, {"dsn": "https://k_1:secret@host.example/1"}, "k_1"),
    ],
)
def test_styles(name: str, headers: dict[str, str], body: Any, key: str | None) -> None:
    assert credentials.key_of(call_of(name), _request(headers), body) == key


def test_sentry_key_in_the_query() -> None:
    assert credentials.key_of(call_of("sentry"), _request({}, {"sentry_key": ("k",)}), {}) == "k"


@pytest.mark.parametrize(
    ("name", "body"), [("pagerduty", {}), ("pagerduty", {"routing_key": 7}), ("pagerduty", []), ("sentry", {})]
)
def test_a_missing_key_is_told(name: str, body: Any) -> None:
    with pytest.raises(Refusal) as caught:
        credentials.key_of(call_of(name), _request({}), body)
    assert caught.value.code == "ERR_AUTH_MISSING"


# --- frames -------------------------------------------------------------------------------------------------


def test_gzip_is_the_same_request() -> None:
    given_one = sample("alertmanager_webhook", "firing")
    plain = tool.request_of(given_one)
    packed = Request(
        **{
            **{name: getattr(plain, name) for name in Request.__slots__},
            "body": gzip.compress(plain.body),
            "headers": {**plain.headers, "content-encoding": ("gzip",)},
        }
    )
    call = call_of("alertmanager_webhook")
    assert translate.read(call, packed) == translate.read(call, plain)


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"content-type": "application/json"}, b"", "ERR_BODY_REQUIRED"),
        ({"content-type": "application/json"}, b"{", "ERR_JSON_SYNTAX"),
        ({"content-type": "application/json"}, b'{"a":1,"a":2}', "ERR_JSON_DUPLICATE_KEY"),
        ({"content-type": "application/json"}, b"[" * 100 + b"]" * 100, "ERR_JSON_DEPTH"),
        ({"content-type": "application/xml"}, b"<a/>", "ERR_CONTENT_TYPE"),
        ({"content-type": "application/json; charset=latin-1"}, b"{}", "ERR_CONTENT_TYPE"),
        ({"content-type": "application/json", "content-encoding": "br"}, b"{}", "ERR_CONTENT_TYPE"),
        ({"content-type": "application/json", "content-encoding": "gzip"}, b"{}", "ERR_BODY_ENCODING"),
        (
            {"content-type": "application/json", "content-encoding": "gzip"},
            gzip.compress(b" " * 5_000_000),
            "ERR_DECOMPRESSED_TOO_LARGE",
        ),
        ({"content-type": "application/json"}, b" " * 2_000_000, "ERR_BODY_TOO_LARGE"),
    ],
)
def test_frames_that_cannot_be_read(headers: dict[str, str], body: bytes, code: str) -> None:
    request = Request("POST", "/", "t" * 32, "r", {k: (v,) for k, v in headers.items()}, body=body)
    with pytest.raises(Refusal) as caught:
        translate.read(call_of("alertmanager_webhook"), request)
    assert caught.value.code == code
    assert caught.value.details


@pytest.mark.parametrize("name", [name for name in registry.names() if "*" not in registry.load(name).media])
def test_every_json_connector_refuses_a_body_of_another_shape(name: str) -> None:
    call = call_of(name)
    for value in (b"7", b'"text"', b"null", b"[7]", b"[[]]", b"{}"):
        request = Request("POST", "/", "t" * 32, "r", {"content-type": (call.connector.media[0],)}, body=value)
        if call.connector.media[0] == "application/x-protobuf":
            request = Request("POST", "/", "t" * 32, "r", {"content-type": ("application/json",)}, body=value)
        made, refused = attempt(call, request)
        assert made is None or not made.events
        assert all(refusal.details for refusal in refused)


# --- answers ------------------------------------------------------------------------------------------------

UNAUTHORIZED = Refusal("ERR_AUTH_INVALID", "The API key is not valid.", headers={"WWW-Authenticate": "Bearer"})
BUSY = Refusal("ERR_UNAVAILABLE", "The events could not be queued.", headers={"Retry-After": "3"})
LIMITED = Refusal("ERR_RATE_LIMITED", "Too many requests.", headers={"Retry-After": "9"})
BAD = Refusal("ERR_SCHEMA", "It breaks its schema.", [Detail("payload.summary", "required", "add it")])
LARGE = Refusal("ERR_BODY_TOO_LARGE", "The body is too large.", [Detail("(body)", "wire-bytes", "send less")])

#: connector → status when taken, refused, unauthorized, busy: what the sender's own service answers.
STATUSES = {
    "alertmanager_api": (200, 400, 401, 503),
    "alertmanager_webhook": (200, 400, 401, 503),
    "aws_eventbridge": (200, 400, 401, 503),
    "aws_sns": (200, 400, 401, 503),
    "grafana": (200, 400, 401, 503),
    "langfuse": (207, 207, 401, 503),
    "langfuse_scores": (202, 400, 401, 503),
    "opsgenie": (202, 422, 401, 429),
    "otlp_logs": (200, 400, 401, 503),
    "otlp_metrics": (200, 400, 401, 503),
    "otlp_traces": (200, 400, 401, 503),
    "pagerduty": (202, 400, 403, 429),
    "pagerduty_change": (202, 400, 403, 429),
    "sentry": (200, 400, 403, 429),
    "sentry_webhook": (200, 400, 401, 503),
    "victorops": (200, 400, 403, 503),
}


@pytest.mark.parametrize("name", registry.names())
def test_every_dialect_has_its_statuses(name: str) -> None:
    call = call_of(name)
    outcomes = ([], [BAD], [UNAUTHORIZED], [BUSY])
    answers = [translate.answer(call, None, refused, 0 if refused else 1, trace_id="t" * 32) for refused in outcomes]
    assert tuple(answer.status for answer in answers) == STATUSES[name]
    assert answers[3].headers["Retry-After"] == "3"
    assert answers[2].headers["WWW-Authenticate"] == "Bearer"
    assert all(answer.raw is not None for answer in answers)


def test_sentry_sdks_are_told_how_long_to_keep_quiet_in_browsers_too() -> None:
    call = call_of("sentry")
    answer = translate.answer(call, None, [LIMITED], 0, trace_id="t")
    assert (answer.status, answer.headers["X-Sentry-Rate-Limits"]) == (429, "9::organization")
    for refused in ([], [BAD], [UNAUTHORIZED], [LIMITED], [LARGE]):
        headers = translate.answer(call, None, refused, 0 if refused else 1, trace_id="t").headers
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert "X-Sentry-Rate-Limits" in headers["Access-Control-Expose-Headers"]


def test_langfuse_counts_scores_that_it_refused() -> None:
    given_one = sample("langfuse_scores", "batch")
    sent = send(given_one, body=[*given_one["body"], {"id": "s-3", "name": "no value"}])
    refused = [item.refusal for item in sent.made.items if item.refusal]
    answer = translate.answer(sent.call, sent.made, refused, 2, trace_id="t")
    told = body_of(answer)
    assert (answer.status, told["accepted"], told["rejected"]) == (207, 2, 1)
    assert [error["id"] for error in told["errors"]] == ["s-3"]
    assert all(isinstance(error["message"], str) for error in told["errors"])


def test_pagerdutys_words() -> None:
    call = call_of("pagerduty")
    answer = translate.answer(call, None, [BAD], 0, trace_id="t")
    assert body_of(answer) == {
        "status": "invalid event",
        "message": "Event object is invalid",
        "errors": ["payload.summary: add it"],
    }
    assert translate.answer(call, None, [LIMITED], 0, trace_id="t").headers["Retry-After"] == "9"


def test_a_trigger_without_key_gets_the_one_that_resolves_it() -> None:
    given_one = sample("pagerduty", "trigger")
    body = {name: value for name, value in given_one["body"].items() if name != "dedup_key"}
    sent = send(given_one, body=body)
    told = body_of(translate.answer(sent.call, sent.made, [], 1, trace_id="t"))["dedup_key"]
    resolve = {"routing_key": "tcn_demo", "event_action": "resolve", "dedup_key": told}
    assert send(given_one, body=resolve).made.events[0]["dedup_key"] == sent.made.events[0]["dedup_key"]


def test_alertmanager_says_a_refusal_as_a_json_string_and_takes_the_good_ones() -> None:
    given_one = sample("alertmanager_api", "firing")
    sent = send(given_one, body=[*given_one["body"], {"labels": {}}])
    refused = [item.refusal for item in sent.made.items if item.refusal]
    assert len(sent.made.events) == 2
    answer = translate.answer(sent.call, sent.made, refused, 2, trace_id="t")
    assert (answer.status, body_of(answer)) == (400, "[2].labels: add at least one label")


def test_langfuse_answers_one_by_one() -> None:
    given_one = sample("langfuse", "batch")
    batch = [*given_one["body"]["batch"], {"id": "bad", "type": "trace-create"}]
    sent = send(given_one, body={"batch": batch})
    refused = [item.refusal for item in sent.made.items if item.refusal]
    body = body_of(translate.answer(sent.call, sent.made, refused, 3, trace_id="t"))
    assert [one["id"] for one in body["successes"]] == ["5a0c8d0e-0001", "5a0c8d0e-0002", "5a0c8d0e-0003"]
    assert [(one["id"], one["status"]) for one in body["errors"]] == [("bad", 400)]


def test_otlp_counts_what_it_refused() -> None:
    answer = translate.answer(call_of("otlp_traces"), None, [BAD, BAD], 3, trace_id="t")
    assert answer.status == 200
    assert body_of(answer)["partialSuccess"]["rejectedSpans"] == 2


@pytest.mark.parametrize("name", registry.names())
def test_no_refusal_is_answered_as_success(name: str) -> None:
    call = call_of(name)
    for code in CODES:
        answer = translate.answer(call, None, [Refusal(code, "no")], 0, trace_id="t")
        assert answer.status >= 400 or name == "langfuse"
        if CODES[code] >= 500:
            assert answer.status in (429, 500, 503), "a sender that is not asked to send again loses its events"


def test_too_large_is_final() -> None:
    assert translate.answer(call_of("pagerduty"), None, [LARGE], 0, trace_id="t").status == 413
    assert translate.answer(call_of("sentry"), None, [LARGE], 0, trace_id="t").status == 413


# --- hostile payloads ---------------------------------------------------------------------------------------

WRONG: list[Any] = [
    None,
    True,
    7,
    -1.5,
    "",
    "x" * 70_000,
    "\u202e\u0000\u200b",
    [],
    [None],
    [[[[]]]],
    {},
    {"": ""},
    {"a": {"b": {"c": [1]}}},
    {f"k{n}": n for n in range(120)},
    list(range(500)),
    10**30,
]
BODIES = [(name, case) for name, case in SAMPLES if "body" in sample(name, case)]


def _places(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        own = [(value, key) for key in value]
        return [*own, *(one for part in value.values() for one in _places(part))]
    if isinstance(value, list):
        own = [(value, index) for index in range(len(value))]
        return [*own, *(one for part in value for one in _places(part))]
    return []


@pytest.mark.parametrize(("name", "case"), BODIES, ids=[f"{n}-{c}" for n, c in BODIES])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_wrong_types_anywhere_are_refused_or_kept(name: str, case: str, seed: int) -> None:
    given_one = sample(name, case)
    body = copy.deepcopy(given_one["body"])
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 3)):
        holder, key = chance.choice(_places(body))
        holder[key] = copy.deepcopy(chance.choice(WRONG))
        if not _places(body):
            break
    request = tool.request_of({**given_one, "body": body})
    call = registry.find(request.method, request.path)
    assert call is not None
    made, refused = attempt(call, request)
    assert all(refusal.details for refusal in refused)
    translate.answer(call, made, refused, len(made.events) if made else 0, trace_id="t")


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_bytes_of_any_kind_never_break_a_reader(data: bytes) -> None:
    for name in ("sentry", "otlp_traces", "otlp_logs", "otlp_metrics", "aws_sns"):
        call = call_of(name)
        kind = "application/x-protobuf" if name.startswith("otlp") else "text/plain"
        request = Request("POST", "/", "t" * 32, "r", {"content-type": (kind,)}, body=data)
        _, refused = attempt(call, request)
        assert all(refusal.details for refusal in refused)


def test_too_many_documents_are_refused_as_a_whole() -> None:
    given_one = sample("alertmanager_api", "firing")
    with pytest.raises(Refusal) as caught:
        send(given_one, body=given_one["body"] * 251)
    assert caught.value.code == "ERR_BATCH_TOO_LARGE"
