"""CloudEvents 1.0 in its three modes: the same event from each, and nothing of it lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.kernel.errors import Refusal
from tocsin.signals.cloudevents import from_headers, to_sent

CE: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "source": "/shop/eu",
    "type": "com.example.order.failed",
}


def refused(ce: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        to_sent(ce)
    assert caught.value.code == "ERR_SCHEMA"
    return caught.value


def test_attributes_become_fields() -> None:
    event = to_sent(
        CE | {"time": "2026-11-20T12:00:00+01:00", "subject": "order/7", "dataschema": "https://a.example/s"}
    )
    assert (event["id"], event["source"], event["type"]) == ("1", "/shop/eu", "com.example.order.failed")
    assert event["occurred_at"] == "2026-11-20T11:00:00.000Z"
    assert event["entity"] == {"type": "subject", "id": "order/7"}
    assert event["title"] == "order/7"
    assert event["extras"] == {"dataschema": "https://a.example/s"}


def test_data_that_looks_like_an_event_is_used() -> None:
    data = {
        "title": "Orders fail",
        "body": "long",
        "entity": {"type": "service", "id": "cart"},
        "tags": {"env": "prod"},
        "metrics": {"rate": 0.5},
        "severity_raw": "error",
        "status": "resolved",
        "dedup_key": "k",
        "links": [{"href": "https://a.example"}],
    }
    event = to_sent(CE | {"data": data | {"order": 7}, "subject": "s"})
    assert {name: event[name] for name in data} == data
    assert event["extras"] == {"data": {"order": 7}}


def test_members_that_are_no_fields_stay_in_data() -> None:
    data = {
        "title": 5,
        "message": "it failed",
        "tags": ["a"],
        "status": "red",
        "links": [{"href": "javascript:alert(1)"}],
        "severity": "high",
        "entity": "cart",
    }
    event = to_sent(CE | {"data": data})
    assert event["title"] == "it failed"
    assert event["severity_raw"] == "high"
    assert (event["tags"], event["status"], event["links"]) == ({}, "firing", [])
    assert event["extras"]["data"] == data


@pytest.mark.parametrize(
    ("parts", "title"),
    [
        ({"data": {"title": "a", "message": "b"}, "subject": "c"}, "a"),
        ({"data": {"title": " ", "message": "b"}, "subject": "c"}, "b"),
        ({"data": {"other": 1}, "subject": "c"}, "c"),
        ({"data": "text"}, "com.example.order.failed"),
        ({"data": {"message": "m" * 5000}}, "m" * 1024),
        ({"data": {"title": "m" * 5000}}, "m" * 1024),
    ],
)
def test_title(parts: dict[str, Any], title: str) -> None:
    event = to_sent(CE | parts)
    assert event["title"] == title
    if len(title) == 1024:
        assert "m" * 5000 in event["extras"]["data"].values()


def test_ids_outside_the_grammar_are_hashed_and_kept() -> None:
    first, second = to_sent(CE | {"id": "a/1#x"}), to_sent(CE | {"id": "a/1#y"})
    assert first["id"].startswith("h_")
    assert first["id"] == to_sent(CE | {"id": "a/1#x"})["id"] != second["id"]
    assert first["extras"]["ce_id"] == "a/1#x"
    assert "ce_id" not in to_sent(CE)["extras"]


def test_long_source_and_subject_are_hashed_and_kept() -> None:
    event = to_sent(CE | {"source": "s" * 300, "subject": "t" * 300})
    assert event["source"].startswith("h_")
    assert event["entity"]["id"].startswith("h_")
    assert (event["extras"]["ce_source"], event["extras"]["ce_subject"]) == ("s" * 300, "t" * 300)


def test_null_attributes_count_as_absent() -> None:
    assert to_sent(CE | {"subject": None, "data": None, "time": None}) == to_sent(CE)


@pytest.mark.parametrize("data", [0, "", [], {}, False, "x", [1, {"a": None}]])
def test_data_of_any_shape_is_kept(data: Any) -> None:
    assert to_sent(CE | {"data": data})["extras"]["data"] == data


def test_extensions_are_kept_and_severity_is_understood() -> None:
    event = to_sent(CE | {"traceparent": "00-1", "partitionkey": "p", "sampledrate": 3, "severity": "warning"})
    assert event["extras"] == {
        "traceparent": "00-1",
        "partitionkey": "p",
        "sampledrate": 3,
        "severity": "warning",
    }
    assert event["severity_raw"] == "warning"


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"specversion": "0.3"}, "specversion", "one-of"),
        ({"specversion": 1.0}, "specversion", "string"),
        ({"id": ""}, "id", "string"),
        ({"id": "a\x07"}, "id", "visible-characters"),
        ({"subject": "a\u202eb"}, "subject", "visible-characters"),
        ({"source": None}, "source", "required"),
        ({"type": 7}, "type", "string"),
        ({"my_ext": 1}, "my_ext", "attribute-name"),
        ({"data": 1, "data_base64": "AA=="}, "data_base64", "either"),
        ({"data_base64": "A==="}, "data_base64", "base64"),
        ({"data_base64": 5}, "data_base64", "base64"),
        ({"time": "now"}, "occurred_at", "date-time"),
    ],
)
def test_refusals(change: dict[str, Any], field: str, rule: str) -> None:
    assert (field, rule) in {(d.field, d.rule) for d in refused(CE | change).details}


@pytest.mark.parametrize("ce", [None, 1, "x", [], [CE], {}])
def test_not_a_cloudevent(ce: Any) -> None:
    refused(ce)


def headers(ce: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return {f"ce-{name}": (value,) for name, value in ce.items()} | {"host": ("a.example",)}


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers(-9, 9) | st.text(max_size=9), max_size=4))
def test_binary_and_structured_mode_agree(data: dict[str, Any]) -> None:
    try:
        body = json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    binary = from_headers(headers(CE), "application/json", body)
    structured = CE | {"datacontenttype": "application/json", "data": data}
    assert binary == structured


def test_binary_header_values_are_percent_decoded() -> None:
    made = from_headers(headers(CE | {"subject": "Euro%20%E2%82%AC%20%F0%9F%98%80", "note": '"a \\" b"'}), "", b"")
    assert (made["subject"], made["note"]) == ("Euro \u20ac \U0001f600", 'a " b')


@pytest.mark.parametrize(
    ("content_type", "body", "kept"),
    [
        ("application/json", b'{"a":1}', {"data": {"a": 1}}),
        ("application/vnd.x+json; charset=utf-8", b"[1]", {"data": [1]}),
        ("", b'{"a":1}', {"data": {"a": 1}}),
        ("", b"plain", {"data_base64": "cGxhaW4="}),
        ("text/plain", "\u00e4".encode(), {"data": "\u00e4"}),
        ("text/plain; charset=latin-1", b"\xe4", {"data_base64": "5A=="}),
        ("application/xml", b"<a/>", {"data_base64": "PGEvPg=="}),
        ("image/png", b"", {}),
    ],
)
def test_binary_data(content_type: str, body: bytes, kept: dict[str, Any]) -> None:
    made = from_headers(headers(CE), content_type, body)
    assert {
        name: value for name, value in made.items() if name.startswith("data") and name != "datacontenttype"
    } == kept
    assert made.get("datacontenttype", "") == content_type
    to_sent(made)


@pytest.mark.parametrize(
    "extra",
    [{"ce-id": ("1", "2")}, {"ce-subject": ("%ff",)}, {"ce-data": ("x",)}, {"ce-datacontenttype": ("a/b",)}],
)
def test_binary_refusals(extra: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(Refusal) as caught:
        from_headers(headers(CE) | extra, "", b"")
    assert caught.value.code == "ERR_SCHEMA"
