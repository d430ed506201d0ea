"""Contracts, discovery, routing and plans over HTTP. The rules are those of tocsin.decisions."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, Final

from tocsin.access.principals import USE, Principal
from tocsin.api import front, models
from tocsin.api.call import Call
from tocsin.api.matching import not_found
from tocsin.api.ports import DecisionRooms, Json, Page
from tocsin.decisions import asking, changes, contracts, exchange, policies
from tocsin.decisions.contracts import Contract, identity, service_id
from tocsin.decisions.control import Budget
from tocsin.decisions.deciding import Outcome
from tocsin.decisions.invoking import Wanted
from tocsin.decisions.routing import Health, Verdict, first_failure, weights_of
from tocsin.decisions.snapshots import Snapshot
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.http import Answer, Request
from tocsin.kernel.ids import new_id

#: Most reasons in one answer; more are in the full certificates.
MAX_REASONS: Final = 20_000
#: Bytes of certificates in one answer; Lambda answers with at most 6 MB.
MAX_PROOF: Final = 4_000_000
_VERBS: Final[Mapping[str, str]] = {"active": "activate", "draining": "drain", "retired": "retire"}

Service = Callable[[Call, DecisionRooms], Answer]


def caller_of(principal: Principal) -> asking.Caller:
    """The caller as decisions see it."""
    words = {scope.partition(":")[2] for scope in principal.scopes if scope.startswith(f"{USE}:")} - {"*"}
    return asking.Caller(principal.credential, frozenset(words), lambda word: principal.allows(f"{USE}:{word}"))


def _shown(contract: Contract, health: Health) -> Json:
    name = service_id(contract)
    return {"contract": contract, "down": health.down.get(name), "attested": name in health.attested}


def _found(snapshot: Snapshot, call: Call) -> Contract:
    """The version that the path names."""
    wanted = (call.id, int(call.part))
    found = next((contract for contract in snapshot.contracts if identity(contract) == wanted), None)
    return found if found is not None else not_found()


def _versions(snapshot: Snapshot, name: str) -> list[Contract]:
    return [contract for contract in snapshot.contracts if contract["name"] == name]


def _registered(call: Call, rooms: DecisionRooms, sent: Any) -> Answer:
    contract = contracts.validate(sent, rooms.now())
    contracts.check_signature(contract, rooms.verify)
    if "endpoint" in contract:
        rooms.check_url(contract["endpoint"])
    registry, sent = rooms.registry(call.project), exchange.sent_fields(contract)
    try:
        snapshot = registry.publish(changes.register(contract), changes.deed_of("register"))
    except Refusal:
        snapshot = registry.latest()
        known = [one for one in snapshot.contracts if identity(one) == identity(contract)]
        if not known or exchange.sent_fields(known[0]) != sent:
            raise
        (contract,) = known  # the same again, as by who never got the answer
    where = f"/v1/contracts/{contract['name']}/versions/{contract['version']}"
    return Answer({"contract": contract}, {"snapshot": snapshot.name}, 201, {"Location": where})


def register_contract(call: Call, rooms: DecisionRooms) -> Answer:
    """Register a version of a service, as a draft."""
    return _registered(call, rooms, call.document)


def import_contract(call: Call, rooms: DecisionRooms) -> Answer:
    """Register what an A2A agent card or an MCP registry entry carries."""
    sent = call.taken(models.ContractImport)
    if sent.agent_card is not None:
        return _registered(call, rooms, exchange.from_agent_card(sent.agent_card))
    return _registered(call, rooms, exchange.from_server_entry(sent.server))


def add_version(call: Call, rooms: DecisionRooms) -> Answer:
    """Register a further version of a service that is registered."""
    if not _versions(rooms.registry(call.project).latest(), call.id):
        not_found()
    if call.document.get("name") != call.id:
        raise Refusal("ERR_SCHEMA", "The contract is of another name.", [Detail("name", "path", f"send {call.id}")])
    return _registered(call, rooms, call.document)


def list_contracts(call: Call, rooms: DecisionRooms) -> Answer:
    """Registered versions by name and version."""
    engine, health = rooms.decider(call.project).world(latest=True)
    state, capability = call.query.get("state"), call.query.get("capability")
    held = engine.snapshot.contracts

    def read(position: Any, limit: int) -> Page[Json]:
        start = at = bisect_right(held, tuple(position), key=identity) if position else 0
        found: list[Json] = []
        while at < len(held) and len(found) < limit:
            one = held[at]
            at += 1
            if state in (None, one["state"]) and (capability is None or capability in one["capabilities"]):
                found.append(_shown(one, health))
        return Page(found, list(identity(held[at - 1])) if at < len(held) else None, at - start)

    items, meta = call.page(rooms, [state, capability], read)
    return Answer({"items": items}, {**meta, "snapshot": engine.snapshot.name})


def list_versions(call: Call, rooms: DecisionRooms) -> Answer:
    """All versions of a service."""
    engine, health = rooms.decider(call.project).world(latest=True)
    found = [_shown(one, health) for one in _versions(engine.snapshot, call.id)]
    return Answer({"items": found}) if found else not_found()


def get_version(call: Call, rooms: DecisionRooms) -> Answer:
    """One version of a service."""
    engine, health = rooms.decider(call.project).world(latest=True)
    return Answer(_shown(_found(engine.snapshot, call), health))


def move_version(call: Call, rooms: DecisionRooms) -> Answer:
    """Bring a version into its next state."""
    registry, state = rooms.registry(call.project), call.taken(models.ContractMove).state
    edit = changes.move(call.id, int(call.part), state, rooms.now(), registry.staleness_ms)
    try:
        snapshot = registry.publish(edit, changes.deed_of(_VERBS[state]))
        after = _found(snapshot, call)
    except Refusal:
        snapshot = registry.latest()
        after = _found(snapshot, call)
        if after["state"] != state:  # else it is there already, as for who never got the answer
            raise
    data: Json = {"contract": after}
    if state == "draining":
        data["retire_at"] = clock.rfc3339(contracts.retire_after_ms(after, registry.staleness_ms))
    return Answer(data, {"snapshot": snapshot.name})


def beat(call: Call, rooms: DecisionRooms) -> Answer:
    """The owner says that the service is there; it holds for its lease."""
    decider, now = rooms.decider(call.project), rooms.now()
    contract = _found(decider.registry.latest(), call)
    decider.control.beat(service_id(contract), now)
    return Answer({"holds_until": clock.rfc3339(now + contract["lease_ms"])})


def _exported(call: Call, rooms: DecisionRooms) -> Contract:
    contract = _found(rooms.registry(call.project).latest(), call)
    if "endpoint" not in contract:
        fix = "register a version with an endpoint"
        raise Refusal("ERR_CONFLICT", "The contract says no address.", [Detail("endpoint", "required", fix)])
    return contract


def get_agent_card(call: Call, rooms: DecisionRooms) -> Answer:
    """A version as an A2A agent card."""
    contract = _exported(call, rooms)
    return Answer(exchange.to_agent_card(contract, contract["endpoint"]))


def get_server_entry(call: Call, rooms: DecisionRooms) -> Answer:
    """A version as an entry of an MCP registry."""
    contract = _exported(call, rooms)
    return Answer(exchange.to_server_entry(contract, call.query.get("namespace", "local.tocsin"), contract["endpoint"]))


def discover(call: Call, rooms: DecisionRooms) -> Answer:
    """Who could do it, best first, and why every other version cannot."""
    engine, health = rooms.decider(call.project).world(latest=True)
    request, policy = asking.discovery_of(call.document, caller_of(call.principal)), engine.snapshot.policy
    weights = weights_of(request, policy)
    found, excluded = [], []
    for contract in engine.snapshot.contracts:
        reason = first_failure(request, contract, policy, health)
        if reason is None:
            found.append((policies.key(contract, weights), contract))
        else:
            excluded.append({"name": contract["name"], "version": contract["version"], "reason": reason})
    found.sort(key=lambda one: one[0])
    # Weights may be beyond what every JSON reader keeps.
    items = [{"weight": str(key[0]), **_shown(contract, health)} for key, contract in found]
    return Answer({"items": items, "excluded": excluded}, {"snapshot": engine.snapshot.name})


def _reason(verdict: Verdict) -> Json:
    return {"name": verdict.service.name, "version": verdict.service.version, "reason": verdict.reason}


def _outcome(one: Outcome) -> Json:
    receipt = one.receipt.document()
    return {
        "decision_id": one.decision_id,
        "decision": receipt["decision"],
        "reasons": None if one.reasons is None else [_reason(verdict) for verdict in one.reasons],
        "guarantees": one.guarantees,
        "receipt": receipt,
    }


def route(call: Call, rooms: DecisionRooms) -> Answer:
    """Decide which service may do what is asked; of several requests, all by the same snapshot and health."""
    decider = rooms.decider(call.project)
    requests, several, explain = asking.requests_of(call.document, caller_of(call.principal))
    engine, health = decider.world()
    explain = explain and len(requests) * len(engine.snapshot.contracts) <= MAX_REASONS
    made = [_outcome(one) for one in decider.decide(requests, engine, health, explain=explain)]
    meta = {"snapshot": engine.snapshot.name, "health_epoch": health.epoch}
    return Answer({"items": made} if several else made[0], meta)


def make_plan(call: Call, rooms: DecisionRooms) -> Answer:
    """Several services one after another, under limits on the whole."""
    name, planned = rooms.decider(call.project).plan(asking.goal_of(call.document, caller_of(call.principal)))
    receipt = planned.certificate["receipt"]
    data = {"decision_id": name, "steps": planned.steps, "guarantees": planned.guarantees, "receipt": receipt}
    return Answer(data, {"snapshot": receipt["snapshot"]})


def get_decision(call: Call, rooms: DecisionRooms) -> Answer:
    """A decision as it is kept."""
    kept = rooms.decider(call.project).log.get(call.id)
    return Answer({"decision_id": call.id, **kept._asdict()}) if kept else not_found()


def get_certificate(call: Call, rooms: DecisionRooms) -> Answer:
    """The certificate of a decision, or of all that were made together, and what a checker needs besides."""
    decider = rooms.decider(call.project)
    one = decider.log.get(call.id)
    kept = {call.id: one} if one else decider.log.together(call.id)
    if not kept:
        not_found()
    proof = decider.proof(kept, call.query.get("form", "short"))
    if len(proof.snapshot) + sum(map(len, proof.certificates.values())) > MAX_PROOF:
        detail = Detail("form", "bytes", "ask for form=short, or for one decision at a time")
        raise Refusal("ERR_BODY_TOO_LARGE", "The certificates are too large for an answer.", [detail])
    made = [{"decision_id": name, "certificate": json.loads(data)} for name, data in proof.certificates.items()]
    context = {"snapshot": json.loads(proof.snapshot), "health": json.loads(proof.health)}
    return Answer({"form": proof.form, **context, "certificates": made})


def invoke(call: Call, rooms: DecisionRooms) -> Answer:
    """Decide, call the service, and say what became of it."""
    sent = call.taken(models.InvokeInput)
    (request,), _, _ = asking.requests_of({**sent.request, "reasons": False}, caller_of(call.principal))
    call_id = sent.call_id or new_id("call", rooms.now())
    wanted = Wanted(call_id, request, sent.payload, sent.retries)
    return Answer(rooms.invoker(call.project).call(wanted, call.request.trace_id))


def _spending(budget: Budget) -> Answer:
    return Answer({"limit_pusd": budget.limit, "spent_pusd": budget.spent, "held_pusd": budget.held})


def get_spending(call: Call, rooms: DecisionRooms) -> Answer:
    """What calls may cost in this month, and did."""
    return _spending(rooms.invoker(call.project).calls.budget())


def set_spending(call: Call, rooms: DecisionRooms) -> Answer:
    """Limit what calls may cost."""
    return _spending(rooms.invoker(call.project).calls.set_limit(call.taken(models.SpendingInput).limit_pusd))


def get_policy(call: Call, rooms: DecisionRooms) -> Answer:
    """The policy in force."""
    snapshot = rooms.registry(call.project).latest()
    return Answer({"policy": snapshot.policy}, {"snapshot": snapshot.name})


def list_policies(call: Call, rooms: DecisionRooms) -> Answer:
    """Policies that were put in force, newest first."""

    def read(position: Any, limit: int) -> Page[Json]:
        rows = rooms.history(call.project).policies(position, limit + 1)
        items = [{"policy": row["policy"], "published_at": clock.rfc3339(row["at"])} for row in rows[:limit]]
        return Page(items, rows[limit - 1]["version"] if len(rows) > limit else None, len(rows))

    return call.listing(rooms, None, read)


SERVICES: Final[Mapping[str, Service]] = {
    "register_contract": register_contract,
    "import_contract": import_contract,
    "list_contracts": list_contracts,
    "list_contract_versions": list_versions,
    "add_contract_version": add_version,
    "get_contract_version": get_version,
    "move_contract_version": move_version,
    "beat_contract_version": beat,
    "get_agent_card": get_agent_card,
    "get_server_entry": get_server_entry,
    "discover": discover,
    "route": route,
    "plan": make_plan,
    "get_decision": get_decision,
    "get_certificate": get_certificate,
    "get_policy": get_policy,
    "list_policies": list_policies,
    "invoke": invoke,
    "get_spending": get_spending,
    "set_spending": set_spending,
}


def dispatch(request: Request, principal_of: Callable[[Request], Principal], rooms: DecisionRooms) -> Answer:
    """Answer one request to a route of the route function; see front.answer."""
    return front.answer(request, principal_of, rooms, SERVICES)
