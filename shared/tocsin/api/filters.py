"""What a listing is narrowed by: the same words for events and incidents, and one definition of what matches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_WORD = re.compile(r"[^\W_]+(?:[._-][^\W_]+)*", re.UNICODE)


def words(text: str) -> list[str]:
    """Lower-case words of a title, each also cut at inner dots, dashes and underscores."""
    found: list[str] = []
    for match in _WORD.finditer(text.lower()):
        found.append(match[0])
        found.extend(part for part in re.split(r"[._-]", match[0])[1:])
    return found


def title_has(title: str, wanted: Iterable[str]) -> bool:
    """Whether each wanted word (lower case) is the beginning of some word of the title."""
    have = words(title)
    return all(any(word.startswith(want) for word in have) for want in wanted)


@dataclass(frozen=True, slots=True)
class Filters:
    """Times are Unix ms: `from_ms` inclusive, `to_ms` exclusive. `entity` is `type:id`. Empty means no condition."""

    from_ms: int | None = None
    to_ms: int | None = None
    source: str | None = None
    entity: str | None = None
    type: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    tier: str | None = None
    status: str | None = None
    words: tuple[str, ...] = ()

    def within(self, at_ms: int) -> bool:
        """Whether a time lies in the range."""
        return (self.from_ms is None or at_ms >= self.from_ms) and (self.to_ms is None or at_ms < self.to_ms)


@dataclass(frozen=True, slots=True)
class EventFilters(Filters):
    """Conditions on events; `status` is the sender's."""

    def matches(self, event: Mapping[str, Any], at_ms: int, tier: str) -> bool:
        """Whether a stored event matches; `at_ms` is its ruling time and `tier` the tier of its score."""
        entity = event.get("entity") or {}
        tags = event.get("tags") or {}
        return (
            self.within(at_ms)
            and self.source in (None, event.get("source"))
            and self.entity in (None, f"{entity.get('type')}:{entity.get('id')}")
            and self.type in (None, event.get("type"))
            and all(tags.get(key) == value for key, value in self.tags)
            and self.tier in (None, tier)
            and self.status in (None, event.get("status", "firing"))
            and (not self.words or title_has(str(event.get("title", "")), self.words))
        )


@dataclass(frozen=True, slots=True)
class IncidentFilters(Filters):
    """Conditions on incidents: `from_ms` and `to_ms` bound the opening, the others hold for any member."""

    def matches(self, incident: Mapping[str, Any], opened_ms: int) -> bool:
        """Whether an incident matches, by its lists `sources`, `entities` (`type:id`), `types`, `tags` (key: values)."""
        tags = incident.get("tags") or {}
        return (
            self.within(opened_ms)
            and (self.source is None or self.source in incident.get("sources", ()))
            and (self.entity is None or self.entity in incident.get("entities", ()))
            and (self.type is None or self.type in incident.get("types", ()))
            and all(value in tags.get(key, ()) for key, value in self.tags)
            and self.tier in (None, incident.get("tier"))
            and self.status in (None, incident.get("status"))
            and (not self.words or title_has(str(incident.get("title", "")), self.words))
        )


def split_words(text: str) -> tuple[str, ...]:
    """The words of a text query, lower case, sorted and without repeats; equal queries give equal words."""
    return tuple(sorted(set(text.lower().split())))
