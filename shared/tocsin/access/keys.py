"""API keys as text: how they are made, how a typing error is caught without a table read, and what is stored.

    tcn_live_ <id: 12 base62> <secret: 32 base62> <check: 6 base62>

The id names the record. The secret holds 190 bits. The check is CRC-32 (ISO-HDLC) of everything before it,
written in base62: it is no protection against an attacker, it only lets mistyped and made-up keys be refused
for free. What is stored is HMAC-SHA256(pepper, whole text); with 190 random bits a slow password hash would
add nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ENVIRONMENTS: Final = ("live", "test")
ID_CHARACTERS: Final = 12
SECRET_CHARACTERS: Final = 32
CHECK_CHARACTERS: Final = 6
MIN_PEPPER_BYTES: Final = 16
#: Shape of a key wherever it stands in a text; the check is not verified by the pattern.
KEY = re.compile(r"tcn_(live|test)_([0-9A-Za-z]{12})[0-9A-Za-z]{32}([0-9A-Za-z]{6})", re.ASCII)
_LENGTH: Final = len("tcn_live_") + ID_CHARACTERS + SECRET_CHARACTERS + CHECK_CHARACTERS


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A well-formed key: its environment ("live" or "test") and the 12-character id of its record."""

    env: str
    key_id: str


def _check(body: str) -> str:
    number, out = zlib.crc32(body.encode("ascii")), ""
    for _ in range(CHECK_CHARACTERS):
        number, digit = divmod(number, len(ALPHABET))
        out = ALPHABET[digit] + out
    return out


def _random(characters: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(characters))


def mint(env: str = "live") -> tuple[str, str]:
    """A fresh key: (text to hand out once, key id). Raises ValueError for an unknown environment."""
    if env not in ENVIRONMENTS:
        raise ValueError(f"an API key is for one of {', '.join(ENVIRONMENTS)}")
    key_id = _random(ID_CHARACTERS)
    body = f"tcn_{env}_{key_id}{_random(SECRET_CHARACTERS)}"
    return body + _check(body), key_id


def parse(text: str) -> ParsedKey | None:
    """What a key says about itself, or None when its length, alphabet or check is wrong."""
    if len(text) != _LENGTH:
        return None
    match = KEY.fullmatch(text)
    if match is None or _check(text[:-CHECK_CHARACTERS]) != match[3]:
        return None
    return ParsedKey(env=match[1], key_id=match[2])


def stored_hash(pepper: bytes, text: str) -> bytes:
    """The 32 bytes kept in the key's record: HMAC-SHA256 under the pepper (16 bytes or more)."""
    if len(pepper) < MIN_PEPPER_BYTES:
        raise ValueError(f"the pepper must hold at least {MIN_PEPPER_BYTES} bytes")
    return hmac.new(pepper, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def verify(pepper: bytes, text: str, stored: bytes) -> bool:
    """Whether `text` is the key behind `stored`, compared in constant time."""
    return hmac.compare_digest(stored_hash(pepper, text), stored)
