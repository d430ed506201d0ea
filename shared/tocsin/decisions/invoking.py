"""Calls through the engine: decide, reserve, call, judge; again elsewhere while the caller and the budgets allow it.

What may run is settled before a call and what became of it after it, each in one step over the service's watch and the
project's budget (port Calls), so that no two routers give out the same slot or the same money. Every attempt is a
decision of its own. One that is made because a service was tried or is busy says so in its health document, which is
hashed as ever: its certificate proves it like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from tocsin.decisions.contracts import Contract, service_id
from tocsin.decisions.control import Budget, Monitor, Watch, switches
from tocsin.decisions.deciding import Decider, Outcome
from tocsin.decisions.policies import weight
from tocsin.decisions.ports import Calls, Dial, Dialled, Taken
from tocsin.decisions.routing import Engine, Health, Request, first_failure, weights_of
from tocsin.decisions.types import holds
from tocsin.kernel.canonical import digest
from tocsin.kernel.errors import Detail, Refusal

#: Most attempts of one call, those that found a service busy included.
MAX_ATTEMPTS: Final = 4
MAX_RETRIES: Final = 2
#: How long all attempts together may take, in ms: what a request leaves before its function is stopped.
TOTAL_MS: Final = 22_000
#: The incumbent is left for a service that weighs at least this share less, in 1/1,000.
_MARGIN: Final = 50


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call as it is asked for. `retries` says how often it may be tried elsewhere after it may have had effects."""

    call_id: str
    request: Request
    payload: Any
    retries: int = 0

    def __post_init__(self) -> None:
        if not holds(self.request.document["input"], self.payload):
            fix = "send a payload of the type that the request names as input"
            raise Refusal("ERR_SCHEMA", "The payload is of another type.", [Detail("payload", "type", fix)])

    @property
    def digest(self) -> str:
        return digest([self.request.document, self.payload, self.retries]).hex()


@dataclass(frozen=True, slots=True)
class Attempt:
    """`outcome`: kept, late, failed, timeout, type, or what kept it from being called: busy, no_endpoint, budget."""

    decision_id: str
    service: str
    outcome: str
    status: int = 0
    took_us: int = 0
    cost_pusd: int = 0


@dataclass(slots=True)
class Invoker:
    """Calls for one project."""

    decider: Decider
    calls: Calls
    dial: Dial
    now_ms: Callable[[], int]

    def call(self, wanted: Wanted, trace_id: str) -> Mapping[str, Any]:
        """What became of the call; of one that was made before, what became of it then.

        Refuses 422 ERR_IDEMPOTENCY_MISMATCH an id that was used for something else, and 409 ERR_CONFLICT one whose
        call still runs.
        """
        until = self.now_ms() + TOTAL_MS
        known = self.calls.claim(wanted.call_id, wanted.digest, until)
        if known is not None:
            return {**known, "repeated": True}
        made = self._made(wanted, trace_id, until)
        self.calls.answer(wanted.call_id, made, self._spent(made))
        return {**made, "repeated": False}

    @staticmethod
    def _spent(made: Mapping[str, Any]) -> int:
        return sum(int(one["cost_pusd"]) for one in made["attempts"])

    def _made(self, wanted: Wanted, trace_id: str, until: int) -> dict[str, Any]:
        attempts: list[Attempt] = []
        retries, tried = wanted.retries, dict[str, str]()
        made: dict[str, Any] = {"call_id": wanted.call_id, "status": "refused", "service": None, "output": None}
        guarantees: Mapping[str, Any] = {}
        while len(attempts) < MAX_ATTEMPTS and self.now_ms() < until:
            engine, healthy = self.decider.world()
            health = replace(healthy, down={**healthy.down, **tried}) if tried else healthy
            if tried:
                self.decider.log.put_health(health.digest, health.document)
            (outcome,) = self.decider.decide([wanted.request], engine, health, explain=False)
            contract = self._chosen(wanted.request, engine, health, outcome)
            if contract is None:
                attempts.append(Attempt(outcome.decision_id, "", "no_service"))
                break
            name = service_id(contract)
            attempt, output = self._attempt(
                wanted, contract, outcome, f"{wanted.call_id}.{len(attempts)}", until, trace_id
            )
            attempts.append(attempt)
            if attempt.outcome == "budget":
                break
            if attempt.outcome in ("kept", "late"):
                guarantees = outcome.guarantees
                made |= {"status": "done", "service": name, "output": output}
                break
            tried[name] = attempt.outcome
            if attempt.outcome not in ("busy", "no_endpoint"):
                made |= {"status": "failed", "service": name}
                if not retries or not self._retry(name):
                    break
                retries -= 1
        return {**made, "guarantees": guarantees, "attempts": [asdict(one) for one in attempts]}

    def _chosen(self, request: Request, engine: Engine, health: Health, outcome: Outcome) -> Contract | None:
        """The winner, or the incumbent of such requests while it is admissible and weighs little more."""
        if outcome.receipt.decision is None:
            return None
        by = {(one["name"], one["version"]): one for one in engine.snapshot.contracts}
        winner, weights = by[outcome.receipt.decision], weights_of(request, engine.snapshot.policy)
        lane = digest([request.document["capabilities"], request.document["profile"]]).hex()
        incumbent = next((one for one in by.values() if service_id(one) == self.calls.incumbent(lane)), None)
        weighs = None
        if incumbent is not None and first_failure(request, incumbent, engine.snapshot.policy, health) is None:
            weighs = weight(incumbent, weights)
        margin = max(1, (weighs or 0) * _MARGIN // 1_000)
        if incumbent is not None and incumbent is not winner and not switches(weight(winner, weights), weighs, margin):
            return incumbent
        if incumbent is not winner:
            self.calls.set_incumbent(lane, service_id(winner))
        return winner

    def _attempt(
        self, wanted: Wanted, contract: Contract, outcome: Outcome, slot: str, until: int, trace_id: str
    ) -> tuple[Attempt, Any]:
        name = service_id(contract)
        if "endpoint" not in contract:
            return Attempt(outcome.decision_id, name, "no_endpoint"), None
        now = self.now_ms()
        ends = min(until, now + int(contract["lease_ms"]))
        begun = self.calls.take(name, lambda watch, budget: _begun(watch, budget, contract, slot, now, ends))
        if begun.refused:
            return Attempt(outcome.decision_id, name, begun.refused), None
        headers = {"X-Trace-Id": trace_id, "Idempotency-Key": wanted.call_id, "X-Tocsin-Service": name}
        dialled = self.dial(contract["endpoint"], wanted.payload, headers, max(1, ends - now))
        word = _judged(dialled, contract)
        cost = _cost(dialled, contract)
        self.calls.take(name, lambda watch, budget: _finished(watch, budget, contract, slot, word, cost, self.now_ms()))
        made = Attempt(outcome.decision_id, name, word, dialled.status, dialled.took_us, cost or 0)
        return made, dialled.output if word in ("kept", "late") else None

    def _retry(self, service: str) -> bool:
        """Whether the service's retry budget has a retry left; it is taken."""

        def taken(watch: Watch, budget: Budget) -> Taken:
            left = watch.retries.retry()
            return Taken("retries") if left is None else Taken(None, replace(watch, retries=left), budget)

        return self.calls.take(service, taken).refused is None


def _begun(watch: Watch, budget: Budget, contract: Contract, slot: str, now: int, ends: int) -> Taken:
    """A slot of the window, a pass of the breaker, and the most that the call may cost; or what there is none of."""
    running = {one: till for one, till in watch.running.items() if till > now}
    admitted, breaker = watch.breaker.admit(now)
    if len(running) >= watch.window.size or not admitted:
        return Taken("busy")
    held = budget.expire(now).reserve(slot, contract["cost_pusd"], ends)
    if held is None:
        return Taken("budget")
    after = replace(watch, breaker=breaker, running={**running, slot: ends}, retries=watch.retries.requested())
    return Taken(None, after, held)


def _finished(
    watch: Watch, budget: Budget, contract: Contract, slot: str, word: str, cost: int | None, now: int
) -> Taken:
    """Slot and money back, and what the call says about the service: breaker, window, promise."""
    worked = word in ("kept", "late")
    breaker = watch.breaker.succeeded() if worked else watch.breaker.failed(now)
    window = watch.window.grown() if worked else watch.window.shrunk()
    monitor = (watch.monitor or Monitor(contract["error_ppb"])).called(word == "kept")
    running = {one: till for one, till in watch.running.items() if one != slot}
    spent = budget.release(slot) if cost is None else budget.commit(slot, cost)
    return Taken(None, replace(watch, breaker=breaker, window=window, monitor=monitor, running=running), spent)


def _judged(dialled: Dialled, contract: Contract) -> str:
    """Whether the promise was kept: an answer, in time, of the promised type."""
    if dialled.failure:
        return dialled.failure
    if not 200 <= dialled.status < 300:
        return "failed"
    if not holds(contract["output"], dialled.output):
        return "type"
    return "kept" if dialled.took_us <= contract["latency_us"] else "late"


def _cost(dialled: Dialled, contract: Contract) -> int | None:
    """What counts as spent: what the service says, at most what it promised; all of that when it says nothing; None
    when it was never reached.
    """
    if dialled.failure == "unreached":
        return None
    return min(int(contract["cost_pusd"]), contract["cost_pusd"] if dialled.cost_pusd is None else dialled.cost_pusd)
