"""Stripe's meter events as its API reference describes POST /v1/billing/meter_events, on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from tocsin.access.usage import STRIPE_PATH


class Stripe:
    """A local double: checks what the reference demands, counts each identifier once, and can be away. `now` in ms."""

    def __init__(self, now: int) -> None:
        self.now = now
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
        at, now = int(fields["timestamp"]), self.now // 1000
        if not now - 35 * 86_400 <= at <= now + 300:
            return 400, {"error": {"code": "timestamp_invalid"}}
        known = {"event_name", "identifier", "timestamp", "payload[stripe_customer_id]", "payload[value]"}
        if set(fields) != known or len(fields["identifier"]) > 100 or int(fields["payload[value]"]) < 1:
            return 400, {"error": {"code": "parameter_invalid"}}
        self.events.setdefault(fields["identifier"], fields)
        return 200, {"object": "billing.meter_event", **fields}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def values(self, event_name: str) -> int:
        return sum(int(one["payload[value]"]) for one in self.events.values() if one["event_name"] == event_name)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
