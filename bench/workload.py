"""The fixed workload of every measurement: what bench/workload.json says, as events a sender would send.

Three kinds of events: *ordinary* ones of one of `series` series with Zipf popularity and low severity, which the
noise gate keeps out of incidents; *opening* ones, critical and of a service never seen before; and *joining* ones,
critical and of one of the `joinable_incidents` services that opened last. Shares are drawn per event, so that a
batch of any size has the same mix.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tocsin.kernel.clock import now_ms, rfc3339

SOURCES = ("prometheus", "cloudwatch", "sentry", "kubernetes", "synthetics")
TYPES = ("cpu.high", "latency.p99", "error.rate", "pod.restart", "disk.usage")
TITLES = (
    "CPU of {word} at {name} is at {value:.0f} percent",
    "Latency of {word} at {name} is {value:.1f} ms",
    "Call to {word} at {name} took {value:.0f} ms",
    "Pod {word} of {name}-{number:05x} started",
    "Disk of {word} at {name} is at {value:.0f} percent",
)
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]
PROSE = (
    "Probe {number} saw {value:.2f} on node-{node} in the last minute; the objective allows 250. Upstream answered "
    "within its budget. The runbook of the service names the next step, and the dashboard shows the last hour. "
)
Event = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """The numbers of workload.json; see there and the module's text."""

    about: str
    seed: int
    event_bytes: int
    series: int
    zipf_exponent: float
    opening_share: float
    joining_share: float
    joinable_incidents: int
    events_per_request: list[int]
    open_incidents: list[int]


@lru_cache(maxsize=1)
def workload() -> Workload:
    return Workload(**json.loads((Path(__file__).parent / "workload.json").read_text()))


def events(run: str, at_ms: int | None = None) -> Iterator[Event]:
    """Endless events as sent, occurring at `at_ms` (default: when they are made). `run` keeps the ids and the
    opening services of two runs apart; everything else follows from the seed.
    """
    load = workload()
    rng = random.Random(load.seed)
    ranks = [1 / rank**load.zipf_exponent for rank in range(1, load.series + 1)]
    total, cumulative = 0.0, []
    for rank in ranks:
        total += rank
        cumulative.append(total)
    opened: deque[str] = deque(maxlen=load.joinable_incidents)
    number = 0
    while True:
        number += 1
        draw = rng.random()
        if draw < load.opening_share or (draw < load.opening_share + load.joining_share and not opened):
            opened.append(f"{run}-new-{number}")
            name, series, severity = opened[-1], number % 5, "critical"
        elif draw < load.opening_share + load.joining_share:
            name, series, severity = rng.choice(opened), number % 5, "critical"
        else:
            series = rng.choices(range(load.series), cum_weights=cumulative)[0]
            name, severity = f"svc-{series}", "info"
        yield _event(rng, f"{run}-{number}", name, series, severity, now_ms() if at_ms is None else at_ms)


def word(series: int) -> str:
    """What a series' titles are about, in letters: it gives the series a fingerprint of its own."""
    return SYLLABLES[series % 60] + SYLLABLES[(series * 7 + series // 60) % 60]


def _event(rng: random.Random, sender_id: str, name: str, series: int, severity: str, at_ms: int) -> Event:
    kind, value, number = series % 5, rng.uniform(90, 110), rng.getrandbits(20)
    event: Event = {
        "id": sender_id,
        "source": SOURCES[kind],
        "type": TYPES[kind],
        "title": TITLES[kind].format(
            name=name, word=word(series) if severity == "info" else "outage", value=value, number=number
        ),
        "body": "",
        "occurred_at": rfc3339(at_ms),
        "entity": {"type": "service", "id": name},
        "tags": {"env": "production", "region": "us-east-1", "team": f"team-{series % 12}"},
        "metrics": {"value": round(value, 3)} if series % 3 else {},
        "severity_raw": severity,
        "status": "firing",
    }
    room = workload().event_bytes - len(json.dumps(event, separators=(",", ":")))
    prose = PROSE.format(number=number, value=value, node=series % 40)
    event["body"] = (prose * (room // len(prose) + 1))[: max(0, room)]
    return event


def body(batch: list[Event]) -> bytes:
    """Request body of a batch: an object for one event, an array for several."""
    return json.dumps(batch[0] if len(batch) == 1 else batch, separators=(",", ":")).encode()
