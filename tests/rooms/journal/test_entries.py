"""Entries hold nothing that would ever have to be taken out again, in one canonical form."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.rooms.journal.memory import NOW, entry
from tocsin.journal.entries import MAX_BYTES, Entry, content_digest, sealable


def test_the_leaf_is_rfc_8785() -> None:
    leaf = entry(7).leaf()
    assert leaf == (
        b'{"action":"incident:open","actor":"system:correlate","at":%d,"digests":{"incident":"%s"},'
        b'"id":"evd_demo_7","kind":"incident.opened","outcome":"done","project":"demo","resource":"incident:inc_7",'
        b'"trace_id":"00000000000000000000000000000007","v":1}'
    ) % (NOW + 7, content_digest({"number": 7}).encode())
    assert Entry.from_payload(json.loads(leaf)) == entry(7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("actor", "alice@example.com"),
        ("actor", "Alice Smith"),
        ("actor", "usr_short"),
        ("resource", "event:alice@example.com"),
        ("resource", "incident:the database is down"),
        ("resource", "inc_7"),
        ("action", "delete"),
        ("kind", "Incident Opened"),
        ("project", "De Mo"),
        ("id", ""),
        ("id", "x" * 201),
        ("trace_id", "short"),
        ("outcome", "maybe"),
        ("at", -1),
        ("at", 1 << 53),
        ("at", True),
        ("at", 1.5),
        ("digests", {"request": "hello"}),
        ("digests", {"request": "sha256:" + "A" * 64}),
        ("digests", {"Re quest": "sha256:" + "a" * 64}),
        ("digests", {f"d{i}": "sha256:" + "a" * 64 for i in range(17)}),
        ("digests", ["sha256"]),
        ("kind", "incident.opened\n"),
        ("kind", None),
    ],
)
def test_free_text_has_no_place(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field) as refused:
        replace(entry(1), **{field: value})
    assert not isinstance(value, str) or len(value) < 9 or value not in str(refused.value)


def test_the_largest_entry_is_small() -> None:
    largest = Entry(
        id="i" * 200,
        kind="k" * 64,
        at=(1 << 53) - 1,
        project="p" * 64,
        actor="system:" + "a" * 64,
        action="a" * 32 + ":" + "b" * 64,
        resource="r" * 32 + ":" + "s" * 96,
        trace_id="t" * 64,
        outcome="refused",
        digests={f"{'d' * 30}{i:02d}": "sha256:" + "f" * 64 for i in range(16)},
    )
    assert len(largest.leaf()) <= MAX_BYTES


@pytest.mark.parametrize("extra", [{"v": 2}, {"v": None}, {"note": "hello"}, {"outcome": None}, {"digests": None}])
def test_other_fields_and_versions_are_no_entry(extra: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fields|outcome|digests"):
        Entry.from_payload(entry(1).payload() | extra)


@pytest.mark.parametrize("payload", [{}, {"secret": "hunter2"}, None, [], "text", {**entry(1).payload(), "actor": 5}])
def test_what_is_no_entry_is_recorded_by_its_digest(payload: Any) -> None:
    made = sealable("row-1", "demo", NOW, payload)
    assert made.kind == "journal.malformed"
    assert made.project == "demo"
    assert b"hunter2" not in made.leaf()
    assert made == sealable("row-1", "demo", NOW, payload)
    assert made.id != sealable("row-2", "demo", NOW, payload).id


def test_an_entry_of_another_project_is_not_sealed_as_such() -> None:
    assert sealable("r", "demo", NOW, entry(1, "other").payload()).kind == "journal.malformed"
    assert sealable("r", "demo", NOW, entry(1).payload()) == entry(1)


def test_digests() -> None:
    assert content_digest({"b": 1, "a": [True]}) == content_digest(b'{"a":[true],"b":1}')
