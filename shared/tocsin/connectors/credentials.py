"""Who sends, in the sender's own style: each brings the same API key, in another place.

`with_key` moves the key to where access looks for it, so that one authentication serves all dialects; what it
moves is taken out of the request as the mapping sees it. A Sentry webhook carries a signature instead of a key.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tocsin.connectors.registry import Call
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Request

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="tocsin", Basic realm="tocsin"'}
_SENTRY_PAIR = re.compile(r"(?:^|[\s,])sentry_key=([A-Za-z0-9_]{1,128})", re.ASCII)
_DSN = re.compile(r"https?://([A-Za-z0-9_]{1,128})(?::[^@/]*)?@", re.ASCII)


def _missing(fix: str) -> Refusal:
    return Refusal("ERR_AUTH_MISSING", f"Send an API key: {fix}.", headers=_CHALLENGE)


def _basic(value: str) -> str | None:
    """Password of HTTP Basic credentials (RFC 7617), or the user name when there is no password."""
    try:
        user, _, password = base64.b64decode(value, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return password or user or None


def _from_headers(request: Request) -> str | None:
    """The key of `Authorization: Basic`; None leaves Bearer and X-Api-Key to access itself."""
    scheme, _, value = (request.header("authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    return _basic(value.strip()) or "not a key"


def _from_dsn(request: Request, body: Any) -> str:
    for text in (request.header("x-sentry-auth"), request.header("authorization")):
        found = _SENTRY_PAIR.search(text or "")
        if found:
            return found[1]
    query = request.query.get("sentry_key", ())
    if query:
        return query[0]
    dsn = body.get("dsn") if isinstance(body, Mapping) else None
    found = _DSN.match(dsn) if isinstance(dsn, str) else None
    if found is None:
        raise _missing("as the public key of the DSN")
    return found[1]


def key_of(call: Call, request: Request, body: Any = None) -> str | None:
    """The key a request carries in its connector's own style; None when it is in a header that access reads.

    `body` is the parsed body (for Sentry the envelope's header), for the styles that put the key there. Raises
    Refusal ERR_AUTH_MISSING.
    """
    style = call.connector.auth
    if style == "routing-key":
        key = body.get("routing_key") if isinstance(body, Mapping) else None
        if not isinstance(key, str) or not key:
            raise _missing("as routing_key of the body")
        return key
    if style == "genie-key":
        scheme, _, key = (request.header("authorization") or "").partition(" ")
        if scheme.lower() == "geniekey" and key.strip():
            return key.strip()
        return _from_headers(request)
    if style == "path-key":
        return call.params["key"]
    if style == "dsn":
        return _from_dsn(request, body)
    return _from_headers(request)


def with_key(call: Call, request: Request, body: Any = None) -> Request:
    """The request with its key in X-Api-Key, where access looks for it, and in no other header."""
    return _moved(request, key_of(call, request, body))


def with_any_key(request: Request) -> Request:
    """As with_key, for requests of no connector: HTTP Basic besides what access reads itself."""
    return _moved(request, _from_headers(request))


def _moved(request: Request, key: str | None) -> Request:
    if key is None:
        return request
    headers = {name: value for name, value in request.headers.items() if name not in ("authorization", "x-api-key")}
    return replace(request, headers={**headers, "x-api-key": (key,)})
