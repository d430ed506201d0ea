"""The correlate handler over its samples: wake-ups bring a project up to date, timers let incidents end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from functions.correlate.handler import handler
from tests.support.delivery_fakes import Context
from tests.support.events import stored_event
from tests.support.pipeline_fakes import (
    FixedCalibration,
    FixedTopology,
    MemoryBus,
    MemoryIncidentStore,
    MemoryLedger,
    MemoryOutbox,
    sealed,
)

from tocsin import wiring
from tocsin.kernel import clock
from tocsin.kernel.errors import Retry
from tocsin.signals.correlation import Policy
from tocsin.signals.correlator import CorrelateWorker
from tocsin.signals.ports import Message
from tocsin.signals.scorer import ScoreWorker

SAMPLES = Path(__file__).parents[2] / "events" / "correlate"
NOW = 1_795_176_000_000


class World:
    """Two projects with two scored commits each, and a worker; `fails` names a step that gets no answer."""

    def __init__(self) -> None:
        self.now = NOW
        self.fails = ""
        self.ledger = MemoryLedger()
        self.stores: dict[str, MemoryIncidentStore] = {}
        self.outbox = MemoryOutbox()
        self.store = MemoryIncidentStore(self._step)
        self.worker = CorrelateWorker(
            self.ledger, self.store, self.outbox, FixedTopology(), policy=Policy(), now=lambda: self.now
        )
        scorer = ScoreWorker(self.ledger, MemoryBus(), FixedTopology(), FixedCalibration(), now=lambda: NOW)
        for project in ("demo", "other"):
            for n in (1, 2):
                event = stored_event(f"e-{n}", at=NOW - 60_000, project=project, trace_id=f"trace-{n}", severity_id=5)
                payload = {"events": [event], "digests": ["00" * 16]}
                scorer.handle(sealed(Message(f"m-{n}", project, f"trace-{n}", payload)), lambda: 20_000)

    def _step(self, name: str) -> None:
        if name == self.fails:
            raise Retry(f"{name} got no answer")

    @property
    def done(self) -> dict[str, int]:
        """Next commit to correlate, by project that was looked at."""
        return {project: cursor.n for project, cursor in self.store.cursors.items()}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(wiring, "correlator", lambda: world.worker)
    return world


def sample(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return event


def received(event: dict[str, Any]) -> list[str]:
    return [record["messageId"] for record in event["Records"]]


def returned(result: dict[str, Any]) -> list[str]:
    return [failure["itemIdentifier"] for failure in result["batchItemFailures"]]


@pytest.mark.parametrize("name", ["event_scored", "wake"])
def test_a_wake_up_brings_its_project_up_to_date(name: str, world: World) -> None:
    assert handler(sample(name), Context()) == {"batchItemFailures": []}
    assert world.done == {"demo": 3}
    assert world.store.partition() == {frozenset({(1, 0), (2, 0)})}
    (fact,) = [fact for row in world.outbox.sent if row.kind == "fact" for fact in row.payload["facts"]]
    assert (fact["kind"], fact["detail"]["project"]) == ("IncidentOpened", "demo")
    assert fact["detail"]["trace_id"] == "trace-2"


def test_a_repeated_wake_up_changes_nothing(world: World) -> None:
    handler(sample("event_scored"), Context())
    before = (dict(world.store.rows), len(world.outbox.sent))
    assert handler(sample("event_scored"), Context()) == {"batchItemFailures": []}
    assert (world.store.rows, len(world.outbox.sent)) == before


def test_poison_is_given_back_alone(world: World) -> None:
    event = sample("poison_among_good")
    broken, _, array, nobody, _, nothing, _ = received(event)
    assert returned(handler(event, Context())) == [broken, array, nobody, nothing]
    assert world.done == {"demo": 3, "other": 3}


def test_a_quiet_incident_is_resolved_by_its_timer_and_a_busy_one_is_not(world: World) -> None:
    handler(sample("wake"), Context())
    (incident_id,) = world.store.rows
    timer = sample("quiet_timer")
    body = json.loads(timer["Records"][0]["body"])
    timer["Records"][0]["body"] = json.dumps(body | {"incident_ids": [incident_id]})
    for after, status in ((58 * clock.MINUTE, "open"), (61 * clock.MINUTE, "resolved")):
        world.now = NOW + after
        assert handler(timer, Context()) == {"batchItemFailures": []}
        incident = world.store.get("demo", incident_id)
        assert incident is not None
        assert incident.status == status


def test_timers_that_fail_go_back_and_the_others_do_not(world: World) -> None:
    handler(sample("wake"), Context())
    (incident_id,) = world.store.rows
    world.store.rows[incident_id] = "damaged"
    batch = sample("quiet_timer")
    (first,) = batch["Records"]
    body = json.loads(first["body"]) | {"incident_ids": [incident_id]}
    batch["Records"].append(first | {"messageId": "damaged", "body": json.dumps(body)})
    assert returned(handler(batch, Context())) == ["damaged"]


def test_a_timer_of_an_incident_that_is_gone_is_done_with(world: World) -> None:
    assert handler(sample("quiet_timer"), Context()) == {"batchItemFailures": []}
    assert world.store.rows == {}


@pytest.mark.parametrize("step", ["cursor", "view", "save"])
def test_trouble_gives_wake_ups_back_and_moves_no_cursor(step: str, world: World) -> None:
    world.fails = step
    event = sample("event_scored")
    assert returned(handler(event, Context())) == received(event)
    assert world.done == {}


@pytest.mark.parametrize("name", sorted(path.stem for path in SAMPLES.glob("*.json")))
def test_only_received_messages_are_given_back(name: str, world: World) -> None:
    event = sample(name)
    ids = returned(handler(event, Context()))
    assert set(ids) <= set(received(event))
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "event", [{}, [], None, "x", {"Records": [{"body": "x"}]}, {"httpMethod": "GET"}], ids=range(6)
)
def test_events_of_another_trigger_touch_nothing(event: Any, world: World) -> None:
    assert handler(event, Context()) == {"batchItemFailures": [], "error": "ERR_UNSUPPORTED_EVENT"}
    assert world.done == {}


def test_every_sample_is_used() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == {
        "event_scored",
        "wake",
        "quiet_timer",
        "poison_among_good",
    }
