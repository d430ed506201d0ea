"""The quality bench: it says what is missing, and its own arithmetic is right."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bench.quality import ait, loghub, nab, shared, storms
from bench.quality.replay import BATCH, replay

from tocsin.kernel.clock import rfc3339
from tocsin.signals.scoring import BANK_HALF
from tocsin.signals.topology import Topology

ROOT = Path(__file__).resolve().parents[3]
T0 = 1_767_225_600_000


def test_without_the_data_it_says_so_and_fails(tmp_path: Path) -> None:
    environment = os.environ | {"TOCSIN_SHARED": str(tmp_path / "nowhere"), "PYTHONPATH": f"{ROOT / 'shared'}:{ROOT}"}
    command = [sys.executable, "-m", "bench.quality"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nowhere is not there" in done.stderr
    assert done.stdout == ""


def test_it_names_the_parts_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_SHARED", str(tmp_path))
    (tmp_path / "data/loghub").mkdir(parents=True)
    with pytest.raises(shared.MissingError, match=r"lacks data/nab/\S+, data/ait-ads/\S+, bench/storm_gen.py"):
        shared.folder()


def test_grouping_accuracy_counts_lines_of_exact_groups_only() -> None:
    labels = ["a", "a", "b", "b", "c"]
    assert loghub.grouping_accuracy(["1", "1", "2", "2", "3"], labels) == 1.0
    assert loghub.grouping_accuracy(["1", "1", "2", "3", "4"], labels) == 0.6
    assert loghub.grouping_accuracy(["1"] * 5, labels) == 0.0


def test_parts_of_the_benchmark_are_disjoint_and_whole() -> None:
    files = [f"c{i % 3}/f{i}" for i in range(11)]
    for count in (2, 5):
        for dealt in nab.deals(files, count, times=3):
            assert sorted(name for _, used in dealt for name in used) == sorted(files)
            assert all(not set(tuned) & set(used) and len(tuned) + len(used) == len(files) for tuned, used in dealt)


def test_an_echo_is_what_stays_below_the_alarm_before_it() -> None:
    alarms = [[(0, 1.0), (1, 0.5), (2, 0.9), (4, 2.0)], [(1, 0.7)]]
    assert nab.heard(alarms, 0.8) == [(0, 1.0), (2, 0.9), (4, 2.0)]
    assert nab.heard(alarms, 0.0) == [(0, 1.0), (1, 0.7), (2, 0.9), (4, 2.0)]


def test_the_plain_views_alarm_where_the_scorer_does() -> None:
    """The ablations of the bench are of a plain statement of the bank: it has to be the same bank."""
    rng = random.Random(4)
    times = [T0 + 300_000 * i for i in range(900)]
    values = [50 + rng.gauss(0, 4) + (60.0 if i in (500, 700) else 0.0) for i in range(900)]
    scored = nab.ours(times, values)
    seen = nab.views(times, values)
    stated = {i for i, alarm in nab.heard([nab.breaks(seen[name]) for name in nab.OURS]) if alarm > 1.0 and i > 300}
    assert stated == {i for i, x in enumerate(scored) if x > 1.0 / (1.0 + BANK_HALF) and i > 300}
    assert 500 in stated


def test_a_threshold_gains_what_the_reference_rules_give() -> None:
    file = {"win": [-1, 0, 0, -1, -1], "raw": [-1.0, 0.9, 0.5, -0.4, -1.0], "prob": 0}
    gain = nab.gains(file, [(1, 0.3), (2, 0.8), (4, 0.5)], 0.11, 1.0)
    at = [int(np.searchsorted(nab.THRESHOLDS, x)) for x in (0.2, 0.4, 0.7, 0.9)]
    assert [round(float(gain[k]), 6) for k in at] == [1.79, 1.39, 1.5, 0.0]


def test_attacks_end_after_an_hour_of_silence() -> None:
    rows = [
        {"time": str(at), "time_label": label}
        for at, label in ((0, "scan"), (10, "false_positive"), (3600, "dirb"), (7201, "dnsteal"))
    ]
    assert ait.truth(rows, by_phase=False) == ["session 1", None, "session 1", "session 2"]
    assert ait.truth(rows, by_phase=True) == ["scan", None, "dirb", "dnsteal"]


def test_sessions_end_when_nothing_comes_for_the_gap() -> None:
    group = storms.sessions(lambda one: one["key"], 10)
    events = [{"key": key, "received_at": at} for key, at in (("a", 0), ("b", 1), ("a", 10), ("a", 21))]
    assert group(events) == ["i0", "i1", "i0", "i3"]


def test_replay_runs_events_through_score_and_correlate() -> None:
    def event(number: int, service: str, at: int, severity: str) -> dict[str, object]:
        time = rfc3339(T0 + at)
        entity = {"type": "service", "id": service}
        return {"event_id": f"evt_{number}", "source": "prom", "type": "down", "title": "down", "entity": entity} | {
            "severity_raw": severity, "status": "firing", "occurred_at": time, "received_at": time, "tags": {}
        }  # fmt: skip

    events = [event(k, ("cart", "mail")[k % 2], 40_000 * k, "critical") for k in range(BATCH + 2)]
    events.append(event(len(events), "search", 40_000 * len(events), "info"))
    memory = replay(events, Topology.empty())
    found = [memory.incident_of(k) for k in range(len(events))]
    assert set(found[0:-1:2]) == {found[0]}
    assert set(found[1:-1:2]) == {found[1]}
    assert found[0] != found[1]
    assert found[-1] is None
