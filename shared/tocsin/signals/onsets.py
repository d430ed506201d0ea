"""Onsets: when alerts begin, and how near in time two beginnings must be to be more than chance.

Alerts of one cascade begin together; that they go on together says little, since any two incidents of a day overlap
somewhere. So what links services is the distance between onsets. Without a declared topology there is no telling which
services are neighbours, but a project learns how often its alerts begin: where that is rare, two beginnings within
seconds are no coincidence. `OnsetRate` holds that rate, with decay, for one project.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from tocsin.kernel import clock
from tocsin.signals.series import VERSION, decay, state_key

#: Key of the one state per project.
KEY: Final = state_key("onsets")
#: An event speaks of the beginning of its alert no longer than this after it.
FRESH_MS: Final = 2 * clock.MINUTE
#: Distances (seconds) below which onsets can be linked, longest first. Powers of two, so that the distance in use
#: changes seldom and onsets of one time share it.
STEPS_S: Final = (32, 16, 8, 4, 2, 1)
#: Share of the usual time between onsets below which a distance is no coincidence: two unrelated onsets come that near
#: in 1 - e^(-2 · 0.07) = 13 % of cases.
SHARE: Final = 0.07
#: Where alerts usually begin closer than this, minutes of silence between two of one service say little.
BUSY_MS: Final = 4 * clock.MINUTE


@dataclass(slots=True)
class OnsetRate:
    """How often alerts begin in a project. Onsets within the longest step of the one before are one beginning, so that
    a cascade does not make its own pace look usual. 42 bytes packed."""

    KIND: ClassVar[int] = 5
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBQQIdQ")
    HALF_LIFE_MS: ClassVar[int] = 12 * clock.HOUR
    #: Nothing is linked by rarity before a project has shown that much of its pace.
    READY_MS: ClassVar[int] = clock.HOUR
    READY_COUNT: ClassVar[int] = 4

    last: int
    first: int
    count: int = 0
    recent: float = 0.0
    began: int = 0

    @classmethod
    def unpack(cls, data: bytes | None) -> Self | None:
        if data is None or len(data) != cls.LAYOUT.size or data[0] != VERSION or data[1] != cls.KIND:
            return None
        return cls(*cls.LAYOUT.unpack(data)[2:])

    def pack(self) -> bytes:
        return self.LAYOUT.pack(VERSION, self.KIND, self.last, self.first, self.count, self.recent, self.began)

    def add(self, at: int) -> None:
        """Take the onset of an alert at `at` (ms)."""
        now = max(at, self.last)
        if self.count == 0 or abs(at - self.began) > STEPS_S[0] * clock.SECOND:
            self.recent = self.recent * decay(now - self.last, self.HALF_LIFE_MS) + 1.0
            self.count = min(self.count + 1, 0xFFFFFFFF)
            self.last = now
        self.began = at

    def usual_ms(self) -> float:
        """Usual time between beginnings; infinite while the pace is unknown."""
        seen = self.last - self.first
        if self.count < self.READY_COUNT or seen < self.READY_MS:
            return math.inf
        return self.HALF_LIFE_MS * _WINDOW * (1.0 - decay(seen, self.HALF_LIFE_MS)) / self.recent

    def near_s(self) -> int:
        """Seconds within which another onset is no coincidence; 0 while the pace is unknown or too fast to tell."""
        usual = self.usual_ms()
        if usual == math.inf:
            return 0
        return next((step for step in STEPS_S if step * clock.SECOND <= SHARE * usual), 0)


#: Window (in half-lives) whose plain count equals the decayed count at a steady rate: 1 / ln 2.
_WINDOW: Final = 1.4426950408889634

_MENTION: Final = re.compile(
    r"\b(?:(?:call|request|connect|connection|connecting)s? to|upstream|dependency|backend) "
    r"([A-Za-z][\w.-]{1,98}\w)",
    re.ASCII,
)
MAX_MENTIONS: Final = 2


def mentions(title: str) -> tuple[str, ...]:
    """What a text says it cannot reach, as in "call to pay-db failed": names that a service may have, 2 at most.

    Plain words do not count ("call to action"): a name holds a dash, dot or underscore.
    """
    if " to " not in title and "upstream" not in title and "dependency" not in title and "backend" not in title:
        return ()
    found = dict.fromkeys(name for name in _MENTION.findall(title) if "-" in name or "." in name or "_" in name)
    return tuple(found)[:MAX_MENTIONS]
