"""Connect: takes what other senders say in their own dialects, and answers as the Alertmanager they may read from.

Its schedule ends the alerts that were posted as if to an Alertmanager and are renewed no more.
"""

from typing import Any

from tocsin import wiring
from tocsin.api import senders
from tocsin.connectors import reception
from tocsin.entry import api_entry, schedule_entry
from tocsin.kernel import clock
from tocsin.kernel.http import Answer, Request


@api_entry
def _requests(request: Request) -> Answer:
    return senders.answer(request, wiring.admit, wiring.reception, wiring.alertmanager)


@schedule_entry
def _lapse(_event: dict[str, Any], _context: Any) -> dict[str, Any]:
    return {"ended": reception.lapse_all(wiring.reception(), wiring.leased(), clock.now_ms())}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The schedule's events come from EventBridge; anything else is a request, or refused as none."""
    scheduled = isinstance(event, dict) and event.get("source") == "aws.events"
    return (_lapse if scheduled else _requests)(event, context)
