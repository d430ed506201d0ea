"""Seeded secrets, sent by every way in: none is in any log line, row, object or message of the running stack."""

from __future__ import annotations

import gzip
import json
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from tests.stack.conftest import Deployed, eventually
from tests.stack.test_privacy import found_in

pytestmark = pytest.mark.stack
JSON, NDJSON = {"Content-Type": "application/json"}, {"Content-Type": "application/x-ndjson"}


def seeds() -> dict[str, str]:
    """What must not be kept, each with a part that occurs nowhere else."""
    tag = secrets.token_hex(8)
    return {
        "email": f"ada.{tag}@example.com",
        "aws_key": "AKIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)),
        "github_token": f"ghp_{tag}{secrets.token_hex(10)}",
        "password": f"hunter{secrets.token_hex(8)}",
        "bearer": secrets.token_hex(20),
        "userinfo": f"svc:{secrets.token_hex(8)}",
    }


def telling(seed: dict[str, str]) -> str:
    """A text that holds all of them, as careless software writes it."""
    return (
        f"login of {seed['email']} with {seed['aws_key']} and {seed['github_token']} password={seed['password']} "
        f"Authorization: Bearer {seed['bearer']} at postgres://{seed['userinfo']}@db.example.com/x"
    )


def event(text: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": secrets.token_hex(8),
        "source": "leaks",
        "type": "auth.failed",
        "title": text[:500],
        "body": text,
        "severity_raw": "critical",
        "tags": {"note": text[:200]},
        "extras": {"nested": [{"deep": text}], "password": text.partition("password=")[2].partition(" ")[0]},
        **fields,
    }


#: Each says `text` in another way to the project's address and returns the statuses it may be answered with.
WAYS: dict[str, Callable[[Deployed, str, str], set[int]]] = {}


def way(function: Callable[[Deployed, str, str], set[int]]) -> Callable[[Deployed, str, str], set[int]]:
    WAYS[function.__name__.strip("_").replace("_", " ")] = function
    return function


@way
def _an_event(deployed: Deployed, key: str, text: str) -> set[int]:
    return {deployed.call("POST", "/v1/events", event(text), key=key).status}


@way
def _lines_by_the_bulk_front(deployed: Deployed, key: str, text: str) -> set[int]:
    body = gzip.compress(b"\n".join(json.dumps(event(text)).encode() for _ in range(3)))
    headers = {**NDJSON, "Content-Encoding": "gzip"}
    return {deployed.raw("POST", "/v1/events", body, headers, key=key, base="bulk_url").status}


@way
def _a_cloudevent(deployed: Deployed, key: str, text: str) -> set[int]:
    ce = {"specversion": "1.0", "id": secrets.token_hex(4), "source": "/a", "type": "t", "data": {"message": text}}
    headers = {"Content-Type": "application/cloudevents+json"}
    return {deployed.raw("POST", "/v1/events", json.dumps(ce).encode(), headers, key=key).status}


@way
def _an_alert_of_a_sender(deployed: Deployed, key: str, text: str) -> set[int]:
    alert = {"labels": {"alertname": "Leak", "severity": "critical"}, "annotations": {"description": text}}
    page = {
        "routing_key": key,
        "event_action": "trigger",
        "payload": {"summary": text, "source": "db", "severity": "critical", "custom_details": {"why": text}},
    }
    return {
        deployed.call("POST", "/alertmanager/api/v2/alerts", [alert], key=key).status,
        deployed.call("POST", "/v2/enqueue", page).status,
    }


@way
def _bodies_that_are_refused(deployed: Deployed, key: str, text: str) -> set[int]:
    bad = [
        json.dumps(event(text, **{text: 1})).encode(),
        json.dumps(event(text, id=text)).encode(),
        json.dumps(event(text, severity_raw=[text])).encode(),
        f'{{"title": "{text}"'.encode(),
        json.dumps({"title": text}).encode() * 2,
    ]
    return {deployed.raw("POST", "/v1/events", body, JSON, key=key).status for body in bad}


@way
def _headers(deployed: Deployed, key: str, text: str) -> set[int]:
    body = json.dumps(event("nothing")).encode()
    names = ("User-Agent", "X-Trace-Id", "Cookie", "Referer", "X-Approval", "traceparent")
    said = {deployed.raw("POST", "/v1/events", body, {**JSON, name: text}, key=key).status for name in names}
    return said | {deployed.raw("GET", "/v1/events", b"", {"Authorization": f"Bearer {text[:200]}"}).status}


@way
def _addresses(deployed: Deployed, key: str, text: str) -> set[int]:
    quoted = quote(text[:80], safe="")
    return {
        deployed.call("GET", f"/v1/events/{quoted}", key=key).status,
        deployed.call("GET", f"/v1/{quoted}", key=key).status,
        deployed.call("GET", f"/v1/events?source={quoted}", key=key).status,
        deployed.call("GET", f"/v1/events?{quoted}=1", key=key).status,
        deployed.call("GET", f"/v1/events?cursor={quoted}", key=key).status,
    }


def test_no_seeded_secret_is_kept_anywhere(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    hook = {"kind": "webhook", "name": "team", "url": f"{deployed.contract['receiver']}/hook"}
    deployed.made("/v1/channels", hook, key)
    sown: list[str] = []
    for name, tell in WAYS.items():
        seed = seeds()
        statuses = tell(deployed, key, telling(seed))
        assert not {status for status in statuses if status >= 500}, name
        sown += [seed["email"], seed["aws_key"], seed["github_token"], seed["password"], seed["bearer"]]
        sown.append(seed["userinfo"].partition(":")[2])
    taken = 1 + 3 + 1 + 2  # and what came with telling headers
    eventually(lambda: (n := deployed.stored(project)) > taken and deployed.settled(project, n), within_s=40)
    eventually(lambda: deployed.get("/v1/notifications", key)["items"], within_s=40)
    assert found_in(deployed, *sown) == []
    # What is sealed is not readable there; so it is asked of the API, which opens it.
    shown = json.dumps(
        [deployed.get(f"/v1/{what}?limit=100", key)["items"] for what in ("events", "incidents", "notifications")]
    )
    assert "[redacted:email]" in shown
    assert [one for one in sown if one in shown] == []
