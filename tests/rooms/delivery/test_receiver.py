"""Real sockets on loopback: the answer that gets lost, and the redirect that must not be followed (F23,
F24).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.support.delivery_fakes import Bench, fact, webhook
from tocsin.delivery import signing
from tocsin.delivery.dispatch import Dispatcher
from tocsin.delivery.webhook import SignedWebhooks
from tocsin.kernel import clock

MASTER = b"m" * 32


def _secret(channel_id: str, version: int) -> str:
    return signing.channel_secret(MASTER, channel_id, version)


@dataclass
class Endpoint:
    """A loopback receiver: keeps verified requests and answers from `script`, then 204. None closes
    without an answer; a text is a redirect to it.
    """

    script: list[int | str | None] = field(default_factory=list)
    got: list[tuple[str, bytes]] = field(default_factory=list)
    port: int = 0

    def serve(self) -> HTTPServer:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                now_s = int(self.headers["webhook-timestamp"])
                message_id = signing.verify([_secret("chn_ops", 1)], dict(self.headers), body, now_s)
                endpoint.got.append((message_id, body))
                answer = endpoint.script.pop(0) if endpoint.script else 204
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(302 if isinstance(answer, str) else answer)
                if isinstance(answer, str):
                    self.send_header("location", answer)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return None

        server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@pytest.fixture
def endpoints() -> Iterator[tuple[Endpoint, Endpoint]]:
    pair = Endpoint(), Endpoint()
    servers = [endpoint.serve() for endpoint in pair]
    yield pair
    for server in servers:
        server.shutdown()
        server.server_close()


def _bench(endpoint: Endpoint) -> tuple[Bench, Dispatcher]:
    bench = Bench()
    bench.add(webhook(url=f"http://127.0.0.1:{endpoint.port}/in"))
    sender = SignedWebhooks(_secret, allow={("127.0.0.1", endpoint.port)}, resolve=lambda host, port: [host])
    return bench, Dispatcher(replace(bench.ports(), webhooks=sender), bench.policy)


def _again(bench: Bench, dispatcher: Dispatcher) -> None:
    """Plays the relay once for whatever is due within the hour."""
    for (project, incident_id, seq, channel_id), at in list(bench.world.outbox.items()):
        bench.world.now = max(bench.world.now, at)
        reference = {"project": project, "incident_id": incident_id, "seq": seq, "channel_id": channel_id}
        dispatcher.deliver({**reference, "wake_at": at})


def test_an_answer_that_got_lost_is_delivered_again_under_the_same_id(
    endpoints: tuple[Endpoint, Endpoint],
) -> None:
    endpoint, _ = endpoints
    endpoint.script = [None, 500]
    bench, dispatcher = _bench(endpoint)
    (record,) = dispatcher.handle(fact())
    assert (record.decision, record.attempts[0].status) == ("retrying", 0)
    _again(bench, dispatcher)
    _again(bench, dispatcher)
    (record,) = bench.world.records.values()
    assert record.decision == "delivered"
    assert [attempt.status for attempt in record.attempts] == [0, 500, 204]
    assert endpoint.got == [(record.webhook_id, endpoint.got[0][1])] * 3
    assert json.loads(endpoint.got[0][1])["id"] == record.webhook_id


def test_a_redirect_is_a_failure_and_its_target_hears_nothing(endpoints: tuple[Endpoint, Endpoint]) -> None:
    endpoint, canary = endpoints
    endpoint.script = [f"http://127.0.0.1:{canary.port}/in", "http://169.254.169.254/latest/meta-data"]
    bench, dispatcher = _bench(endpoint)
    (record,) = dispatcher.handle(fact())
    assert (record.decision, record.attempts[0].status) == ("retrying", 302)
    bench.world.now += clock.HOUR
    _again(bench, dispatcher)
    assert canary.got == []
    assert len(endpoint.got) == 2


def test_a_private_address_that_is_not_allowed_is_never_contacted(
    endpoints: tuple[Endpoint, Endpoint],
) -> None:
    endpoint, canary = endpoints
    bench, dispatcher = _bench(endpoint)
    bench.add(replace(bench.world.channels[("acme", "chn_ops")], url=f"http://127.0.0.1:{canary.port}/in"))
    (record,) = dispatcher.handle(fact())
    assert (record.decision, record.attempts[0].status) == ("retrying", 0)
    assert "not allowed" in str(record.reason)
    assert canary.got == []
