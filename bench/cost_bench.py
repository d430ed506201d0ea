"""$ per million events, priced from the calls a run really makes.

The deployed functions' handlers run in this process, with the environment they are deployed with, against the embedded
cloud, on a table, a bucket, a bus and queues of their own. A hook in every boto client counts calls, asks DynamoDB for
its consumed capacity (exact for writes there) and computes reads from item sizes. What Lambda itself does for a queue
(receive, delete, start a function) is counted by the documented rules. Messages are handed from function to function
here, so that the number of messages per invocation is what the run says.

Two figures depend on the machine: GB-seconds, from measured wall time here; and beside them what AWS would bill if
processor time ran at the share of a core that the memory buys, and calls took the times assumed in prices.json.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from bench import report, stack, workload
from bench.capacity import item_size, read_units, write_units

#: Messages (requests) of one score invocation: BatchSize of the template.
MESSAGES = 100
#: Timers of one correlate invocation and facts of one notify invocation: BatchSize of the template.
TIMERS, NOTICES = 100, 2
#: Requests sent per run by events per request.
REQUESTS = {1: 600, 25: 300, 100: 200}
#: Other sizes of batches that are priced: events per request, messages per score invocation, score invocations per
#: correlate invocation.
BATCHES = ((1, 1, 1), (1, 3, 1), (1, 10, 1), (1, 10, 5), (1, 30, 1), (25, 3, 1), (25, 10, 1), (25, 30, 1), (100, 1, 1),
           (100, 10, 1), (100, 30, 1))  # fmt: skip
TARGETS = {"url": {1: 2.5, 25: 0.80, 100: 0.75}, "rest": {1: 6.0, 25: 0.95, 100: 0.80}}
TERMS = (
    "API requests",
    "Lambda requests",
    "Lambda GB-s",
    "SQS",
    "DynamoDB writes",
    "DynamoDB reads",
    "S3",
    "EventBridge",
    "logs",
)
PARTS = ("ingest", "score", "correlate", "notify", "relay")
_CHUNK = 64 * 1024
_COLUMNS = re.compile(r"'(\w+)': \?")


@lru_cache(maxsize=1)
def prices() -> dict[str, Any]:
    return dict(json.loads((Path(__file__).parent / "prices.json").read_text()))


def usd(name: str) -> float:
    return float(prices()[name]["usd"])


@dataclass
class Bill:
    """What one part of the pipeline used."""

    invocations: int = 0
    gb_s: float = 0.0
    modelled_gb_s: float = 0.0
    cpu_s: float = 0.0
    sqs: int = 0
    writes: float = 0.0
    reads: float = 0.0
    s3: float = 0.0
    facts: int = 0
    log_bytes: int = 0
    secret_calls: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)

    def terms(self) -> dict[str, float]:
        """USD by term, without the front's own price."""
        return {
            "Lambda requests": self.invocations * usd("lambda_request"),
            "Lambda GB-s": self.gb_s * usd("lambda_gb_second"),
            "SQS": self.sqs * usd("sqs_request"),
            "DynamoDB writes": self.writes * usd("dynamodb_write_unit"),
            "DynamoDB reads": self.reads * usd("dynamodb_read_unit"),
            "S3": self.s3,
            "EventBridge": self.facts * usd("eventbridge_event"),
            "logs": self.log_bytes * usd("log_byte"),
        }


class Meter:
    """Counts what boto clients do under the name of the part that is running."""

    def __init__(self) -> None:
        self.part = "setup"
        self.bills: dict[str, Bill] = {}
        self.sent: dict[str, list[str]] = {}
        self.facts: list[dict[str, Any]] = []
        self.stored_items = self.stored_bytes = self.stored_objects = 0

    @property
    def bill(self) -> Bill:
        return self.bills.setdefault(self.part, Bill())

    def attach(self, client: Any) -> None:
        client.meta.events.register("provide-client-params.*", self._before)
        client.meta.events.register("after-call.*", self._after)

    def _before(self, params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> dict[str, Any]:
        context["bench"] = params
        if model.name == "PutObject":
            self.stored_objects += len(params["Body"])
        if model.input_shape is not None and "ReturnConsumedCapacity" in model.input_shape.members:
            return {**params, "ReturnConsumedCapacity": "TOTAL"}
        return params

    def _after(self, parsed: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        params, name = context.get("bench") or {}, model.name
        bill = self.bill
        bill.calls[name] += 1
        match model.service_model.service_name:
            case "dynamodb":
                writes, reads = _capacity(name, params, parsed)
                if name == "Query" and not parsed["Items"] and _partition(params).startswith("due#"):
                    reads = 0.0  # the relay looks into every minute, whatever happened in it: part of its tick
                bill.writes += writes
                bill.reads += reads
                bill.units[name] += writes  # type: ignore[assignment]
                self._stored(name, params)
            case "sqs":
                if name == "SendMessage":
                    bill.sqs += _chunks(len(params["MessageBody"]))
                    self.sent.setdefault(params["QueueUrl"], []).append(params["MessageBody"])
                else:
                    bill.sqs += 1
            case "events":
                for entry in params.get("Entries", ()):
                    bill.facts += _chunks(len(entry["Detail"]))
                    bill.sqs += 1  # the rule's target is a queue
                    self.facts.append({"detail-type": entry["DetailType"], "detail": json.loads(entry["Detail"])})
            case "s3":
                bill.s3 += usd("s3_put") if name == "PutObject" else usd("s3_get")
            case "secretsmanager":
                bill.secret_calls += 1

    def _stored(self, name: str, params: dict[str, Any]) -> None:
        sizes = []
        if name == "TransactWriteItems":
            sizes = [item_size(member["Put"]["Item"]) for member in params["TransactItems"] if "Put" in member]
        elif name == "BatchExecuteStatement":
            sizes = [_statement_size(one) for one in params["Statements"] if one["Statement"].startswith("INSERT")]
        elif name == "PutItem":
            sizes = [item_size(params["Item"])]
        self.stored_items += len(sizes)
        self.stored_bytes += sum(sizes)


def _partition(params: dict[str, Any]) -> str:
    return str(params["ExpressionAttributeValues"][":pk"]["S"])


def _chunks(size: int) -> int:
    return max(1, -(-size // _CHUNK))


def _statement_size(statement: dict[str, Any]) -> int:
    names = _COLUMNS.findall(statement["Statement"])
    if names:
        return item_size(dict(zip(names, statement["Parameters"], strict=True)))
    return sum(item_size({"z": value}) for value in statement["Parameters"])


def _capacity(name: str, params: dict[str, Any], parsed: dict[str, Any]) -> tuple[float, float]:
    """(write units, read units) of one call. Reads and PartiQL are computed; the embedded cloud has them wrong."""
    consistent = bool(params.get("ConsistentRead"))
    if name == "GetItem":
        return 0.0, read_units(item_size(parsed.get("Item", {})), consistent)
    if name == "Query":
        return 0.0, read_units(sum(map(item_size, parsed.get("Items", ()))), consistent)
    if name == "BatchGetItem":
        reads = 0.0
        for table, request in params["RequestItems"].items():
            found = parsed.get("Responses", {}).get(table, [])
            consistent = bool(request.get("ConsistentRead"))
            reads += sum(read_units(item_size(item), consistent) for item in found)
            reads += (len(request["Keys"]) - len(found)) * read_units(0, consistent)
        return 0.0, reads
    if name == "BatchExecuteStatement":
        return float(sum(write_units(_statement_size(one)) for one in params["Statements"])), 0.0
    consumed = parsed.get("ConsumedCapacity") or []
    consumed = [consumed] if isinstance(consumed, dict) else consumed
    return sum(float(one["CapacityUnits"]) for one in consumed), 0.0


class Lines(io.StringIO):
    """Takes the log in place of standard output and counts it as CloudWatch would."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter
        self.last = ""

    def write(self, text: str) -> int:
        if text.strip():
            self.last = (self.last + text)[-2000:]
        lines = sum(1 for line in text.split("\n") if line.strip())
        self._meter.bill.log_bytes += len(text) + lines * prices()["assumptions"]["log_bytes_per_line"]
        return len(text)


class Pipeline:
    """The functions of the signal's way in one process, with a project of its own per run."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.resources = stack.Resources()
        self.table, self.queues = self.resources.name, self.resources.queues
        for function in PARTS:
            os.environ.update(self.resources.environment(function))
        self.handlers = {one: stack.handler(one).handler for one in PARTS}
        from tocsin import wiring
        from tocsin.aws import clients
        from tocsin.entry import logger

        for service in ("dynamodb", "s3", "sqs", "events", "secretsmanager"):
            self.meter.attach(clients.client(service))
        self.log = Lines(self.meter)
        logger.registered_handler.stream = self.log  # type: ignore[attr-defined]
        self.ledger = wiring.ledger()
        fold = self.ledger._fold

        def metered_fold(*arguments: Any) -> None:
            with self.within("fold"):
                fold(*arguments)

        self.ledger._fold = metered_fold  # type: ignore[method-assign,assignment]

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        before, self.meter.part = self.meter.part, part
        try:
            yield
        finally:
            self.meter.part = before

    def invoke(self, function: str, event: dict[str, Any], part: str = "") -> dict[str, Any]:
        """Call a handler as Lambda would and bill it to `part` (default: the function's name)."""
        memory_gb = stack.configuration(function)["MemorySize"] / 1024
        assumed = prices()["assumptions"]
        with self.within(part or function):
            bill = self.meter.bill
            calls = Counter(bill.calls)
            wall, cpu = time.perf_counter(), time.process_time()
            answer: dict[str, Any] = self.handlers[function](event, stack.Context())
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            waited = sum((bill.calls[name] - calls[name]) * assumed["call_ms"].get(name, 10) for name in bill.calls)
            share = min(1.0, memory_gb * 1024 / assumed["memory_mb_of_one_core"])
            bill.invocations += 1
            bill.cpu_s += cpu
            bill.gb_s += -(-wall * 1000 // 1) / 1000 * memory_gb
            bill.modelled_gb_s += (waited / 1000 + cpu / share) * memory_gb
            if stack.configuration(function)["LoggingConfig"].get("SystemLogLevel", "INFO") == "INFO":
                bill.log_bytes += assumed["log_bytes_per_invocation"]
        return answer

    def queue(self, function: str, bodies: list[str], part: str = "") -> None:
        """Hand messages to a queue's function; receiving and deleting a batch are a request each, at ten a time."""
        with self.within(part or function):
            for start in range(0, len(bodies), 10):
                page = bodies[start : start + 10]
                self.meter.bill.sqs += _chunks(sum(map(len, page))) + 1
        answer = self.invoke(function, stack.records(bodies), part)
        if answer["batchItemFailures"]:
            raise RuntimeError(f"{function} gave messages back: {self.log.last}")

    def drain_facts(self, part: str = "") -> None:
        """Rules of the bus: EventScored wakes correlate, with all that waits; other facts told together wake notify."""
        while self.meter.facts:
            wakes = [one for one in self.meter.facts if one["detail-type"] == "EventScored"]
            others = [one for one in self.meter.facts if one["detail-type"] != "EventScored"]
            self.meter.facts.clear()
            if wakes:
                self.queue("correlate", [json.dumps(one) for one in wakes], part)
            for start in range(0, len(others), NOTICES):
                bodies = [json.dumps(one) for one in others[start : start + NOTICES]]
                self.queue("notify", bodies, part and f"{part} notify")

    def send(self, front: str, data: bytes, key: str) -> None:
        event = stack.url_event(data, key) if front == "url" else stack.rest_event("POST", "/v1/events", key, data)
        answer = self.invoke("ingest", event, f"ingest {front}")
        if answer["statusCode"] != 202:
            raise RuntimeError(f"ingest answered {answer['statusCode']}: {answer['body'][:300]}")

    def resolve(self) -> None:
        """Let time pass until every incident resolved by itself: timers, relay, quiet checks, facts."""
        from tocsin.aws import keys

        real, mark = time.time_ns, keys.relay_watermark()
        stack.client("dynamodb").delete_item(  # an earlier call was further ahead in time
            TableName=self.table, Key={"pk": {"S": mark.pk}, "sk": {"S": mark.sk}}
        )
        try:
            for hours in (1.05, 2.1, 3.2):
                shift = int(hours * 3.6e12)
                time.time_ns = lambda shift=shift: real() + shift  # type: ignore[misc]
                tick = json.dumps({"tick": {"at": time.time_ns() // 1_000_000}})
                while True:
                    self.queue("relay", [tick], "timers")
                    timers = self.meter.sent.pop(self.queues["correlate"], [])
                    if not timers:
                        break
                    for start in range(0, len(timers), TIMERS):
                        self.queue("correlate", timers[start : start + TIMERS], "timers")
                    self.drain_facts("timers")
        finally:
            time.time_ns = real


@dataclass
class Result:
    """Costs of one run, in USD per million events."""

    events: int
    messages: int
    terms: dict[str, dict[str, float]]
    parts: dict[str, float]
    modelled: dict[str, float]
    write_units: dict[str, float]
    read_units: dict[str, float]
    storage: float

    def total(self, front: str) -> float:
        return sum(self.terms[front].values())


def scenario(pipeline: Pipeline, per_request: int, messages: int, requests: int, batches_per_wake: int = 1) -> Result:
    """Run `requests` requests through everything and price them. Half go by each front; correlate runs once per
    `batches_per_wake` invocations of score.
    """
    from tocsin.aws import ledger

    meter = pipeline.meter
    project, key = stack.project(pipeline.table)
    run = secrets.token_hex(3)
    source = workload.events(run)

    def batch() -> None:
        for number in range(messages):
            data = workload.body(list(islice(source, per_request)))
            pipeline.send("url" if number % 2 else "rest", data, key)
        pipeline.queue("score", meter.sent.pop(pipeline.queues["score"]))

    batches = max(1, requests // messages)
    every, ledger.FOLD_EVERY = ledger.FOLD_EVERY, batches * messages * per_request  # type: ignore[misc]
    try:
        batch()  # warm: imports, secrets, key cache, first commit
        pipeline.drain_facts()
        pipeline.resolve()
        meter.bills, meter.stored_items, meter.stored_bytes, meter.stored_objects = {}, 0, 0, 0
        warm = pipeline.ledger.head(project).n
        for number in range(1, batches + 1):
            batch()
            if number % batches_per_wake == 0 or number == batches:
                pipeline.drain_facts()
        head = pipeline.ledger.head(project)
        pipeline.ledger._fold(project, head, time.time_ns() // 1_000_000)  # one of all; billed at the true rate below
        kept = (meter.stored_items, meter.stored_bytes, meter.stored_objects)
        pipeline.resolve()
    finally:
        ledger.FOLD_EVERY = every  # type: ignore[misc]
    folds = (head.n - warm) / every
    return _priced(meter, per_request * messages * batches, messages * batches, messages, folds, kept)


def _priced(
    meter: Meter, events: int, requests: int, messages: int, folds: float, kept: tuple[int, int, int]
) -> Result:
    million = 1e6 / events
    weights = {part: folds if part == "fold" else 1.0 for part in meter.bills}
    fronts = {"ingest url", "ingest rest"}
    terms: dict[str, dict[str, float]] = {}
    modelled = {}
    for front in ("url", "rest"):
        scale = {part: (weight * 2 if part in fronts else weight) for part, weight in weights.items()}
        used = {part: bill for part, bill in meter.bills.items() if part == f"ingest {front}" or part not in fronts}
        summed = dict.fromkeys(TERMS, 0.0)
        summed["API requests"] = requests * usd("api_gateway_rest_request") * million if front == "rest" else 0.0
        gb_s = 0.0
        for part, bill in used.items():
            for term, amount in bill.terms().items():
                summed[term] += amount * scale[part] * million
            gb_s += bill.modelled_gb_s * scale[part]
        terms[front] = summed
        modelled[front] = gb_s * usd("lambda_gb_second") * million
    items, size, objects = kept
    gb_90_days = 3 * (usd("dynamodb_gb_month") * (size + 100 * items) + usd("s3_gb_month") * objects) / 1e9
    return Result(
        events=events,
        messages=messages,
        terms=terms,
        parts={
            p: sum(b.terms().values()) * weights[p] * (2 if p in fronts else 1) * million
            for p, b in meter.bills.items()
        },
        modelled=modelled,
        write_units={
            f"{part}: {call}": units * weights[part] / events
            for part, bill in meter.bills.items()
            for call, units in bill.units.items()
            if units
        },
        read_units={
            part: bill.reads * weights[part] * (2 if part in fronts else 1) / events
            for part, bill in meter.bills.items()
            if bill.reads
        },
        storage=gb_90_days * million,
    )


def run(messages: int = MESSAGES) -> dict[str, Any]:
    """Prints the price of a million events by term, part and front, and how it depends on the size of batches."""
    report.title("Cost: $ per million events, us-east-1 list prices of " + prices()["as_of"])
    pipeline = Pipeline()
    try:
        results = {size: scenario(pipeline, size, messages, requests) for size, requests in REQUESTS.items()}
        report.line(
            f"{messages} messages per score invocation, each followed by one of correlate; one warm worker of each"
        )
        for front, text in (("url", "Function URL"), ("rest", "REST API")):
            _print_front(text, TARGETS[front], results, front)
        _print_parts(results)
        runs = [(size, messages, 1, one) for size, one in results.items()]
        for size, together, wake in BATCHES:
            requests = max(3 * together, 2 * together * wake, REQUESTS[size] // 4)
            runs.append((size, together, wake, scenario(pipeline, size, together, requests, wake)))
    finally:
        pipeline.resources.close()
    report.line(
        "by size of batches: AWS polls a queue with 5 pollers, so a window of w s at R requests/s gives about R·w/5"
    )
    report.line(
        "messages per invocation, at most BatchSize = 100: with w = 1, 10 at 50/s; 100 at 500/s, or at 25/s with w = 20"
    )
    report.table(
        ("events per request", "messages per score", "scores per correlate", "URL $", "REST $", "write units/event"),
        [
            (*sizes, f"{one.total('url'):.2f}", f"{one.total('rest'):.2f}", f"{sum(one.write_units.values()):.2f}")
            for *sizes, one in sorted(runs, key=lambda run: run[:3])
        ],
    )
    return {
        f"{size} per request, {together} messages, wake {wake}": {
            "url": one.terms["url"],
            "rest": one.terms["rest"],
            "write_units": one.write_units,
            "read_units": one.read_units,
        }
        for size, together, wake, one in runs
    }


def _print_front(text: str, targets: dict[int, float], results: dict[int, Result], front: str) -> None:
    header = (text, *(f"{n}/request" for n in results))
    rows: list[tuple[str, ...]] = [
        (term, *(f"{one.terms[front][term]:.3f}" for one in results.values()))
        for term in TERMS
        if any(one.terms[front][term] for one in results.values())
    ]
    rows.append(("total $", *(f"{one.total(front):.2f}" for one in results.values())))
    rows.append(("aim $", *(f"{targets[n]:.2f}" for n in results)))
    rows.append(("ratio", *(f"{one.total(front) / targets[n]:.2f}" for n, one in results.items())))
    rows.append(("GB-s if billed as on AWS (assumed)", *(f"{one.modelled[front]:.3f}" for one in results.values())))
    report.table(header, rows)


def _print_parts(results: dict[int, Result]) -> None:
    parts = list(dict.fromkeys(part for one in results.values() for part in one.parts))
    rows: list[tuple[str, ...]] = [
        (part, *(f"{one.parts.get(part, 0.0):.3f}" for one in results.values())) for part in parts
    ]
    rows.append(("90 days of storage, not in the total", *(f"{one.storage:.3f}" for one in results.values())))
    report.table(("by part, $ (without the API's price)", *(f"{n}/request" for n in results)), rows)
    names = sorted(
        {name for one in results.values() for name in one.write_units}, key=lambda n: -results[1].write_units.get(n, 0)
    )
    report.table(
        ("write units per event", *(f"{n}/request" for n in results)),
        [(name, *(f"{one.write_units.get(name, 0.0):.4f}" for one in results.values())) for name in names]
        + [("all", *(f"{sum(one.write_units.values()):.3f}" for one in results.values()))],
    )
    report.table(
        ("read units per event", *(f"{n}/request" for n in results)),
        [(part, *(f"{one.read_units.get(part, 0.0):.4f}" for one in results.values())) for part in parts],
    )


if __name__ == "__main__":
    run()
