"""An HTTP request and answer as the rooms see them, whatever front they came through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower case; `headers` keeps every value of a repeated header, in order.

    `body` holds the exact bytes that were sent; `front` is "rest" (API Gateway) or "url" (Lambda Function URL).
    """

    method: str
    path: str
    trace_id: str
    request_id: str
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    query: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    source_ip: str = ""
    front: str = "rest"

    def header(self, name: str) -> str | None:
        """First value of a header, or None."""
        values = self.headers.get(name)
        return values[0] if values else None


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send back. `data` and `meta` become the JSON body; `raw` (text or bytes, with
    their content type) replaces it."""

    data: Any = None
    meta: Mapping[str, Any] | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    raw: tuple[str | bytes, str] | None = None
