"""Declaring which service depends on which."""

from __future__ import annotations

from tocsin.api.call import Call, etag
from tocsin.api.models import TopologyInput
from tocsin.api.ports import ApiRooms
from tocsin.kernel.http import Answer
from tocsin.signals.topology import Topology

_NAME = "topology"


def get_topology(call: Call, rooms: ApiRooms) -> Answer:
    """The declaration as it stands; version 0 and no services until there is one."""
    version, document = rooms.documents.get(call.project, _NAME)
    return Answer(data={"version": version, **(document or {"services": {}})}, headers=etag(version))


def put_topology(call: Call, rooms: ApiRooms) -> Answer:
    """Replace the declaration by one that correlation can use; what it would not understand is refused."""
    expected = call.expected_version(call.taken(TopologyInput).version)
    document = Topology.from_document({"services": call.document["services"]}).to_document()
    version = rooms.documents.put(call.project, _NAME, document, expected, rooms.now())
    return Answer(data={"version": version, **document}, headers=etag(version))
