"""Reading incidents, and what people do to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from tocsin.api.call import Call, etag
from tocsin.api.filters import IncidentFilters, split_words
from tocsin.api.matching import not_found
from tocsin.api.models import IncidentChange, IncidentMerge, IncidentSplit
from tocsin.api.ports import ApiRooms, Change, Json, Merge, Page, Split
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.http import Answer
from tocsin.signals.incidents import Incident

#: Timeline entries in one answer; the newest are kept.
MAX_TIMELINE: Final = 250
MAX_ENTITIES: Final = 100


def _entry(entry: Mapping[str, Any]) -> Json:
    return {**entry, "at": clock.rfc3339(entry["at"])}


def shown(incident: Incident) -> Json:
    """The public form of an incident, without members and timeline. Times as RFC 3339."""

    def at(moment: int | None) -> str | None:
        return None if moment is None else clock.rfc3339(moment)

    services = sorted(incident.services.items(), key=lambda item: (item[1][0], item[0]))
    links = sorted(incident.links.values(), key=lambda link: (-link[0], -link[2], link[1]))
    verdict = incident.verdict
    return {
        "id": incident.id,
        "version": incident.version,
        "status": incident.status,
        "title": incident.title,
        "score": incident.score,
        "tier": incident.tier,
        "severity_id": incident.severity_id,
        "opened_at": at(incident.opened_at),
        "updated_at": at(incident.updated_at),
        "first_event_at": at(incident.first),
        "last_event_at": at(incident.last),
        "event_count": incident.events,
        "entity_count": incident.entity_count() + incident.entity_overflow,
        "entities": sorted(incident.entities, key=lambda name: (-incident.entities[name], name))[:MAX_ENTITIES],
        "sources": sorted(incident.sources),
        "tags": incident.tags,
        "services": [
            {"service": name, "first_event_at": at(first), "events": events} for name, (first, events) in services
        ],
        "root": incident.root,
        "reasons": [{"text": text, "weight": weight, "count": count} for weight, text, count in links],
        "acknowledged_by": incident.acknowledged_by,
        "resolved_at": at(incident.resolved_at),
        "resolution": incident.resolution,
        "verdict": None if verdict is None else {**verdict, "at": clock.rfc3339(verdict["at"])},
        "merged_into": incident.merged_into,
        "merged_from": list(incident.absorbed),
    }


def list_incidents(call: Call, rooms: ApiRooms) -> Answer:
    """Incidents, most recently opened first."""
    query = call.query
    filters = IncidentFilters(
        from_ms=query.get("from"),
        to_ms=query.get("to"),
        source=query.get("source"),
        entity=query.get("entity"),
        service=query.get("service"),
        tags=query.get("tag", ()),
        tier=query.get("tier"),
        status=query.get("status"),
        words=split_words(query.get("q", "")),
    )

    def read(position: Any, limit: int) -> Page[Json]:
        page = rooms.incidents.page(call.project, filters, position, limit)
        return Page([shown(incident) for incident in page.items], page.next_position, page.scanned)

    return call.listing(rooms, asdict(filters), read)


def get_incident(call: Call, rooms: ApiRooms) -> Answer:
    """One incident with its timeline and a page of its members; a merged one has none, its survivor has
    them.
    """
    incident = rooms.incidents.get(call.project, call.id)
    if incident is None:
        not_found()
    members, meta = call.page(
        rooms, "members", lambda at, limit: rooms.incidents.members(call.project, call.id, at, limit)
    )
    timeline: list[Mapping[str, Any]] = list(incident.timeline)
    if incident.entries > len(timeline):
        timeline = [*rooms.incidents.overflow(call.project, call.id), *timeline][-MAX_TIMELINE:]
    data = {**shown(incident), "members": members, "timeline": [_entry(entry) for entry in timeline]}
    return Answer(data=data, meta=meta, headers=etag(incident.version))


def _changed(incident: Incident) -> Answer:
    return Answer(data=shown(incident), headers=etag(incident.version))


def change_incident(call: Call, rooms: ApiRooms) -> Answer:
    """Acknowledge, resolve, reopen, judge, annotate."""
    body = call.taken(IncidentChange)
    change = Change(call.principal.key_id, rooms.now(), body.status, body.verdict, body.note)
    expected = call.expected_version(body.version)
    return _changed(rooms.writer.apply(call.project, call.id, change, expected)[0])


def merge_incidents(call: Call, rooms: ApiRooms) -> Answer:
    """Unite incidents; the answer is the survivor."""
    body = call.taken(IncidentMerge)
    others = tuple(dict.fromkeys(body.incidents))
    if call.id in others:
        fix = "name other incidents than the one in the path"
        raise Refusal("ERR_SCHEMA", "An incident is not merged with itself.", [Detail("incidents", "other", fix)])
    merge = Merge(call.principal.key_id, rooms.now(), others, body.note)
    return _changed(rooms.writer.apply(call.project, call.id, merge, call.expected_version(body.version))[0])


def split_incident(call: Call, rooms: ApiRooms) -> Answer:
    """Move members to a new incident; the answer holds both."""
    body = call.taken(IncidentSplit)
    split = Split(call.principal.key_id, rooms.now(), tuple(dict.fromkeys(body.events)), body.note)
    left, made = rooms.writer.apply(call.project, call.id, split, call.expected_version(body.version))
    headers = {**etag(made.version), "Location": f"/v1/incidents/{made.id}"}
    return Answer(data={"incident": shown(left), "split": shown(made)}, status=201, headers=headers)
