"""Reading incidents, and what people do to them."""

from __future__ import annotations

from tocsin.api.call import Call, etag
from tocsin.api.events import filters_of
from tocsin.api.filters import IncidentFilters
from tocsin.api.models import IncidentChange, IncidentMerge, IncidentSplit
from tocsin.api.matching import not_found
from tocsin.api.ports import ApiRooms, Change, Json, Merge, Split
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.http import Answer


def list_incidents(call: Call, rooms: ApiRooms) -> Answer:
    """Incidents, most recently opened first."""
    narrowed = filters_of(call, IncidentFilters)
    filters = IncidentFilters(**narrowed)
    return call.listing(rooms, narrowed, lambda at, limit: rooms.incidents.page(call.project, filters, at, limit))


def get_incident(call: Call, rooms: ApiRooms) -> Answer:
    """One incident with a page of its members; a merged one has none, its survivor has them."""
    incident = rooms.incidents.get(call.project, call.id)
    if incident is None:
        not_found()
    members, meta = call.page(
        rooms, "members", lambda at, limit: rooms.incidents.members(call.project, call.id, at, limit)
    )
    return Answer(data={**incident, "members": members}, meta=meta, headers=etag(incident["version"]))


def _changed(incident: Json) -> Answer:
    return Answer(data=incident, headers=etag(incident["version"]))


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
    headers = {**etag(made["version"]), "Location": f"/v1/incidents/{made['id']}"}
    return Answer(data={"incident": left, "split": made}, status=201, headers=headers)
