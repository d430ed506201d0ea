"""Correlate: brings a project's incidents up to date with its log. Woken by EventScored facts and quiet timers."""

from typing import Any

from tocsin import wiring
from tocsin.entry import logger, queue_entry


@queue_entry
def handler(message: dict[str, Any], context: Any) -> None:
    worker = wiring.correlator()
    if message.get("timer") == "quiet":
        worker.quiet(message["project"], message["incident_id"])
        return
    wake = message.get("wake") or message["detail"]
    events = worker.catch_up(wake["project"], context.get_remaining_time_in_millis)
    logger.info("correlated", extra={"project_id": wake["project"], "events": events})
