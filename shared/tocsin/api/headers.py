"""Headers that every answer carries, and who may read answers from a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Request

#: For every answer of every function (OWASP Secure Headers). Answers are data: nothing in them may run or be
#: framed.
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": ("default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_ALLOWED_REQUEST_HEADERS: Final = (
    "authorization, content-type, if-match, traceparent, x-admin-token, x-api-key, x-approval, x-trace-id"
)
_EXPOSED_HEADERS: Final = "etag, retry-after, x-trace-id"


def _same_origin(request: Request, origin: str) -> bool:
    host = request.header("host")
    return host is not None and origin.lower() in (f"https://{host.lower()}", f"http://{host.lower()}")


def cors(request: Request, configured: str | None) -> dict[str, str]:
    """CORS headers for a request: only the configured origin gets any. Refuses ERR_ORIGIN for a foreign
    origin.

    Requests without an Origin (servers, command lines) and from the API's own pages pass without CORS
    headers.
    """
    origin = request.header("origin")
    if origin is None:
        return {}
    if configured and origin == configured:
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": _EXPOSED_HEADERS,
            "Vary": "Origin",
        }
    if _same_origin(request, origin):
        return {}
    raise Refusal("ERR_ORIGIN", "Pages of this origin may not call this API.", headers={"Vary": "Origin"})


def preflight(request: Request, configured: str | None, methods: str) -> dict[str, str]:
    """Headers of the answer to OPTIONS on a path that takes `methods` (comma-separated)."""
    allowed = cors(request, configured)
    if not allowed:
        return {"Allow": methods}
    return {
        **allowed,
        "Allow": methods,
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": _ALLOWED_REQUEST_HEADERS,
        "Access-Control-Max-Age": "600",
    }
