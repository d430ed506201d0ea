"""What a sender sees of the deployed embedded cloud: throughput, and how long until an event is an incident.

Throughput: client threads post prepared bodies for a few seconds, then the run waits until everything accepted is
stored, and until correlation has read it all. Latency: one client posts a batch with one opening event, and asks the
API for incidents until it is listed there; nothing else runs meanwhile. Client, emulator and functions share this
machine's cores.
"""

from __future__ import annotations

import http.client
import json
import secrets
import threading
import time
import urllib.parse
from collections.abc import Iterator
from itertools import islice
from typing import Any

from bench import report, stack, workload

from tocsin.aws import keys
from tocsin.aws.table import Table

#: Seconds that clients post, and that a run waits for the rest at most.
POST_S, DRAIN_S = 5.0, 45.0
CLIENTS = 8
PROBES = {1: 40, 25: 30, 100: 30}
#: Requests prepared by events per request: more than the clients get to send, or enough to see the drain.
PREPARED = {1: 4_000, 25: 480, 100: 160}


class Client:
    """One keep-alive connection that posts events and reads the API."""

    def __init__(self, url: str, key: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        self._base = parts.path.rstrip("/")
        self._headers = {"X-Api-Key": key, "Content-Type": "application/json", "Accept": "application/json"}

    def post(self, data: bytes) -> int:
        """Status of a POST of events."""
        self._connection.request("POST", f"{self._base}/v1/events", data, self._headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def get(self, path: str) -> Any:
        self._connection.request("GET", self._base + path, headers=self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"GET {path}: {answer.status} {text[:200]!r}")
        return json.loads(text)["data"]


def fronts() -> dict[str, str]:
    return {"REST": str(stack.deployed()["api_url"]), "URL": str(stack.deployed()["bulk_url"])}


def _bodies(per_request: int, count: int, run: str) -> Iterator[bytes]:
    source = workload.events(run)
    return (workload.body(list(islice(source, per_request))) for _ in range(count))


def _progress(table: Table, project: str) -> tuple[int, int, int]:
    """Events stored, commits in the log, and the next commit that correlation will read."""
    head = table.get(keys.log_head(project), consistent=False) or {}
    cursor = table.get(keys.cursor(project), consistent=False) or {}
    return int(head.get("events", 0)), int(head.get("n", 0)), int(cursor.get("n", 1))


def throughput(front: str, per_request: int) -> dict[str, float]:
    """Events accepted per second while clients post, and per second until all is stored and correlated."""
    table = Table(stack.client("dynamodb"), stack.deployed()["resources"]["TableName"])
    project, key = stack.project(table.name)
    prepared = list(_bodies(per_request, PREPARED[per_request], secrets.token_hex(3)))
    pending, lock, accepted, refused = iter(prepared), threading.Lock(), [0], [0]

    def work(until: float) -> None:
        client = Client(fronts()[front], key)
        while time.perf_counter() < until:
            with lock:
                data = next(pending, None)
            if data is None:
                return
            ok = client.post(data) == 202
            with lock:
                accepted[0] += per_request if ok else 0
                refused[0] += not ok

    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(began + POST_S,)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    posted = time.perf_counter() - began
    stored_s = done_s = 0.0
    while not done_s and time.perf_counter() - began < posted + DRAIN_S:
        events, commits, reached = _progress(table, project)
        if events >= accepted[0] and not stored_s:
            stored_s = time.perf_counter() - began
        if stored_s and reached > commits:
            done_s = time.perf_counter() - began
        time.sleep(0.05)
    if not done_s:
        raise RuntimeError(f"{accepted[0]} events accepted, {_progress(table, project)} after {DRAIN_S:.0f} s")
    _, commits, _ = _progress(table, project)
    return {
        "accepted_per_s": accepted[0] / posted,
        "events": accepted[0],
        "refused": refused[0],
        "stored_per_s": accepted[0] / stored_s,
        "done_per_s": accepted[0] / done_s,
        "drain_s": done_s - posted,
        "events_per_commit": accepted[0] / commits,
    }


def visible(per_request: int, probes: int) -> dict[str, float]:
    """POST -> 202, and POST -> the incident is listed by the API, in ms over `probes` requests."""
    project, key = stack.project(stack.deployed()["resources"]["TableName"])
    del project
    client, run = Client(fronts()["REST"], key), secrets.token_hex(3)
    source = workload.events(run)
    answered, shown = [], []
    for number in range(-3, probes):  # three to warm up
        batch = list(islice(source, per_request))
        name = f"{run}-probe-{number}"
        batch[0] = {**batch[0], "entity": {"type": "service", "id": name}, "severity_raw": "critical"}
        batch[0]["title"] = f"Requests to {name} fail"
        data = workload.body(batch)
        began = time.perf_counter()
        if client.post(data) != 202:
            raise RuntimeError("a probe was refused")
        taken = time.perf_counter() - began
        path = "/v1/incidents?limit=1&entity=" + urllib.parse.quote(f"service:{name}")
        while not client.get(path)["items"]:
            if time.perf_counter() - began > DRAIN_S:
                raise RuntimeError(f"no incident after {DRAIN_S:.0f} s")
            time.sleep(0.005)
        if number >= 0:
            answered.append(taken * 1000)
            shown.append((time.perf_counter() - began) * 1000)
    return {
        "answer_p50": report.percentile(answered, 0.5),
        "answer_p99": report.percentile(answered, 0.99),
        "visible_p50": report.percentile(shown, 0.5),
        "visible_p99": report.percentile(shown, 0.99),
    }


def warm_up() -> None:
    """Let every worker that the clients can occupy start, so that no cold start is measured."""
    _, key = stack.project(stack.deployed()["resources"]["TableName"])
    source = workload.events(secrets.token_hex(3))

    def work(front: str, bodies: list[bytes]) -> None:
        client = Client(fronts()[front], key)
        for data in bodies:
            client.post(data)

    for front in fronts():
        bodies = [[workload.body(list(islice(source, 25))) for _ in range(12)] for _ in range(CLIENTS)]
        threads = [threading.Thread(target=work, args=(front, one)) for one in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def run() -> dict[str, Any]:
    """Prints latency and throughput by events per request and front."""
    report.title("End to end on the embedded cloud")
    sizes, figures = workload.workload().events_per_request, dict[str, Any]()
    warm_up()
    rows: list[tuple[object, ...]] = []
    for size in sizes:
        seen = figures[f"visible {size}"] = visible(size, PROBES[size])
        rows.append((size, PROBES[size], *(f"{seen[k]:.0f}" for k in seen)))
    report.table(("events per request", "probes", "202 p50 ms", "p99", "incident visible p50 ms", "p99"), rows)
    rows = []
    for front in fronts():
        for size in sizes:
            got = figures[f"{front} {size}"] = throughput(front, size)
            rates = (got[name] for name in ("events", "accepted_per_s", "stored_per_s", "done_per_s"))
            rest = (f"{got['drain_s']:.1f}", f"{got['events_per_commit']:.0f}")
            rows.append((f"{front} {size}", *(f"{one:,.0f}" for one in rates), *rest))
            if got["refused"]:
                report.line(f"{front} {size}: {got['refused']} requests were not answered 202")
    report.line(f"{CLIENTS} clients, {POST_S:.0f} s of posts; rates from the first POST on; {report.load()} at the end")
    report.table(
        ("front, events per request", "events", "accepted/s", "stored/s", "correlated/s", "drain s", "events/commit"),
        rows,
    )
    return figures


if __name__ == "__main__":
    run()
