"""What scoring costs: microseconds per event of each stage, states kept in a dictionary between batches.

    PYTHONPATH=shared python bench/scoring_bench.py [events] [batch]

The workload has 200 series with Zipf popularity; two thirds of the events carry a metric. The machine's
load stands beside the figures, since they mean little without it.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Mapping
from typing import Any

from tocsin.kernel.clock import rfc3339
from tocsin.signals import features, fingerprints, scoring
from tocsin.signals.series import ruling_time

SERIES = 200
START_MS = 1_767_225_600_000
TITLES = (
    "{metric} above threshold on {entity}",
    'ALARM: "{entity}-{metric}" in US East (value {value:.1f})',
    "TimeoutError: call to {entity} failed after {value:.0f} ms (request {request:012x})",
    "Pod {entity} restarted (restart {n})",
    "Check https://{entity}.example/health failed: HTTP 503",
)
KINDS = ("cpu", "latency_p99", "error_rate", "restarts", "disk")
SEVERITIES = ("info", "warning", "warning", "error", "critical")


class NoTopology:
    """Nothing is declared."""

    def service_of(self, _event: Mapping[str, Any]) -> str | None:
        return None

    def criticality(self, _service: str) -> float:
        return 0.0


def workload(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Events of about 600 bytes, five seconds apart, over SERIES series with Zipf popularity."""
    r = random.Random(seed)
    weights = [1 / rank for rank in range(1, SERIES + 1)]
    events = []
    for i, series in enumerate(r.choices(range(SERIES), weights, k=count)):
        metric, entity, value = KINDS[series % 5], f"svc-{series}", r.gauss(100, 15)
        title = TITLES[series % 7 % 5].format(
            metric=metric, entity=entity, value=value, request=r.getrandbits(48), n=i % 9
        )
        at = START_MS + 5_000 * i
        events.append(
            {
                "event_id": f"evt_{i}",
                "id": f"e{i}",
                "source": ("prometheus", "cloudwatch", "sentry", "k8s", "synthetics")[series % 5],
                "type": metric,
                "title": title,
                "body": "Latency of the upstream has grown for ten minutes, see the runbook. " * 5,
                "occurred_at": rfc3339(at),
                "received_at": rfc3339(at + 1500),
                "entity": {"type": "service", "id": entity},
                "tags": {"service": entity, "zone": "us-east-1a", "team": "core"},
                "metrics": {metric: round(value, 3)} if series % 3 else {},
                "severity_raw": SEVERITIES[series % 5],
                "status": "firing",
            }
        )
    return events


def main(count: int, batch: int) -> None:
    events = workload(count)
    topology = NoTopology()

    def timed(name: str, work: Any) -> float:
        started = time.process_time()
        for event in events:
            work(event)
        spent = (time.process_time() - started) / count * 1e6
        print(f"  {name:<28}{spent:8.2f} us/event")
        return spent

    print(f"{count} events, batches of {batch}, load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    timed("ruling time", ruling_time)
    timed("fingerprint", fingerprints.fingerprint)
    timed("text cues", lambda e: features.text_cues(e["title"], e["type"], e["body"]))
    prepare = timed("prepare (the above and more)", lambda e: scoring.prepare(e, topology))
    prepared = [scoring.prepare(event, topology) for event in events]
    hot: dict[bytes, bytes] = {}
    full: dict[bytes, bytes] = {}
    written = 0
    scored = []
    started = time.process_time()
    for i in range(0, count, batch):
        part = prepared[i : i + batch]
        hot_keys, full_keys = scoring.needs(part)
        outcome = scoring.score(
            part, {k: hot[k] for k in hot_keys if k in hot}, {k: full[k] for k in full_keys if k in full}
        )
        hot.update(outcome.hot)
        full.update(outcome.full)
        written += sum(map(len, outcome.full.values()))
        scored += outcome.events
    score = (time.process_time() - started) / count * 1e6
    print(f"  {'needs + score':<28}{score:8.2f} us/event")
    both = prepare + score
    print(f"  {'prepare + score':<28}{both:8.2f} us/event = {1e6 / both:,.0f} events/s/core")
    started = time.process_time()
    for event in scored[:2000]:
        scoring.explain(event)
    spent = (time.process_time() - started) / min(count, 2000) * 1e6
    print(f"  {'explain (at read time)':<28}{spent:8.2f} us/event")
    largest = max(map(len, hot.values())), max(map(len, full.values()), default=0)
    print(f"  states: {len(hot)} hot (largest {largest[0]} B), {len(full)} full (largest {largest[1]} B)")
    print(f"  {written / count:.0f} B of full state written per event")


if __name__ == "__main__":
    main(*(int(argument) for argument in (sys.argv[1:] + ["20000", "100"][len(sys.argv) - 1 :])))
