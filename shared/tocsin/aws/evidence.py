"""What each stored change says in the journal. The adapter that writes a change writes these rows in its transaction.

An entry per action, whatever the number of events behind it, and a row per transaction. Who acted is the cause
(tocsin.kernel.cause); what was acted on is named by its id, and what it held by digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from tocsin.defense.mitigations import Mitigation
from tocsin.defense.quarantine import Quarantine
from tocsin.delivery.model import Channel, NotificationRecord
from tocsin.journal.entries import DEPLOYMENT, Entry, content_digest
from tocsin.kernel.cause import cause
from tocsin.kernel.ids import derived_id
from tocsin.signals.incidents import Effects
from tocsin.signals.ports import OutboxRow

if TYPE_CHECKING:
    from tocsin.access.admin import Person
    from tocsin.access.approvals import Approval
    from tocsin.access.principals import KeyRecord
    from tocsin.access.projects import Project
    from tocsin.connectors.silences import Silence
    from tocsin.decisions.ports import Deed
    from tocsin.decisions.routing import Health
    from tocsin.privacy.jobs import Job

Outcome = Literal["done", "allowed", "refused", "failed"]

_TRACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,95}", re.ASCII)
_VERBS: Final[Mapping[str, str]] = {
    "opened": "open",
    "escalated": "escalate",
    "acknowledged": "acknowledge",
    "resolved": "resolve",
    "reopened": "reopen",
    "merged": "merge",
    "split": "split",
    "verdict": "judge",
    "note": "annotate",
}
_DECIDED: Final[Mapping[str, Outcome]] = {"delivered": "done", "withheld": "refused", "failed": "failed"}


def evidence_row(entry: Entry, *more: Entry) -> OutboxRow:
    """The outbox row by which a transaction leaves what was done in it; all entries are of one project."""
    payload = {"entries": [one.payload() for one in (entry, *more)]}
    return OutboxRow(entry.project, entry.id, "evidence", entry.at, payload)


def _entry(
    kind: str,
    project: str,
    at: int,
    action: str,
    resource: tuple[str, str],
    digests: Mapping[str, Any],
    *,
    outcome: Outcome = "done",
    trace_id: str = "",
    name: tuple[str, ...] = (),
) -> Entry:
    """What one action at `at` (Unix ms) says. `resource` is (type, id); an id that is not of our own making is named
    by its hash. `name` tells actions on one resource at one moment apart; the same action has the same entry id, which
    stands in for a trace where there is none.
    """
    by = cause()
    sort, identity = resource
    if not _ID.fullmatch(identity):
        identity = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    entry_id = derived_id("evd", at, project, kind, identity, *name)
    trace = by.trace_id or trace_id
    return Entry(
        id=entry_id,
        kind=kind,
        at=at,
        project=project,
        actor=by.actor,
        action=action,
        resource=f"{sort}:{identity}",
        trace_id=trace if _TRACE.fullmatch(trace) else entry_id,
        outcome=outcome,
        digests={label: content_digest(value) for label, value in digests.items()},
    )


def of_incidents(project: str, effects: Effects, now: int) -> list[OutboxRow]:
    """An entry per transition, and per thing a person said without changing the incident's standing."""
    entries = [
        _entry(
            f"incident.{one.kind}",
            project,
            now,
            f"incident:{_VERBS[one.kind]}",
            ("incident", one.incident_id),
            {"incident": one.summary},
            trace_id=one.summary["trace_id"],
            name=(str(one.seq),),
        )
        for one in effects.transitions
    ]
    for incident_id, said, value in effects.said:
        resource, version = ("incident", incident_id), effects.incidents[incident_id].version
        kind, action = f"incident.{said}", f"incident:{_VERBS[said]}"
        entries.append(_entry(kind, project, now, action, resource, {said: value}, name=(str(version),)))
    return [evidence_row(*entries)] if entries else []


def of_notification(record: NotificationRecord, now: int) -> list[OutboxRow]:
    """What became of a notification, once it is decided: delivered, withheld or given up."""
    if not record.finished:
        return []
    entry = _entry(
        f"notification.{record.decision}",
        record.project,
        now,
        "notification:send",
        ("notification", record.id),
        {"record": asdict(record)},
        outcome=_DECIDED[record.decision],
        trace_id=record.trace_id,
    )
    return [evidence_row(entry)]


def of_channel(change: Literal["create", "change", "delete"], channel: Channel, now: int) -> OutboxRow:
    resource, name = ("channel", channel.id), (str(channel.version),)
    content = {"channel": asdict(channel)}
    return evidence_row(
        _entry(f"channel.{change}d", channel.project, now, f"channel:{change}", resource, content, name=name)
    )


def of_document(project: str, name: str, version: int, document: Any, now: int) -> OutboxRow:
    """A routing, topology or settings document was replaced by version `version`."""
    content = {name: document}
    return evidence_row(_entry(f"{name}.replaced", project, now, f"{name}:replace", (name, f"v{version}"), content))


def of_quarantine(change: Literal["open", "release"], project: str, held: Quarantine, now: int) -> OutboxRow:
    """Something was put into quarantine or let go."""
    content = {"quarantine": asdict(held)}
    return evidence_row(
        _entry(
            {"open": "quarantine.opened", "release": "quarantine.released"}[change],
            project,
            now,
            f"quarantine:{change}",
            ("quarantine", held.id),
            content,
        )
    )


def of_mitigation(made: Mitigation, now: int) -> OutboxRow:
    """A mitigation, or a step of it, came to another status: by plan and state, each move under its version."""
    content = {"plan": made.plan, "state": {"status": made.status, "steps": list(made.steps)}}
    return evidence_row(
        _entry(
            f"mitigation.{made.status}",
            made.project,
            now,
            f"mitigation:{made.status}",
            ("mitigation", made.id),
            content,
            outcome="failed" if made.status == "failed" else "done",
            trace_id=made.trace_id,
            name=(str(made.version),),
        )
    )


def of_probe(project: str, run_id: str, probe: Mapping[str, Any], now: int) -> OutboxRow:
    """A probe against the own deployment and what it met."""
    outcome: Outcome = "done" if probe["held"] else "failed"
    return evidence_row(
        _entry(
            f"probe.{'held' if probe['held'] else 'broken'}",
            project,
            now,
            f"probe:{probe['name']}",
            ("probe", run_id),
            {"probe": dict(probe)},
            outcome=outcome,
            name=(str(probe["name"]),),
        )
    )


def of_refusal(project: str, event_id: str, digest: bytes, reason: str, now: int) -> OutboxRow:
    """An event was refused after it had been accepted."""
    refused = {"refusal": {"event_id": event_id, "digest": digest.hex(), "reason": reason}}
    resource, name = ("event", event_id), (digest.hex(),)
    return evidence_row(
        _entry("event.refused", project, now, "event:store", resource, refused, outcome="refused", name=name)
    )


def of_deed(project: str, deed: Deed, pointer: bytes, now: int) -> OutboxRow:
    """A contract was registered or moved, or a policy published. `snapshot` names the snapshot that this made: the
    digest of its header, which certificates are checked against.
    """
    past = deed.verb + ("d" if deed.verb.endswith("e") else "ed")
    kind, action = f"{deed.sort}.{past}", f"{deed.sort}:{deed.verb}"
    name = (hashlib.sha256(pointer).hexdigest(),)
    entry = _entry(kind, project, now, action, (deed.sort, deed.name), {deed.sort: deed.content}, name=name)
    made = f"sha256:{json.loads(pointer)['snapshot']}"
    return evidence_row(replace(entry, digests={**entry.digests, "snapshot": made}))


def of_health(project: str, health: Health, now: int) -> OutboxRow:
    """What decisions know of services changed: who is down and why, whose promises are attested."""
    resource = ("health", f"e{health.epoch}")
    return evidence_row(_entry("health.changed", project, now, "health:observe", resource, {"health": health.document}))


def of_call(project: str, call_id: str, answer: Mapping[str, Any], now: int) -> OutboxRow:
    """A call through the engine: to which services, by which decisions, and what became of it."""
    status = str(answer["status"])
    outcome: Outcome = {"done": "done", "failed": "failed"}.get(status, "refused")  # type: ignore[assignment]
    content = {"attempts": answer["attempts"], "output": answer["output"]}
    return evidence_row(
        _entry(f"call.{status}", project, now, "call:make", ("call", call_id), content, outcome=outcome)
    )


def of_limit(project: str, limit_pusd: int, version: int, now: int) -> OutboxRow:
    """How much calls may cost in a month was set."""
    content, resource = {"spending": {"limit_pusd": limit_pusd}}, ("spending", f"v{version}")
    return evidence_row(_entry("spending.limited", project, now, "spending:limit", resource, content))


def of_decisions(project: str, batch_id: str, receipts: Sequence[Mapping[str, Any]], now: int) -> OutboxRow:
    """Decisions that were made together, by the digest of their receipts in order."""
    content = {"receipts": [dict(receipt) for receipt in receipts]}
    return evidence_row(_entry("decision.made", project, now, "decision:make", ("decision", batch_id), content))


def of_healing(record: Mapping[str, Any], now: int) -> OutboxRow:
    """The supervisor found, repaired or gave up something, or a person sent dead letters back."""
    outcome = str(record["outcome"])
    return evidence_row(
        _entry(
            f"healing.{outcome}",
            DEPLOYMENT,
            now,
            f"healing:{record['action']}",
            ("healing", record["id"]),
            {"healing": dict(record)},
            outcome="failed" if outcome == "failed" else "done",
            name=(str(record["attempts"]),),
        )
    )


def of_key(change: Literal["create", "change", "revoke"], record: KeyRecord, now: int) -> OutboxRow:
    """A key was made, with which scopes and until when, or got a new name or end, or was ended."""
    scopes = sorted(record.scopes)
    granted = {"scopes": scopes, "owner": record.owner, "created_by": record.created_by, "ends": record.expires_at}
    resource, name = ("key", f"key_{record.key_id}"), (str(now), change)
    kind = f"key.{change}d"
    return evidence_row(_entry(kind, record.project, now, f"key:{change}", resource, {"key": granted}, name=name))


def of_project(before: int, project: Project, now: int) -> OutboxRow:
    """A project's settings, quota and status as of its version; `before` is 0 for a new one."""
    change = "delete" if project.status == "deleted" else "change" if before else "create"
    chosen = {"settings": project.settings.as_json(), "quota": asdict(project.quota), "status": project.status}
    resource, name = ("project", project.id), (str(project.version),)
    kind = f"project.{change}d"
    return evidence_row(_entry(kind, project.id, now, f"project:{change}", resource, {"project": chosen}, name=name))


def of_person(before: int, person: Person, now: int) -> OutboxRow:
    """A person's role; the name is no part of it, as its digest could be guessed."""
    kind, action = ("changed", "change") if before else ("added", "add")
    if person.removed_at is not None:
        kind, action = "removed", "remove"
    role, name = {"person": {"scopes": sorted(person.scopes)}}, (str(person.version),)
    resource = ("person", person.id)
    return evidence_row(_entry(f"person.{kind}", person.project, now, f"person:{action}", resource, role, name=name))


_APPROVALS: Final[Mapping[str, tuple[str, str, Outcome]]] = {
    "pending": ("asked", "ask", "done"),
    "approved": ("given", "approve", "allowed"),
    "rejected": ("refused", "reject", "refused"),
    "used": ("used", "use", "done"),
}


def of_approval(approval: Approval, now: int) -> OutboxRow:
    """An approval was asked for, given, refused or used, for the request with this hash."""
    kind, action, outcome = _APPROVALS[approval.status]
    asked, resource = {"request": {"request_hash": approval.request_hash}}, ("approval", approval.id)
    entry = _entry(
        f"approval.{kind}", approval.project, now, f"approval:{action}", resource, asked, outcome=outcome, name=(kind,)
    )
    return evidence_row(entry)


def of_job(job: Job, now: int) -> list[OutboxRow]:
    """An export, a deletion, an erasure or a retention began, or was gone through, with what it removed and left."""
    if job.version > 1 and job.status == "running":
        return []
    began = job.status == "running"
    counted = {"job": {"approval": job.approval, "removed": dict(job.removed), "remains": dict(job.remains)}}
    outcome: Outcome = "failed" if job.status == "incomplete" else "done"
    kind, action = ("begun", "begin") if began else ("done", "finish")
    resource, name = ("job", job.id), (str(job.version),)
    entry = _entry(
        f"{job.kind}.{kind}", job.project, now, f"{job.kind}:{action}", resource, counted, outcome=outcome, name=name
    )
    return [evidence_row(entry)]


def of_silence(project: str, silence: Silence, now: int) -> OutboxRow:
    """A silence was set, or ended before its time."""
    kind, action = ("ended", "end") if silence.ends_at <= now else ("set", "set")
    said, name = {"silence": asdict(silence)}, (str(now),)
    resource = ("silence", silence.id)
    return evidence_row(_entry(f"silence.{kind}", project, now, f"silence:{action}", resource, said, name=name))


def of_token_keys(document: Mapping[str, Any], version: int, now: int) -> OutboxRow:
    """The deployment's token keys were rotated."""
    keys, resource = {"token_keys": document}, ("token_keys", f"v{version}")
    return evidence_row(_entry("token_keys.rotated", DEPLOYMENT, now, "token_keys:rotate", resource, keys))


def of_denial(
    project: str, code: str, operation: str, resource: tuple[str, str], now: int, name: tuple[str, ...]
) -> OutboxRow:
    """A request was turned away for who sent it or what they may do; `resource` says who that was."""
    kind = f"denied.{code.removeprefix('ERR_').lower()}"
    return evidence_row(
        _entry(kind, project, now, f"request:{operation}", resource, {}, outcome="refused", name=(operation, *name))
    )
