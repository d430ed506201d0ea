"""Digest: sums up for each channel what was withheld from it. Fed by the digest queue from an hourly
schedule.
"""

from typing import Any

from tocsin import wiring
from tocsin.entry import logger, queue_entry
from tocsin.kernel.clock import parse_rfc3339


@queue_entry
def handler(message: dict[str, Any], _context: Any) -> None:
    scheduled_at = parse_rfc3339(message["time"])
    only = message.get("project")
    records = wiring.digester().tick(scheduled_at, None if only is None else [only])
    logger.info("digests", extra={"sent": len(records), "scheduled_at": message["time"]})
