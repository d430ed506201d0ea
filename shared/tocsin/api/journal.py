"""The journal as its readers see it: entries, checkpoints, and proofs that stand without trusting this API."""

from __future__ import annotations

import base64
from dataclasses import asdict

from tocsin.access.principals import require
from tocsin.api.call import Call
from tocsin.api.filters import JournalFilters
from tocsin.api.ports import ApiRooms
from tocsin.journal.entries import DEPLOYMENT
from tocsin.kernel.http import Answer

#: What shows entries that belong to no project.
_OPERATORS: str = "admin:read"


def list_entries(call: Call, rooms: ApiRooms) -> Answer:
    """Sealed entries of the caller's project or, for operators, of the deployment; newest first."""
    query, project = call.query, call.project
    if query.get("of") == DEPLOYMENT:
        require(call.principal, _OPERATORS)
        rooms.access().projects.require_operator(call.principal)
        project = DEPLOYMENT
    filters = JournalFilters(project, query.get("from"), query.get("to"), query.get("kind"), query.get("actor"))
    return call.listing(rooms, asdict(filters), lambda at, limit: rooms.journal.page(filters, at, limit))


def get_entry(call: Call, rooms: ApiRooms) -> Answer:
    """One entry with the proof that it is in the published tree."""
    projects = {call.project}
    if call.principal.allows(_OPERATORS) and rooms.access().projects.is_operator(call.principal):
        projects.add(DEPLOYMENT)
    return Answer(data=rooms.audit.inclusion(projects, int(call.id)).as_json())


def get_checkpoint(call: Call, rooms: ApiRooms) -> Answer:  # noqa: ARG001  every service has this signature
    """The published checkpoint, as it was signed and in parts."""
    checkpoint, note = rooms.audit.checkpoint()
    root = base64.b64encode(checkpoint.root).decode("ascii")
    data = {"origin": checkpoint.origin, "size": checkpoint.size, "root": root, "checkpoint": note.decode("utf-8")}
    return Answer(data=data)


def prove_consistency(call: Call, rooms: ApiRooms) -> Answer:
    """Proof that one tree is a prefix of another."""
    return Answer(data=rooms.audit.consistency(call.query.get("first", 0), call.query.get("second")))
