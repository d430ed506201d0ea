"""Mitigations: plans on their way to being carried out, each step once, and back.

    planned ──apply──▶ applying ──▶ applied ──rollback──▶ rolling_back ──▶ rolled_back
       │ (approval)        │           └──when all has ended──▶ expired
       ├──24 h──▶ expired  └──▶ failed ──rollback──▶ …
       └──rollback──▶ rolled_back

A plan of consequence is `approved` before it is applied, by a second person and for that very request
(tocsin.access.approvals). Every move is a write over the version that was read, and what a step does inside Tocsin is
done in that same transaction: of two workers that apply one plan, one moves each step and the other meets a version
that is gone, whenever it wakes up. What leaves Tocsin (a notice) has an id made of mitigation and step, so that a
repeat is the same notice. A worker that dies leaves `applying` behind; after its lease whoever asks again goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from tocsin.decisions import certificates, routing
from tocsin.decisions.ports import decision_ids
from tocsin.defense import plans
from tocsin.defense.plans import Conditions, Facts, Planned
from tocsin.defense.ports import Json
from tocsin.defense.quarantine import MAX_REASON, Quarantine
from tocsin.kernel import clock
from tocsin.kernel.canonical import digest
from tocsin.kernel.errors import Detail, Refusal, Retry
from tocsin.kernel.ids import derived_id, new_id

STATUSES: Final = ("planned", "approved", "applying", "applied", "failed", "rolling_back", "rolled_back", "expired")
#: A worker owns a mitigation for this long; longer than the function that runs it may live.
LEASE_MS: Final = 60 * clock.SECOND
#: Statuses after which the same facts are worth a new plan.
_OVER: Final = frozenset({"failed", "rolled_back", "expired"})
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Mitigation:
    """One mitigation. `steps` hold status, outcome and times of the plan's steps, in order; `undone` counts steps that
    were rolled back. `until` is the end of the lease of whoever is at it. Times are Unix ms.
    """

    id: str
    project: str
    plan: Json
    steps: tuple[Json, ...]
    decided: tuple[Json, ...]
    created_at: int
    created_by: str
    trace_id: str
    status: str = "planned"
    approval: str = ""
    until: int = 0
    version: int = 1

    @property
    def name(self) -> str:
        """What it is about and does: equal facts that lead to equal steps are the same mitigation."""
        does = [[step["responder"], step["target"], step["minutes"]] for step in self.plan["steps"]]
        return digest([self.plan["subject"], self.plan["playbook"], does]).hex()

    @property
    def decision_ids(self) -> list[str]:
        return decision_ids(batch_of(self.id), len(self.decided)) if self.decided else []

    def status_at(self, now: int) -> str:
        """The status that counts: a plan nobody applied in time, and one whose every effect has ended, has expired."""
        if self.status in ("planned", "approved") and now >= self.created_at + plans.LIFE:
            return "expired"
        ends = [step["ends_at"] for step in self.steps if step.get("ends_at")]
        lasts = any(step["responder"] == "revoke-key" for step in self.plan["steps"])
        if self.status == "applied" and ends and max(ends) <= now and not lasts:
            return "expired"
        return self.status

    def as_json(self, now: int) -> Json:
        """Public form."""
        steps = []
        for step, state, decision in zip(self.plan["steps"], self.steps, self.decision_ids, strict=True):
            times = {name: clock.rfc3339(state[name]) if state.get(name) else None for name in ("at", "ends_at")}
            shown = {name: state.get(name) for name in ("status", "outcome")}
            steps.append({**step, **shown, **times, "decision_id": decision})
        return {
            "id": self.id,
            "status": self.status_at(now),
            "plan": {**self.plan, "steps": steps},
            "plan_digest": f"sha256:{digest(self.plan).hex()}",
            "created_at": clock.rfc3339(self.created_at),
            "created_by": self.created_by,
            "expires_at": clock.rfc3339(self.created_at + plans.LIFE),
            "approval_id": self.approval or None,
            "trace_id": self.trace_id,
            "version": self.version,
        }

    def step(self, n: int, **changes: Any) -> Mitigation:
        """With step n changed, one version on."""
        steps = tuple({**one, **changes} if i == n else one for i, one in enumerate(self.steps))
        return replace(self, steps=steps, version=self.version + 1)


def batch_of(mitigation_id: str) -> str:
    """Under which name the decisions of a mitigation are kept."""
    return "dec_" + mitigation_id.removeprefix("mit_")


@dataclass(frozen=True, slots=True)
class Effect:
    """What a step does inside Tocsin: "open" (a quarantine), "release" (one by id), "revoke" (a key by public id)."""

    kind: str
    quarantine: Quarantine | None = None
    name: str = ""


class MitigationStore(Protocol):
    """Mitigations, their decisions and what they do to Tocsin's own tables."""

    def get(self, project: str, mitigation_id: str) -> Mitigation | None: ...

    def page(self, project: str, position: str | None, limit: int) -> tuple[Sequence[Mitigation], str | None]:
        """Newest first, and where the next page begins (None at the end)."""
        ...

    def named(self, project: str, name: str) -> Mitigation | None:
        """The last mitigation of this name."""
        ...

    def create(self, made: Mitigation, planned: Planned, instead_of: str, now: int) -> bool:
        """Keep a new one and its decisions, unless another one than `instead_of` ("": none) has its name by now."""
        ...

    def save(self, after: Mitigation, expected: int, effect: Effect | None, now: int) -> str:
        """In one transaction: the mitigation over version `expected`, its evidence, and the effect. "done"; "moved"
        when the version is another one; or why the effect cannot be.
        """
        ...


class Herald(Protocol):
    """Tells people and their systems."""

    def tell(self, made: Mitigation, n: int, undo: bool, now: int) -> str:
        """Tell of step n, or of its undoing; again is the same notice. What came of it in words. Raises Retry."""
        ...


class Mitigations:
    """Plans, applies, undoes. `conditions` looks at a project for the keys that are spoken of, and the caller's own."""

    def __init__(
        self,
        store: MitigationStore,
        herald: Herald,
        conditions: Callable[[str, frozenset[str], str], Conditions],
    ) -> None:
        self._store, self._herald, self._conditions = store, herald, conditions

    def get(self, project: str, mitigation_id: str) -> Mitigation:
        """One mitigation, else 404."""
        found = self._store.get(project, mitigation_id)
        if found is None:
            raise Refusal("ERR_NOT_FOUND", "There is no such mitigation.")
        return found

    def page(self, project: str, position: str | None, limit: int) -> tuple[Sequence[Mitigation], str | None]:
        return self._store.page(project, position, limit)

    def plan(self, project: str, facts: Facts, by: str, trace_id: str, now: int) -> tuple[Mitigation, bool]:
        """The mitigation of these facts, and whether it is new. One that is under way, or holds, is met again."""
        spoken = frozenset(one.target[1] for one in facts.seen if one.target and one.target[0] == "key")
        planned = plans.plan(facts, self._conditions(project, spoken, by))
        made = Mitigation(
            id=new_id("mit", now),
            project=project,
            plan=planned.plan,
            steps=tuple({"status": "planned"} for _ in planned.plan["steps"]),
            decided=tuple(
                {"receipt": one.receipt, "request": one.request, "health": health}
                for one, health in zip(planned.decided, planned.healths, strict=True)
            ),
            created_at=now,
            created_by=by,
            trace_id=trace_id,
        )
        for _ in range(_TRIES):
            known = self._store.named(project, made.name)
            if known is not None and known.status_at(now) not in _OVER:
                return known, False
            if self._store.create(made, planned, known.id if known else "", now):
                return made, True
        raise Retry("others plan the same")

    def apply(self, made: Mitigation, now: int, approval: str = "") -> Mitigation:
        """Carry a plan out, or go on with one whose worker died. One that was applied is answered as it is.

        Refuses ERR_APPROVAL_REQUIRED a plan of consequence without its approval, which the caller has spent on this
        very request; ERR_CONFLICT one that is over.
        """
        status = made.status_at(now)
        if status == "applied" or (status == "applying" and made.until > now):
            return made
        if status not in ("planned", "approved", "applying"):
            raise _conflict(f"The mitigation is {status}.", "let a new one be planned at POST /v1/defend")
        if made.plan["approval"] and status == "planned":
            if not approval:
                raise approval_required(made)
            made = replace(made, status="approved", approval=approval, version=made.version + 1)
            if self._store.save(made, made.version - 1, None, now) != "done":
                raise _conflict("Somebody else was first.", "read the mitigation again")
        return self._run(made, now, undo=False)

    def rollback(self, made: Mitigation, now: int) -> Mitigation:
        """Undo what was done, last step first; withdraw what was only planned. Again is harmless."""
        status = made.status_at(now)
        if status == "rolled_back" or (status in ("applying", "rolling_back") and made.until > now):
            return made
        return self._run(made, now, undo=True)

    def _run(self, made: Mitigation, now: int, *, undo: bool) -> Mitigation:
        """Claim the mitigation and take its steps one by one, each under the version that the one before left."""
        going, gone = ("rolling_back", "rolled_back") if undo else ("applying", "applied")
        mine = replace(made, status=going, until=now + LEASE_MS, version=made.version + 1)
        if self._store.save(mine, made.version, None, now) != "done":
            return self.get(made.project, made.id)
        order = range(len(mine.steps))
        for n in reversed(order) if undo else order:
            if mine.steps[n]["status"] != ("applied" if undo else "planned"):
                continue
            moved = self._take(mine, n, now, undo=undo)
            if moved is None:
                return self.get(made.project, made.id)
            mine = moved
            if mine.steps[n]["status"] == "failed":
                gone = "failed"
                break
        done = replace(mine, status=gone, until=0, version=mine.version + 1)
        if self._store.save(done, mine.version, None, now) != "done":
            return self.get(made.project, made.id)
        return done

    def _take(self, mine: Mitigation, n: int, now: int, *, undo: bool) -> Mitigation | None:
        """Take one step, or take it back; None when somebody else owns the mitigation by now."""
        planned = mine.plan["steps"][n]
        responder, target, outcome = planned["responder"], planned["target"], "done"
        effect, ends_at = None, None
        held = derived_id("qua", mine.created_at, mine.project, mine.id, str(n))
        if responder in ("quarantine", "rate-limit"):
            if undo:
                effect = Effect("release", name=held)
            else:
                ends_at = now + planned["minutes"] * clock.MINUTE
                effect = Effect("open", quarantine=_entry(mine, planned, held, now, ends_at))
        elif responder == "revoke-key" and not undo:
            effect = Effect("revoke", name=target["name"])
        elif responder != "watch":
            outcome = self._herald.tell(mine, n, undo, now)
            ends_at = now + planned["minutes"] * clock.MINUTE if planned["minutes"] else None
        at = {"status": "rolled_back" if undo else "applied", "outcome": outcome, "at": now}
        after = mine.step(n, **at, **({} if undo else {"ends_at": ends_at}))
        answer = self._store.save(after, mine.version, effect, now)
        if answer == "done":
            return after
        if answer == "moved":
            return None
        failed = mine.step(n, status="failed", outcome=answer, at=now)
        return failed if self._store.save(failed, mine.version, None, now) == "done" else None

    def certificate(self, made: Mitigation, n: int, form: str) -> Json:
        """Why step n is whose it is: certificate, snapshot and health document, for the independent checkers.

        Refuses ERR_NOT_FOUND a step that the plan does not have, and a plan of responders that are not these.
        """
        if not 0 <= n < len(made.decided):
            raise Refusal("ERR_NOT_FOUND", "The plan has no such step.")
        kept, engine = made.decided[n], plans.engine()
        if kept["receipt"]["snapshot"] != engine.snapshot.name:
            raise Refusal("ERR_NOT_FOUND", "The responders changed since; ask for the decision by its id.")
        request, health = routing.Request(kept["request"]), routing.health_of(kept["health"])
        receipt = certificates.receipt_of(kept["receipt"])
        return {
            "decision_id": made.decision_ids[n],
            "form": form,
            "certificate": _text(certificates.derive(receipt, engine, request, health, form)),
            "snapshot": _text(certificates.context(engine, form)),
            "health": _text(certificates.health_document(health)),
        }


def _text(data: bytes) -> str:
    return data.decode("utf-8")


def _entry(mine: Mitigation, planned: Mapping[str, Any], held: str, now: int, until: int) -> Quarantine:
    return Quarantine(
        id=held,
        kind=planned["target"]["kind"],
        name=planned["target"]["name"],
        reason=f"{mine.plan['title']} ({mine.plan['playbook']}, {mine.plan['tier']})"[:MAX_REASON],
        created_at=now,
        until=until,
        created_by=mine.created_by,
        per_second=1 if planned["responder"] == "rate-limit" else 0,
        mitigation=mine.id,
    )


def _conflict(message: str, fix: str) -> Refusal:
    return Refusal("ERR_CONFLICT", message, [Detail("id", "status", fix)])


def approval_required(made: Mitigation) -> Refusal:
    """What an unapproved plan of consequence is answered with."""
    wanted = f'{{"request": {{"method": "POST", "path": "/v1/mitigations/{made.id}/apply"}}}}'
    fix = f"send {wanted} to POST /v1/approvals, let a second person approve it, and send its id in X-Approval"
    detail = Detail("x-approval", "second-person", fix)
    return Refusal("ERR_APPROVAL_REQUIRED", "This plan needs a second person's approval.", [detail])
