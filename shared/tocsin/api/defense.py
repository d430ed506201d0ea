"""What the defend function answers. The rules are those of tocsin.defense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tocsin.access.principals import Principal, require
from tocsin.api import access, front, models
from tocsin.api.call import Call, etag
from tocsin.api.ports import DefenseRooms, Page
from tocsin.defense import quarantine
from tocsin.defense.mitigations import Mitigation, approval_required
from tocsin.defense.notices import Notice
from tocsin.defense.plans import Facts, facts_of
from tocsin.kernel import strict_json
from tocsin.kernel.body import open_body
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Answer, Request
from tocsin.kernel.ids import derived_id, new_id

#: Members of an incident that a plan is made by.
MAX_SEEN: Final = 200


def list_quarantines(call: Call, rooms: DefenseRooms) -> Answer:
    """Everything in quarantine; there is little, so there are no pages."""
    now = rooms.now()
    return Answer(data={"items": [one.as_json(now) for one in rooms.quarantines.all(call.project)]})


def open_quarantine(call: Call, rooms: DefenseRooms) -> Answer:
    """Keep something out from now on."""
    now = rooms.now()
    entry = quarantine.parse(call.document, call.principal, now)
    made = rooms.quarantines.open(call.project, entry, now)
    return Answer(data=made.as_json(now), status=201, headers={"Location": f"/v1/quarantines/{made.id}"})


def get_quarantine(call: Call, rooms: DefenseRooms) -> Answer:
    """One entry."""
    return Answer(data=rooms.quarantines.get(call.project, call.id).as_json(rooms.now()))


def release_quarantine(call: Call, rooms: DefenseRooms) -> Answer:
    """Let it go now."""
    now = rooms.now()
    held = rooms.quarantines.release(call.project, call.id, call.principal.credential, now)
    return Answer(data=held.as_json(now))


def defend(call: Call, rooms: DefenseRooms) -> Answer:
    """Take telemetry in as usual, or look at an incident; plan what to do about it, and do it when it is of no
    consequence. The same facts meet the same mitigation.
    """
    now, trace_id = rooms.now(), call.request.trace_id
    taken, facts = _facts(call, rooms)
    if facts is None:
        return taken
    made, new = rooms.mitigations.plan(call.project, facts, call.principal.credential, trace_id, now)
    if not made.plan["approval"]:
        made = rooms.mitigations.apply(made, now)
    data = {"mitigation": made.as_json(now), "new": new, "telemetry": taken.data}
    status = 201 if new else 200
    return Answer(data=data, status=status, headers={"Location": f"/v1/mitigations/{made.id}"})


def _facts(call: Call, rooms: DefenseRooms) -> tuple[Answer, Facts | None]:
    """What intake answered, and what to plan by; no facts when intake took nothing."""
    incident_id = _incident_of(call.request)
    if incident_id is not None:
        incident = rooms.incidents.get(call.project, incident_id)
        if incident is None:
            raise Refusal("ERR_NOT_FOUND", "There is no such incident.")
        members = rooms.incidents.members(call.project, incident_id, None, MAX_SEEN).items
        return Answer(), facts_of({"incident_id": incident_id}, members, incident.tier, incident.score)
    require(call.principal, "ingest:write")
    taken, queued = rooms.intake.queue(call.request, call.principal)
    if taken.error is not None and not taken.data["accepted"] + taken.data["duplicates"]:
        return taken, None
    known = [one["event_id"] for one in taken.data["items"] if one["status"] == "duplicate"]
    fresh = {one["event_id"] for one in queued}
    stored = [rooms.events.get(call.project, name) for name in dict.fromkeys(known) if name not in fresh]
    events = [*rooms.preview(call.project, queued), *(one for one in stored if one is not None)]
    if not events:
        raise Refusal("ERR_NOT_FOUND", "What was sent was stored once and is gone by now.")
    return taken, facts_of({"event_ids": sorted(one["event_id"] for one in events)}, events)


def _incident_of(request: Request) -> str | None:
    """The incident that a body names instead of sending telemetry."""
    opened = open_body(request)
    value = strict_json.read(opened.data) if opened.format == "json" else None
    if not isinstance(value, dict) or "incident_id" not in value:
        return None
    return models.validate(models.IncidentNamed, value).incident_id


def list_mitigations(call: Call, rooms: DefenseRooms) -> Answer:
    """Newest first."""
    now = rooms.now()

    def read(position: Any, limit: int) -> Page[Any]:
        found, following = rooms.mitigations.page(call.project, position, limit)
        return Page([one.as_json(now) for one in found], following, len(found))

    return call.listing(rooms, None, read)


def get_mitigation(call: Call, rooms: DefenseRooms) -> Answer:
    """One mitigation as it stands."""
    made = rooms.mitigations.get(call.project, call.id)
    return Answer(data=made.as_json(rooms.now()), headers=etag(made.version))


def get_mitigation_certificate(call: Call, rooms: DefenseRooms) -> Answer:
    """Why a step is whose it is, with all that a checker needs."""
    made = rooms.mitigations.get(call.project, call.id)
    return Answer(data=rooms.mitigations.certificate(made, call.query.get("step", 0), call.query.get("form", "full")))


def apply_mitigation(call: Call, rooms: DefenseRooms) -> Answer:
    """Carry it out; one of consequence uses up an approval of this very request."""
    now, made = rooms.now(), rooms.mitigations.get(call.project, call.id)
    approval = ""
    if made.plan["approval"] and made.status_at(now) == "planned":
        hashed = access.hash_of(call.principal, call.request, None)
        sent = call.request.header("x-approval")
        if sent is None:
            raise approval_required(made)
        approval = rooms.access().approvals.use(call.principal, sent, hashed, now).id
    return _standing(rooms.mitigations.apply(made, now, approval), now)


def roll_back_mitigation(call: Call, rooms: DefenseRooms) -> Answer:
    """Undo it, last step first."""
    now, made = rooms.now(), rooms.mitigations.get(call.project, call.id)
    return _standing(rooms.mitigations.rollback(made, now), now)


def _standing(made: Mitigation, now: int) -> Answer:
    return Answer(data=made.as_json(now), headers=etag(made.version))


def notify(call: Call, rooms: DefenseRooms) -> Answer:
    """Tell something by the channels that decisions name; delivery goes on behind the outbox."""
    sent, now = call.taken(models.NoticeInput), rooms.now()
    about = derived_id("not", 0, call.project, sent.id) if sent.id else new_id("not", now)
    told = rooms.notices.send(
        Notice(
            project=call.project,
            about=about,
            seq=0,
            title=sent.title,
            text=sent.text,
            tier=sent.tier,
            trace_id=call.request.trace_id,
            by=tuple(dict.fromkeys(sent.by)),
        ),
        now,
    )
    status = 202 if any(one.record is not None for one in told) else 200
    return Answer(data={"id": about, "told": [one.as_json() for one in told]}, status=status)


def run_probes(call: Call, rooms: DefenseRooms) -> Answer:
    """Attack the own stack, and tell what that met."""
    from tocsin.defense import probes  # needs cryptography, which no other route does

    sent, now, probing = call.taken(models.ProbeInput), rooms.now(), rooms.probing()
    probes.check_target(sent.target, probing.front)
    aim = probes.Aim(replace(call.principal, kind="key"), probing.env, probing.http, probing.tokens, now)
    report = probes.run(aim, list(dict.fromkeys(sent.probes)), partial(probing.keep, call.project))
    return Answer(data=report)


SERVICES: Final[Mapping[str, Callable[[Call, DefenseRooms], Answer]]] = {
    "list_quarantines": list_quarantines,
    "open_quarantine": open_quarantine,
    "get_quarantine": get_quarantine,
    "release_quarantine": release_quarantine,
    "defend": defend,
    "list_mitigations": list_mitigations,
    "get_mitigation": get_mitigation,
    "get_mitigation_certificate": get_mitigation_certificate,
    "apply_mitigation": apply_mitigation,
    "roll_back_mitigation": roll_back_mitigation,
    "notify": notify,
    "run_probes": run_probes,
}


def dispatch(request: Request, principal_of: Callable[[Request], Principal], rooms: DefenseRooms) -> Answer:
    """Answer one request to a route of the defend function."""
    return front.answer(request, principal_of, rooms, SERVICES)
