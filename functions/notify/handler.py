"""Notify: tells channels about incidents. Fed by the notify queue: facts of the bus, and retries that are due."""

from typing import Any

from tocsin import wiring
from tocsin.entry import note, queue_entry


@queue_entry
def handler(message: dict[str, Any], _context: Any) -> None:
    dispatcher = wiring.dispatcher()
    if message.get("kind") == "deliver":
        record = dispatcher.deliver(message["record"])
        records = [record] if record else []
    else:
        records = dispatcher.handle(message["detail"])
    note(
        notifications=[
            {
                "trace_id": record.trace_id,
                "project_id": record.project,
                "notification_id": record.id,
                "channel_id": record.channel_id,
                "decision": record.decision,
                "attempts": len(record.attempts),
            }
            for record in records
        ]
    )
