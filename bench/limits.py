"""What limits cost: writes per request, what is admitted, and µs per decision.

    PYTHONPATH=shared:. python -m bench.limits
    PYTHONPATH=shared:. python -m bench.limits --endpoint http://127.0.0.1:4566

Without an endpoint, processes and clock are simulated over a store in memory, so the figures are of the algorithm
alone and the same every time. With one, threads that stand for processes race over a table made for the purpose,
on the wall clock.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from typing import Any

from bench import report

from tocsin.access.limits import SECOND_US, Limiter, Rate, advance
from tocsin.access.ports import Advance
from tocsin.access.projects import Quota

START_US = 1_800_000_000 * SECOND_US


class Memory:
    """A store in memory that counts its writes."""

    def __init__(self) -> None:
        self.tats: dict[tuple[str, str], int] = {}
        self.writes = 0

    def advance(self, project: str, name: str, by_us: int, now_us: int, latest_us: int, _: int) -> Advance:
        self.writes += 1
        taken, tat = advance(self.tats.get((project, name), 0), by_us, now_us, latest_us)
        self.tats[project, name] = tat
        return Advance(taken, tat)


def simulate(rate: Rate, offered: float, processes: int, requests: int, skew_us: int = 0) -> dict[str, float]:
    """Poisson arrivals at `offered` per second over processes whose clocks are up to `skew_us` apart."""
    at, store, rng = START_US, Memory(), random.Random(7)

    def clock_of(ahead: int) -> Any:
        return lambda: at + ahead

    spread = [skew_us * n // max(1, processes - 1) for n in range(processes)]
    limiters = [Limiter(store, clock_of(ahead)) for ahead in spread]
    admitted = 0
    for _ in range(requests):
        at += int(rng.expovariate(offered) * SECOND_US)
        admitted += rng.choice(limiters).take("p", "k", rate, ordinary=1).ordinary
    allowed = rate.burst + (at - START_US) // rate.interval_us
    return {
        "admitted": admitted,
        "refused": requests - admitted,
        "beyond": max(0, admitted - allowed),
        "writes_per_request": round(store.writes / requests, 3),
    }


def decision_us(count: int = 200_000) -> float:
    """µs per decision of a process that holds a lease most of the time."""
    at, rate = START_US, Rate(2_000, 20_000)
    limiter = Limiter(Memory(), lambda: at)
    began = time.perf_counter()
    for _ in range(count):
        at += 1_000
        limiter.take("p", "k", rate, ordinary=1)
    return (time.perf_counter() - began) / count * 1e6


def race(endpoint: str, rate: Rate, offered: float, processes: int, seconds: float) -> dict[str, float]:
    """Threads with a limiter each, against a real table."""
    import boto3

    from tocsin.aws.limit_store import DynamoLimits

    client = boto3.client("dynamodb", endpoint_url=endpoint, region_name="us-east-1")
    table, calls = f"limits-{time.time_ns()}", [0]
    names = (("pk", "HASH"), ("sk", "RANGE"))
    client.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in names],  # type: ignore[misc]
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in names],
    )
    admitted, asked, lock = [0], [0], threading.Lock()
    client.meta.events.register("before-call.dynamodb.UpdateItem", lambda **_: calls.__setitem__(0, calls[0] + 1))
    began = time.time()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        limiter = Limiter(DynamoLimits(client, table), lambda: time.time_ns() // 1_000)
        while time.time() - began < seconds:
            granted = limiter.take("bench", "k", rate, ordinary=1).ordinary
            with lock:
                admitted[0] += granted
                asked[0] += 1
            time.sleep(rng.expovariate(offered / processes))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    allowed = rate.burst + int((time.time() - began) * SECOND_US) // rate.interval_us
    client.delete_table(TableName=table)
    return {
        "admitted": admitted[0],
        "refused": asked[0] - admitted[0],
        "beyond": max(0, admitted[0] - allowed),
        "writes_per_request": round(calls[0] / max(1, asked[0]), 3),
    }


def run(endpoint: str | None = None) -> dict[str, Any]:
    """Prints and returns the figures."""
    quota = Quota()
    usual, small = Rate(quota.requests_per_second, quota.requests_burst), Rate(50, 500)
    cases = [(usual, 10.0, 1, 0), (usual, 10.0, 3, 0), (usual, 10.0, 8, 0), (usual, 100.0, 8, 0)]
    cases += [(small, 50.0, 4, 0), (small, 100.0, 4, 0), (small, 1_000.0, 4, 0), (small, 1_000.0, 4, 5 * SECOND_US)]
    figures: dict[str, Any] = {}
    report.title("Request limit, simulated: 1,000 requests (20,000 when over the limit)")
    rows = []
    for rate, offered, processes, skew in cases:
        count = 1_000 if offered <= rate.per_second else 20_000
        told = simulate(rate, offered, processes, count, skew)
        name = (
            f"{rate.per_second}/s burst {rate.burst}, offered {offered:g}/s by {processes}, skew {skew // SECOND_US} s"
        )
        figures[name] = told
        rows.append((name, *told.values()))
    report.table(("case", "admitted", "refused", "beyond", "writes/request"), rows)
    figures["decision_us"] = round(decision_us(), 2)
    report.line(f"one decision: {figures['decision_us']} µs")
    if endpoint:
        report.title("Request limit, threads racing over a table")
        rows = []
        for rate, offered, processes in ((usual, 40.0, 4), (small, 200.0, 6)):
            told = race(endpoint, rate, offered, processes, 25.0)
            name = f"{rate.per_second}/s burst {rate.burst}, offered {offered:g}/s, {processes} processes, 25 s"
            figures["raced " + name] = told
            rows.append((name, *told.values()))
        report.table(("case", "admitted", "refused", "beyond", "writes/request"), rows)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", help="a DynamoDB endpoint for the race, such as the embedded stack's")
    run(parser.parse_args().endpoint)


if __name__ == "__main__":
    main()
