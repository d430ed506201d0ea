"""What a listing is narrowed by: the same words for events and incidents, and one definition of what
matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tocsin.signals.incidents import Incident, key_hash

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
class EventFilters:
    """Conditions on events. Times are Unix ms: `from_ms` inclusive, `to_ms` exclusive. `entity` is `type:id`,
    `words` are lower case. None and () mean no condition.
    """

    from_ms: int | None = None
    to_ms: int | None = None
    source: str | None = None
    entity: str | None = None
    type: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    tier: str | None = None
    status: str | None = None
    words: tuple[str, ...] = ()

    def matches(self, event: Mapping[str, Any], at_ms: int) -> bool:
        """Whether a stored, scored event matches; `at_ms` is its ruling time."""
        entity, tags = event["entity"], event.get("tags") or {}
        return (
            _within(at_ms, self.from_ms, self.to_ms)
            and self.source in (None, event["source"])
            and self.entity in (None, entity["id"], f"{entity['type']}:{entity['id']}")
            and self.type in (None, event["type"])
            and all(tags.get(key) == value for key, value in self.tags)
            and self.tier in (None, event.get("tier"))
            and self.status in (None, event.get("status", "firing"))
            and (not self.words or title_has(str(event.get("title", "")), self.words))
        )


@dataclass(frozen=True, slots=True)
class IncidentFilters:
    """Conditions on incidents: `from_ms` and `to_ms` bound the opening; source, entity, service and tags
    hold for any member.
    """

    from_ms: int | None = None
    to_ms: int | None = None
    source: str | None = None
    entity: str | None = None
    service: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    tier: str | None = None
    status: str | None = None
    words: tuple[str, ...] = ()

    def matches(self, incident: Incident) -> bool:
        """Whether an incident matches."""
        return (
            _within(incident.opened_at, self.from_ms, self.to_ms)
            and (self.source is None or self.source in incident.sources)
            and (self.entity is None or _holds(incident, self.entity))
            and (self.service is None or self.service in incident.services)
            and all(value in incident.tags.get(key, ()) for key, value in self.tags)
            and self.tier in (None, incident.tier)
            and self.status in (None, incident.status)
            and (not self.words or title_has(incident.title, self.words))
        )


@dataclass(frozen=True, slots=True)
class JournalFilters:
    """Conditions on journal entries. `project` is whose they are; times are Unix ms, `from_ms` inclusive, `to_ms`
    exclusive; `actor` is exact, such as `key_0190…`.
    """

    project: str
    from_ms: int | None = None
    to_ms: int | None = None
    kind: str | None = None
    actor: str | None = None

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry (its JSON object) matches."""
        return (
            entry["project"] == self.project
            and _within(entry["at"], self.from_ms, self.to_ms)
            and self.kind in (None, entry["kind"])
            and self.actor in (None, entry["actor"])
        )


def _holds(incident: Incident, entity: str) -> bool:
    """Whether an entity, written `type:id` or by its id alone, is among the incident's."""
    # An incident's row names an entity as it is, or by a short hash when it is long.
    if (key_hash(entity) if len(entity) > 60 else entity) in incident.entities:
        return True
    return any(name.partition(":")[2] == entity for name in incident.entities)


def _within(at_ms: int, from_ms: int | None, to_ms: int | None) -> bool:
    return (from_ms is None or at_ms >= from_ms) and (to_ms is None or at_ms < to_ms)


def split_words(text: str) -> tuple[str, ...]:
    """The words of a text query, lower case, sorted and without repeats; equal queries give equal words."""
    return tuple(sorted(set(text.lower().split())))
