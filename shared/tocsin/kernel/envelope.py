"""The wrapper of every message: one project, one kind, compressed, encrypted and authenticated.

`{v, kind, envelope_id, project, trace_id, received_at, key_id, payload, mac}`; payload is zlib-compressed JSON, sealed
with the project's data key that `key_id` names, in base64. The MAC ties a message to the functions that hold the
deployment's envelope key, so that a body put on a queue by anyone else ends in the dead-letter queue. Version 1, in
clear and without key_id, is still read.
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
from tocsin.kernel.sealing import Sealer, key_id

VERSION: Final = 2
READABLE: Final = frozenset({VERSION - 1, VERSION})
#: Largest payload that is unpacked from one message; matches the ingest limit with room for what ingest adds.
MAX_UNPACKED: Final = 16 * 1024 * 1024

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message. `payload` is a JSON object; `received_at` is Unix ms.

    `size` is the unpacked size of the payload in bytes, known once it was opened.
    """

    kind: str
    envelope_id: str
    project: str
    trace_id: str
    received_at: int
    payload: dict[str, Any]
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


def seal(envelope: Envelope, key: bytes, sealer: Sealer) -> str:
    """Message body (ASCII JSON) of an envelope, authenticated with `key`."""
    sealed = sealer.seal(envelope.project, pack(envelope.payload), *_place(envelope.kind, envelope.envelope_id))
    payload = base64.b64encode(sealed).decode("ascii")
    head = {
        "v": VERSION,
        "kind": envelope.kind,
        "envelope_id": envelope.envelope_id,
        "project": envelope.project,
        "trace_id": envelope.trace_id,
        "received_at": envelope.received_at,
        "key_id": key_id(sealed),
    }
    return json.dumps({**head, "payload": payload, "mac": _mac(key, head, payload)}, separators=(",", ":"))


def _place(kind: str, envelope_id: str) -> tuple[str, str, str]:
    return "envelope", kind, envelope_id


def authentic(body: str, key: bytes) -> dict[str, Any]:
    """The members of a message body, payload still sealed. Refuses ERR_SCHEMA for an unknown version, a wrong shape or
    a wrong MAC.
    """
    try:
        message: dict[str, Any] = json.loads(body)
        head = dict(message)
        payload, mac = head.pop("payload"), head.pop("mac")
        if head["v"] not in READABLE:
            raise Refusal("ERR_SCHEMA", f"envelope version {head['v']!r:.20} is not readable")
        if not hmac.compare_digest(_mac(key, head, payload), str(mac)):
            raise Refusal("ERR_SCHEMA", "envelope is not authentic")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Refusal("ERR_SCHEMA", f"not an envelope: {type(error).__name__}") from error
    return message


def open_sealed(body: str, key: bytes, sealer: Sealer) -> Envelope:
    """The envelope of a message body. Refuses as authentic() does; ERR_PROJECT_DELETED when its key was destroyed."""
    message = authentic(body, key)
    try:
        packed = base64.b64decode(message["payload"], validate=True)
        if message["key_id"] is not None:
            packed = sealer.open(message["project"], packed, *_place(message["kind"], message["envelope_id"]))
        raw = inflate(packed)
        return Envelope(
            kind=message["kind"],
            envelope_id=message["envelope_id"],
            project=message["project"],
            trace_id=message["trace_id"],
            received_at=message["received_at"],
            payload=json.loads(raw),
            size=len(raw),
        )
    except (ValueError, TypeError, KeyError, binascii.Error) as error:
        raise Refusal("ERR_SCHEMA", f"not an envelope: {type(error).__name__}") from error
