"""Correlate: brings incidents up to date with the log. Woken by EventScored facts and quiet timers."""

import json
from collections.abc import Callable, Collection, Sequence

from tocsin import wiring
from tocsin.entry import batch_entry, each, note


@batch_entry
def handler(messages: Sequence[tuple[str, str]], remaining_ms: Callable[[], int]) -> Collection[str]:
    worker = wiring.correlator()
    caught_up: dict[str, int] = {}

    def handle(body: str) -> None:
        message = json.loads(body)
        if message.get("timer") == "quiet":
            worker.quiet(message["project"], message["incident_id"])
            return
        project = (message.get("wake") or message["detail"])["project"]
        if project not in caught_up:  # one pass covers every wake-up of this batch
            caught_up[project] = worker.catch_up(project, remaining_ms)

    failed = each(messages, handle, remaining_ms)
    note(projects=caught_up)
    return failed
