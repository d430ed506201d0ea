"""Relay: sends what is overdue in the outbox, one run at a time. Woken by ticks on the relay queue."""

from typing import Any

from tocsin import wiring
from tocsin.defense.healing import is_stale
from tocsin.entry import note, queue_entry
from tocsin.kernel import clock

#: A run's lease ends with the function's own timeout.
LEASE_MS = 30_000


@queue_entry
def handler(message: dict[str, Any], context: Any) -> None:
    now = clock.now_ms()
    if is_stale(message, now):
        return
    lease = wiring.leases().take("relay", context.aws_request_id, now, LEASE_MS)
    if lease is None:
        return
    try:
        sent = wiring.outbox().sweep(now, context.get_remaining_time_in_millis)
    finally:
        wiring.leases().release(lease)
    wiring.heartbeats().beat("relay", now)
    note(swept=[sent])
