"""Events as they travel after ingest, for tests that start behind it."""

from __future__ import annotations

from typing import Any

from tocsin.kernel import clock
from tocsin.kernel.ids import event_id

START_MS = 1_790_000_000_000


def stored_event(sender_id: str, *, at: int = START_MS, project: str = "demo", **fields: Any) -> dict[str, Any]:
    """A normalised CES event; keyword arguments replace its fields."""
    source = fields.pop("source", "prometheus")
    event = {
        "specversion": "1.0",
        "id": sender_id,
        "event_id": event_id(project, source, sender_id),
        "source": source,
        "type": "latency_p99",
        "title": "p99 latency above threshold on cart-api-1",
        "body": "",
        "occurred_at": clock.rfc3339(at),
        "received_at": clock.rfc3339(at),
        "entity": {"type": "service", "id": "cart-api"},
        "tags": {"service": "cart-api"},
        "metrics": {},
        "severity_raw": "error",
        "severity_id": 4,
        "status": "firing",
        "dedup_key": f"{source}|latency_p99|service:cart-api",
        "links": [],
        "extras": {},
        "project_id": project,
        "trace_id": "trace-0001",
        "flags": [],
    }
    return event | fields
