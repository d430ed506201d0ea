"""The privacy handler over the sample messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from functions.privacy.handler import handler
from tests.support.delivery_fakes import Context
from tests.support.privacy_fakes import JobRows, World

from tocsin import wiring
from tocsin.privacy.jobs import Worker, begin
from tocsin.routes import EXAMPLE_DELETION

SAMPLES = Path(__file__).parents[2] / "events" / "privacy"
NOW = 1_795_000_000_000


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> JobRows:
    jobs, world = JobRows(), World({"shop": {"data_keys": ["k"], "rows": ["r"]}})
    begin(jobs, jobs.enqueue, EXAMPLE_DELETION, "shop", "deletion", "key_1", NOW)
    jobs.queued.clear()
    monkeypatch.setattr(wiring, "privacy_worker", lambda: Worker(jobs, world, world, jobs.enqueue, lambda: NOW))
    return jobs


def _sample(name: str) -> dict[str, Any]:
    sample: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return sample


class LongContext(Context):
    def get_remaining_time_in_millis(self) -> int:
        return 300_000


def test_a_job_is_carried_out(jobs: JobRows) -> None:
    assert handler(_sample("one_job"), LongContext()) == {"batchItemFailures": []}
    assert jobs.rows["shop", EXAMPLE_DELETION].status == "done"


def test_with_little_time_left_it_is_handed_on(jobs: JobRows) -> None:
    class Short(Context):
        def get_remaining_time_in_millis(self) -> int:
            return 20_000

    assert handler(_sample("one_job"), Short()) == {"batchItemFailures": []}
    assert jobs.rows["shop", EXAMPLE_DELETION].status == "running"
    assert jobs.queued == [("shop", EXAMPLE_DELETION, 0)]


def test_a_job_there_is_not_is_dropped(jobs: JobRows) -> None:
    assert handler(_sample("no_such_job"), LongContext()) == {"batchItemFailures": []}
    assert jobs.queued == []


def test_the_schedule_begins_the_daily_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    monkeypatch.setattr(wiring, "daily_privacy_round", lambda: {"begun": len(rounds), "resumed": rounds.append(1) or 0})
    assert handler(_sample("daily_schedule"), LongContext()) == {"batchItemFailures": []}
    assert rounds == [1]


def test_every_sample_is_used() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == {"one_job", "no_such_job", "daily_schedule"}
