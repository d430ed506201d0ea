"""Connect: takes what other senders say in their own dialects, and answers as the Alertmanager they may read from.

Its schedule ends the alerts that were posted as if to an Alertmanager and are renewed no more; its queue brings alarms
and findings from the account's event bus.
"""

from typing import Any

from tocsin import wiring
from tocsin.api import senders
from tocsin.connectors import reception
from tocsin.entry import api_entry, logger, queue_entry, schedule_entry
from tocsin.kernel import clock
from tocsin.kernel.http import Answer, Request


@api_entry
def _requests(request: Request) -> Answer:
    return senders.answer(request, wiring.admit, wiring.reception, wiring.alertmanager)


@schedule_entry
def _lapse(_event: dict[str, Any], _context: Any) -> dict[str, Any]:
    return {"ended": reception.lapse_all(wiring.reception(), wiring.leased(), clock.now_ms())}


@queue_entry
def _account(event: dict[str, Any], _context: Any) -> None:
    taken = reception.hear_account(wiring.reception(), wiring.operators_project(), event)
    logger.info("account", extra={"taken": taken})


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The schedule, messages of the queue, or a request; anything else is refused as none."""
    if isinstance(event, dict) and event.get("source") == "aws.events":
        return _lapse(event, context)
    if isinstance(event, dict) and "Records" in event:
        return _account(event, context)
    return _requests(event, context)
