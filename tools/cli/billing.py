"""Usage handed to Stripe: an operator's job, once a day or more often, wherever STRIPE_SECRET_KEY is set."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tocsin.access.usage import Account
from tocsin.kernel.errors import Retry

STRIPE = "https://api.stripe.com"


class StripeSender:
    """Implements BillingSender over HTTPS. `url` is Stripe's, or a double's in tests. Timeout in seconds."""

    def __init__(self, url: str = STRIPE, timeout: float = 15.0) -> None:
        self._url, self._timeout = url.rstrip("/"), timeout

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        request = urllib.request.Request(self._url + path, body, dict(headers), method="POST")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:  # noqa: S310 - the URL is ours
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError as error:
            raise Retry(f"Stripe does not answer: {error}", 30.0) from error


def accounts(file: Path) -> dict[str, Account]:
    """Accounts by project from {"prj_…": {"customer": "cus_…", "meters": {"events": "<Stripe's event name>"}}}."""
    return {project: Account(one["customer"], one["meters"]) for project, one in json.loads(file.read_text()).items()}
