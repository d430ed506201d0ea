"""Deciding for one project: by its current snapshot and health, with receipts kept and certificates made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tocsin.decisions import certificates
from tocsin.decisions.contracts import service_id
from tocsin.decisions.control import Watch
from tocsin.decisions.control import health as health_now
from tocsin.decisions.plans import Goal, Planned, guarantees, plan
from tocsin.decisions.ports import ControlStore, Decided, DecisionLog, decision_ids
from tocsin.decisions.routing import Engine, Health, Receipt, Request, Verdict, health_of
from tocsin.decisions.snapshots import Registry, Snapshot
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Retry
from tocsin.kernel.ids import new_id

#: How old what is known of services may be when a decision is made, in ms.
HEALTH_MS: Final = 1_000
#: Engines of older snapshots that are kept, to derive certificates with.
_ENGINES: Final = 4
_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """A decision as it is answered. `reasons` are None when they were not asked for."""

    decision_id: str
    receipt: Receipt
    reasons: Sequence[Verdict] | None
    guarantees: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Proof:
    """Certificates of decisions that were made together, and what a checker needs besides; canonical bytes."""

    form: str
    snapshot: bytes
    health: bytes
    certificates: Mapping[str, bytes]


@dataclass(slots=True)
class Decider:
    """One project's decisions. Remembers the current snapshot and health for a moment; safe to keep per process."""

    registry: Registry
    control: ControlStore
    log: DecisionLog
    now_ms: Callable[[], int]
    _engines: dict[str, Engine] = field(default_factory=dict, init=False)
    _health: tuple[Health, str, int] | None = field(default=None, init=False)

    def world(self, *, latest: bool = False) -> tuple[Engine, Health]:
        """What is decided by now, or the latest, which one's own changes are in. Raises Retry when it is unknown."""
        engine = self._engine(self.registry.latest() if latest else self.registry.current())
        return engine, self._healthy(engine.snapshot)

    def _engine(self, snapshot: Snapshot) -> Engine:
        engine = self._engines.pop(snapshot.name, None) or Engine(snapshot)
        self._engines[snapshot.name] = engine
        while len(self._engines) > _ENGINES:
            del self._engines[next(iter(self._engines))]
        return engine

    def _healthy(self, snapshot: Snapshot) -> Health:
        now = self.now_ms()
        if self._health and self._health[1] == snapshot.name and 0 <= now - self._health[2] < HEALTH_MS:
            return self._health[0]
        active = [contract for contract in snapshot.contracts if contract["state"] == "active"]
        for _ in range(_TRIES):
            before, seen = self.control.health(), self.control.watches()
            # Becoming active counts as calling in.
            watches = {
                service_id(contract): _later(seen.get(service_id(contract)), contract["since_ms"])
                for contract in active
            }
            after = health_now(before, active, watches, now)
            if after is before or self.control.advance(after):
                self.log.put_health(after.digest, after.document)
                self._health = (after, snapshot.name, now)
                return after
        raise Retry("health keeps changing")

    def decide(self, requests: Sequence[Request], engine: Engine, health: Health, *, explain: bool) -> list[Outcome]:
        """Decisions by one snapshot and one health, kept together before they are answered."""
        receipts = [engine.decide(request, health) for request in requests]
        batch = new_id("dec", self.now_ms())
        pairs = zip(receipts, requests, strict=True)
        self.log.append(batch, [Decided(receipt.document(), request.document) for receipt, request in pairs])
        by = {(one["name"], one["version"]): one for one in engine.snapshot.contracts}
        made = []
        for name, receipt, request in zip(decision_ids(batch, len(requests)), receipts, requests, strict=True):
            holds: Mapping[str, Any] = {}
            if receipt.decision:
                won = by[receipt.decision]
                total = (won["cost_pusd"], won["latency_us"], won["error_ppb"])
                holds = guarantees([won], total, request.document, health)
            made.append(Outcome(name, receipt, engine.explain(request, health) if explain else None, holds))
        return made

    def plan(self, goal: Goal) -> tuple[str, Planned]:
        """A plan by the current snapshot and health, kept like a decision."""
        engine, health = self.world()
        planned = plan(goal, engine.snapshot, health)
        name = new_id("dec", self.now_ms())
        self.log.append(name, [Decided(planned.certificate["receipt"], goal.document)])
        return name, planned

    def proof(self, kept: Mapping[str, Decided], form: str) -> Proof:
        """Certificates of kept decisions by one snapshot and health. Raises Retry while an input is out of reach."""
        first = next(iter(kept.values())).receipt
        held = self.log.health(first["health"])
        if held is None:
            raise Retry("the health document is not readable")
        engine, health = self._engine(self.registry.at(first["snapshot"])), health_of(held)
        if "plan" in first:  # its certificate has one form, and is checked with the whole snapshot
            form = "full"
        made = {name: self._certificate(one, engine, health, form) for name, one in kept.items()}
        return Proof(form, certificates.context(engine, form), certificates.health_document(health), made)

    def _certificate(self, kept: Decided, engine: Engine, health: Health, form: str) -> bytes:
        if "plan" not in kept.receipt:
            receipt = certificates.receipt_of(kept.receipt)
            return certificates.derive(receipt, engine, Request(kept.request), health, form)
        return canonical_json(plan(Goal(kept.request), engine.snapshot, health).certificate)


def _later(watch: Watch | None, since_ms: int) -> Watch:
    return replace(watch, beat_ms=max(watch.beat_ms, since_ms)) if watch else Watch(since_ms)
