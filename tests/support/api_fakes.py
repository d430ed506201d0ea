"""The sample world behind the keyed routes, in memory: two projects, a few real scored events, incidents, a
channel.

The examples of tocsin.routes speak of this world; project "demo" is the caller's, project "other" is never to
be seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from tests.rooms.decisions.memory import CallRows, Cell, Control, Objects
from tests.rooms.decisions.memory import Log as DecisionRows
from tests.rooms.journal.memory import COSIGNER, LOG, Memory
from tests.support.access_fakes import (
    MASTER,
    PEPPER,
    ApprovalRows,
    KeyRowsFake,
    KeySetRow,
    OnceRows,
    PeopleRows,
    ProjectRows,
    UsageRows,
)
from tests.support.delivery_fakes import Bench, ChannelRows, Records, RoutingRows, fact, webhook
from tests.support.privacy_fakes import JobRows
from tocsin.access.admin import Directory, Keys, People, Person
from tocsin.access.approvals import Approval, Approvals, parse_described, request_hash
from tocsin.access.principals import FAMILIES, KeyRecord, Principal
from tocsin.access.projects import Project, Projects
from tocsin.access.tokens import TokenKeys, Tokens
from tocsin.api.decisions import caller_of
from tocsin.api.filters import EventFilters, IncidentFilters, JournalFilters
from tocsin.api.ports import (
    AccessRooms,
    ApiRooms,
    Change,
    DecisionRooms,
    Merge,
    Operation,
    Page,
    PrivacyRooms,
    Split,
)
from tocsin.decisions import changes, contracts, policies, snapshots
from tocsin.decisions.asking import requests_of
from tocsin.decisions.control import Budget
from tocsin.decisions.deciding import Decider
from tocsin.decisions.invoking import Invoker
from tocsin.decisions.ports import Decided, Dialled
from tocsin.delivery.channels import Channels
from tocsin.journal.audit import Audit
from tocsin.journal.entries import DEPLOYMENT, Entry, content_digest
from tocsin.journal.sequencer import Sequencer, origin_of
from tocsin.journal.signatures import verify_ed25519
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Request
from tocsin.kernel.ids import derived_id, event_id
from tocsin.kernel.pseudonyms import Pseudonyms, project_key
from tocsin.privacy.jobs import Job
from tocsin.routes import (
    EXAMPLE_APPROVAL,
    EXAMPLE_CHANNEL,
    EXAMPLE_DECISION,
    EXAMPLE_DELETION,
    EXAMPLE_EVENT,
    EXAMPLE_EXPORT,
    EXAMPLE_INCIDENT,
    EXAMPLE_KEY,
    EXAMPLE_MITIGATION,
    EXAMPLE_OTHER_INCIDENT,
    EXAMPLE_OTHER_PROJECT,
    EXAMPLE_PERSON,
    EXAMPLE_QUARANTINE,
    ROUTES,
    Example,
    Route,
)
from tocsin.signals import correlation, events, incidents, scoring
from tocsin.signals.incidents import Incident, View
from tocsin.signals.topology import Topology
from tocsin.signals.verdicts import Calibration, samples_of

NOW = clock.parse_rfc3339("2026-11-20T10:30:00Z")
PROJECT, OTHER = "demo", "other"
FOREIGN_INCIDENT = "inc_019a9f00-0000-7000-8000-00000000000f"
ALL_SCOPES = frozenset(f"{family}:*" for family in FAMILIES)
#: The callers' keys by project, and one in other hands that asks for the example approval.
CALLER_KEYS = {PROJECT: "k3yOfTheTest", OTHER: "k3yOfAnother"}
ASKING_KEY = "k3yThatAsked"
FOREIGN_KEY, FOREIGN_PERSON, FOREIGN_APPROVAL = (
    "key_f0reignKey00",
    EXAMPLE_PERSON[:-1] + "f",
    EXAMPLE_APPROVAL[:-1] + "f",
)
TRACE = "0af7651916cd43dd8448eb211c80319c"


def caller(*scopes: str, project: str = PROJECT) -> Principal:
    """A caller with the given scopes, or with all."""
    return Principal(project, CALLER_KEYS[project], frozenset(scopes) or ALL_SCOPES)


def request(
    method: str,
    path: str,
    *,
    query: Sequence[tuple[str, str]] = (),
    body: Any = None,
    raw: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Request:
    """A request as entry makes it; `body` is sent as JSON, `raw` as it is."""
    sent = {name.lower(): (value,) for name, value in (headers or {}).items()}
    data = raw or b""
    if body is not None:
        data = json.dumps(body).encode()
    if data:
        sent.setdefault("content-type", ("application/json",))
    pairs: dict[str, tuple[str, ...]] = {}
    for name, value in query:
        pairs[name] = (*pairs.get(name, ()), value)
    return Request(method, path, TRACE, "req-1", sent, pairs, {}, data, "203.0.113.9")


def example_request(route: Route, example: Example, path: str | None = None) -> Request:
    """The request of an example, on its route's own path or on an alias."""
    target = address(path or route.path, example)
    headers = {"x-approval": approval_id(route.method, target)} if route.approval else {}
    headers |= {"x-admin-token": admin_token(route.method, target, example.body)} if route.admin_token else {}
    return request(route.method, target, query=example.query, body=example.body, headers=headers)


def address(path: str, example: Example) -> str:
    """The path of an example, with its ids in the places of the variables."""
    first = path.replace("{id}", example.id or "")
    return re.sub(r"\{[a-z]+\}", example.part or "", first)


def approval_id(method: str, path: str) -> str:
    """Id of the approval that the sample world holds of an example."""
    return derived_id("apr", NOW, method, path)


def admin_token(method: str, path: str, body: Any) -> str:
    """An admin token of the caller for one request; good once in every sample world."""
    hashed = request_hash(PROJECT, method, path, {}, body)
    token: str = sample_tokens(KeyRowsFake()).issue_admin(caller(), hashed)["token"]
    return token


def sample_tokens(records: KeyRowsFake) -> Tokens:
    return Tokens(TokenKeys(MASTER, KeySetRow(), lambda: NOW), records, OnceRows(), "tocsin:sample", lambda: NOW)


#: Texts that are drawn anew in every run, and what stands for them where runs are compared.
_DRAWN = (
    (re.compile(r"tcn_live_[0-9A-Za-z]{50}"), f"tcn_live_{EXAMPLE_KEY[4:]}{'x' * 38}"),
    (re.compile(r"tcn_live_[0-9A-Za-z]{12}(?![0-9A-Za-z])"), f"tcn_live_{EXAMPLE_KEY[4:]}"),
    (re.compile(rf"key_(?!{CALLER_KEYS[PROJECT]}|{ASKING_KEY})[0-9A-Za-z]{{12}}"), EXAMPLE_KEY),
    (re.compile(r"tss_[\w-]{43}"), "tss_" + "x" * 43),
    (re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+"), "eyJ…"),
    (re.compile(r"prj_[0-9a-f-]{36}"), "prj_019a9f00-0000-7000-8000-000000000006"),
    (re.compile(r"per_[0-9a-f-]{36}"), EXAMPLE_PERSON),
    (re.compile(r"apr_[0-9a-f-]{36}"), EXAMPLE_APPROVAL),
    (re.compile(r"job_[0-9a-f-]{36}"), EXAMPLE_EXPORT),
    (re.compile(r"chn_[0-9a-f-]{36}"), EXAMPLE_CHANNEL),
    (re.compile(r"dec_[0-9a-f-]{36}"), EXAMPLE_DECISION),
    (re.compile(r"qua_[0-9a-f-]{36}"), EXAMPLE_QUARANTINE),
    (re.compile(r"(mit|not|ntf|run)_[0-9a-f-]{36}"), rf"\1{EXAMPLE_MITIGATION[3:]}"),
    (re.compile(r'(?<="last_four": ")[0-9A-Za-z]{4}'), "9Qz1"),
)


def settled(value: Any) -> Any:
    """An answer with everything that is drawn at random made the same."""
    text = json.dumps(value)
    for pattern, example in _DRAWN:
        text = pattern.sub(example, text)
    return json.loads(text)


def sample_access() -> AccessRooms:
    """Keys, people and approvals of both projects; project demo is the operator's."""
    rows, records, persons, approvals, used = ProjectRows(), KeyRowsFake(), PeopleRows(), ApprovalRows(), UsageRows()
    rows.put(Project(PROJECT, "Demo", NOW - clock.DAY, version=1), 0)
    sending = frozenset({"ingest:write"})
    held = [(PROJECT, CALLER_KEYS[PROJECT], ALL_SCOPES), (PROJECT, ASKING_KEY, ALL_SCOPES)]
    held += [
        (PROJECT, EXAMPLE_KEY[4:], sending),
        (OTHER, CALLER_KEYS[OTHER], ALL_SCOPES),
        (OTHER, FOREIGN_KEY[4:], sending),
    ]
    for project, key_id, scopes in held:
        records.add(
            KeyRecord(
                key_id,
                project,
                "live",
                bytes(32),
                scopes,
                NOW - clock.DAY,
                name="checkout" if scopes is sending else "administrator",
                last_four="9Qz1",
            )
        )
    body = {"settings": {"redaction": "off"}}
    for project, person, approval in (
        (PROJECT, EXAMPLE_PERSON, EXAMPLE_APPROVAL),
        (OTHER, FOREIGN_PERSON, FOREIGN_APPROVAL),
    ):
        asking = f"key_{ASKING_KEY if project == PROJECT else CALLER_KEYS[OTHER]}"
        persons.put(Person(person, project, "Grace Hopper", sending, NOW, asking), 0)
        described, hashed = parse_described(
            project, {"method": "PATCH", "path": f"/v1/projects/{project}", "body": body}
        )
        approvals.put(Approval(approval, project, hashed, described, "a test", asking, NOW), 0)
        used.add(project, "20261120", {"events": 1200, "bytes": 480_000, "llm_tokens": 900})
    rows.put(Project(EXAMPLE_OTHER_PROJECT, "Shop", NOW - clock.DAY, version=1), 0)
    for route in ROUTES:
        for example, path in product(route.examples if route.approval else (), (route.path, *route.aliases)):
            target = address(path, example)
            described, hashed = parse_described(PROJECT, {"method": route.method, "path": target})
            by, other = f"key_{CALLER_KEYS[PROJECT]}", f"key_{ASKING_KEY}"
            found = Approval(approval_id(route.method, target), PROJECT, hashed, described, "a test", by, NOW)
            approvals.put(replace(found, status="approved", decided_by=other, decided_at=NOW), 0)
    directory, tokens = Directory(records, persons, lambda: NOW), sample_tokens(records)
    return AccessRooms(
        projects=Projects(rows, lambda project: project == PROJECT),
        keys=Keys(records, persons, PEPPER, MASTER, "live"),
        people=People(persons),
        directory=directory,
        approvals=Approvals(approvals, directory),
        usage=used,
        tokens=lambda: tokens,
    )


SAMPLE_POLICY: dict[str, Any] = {
    "version": 2,
    "profiles": dict(policies.PROFILES),
    "rules": [{"id": "anyone", "effect": "permit", "when": ["value", True]}],
}


def sample_contracts() -> list[dict[str, Any]]:
    """Two services that send mail, as their owners send them; the cheaper one is trusted less."""
    mailer = next(route for route in ROUTES if route.operation_id == "register_contract").examples[0].body
    cheap = {"name": "cheap-mail", "version": 1, "cost_pusd": 90_000_000, "trust": 30}
    return [{**mailer, "version": 1}, {**mailer, **cheap}]


class _History:
    """Policies that were in force."""

    def policies(self, before: int | None, limit: int) -> list[dict[str, Any]]:
        kept = {"version": 2, "policy": policies.validate(SAMPLE_POLICY), "at": NOW - clock.HOUR}
        return [kept][:limit] if before is None or before > 2 else []


def sample_decider(project: str = PROJECT) -> Decider:
    """A registry of two active services, and one decision on record."""
    decider = Decider(snapshots.Registry(Objects(), Cell(), lambda: NOW), Control(), DecisionRows(), lambda: NOW)
    if project != PROJECT:
        return decider
    at = NOW - clock.SECOND
    decider.registry.publish(changes.govern(policies.validate(SAMPLE_POLICY)))
    for sent in sample_contracts():
        active = contracts.moved(contracts.validate(sent, at), "active", at, 30_000)
        decider.registry.publish(lambda _, made=active: snapshots.Edit(put=[made]))  # type: ignore[misc]
    asked = next(route for route in ROUTES if route.operation_id == "route").examples[0].body
    (asking,), _, _ = requests_of(asked, caller_of(caller()))
    engine, health = decider.world()
    receipt = engine.decide(asking, health)
    decider.log.append(EXAMPLE_DECISION, [Decided(receipt.document(), asking.document)])
    return decider


def sample_decisions() -> DecisionRooms:
    deciders = {project: sample_decider(project) for project in (PROJECT, OTHER)}
    limit = Budget(1_000_000_000_000)

    def dial(url: str, payload: Any, headers: Mapping[str, str], within_ms: int) -> Dialled:
        return Dialled(200, {"id": f"m-{payload['to']}"}, 180_000)

    def control(decider: Decider) -> Control:
        assert isinstance(decider.control, Control)
        return decider.control

    invokers = {name: Invoker(one, CallRows(control(one), limit), dial, lambda: NOW) for name, one in deciders.items()}
    return DecisionRooms(
        decider=deciders.__getitem__,
        invoker=invokers.__getitem__,
        history=lambda _: _History(),
        check_url=ApiWorld._check_url,
        verify=verify_ed25519,
        access=sample_access,
        cursor_key=b"c" * 32,
        now=lambda: NOW,
    )


def sample_privacy() -> PrivacyRooms:
    """Jobs that are done: an export of project demo, the deletion of another one."""
    jobs = JobRows()
    of = {"sha256": "5e" * 32, "bytes": 812, "rows": 5, "name": "events-0000000001.ndjson.gz", "content": "events"}
    export = Job(EXAMPLE_EXPORT, PROJECT, "export", f"key_{ASKING_KEY}", NOW, "manifest", files=(of,))
    gone = {"data_keys": 1, "rows": 412, "segments": 3, "claims": 0, "exports": 0, "dead_letters": 0}
    deletion = Job(
        EXAMPLE_DELETION,
        EXAMPLE_OTHER_PROJECT,
        "deletion",
        f"key_{ASKING_KEY}",
        NOW,
        "count:dead_letters",
        removed=gone,
        remains=dict.fromkeys(gone, 0),
        stopped_at=NOW,
    )
    for job in (export, deletion):
        jobs.put(replace(job, status="done", finished_at=NOW + 9_000), 0)
    return PrivacyRooms(
        jobs,
        jobs.enqueue,
        lambda project, value: Pseudonyms(project_key(MASTER, project)).of(value),
        lambda key, seconds: f"https://bucket.example/{key}?expires={seconds}",
    )


def scored(sender_id: str, *, source: str, at: str, project: str = PROJECT, **fields: Any) -> dict[str, Any]:
    """An event as it is stored, judged by the real scorer."""
    sent = {"id": sender_id, "source": source, "occurred_at": at, **fields}
    event = events.validate(sent)
    received = clock.parse_rfc3339(at) + 400
    identity = event_id(project, source, sender_id)
    events.stamp(event, project=project, event_id=identity, trace_id=TRACE, received_at=received)
    return scoring.score([scoring.prepare(event, Topology.empty())], {}, {}).events[0]


def sample_events() -> list[dict[str, Any]]:
    """Project demo's events, oldest first."""
    payments = {"type": "service", "id": "payments"}
    slow: dict[str, Any] = {
        "type": "latency.high",
        "entity": payments,
        "tags": {"env": "prod"},
        "metrics": {"p99_ms": 2350},
    }
    return [
        scored(
            "db-1",
            source="prometheus",
            at="2026-11-20T10:19:00Z",
            type="db.connections",
            title="ledger-db is out of connections",
            entity={"type": "service", "id": "ledger-db"},
            severity_raw="critical",
        ),
        scored(
            "pay-4711",
            source="checkout",
            at="2026-11-20T10:20:30.456Z",
            title="Payment latency above 2 s",
            severity_raw="critical",
            **slow,
        ),
        scored(
            "pay-4712",
            source="checkout",
            at="2026-11-20T10:21:00Z",
            title="Payment timeouts, data loss possible",
            severity_raw="fatal",
            **slow,
        ),
        scored(
            "pay-4712",
            source="prometheus",
            at="2026-11-20T10:22:00Z",
            title="p99 of payments above threshold",
            severity_raw="warning",
            **slow,
        ),
        scored(
            "deploy-9",
            source="ci",
            at="2026-11-20T10:25:00Z",
            type="deploy.finished",
            title="Deployed web 1.2.3",
            severity_raw="info",
        ),
    ]


@dataclass
class Store:
    """Events and incidents of all projects; implements EventReader, IncidentReader, IncidentWriter and
    DocumentStore.
    """

    log: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    held: dict[str, dict[str, Incident]] = field(default_factory=dict)
    joined: dict[str, list[str]] = field(default_factory=dict)
    verdicts: dict[str, list[tuple[str, str, list[dict[str, Any]]]]] = field(default_factory=dict)
    documents: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    reads: int = 0
    writes: int = 0

    def _public(self, event: Mapping[str, Any]) -> dict[str, Any]:
        owner = next((name for name, ids in self.joined.items() if event["event_id"] in ids), None)
        return dict(event) | ({"incident_id": owner} if owner else {})

    # EventReader and IncidentReader: `page` is shared, so each is a view below
    def event_page(self, project: str, filters: EventFilters, position: Any, limit: int) -> Page[dict[str, Any]]:
        self.reads += 1
        ordered = self.log.get(project, [])[::-1]
        start, found = position or 0, []
        for index in range(start, len(ordered)):
            if filters.matches(ordered[index], events.ruling_time(ordered[index])):
                found.append(self._public(ordered[index]))
            if len(found) == limit and index + 1 < len(ordered):
                return Page(found, index + 1, index + 1 - start)
        return Page(found, None, len(ordered) - start)

    def event(self, project: str, identity: str) -> dict[str, Any] | None:
        self.reads += 1
        return next((self._public(one) for one in self.log.get(project, []) if one["event_id"] == identity), None)

    def refusals(self, project: str, position: Any, limit: int) -> Page[dict[str, Any]]:
        self.reads += 1
        one = {"event_id": EXAMPLE_EVENT, "at": clock.rfc3339(NOW), "reason": "ERR_IDEMPOTENCY_MISMATCH: other content"}
        return Page([one] if project == PROJECT else [], None, 1)

    def by_sender_id(self, project: str, sender_id: str) -> list[dict[str, Any]]:
        self.reads += 1
        return [self._public(one) for one in self.log.get(project, []) if one["id"] == sender_id]

    def incident_page(self, project: str, filters: IncidentFilters, position: Any, limit: int) -> Page[Incident]:
        self.reads += 1
        ordered = sorted(self.held.get(project, {}).values(), key=lambda one: (one.opened_at, one.id), reverse=True)
        ordered = [one for one in ordered if filters.matches(one) and (position is None or one.id < position)]
        more = len(ordered) > limit
        return Page(ordered[:limit], ordered[limit - 1].id if more else None, 1)

    def incident(self, project: str, identity: str) -> Incident | None:
        self.reads += 1
        return self.held.get(project, {}).get(identity)

    def members(self, project: str, identity: str, position: Any, limit: int) -> Page[dict[str, Any]]:
        start = position or 0
        names = self.joined.get(identity, [])
        found = [one for one in self.log.get(project, []) if one["event_id"] in names]
        more = start + limit < len(found)
        return Page([self._public(one) for one in found[start : start + limit]], start + limit if more else None, 1)

    def judged(self, project: str, most: int) -> list[tuple[str, str, list[dict[str, Any]]]]:
        return self.verdicts.get(project, [])[:most]

    def overflow(self, project: str, identity: str) -> list[dict[str, Any]]:
        return []

    # IncidentWriter
    def apply(
        self, project: str, identity: str, operation: Operation, expected_version: int | None
    ) -> Sequence[Incident]:
        own = self.held.get(project, {})
        others = operation.others if isinstance(operation, Merge) else ()
        if any(one not in own for one in (identity, *others)):
            raise Refusal("ERR_NOT_FOUND", "There is no such thing here.")
        if expected_version not in (None, own[identity].version):
            raise Refusal("ERR_CONFLICT", "The incident changed meanwhile; read it again.")
        match operation:
            case Change():
                return [self._change(project, identity, operation)]
            case Merge():
                made = incidents.merge([own[one] for one in (identity, *others)], by=operation.actor, now=operation.at)
                self._write(project, made)
                survivor = next(one for one in made.incidents.values() if one.merged_into is None)
                return [survivor]
            case Split():
                return self._split(project, identity, operation)

    def _write(self, project: str, effects: incidents.Effects) -> None:
        self.writes += 1
        self.held[project].update(effects.incidents)

    def _change(self, project: str, identity: str, change: Change) -> Incident:
        who: dict[str, Any] = {"by": change.actor, "now": change.at}
        steps: list[Any] = []
        if change.status is not None:
            steps.append(
                {
                    "open": incidents.reopen,
                    "acknowledged": incidents.acknowledge,
                    "resolved": incidents.resolve,
                }[change.status]
            )
        for step in steps:
            self._write(project, step(self.held[project][identity], **who))
        if change.verdict is not None:
            self._write(project, incidents.give_verdict(self.held[project][identity], verdict=change.verdict, **who))
        if change.note is not None:
            self._write(project, incidents.note(self.held[project][identity], text=change.note, **who))
        return self.held[project][identity]

    def _split(self, project: str, identity: str, split: Split) -> list[Incident]:
        signals = [
            correlation.signal_of(one, 1, index, Topology.empty())
            for index, one in enumerate(self.log[project])
            if one["event_id"] in self.joined.get(identity, [])
        ]
        taken = [one for one in signals if one.event_id in split.events]
        if len(taken) != len(split.events):
            raise Refusal("ERR_SCHEMA", "Not all of these are members.")
        kept = [one for one in signals if one.event_id not in split.events]
        made = correlation.split(
            self.held[project][identity],
            taken,
            kept,
            View(incidents=dict(self.held[project])),
            project=project,
            by=split.actor,
            now=split.at,
            topology=Topology.empty(),
        )
        self._write(project, made)
        fresh = next(one for name, one in made.incidents.items() if name != identity)
        return [made.incidents[identity], fresh]

    # DocumentStore
    def document(self, project: str, name: str) -> tuple[int, Any]:
        return self.documents.get((project, name), (0, None))

    def put_document(self, project: str, name: str, value: Any, expected_version: int | None, now: int) -> int:
        current = self.document(project, name)[0]
        if expected_version not in (None, current):
            raise Refusal("ERR_CONFLICT", "The document changed meanwhile; read it again.")
        self.writes += 1
        self.documents[project, name] = (current + 1, value)
        return current + 1


class _Events:
    def __init__(self, store: Store) -> None:
        self.page, self.get, self.by_sender_id = store.event_page, store.event, store.by_sender_id
        self.refusals = store.refusals


class _Incidents:
    def __init__(self, store: Store) -> None:
        self.page, self.get = store.incident_page, store.incident
        self.members, self.overflow, self.judged = store.members, store.overflow, store.judged


class _Documents:
    def __init__(self, store: Store) -> None:
        self.get, self.put = store.document, store.put_document


class _Healings:
    """Three repairs, paged by index."""

    rows = tuple(
        {
            "id": f"hea_{index}",
            "at": clock.rfc3339(NOW - index * 60_000),
            "kind": "mapping_disabled",
            "action": "enabled",
        }
        for index in range(3)
    )

    def page(self, position: Any, limit: int) -> Page[dict[str, Any]]:
        start = position or 0
        following = start + limit if start + limit < len(self.rows) else None
        return Page(self.rows[start : start + limit], following, 1)


class _Journal:
    """Four sealed entries, paged by index: two of the caller's project, one of another, one of the deployment."""

    def __init__(self) -> None:
        self.log = Memory()
        self.entries = [
            _sealed(0, "incident.opened", PROJECT, "system:correlate", "incident:open"),
            _sealed(1, "incident.opened", OTHER, "system:correlate", "incident:open"),
            _sealed(2, "incident.acknowledged", PROJECT, "key_k3yOfTheTest", "incident:acknowledge"),
            _sealed(3, "healing.repaired", DEPLOYMENT, "system:supervise", "healing:enable"),
        ]
        self.log.add(*self.entries)
        Sequencer(self.log, origin_of("live"), LOG, COSIGNER).seal(NOW)

    def page(self, filters: JournalFilters, position: Any, limit: int) -> Page[dict[str, Any]]:
        shown = [{"index": index, "entry": one.payload()} for index, one in enumerate(self.entries)]
        found = [one for one in reversed(shown) if filters.matches(one["entry"])]
        start = position or 0
        following = start + limit if start + limit < len(found) else None
        return Page(found[start : start + limit], following, len(found))


def _sealed(number: int, kind: str, project: str, actor: str, action: str) -> Entry:
    return Entry(
        id=f"evd_019a9f00-0000-7000-8000-00000000000{number}",
        kind=kind,
        at=NOW - 60_000 + number,
        project=project,
        actor=actor,
        action=action,
        resource=f"incident:{EXAMPLE_INCIDENT}",
        trace_id=TRACE,
        outcome="done",
        digests={"change": content_digest({"number": number})},
    )


class _Health:
    """Two parts, one of them slow."""

    def parts(self) -> list[dict[str, Any]]:
        at = clock.rfc3339(NOW)
        return [
            {"part": "table", "kind": "store", "status": "up", "detail": "4 ms", "measured_at": at},
            {
                "part": "score",
                "kind": "queue",
                "status": "degraded",
                "detail": "oldest 90 s",
                "measured_at": at,
            },
        ]

    def metrics(self) -> list[tuple[str, str, str, dict[str, str], float]]:
        name, meaning = "tocsin_queue_messages", "Messages waiting."
        return [
            (name, "gauge", meaning, {"queue": "score"}, 3),
            (name, "gauge", meaning, {"queue": 'odd"\n\\name'}, 0),
            ("tocsin_up", "gauge", "1 when up.", {}, 1),
        ]


def _incident(identity: str, members: Sequence[Mapping[str, Any]], opened_at: int) -> Incident:
    """An incident of given members, with what correlation would have counted."""
    signals = [correlation.signal_of(one, 1, index, Topology.empty()) for index, one in enumerate(members)]
    first = signals[0]
    change = incidents.Change(View(), incidents.DEFAULT_POLICY, opened_at)
    made = change.open(identity, first.at, first.received_at)
    for signal in signals:
        incidents.absorb(change, made, signal, ())
    made.timeline.clear()  # what is counted at founding is no change yet
    made.entries = 0
    change.log(made, "opened", opened_at, f"opened by {first.title}")
    made.links["service:payments"] = [0.9, "same service payments", max(1, len(signals) - 1)]
    change.finish(Topology.empty())
    return made


@dataclass
class ApiWorld:
    """Everything the keyed routes stand on, and the rooms bundle over it."""

    store: Store = field(default_factory=Store)
    bench: Bench = field(default_factory=Bench)
    access: AccessRooms = field(default_factory=sample_access)
    privacy: PrivacyRooms = field(default_factory=sample_privacy)
    rooms: ApiRooms = field(init=False)

    def __post_init__(self) -> None:
        self.bench.world.now = NOW
        journal = _Journal()
        self.rooms = ApiRooms(
            events=_Events(self.store),
            incidents=_Incidents(self.store),
            writer=self.store,
            documents=_Documents(self.store),
            channels=Channels(ChannelRows(self.bench.world), self._secret, self._check_url),
            routing=RoutingRows(self.bench.world),
            dispatcher=self.bench.dispatcher(),
            notifications=Records(self.bench.world),
            healings=_Healings(),
            journal=journal,
            audit=Audit(journal.log),
            health=_Health(),
            access=lambda: self.access,
            privacy=lambda: self.privacy,
            cursor_key=b"c" * 32,
            now=lambda: NOW,
        )

    @staticmethod
    def _secret(channel_id: str, version: int) -> str:
        return f"whsec_sample{version}"

    @staticmethod
    def _check_url(url: str) -> None:
        if not url.startswith("https://"):
            raise Refusal("ERR_URL", "Only https addresses are called.")

    def with_origin(self, origin: str) -> ApiRooms:
        return replace(self.rooms, origin=origin)


def sample_world() -> ApiWorld:
    """A fresh sample world; equal every time."""
    world = ApiWorld()
    log = sample_events()
    world.store.log = {
        PROJECT: log,
        OTHER: [
            scored(
                "pay-4711",
                source="checkout",
                at="2026-11-20T10:00:00Z",
                project=OTHER,
                type="t",
                title="secret of others",
            )
        ],
    }
    database, payments = (
        _incident(EXAMPLE_OTHER_INCIDENT, log[:1], NOW - 11 * 60_000),
        _incident(EXAMPLE_INCIDENT, log[1:4], NOW - 9 * 60_000),
    )
    foreign = _incident(FOREIGN_INCIDENT, world.store.log[OTHER], NOW)
    world.store.held = {PROJECT: {payments.id: payments, database.id: database}, OTHER: {foreign.id: foreign}}
    world.store.joined = {
        payments.id: [one["event_id"] for one in log[1:4]],
        database.id: [log[0]["event_id"]],
        foreign.id: [world.store.log[OTHER][0]["event_id"]],
    }
    world.store.verdicts[PROJECT] = [
        (f"inc_judged_{n}", "useful" if n % 4 == 0 else "noise", [log[1] if n % 2 else log[2]]) for n in range(24)
    ]
    samples = [sample for one in world.store.verdicts[PROJECT] for sample in samples_of(*one)]
    learned = Calibration().fit(samples, by="key_sample", at=NOW - clock.DAY)
    world.store.documents[PROJECT, "calibration"] = (1, learned.to_document())
    channel = webhook(
        "on-call", project=PROJECT, id=EXAMPLE_CHANNEL, created_at=NOW, url="https://hooks.example.com/tocsin"
    )
    world.bench.add(channel)
    world.bench.add(webhook("theirs", project=OTHER, id=EXAMPLE_CHANNEL[:-1] + "f", created_at=NOW))
    world.bench.dispatcher().handle({**fact(incident=EXAMPLE_INCIDENT), "project": PROJECT})
    return world
