"""Sealed cursors: a place in a listing that only we can write, and that fits one project and one query only.

A cursor is `c1.` + base64url(position as JSON ‖ HMAC-SHA256). Project and query are part of what is
authenticated, not of what is carried, so a cursor taken to another project or another filter does not open.
The position is readable by whoever holds the cursor; it names places in their own project and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Any, Final

from tocsin.kernel.canonical import canonical_json, digest
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.ids import length_prefixed

#: Longest cursor that is written or read, in characters.
MAX_CURSOR: Final = 1024
_VERSION: Final = "c1"
_MAC_BYTES: Final = 32


def _mac(key: bytes, project: str, query: Any, raw: bytes) -> bytes:
    signed = length_prefixed(_VERSION, project) + digest(query) + raw
    return hmac.new(key, signed, hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    return f"{_VERSION}." + base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def seal(key: bytes, project: str, query: Any, position: Any) -> str:
    """The cursor of a JSON `position` within `query` (any JSON value: what is listed and how it is filtered).

    Raises ValueError when the position is too long for a cursor, which is a defect of the listing.
    """
    raw = canonical_json(position)
    cursor = _encode(raw + _mac(key, project, query, raw))
    if len(cursor) > MAX_CURSOR:
        raise ValueError("the position does not fit a cursor")
    return cursor


def open_sealed(key: bytes, project: str, query: Any, cursor: str) -> Any:
    """The position of a cursor written by `seal` with the same key, project and query; else refuses
    ERR_CURSOR.
    """
    prefix, _, text = cursor[: MAX_CURSOR + 1].partition(".")
    if len(cursor) <= MAX_CURSOR and prefix == _VERSION and cursor.isascii():
        try:
            sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except binascii.Error:
            sealed = b""
        raw, mac = sealed[:-_MAC_BYTES], sealed[-_MAC_BYTES:]
        # Base64 has several spellings of the same bytes; only the one we write is ours.
        canonical = hmac.compare_digest(_encode(sealed), cursor)
        if hmac.compare_digest(_mac(key, project, query, raw), mac) and canonical:
            return json.loads(raw)
    raise Refusal(
        "ERR_CURSOR",
        "The cursor does not belong to this listing.",
        [
            Detail(
                "cursor",
                "from meta.next_cursor of the same query and project",
                "start again without a cursor",
            )
        ],
    )
