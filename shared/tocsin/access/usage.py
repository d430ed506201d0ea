"""What a project used, as counters per UTC day that a billing system can read, and their export to Stripe.

Counts come from what was stored, never from what a client says it sent, and every commit of events adds its own
in the same transaction, so a resent event counts once. The Stripe exporter hands over each closed day of each
meter once, as a meter event (POST /v1/billing/meter_events) whose identifier follows from project, meter and day:
Stripe refuses to count one identifier twice, and a mark here keeps it from being sent again later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from tocsin.access.ports import BillingSender, UsageStore
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal, Retry
from tocsin.kernel.ids import base32_digest, length_prefixed

#: Counters of a day. `bytes` are those of events as stored before compression; calls through the engine cost 1e-12 USD.
METERS: Final = ("events", "bytes", "llm_tokens", "calls", "call_cost_pusd")
MAX_AMOUNT: Final = 2**53 - 1
#: Longest range that one answer covers, in days.
MAX_DAYS: Final = 92
#: A day is closed, in ms after its end, when no commit can still add to it.
CLOSED_AFTER: Final = clock.HOUR
#: Stripe takes meter events of the past 35 days.
STRIPE_DAYS: Final = 34
STRIPE_PATH: Final = "/v1/billing/meter_events"
STRIPE_VERSION: Final = "2025-04-30.basil"
_DAY = re.compile(r"[0-9]{8}", re.ASCII)
_CUSTOMER = re.compile(r"cus_[A-Za-z0-9]{1,60}", re.ASCII)


def day_of(at_ms: int) -> str:
    """UTC day `yyyymmdd`."""
    return clock.rfc3339(at_ms)[:10].replace("-", "")


def day_start(day: str) -> int:
    """Unix ms at which a UTC day begins."""
    if not _DAY.fullmatch(day):
        raise ValueError("a day is yyyymmdd")
    return clock.parse_rfc3339(f"{day[:4]}-{day[4:6]}-{day[6:]}T00:00:00Z")


def report(store: UsageStore, project: str, first_ms: int, last_ms: int) -> dict[str, Any]:
    """Usage of a project by day, both ends included, with totals. Refuses ERR_QUERY for a range over 92 days."""
    if not 0 <= last_ms - first_ms <= MAX_DAYS * clock.DAY:
        detail = Detail("to", "range", f"send a range of at most {MAX_DAYS} days")
        raise Refusal("ERR_QUERY", "The range of days is not valid.", [detail])
    first, last = day_of(first_ms), day_of(last_ms)
    items, totals = [], dict.fromkeys(METERS, 0)
    for day, counted in store.days(project, first, last):
        row = {name: int(counted.get(name, 0)) for name in METERS}
        items.append({"day": f"{day[:4]}-{day[4:6]}-{day[6:]}", **row})
        for name in METERS:
            totals[name] += row[name]
    return {"items": items, "totals": totals}


@dataclass(frozen=True, slots=True)
class BillingRequest:
    """One request to the billing system, ready to be sent."""

    path: str
    headers: Mapping[str, str]
    body: bytes


def meter_event(
    secret_key: str, customer: str, event_name: str, project: str, meter: str, day: str, value: int
) -> BillingRequest:
    """A Stripe meter event for one meter of one day. Raises ValueError for values Stripe would not take.

    Repeating it repeats identifier and idempotency key, so that Stripe counts it once.
    """
    if not _CUSTOMER.fullmatch(customer):
        raise ValueError("a Stripe customer id begins cus_")
    if not 1 <= len(event_name) <= 100 or not 1 <= value <= MAX_AMOUNT:
        raise ValueError("event_name has 1 to 100 characters, value is positive")
    identifier = "tcn_" + base32_digest(length_prefixed(project, meter, day), 40)
    fields = {
        "event_name": event_name,
        "identifier": identifier,
        "timestamp": str(day_start(day) // 1000 + 86_399),  # the day's last second
        "payload[stripe_customer_id]": customer,
        "payload[value]": str(value),
    }
    headers = {
        "Authorization": f"Bearer {secret_key}",
        "Content-Type": "application/x-www-form-urlencoded",
        "Idempotency-Key": identifier,
        "Stripe-Version": STRIPE_VERSION,
    }
    return BillingRequest(STRIPE_PATH, headers, urlencode(fields).encode("ascii"))


@dataclass(frozen=True, slots=True)
class Account:
    """A project's account at Stripe. `meters` maps our meters to the event names of Stripe's."""

    customer: str
    meters: Mapping[str, str]


class StripeExporter:
    """Hands over closed days. Behind a flag: nobody builds one unless a secret key was configured."""

    def __init__(self, store: UsageStore, sender: BillingSender, secret_key: str) -> None:
        if not secret_key:
            raise ValueError("the exporter needs Stripe's secret key")
        self._store, self._sender, self._secret = store, sender, secret_key

    def export(self, project: str, account: Account, now: int) -> list[tuple[str, str, int]]:
        """Send every closed day not yet sent, oldest first; returns (day, meter, value) of what was sent now.

        Raises Retry when Stripe is busy or away (408, 409, 429, 5xx), keeping what was done; raises Refusal
        ERR_SCHEMA with Stripe's own error code when it refuses a figure for good.
        """
        first = day_of(now - STRIPE_DAYS * clock.DAY)
        last = day_of(now - CLOSED_AFTER - clock.DAY)
        sent = []
        for day, counted in self._store.days(project, first, last):
            for meter, event_name in sorted(account.meters.items()):
                value = int(counted.get(meter, 0))
                if value < 1 or self._store.exported(project, day, meter):
                    continue
                self._send(meter_event(self._secret, account.customer, event_name, project, meter, day, value))
                self._store.mark_exported(project, day, meter, value, now)
                sent.append((day, meter, value))
        return sent

    def _send(self, request: BillingRequest) -> None:
        status, body = self._sender.post(request.path, request.headers, request.body)
        if 200 <= status < 300:
            return
        if status in (408, 409, 429) or status >= 500:
            raise Retry(f"Stripe answered {status}", 30.0)
        raise Refusal("ERR_SCHEMA", f"Stripe refused a meter event: {status} {_code(body)}")


def _code(body: bytes) -> str:
    """Stripe's own code of an error answer; nothing else of it is repeated."""
    try:
        error = json.loads(body)["error"]
        code = str(error.get("code") or error.get("type"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return "without a code"
    return code if re.fullmatch(r"[a-z_]{1,60}", code) else "without a code"
