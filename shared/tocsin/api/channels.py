"""Channels and routing rules: who is told of what, and what would be told to whom."""

from __future__ import annotations

from typing import Any

from tocsin.api.call import Call, etag
from tocsin.api.models import DryRunInput, RoutingInput
from tocsin.api.ports import ApiRooms
from tocsin.delivery.routing import Routing, parse_routing
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.http import Answer


def list_channels(call: Call, rooms: ApiRooms) -> Answer:
    """Every channel of the project; there are few, so there are no pages."""
    return Answer(data={"items": [channel.as_json() for channel in rooms.channels.list(call.project)]})


def create_channel(call: Call, rooms: ApiRooms) -> Answer:
    """A new channel, with its secret this once."""
    made = rooms.channels.create(call.project, call.document, rooms.now())
    return Answer(data=made, status=201, headers={**etag(made["version"]), "Location": f"/v1/channels/{made['id']}"})


def get_channel(call: Call, rooms: ApiRooms) -> Answer:
    """One channel, never with its secret."""
    channel = rooms.channels.get(call.project, call.id)
    return Answer(data=channel.as_json(), headers=etag(channel.version))


def change_channel(call: Call, rooms: ApiRooms) -> Answer:
    """Change what is sent and keep the rest."""
    if call.expected_version(None) not in (None, rooms.channels.get(call.project, call.id).version):
        raise Refusal("ERR_CONFLICT", "The channel changed meanwhile; read it again.")
    changed = rooms.channels.change(call.project, call.id, call.document)
    return Answer(data=changed, headers=etag(changed["version"]))


def delete_channel(call: Call, rooms: ApiRooms) -> Answer:
    """Forget a channel that no routing rule names."""
    routing = rooms.routing.get(call.project) or Routing()
    using = [rule.name for rule in routing.rules if call.id in rule.channels]
    if using:
        detail = Detail("id", "unused", "take the channel out of /v1/routing first")
        raise Refusal("ERR_CONFLICT", f"{len(using)} routing rules name this channel.", [detail])
    rooms.channels.delete(call.project, call.id)
    return Answer(data={"id": call.id, "deleted": True})


def test_channel(call: Call, rooms: ApiRooms) -> Answer:
    """Send one test message now and tell what the receiver answered."""
    channel = rooms.channels.get(call.project, call.id)
    return Answer(data=rooms.dispatcher.send_test(channel, call.request.trace_id).as_json())


def rotate_channel(call: Call, rooms: ApiRooms) -> Answer:
    """A new signing secret, shown this once."""
    rotated = rooms.channels.rotate(call.project, call.id, rooms.now())
    return Answer(data=rotated, headers=etag(rotated["version"]))


def get_routing(call: Call, rooms: ApiRooms) -> Answer:
    """The rules in force: the project's own document, or the built-in default as version 0."""
    routing = rooms.routing.get(call.project) or Routing()
    return Answer(data=routing.as_json(), headers=etag(routing.version))


def _candidate(call: Call, rooms: ApiRooms, document: Any, version: int) -> Routing:
    known = {channel.id for channel in rooms.channels.list(call.project)}
    return parse_routing(document, known, version)


def put_routing(call: Call, rooms: ApiRooms) -> Answer:
    """Replace the rules, if nobody else did since they were read."""
    stored = rooms.routing.get(call.project)
    current = stored.version if stored else 0
    expected = call.expected_version(call.taken(RoutingInput).version)
    routing = _candidate(call, rooms, call.document, current + 1)
    if expected not in (None, current) or not rooms.routing.put(call.project, routing, current):
        raise Refusal("ERR_CONFLICT", "The rules changed meanwhile; read them again.")
    return Answer(data=routing.as_json(), headers=etag(routing.version))


def try_routing(call: Call, rooms: ApiRooms) -> Answer:
    """What would become of an imagined transition, rule by rule; nothing is sent or kept."""
    body = call.taken(DryRunInput)
    imagined = {
        "incident_id": "inc_imagined",
        "seq": 1,
        "kind": body.kind,
        "at": clock.rfc3339(rooms.now()),
        "summary": {
            "tier": body.tier,
            "services": body.services,
            "sources": body.sources,
            "entities": body.entities,
            "tags": body.tags,
        },
    }
    rules = None
    if body.rules is not None:
        rules = _candidate(call, rooms, {"rules": call.document["rules"]}, 0)
    return Answer(data=rooms.dispatcher.dry_run(call.project, imagined, rules))
