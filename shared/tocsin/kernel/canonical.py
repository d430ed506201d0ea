"""Canonical bytes of JSON values, for digests that two machines must agree on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode  # built once: json.dumps with options builds an encoder per call


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no white space. Equal values give equal bytes; NaN raises ValueError.

    Floats are written as Python's shortest round-trip form, which is stable across supported versions; documents that
    must satisfy RFC 8785 hold integers and strings only.
    """
    return _encode(value).encode("utf-8")


def digest(value: Any) -> bytes:
    """SHA-256 over canonical_json(value), 32 bytes."""
    return hashlib.sha256(canonical_json(value)).digest()
