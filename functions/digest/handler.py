"""Digest: sums up for each channel what was withheld from it. Fed by the digest queue, hourly."""

from typing import Any

from tocsin import wiring
from tocsin.entry import note, queue_entry
from tocsin.kernel import clock


@queue_entry
def handler(message: dict[str, Any], _context: Any) -> None:
    scheduled_at = clock.parse_rfc3339(message["time"])
    only = message.get("project")
    records = wiring.digester().tick(scheduled_at, None if only is None else [only])
    wiring.heartbeats().beat("digest", clock.now_ms())
    note(digests=[{"sent": len(records), "scheduled_at": message["time"]}])
