"""Incidents for the API; implements tocsin.api.ports.IncidentReader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tocsin.api.filters import IncidentFilters
from tocsin.api.ports import MAX_SEGMENTS, Page
from tocsin.aws import keys
from tocsin.aws.event_reader import MAX_PAGE_BYTES, DynamoEventReader, Json
from tocsin.aws.incident_store import DynamoIncidentStore, Member
from tocsin.kernel import clock
from tocsin.kernel.envelope import as_json
from tocsin.signals.incidents import Incident

#: Incident rows and days looked at per request.
_MAX_ROWS: Final = 500
_MAX_DAYS: Final = 31
#: Members of a judged incident that calibration looks at.
_MAX_MEMBERS: Final = 100


class DynamoIncidentReader:
    """Lists day by day, newest first; members come in the order in which they joined."""

    def __init__(self, store: DynamoIncidentStore, events: DynamoEventReader, *, retention_days: int) -> None:
        self._store = store
        self._events = events
        self._retention_ms = retention_days * clock.DAY

    def page(self, project: str, filters: IncidentFilters, position: Any, limit: int) -> Page[Incident]:
        oldest = clock.now_ms() - self._retention_ms
        if filters.from_ms is not None:
            # An incident's id carries the receipt of its first event, at most two hours after the event itself.
            oldest = max(oldest, filters.from_ms - clock.DAY)
        at, before = position if position else (clock.now_ms() + clock.HOUR, None)
        found: list[Incident] = []
        looked = 0
        for _ in range(_MAX_DAYS):
            for incident in self._store.listed(project, keys.day(at), before):
                looked += 1
                if filters.matches(incident):
                    found.append(incident)
                if len(found) == limit or looked == _MAX_ROWS:
                    return Page(found, [at, incident.id], looked)
            at, before = (at // clock.DAY) * clock.DAY - 1, None
            if at < oldest:
                return Page(found, None, looked)
        return Page(found, [at, None], looked)

    def get(self, project: str, incident_id: str) -> Incident | None:
        return self._store.get(project, incident_id)

    def overflow(self, project: str, incident_id: str) -> Sequence[Mapping[str, Any]]:
        return self._store.overflow(project, incident_id)

    def members(self, project: str, incident_id: str, position: Any, limit: int) -> Page[Json]:
        incident = self._store.get(project, incident_id)
        if incident is None or incident.merged_into:
            return Page([], None, 0)
        names = [incident_id, *incident.absorbed]
        which, low, skip = position if position else (0, None, 0)
        places: list[Member] = []
        where: dict[Member, Any] = {}
        following: Any = None
        while which < len(names) and following is None:
            lists, complete = self._store.member_lists(project, names[which], low, MAX_SEGMENTS)
            for sort_key, members in lists:
                for offset in range(skip, len(members)):
                    numbers = {n for n, _ in places} | {members[offset][0]}
                    if len(places) == limit or len(numbers) > MAX_SEGMENTS:
                        following = [which, sort_key, offset]
                        break
                    places.append(members[offset])
                    where[members[offset]] = [which, sort_key, offset]
                skip = 0
                if following:
                    break
            else:
                if complete:
                    which, low = which + 1, None
                else:
                    following = [which, lists[-1][0] + "~", 0]
        events: list[Json] = []
        room = MAX_PAGE_BYTES
        for place, event in self.own(project, incident_id, places):
            room -= len(as_json(event))
            if room < 0 and events:
                following = where[place]
                break
            events.append(event)
        return Page(events, following, len({n for n, _ in places}))

    def judged(self, project: str, most: int) -> Iterator[tuple[str, str, Sequence[Json]]]:
        position: Any = None
        left = most
        while left:
            page = self.page(project, IncidentFilters(), position, _MAX_ROWS)
            found = [one for one in page.items if one.verdict and not one.merged_into][:left]
            left -= len(found)
            for one in found:
                if one.verdict:
                    yield one.id, one.verdict["value"], self.members(project, one.id, None, _MAX_MEMBERS).items
            position = page.next_position
            if position is None:
                return

    def own(self, project: str, incident_id: str, places: Sequence[Member]) -> list[tuple[Member, Json]]:
        """Events at `places` that belong to the incident now, each with the reason it joined."""
        assigned = self._store.assigned(project, {n for n, _ in places})
        events = self._events.at(project, places)
        return [
            (place, events[place] | {"incident_id": incident_id, "incident_reason": assigned[place][1]})
            for place in dict.fromkeys(places)
            if place in events and assigned.get(place, ("", ""))[0] == incident_id
        ]

    def places(self, project: str, incident: Incident, most: int) -> list[Member]:
        """Every place that ever joined the incident or one it absorbed, up to `most` and one more."""
        places: list[Member] = []
        for name in (incident.id, *incident.absorbed):
            for _, members in self._store.member_lists(project, name)[0]:
                places += members
                if len(places) > most:
                    return places
        return places
