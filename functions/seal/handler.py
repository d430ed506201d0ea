"""Seal: numbers waiting evidence, appends it to the journal and publishes a signed checkpoint, one run at a time."""

from typing import Any

from tocsin import wiring
from tocsin.defense.healing import is_stale
from tocsin.entry import MIN_REMAINING_MS, logger, queue_entry
from tocsin.kernel import clock

#: A run's lease ends with the function's own timeout.
LEASE_MS = 30_000
#: Time that a further batch may take.
BATCH_MS = 8_000 + MIN_REMAINING_MS


@queue_entry
def handler(message: dict[str, Any], context: Any) -> None:
    now = clock.now_ms()
    if "tick" in message and is_stale(message, now):
        return
    lease = wiring.leases().take("seal", context.aws_request_id, now, LEASE_MS)
    if lease is None:
        return
    try:
        outcome = wiring.sequencer().seal(now, lambda: context.get_remaining_time_in_millis() > BATCH_MS)
    finally:
        wiring.leases().release(lease)
    wiring.heartbeats().beat("seal", now)
    figures = {"sealed": outcome.sealed, "size": outcome.size, "unpublished": outcome.unpublished}
    if outcome.trouble:
        logger.warning("sealed, checkpoint lags", extra={**figures, "trouble": outcome.trouble})
    else:
        logger.info("sealed", extra=figures)
