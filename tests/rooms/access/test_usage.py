"""Usage: counters that only the server moves, a report by day, and Stripe's meter events exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.support.access_fakes import NOW, UsageRows, refused
from tests.support.stripe import Stripe
from tools.cli.billing import StripeSender

from tocsin.access.usage import (
    CLOSED_AFTER,
    Account,
    StripeExporter,
    day_of,
    day_start,
    meter_event,
    report,
)
from tocsin.kernel import clock
from tocsin.kernel.errors import Retry

TODAY = day_of(NOW)
ACCOUNT = Account("cus_123", {"events": "tocsin_events", "llm_tokens": "tocsin_llm_tokens"})


def test_a_report_has_a_row_per_day_and_totals() -> None:
    rows = UsageRows()
    rows.add("p1", TODAY, {"events": 5, "bytes": 50})
    rows.add("p1", day_of(NOW - clock.DAY), {"events": 2})
    rows.add("p2", TODAY, {"events": 99})
    told = report(rows, "p1", NOW - 7 * clock.DAY, NOW)
    assert [row["day"] for row in told["items"]] == sorted(row["day"] for row in told["items"])
    assert told["items"][-1] == {
        "day": clock.rfc3339(NOW)[:10],
        "events": 5,
        "bytes": 50,
        "llm_tokens": 0,
        "calls": 0,
        "call_cost_pusd": 0,
    }
    assert told["totals"] == {"events": 7, "bytes": 50, "llm_tokens": 0, "calls": 0, "call_cost_pusd": 0}


@pytest.mark.parametrize("span", [-1, 93])
def test_a_report_covers_a_bounded_range(span: int) -> None:
    assert refused(report, UsageRows(), "p1", NOW, NOW + span * clock.DAY).code == "ERR_QUERY"


@pytest.mark.parametrize("day", ["2026-11-20", "", "2026112", "20261340"])
def test_a_day_has_a_form(day: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        day_start(day)


# --- Stripe


@pytest.fixture
def stripe() -> Iterator[Stripe]:
    double = Stripe(NOW)
    yield double
    double.close()


def three_days() -> UsageRows:
    rows = UsageRows()
    for back, events in ((0, 7), (1, 100), (2, 40)):
        rows.add("p1", day_of(NOW - back * clock.DAY), {"events": events, "bytes": 1})
    rows.add("p1", day_of(NOW - 2 * clock.DAY), {"llm_tokens": 900})
    rows.add("p1", day_of(NOW - 40 * clock.DAY), {"events": 1_000_000})
    return rows


def test_closed_days_are_handed_over_once(stripe: Stripe) -> None:
    rows = three_days()
    exporter = StripeExporter(rows, StripeSender(stripe.url), "sk_test_x")
    sent = exporter.export("p1", ACCOUNT, NOW)
    days = [day_of(NOW - back * clock.DAY) for back in (2, 1)]
    assert sent == [(days[0], "events", 40), (days[0], "llm_tokens", 900), (days[1], "events", 100)]
    assert exporter.export("p1", ACCOUNT, NOW) == []
    assert stripe.values("tocsin_events") == 140
    assert {one["payload[stripe_customer_id]"] for one in stripe.events.values()} == {"cus_123"}


def test_a_lost_mark_does_not_count_twice(stripe: Stripe) -> None:
    """Killed between Stripe's answer and our mark: the same identifier goes out again."""
    rows = three_days()
    exporter = StripeExporter(rows, StripeSender(stripe.url), "sk_test_x")
    exporter.export("p1", ACCOUNT, NOW)
    rows.sent.clear()
    exporter.export("p1", ACCOUNT, NOW)
    assert len(stripe.requests) == 6
    assert stripe.values("tocsin_events") == 140
    assert [one["headers"]["Idempotency-Key"] for one in stripe.requests[:3]] == [
        one["headers"]["Idempotency-Key"] for one in stripe.requests[3:]
    ]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_busy_stripe_is_asked_again_later(stripe: Stripe, status: int) -> None:
    rows = three_days()
    exporter = StripeExporter(rows, StripeSender(stripe.url), "sk_test_x")
    stripe.failing = [status]
    with pytest.raises(Retry):
        exporter.export("p1", ACCOUNT, NOW)
    assert rows.sent == set()
    assert len(exporter.export("p1", ACCOUNT, NOW)) == 3


def test_a_refusal_names_stripes_code_and_nothing_else(stripe: Stripe) -> None:
    exporter = StripeExporter(three_days(), StripeSender(stripe.url), "sk_test_wrong")
    refusal = refused(exporter.export, "p1", ACCOUNT, NOW)
    assert "401 invalid_request_error" in refusal.message
    stripe.failing = [400]
    assert "secret detail" not in refused(exporter.export, "p1", ACCOUNT, NOW).message


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error": 5}', b'{"error": {"code": "<script>"}}', b"\xff"])
def test_an_answer_that_is_no_json_is_told_so(body: bytes) -> None:
    class Sender:
        def post(self, path: str, headers: Mapping[str, str], sent: bytes) -> tuple[int, bytes]:
            return 400, body

    refusal = refused(StripeExporter(three_days(), Sender(), "sk").export, "p1", ACCOUNT, NOW)
    assert refusal.message.endswith("400 without a code")


def test_the_day_is_closed_an_hour_after_it_ends() -> None:
    rows = UsageRows()
    midnight = day_start(TODAY) + clock.DAY
    rows.add("p1", TODAY, {"events": 1})

    class Sender:
        def post(self, path: str, headers: Mapping[str, str], sent: bytes) -> tuple[int, bytes]:
            return 200, b"{}"

    exporter = StripeExporter(rows, Sender(), "sk")
    assert exporter.export("p1", ACCOUNT, midnight + CLOSED_AFTER - 1) == []
    assert len(exporter.export("p1", ACCOUNT, midnight + CLOSED_AFTER)) == 1


@pytest.mark.parametrize(
    "changes", [{"customer": "x"}, {"customer": "cus_1\r\nX: y"}, {"value": 0}, {"value": 2**53}, {"event_name": ""}]
)
def test_a_meter_event_that_stripe_would_refuse_is_not_built(changes: dict[str, Any]) -> None:
    given: dict[str, Any] = {"customer": "cus_1", "event_name": "e", "value": 1}
    with pytest.raises(ValueError, match=r"cus_|characters"):
        meter_event("sk", project="p1", meter="events", day=TODAY, **(given | changes))


def test_nobody_exports_without_a_key() -> None:
    with pytest.raises(ValueError, match="secret key"):
        StripeExporter(UsageRows(), StripeSender(), "")


def test_a_stripe_that_is_not_there_is_asked_again_later() -> None:
    double = Stripe(NOW)
    double.close()
    with pytest.raises(Retry):
        StripeExporter(three_days(), StripeSender(double.url), "sk_test_x").export("p1", ACCOUNT, NOW)
