"""What each stored change says in the journal. The adapter that writes a change writes these rows in its transaction.

An entry per action, whatever the number of events behind it, and a row per transaction. Who acted is the cause
(tocsin.kernel.cause); what was acted on is named by its id, and what it held by digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
    from tocsin.decisions.ports import Deed
    from tocsin.decisions.routing import Health

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


def of_key(project: str, key_id: str, mitigation_id: str, now: int) -> OutboxRow:
    """A mitigation revoked a key."""
    content = {"mitigation": {"id": mitigation_id}}
    return evidence_row(_entry("key.revoked", project, now, "key:revoke", ("key", key_id), content))


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
    """A contract was registered or moved, or a policy published. `registry` is what the pointer then said."""
    content = {deed.sort: deed.content, "registry": json.loads(pointer)}
    past = deed.verb + ("d" if deed.verb.endswith("e") else "ed")
    kind, action = f"{deed.sort}.{past}", f"{deed.sort}:{deed.verb}"
    name = (hashlib.sha256(pointer).hexdigest(),)
    return evidence_row(_entry(kind, project, now, action, (deed.sort, deed.name), content, name=name))


def of_health(project: str, health: Health, now: int) -> OutboxRow:
    """What decisions know of services changed: who is down and why, whose promises are attested."""
    resource = ("health", f"e{health.epoch}")
    return evidence_row(_entry("health.changed", project, now, "health:observe", resource, {"health": health.document}))


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
