"""Fakes around intake: a queue and marks in memory, and Lambda proxy events of both fronts."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tocsin.access.principals import Principal
from tocsin.kernel.envelope import Envelope
from tocsin.kernel.errors import Retry
from tocsin.signals.intake import Intake

NOW_MS = 1_795_176_000_000  # 2026-11-20T12:00:00Z
PRINCIPAL = Principal("demo", "key_1", frozenset({"ingest:write"}))


class MemoryOutbound:
    """Keeps what was sent; refuses while `broken`."""

    def __init__(self) -> None:
        self.sent: list[Envelope] = []
        self.broken = False

    def send(self, envelope: Envelope) -> None:
        if self.broken:
            raise Retry("the queue is away", after_s=3.0)
        self.sent.append(envelope)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for envelope in self.sent for event in envelope.payload["events"]]


class MemoryMarks:
    """Marks by event id; raises Retry while `broken`."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, bool]] = {}
        self.broken = False

    def lookup(self, project: str, event_ids: Sequence[str]) -> Mapping[str, tuple[str, bool]]:
        if self.broken:
            raise Retry("the table is away")
        return {event_id: self.known[event_id] for event_id in event_ids if event_id in self.known}


def memory_intake(outbound: MemoryOutbound, marks: MemoryMarks | None = None, now: int = NOW_MS) -> Intake:
    """An Intake whose protection leaves events as they are."""
    return Intake(
        outbound,
        marks=marks,
        protect=lambda project, event: event,
        now=lambda: now,
    )


def sample(**fields: Any) -> dict[str, Any]:
    """A small valid event; keyword arguments replace or add fields."""
    return {"id": "e-1", "source": "prometheus", "type": "disk.full", "title": "Disk is full"} | fields


def rest_event(
    body: bytes | str | None,
    headers: Mapping[str, str] | None = None,
    *,
    base64_encoded: bool | None = None,
    path: str = "/v1/events",
) -> dict[str, Any]:
    """An API Gateway REST proxy event; bytes travel as base64, text as it is."""
    sent = {"content-type": "application/json", "host": "api.example.com", "x-api-key": "k"} | dict(headers or {})
    sent = {name: value for name, value in sent.items() if value != ""}
    encoded = isinstance(body, bytes) if base64_encoded is None else base64_encoded
    return {
        "httpMethod": "POST",
        "path": path,
        "headers": sent,
        "multiValueHeaders": {name: [value] for name, value in sent.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "requestContext": {"requestId": "req-1", "identity": {"sourceIp": "192.0.2.1"}},
        "body": base64.b64encode(body).decode("ascii") if isinstance(body, bytes) else body,
        "isBase64Encoded": encoded,
    }


def url_event(body: bytes | str | None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A Function URL event (payload 2.0)."""
    rest = rest_event(body, headers)
    return {
        "version": "2.0",
        "rawPath": "/v1/events",
        "rawQueryString": "",
        "headers": rest["headers"],
        "requestContext": {
            "requestId": "req-1",
            "http": {"method": "POST", "path": "/", "sourceIp": "192.0.2.1"},
        },
        "body": rest["body"],
        "isBase64Encoded": rest["isBase64Encoded"],
    }


def body_of(result: dict[str, Any]) -> dict[str, Any]:
    made = json.loads(result["body"])
    assert isinstance(made, dict)
    return made
