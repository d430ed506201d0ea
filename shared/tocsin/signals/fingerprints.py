"""Fingerprints: events that say the same thing about different values share one.

A title becomes a template by masking what varies: quoted text, values after '=', user names, URLs, paths,
every token that holds a digit (numbers, addresses, hex, UUIDs, times) and the entity's own name. The
fingerprint is a hash of the event's type and that template. Masking digit-bearing tokens alone groups the
loghub samples as well as Drain does with default settings (docs/scoring.md has the figures), needs no state
and cannot drift.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from tocsin.kernel.ids import base32

#: Raised whenever any event could get another fingerprint than before.
VERSION: Final = 1
MASK: Final = "<*>"
#: Characters of a title that are looked at, and tokens of a template that are kept: bounds the work per
#: event.
MAX_CHARACTERS: Final = 2048
MAX_TOKENS: Final = 64

_QUOTED = re.compile(r"""\"[^"]*"|(?<!\w)'[^']*'(?!\w)|`[^`]*`|\(\)""")
_PERSON = re.compile(r"(?<=\buser )[^\s=]+|(?<=\bfor )\w+(?= from )")
#: What makes a token vary: a digit, a scheme, an address or a path.
_VARIABLE = re.compile(r"\d|://|[@/\\]\w")
_CALENDAR: Final = frozenset(
    (
        "Mon",
        "Tue",
        "Wed",
        "Thu",
        "Fri",
        "Sat",
        "Sun",
        "Jan",
        "Feb",
        "Mar",
        "Apr",
        "May",
        "Jun",
        "Jul",
        "Aug",
        "Sep",
        "Oct",
        "Nov",
        "Dec",
    )
)
_HEX_LETTERS: Final = "abcdefABCDEF"
_PUNCTUATION: Final = "()[],.:;"
#: Names of things that hold a digit and yet do not vary.
_NAMES: Final = frozenset(
    (
        "k8s",
        "s3",
        "ec2",
        "h2",
        "http2",
        "http3",
        "ipv4",
        "ipv6",
        "oauth2",
        "md5",
        "sha1",
        "sha256",
        "utf8",
        "base64",
        "log4j",
        "x509",
        "4xx",
        "5xx",
        "p50",
        "p75",
        "p90",
        "p95",
        "p99",
        "p999",
    )
)
_TYPE_VARIABLE = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[0-9a-fA-F]*\d[0-9a-fA-F]{7,}|\d{4,}")
_MIN_ENTITY: Final = 3


def _mask(token: str) -> str:
    """A token with its variable part masked, or as it is."""
    if token.isalpha():
        is_hex = len(token) >= 8 and not token.strip(_HEX_LETTERS)
        return MASK if is_hex or token in _CALENDAR else token
    if token.strip(_PUNCTUATION).lower() in _NAMES:
        return token
    name, equals, _ = token.partition("=")
    if _VARIABLE.search(name):
        return MASK
    return f"{name}={MASK}" if equals else token


@lru_cache(maxsize=1024)
def _whole(entity_id: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(entity_id)}(?!\w)")


def template(title: str, entity_id: str = "") -> str:
    """The title with everything that varies replaced by `<*>`; `entity_id`, when it stands in the title,
    too.
    """
    text = title[:MAX_CHARACTERS]
    if len(entity_id) >= _MIN_ENTITY and entity_id in text:
        text = _whole(entity_id).sub(MASK, text)
    if '"' in text or "'" in text or "`" in text or "()" in text:
        text = _QUOTED.sub(MASK, text)
    if "user " in text or "for " in text:
        text = _PERSON.sub(MASK, text)
    return " ".join([_mask(token) for token in text.split(None, MAX_TOKENS)[:MAX_TOKENS]])


def fingerprint(event: Mapping[str, Any]) -> str:
    """`fp1_` + 16 base32 characters (80 bits) over type and title template; missing fields count as empty."""
    entity = event.get("entity")
    entity_id = entity.get("id", "") if entity else ""
    kind = _TYPE_VARIABLE.sub(MASK, event.get("type", "")[:256])
    text = f"{kind}\n{template(event.get('title', ''), entity_id)}"
    raw = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).digest()
    return f"fp{VERSION}_{base32(raw, 16)}"
