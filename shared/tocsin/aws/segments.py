"""Byte form of a commit's content: the changed series states, then the scored events, each zlib-compressed.

`[4 bytes length of A][A: states][B: events]`. Small commits keep it inside their log row; larger ones in S3 under the
SHA-256 of these bytes, written before the commit, so that an object nobody committed is never read.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from tocsin.kernel import envelope

_HEADER = struct.Struct(">I")
_STATE = struct.Struct(">8sBH")  # key, kind (0 hot, 1 full), length

States = dict[bytes, bytes]


def encode_states(hot: Mapping[bytes, bytes], full: Mapping[bytes, bytes]) -> bytes:
    parts = []
    for kind, states in enumerate((hot, full)):
        for key, state in sorted(states.items()):
            parts += [_STATE.pack(key, kind, len(state)), state]
    return zlib.compress(b"".join(parts), 3)


def decode_states(data: bytes) -> tuple[States, States]:
    raw = zlib.decompress(data)
    both: tuple[States, States] = ({}, {})
    at = 0
    while at < len(raw):
        key, kind, length = _STATE.unpack_from(raw, at)
        at += _STATE.size
        both[kind][key] = raw[at : at + length]
        at += length
    return both


def encode(
    hot: Mapping[bytes, bytes], full: Mapping[bytes, bytes], events: Sequence[Mapping[str, Any]]
) -> tuple[bytes, int]:
    """A segment's bytes, and the size of its events before compression."""
    states = encode_states(hot, full)
    raw = envelope.as_json(events)
    return _HEADER.pack(len(states)) + states + zlib.compress(raw, 6), len(raw)


def decode_events(data: bytes) -> list[dict[str, Any]]:
    (length,) = _HEADER.unpack_from(data)
    events = json.loads(zlib.decompress(data[_HEADER.size + length :]))
    if not isinstance(events, list):
        raise ValueError("segment does not hold a list of events")
    return events


def rewritten(data: bytes, old: bytes, new: bytes) -> bytes | None:
    """The segment with `new` for every `old` in its events, None when there is none. States hold no text."""
    (length,) = _HEADER.unpack_from(data)
    raw = zlib.decompress(data[_HEADER.size + length :])
    if old not in raw:
        return None
    return data[: _HEADER.size + length] + zlib.compress(raw.replace(old, new), 6)


def states_of(data: bytes) -> tuple[States, States]:
    (length,) = _HEADER.unpack_from(data)
    return decode_states(data[_HEADER.size : _HEADER.size + length])
