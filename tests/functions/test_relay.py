"""The relay handler over its sample: one sweep at a time, then a heartbeat; stale ticks are dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from functions.relay.handler import LEASE_MS, handler
from tests.support.delivery_fakes import Context as AnyContext

from tocsin import wiring
from tocsin.defense.ports import Lease
from tocsin.kernel import clock
from tocsin.kernel.errors import Retry

SAMPLES = Path(__file__).parents[2] / "events" / "relay"
TICK_AT = 1_795_176_005_000


class Context(AnyContext):
    aws_request_id = "req-1"


class Rows:
    """Outbox, leases and heartbeats at once."""

    def __init__(self) -> None:
        self.swept: list[int] = []
        self.beats: list[tuple[str, int]] = []
        self.held: Lease | None = None
        self.fails = False

    def sweep(self, now: int, remaining_ms: object = None) -> int:
        if self.fails:
            raise Retry("the queue did not take it")
        assert self.held is not None
        self.swept.append(now)
        return 3

    def take(self, name: str, holder: str, now: int, length_ms: int) -> Lease | None:
        if self.held is not None:
            return None
        self.held = Lease(name, holder, now + length_ms, 1)
        return self.held

    def release(self, lease: Lease) -> bool:
        assert lease == self.held
        self.held = None
        return True

    def beat(self, name: str, now: int) -> None:
        self.beats.append((name, now))


def _tick() -> dict[str, Any]:
    sample: dict[str, Any] = json.loads((SAMPLES / "tick.json").read_text())
    return sample


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    rows = Rows()
    for name in ("outbox", "leases", "heartbeats"):
        monkeypatch.setattr(wiring, name, lambda: rows)
    monkeypatch.setattr(clock, "now_ms", lambda: TICK_AT)
    return rows


def test_a_tick_sweeps_once_and_leaves_a_heartbeat(rows: Rows) -> None:
    assert handler(_tick(), Context()) == {"batchItemFailures": []}
    assert rows.swept == [TICK_AT]
    assert rows.beats == [("relay", TICK_AT)]
    assert rows.held is None


def test_only_one_relay_sweeps(rows: Rows) -> None:
    rows.held = Lease("relay", "another", TICK_AT + LEASE_MS, 7)
    assert handler(_tick(), Context()) == {"batchItemFailures": []}
    assert rows.swept == []
    assert rows.beats == []


def test_a_sweep_that_fails_is_given_back_without_a_heartbeat(rows: Rows) -> None:
    rows.fails = True
    assert len(handler(_tick(), Context())["batchItemFailures"]) == 1
    assert rows.beats == []
    assert rows.held is None


def test_a_stale_tick_is_dropped(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: TICK_AT + 31_000)
    assert handler(_tick(), Context()) == {"batchItemFailures": []}
    assert rows.swept == []


def test_every_sample_is_used() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == {"tick"}
