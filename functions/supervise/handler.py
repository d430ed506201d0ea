"""Supervise: looks after all the rest, on a one-minute schedule directly and on ticks from its own queue."""

from typing import Any

from tocsin import wiring
from tocsin.defense.healing import is_stale
from tocsin.entry import note, queue_entry, schedule_entry
from tocsin.kernel import clock


@schedule_entry
def _scheduled(_event: dict[str, Any], _context: Any) -> dict[str, Any]:
    return wiring.supervisor().run(clock.now_ms(), scheduled=True).as_json()


@queue_entry
def _ticked(message: dict[str, Any], _context: Any) -> None:
    now = clock.now_ms()
    if not is_stale(message, now):
        note(runs=[wiring.supervisor().run(now).as_json()])


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Queue records are ticks; anything else is the schedule."""
    return (_ticked if isinstance(event, dict) and "Records" in event else _scheduled)(event, context)
