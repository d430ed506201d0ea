"""The wrapper of every message and stored segment: one project, one kind, compressed, and authenticated.

`{v, kind, envelope_id, project, trace_id, received_at, key_id, payload, mac}`; payload is zlib-compressed JSON in
base64. The MAC ties a message to the functions that hold the envelope key, so that a body put on a queue by anyone
else ends in the dead-letter queue. `key_id` names the data key once payloads are encrypted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import zlib
from dataclasses import dataclass
from typing import Any, Final

from tocsin.kernel.errors import Refusal
from tocsin.kernel.ids import length_prefixed

VERSION: Final = 1
READABLE: Final = frozenset({VERSION})
#: Largest payload that is unpacked from one message; matches the ingest limit with room for what ingest adds.
MAX_UNPACKED: Final = 16 * 1024 * 1024

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message. `payload` is a JSON object; `received_at` is Unix ms; `key_id` None says it is in clear.

    `size` is the unpacked size of the payload in bytes, known once it was opened.
    """

    kind: str
    envelope_id: str
    project: str
    trace_id: str
    received_at: int
    payload: dict[str, Any]
    key_id: str | None = None
    size: int = 0


def as_json(value: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return _encode(value).encode("utf-8")


def pack(value: Any) -> bytes:
    """zlib level 6 over compact JSON; the form in which payloads and rows are kept."""
    return zlib.compress(as_json(value), 6)


def inflate(data: bytes, limit: int = MAX_UNPACKED) -> bytes:
    """zlib data unpacked. Raises ValueError for bytes that are damaged or unpack to more than `limit`."""
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(data, limit)
    except zlib.error as error:
        raise ValueError("payload is not zlib data") from error
    if not stream.eof or stream.unused_data:
        raise ValueError("payload is truncated, too large or followed by other data")
    return raw


def unpack(data: bytes) -> Any:
    """Inverse of pack. Raises ValueError for damaged bytes."""
    return json.loads(inflate(data))


def _mac(key: bytes, head: dict[str, Any], payload: str) -> str:
    signed = length_prefixed(json.dumps(head, sort_keys=True, separators=(",", ":")), payload)
    return hmac.new(key, signed, hashlib.sha256).hexdigest()


def seal(envelope: Envelope, key: bytes) -> str:
    """Message body (ASCII JSON) of an envelope, authenticated with `key`."""
    payload = base64.b64encode(pack(envelope.payload)).decode("ascii")
    head = {
        "v": VERSION,
        "kind": envelope.kind,
        "envelope_id": envelope.envelope_id,
        "project": envelope.project,
        "trace_id": envelope.trace_id,
        "received_at": envelope.received_at,
        "key_id": envelope.key_id,
    }
    return json.dumps({**head, "payload": payload, "mac": _mac(key, head, payload)}, separators=(",", ":"))


def open_sealed(body: str, key: bytes) -> Envelope:
    """The envelope of a message body. Refuses ERR_SCHEMA for an unknown version, a wrong shape or a wrong MAC."""
    try:
        message = json.loads(body)
        payload, mac = message.pop("payload"), message.pop("mac")
        if message["v"] not in READABLE:
            raise Refusal("ERR_SCHEMA", f"envelope version {message['v']!r:.20} is not readable")
        if not hmac.compare_digest(_mac(key, message, payload), str(mac)):
            raise Refusal("ERR_SCHEMA", "envelope is not authentic")
        raw = inflate(base64.b64decode(payload, validate=True))
        return Envelope(
            kind=message["kind"],
            envelope_id=message["envelope_id"],
            project=message["project"],
            trace_id=message["trace_id"],
            received_at=message["received_at"],
            payload=json.loads(raw),
            key_id=message["key_id"],
            size=len(raw),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error) as error:
        raise Refusal("ERR_SCHEMA", f"not an envelope: {type(error).__name__}") from error
