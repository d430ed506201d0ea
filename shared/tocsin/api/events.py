"""Reading events and their explanations."""

from __future__ import annotations

from dataclasses import asdict

from tocsin.api.call import Call
from tocsin.api.filters import EventFilters, split_words
from tocsin.api.matching import not_found
from tocsin.api.ports import ApiRooms, Json
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.http import Answer
from tocsin.kernel.ids import EVENT_ID
from tocsin.signals import scoring


def list_events(call: Call, rooms: ApiRooms) -> Answer:
    """Events newest first, within a bounded part of the log."""
    query = call.query
    filters = EventFilters(
        from_ms=query.get("from"),
        to_ms=query.get("to"),
        source=query.get("source"),
        entity=query.get("entity"),
        type=query.get("type"),
        tags=query.get("tag", ()),
        tier=query.get("tier"),
        status=query.get("status"),
        words=split_words(query.get("q", "")),
    )
    return call.listing(rooms, asdict(filters), lambda at, limit: rooms.events.page(call.project, filters, at, limit))


def list_refusals(call: Call, rooms: ApiRooms) -> Answer:
    """Events that were accepted and then refused, because their id turned out to be stored with other content."""
    return call.listing(rooms, None, lambda at, limit: rooms.events.refusals(call.project, at, limit))


def find(call: Call, rooms: ApiRooms) -> Json:
    """The event a path names by server or sender id. Refuses ERR_NOT_FOUND, or ERR_AMBIGUOUS naming the
    sources.
    """
    source = call.query.get("source")
    if EVENT_ID.fullmatch(call.id):
        event = rooms.events.get(call.project, call.id)
        if event is not None and source in (None, event["source"]):
            return event
    found = [one for one in rooms.events.by_sender_id(call.project, call.id) if source in (None, one["source"])]
    if not found:
        not_found()
    if len(found) > 1:
        # These are the caller's own sources, so naming them gives nothing away.
        fix = "add ?source= with one of " + ", ".join(sorted(str(one["source"]) for one in found)[:10])
        raise Refusal("ERR_AMBIGUOUS", "Several sources sent this id.", [Detail("source", "unique", fix)])
    return found[0]


def get_event(call: Call, rooms: ApiRooms) -> Answer:
    """One event."""
    return Answer(data=find(call, rooms))


def explain_event(call: Call, rooms: ApiRooms) -> Answer:
    """Why an event has its score."""
    event = find(call, rooms)
    told = scoring.explain(event)
    return Answer(data={"event_id": event["event_id"], "incident_id": event.get("incident_id"), **told})
