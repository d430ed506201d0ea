"""What scoring costs: µs per event of each step, and the size of the states it keeps.

    PYTHONPATH=shared:. python -m bench scoring

The events of the workload, five seconds apart, so that metric series become long enough for their record banks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from bench import report, workload

from tocsin.kernel.clock import rfc3339
from tocsin.signals import features, fingerprints, scoring
from tocsin.signals.series import ruling_time
from tocsin.signals.topology import Topology

START_MS = 1_767_225_600_000
Event = dict[str, Any]


def _events(count: int) -> list[Event]:
    made = []
    for number, event in enumerate(islice(workload.events("scoring"), count)):
        at = START_MS + 5_000 * number
        times = {"occurred_at": rfc3339(at), "received_at": rfc3339(at + 1_500)}
        made.append({**event, **times, "event_id": f"evt_{number}"})
    return made


def run(count: int = 20_000, batch: int = 100) -> dict[str, float]:
    """Prints µs per event by step and sizes of states; returns the times."""
    report.title(f"Scoring: {count:,} events in batches of {batch}")
    events, topology, each = _events(count), Topology.empty(), dict[str, float]()

    def timed(name: str, work: Callable[[Event], object], over: list[Event]) -> None:
        began = time.process_time()
        for event in over:
            work(event)
        each[name] = (time.process_time() - began) / len(over) * 1e6

    timed("ruling time", ruling_time, events)
    timed("fingerprint", fingerprints.fingerprint, events)
    timed("text cues", lambda e: features.text_cues(e["title"], e["type"], e["body"]), events)
    timed("prepare (these and more)", lambda e: scoring.prepare(e, topology), events)
    prepared = [scoring.prepare(event, topology) for event in events]
    states: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
    written, scored = 0, list[Event]()
    began = time.process_time()
    for start in range(0, count, batch):
        outcome = _score(prepared[start : start + batch], *states)
        states[0].update(outcome.hot)
        states[1].update(outcome.full)
        written += sum(map(len, outcome.full.values()))
        scored += outcome.events
    each["needs and score"] = (time.process_time() - began) / count * 1e6
    timed("explain (at read time)", scoring.explain, scored[:2_000])
    report.table(("step", "µs/event"), [(name, f"{us:.2f}") for name, us in each.items()])
    sizes = [max(map(len, one.values()), default=0) for one in states]
    report.line(
        f"{len(states[0])} hot states, largest {sizes[0]} B; {len(states[1])} full states, largest {sizes[1]} B"
    )
    report.line(f"{written / count:.0f} B of full state written per event")
    return each


def _score(prepared: list[scoring.Prepared], hot: Mapping[bytes, bytes], full: Mapping[bytes, bytes]) -> scoring.Scored:
    wanted, _ = scoring.needs(prepared)
    known = {key: hot[key] for key in wanted if key in hot}
    return scoring.score(prepared, known, {key: full[key] for key in scoring.narrow(prepared, known) if key in full})


if __name__ == "__main__":
    run()
