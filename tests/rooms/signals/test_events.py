"""The event model: what is accepted, what each refusal says, and what is added at receipt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.ingest_fakes import NOW_MS, sample
from tools import event_schema

from tocsin.kernel.clock import HOUR, MINUTE, rfc3339
from tocsin.kernel.errors import Detail, Refusal
from tocsin.signals import events

FULL = sample(
    specversion="1.0",
    occurred_at="2026-11-20T13:00:00.5+01:00",
    entity={"type": "host", "id": "web-1"},
    body="more",
    tags={"region": "eu-1"},
    metrics={"used": 0.97},
    severity_raw="critical",
    status="resolved",
    dedup_key="disk/web-1",
    links=[{"href": "https://wiki.example/runbook", "text": "runbook"}],
    extras={"anything": [1, None, {"a": True}]},
)


def details(**fields: Any) -> list[Detail]:
    with pytest.raises(Refusal) as caught:
        events.validate(sample(**fields))
    assert caught.value.code == "ERR_SCHEMA"
    return list(caught.value.details)


def stamped(received_at: int = NOW_MS, **fields: Any) -> events.Event:
    event = events.validate(sample(**fields))
    return events.stamp(event, project="demo", event_id="evt_x", trace_id="t", received_at=received_at)


def test_a_full_event_is_kept_and_its_time_is_utc() -> None:
    assert events.validate(FULL) == FULL | {"occurred_at": "2026-11-20T12:00:00.500Z"}


def test_defaults() -> None:
    assert events.validate(sample()) == sample(
        specversion="1.0",
        body="",
        entity={"type": "source", "id": "prometheus"},
        tags={},
        metrics={},
        status="firing",
        links=[],
        extras={},
    )


def test_a_refusal_names_every_broken_rule_with_a_fix() -> None:
    found = details(id="a b", tags={"k": 1}, entity={"id": "x"}, severity_raw=1.5, status="down", score=1)
    assert {(d.field, d.rule) for d in found} == {
        ("id", "id-grammar"),
        ("tags.k", "string"),
        ("entity.type", "required"),
        ("severity_raw", "string-or-integer"),
        ("status", "one-of"),
        ("score", "server-set"),
    }
    assert all(d.fix for d in found)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("timestamp", "occurred_at"), ("Severity", "severity_raw"), ("titel", "title"), ("message", "body")],
)
def test_an_unknown_field_is_told_its_name_here(name: str, hint: str) -> None:
    (detail,) = details(**{name: "x"})
    assert (detail.rule, detail.fix) == ("unknown-field", f"use {hint}, or put it in extras")


def test_at_most_20_details() -> None:
    assert len(details(tags={f"k{i}": i for i in range(50)})) == 20


def test_stamp() -> None:
    event = stamped()
    assert event["occurred_at"] == event["received_at"] == rfc3339(NOW_MS)
    assert (event["project_id"], event["trace_id"], event["event_id"]) == ("demo", "t", "evt_x")
    assert event["dedup_key"] == "prometheus|disk.full|source:prometheus"
    assert event["flags"] == []


def test_a_long_default_dedup_key_is_hashed() -> None:
    key = stamped(source="s" * 256)["dedup_key"]
    assert key.startswith("h_")
    assert len(key) == 34
    assert key != stamped(source="s" * 255 + "t")["dedup_key"]


@pytest.mark.parametrize(
    ("offset", "flags"),
    [
        (-2 * HOUR - 1, ["late"]),
        (-2 * HOUR, []),
        (0, []),
        (5 * MINUTE, []),
        (5 * MINUTE + 1, ["clock_skew"]),
    ],
)
def test_ruling_time(offset: int, flags: list[str]) -> None:
    event = stamped(occurred_at=rfc3339(NOW_MS + offset))
    assert event["flags"] == flags
    assert events.ruling_time(event) == (NOW_MS if flags else NOW_MS + offset)


def test_sent_bytes_do_not_depend_on_order_defaults_or_time_zone() -> None:
    same = [
        FULL,
        dict(reversed(FULL.items())),
        FULL | {"occurred_at": "2026-11-20T12:00:00.500Z"},
    ]
    assert len({events.sent_bytes(events.validate(event)) for event in same}) == 1
    assert events.sent_bytes(events.validate(sample(status="firing", tags={}))) == events.sent_bytes(
        events.validate(sample())
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(events.SENT)), JSON, max_size=6))
def test_anything_is_an_event_or_a_refusal(fields: dict[str, Any]) -> None:
    schema = jsonschema.Draft202012Validator(events.json_schema())
    try:
        events.validate(sample(**fields))
    except Refusal:
        return
    assert list(schema.iter_errors(sample(**fields))) == []


def test_validated_and_stamped_events_fit_the_schema() -> None:
    event = events.stamp(
        events.validate(FULL), project="p", event_id="evt_" + "a" * 26, trace_id="t", received_at=NOW_MS
    )
    jsonschema.Draft202012Validator(events.json_schema()).validate(event)


def test_server_set_fields_are_read_only_in_the_schema_and_no_others() -> None:
    properties = events.json_schema()["properties"]
    assert {name for name, made in properties.items() if made.get("readOnly")} == set(events.SERVER_SET)
    assert not set(events.SERVER_SET) & set(events.SENT)


def test_the_published_schemas_are_up_to_date_and_valid() -> None:
    for path, text in event_schema.documents().items():
        assert path.read_text(encoding="utf-8") == text
    docs = Path(event_schema.ROOT) / "docs"
    new = json.loads((docs / "EVENT_SCHEMA.json").read_text())
    old = json.loads((docs / "EVENT_SCHEMA.draft-07.json").read_text())
    jsonschema.Draft202012Validator.check_schema(new)
    jsonschema.Draft7Validator.check_schema(old)
    for bad in (
        sample(tags={"a\0": "x"}),
        sample(metrics={"a": "1"}),
        sample(entity={"type": "a"}),
        sample(x=1),
    ):
        assert not jsonschema.Draft202012Validator(new).is_valid(bad)
        assert not jsonschema.Draft7Validator(old).is_valid(bad)
    assert jsonschema.Draft7Validator(old).is_valid(FULL)


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import tocsin.signals.events", []),
        (f"from tocsin.signals.events import validate as v; v({sample()})", ["pydantic_core"]),
    ],
)
def test_queue_functions_pay_nothing_for_validation_and_ingest_no_pydantic(code: str, loaded: list[str]) -> None:
    show = "import sys; print(*(m for m in sys.modules if m in ('pydantic', 'pydantic_core')))"
    paths = {"PYTHONPATH": str(event_schema.ROOT / "shared")}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True, env=paths
    )
    assert done.stdout.split() == loaded
