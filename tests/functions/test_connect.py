"""The connect function: requests of real senders through the real handler, each answered in its own dialect."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from functions.connect.handler import handler
from tests.functions.conftest import DenialsFake
from tests.support.delivery_fakes import Context
from tests.support.ingest_fakes import MemoryOutbound, memory_intake

from tocsin import wiring
from tocsin.access.principals import Principal
from tocsin.api.matching import operation_of
from tocsin.connectors.alertmanager import Alertmanager
from tocsin.connectors.alerts import Alert, merged
from tocsin.connectors.reception import Reception
from tocsin.connectors.silences import Silence
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Request

FOLDER = Path(__file__).parents[2] / "events" / "connect"
SAMPLES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
REQUESTS = sorted(name for name, event in SAMPLES.items() if event.get("httpMethod") == "POST")
NOW = clock.parse_rfc3339("2026-11-21T10:53:20.700Z")


class World:
    """A queue, alerts and silences in memory; `scopes` are those of whoever calls."""

    def __init__(self) -> None:
        self.queue = MemoryOutbound()
        self.scopes = {"ingest:write", "events:read"}
        self.kept: dict[str, Alert] = {}
        self.upto = NOW
        self.now = NOW
        self.operators = "ops"

    def principal_of(self, request: Request) -> Principal:
        if "tcn_demo" not in str([*request.headers.get("x-api-key", ()), *request.headers.get("authorization", ())]):
            raise Refusal("ERR_AUTH_INVALID", "The API key is not valid.")
        return Principal("demo", "key_1", frozenset(self.scopes))

    # AlertStore
    def put(self, project: str, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            self.kept[alert.fingerprint] = merged(self.kept.get(alert.fingerprint), alert, self.now)

    def get(self, project: str, fingerprints: Collection[str]) -> Sequence[Alert]:
        return [alert for name, alert in self.kept.items() if name in fingerprints]

    def all(self, project: str) -> Sequence[Alert]:
        return list(self.kept.values())

    # Leased
    def since(self) -> Sequence[tuple[str, int]]:
        return [("demo", self.upto)]

    def done(self, project: str, until: int) -> None:
        self.upto = until


class NoSilences:
    def put(self, project: str, silence: Silence) -> None:
        raise AssertionError

    def get(self, project: str, silence_id: str) -> Silence | None:
        return None

    def all(self, project: str) -> Sequence[Silence]:
        return []


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    class Door(wiring.SenderDoor):
        def by_signature(self, key_id: str, request: Request) -> Principal:
            return self._sender(Principal("demo", key_id, frozenset(made.scopes), kind="signature"))

    def reception() -> Reception:
        return Reception(memory_intake(made.queue, now=made.now), Door(), alerts=made, now=lambda: made.now)

    monkeypatch.setattr(wiring, "principal_of", made.principal_of)
    monkeypatch.setattr(wiring, "reception", reception)
    monkeypatch.setattr(wiring, "leased", lambda: made)
    monkeypatch.setattr(wiring, "operators_project", lambda: made.operators)
    monkeypatch.setattr(
        wiring, "alertmanager", lambda: Alertmanager(made, NoSilences(), started_at=NOW, now=lambda: made.now)
    )
    monkeypatch.setattr(clock, "now_ms", lambda: made.now)
    return made


@pytest.mark.parametrize("name", REQUESTS)
def test_samples_become_events(name: str, world: World) -> None:
    result = handler(SAMPLES[name], None)
    assert result["statusCode"] in (200, 202)
    assert world.queue.events


@pytest.mark.parametrize("name", REQUESTS)
def test_a_key_that_may_not_send_is_refused_and_nothing_is_taken(name: str, world: World) -> None:
    world.scopes = {"events:read"}
    assert handler(SAMPLES[name], None)["statusCode"] in (401, 403)
    assert world.queue.sent == []


def test_reading_needs_its_own_scope(world: World) -> None:
    result = handler(SAMPLES["alertmanager_status"], None)
    assert result["statusCode"] == 200
    assert json.loads(result["body"])["cluster"]["status"] == "disabled"
    world.scopes = {"ingest:write"}
    refused = handler(SAMPLES["alertmanager_status"], None)
    assert refused["statusCode"] == 403
    assert isinstance(json.loads(refused["body"]), str)


@pytest.mark.parametrize("path", ["/v2/nothing", "/alertmanager/api/v1/alerts", "/api/public/nothing"])
def test_a_branch_holds_only_what_is_listed(path: str, world: World) -> None:
    event: dict[str, Any] = {**SAMPLES["pagerduty_trigger"], "path": path}
    assert handler(event, None)["statusCode"] == 404


def test_alerts_are_listed_until_their_lease_ends_and_then_resolve(world: World) -> None:
    handler(SAMPLES["alertmanager_alerts"], None)
    listing = {**SAMPLES["alertmanager_status"], "path": "/alertmanager/api/v2/alerts"}
    fired = json.loads(handler(listing, None)["body"])
    assert {one["status"]["state"] for one in fired} == {"active"}

    world.now += clock.HOUR
    assert handler(SAMPLES["lapse"], None) == {"ended": len(fired)}
    ended = world.queue.events[-len(fired) :]
    assert {event["status"] for event in ended} == {"resolved"}
    assert {event["dedup_key"] for event in ended} == {f"alertmanager:{one['fingerprint']}" for one in fired}
    assert json.loads(handler(listing, None)["body"]) == []
    assert handler(SAMPLES["lapse"], None) == {"ended": 0}


def test_who_is_turned_away_is_noted_whatever_the_dialect(world: World, denials: DenialsFake) -> None:
    for name in ("pagerduty_trigger", "alertmanager_status"):
        world.scopes = set()
        handler(SAMPLES[name], None)
    assert [(code, operation) for code, operation, _ in denials.noted] == [
        ("ERR_SCOPE", operation_in("pagerduty_trigger")),
        ("ERR_SCOPE", operation_in("alertmanager_status")),
    ]


def operation_in(name: str) -> str:
    return operation_of(SAMPLES[name]["httpMethod"], SAMPLES[name]["path"])


def queued(event: Any) -> dict[str, Any]:
    """As the queue brings what the account's bus tells."""
    return {"Records": [{"messageId": "m1", "body": json.dumps(event)}]}


def test_an_alarm_of_the_account_is_the_operators(world: World) -> None:
    world.now = clock.parse_rfc3339("2026-11-21T10:54:10.000Z")
    assert handler(queued(SAMPLES["account_alarm"]), Context()) == {"batchItemFailures": []}
    (envelope,) = world.queue.sent
    assert envelope.project == "ops"
    (event,) = world.queue.events
    assert (event["source"], event["status"], event["type"]) == ("aws.cloudwatch", "firing", "cloudwatch.alarm")


def test_what_cannot_be_taken_from_the_bus_fails_so_that_it_is_kept(world: World) -> None:
    given_back = {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert handler(queued({**SAMPLES["account_alarm"], "detail": "no object"}), Context()) == given_back
    world.queue.broken = True
    assert handler(queued(SAMPLES["account_alarm"]), Context()) == given_back
    world.queue.broken, world.operators = False, ""
    assert handler(queued(SAMPLES["account_alarm"]), Context()) == given_back
    assert world.queue.sent == []
