"""How long a function's first call takes, as a ratio to the smallest function that uses boto3.

Measured in fresh interpreters from process start to the handler's return: the emulator's own interpreter, the built
layers and the built function on its path as the emulator puts them, the environment the function is deployed with, a
real event, and the embedded cloud behind it. The bare handler makes one DynamoDB client and reads one item. Unzipping
a layer and whatever a platform does before the process starts are not part of it. Rounds alternate over all
functions, so that a change of load meets them all alike; figures are medians.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import report, stack, workload
from tools.local.home import SHARED

from tocsin.aws.data_keys import KmsKeyRing
from tocsin.aws.table import Table
from tocsin.kernel import clock, envelope, ids
from tocsin.kernel.envelope import Envelope
from tocsin.kernel.sealing import Sealer
from tocsin.signals import events

QUEUE_FUNCTIONS = ("score", "correlate", "notify", "relay", "digest", "supervise")
AIM = 2.0
BARE = """
import os
import boto3
table = boto3.client("dynamodb")

def handler(event, context):
    print("called")
    return table.get_item(TableName=os.environ["TOCSIN_TABLE"], Key={"pk": {"S": "none"}, "sk": {"S": "none"}})
"""
CHILD = """
import json, sys, time

class Context:
    aws_request_id = "cold"
    function_name = "cold"
    def get_remaining_time_in_millis(self):
        return 20000

event = json.loads(sys.stdin.read())
import handler
imported = time.monotonic()
answer = handler.handler(event, Context())
done = time.monotonic()
print("\\n@" + json.dumps({"imported": imported, "done": done, "answer": str(answer)[:2000]}))
"""


class Cold:
    """Starts functions in fresh processes against resources of their own."""

    def __init__(self, resources: stack.Resources, bare: Path) -> None:
        self._resources, self._bare = resources, bare
        self._project, self._key = stack.project(resources.name)
        secret = stack.client("secretsmanager").get_secret_value(
            SecretId=stack.environment("score")["TOCSIN_SECRET_ENVELOPE"]
        )
        self._envelope_key = b64decode(secret["SecretString"])
        deployed = stack.environment("score")
        rows = Table(stack.client("dynamodb"), deployed["TOCSIN_DATA_KEYS"])
        self._sealer = Sealer(KmsKeyRing(rows, lambda: stack.client("kms"), deployed["TOCSIN_MASTER_KEY"]))
        self._events = workload.events("cold")
        self._build = SHARED / "build" / "ministack" / "out"

    def start(self, function: str) -> tuple[float, float]:
        """Milliseconds from process start until the handler was imported, and until it returned."""
        code = self._bare if function == "bare" else self._build / f"{function.capitalize()}Function"
        path = [self._build / layer / "python" for layer in ("RuntimeLayer", "SharedLayer")] + [code]
        known = self._resources.environment("score" if function == "bare" else function)
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "AWS_LAMBDA_FUNCTION_NAME": function,
            **known,
        }
        event = json.dumps({} if function == "bare" else self._event(function))
        began = time.monotonic()
        done = subprocess.run(
            [str(SHARED / "ministack" / "bin" / "python"), "-B", "-c", CHILD],
            input=event, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{function}: {done.stderr[-1000:]}")
        told = json.loads(done.stdout.rpartition("\n@")[2])
        if "itemIdentifier" in told["answer"] or "'statusCode': 5" in told["answer"]:
            raise RuntimeError(f"{function} failed: {told['answer']}\n{done.stdout[-1000:]}")
        return (told["imported"] - began) * 1000, (told["done"] - began) * 1000

    def _event(self, function: str) -> dict[str, Any]:
        now = clock.now_ms()
        makers: dict[str, Callable[[], dict[str, Any]]] = {
            "ingest": lambda: stack.url_event(workload.body([next(self._events)]), self._key),
            "score": lambda: stack.records([self._message(now)]),
            "correlate": lambda: stack.records([json.dumps({"wake": {"project": self._project}})]),
            "notify": lambda: stack.records([json.dumps({"detail-type": "IncidentOpened", "detail": self._fact(now)})]),
            "relay": lambda: stack.records([json.dumps({"tick": {"at": now}})]),
            "supervise": lambda: stack.records([json.dumps({"tick": {"at": now}})]),
            "digest": lambda: stack.records([json.dumps({"time": clock.rfc3339(now), "project": self._project})]),
            "api": lambda: stack.rest_event("GET", "/v1/incidents", self._key),
            "public": lambda: stack.rest_event("GET", "/livez", ""),
        }
        return makers[function]()

    def _message(self, now: int) -> str:
        """One event as ingest puts it on the score queue."""
        event = events.validate(next(self._events))
        digest = events.sent_bytes(event)[:16].hex()
        event_id = ids.event_id(self._project, event["source"], event["id"])
        events.stamp(event, project=self._project, event_id=event_id, trace_id="0" * 32, received_at=now)
        payload = {"events": [event], "digests": [digest]}
        sealed = Envelope("events", ids.new_id("env", now), self._project, "0" * 32, now, payload)
        return envelope.seal(sealed, self._envelope_key, self._sealer)

    def _fact(self, now: int) -> dict[str, Any]:
        summary = {"title": "cold", "status": "open", "tier": "high", "score": 0.8, "severity_id": 4, "events": 1}
        summary |= {"entities": [], "sources": [], "services": [], "tags": {}, "first": now, "last": now, "version": 1}
        identifier = ids.new_id("inc", now)
        detail = {"project": self._project, "incident_id": identifier, "seq": 1, "kind": "opened", "at": now}
        return {**detail, "summary": {**summary, "id": identifier, "root": None}, "trace_id": "0" * 32}


def run(rounds: int = 5) -> dict[str, Any]:
    """Prints median cold starts and their ratio to the bare handler's."""
    report.title("Cold start: process start until the first call returned")
    times: dict[str, list[tuple[float, float]]] = {}
    resources = stack.Resources()
    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "handler.py").write_text(BARE)
            cold = Cold(resources, Path(folder))
            for number in range(-1, rounds):  # the first round warms the page cache
                for function in ("bare", *stack.FUNCTIONS):
                    taken = cold.start(function)
                    if number >= 0:
                        times.setdefault(function, []).append(taken)
    finally:
        resources.close()
    medians = {name: tuple(map(statistics.median, zip(*taken, strict=True))) for name, taken in times.items()}
    bare = medians["bare"]
    figures = {name: {"import_ms": m[0], "total_ms": m[1], "ratio": m[1] / bare[1]} for name, m in medians.items()}
    report.table(
        ("function", "import ms", "first call ms", "total ms", "ratio to bare boto3", "aim"),
        [
            (
                name,
                *(f"{ms:.0f}" for ms in (m[0], m[1] - m[0], m[1])),
                f"{m[1] / bare[1]:.2f}",
                f"{AIM:.1f}" if name in QUEUE_FUNCTIONS else "",
            )
            for name, m in medians.items()
        ],
    )
    return figures


if __name__ == "__main__":
    run()
