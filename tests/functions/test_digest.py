"""The digest handler over the sample messages, with delivery in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from functions.digest.handler import handler
from tests.support.delivery_fakes import Bench, ChannelRows, Context, fact, webhook

from tocsin import wiring
from tocsin.delivery.digest import Digester
from tocsin.delivery.model import PushBudget
from tocsin.kernel import clock

SAMPLES = Path(__file__).parents[2] / "events" / "digest"


class Beats:
    """Heartbeats that were written, by worker."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def beat(self, name: str, now: int) -> None:
        self.seen.append(name)


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> Beats:
    beats = Beats()
    monkeypatch.setattr(wiring, "heartbeats", lambda: beats)
    return beats


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, beats: Beats) -> Bench:
    bench = Bench()
    bench.world.now = clock.parse_rfc3339("2026-11-20T09:30:00Z")
    for project in ("acme", "demo"):
        bench.add(webhook(project=project, budget=PushBudget(60, 1), created_at=bench.world.now - clock.HOUR))
        for incident in ("inc_1", "inc_2"):
            bench.dispatcher().handle({**fact(incident=incident), "project": project})
    bench.receiver.got.clear()
    bench.world.now = clock.parse_rfc3339("2026-11-20T10:00:07Z")
    digester = Digester(
        channels=ChannelRows(bench.world),
        store=bench.world,
        dispatcher=bench.dispatcher(),
        open_incidents=lambda project, limit: [],
        projects=lambda: ["acme", "demo"],
        clock=bench.world.clock,
    )
    monkeypatch.setattr(wiring, "digester", lambda: digester)
    return bench


def _sample(name: str) -> dict[str, Any]:
    sample: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return sample


def test_the_schedule_serves_every_project_once(bench: Bench) -> None:
    for _ in range(2):
        assert handler(_sample("hourly_schedule"), Context()) == {"batchItemFailures": []}
    events = [json.loads(body) for _, _, body, _ in bench.receiver.got]
    assert [event["data"]["project"] for event in events] == ["acme", "demo"]
    assert {event["type"] for event in events} == {"dev.tocsin.digest"}
    assert [event["data"]["withheld"]["total"] for event in events] == [1, 1]


def test_one_project(bench: Bench) -> None:
    handler(_sample("one_project"), Context())
    assert [json.loads(body)["data"]["project"] for _, _, body, _ in bench.receiver.got] == ["demo"]


def test_a_message_without_a_time_is_given_back(bench: Bench, beats: Beats) -> None:
    assert len(handler(_sample("no_time"), Context())["batchItemFailures"]) == 1
    assert bench.receiver.got == []
    assert beats.seen == []


def test_a_good_run_leaves_a_heartbeat(bench: Bench, beats: Beats) -> None:
    handler(_sample("one_project"), Context())
    assert beats.seen == ["digest"]


def test_every_sample_is_used() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == {"hourly_schedule", "one_project", "no_time"}
