"""The Sentry envelope: a header line, then items, each a header line and a payload.

    {"event_id": "9ec…", "dsn": "https://key@host/1", "sent_at": "…"}
    {"type": "event", "length": 41, "content_type": "application/json"}
    {"message": "hello", "level": "error", …}

Source: develop.sentry.dev/sdk/data-model/envelopes. A payload has `length` bytes, or goes to the next newline.
An item of JSON becomes {"item": header, "event": payload}; other payloads (attachments, profiles, replays) are kept
as base64 under `payload`. Every document has the envelope's header beside it, without the key.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from tocsin.kernel import strict_json
from tocsin.kernel.errors import Detail, Refusal

#: Names of installed modules and long stacks make wider objects than our own events have.
JSON_LIMITS: Final = strict_json.Limits(depth=64, keys_per_object=5_000, array_items=5_000)
MAX_ITEMS: Final = 200
#: An attachment larger than this would make the event too large once it is base64.
MAX_BINARY: Final = 48_000
Document = tuple[Any, Mapping[str, Any]]


def _wrong(field: str, rule: str, fix: str) -> Refusal:
    return Refusal("ERR_SCHEMA", "The body is no Sentry envelope.", [Detail(field, rule, fix)])


def _line(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\n", at)
    return (data[at:], len(data)) if end < 0 else (data[at:end], end + 1)


def _header(line: bytes, field: str) -> dict[str, Any]:
    value = strict_json.read(line, JSON_LIMITS)
    if not isinstance(value, dict):
        raise _wrong(field, "object", "send a header as one line of JSON")
    return value


def _payload(kind: Any, raw: bytes) -> dict[str, Any]:
    """What a payload is read as: `event` when it is JSON, else `payload`."""
    if kind != "attachment":
        try:
            return {"event": strict_json.read(raw, JSON_LIMITS)}
        except Refusal as refusal:
            if refusal.code not in ("ERR_JSON_SYNTAX", "ERR_JSON_ENCODING"):
                raise
    if len(raw) > MAX_BINARY:
        rule, fix = "binary-bytes", f"send binary items of at most {MAX_BINARY} bytes"
        raise Refusal("ERR_EVENT_TOO_LARGE", "A binary item is too large.", [Detail("item", rule, fix)])
    return {"payload": base64.b64encode(raw).decode()}


def envelope(data: bytes) -> tuple[dict[str, Any], list[Document], list[tuple[int, Refusal]]]:
    """Header, documents and refused items (place, why) of an envelope. An item that cannot be read is refused alone.

    Raises Refusal when the framing itself is broken, since what follows cannot be told apart then.
    """
    line, at = _line(data, 0)
    head = _header(line, "envelope header")
    kept = {name: value for name, value in head.items() if name != "dsn"}
    if isinstance(kept.get("trace"), dict):
        kept["trace"] = {name: value for name, value in kept["trace"].items() if name != "public_key"}
    documents: list[Document] = []
    refused: list[tuple[int, Refusal]] = []
    place = 0
    while at < len(data):
        line, at = _line(data, at)
        if not line.strip():
            continue
        if place == MAX_ITEMS:
            raise _wrong("(body)", "items", f"send at most {MAX_ITEMS} items in one envelope")
        item = _header(line, f"header of item {place}")
        length = item.get("length")
        if length is None:
            raw, at = _line(data, at)
        elif type(length) is int and 0 <= length <= len(data) - at:
            raw, at = data[at : at + length], at + length
            if data[at : at + 1] == b"\n":
                at += 1
        else:
            raise _wrong(f"length of item {place}", "length", "send the number of bytes that follow")
        try:
            documents.append(({"item": item, **_payload(item.get("type"), raw), "envelope": kept}, {}))
        except Refusal as refusal:
            refused.append((place, refusal))
        place += 1
    return head, documents, refused
