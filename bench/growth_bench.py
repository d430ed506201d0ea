"""Whether an event costs more when many incidents are open: time and capacity of correlating one, by their number.

The incidents are opened through the same code first, then the workload's mix runs on top. Storage is a dictionary
behind the real incident store, so that rows are packed, unpacked and priced as in the table.
"""

from __future__ import annotations

import gc
import json
import time
from typing import Any

from bench import report
from bench.memory import MemoryDynamo
from bench.workload import workload
from tests.support.keys import fixed_sealer

from tocsin.aws.incident_store import DynamoIncidentStore
from tocsin.aws.table import Table
from tocsin.kernel import clock
from tocsin.signals import correlation, correlator
from tocsin.signals.calibration import tier
from tocsin.signals.correlation import Signal
from tocsin.signals.ports import Cursor
from tocsin.signals.topology import Topology

PROJECT = "prj_bench"
SEALER = fixed_sealer()
#: Incidents opened per round while the ground is laid.
_OPENED_PER_ROUND = 25


class Worker:
    """Correlates signals against one store."""

    def __init__(self) -> None:
        self.table = MemoryDynamo()
        self.store = DynamoIncidentStore(Table(self.table, "bench"), SEALER, retention_days=90)
        self.topology, self.policy, self.cursor = Topology.empty(), correlation.Policy(), Cursor()

    def take(self, signals: list[Signal]) -> int:
        """Correlate a batch; returns the number of incidents it opened."""
        opened = 0
        while signals:
            effects = correlation.correlate(
                signals,
                self.store.view(PROJECT, correlation.needed(signals, self.topology, self.policy)),
                project=PROJECT,
                topology=self.topology,
                now=signals[-1].at,
                policy=self.policy,
                max_items=correlator.ITEMS_PER_ROUND,
            )
            after = Cursor(self.cursor.n + 1, 0, self.cursor.version + 1)
            self.store.save(PROJECT, self.cursor, after, effects, [], signals[-1].at)
            self.cursor = after
            opened += sum(one.kind == "opened" for one in effects.transitions)
            signals = signals[effects.consumed :]
        return opened


def _signal(number: int, service: str, at: int, score: float) -> Signal:
    return Signal(
        n=number // 100 + 1,
        i=number % 100,
        event_id=f"evt_{number}",
        at=at,
        received_at=at,
        score=score,
        tier=tier(score),
        severity_id=4,
        status="firing",
        source="bench",
        type="latency",
        title="p99 above 2 s",
        entity=f"service:{service}",
        service=service,
        dedup_key=f"bench|latency|service:{service}",
    )


def _mix(first: int, count: int, opened: int, at: int) -> list[Signal]:
    """`count` signals: shares of the workload open an incident or join one of the last opened, the rest is quiet."""
    load = workload()
    opening, joining = round(100 * load.opening_share), round(100 * load.joining_share)
    signals = []
    for number in range(first, first + count):
        place = number % 100
        if place < opening:
            signals.append(_signal(number, f"late-{number}", at, 0.7))
        elif place < opening + joining:
            signals.append(_signal(number, f"svc-{opened - 1 - number % load.joinable_incidents}", at, 0.7))
        else:
            signals.append(_signal(number, f"svc-{number}", at, 0.2))
    return signals


def run(counts: list[int] | None = None, batch: int = 100, events: int = 5_000, repeats: int = 3) -> dict[str, Any]:
    """Prints µs and capacity units per event for each number of open incidents, with the ratio to the first."""
    report.title(f"Growth: one event while many incidents are open (batches of {batch})")
    worker, opened, rows = Worker(), 0, []
    figures: dict[str, Any] = {}
    start = clock.now_ms()
    for count in counts or workload().open_incidents:
        while opened < count:
            number = min(_OPENED_PER_ROUND, count - opened)
            made = worker.take([_signal(opened + k, f"svc-{opened + k}", start, 0.7) for k in range(number)])
            if made != number:
                raise AssertionError(f"{made} of {number} incidents opened")
            opened += number
        gc.collect()
        gc.freeze()  # a worker would not hold the table in its own memory, nor walk it
        best, writes, reads = float("inf"), worker.table.writes, worker.table.reads
        for attempt in range(repeats):
            batches = [
                _mix(10**7 + count * 100 + attempt * events + k, batch, opened, start + 60_000)
                for k in range(0, events, batch)
            ]
            began = time.process_time()
            for signals in batches:
                worker.take(signals)
            best = min(best, time.process_time() - began)
        us = best / events * 1e6
        written = (worker.table.writes - writes) / (events * repeats)
        read = (worker.table.reads - reads) / (events * repeats)
        figures[str(count)] = {"us": us, "write_units": written, "read_units": read}
        first = next(iter(figures.values()))
        pairs = ((us, "us", ".1f"), (written, "write_units", ".3f"), (read, "read_units", ".3f"))
        cells = [text for value, name, form in pairs for text in (format(value, form), f"{value / first[name]:.2f}")]
        rows.append((f"{count:,}", *cells))
    gc.unfreeze()
    report.table(("open incidents", "µs/event", "ratio", "writes/event", "ratio", "reads/event", "ratio"), rows)
    return figures


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
