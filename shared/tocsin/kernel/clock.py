"""Time as integer milliseconds since the Unix epoch inside, RFC 3339 with 'Z' outside."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def now_ms() -> int:
    """Current Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def rfc3339(at_ms: int) -> str:
    """`2026-01-31T10:20:30.456Z` for a Unix time in ms."""
    whole, milli = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(whole, UTC).isoformat()[:19]}.{milli:03d}Z"


@lru_cache(maxsize=4096)  # the same texts are read at several places of an event's way
def parse_rfc3339(text: str) -> int:
    """Unix time in ms of an RFC 3339 date-time; the offset is required. Raises ValueError with the reason."""
    match = _RFC3339.fullmatch(text)
    if not match:
        raise ValueError("not an RFC 3339 date-time with an offset, such as 2026-01-31T10:20:30.456Z")
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    milli = int((match[7] or "0").ljust(3, "0")[:3])
    leap = second == 60  # RFC 3339 §5.6 allows a leap second; it counts as the last millisecond before it
    offset: tzinfo = UTC
    if match[8] not in "Zz":
        sign = -1 if match[8][0] == "-" else 1
        hours, minutes = int(match[8][1:3]), int(match[8][4:6])
        if hours > 23 or minutes > 59:
            raise ValueError("the offset is out of range")
        offset = timezone(sign * timedelta(hours=hours, minutes=minutes))
    moment = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=offset)
    return int(moment.timestamp()) * 1000 + (999 if leap else milli)
