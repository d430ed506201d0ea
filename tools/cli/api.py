"""A small client of Tocsin's HTTP API (standard library only), and the contract file with its address."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class ApiError(Exception):
    """The API refused or could not be reached. `status` is 0 when there was no answer; `body` is what it
    said.
    """

    def __init__(self, status: int, code: str, message: str, body: Any = None) -> None:
        super().__init__(f"{status or 'no answer'} {code}: {message}")
        self.status, self.code, self.body = status, code, body


def home() -> Path:
    """The folder of the stack that TOCSIN_HOME selects (default `.local`), as `make up` uses it."""
    chosen = Path(os.environ.get("TOCSIN_HOME") or ".local")
    return chosen if chosen.is_absolute() else ROOT / chosen


def contract() -> dict[str, Any]:
    """What `make up` left in tocsin.json. Raises FileNotFoundError naming the remedy."""
    file = home() / "tocsin.json"
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is not there: run make up, or set TOCSIN_HOME") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} does not hold a contract")
    return found


class Api:
    """One key's view of the API. Timeouts in seconds."""

    def __init__(self, url: str, key: str, timeout: float = 15.0) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._timeout = timeout

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The whole answer, {"data", "meta"} (with "error" for 207). `body` is JSON, or bytes sent as they
        are.

        Raises ApiError for every status of 400 and above, and when there is no answer.
        """
        address = self._url + path
        given = {name: value for name, value in (query or {}).items() if value is not None}
        if given:
            address += "?" + urllib.parse.urlencode(given, doseq=True)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, method=method)  # noqa: S310 - from the contract
        request.add_header("X-Api-Key", self._key)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:  # noqa: S310
                return _document(answer.read())
        except urllib.error.HTTPError as error:
            said = _document(error.read())
            problem = said.get("error") or {}
            raise ApiError(error.code, problem.get("code", "?"), problem.get("message", error.reason), said) from error
        except (urllib.error.URLError, OSError) as error:
            raise ApiError(0, "ERR_UNREACHABLE", f"{self._url}: {error}") from error

    def get(self, path: str, **query: Any) -> Any:
        """`data` of a GET."""
        return self.call("GET", path, query=query)["data"]

    def items(self, path: str, most: int, **query: Any) -> Iterator[dict[str, Any]]:
        """Up to `most` items of a listing, following its cursors."""
        cursor = None
        while most > 0:
            answer = self.call("GET", path, query={**query, "limit": min(most, 100), "cursor": cursor})
            page = answer["data"]["items"]
            yield from page[:most]
            most -= len(page)
            cursor = (answer.get("meta") or {}).get("next_cursor")
            if cursor is None:
                return


def _document(raw: bytes) -> dict[str, Any]:
    """The JSON object of an answer; other texts, such as a gateway's, become an error of their own."""
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    text = raw[:200].decode("utf-8", "replace")
    return {"error": {"code": "ERR_NOT_JSON", "message": text}}
