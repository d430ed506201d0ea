"""Identity: names that are either derived from content (so that a resend agrees without a read) or ordered by time."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

_UUID_RANDOM_BITS: Final = 74
#: Ten bits at a time are three times as fast as base64.b32encode, and ids are made for every event.
_PAIRS: Final = tuple(a + b for a in "abcdefghijklmnopqrstuvwxyz234567" for b in "abcdefghijklmnopqrstuvwxyz234567")
#: A sender's event id in the native grammar; '#' and '/' never appear, so it cannot forge a storage key.
SENDER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,63}", re.ASCII)
EVENT_ID = re.compile(r"evt_[a-z2-7]{26}", re.ASCII)
#: What stands for a user identifier: 130 bits of a keyed hash in base32.
PSEUDONYM = re.compile(r"usr_[a-z2-7]{26}", re.ASCII)
INCIDENT_ID = re.compile(r"inc_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)


def length_prefixed(*parts: str) -> bytes:
    """Unambiguous concatenation: each part as 4 bytes big-endian length, then UTF-8."""
    out = bytearray()
    for part in parts:
        raw = part.encode("utf-8")
        out += len(raw).to_bytes(4, "big") + raw
    return bytes(out)


def base32(data: bytes, characters: int) -> str:
    """First `characters` (5 bits each, at most 8/5 of len(data)) of the lower-case RFC 4648 base32 of data."""
    bits = -(-characters // 2) * 10
    number = int.from_bytes(data, "big") << bits >> 8 * len(data)
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(bits - 10, -1, -10)])[:characters]


def base32_digest(data: bytes, characters: int) -> str:
    """First `characters` (at most 51) of the lower-case RFC 4648 base32 of SHA-256(data)."""
    return base32(hashlib.sha256(data).digest(), characters)


def event_id(project: str, source: str, sender_id: str) -> str:
    """Server id of an event: `evt_` + 26 base32 characters (130 bits) of SHA-256 over (project, source, id)."""
    return "evt_" + base32_digest(length_prefixed(project, source, sender_id), 26)


def native_sender_id(sender_id: str) -> str:
    """The id itself when it fits the native grammar, otherwise a stable hash of it (`h_` + 32 base32 characters)."""
    if SENDER_ID.fullmatch(sender_id):
        return sender_id
    return "h_" + base32_digest(sender_id.encode("utf-8", "surrogatepass"), 32)


def uuid7(at_ms: int, random_bits: int | None = None) -> str:
    """UUID version 7 (RFC 9562 §5.7) for a Unix time in ms; `random_bits` (74 bits) makes it reproducible."""
    rand = secrets.randbits(_UUID_RANDOM_BITS) if random_bits is None else random_bits
    rand_a, rand_b = (rand >> 62) & 0xFFF, rand & ((1 << 62) - 1)
    value = (at_ms & ((1 << 48) - 1)) << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_id(prefix: str, at_ms: int) -> str:
    """A fresh time-ordered id such as `ntf_0190…`; the prefix says what it names."""
    return f"{prefix}_{uuid7(at_ms)}"


def derived_id(prefix: str, at_ms: int, *parts: str) -> str:
    """A time-ordered id that depends on its inputs only, so that repeating the work names the same thing."""
    digest = hashlib.sha256(length_prefixed(*parts)).digest()
    return f"{prefix}_{uuid7(at_ms, int.from_bytes(digest[:10], 'big') & ((1 << _UUID_RANDOM_BITS) - 1))}"


def id_time_ms(identifier: str) -> int:
    """Unix time in ms carried by a prefixed UUIDv7. Raises ValueError for anything else."""
    text = identifier.partition("_")[2].replace("-", "")
    if len(text) != 32 or text[12] != "7":
        raise ValueError("not a prefixed UUIDv7")
    return int(text[:12], 16)
