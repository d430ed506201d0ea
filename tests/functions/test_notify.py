"""The notify handler over the sample messages, with delivery in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from functions.notify.handler import handler
from tests.support.delivery_fakes import Bench, Context, webhook

from tocsin import wiring
from tocsin.delivery.ports import SendResult

SAMPLES = Path(__file__).parents[2] / "events" / "notify"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench()
    bench.world.now = 1_795_000_000_000
    bench.add(webhook(project="demo"))
    monkeypatch.setattr(wiring, "dispatcher", bench.dispatcher, raising=False)
    return bench


def _sample(name: str) -> dict[str, Any]:
    sample: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return sample


@pytest.mark.parametrize(
    ("name", "sent"),
    [("incident_opened", 1), ("incident_escalated", 1), ("incident_resolved", 1), ("low_tier", 0)],
)
def test_facts(bench: Bench, name: str, sent: int) -> None:
    assert handler(_sample(name), Context()) == {"batchItemFailures": []}
    assert len(bench.receiver.got) == sent


def test_a_retry_that_fell_due(bench: Bench) -> None:
    bench.receiver.script.append(SendResult(503))
    handler(_sample("incident_opened"), Context())
    (record,) = bench.world.records.values()
    sample = _sample("retry_due")
    message = json.loads(sample["Records"][0]["body"])
    message["record"]["wake_at"] = record.wake_at
    sample["Records"][0]["body"] = json.dumps(message)
    assert handler(sample, Context()) == {"batchItemFailures": []}
    (record,) = bench.world.records.values()
    assert record.decision == "delivered"
    assert [attempt.status for attempt in record.attempts] == [503, 200]


def test_a_retry_of_nothing_is_done_with(bench: Bench) -> None:
    assert handler(_sample("retry_due"), Context()) == {"batchItemFailures": []}
    assert bench.receiver.got == []


def test_a_bad_message_is_given_back_alone(bench: Bench) -> None:
    sample = _sample("one_bad_of_two")
    failed = handler(sample, Context())["batchItemFailures"]
    assert failed == [{"itemIdentifier": sample["Records"][0]["messageId"]}]
    assert len(bench.receiver.got) == 1


def test_every_sample_is_used() -> None:
    used = {
        "incident_opened",
        "incident_escalated",
        "incident_resolved",
        "low_tier",
        "retry_due",
        "one_bad_of_two",
    }
    assert {path.stem for path in SAMPLES.glob("*.json")} == used
