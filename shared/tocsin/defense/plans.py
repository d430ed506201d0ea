"""Plans: from what was seen to who does what about it, chosen by the decision engine, equal bytes for equal inputs.

A **playbook** (playbooks/*.toml, with its cases beside it) says what is needed and on what, never who does it. The
first one, by `order`, whose conditions hold is used. Each thing it names becomes a request to the decision engine,
which chooses among the **responders** (responders/*.json), contracts in a snapshot like any other. A responder that
cannot act on this very thing now (no room, no webhook, nobody's key) is down in the health document, with the reason.
So the plan is a function of facts, conditions and snapshot, and each of its steps has a certificate.
"""

from __future__ import annotations

import fnmatch
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from tocsin.decisions import contracts, policies, routing, snapshots
from tocsin.decisions.ports import Decided
from tocsin.decisions.routing import Engine, Health
from tocsin.defense.ports import Json
from tocsin.kernel import clock

TIERS: Final = ("info", "low", "medium", "high", "critical")
#: What an event accuses is its entity; by its type it is one of these kinds. Anything else (a service, a queue) is
#: somebody's own thing, which is watched and told of but not acted on. Who reports is never acted on.
ENTITY_KINDS: Final[Mapping[str, str]] = {
    "key": "key",
    "source": "source",
    **dict.fromkeys(("ip", "address"), "address"),
    **dict.fromkeys(("host", "node", "instance"), "host"),
    **dict.fromkeys(("user", "enduser", "customer", "person", "account", "session", "device", "bot"), "entity"),
}
TARGETS: Final = ("source", "entity", "key", "address", "host", "incident")
#: Things of one kind that one step may be about; what is more is left to people.
MAX_TARGETS: Final = 5
#: How long a plan waits for its approval, in ms.
LIFE: Final = 24 * clock.HOUR
#: Who asks the engine.
PRINCIPAL: Final = "system:defend"
#: Promises of a responder that differ by what it is used on are declared once, so they date from here.
_REGISTERED_MS: Final = 1
_HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Seen:
    """One scored event, as far as plans care. `target` is what it accuses, as kind and name, or None."""

    event_id: str
    type: str
    tier: str
    score: float
    target: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a plan is made of: `subject` names it (an incident's id, or the events' ids), `seen` are its events."""

    subject: Json
    seen: tuple[Seen, ...]
    tier: str
    score: float


def seen_of(event: Mapping[str, Any]) -> Seen:
    """A scored event as it is stored."""
    entity, target = event.get("entity"), None
    kind = ENTITY_KINDS.get(str(entity["type"]).lower()) if entity else None
    if entity and kind:
        target = kind, f"{entity['type']}:{entity['id']}" if kind == "entity" else str(entity["id"])
    return Seen(event["event_id"], event["type"], event["tier"], float(event["score"]), target)


def facts_of(subject: Json, events: Sequence[Mapping[str, Any]], tier: str = "", score: float | None = None) -> Facts:
    """Facts of scored events; of an incident with its own tier and score. The order of events does not matter."""
    seen = tuple(sorted((seen_of(event) for event in events), key=lambda one: one.event_id))
    loudest = max((one.tier for one in seen), key=TIERS.index, default="info")
    highest = max((one.score for one in seen), default=0.0) if score is None else score
    return Facts(subject, seen, tier or loudest, highest)


@dataclass(frozen=True, slots=True)
class Step:
    """What a playbook asks for: capabilities, on which kind of thing, how long; only from `tier` on."""

    needs: tuple[str, ...]
    on: str
    minutes: int
    tier: str
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Playbook:
    name: str
    order: int
    title: str
    types: tuple[str, ...]
    targets: tuple[str, ...]
    tier: str
    steps: tuple[Step, ...]

    def concerns(self, facts: Facts) -> tuple[Seen, ...]:
        """The events that it is about; none when it is not for this."""
        if TIERS.index(facts.tier) < TIERS.index(self.tier):
            return ()
        return tuple(
            one
            for one in facts.seen
            if (not self.types or any(fnmatch.fnmatchcase(one.type, pattern) for pattern in self.types))
            and (not self.targets or (one.target is not None and one.target[0] in self.targets))
        )


@dataclass(frozen=True, slots=True)
class Responder:
    """Somebody who can act: its contract, what its doing and undoing are in words, the risk by kind of thing, and the
    conditions it needs.
    """

    contract: contracts.Contract
    does: str
    undo: str
    risk: Mapping[str, str]
    needs: tuple[str, ...]

    def risk_on(self, kind: str) -> str:
        return self.risk.get(kind, self.risk["default"])


@lru_cache(maxsize=1)
def playbooks() -> tuple[Playbook, ...]:
    """All playbooks in the order in which they are tried."""
    found = []
    for path in (_HERE / "playbooks").glob("*.toml"):
        text = tomllib.loads(path.read_text("utf-8"))
        when = text["when"]
        steps = tuple(
            Step(
                tuple(step["needs"]),
                step["on"],
                step.get("minutes", 0),
                step.get("tier", "info"),
                tuple(step.get("by", ())),
            )
            for step in text["steps"]
        )
        types, targets = tuple(when.get("types", ())), tuple(when.get("targets", ()))
        tier = when.get("tier", "info")
        found.append(Playbook(path.stem, text["order"], text["title"], types, targets, tier, steps))
    return tuple(sorted(found, key=lambda one: (one.order, one.name)))


@lru_cache(maxsize=1)
def responders() -> Mapping[str, Responder]:
    """All responders by name."""
    found = {}
    for path in sorted((_HERE / "responders").glob("*.json")):
        text = json.loads(path.read_text("utf-8"))
        contract = contracts.moved(
            contracts.validate(text["contract"], _REGISTERED_MS), "active", _REGISTERED_MS, staleness_ms=0
        )
        found[contract["name"]] = Responder(contract, text["does"], text["undo"], text["risk"], tuple(text["needs"]))
    return found


@lru_cache(maxsize=1)
def engine() -> Engine:
    """Decides among the responders. Its snapshot's name changes with their files, and with nothing else."""
    return engine_of([one.contract for one in responders().values()])


def engine_of(registered: Sequence[contracts.Contract]) -> Engine:
    """An engine over contracts that Tocsin itself registers, whose policy leaves the choice to them."""
    policy = policies.validate(
        {
            "version": 1,
            "profiles": {name: dict(weights) for name, weights in policies.PROFILES.items()},
            "rules": [{"id": "registered", "effect": "permit", "when": ["value", True]}],
        }
    )
    return Engine(snapshots.edited(snapshots.EMPTY, snapshots.Edit(put=list(registered), policy=policy)))


@dataclass(frozen=True, slots=True)
class Conditions:
    """What responders depend on: whether the list of quarantines has room, whether any channel and any webhook works,
    which of the keys that are spoken of are the project's and good, and the caller's own.
    """

    room: bool
    channel: bool
    webhook: bool
    keys: frozenset[str]
    own_key: str

    def hold(self, need: str, kind: str, name: str) -> bool:
        """Whether one condition holds for one thing."""
        match need:
            case "room":
                return self.room
            case "channel":
                return self.channel
            case "webhook":
                return self.webhook
            case "known_key":
                return name in self.keys
            case "other_key":
                return kind != "key" or (name in self.keys and name != self.own_key)
        raise ValueError(f"unknown condition {need}")


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and for each of its steps the decision and the health document it was made by."""

    plan: Json
    decided: tuple[Decided, ...]
    healths: tuple[Json, ...]


def plan(facts: Facts, conditions: Conditions) -> Planned:
    """What is to be done. Depends on nothing but its arguments and the files of this room."""
    book, about = next((one, found) for one in playbooks() if (found := one.concerns(facts)) or not one.types)
    steps: list[Json] = []
    decided: list[Decided] = []
    healths: list[Json] = []
    unmet: list[Json] = []
    for step in book.steps:
        if TIERS.index(facts.tier) < TIERS.index(step.tier):
            continue
        targets = _targets(step.on, facts, about)
        for kind, name in targets[:MAX_TARGETS]:
            request, health = _request(step, kind, name, facts.tier), _health(kind, name, conditions)
            receipt = engine().decide(request, health)
            asked = {"needs": list(step.needs), "target": {"kind": kind, "name": name}}
            if receipt.decision is None:
                unmet.append({**asked, "why": "nobody who can do it may do it now"})
                continue
            decided.append(Decided(receipt.document(), request.document))
            healths.append(dict(health.document))
            steps.append(_step(len(steps), step, kind, name, receipt.decision.name, asked, conditions))
        if len(targets) > MAX_TARGETS:
            unmet.append(
                {"needs": list(step.needs), "target": None, "why": f"more than {MAX_TARGETS} of kind {step.on}"}
            )
    risk = "high" if any(one["risk"] == "high" for one in steps) else "low"
    made = {
        "v": 1,
        "playbook": book.name,
        "title": book.title,
        "subject": facts.subject,
        "tier": facts.tier,
        "risk_score": round(100 * facts.score),
        "snapshot": engine().snapshot.name,
        "risk": risk,
        "approval": risk == "high",
        "waits_s": LIFE // 1000,
        "steps": steps,
        "unmet": unmet,
    }
    return Planned(made, tuple(decided), tuple(healths))


def _targets(kind: str, facts: Facts, about: Sequence[Seen]) -> list[tuple[str, str]]:
    """Things of a kind, the loudest first."""
    if kind == "incident":
        subject = facts.subject.get("incident_id") or facts.subject["event_ids"][0]
        return [("incident", str(subject))]
    loudest: dict[str, float] = {}
    for one in about:
        if one.target and one.target[0] == kind:
            loudest[one.target[1]] = max(one.score, loudest.get(one.target[1], 0.0))
    return [(kind, name) for name in sorted(loudest, key=lambda name: (-loudest[name], name))]


def _request(step: Step, kind: str, name: str, tier: str) -> routing.Request:
    properties = {"kind": {"const": kind}, "name": {"const": name}, "minutes": {"const": step.minutes}}
    return routing.request_of(
        {
            "principal": PRINCIPAL,
            "capabilities": list(step.needs),
            "input": {"type": "object", "properties": properties, "required": sorted(properties)},
            "scopes": [],
            "data_class": {"level": "confidential", "tags": [f"tier.{tier}"]},
            "profile": "cheap",
        }
    )


def _health(kind: str, name: str, conditions: Conditions) -> Health:
    """Who cannot act on this thing now, by the first condition that fails."""
    down = {}
    for responder in responders().values():
        failing = [need for need in responder.needs if not conditions.hold(need, kind, name)]
        if failing:
            down[contracts.service_id(responder.contract)] = f"no_{failing[0]}"
    return Health(0, down)


def _step(n: int, step: Step, kind: str, name: str, chosen: str, asked: Json, conditions: Conditions) -> Json:
    responder = responders()[chosen]
    return {
        "n": n,
        **asked,
        "responder": chosen,
        "version": responder.contract["version"],
        "minutes": step.minutes,
        "by": list(step.by),
        "risk": responder.risk_on(kind),
        "does": responder.does,
        "preconditions": [{"name": need, "holds": conditions.hold(need, kind, name)} for need in responder.needs],
        "rollback": responder.undo,
    }
