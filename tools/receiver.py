"""A webhook receiver on loopback: checks Standard Webhooks signatures by itself and keeps what it got as
JSONL.

It shares no code with the sender on purpose, so a receipt shows that a stranger's receiver would have
accepted the delivery. `python -m tools.receiver --port 5566 --secret whsec_…` runs it by hand.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: Seconds a signature may be old or early (Standard Webhooks 1.0, verifying webhook authenticity).
TOLERANCE_S = 300
MAX_BODY = 1_048_576


@dataclass(frozen=True)
class Receipt:
    """One request: when it came (Unix s), its webhook-id, whether its signature holds, and what it says.

    `problem` names the check that failed, "" for none; `status` is what was answered.
    """

    at: float
    webhook_id: str
    verified: bool
    problem: str
    status: int
    type: str
    subject: str
    data: dict[str, Any]


def signature_problem(
    secrets: Sequence[str], message_id: str, timestamp: str, signatures: str, body: bytes, now: float
) -> str:
    """Which check of Standard Webhooks 1.0 a request fails; "" when it is genuine. `now` is Unix seconds."""
    if not (message_id and timestamp and signatures):
        return "a webhook header is missing"
    if not timestamp.isascii() or not timestamp.isdigit() or abs(now - int(timestamp)) > TOLERANCE_S:
        return "the timestamp is malformed or out of tolerance"
    signed = f"{message_id}.{timestamp}.".encode() + body
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
        if any(hmac.compare_digest(expected, one.encode()) for one in signatures.split(" ")):
            return ""
    return "no signature matches"


class Receiver:
    """Listens from construction on until `close`. A request that any of the `secrets` signed is genuine."""

    def __init__(self, port: int, secrets: Sequence[str], log: Path | None = None, host: str = "127.0.0.1") -> None:
        self.secrets = list(secrets)
        self._log = log
        self._receipts: list[Receipt] = []
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer((host, port), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, headers: Any, body: bytes) -> int:
        """Judge and keep one request; the HTTP status to answer."""
        now = time.time()
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        message_id, timestamp, signatures = (str(headers.get(name) or "") for name in names)
        problem = signature_problem(self.secrets, message_id, timestamp, signatures, body, now)
        event: Any = None
        if not problem:
            try:
                event = json.loads(body)
            except ValueError:
                problem = "the body is not JSON"
        said = event if isinstance(event, dict) else {}
        data = said.get("data")
        receipt = Receipt(
            at=now,
            webhook_id=message_id,
            verified=not problem,
            problem=problem,
            status=401 if problem else 204,
            type=str(said.get("type", "")),
            subject=str(said.get("subject", "")),
            data=data if isinstance(data, dict) else {},
        )
        with self._changed:
            self._receipts.append(receipt)
            if self._log:
                with self._log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(receipt), ensure_ascii=False) + "\n")
            self._changed.notify_all()
        return receipt.status

    @property
    def receipts(self) -> list[Receipt]:
        """Everything so far, in the order of arrival."""
        with self._changed:
            return list(self._receipts)

    def wait(self, enough: Callable[[list[Receipt]], bool], seconds: float) -> bool:
        """Wait until `enough` holds for what came in; False when it does not within `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: enough(self._receipts), seconds)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > MAX_BODY:
                self._answer(413)
                return
            self._answer(receiver.take(self.headers, self.rfile.read(int(length))))

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Receipts are the log."""

    return Handler


def main() -> None:
    """Run until interrupted; prints one line per request."""
    parser = argparse.ArgumentParser(prog="python -m tools.receiver")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--secret", action="append", required=True, help="whsec_…, repeatable")
    parser.add_argument("--log", type=Path, help="JSONL file to append receipts to")
    chosen = parser.parse_args()
    receiver = Receiver(chosen.port, chosen.secret, chosen.log)
    print(f"listening on http://127.0.0.1:{receiver.port}/  (Ctrl-C ends)", flush=True)
    shown = 0
    try:
        while True:
            receiver.wait(lambda receipts, n=shown: len(receipts) > n, 3600)  # type: ignore[misc]
            for one in receiver.receipts[shown:]:
                shown += 1
                print(f"{one.status} {one.type} {one.subject} {one.problem or 'signature verified'}", flush=True)
    except KeyboardInterrupt:
        receiver.close()


if __name__ == "__main__":
    main()
