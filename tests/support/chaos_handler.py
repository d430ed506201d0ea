"""What replaces the deployed score handler during the chaos test: the real one, slowed down and watched.

It writes a line per stage with its pid, so that the test knows which kills hit a running batch and where; it pauses
between mark and commit; it loses some of the table's answers; and when told to, it drops the condition that forbids a
buried attempt to commit.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import ReadTimeoutError
from botocore.httpsession import URLLib3Session
from score_handler import handler as real_handler

from tocsin.aws import ledger as ledger_module
from tocsin.aws.clients import client
from tocsin.aws.ledger import DynamoLedger
from tocsin.aws.table import Table, Write
from tocsin.signals import scorer

PLAN = json.loads((Path(__file__).parent / "chaos.json").read_text())
FOLDER = Path(PLAN["folder"])

#: How long an attempt is taken to live. Far below what it really takes, so that live ones are buried as well.
scorer.CLAIM_MARGIN_MS = PLAN["lifetime_ms"] - PLAN["timeout_ms"]
ledger_module.FOLD_EVERY = 8


def note(stage: str, **more: Any) -> None:
    line = json.dumps({"pid": os.getpid(), "stage": stage, "at": time.time(), **more}) + "\n"
    descriptor = os.open(FOLDER / "stages.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def lose_answers(request: Any, **_: Any) -> None:
    """The table carries a request out and its answer is lost; the SDK then repeats it."""
    if random.random() < PLAN["lost_answers"]:
        WIRE.send(request)
        raise ReadTimeoutError(endpoint_url=request.url, error="lost")


WIRE = URLLib3Session(timeout=5)
client("dynamodb").meta.events.register("before-send.dynamodb", lose_answers)

real_claim, real_commit, real_put_write = DynamoLedger.claim, DynamoLedger.commit, Table.put_write


def claim(self: DynamoLedger, *arguments: Any, **named: Any) -> Any:
    marks = real_claim(self, *arguments, **named)
    note("claimed")
    time.sleep(random.uniform(*PLAN["pause_s"]))
    return marks


def commit(self: DynamoLedger, *arguments: Any, **named: Any) -> Any:
    note("committing")
    number = real_commit(self, *arguments, **named)
    note("committed")
    time.sleep(random.uniform(0, 0.1))
    return number


def put_write(self: Table, key: Any, row: Any, *, condition: str | None = None, **values: Any) -> Write:
    if PLAN["broken"] and key.sk == "c":
        condition = None
    return real_put_write(self, key, row, condition=condition, **values)


DynamoLedger.claim, DynamoLedger.commit, Table.put_write = claim, commit, put_write  # type: ignore[method-assign]


def handler(event: dict[str, Any], context: Any) -> Any:
    bodies = [record["body"] for record in event.get("Records", ())]
    note("begin", bodies=bodies)
    answer = real_handler(event, context)
    note("end")
    return answer
