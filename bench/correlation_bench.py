"""How well correlation works, on synthetic storms with known truth. What it costs is growth_bench's matter.

    PYTHONPATH=shared:. python bench/correlation_bench.py quality --lab FOLDER [--seeds 101,102] [--scores product]

Prints B-cubed scores (a noise event inside an incident counts against it) for each level, with the topology declared
and without; the gaps in tocsin.signals.incidents.Policy were chosen on seeds 1 to 5, seeds 101 to 105 are the check.
FOLDER holds the storm generator and the metrics, storm_gen.py and corr_metrics.py; they are not part of this
repository, so `make bench` does not run this.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "shared")]

from bench import growth_bench, report  # noqa: E402

from tocsin.kernel.clock import rfc3339  # noqa: E402
from tocsin.signals import correlation, scoring  # noqa: E402
from tocsin.signals.calibration import tier  # noqa: E402
from tocsin.signals.correlation import Effects, Policy, Signal, View  # noqa: E402
from tocsin.signals.topology import Topology  # noqa: E402

#: A stand-in for the scorer: the severity alone. Noise of severity `error` passes the gate, as cascades do.
SCORES = {"info": 0.10, "warning": 0.30, "error": 0.55, "critical": 0.80}
SEVERITIES = {"info": 1, "warning": 3, "error": 4, "critical": 5}
LEVELS = ("easy", "medium", "hard")


class Memory:
    """Incidents and index in dictionaries, used as the worker uses the table."""

    def __init__(self, topology: Topology, policy: Policy) -> None:
        self.topology, self.policy = topology, policy
        self.incidents: dict[str, correlation.Incident] = {}
        self.index: dict[str, list[str]] = {}
        self.assigned: dict[tuple[int, int], str] = {}
        self.timers: list[tuple[int, str]] = []
        self.transactions = self.rows = 0

    def view(self, signals: Sequence[Signal]) -> View:
        rows = {
            token: self.index[token]
            for token in correlation.needed(signals, self.topology, self.policy)
            if token in self.index
        }
        incidents = {}
        wanted = [name for row in rows.values() for name in correlation.incident_ids(row)]
        while wanted:
            name = wanted.pop()
            if name not in incidents:
                incident = incidents[name] = self.incidents[name]
                if incident.merged_into:
                    wanted.append(incident.merged_into)
        return View(incidents, rows)

    def save(self, effects: Effects) -> None:
        self.incidents.update(effects.incidents)
        self.index.update(effects.index)
        self.assigned.update(effects.assignments)
        self.timers += [(due, name) for name, due in effects.timers]
        self.transactions += 1
        self.rows += effects.items()

    def take(self, signals: Sequence[Signal], now: int) -> None:
        while signals:
            effects = correlation.correlate(
                signals,
                self.view(signals),
                project="bench",
                topology=self.topology,
                now=now,
                policy=self.policy,
            )
            self.save(effects)
            signals = signals[effects.consumed :]

    def tick(self, now: int) -> None:
        """Run the quiet timers that are due."""
        due = [name for at, name in self.timers if at <= now]
        self.timers = [(at, name) for at, name in self.timers if at > now]
        effects = correlation.quiet([self.incidents[name] for name in due], now=now, policy=self.policy)
        if effects.incidents or effects.timers:
            self.save(effects)

    def incident_of(self, member: tuple[int, int]) -> str | None:
        name = self.assigned.get(member)
        while name is not None and (onward := self.incidents[name].merged_into):
            name = onward
        return name


def signal(event: dict[str, Any], number: int, batch: int, topology: Topology) -> Signal:
    """The signal of a generated event (times in seconds there, ms here)."""
    received, occurred = round(event["received_at"] * 1000), round(event["occurred_at"] * 1000)
    at = occurred if received - 7_200_000 <= occurred <= received + 300_000 else received
    entity = f"{event['entity']['type']}:{event['entity']['id']}"
    score = SCORES[event["severity_raw"]]
    return Signal(
        n=number // batch + 1,
        i=number % batch,
        event_id=f"evt_{number}",
        at=at,
        received_at=received,
        score=score,
        tier=tier(score),
        severity_id=SEVERITIES[event["severity_raw"]],
        status=event["status"],
        source=event["source"],
        type=event["type"],
        title=event["title"],
        entity=entity,
        service=topology.service_of(event),
        dedup_key=f"{event['source']}|{event['type']}|{entity}",
        tags=event["tags"],
    )


def scored(events: Sequence[dict[str, Any]], batch: int, topology: Topology) -> list[Signal]:
    """The signals of generated events after the product's own scorer saw them, in commits of `batch`."""
    hot: dict[bytes, bytes] = {}
    full: dict[bytes, bytes] = {}
    signals: list[Signal] = []
    for start in range(0, len(events), batch):
        chunk = []
        for number, event in enumerate(events[start : start + batch], start):
            kept = {name: value for name, value in event.items() if name != "truth"}
            times = {name: rfc3339(round(event[name] * 1000)) for name in ("occurred_at", "received_at")}
            chunk.append(kept | times | {"event_id": f"evt_{number}"})
        result = scoring.score([scoring.prepare(event, topology) for event in chunk], hot, full)
        hot.update(result.hot)
        full.update(result.full)
        n = start // batch + 1
        signals += [correlation.signal_of(event, n, i, topology) for i, event in enumerate(result.events)]
    return signals


def declared(document: dict[str, Any], hosts: bool) -> Topology:
    """The generator's topology as a project would declare it."""
    fields = ("deps", "nodes", "team") if hosts else ("deps", "team")
    return Topology.from_document(
        {"services": {name: {f: one[f] for f in fields} for name, one in document["services"].items()}}
    )


def replay(
    events: Sequence[dict[str, Any]],
    topology: Topology,
    policy: Policy,
    scorer: bool = False,
    batch: int = 25,
) -> Memory:
    """Correlate a whole storm in commits of `batch` events, scored by severity alone or by the product."""
    memory = Memory(topology, policy)
    if scorer:
        signals = scored(events, batch, topology)
    else:
        signals = [signal(event, number, batch, topology) for number, event in enumerate(events)]
    for start in range(0, len(signals), batch):
        chunk = signals[start : start + batch]
        memory.tick(chunk[-1].received_at)
        memory.take(chunk, chunk[-1].received_at)
    return memory


def quality(
    seeds: Sequence[int], hours: float, policy: Policy, scorer: bool
) -> dict[tuple[str, str], dict[str, float]]:
    """Mean scores over seeds per level: without topology, with dependencies, with dependencies and hosts."""
    storm_gen = importlib.import_module("storm_gen")
    metrics = importlib.import_module("corr_metrics")
    results: dict[tuple[str, str], dict[str, float]] = {}
    for level in LEVELS:
        for label in ("no topology", "dependencies", "deps and hosts"):
            totals: dict[str, float] = {}
            for seed in seeds:
                events, document = storm_gen.generate(hours=hours, level=level, seed=seed)
                none = label == "no topology"
                topology = Topology.empty() if none else declared(document, label == "deps and hosts")
                memory = replay(events, topology, policy, scorer)
                found = [memory.incident_of((k // 25 + 1, k % 25)) or f"none-{k}" for k in range(len(events))]
                scores = metrics.evaluate(found, [event["truth"]["incident"] for event in events])
                scores["root"] = root_share(events, found, memory)
                scores["kept"] = len({memory.incident_of(key) for key in memory.assigned})
                scores["rows"] = memory.rows / len(events)
                for key, value in scores.items():
                    totals[key] = totals.get(key, 0.0) + value / len(seeds)
            results[level, label] = totals
            print(
                f"{level:7s}{label:15s} B3 P {totals['b3_p']:.3f} R {totals['b3_r']:.3f} "
                f"F1 {totals['b3_f1']:.3f}  pair F1 {totals['pair_f1']:.3f}  found50 {totals['found50']:.2f} "
                f"match {totals['match']:.2f}  incidents {totals['kept']:.0f} (true {totals['true']:.0f})  "
                f"noise in {totals['noise_in_incidents']:.2f}  root {totals['root']:.2f}  "
                f"rows/event {totals['rows']:.2f}",
                flush=True,
            )
    return results


def root_share(events: Sequence[dict[str, Any]], found: Sequence[str], memory: Memory) -> float:
    """Share of true incidents whose best matching incident names the service they began at."""
    overlap: dict[tuple[str, str], int] = {}
    roots: dict[str, str] = {}
    for event, name in zip(events, found, strict=True):
        truth = event["truth"]
        if truth["incident"] is not None:
            overlap[truth["incident"], name] = overlap.get((truth["incident"], name), 0) + 1
            if truth["role"] == "root":
                roots[truth["incident"]] = truth["service"]
    hits = 0
    for incident, service in roots.items():
        name = max((count, name) for (one, name), count in overlap.items() if one == incident)[1]
        hint = memory.incidents[name].root if name in memory.incidents else None
        hits += hint is not None and hint["service"] == service
    return hits / len(roots) if roots else 0.0


def run(
    lab: str, seeds: Sequence[int] = (101, 102, 103, 104, 105), hours: float = 24.0, scorer: bool = False, **policy: Any
) -> dict[tuple[str, str], dict[str, float]]:
    """Prints quality per level and topology; `lab` is the folder of the generator and the metrics, `policy` changes
    fields of tocsin.signals.incidents.Policy.
    """
    report.title("Correlation quality on storms with known truth")
    sys.path.insert(0, lab)
    return quality(seeds, hours, Policy(**policy), scorer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("quality", "cost"), help="cost is growth_bench")
    parser.add_argument("--seeds", default="101,102,103,104,105")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--lab", default=str(Path(__file__).parent), help="folder of storm_gen.py and corr_metrics.py")
    parser.add_argument("--scores", choices=("severity", "product"), default="severity")
    parser.add_argument("--gate", type=float, default=0.40)
    for name in ("window", "near", "host"):
        parser.add_argument(f"--{name}", type=int, help="seconds")
    args = parser.parse_args()
    if args.what == "cost":
        growth_bench.run()
        return
    gaps = {n: getattr(args, n) * 1000 for n in ("window", "near", "host") if getattr(args, n) is not None}
    seeds = [int(seed) for seed in args.seeds.split(",")]
    run(args.lab, seeds, args.hours, args.scores == "product", gate=args.gate, **gaps)


if __name__ == "__main__":
    main()
