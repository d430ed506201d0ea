"""Incidents on synthetic storms with known truth, by level and by what is declared of the topology.

A storm is a day of 80 services: 30 incidents that cascade along dependencies and hosts, six sources with clocks and
habits of their own, flapping, lost and late alerts, background noise, overlapping incidents. Settings were chosen on
seeds 1 to 5; what is reported here are other seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from bench import report
from bench.quality import shared
from bench.quality.replay import Event, Memory, replay
from bench.quality.result import Row

from tocsin.kernel.clock import rfc3339
from tocsin.signals.topology import Topology

LEVELS: Final = ("easy", "medium", "hard")
SEEDS: Final = (201, 202, 203, 204, 205, 206, 207, 208)
#: What is declared of the topology.
NONE, DEPENDENCIES, DECLARED = "no topology", "dependencies", "topology"
AIMS: Final = {
    (DECLARED, "easy"): ("≥ .94", "≥ .90"),
    (DECLARED, "medium"): ("≥ .80", "≥ .75"),
    (DECLARED, "hard"): ("≥ .70", "≥ .70"),
    (NONE, "medium"): ("", "≥ .60"),
}


def event(one: dict[str, Any], number: int) -> Event:
    """An event of the generator (times in seconds there) as ingest would store it."""
    kept = {name: value for name, value in one.items() if name != "truth"}
    times = {name: rfc3339(round(one[name] * 1000)) for name in ("occurred_at", "received_at")}
    return kept | times | {"event_id": f"evt_{number}"}


def declared(document: dict[str, Any], how: str) -> Topology:
    """The generator's topology as a project would declare it."""
    if how == NONE:
        return Topology.empty()
    fields = ("deps", "nodes", "team") if how == DECLARED else ("deps", "team")
    return Topology.from_document(
        {"services": {name: {f: one[f] for f in fields} for name, one in document["services"].items()}}
    )


def root_share(events: Sequence[dict[str, Any]], found: Sequence[str], memory: Memory) -> float:
    """Share of true incidents whose best matching incident names the service they began at."""
    overlap: Counter[tuple[str, str]] = Counter()
    roots: dict[str, str] = {}
    for one, name in zip(events, found, strict=True):
        truth = one["truth"]
        if truth["incident"] is not None:
            overlap[truth["incident"], name] += 1
            if truth["role"] == "root":
                roots[truth["incident"]] = truth["service"]
    hits = 0
    for incident, service in roots.items():
        name = max((count, name) for (one, name), count in overlap.items() if one == incident)[1]
        hint = memory.incidents[name].root if name in memory.incidents else None
        hits += hint is not None and hint["service"] == service
    return hits / len(roots) if roots else 0.0


def sessions(key: Callable[[dict[str, Any]], object], gap_s: float) -> Callable[[Sequence[dict[str, Any]]], list[str]]:
    """A baseline: events of one key are one incident until `gap_s` pass without any. It takes every event."""

    def group(events: Sequence[dict[str, Any]]) -> list[str]:
        held: dict[object, tuple[float, str]] = {}
        found = []
        for number, one in enumerate(events):
            at, about = one["received_at"], key(one)
            last = held.get(about)
            name = last[1] if last and at - last[0] <= gap_s else f"i{number}"
            held[about] = at, name
            found.append(name)
        return found

    return group


#: Baselines that need no topology: what Alertmanager's group_by and a group-by-service rule would do.
BASELINES: Final = {
    "type+cluster, 15 min": sessions(lambda e: (e["type"], e["tags"].get("cluster")), 900),
    "same service, 15 min": sessions(lambda e: e["tags"].get("service") or e["entity"]["id"], 900),
}


def one_hop(events: Sequence[dict[str, Any]], topology: Topology, gap_s: float = 180.0) -> list[str]:
    """A baseline with topology: join the neighbour that was last heard of within the gap."""
    last: dict[str, tuple[float, str]] = {}
    found = []
    for number, one in enumerate(events):
        service = topology.service_of(one) or one["entity"]["id"]
        near = [last[n] for n in (service, *topology.neighbours(service)) if n in last]
        latest = max((hit for hit in near if one["received_at"] - hit[0] <= gap_s), default=None)
        last[service] = one["received_at"], latest[1] if latest else f"i{number}"
        found.append(last[service][1])
    return found


def run(seeds: Sequence[int] = SEEDS) -> list[Row]:
    storm_gen, metrics = shared.tool("storm_gen"), shared.tool("corr_metrics")
    report.title(f"Storms, seeds {seeds[0]} to {seeds[-1]}")
    table, rows = [], []
    for level in LEVELS:
        storms = [storm_gen.generate(level=level, seed=seed) for seed in seeds]
        truths = [[one["truth"]["incident"] for one in events] for events, _ in storms]

        def mean(groups: Sequence[Sequence[str]], truths: Sequence[Sequence[Any]] = truths) -> dict[str, float]:
            total: Counter[str] = Counter()
            for found, truth in zip(groups, truths, strict=True):
                total.update({k: v / len(truths) for k, v in metrics.evaluate(found, truth).items()})
            return total

        plain = {name: mean([group(events) for events, _ in storms]) for name, group in BASELINES.items()}
        hop = mean([one_hop(events, declared(document, DEPENDENCIES)) for events, document in storms])
        for how in (NONE, DEPENDENCIES, DECLARED):
            groups, root = [], 0.0
            for events, document in storms:
                memory = replay((event(one, k) for k, one in enumerate(events)), declared(document, how))
                groups.append([memory.incident_of(k) or f"none-{k}" for k in range(len(events))])
                root += root_share(events, groups[-1], memory) / len(storms)
            ours = mean(groups)
            shown = ("b3_p", "b3_r", "b3_f1", "pair_f1", "found50", "noise_in_incidents")
            table.append((f"{level}, {how}", *(f"{ours[measure]:.3f}" for measure in shown), f"{root:.2f}"))
            beside = plain if how == NONE else {"one hop, 3 min": hop}
            f1_aim, found_aim = AIMS.get((how, level), ("", ""))
            for measure, key, aim in (("B3 F1", "b3_f1", f1_aim), ("found50", "found50", found_aim)):
                others = {name: figures[key] for name, figures in beside.items()}
                rows.append(Row(f"storms {level}", how, measure, ours[key], others, aim=aim))
    report.table(("storm", "B3 P", "B3 R", "B3 F1", "pair F1", "found50", "noise in", "root right"), table)
    return rows
