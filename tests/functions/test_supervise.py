"""The supervise handler over its samples: the schedule looks and enqueues ticks, a tick only looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from functions.supervise.handler import handler
from tests.support.delivery_fakes import Context
from tests.support.healing_fakes import World

from tocsin import wiring
from tocsin.defense.healing import Policy, Supervisor
from tocsin.kernel import clock

SAMPLES = Path(__file__).parents[2] / "events" / "supervise"
TICK_AT = 1_795_176_005_000


def _sample(name: str) -> dict[str, Any]:
    sample: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return sample


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    supervisor = Supervisor(world, world, world, world, world, Policy())
    monkeypatch.setattr(wiring, "supervisor", lambda: supervisor)
    monkeypatch.setattr(clock, "now_ms", lambda: TICK_AT)
    return world


def test_the_schedule_looks_repairs_and_enqueues_ticks(world: World) -> None:
    world.states["score"] = "Disabled"
    outcome = handler(_sample("schedule"), Context())
    assert outcome == {
        "busy": False,
        "findings": 1,
        "repaired": 1,
        "paged": 0,
        "healed": 0,
        "ticks": 12,
        "unheard": 0,
    }
    assert world.done == [("enable", "score")]
    assert {queue for queue, _ in world.ticks} == {"relay", "supervise"}


def test_a_tick_looks_and_repairs_and_enqueues_nothing(world: World) -> None:
    world.states["relay"] = "Disabled"
    assert handler(_sample("tick"), Context()) == {"batchItemFailures": []}
    assert world.done == [("enable", "relay")]
    assert world.ticks == []


def test_a_tick_that_waited_too_long_does_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: TICK_AT + 31_000)
    world.states["relay"] = "Disabled"
    assert handler(_sample("tick"), Context()) == {"batchItemFailures": []}
    assert world.done == []


def test_a_tick_whose_run_fails_is_given_back(world: World) -> None:
    world.states["relay"] = "Disabled"
    world.broken = {"record"}
    (failed,) = handler(_sample("tick"), Context())["batchItemFailures"]
    assert failed["itemIdentifier"] == _sample("tick")["Records"][0]["messageId"]


def test_every_sample_is_used() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == {"schedule", "tick"}
