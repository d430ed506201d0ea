"""Incidents on the AIT Alert Data Set: real detectors (Suricata, Wazuh, AMiner) on simulated enterprise networks.

Landauer, Skopik, Wurzenberger, Introducing a New Alert Data Set for Multi-Step Attack Analysis, CSET 2024. One CSV line
is one event: its detector is the source, its short name the type, its host the entity; a severity is not given. Two
readings of the truth are reported, both from the labels of the alerts' times:

    session   an attack is what was attacked without an hour of silence (the scans, exploits and cracking of one
              afternoon are one incident, the exfiltration of the day before another)
    phase     every attack phase is an incident of its own
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from bench import report
from bench.quality import shared
from bench.quality.replay import Event, replay
from bench.quality.result import Row
from bench.quality.storms import sessions

from tocsin.kernel.clock import rfc3339
from tocsin.signals.topology import Topology

QUIET_S: Final = 3600
DAY_S: Final = 86_400
NOISE: Final = "false_positive"


def networks() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Name and alerts, in order, of each network."""
    with zipfile.ZipFile(shared.folder() / "data/ait-ads/ait_ads_half.zip") as archive:
        for name in sorted(archive.namelist()):
            with archive.open(name) as file:
                rows = list(csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline="")))
            yield name.partition("_")[0], sorted(rows, key=lambda row: int(row["time"]))


def event(row: dict[str, str], number: int) -> Event:
    """A line of the CSV as a sender would post it and ingest would store it."""
    at = rfc3339(int(row["time"]) * 1000)
    return {
        "event_id": f"evt_{number}",
        "source": row["name"].partition(":")[0].lower(),
        "type": row["short"],
        "title": row["name"],
        "entity": {"type": "host", "id": row["host"]},
        "tags": {"ip": row["ip"]},
        "status": "firing",
        "occurred_at": at,
        "received_at": at,
    }


def truth(rows: Sequence[dict[str, str]], by_phase: bool) -> list[str | None]:
    """The incident of each alert; None for noise."""
    found: list[str | None] = []
    last, session = -QUIET_S - 1, 0
    for row in rows:
        if row["time_label"] == NOISE:
            found.append(None)
            continue
        session += int(row["time"]) - last > QUIET_S
        last = int(row["time"])
        found.append(row["time_label"] if by_phase else f"session {session}")
    return found


def judged(found: Sequence[str], known: Sequence[str | None], days: float) -> dict[str, float]:
    """Scores of a grouping; groups named `none-…` are events outside any incident."""
    figures: dict[str, float] = shared.tool("corr_metrics").evaluate(found, known)
    attacked = {name for name, label in zip(found, known, strict=True) if label is not None}
    alone = {name for name in found if not name.startswith("none-")} - attacked
    figures["noise_a_day"] = len(alone) / days
    return figures


def run() -> list[Row]:
    report.title("AIT-ADS: each network alone, nothing declared")
    totals: dict[tuple[str, str], Counter[str]] = {}
    table = []
    count = 0
    for name, rows in networks():
        count += 1
        days = (int(rows[-1]["time"]) - int(rows[0]["time"])) / DAY_S
        memory = replay((event(row, k) for k, row in enumerate(rows)), Topology.empty())
        groups = {"ours": [memory.incident_of(k) or f"none-{k}" for k in range(len(rows))]}
        timed: list[dict[str, Any]] = [{"received_at": int(row["time"]), "host": row["host"]} for row in rows]
        groups["same host, 15 min"] = sessions(lambda one: one["host"], 900)(timed)
        for reading in ("session", "phase"):
            known = truth(rows, reading == "phase")
            for who, found in groups.items():
                figures = judged(found, known, days)
                totals.setdefault((who, reading), Counter()).update(figures)
                shown = (f"{figures[m]:.3f}" for m in ("b3_p", "b3_r", "b3_f1", "found50"))
                table.append((f"{name}, {reading}, {who}", len(rows), *shown, f"{figures['noise_a_day']:.0f}"))
    report.table(("network, reading, who", "alerts", "B3 P", "B3 R", "B3 F1", "found50", "noise-only/day"), table)
    made = []
    for reading in ("session", "phase"):
        ours, other = ({k: v / count for k, v in totals[who, reading].items()} for who in ("ours", "same host, 15 min"))
        beside = {"same host, 15 min": other["b3_f1"]}
        made.append(Row(f"AIT-ADS by {reading}", "no topology", "B3 F1", ours["b3_f1"], beside, aim="≥ .90"))
    beside = {"same host, 15 min": other["noise_a_day"]}
    made.append(Row("AIT-ADS", "no topology", "noise-only a day", ours["noise_a_day"], beside, aim="< 150", digits=1))
    return made
