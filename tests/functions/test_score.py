"""The score handler over its samples: events are committed once, what cannot be read goes back alone."""

from __future__ import annotations

import io
import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from functions.score.handler import handler
from tests.support.delivery_fakes import Context
from tests.support.keys import fixed_sealer
from tests.support.pipeline_fakes import FixedCalibration, FixedTopology, MemoryBus, MemoryLedger

from tocsin import wiring
from tocsin.entry import logger
from tocsin.kernel.errors import Retry
from tocsin.signals.scorer import ScoreWorker

SAMPLES = Path(__file__).parents[2] / "events" / "score"


class EmptyBucket:
    def get(self, key: str) -> bytes:
        raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "gone"}}, "GetObject")


class World:
    """A ledger, a bus and a worker over them; `fails` names a step of the ledger that gets no answer."""

    def __init__(self) -> None:
        self.fails = ""
        self.ledger = MemoryLedger(self._step)
        self.bus = MemoryBus()
        self.worker = ScoreWorker(self.ledger, self.bus, FixedTopology(), FixedCalibration())

    def _step(self, name: str) -> None:
        if name == self.fails:
            raise Retry(f"{name} got no answer")

    @property
    def stored(self) -> list[str]:
        return [event["id"] for entries in self.ledger.log.values() for entry in entries for event in entry.events]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(wiring, "scorer", lambda: world.worker)
    monkeypatch.setattr(wiring, "envelope_key", lambda: bytes(32))
    monkeypatch.setattr(wiring, "sealer", fixed_sealer)
    monkeypatch.setattr(wiring, "bucket", EmptyBucket)
    return world


def sample(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return event


def received(event: dict[str, Any]) -> list[str]:
    return [record["messageId"] for record in event["Records"]]


def returned(result: dict[str, Any]) -> list[str]:
    return [failure["itemIdentifier"] for failure in result["batchItemFailures"]]


def test_a_request_is_scored_committed_and_announced(world: World) -> None:
    assert handler(sample("one_request"), Context()) == {"batchItemFailures": []}
    assert world.stored == ["e-1", "e-2"]
    (entry,) = world.ledger.log["demo"]
    assert all(0 < event["score"] < 1 and event["scored_by"] for event in entry.events)
    assert [(fact.kind, fact.detail["project"]) for fact in world.bus.facts] == [("EventScored", "demo")]


def test_an_invocation_that_went_well_is_one_line_that_lambda_can_read(world: World) -> None:
    log = io.StringIO()
    log_handler = cast("logging.StreamHandler[io.StringIO]", logger.registered_handler)
    before = log_handler.setStream(log)
    try:
        handler(sample("one_request"), Context())
        handler(sample("one_request"), Context())
    finally:
        log_handler.setStream(cast("io.StringIO", before))
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["level"], line["stored"], line["duplicates"]) for line in lines] == [("INFO", 2, 0), ("INFO", 0, 2)]
    for line in lines:
        assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None
        assert "T" in line["timestamp"]


def test_poison_is_given_back_alone(world: World) -> None:
    event = sample("poison_among_good")
    broken, good, forged, newer, gone, other = received(event)
    assert returned(handler(event, Context())) == [broken, forged, newer, gone]
    assert sorted(world.stored) == ["e-1", "e-2", "e-3"]
    assert list(world.ledger.log) == ["demo"]
    assert {good, other}.isdisjoint(returned(handler(event, Context())))


def test_a_redelivered_request_changes_nothing(world: World) -> None:
    for _ in range(3):
        assert handler(sample("one_request"), Context()) == {"batchItemFailures": []}
    assert world.stored == ["e-1", "e-2"]
    assert world.ledger.counters == {"demo": 2}


def test_copies_in_one_batch_are_one_event(world: World) -> None:
    assert handler(sample("same_event_twice"), Context()) == {"batchItemFailures": []}
    assert world.stored == ["e-1"]


@pytest.mark.parametrize("step", ["claim", "states", "commit"])
def test_trouble_gives_every_message_of_the_project_back_and_stores_nothing(world: World, step: str) -> None:
    world.fails = step
    event = sample("one_request")
    assert returned(handler(event, Context())) == received(event)
    assert world.stored == []
    assert world.bus.facts == []


def test_without_time_everything_is_given_back_untouched(world: World) -> None:
    class Late(Context):
        @staticmethod
        def get_remaining_time_in_millis() -> int:
            return 500

    event = sample("one_request")
    assert returned(handler(event, Late())) == received(event)
    assert world.ledger.marks == {}


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
    assert (world.stored, world.ledger.marks) == ([], {})


def test_every_sample_is_used() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == {"one_request", "poison_among_good", "same_event_twice"}


def forged(sample_body: str, **changes: Any) -> str:
    return json.dumps(json.loads(sample_body) | changes)


FORGED: dict[str, Any] = {
    "B77 no JSON": lambda good: "x",
    "B77 no envelope": lambda good: "{}",
    "B77 no version": lambda good: json.dumps({k: v for k, v in json.loads(good).items() if k != "v"}),
    "B77 unknown version": lambda good: forged(good, v=99),
    "B77 another project": lambda good: forged(good, project="other"),
    "B77 another payload": lambda good: forged(good, payload="e30="),
    "B77 a claim of somebody's": lambda good: json.dumps({"claim": "exports/other/secret"}),
    "B77 no MAC": lambda good: forged(good, mac=None),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_message_that_ingest_did_not_make_is_given_back_until_it_is_a_dead_letter(world: World, name: str) -> None:
    event = sample("one_request")
    (record,) = event["Records"]
    record["body"] = FORGED[name](record["body"])
    assert returned(handler(event, Context())) == received(event)
    assert world.stored == []
    assert world.bus.facts == []
