"""OTLP in protobuf and JSON, and Sentry's envelopes: both encodings mean the same, and broken ones are told."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from tests.rooms.connectors.support import sample, send
from tocsin.access.usage import llm_tokens
from tocsin.connectors import otlp, protobuf, sentry
from tocsin.kernel.errors import Refusal


def text(number: int, value: str) -> bytes:
    return protobuf.field(number, value.encode())


def fixed(number: int, value: int) -> bytes:
    return protobuf.varint(number << 3 | 1) + struct.pack("<Q", value)


def real(number: int, value: float) -> bytes:
    return protobuf.varint(number << 3 | 1) + struct.pack("<d", value)


ATTRIBUTE = text(1, "k") + protobuf.field(2, protobuf.field(3, 2**64 - 5))  # intValue -5
SPAN = (
    protobuf.field(1, bytes(range(16)))
    + protobuf.field(2, bytes(8))
    + text(5, "GET /")
    + protobuf.field(6, 2)
    + fixed(7, 1_795_258_400_000_000_000)
    + fixed(8, 1_795_258_401_000_000_000)
    + protobuf.field(9, ATTRIBUTE)
    + protobuf.field(15, text(2, "bad") + protobuf.field(3, 2))
)


def request_with(span: bytes) -> bytes:
    return protobuf.field(1, protobuf.field(2, protobuf.field(2, span)))


def test_protobuf_is_read_as_the_json_of_the_same_message() -> None:
    (resource,) = otlp.read_protobuf(request_with(SPAN), "traces")["resourceSpans"]
    (span,) = resource["scopeSpans"][0]["spans"]
    assert span == {
        "traceId": "000102030405060708090a0b0c0d0e0f",
        "spanId": "0000000000000000",
        "name": "GET /",
        "kind": 2,
        "startTimeUnixNano": "1795258400000000000",
        "endTimeUnixNano": "1795258401000000000",
        "attributes": [{"key": "k", "value": {"intValue": "-5"}}],
        "status": {"message": "bad", "code": 2},
    }


def test_fields_that_are_not_known_are_kept() -> None:
    span = SPAN + text(99, "new") + protobuf.varint(98 << 3 | 5) + b"\1\2\3\4" + protobuf.field(97, 300)
    ((document, _),) = otlp.documents(otlp.read_protobuf(request_with(span), "traces"), "traces")
    assert document["span"]["field_99"] == [base64.b64encode(b"new").decode()]
    assert document["span"]["field_98"] == [base64.b64encode(b"\1\2\3\4").decode()]
    assert document["span"]["field_97"] == [base64.b64encode(protobuf.varint(300)).decode()]


def test_a_known_field_of_another_wire_type_is_kept() -> None:
    span = protobuf.field(5, 7)  # name as a number
    ((document, _),) = otlp.documents(otlp.read_protobuf(request_with(span), "traces"), "traces")
    assert document["span"] == {"field_5": [base64.b64encode(b"\7").decode()]}


def test_packed_and_single_numbers_of_a_list() -> None:
    packed = protobuf.field(6, struct.pack("<QQ", 1, 2)) + protobuf.field(7, struct.pack("<d", 0.5)) + fixed(6, 3)
    point = protobuf.read(packed, "HistogramPoint")
    assert point == {"bucketCounts": ["1", "2", "3"], "explicitBounds": [0.5]}


@pytest.mark.parametrize(("value", "word"), [(float("inf"), "Infinity"), (float("-inf"), "-Infinity")])
def test_numbers_that_json_has_not(value: float, word: str) -> None:
    assert protobuf.read(real(4, value), "NumberPoint") == {"asDouble": word}
    assert protobuf.read(real(4, float("nan")), "NumberPoint") == {"asDouble": "NaN"}


def test_signed_numbers() -> None:
    assert protobuf.read(protobuf.field(6, 5), "ExponentialPoint") == {"scale": -3}
    negative = protobuf.varint(6 << 3 | 1) + struct.pack("<q", -7)
    assert protobuf.read(negative, "NumberPoint") == {"asInt": "-7"}


def _nested(depth: int) -> bytes:
    value = text(1, "x")
    for _ in range(depth):
        value = protobuf.field(5, protobuf.field(1, value))
    return protobuf.field(9, text(1, "k") + protobuf.field(2, value))


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\xff" * 11,
        b"\x0b\x00",
        request_with(b"\x2a\x02\xff\xfe"),
        request_with(_nested(20)),
    ],
)
def test_broken_protobuf_is_told(data: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        otlp.read_protobuf(data, "traces")
    assert caught.value.code == "ERR_SCHEMA"
    assert caught.value.details[0].fix


def test_too_many_fields_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "MAX_FIELDS", 10)
    with pytest.raises(Refusal):
        otlp.read_protobuf(request_with(SPAN * 3), "traces")


def test_attributes_become_plain_and_lose_nothing() -> None:
    pairs: Any = [
        {"key": "s", "value": {"stringValue": "x"}},
        {"key": "i", "value": {"intValue": "9007199254740993"}},
        {"key": "j", "value": {"intValue": 7}},
        {"key": "d", "value": {"doubleValue": 0.5}},
        {"key": "b", "value": {"boolValue": False}},
        {"key": "y", "value": {"bytesValue": "AAE="}},
        {"key": "a", "value": {"arrayValue": {"values": [{"stringValue": "1"}, {"intValue": "2"}]}}},
        {"key": "o", "value": {"kvlistValue": {"values": [{"key": "p", "value": {"boolValue": True}}]}}},
        {"key": "s", "value": {"stringValue": "again"}},
        {"key": "none"},
        {"key": "odd", "value": {"intValue": "seven"}},
    ]
    assert otlp.attributes(pairs) == {
        "s": "x",
        "i": 9007199254740993,
        "j": 7,
        "d": 0.5,
        "b": False,
        "y": {"bytesValue": "AAE="},
        "a": ["1", 2],
        "o": {"p": True},
        "s#8": "again",
        "none": None,
        "odd": {"intValue": "seven"},
    }
    assert otlp.attributes([{"key": "a", "other": 1}]) == [{"key": "a", "other": 1}]


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        (
            {"gen_ai.system": "aws.bedrock", "gen_ai.usage.prompt_tokens": 3, "gen_ai.usage.completion_tokens": 4},
            {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4},
        ),
        (
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.usage.input_tokens": 30,
                "gen_ai.usage.output_tokens": 4,
                "gen_ai.usage.cache_read.input_tokens": 20,
            },
            {
                "gen_ai.usage.input_tokens": 30,
                "gen_ai.usage.output_tokens": 4,
                "gen_ai.usage.cached_input_tokens": 20,
            },
        ),
        (
            {
                "langfuse.observation.type": "generation",
                "langfuse.observation.usage_details": '{"input": 3, "output": 5}',
                "langfuse.observation.cost_details": '{"total": 0.25}',
            },
            {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 5, "cost_usd": 0.25},
        ),
    ],
)
def test_a_call_of_a_model_tells_its_tokens(attributes: dict[str, Any], told: dict[str, float]) -> None:
    def value(one: Any) -> dict[str, Any]:
        return {"intValue": str(one)} if isinstance(one, int) else {"stringValue": one}

    span = {"name": "complete", "traceId": "a" * 32, "spanId": "b" * 16}
    span["attributes"] = [{"key": name, "value": value(one)} for name, one in attributes.items()]  # type: ignore[assignment]
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    (event,) = send(sample("otlp_traces", "json"), body=body).made.events
    assert event["type"].startswith("gen_ai.")
    assert event["metrics"] == told
    assert llm_tokens(event) == told["gen_ai.usage.input_tokens"] + told["gen_ai.usage.output_tokens"]


def test_points_of_one_attribute_set_are_one_event_of_many_metrics() -> None:
    def point(value: int, shop: str) -> dict[str, Any]:
        attributes = [{"key": "shop", "value": {"stringValue": shop}}]
        return {"asInt": str(value), "timeUnixNano": "1795258400000000000", "attributes": attributes}

    metrics = [{"name": f"m{n}", "gauge": {"dataPoints": [point(n, "eu"), point(n, "us")]}} for n in range(60)]
    request = {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}
    found = otlp.documents(request, "metrics")
    assert [len(document["points"]) for document, _ in found] == [50, 50, 10, 10]
    assert sum(len(facts["values"]) for _, facts in found) == 120


@pytest.mark.parametrize(
    "request_body",
    [
        [],
        {"resourceSpans": {}},
        {"resourceSpans": [7]},
        {"resourceSpans": [{"scopeSpans": [{"spans": "x"}]}]},
        {"resourceLogs": []},
    ],
)
def test_json_of_another_shape_is_told(request_body: Any) -> None:
    with pytest.raises(Refusal) as caught:
        otlp.documents(request_body, "traces")
    assert caught.value.details[0].rule == "otlp"


def test_answers_in_protobuf() -> None:
    assert otlp.protobuf_answer(200, "taken", 0, "", {}).raw == (b"", "application/x-protobuf")
    partial = otlp.protobuf_answer(200, "partial", 300, "no", {}).raw
    assert partial is not None
    assert partial[0] == protobuf.field(1, protobuf.field(1, 300) + text(2, "no"))
    refused = otlp.protobuf_answer(400, "refused", 1, "no", {}).raw
    assert refused is not None
    assert refused[0] == protobuf.field(1, 3) + text(2, "no")


# --- Sentry -------------------------------------------------------------------------------------------------

HEAD = b'{"event_id":"12c2d058d58442709aa2eca08bf20986"}\n'


def test_items_with_and_without_length() -> None:
    data = HEAD + b'{"type":"event","length":13}\n{"level":"a"}\n{"type":"event"}\n{"level":"b"}'
    _, documents, refused = sentry.envelope(data)
    assert [document["event"]["level"] for document, _ in documents] == ["a", "b"]
    assert refused == []


def test_payloads_may_hold_newlines_and_be_binary() -> None:
    payload = b"\x00\n\xff"
    data = HEAD + b'{"type":"attachment","length":3}\n' + payload + b'\n{"type":"event","length":2}\n{}\n'
    _, documents, _ = sentry.envelope(data)
    assert documents[0][0]["payload"] == base64.b64encode(payload).decode()
    assert documents[1][0]["event"] == {}


def test_a_bad_item_is_refused_alone() -> None:
    data = HEAD + b'{"type":"event"}\n{"a":1,"a":2}\n{"type":"event"}\n{"level":"b"}\n'
    _, documents, refused = sentry.envelope(data)
    assert [document["event"] for document, _ in documents] == [{"level": "b"}]
    assert [(place, refusal.code) for place, refusal in refused] == [(0, "ERR_JSON_DUPLICATE_KEY")]


def test_a_large_attachment_is_refused_alone() -> None:
    data = HEAD + b'{"type":"attachment","length":60000}\n' + bytes(60_000) + b'\n{"type":"event"}\n{}\n'
    _, documents, refused = sentry.envelope(data)
    assert len(documents) == 1
    assert refused[0][1].code == "ERR_EVENT_TOO_LARGE"


@pytest.mark.parametrize(
    "data",
    [
        b"not json\n",
        b"[]\n",
        HEAD + b"7\n",
        HEAD + b'{"type":"event","length":99}\n{}',
        HEAD + b'{"type":"event","length":-1}\n{}',
        HEAD + b'{"type":"event","length":true}\n{}',
        HEAD + b'{"type":"event"}\n{}\n' * 201,
    ],
)
def test_broken_framing_refuses_the_envelope(data: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        sentry.envelope(data)
    assert caught.value.details


def test_the_key_does_not_leave_the_header() -> None:
    head = {"dsn": "https://k@h.example/1", "trace": {"public_key": "k", "trace_id": "t"}}
    _, documents, _ = sentry.envelope(json.dumps(head).encode() + b'\n{"type":"event"}\n{}')
    assert documents[0][0]["envelope"] == {"trace": {"trace_id": "t"}}
