"""Usage: counters that only the server moves, a report by day, and Stripe's meter events exactly once."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.support.access_fakes import NOW, UsageRows, refused

from tocsin.access.usage import (
    CLOSED_AFTER,
    STRIPE_PATH,
    Account,
    StripeExporter,
    UsageMeter,
    amounts,
    day_of,
    day_start,
    meter_event,
    report,
)
from tocsin.kernel import clock
from tocsin.kernel.errors import Retry

TODAY = day_of(NOW)
ACCOUNT = Account("cus_123", {"events": "tocsin_events", "llm_tokens": "tocsin_llm_tokens"})


def test_amounts_are_added_in_one_write_per_project_and_day() -> None:
    rows = UsageRows()
    meter = UsageMeter(rows, every=100)
    for n in range(250):
        meter.add("p1" if n % 2 else "p2", NOW, requests=1, bytes=10)
    assert rows.writes == 4
    meter.flush()
    meter.flush()
    assert rows.rows["p1", TODAY] == {"requests": 125, "bytes": 1250}
    assert rows.writes == 6


def test_what_the_store_refuses_stays_held() -> None:
    rows = UsageRows()
    meter = UsageMeter(rows)
    rows.away = True
    meter.add("p1", NOW, requests=3)
    meter.flush()
    rows.away = False
    meter.flush()
    assert rows.rows["p1", TODAY] == {"requests": 3}


@pytest.mark.parametrize(
    "counted", [{"events": -1}, {"events": 2**53}, {"events": 1.5}, {"events": True}, {"price": 1}, {"bytes": "9"}]
)
def test_absurd_amounts_are_not_counted(counted: dict[str, Any]) -> None:
    """A71: negative and huge values."""
    with pytest.raises(ValueError, match=r"must be|no meter"):
        amounts(**counted)


def test_nothing_is_nothing() -> None:
    assert amounts(events=0, bytes=5) == {"bytes": 5}


def test_a_report_has_a_row_per_day_and_totals() -> None:
    rows = UsageRows()
    rows.add("p1", TODAY, {"events": 5, "bytes": 50})
    rows.add("p1", day_of(NOW - clock.DAY), {"events": 2, "requests": 1})
    rows.add("p2", TODAY, {"events": 99})
    told = report(rows, "p1", NOW - 7 * clock.DAY, NOW)
    assert [row["day"] for row in told["items"]] == sorted(row["day"] for row in told["items"])
    assert told["items"][-1] == {
        "day": clock.rfc3339(NOW)[:10],
        "requests": 0,
        "events": 5,
        "bytes": 50,
        "llm_tokens": 0,
    }
    assert told["totals"] == {"requests": 1, "events": 7, "bytes": 50, "llm_tokens": 0}


@pytest.mark.parametrize("span", [-1, 93])
def test_a_report_covers_a_bounded_range(span: int) -> None:
    assert refused(report, UsageRows(), "p1", NOW, NOW + span * clock.DAY).code == "ERR_QUERY"


@pytest.mark.parametrize("day", ["2026-11-20", "", "2026112", "20261340"])
def test_a_day_has_a_form(day: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        day_start(day)


# --- Stripe, as its API reference describes POST /v1/billing/meter_events


class Stripe:
    """A local double: checks what the reference demands, counts each identifier once, and can be away."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, str]] = {}
        self.requests: list[dict[str, Any]] = []
        self.failing: list[int] = []
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, answer = double.take(self.path, dict(self.headers.items()), body)
                raw = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path: str, headers: Mapping[str, str], body: str) -> tuple[int, dict[str, Any]]:
        fields = {name: values[0] for name, values in parse_qs(body, strict_parsing=True).items()}
        self.requests.append({"path": path, "headers": headers, "fields": fields})
        if self.failing:
            return self.failing.pop(0), {"error": {"type": "api_error", "message": "secret detail"}}
        if headers.get("Authorization") != "Bearer sk_test_x":
            return 401, {"error": {"type": "invalid_request_error"}}
        if path != STRIPE_PATH or headers.get("Content-Type") != "application/x-www-form-urlencoded":
            return 404, {"error": {"code": "resource_missing"}}
        at, now = int(fields["timestamp"]), NOW // 1000
        if not now - 35 * 86_400 <= at <= now + 300:
            return 400, {"error": {"code": "timestamp_invalid"}}
        known = {"event_name", "identifier", "timestamp", "payload[stripe_customer_id]", "payload[value]"}
        if set(fields) != known or len(fields["identifier"]) > 100 or int(fields["payload[value]"]) < 1:
            return 400, {"error": {"code": "parameter_invalid"}}
        self.events.setdefault(fields["identifier"], fields)
        return 200, {"object": "billing.meter_event", **fields}

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """BillingSender over real HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=5)
        try:
            connection.request("POST", path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def values(self, event_name: str) -> int:
        return sum(int(one["payload[value]"]) for one in self.events.values() if one["event_name"] == event_name)


@pytest.fixture
def stripe() -> Iterator[Stripe]:
    double = Stripe()
    yield double
    double.server.shutdown()
    double.server.server_close()


def three_days() -> UsageRows:
    rows = UsageRows()
    for back, events in ((0, 7), (1, 100), (2, 40)):
        rows.add("p1", day_of(NOW - back * clock.DAY), {"events": events, "bytes": 1})
    rows.add("p1", day_of(NOW - 2 * clock.DAY), {"llm_tokens": 900})
    rows.add("p1", day_of(NOW - 40 * clock.DAY), {"events": 1_000_000})
    return rows


def test_closed_days_are_handed_over_once(stripe: Stripe) -> None:
    rows = three_days()
    exporter = StripeExporter(rows, stripe, "sk_test_x")
    sent = exporter.export("p1", ACCOUNT, NOW)
    days = [day_of(NOW - back * clock.DAY) for back in (2, 1)]
    assert sent == [(days[0], "events", 40), (days[0], "llm_tokens", 900), (days[1], "events", 100)]
    assert exporter.export("p1", ACCOUNT, NOW) == []
    assert stripe.values("tocsin_events") == 140
    assert {one["payload[stripe_customer_id]"] for one in stripe.events.values()} == {"cus_123"}


def test_a_lost_mark_does_not_count_twice(stripe: Stripe) -> None:
    """Killed between Stripe's answer and our mark: the same identifier goes out again."""
    rows = three_days()
    exporter = StripeExporter(rows, stripe, "sk_test_x")
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
    exporter = StripeExporter(rows, stripe, "sk_test_x")
    stripe.failing = [status]
    with pytest.raises(Retry):
        exporter.export("p1", ACCOUNT, NOW)
    assert rows.sent == set()
    assert len(exporter.export("p1", ACCOUNT, NOW)) == 3


def test_a_refusal_names_stripes_code_and_nothing_else(stripe: Stripe) -> None:
    exporter = StripeExporter(three_days(), stripe, "sk_test_wrong")
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
        StripeExporter(UsageRows(), Stripe.__new__(Stripe), "")
