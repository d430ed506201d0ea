"""Correlate: brings incidents up to date with the log. Woken by EventScored facts and quiet timers."""

import json
from collections.abc import Callable, Collection, Sequence

from tocsin import wiring
from tocsin.entry import batch_entry, each, note


@batch_entry
def handler(messages: Sequence[tuple[str, str]], remaining_ms: Callable[[], int]) -> Collection[str]:
    worker = wiring.correlator()
    caught_up: dict[str, int] = {}
    timers: dict[str, dict[str, set[str]]] = {}  # by project and incident: bodies of the messages that ask

    def handle(body: str) -> None:
        message = json.loads(body)
        if message.get("timer") == "quiet":
            asked = timers.setdefault(message["project"], {})
            for incident_id in message["incident_ids"]:
                asked.setdefault(incident_id, set()).add(body)
            return
        project = (message.get("wake") or message["detail"])["project"]
        if project not in caught_up:  # one pass covers every wake-up of this batch
            caught_up[project] = worker.catch_up(project, remaining_ms)

    failed = each(messages, handle, remaining_ms)
    late: set[str] = set()
    for project, asked in timers.items():
        for incident_id, reason in worker.quiet(project, asked, remaining_ms).items():
            late |= asked[incident_id]
            note(reasons=[f"{incident_id}: {reason}"])
    note(projects=caught_up)
    return failed | {message_id for message_id, body in messages if body in late}
