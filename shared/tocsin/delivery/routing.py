"""Which channels hear of a transition: an ordered list of rules, and an explanation of every step of the
answer.

Rules look at structured facts only (tier, kind, names, tags), never at titles or texts, so nothing an event
says can change where it goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tocsin.delivery.model import KINDS, TIERS, Channel, Json, PushBudget, Transition, refuse
from tocsin.kernel.errors import Detail

MAX_RULES: Final = 100
MAX_VALUES: Final = 100
_LISTS: Final = ("tiers", "kinds", "services", "sources", "entities")
_RULE_FIELDS: Final = frozenset({"name", "when", "channels", "continue", "mute", "reason"})


@dataclass(frozen=True, slots=True)
class When:
    """Conditions of a rule; all that are given must hold, and within a list any value does.

    A value of services, sources, entities or tags that ends in `*` stands for everything with that beginning.
    """

    tiers: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. No `channels` means every channel. The first match ends the search unless `proceed` is set.

    `mute` withholds what the rule's channels would get, with `reason`, and wins over any other match.
    """

    name: str
    when: When
    channels: tuple[str, ...] = ()
    proceed: bool = False
    mute: bool = False
    reason: str | None = None

    def as_json(self) -> Json:
        when: Json = {name: list(getattr(self.when, name)) for name in _LISTS if getattr(self.when, name)}
        if self.when.tags:
            when["tags"] = {key: list(values) for key, values in self.when.tags.items()}
        return {
            "name": self.name,
            "when": when,
            "channels": list(self.channels),
            "continue": self.proceed,
            "mute": self.mute,
            "reason": self.reason,
        }


#: What happens while a project has no document of its own.
DEFAULT_RULE: Final = Rule(
    name="default",
    when=When(tiers=("medium", "high", "critical"), kinds=("opened", "escalated", "reopened", "resolved")),
)


@dataclass(frozen=True, slots=True)
class Routing:
    """A project's document. `version` counts its writes and is 0 for the built-in default."""

    rules: tuple[Rule, ...] = (DEFAULT_RULE,)
    budget: PushBudget | None = None
    version: int = 0

    def as_json(self) -> Json:
        return {
            "version": self.version,
            "rules": [rule.as_json() for rule in self.rules],
            "budget": self.budget.as_json() if self.budget else None,
        }


@dataclass(frozen=True, slots=True)
class Check:
    """One condition held against one transition."""

    condition: str
    wanted: tuple[str, ...]
    actual: tuple[str, ...]
    ok: bool

    def as_json(self) -> Json:
        return {
            "condition": self.condition,
            "wanted": list(self.wanted),
            "actual": list(self.actual),
            "ok": self.ok,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What routing says of one channel. `withheld` is None when the channel is to be told."""

    channel: Channel
    rule: str | None
    withheld: str | None = None
    detail: str | None = None

    def silenced(self, why: str) -> Verdict:
        """The verdict when a silence covers what it would tell."""
        return replace(self, withheld="silenced", detail=why)

    @property
    def account(self) -> str | None:
        """The sentence kept with the record: which rule, and what it says."""
        named = None if self.rule is None else f"rule {self.rule!r}"
        return ": ".join(part for part in (named, self.detail) if part) or None


def _matches(wanted: str, actual: str) -> bool:
    return actual.startswith(wanted[:-1]) if wanted.endswith("*") else actual == wanted


def _any(wanted: Iterable[str], actual: Collection[str]) -> bool:
    return any(_matches(want, have) for want in wanted for have in actual)


def check(when: When, transition: Transition) -> list[Check]:
    """Every given condition with what it wanted and what it met, in the order of the document."""
    actual = {
        "tiers": (transition.tier,),
        "kinds": (transition.kind,),
        "services": transition.services,
        "sources": transition.sources,
        "entities": transition.entities,
    }
    checks = []
    for name in _LISTS:
        wanted = getattr(when, name)
        if wanted:
            checks.append(Check(name, wanted, actual[name], _any(wanted, actual[name])))
    for key, values in when.tags.items():
        have = tuple(sorted(transition.tags.get(key, ())))
        checks.append(Check(f"tags.{key}", values, have, _any(values, have)))
    return checks


def matching(routing: Routing, transition: Transition) -> list[Rule]:
    """The rules that apply, in order: up to and including the first match that does not continue."""
    found = []
    for rule in routing.rules:
        if all(item.ok for item in check(rule.when, transition)):
            found.append(rule)
            if not rule.proceed:
                break
    return found


def plan(routing: Routing, channels: Sequence[Channel], transition: Transition) -> list[Verdict]:
    """Who is told and who is not, with the reason.

    A channel nobody asked for is absent, with one exception: when a transition that the default rule would
    tell reaches no channel at all, every enabled channel is listed as withheld by routing, so that silence is
    on the account.
    """
    verdicts: dict[str, Verdict] = {}
    for rule in matching(routing, transition):
        for channel in channels:
            if rule.channels and channel.id not in rule.channels:
                continue
            if not channel.enabled:
                if channel.id in rule.channels:
                    verdicts.setdefault(channel.id, Verdict(channel, rule.name, "disabled", channel.disabled_reason))
            elif rule.mute:
                verdicts[channel.id] = Verdict(channel, rule.name, "muted", rule.reason)
            else:
                verdicts.setdefault(channel.id, Verdict(channel, rule.name))
    if not verdicts and all(item.ok for item in check(DEFAULT_RULE.when, transition)):
        return [Verdict(channel, None, "routing") for channel in channels if channel.enabled]
    return list(verdicts.values())


def dry_run(routing: Routing, channels: Sequence[Channel], transition: Transition) -> Json:
    """What would happen to a transition and why, rule by rule and condition by condition. Nothing is sent or
    kept.
    """
    applied = {id(rule) for rule in matching(routing, transition)}
    stopped = False
    rules = []
    for rule in routing.rules:
        checks = check(rule.when, transition)
        rules.append(
            {
                "rule": rule.name,
                "matched": all(item.ok for item in checks),
                "applied": id(rule) in applied,
                "reached": not stopped,
                "conditions": [item.as_json() for item in checks],
            }
        )
        stopped = stopped or (id(rule) in applied and not rule.proceed)
    return {
        "routing_version": routing.version,
        "rules": rules,
        "channels": [
            {
                "channel_id": verdict.channel.id,
                "name": verdict.channel.name,
                "decision": "withheld" if verdict.withheld else "push",
                "reason": verdict.withheld,
                "detail": verdict.detail,
                "rule": verdict.rule,
            }
            for verdict in plan(routing, channels, transition)
        ],
    }


def parse_routing(document: Any, known_channels: Collection[str], version: int) -> Routing:
    """A document as a client sends it: {"rules": [...], "budget"?: {...}}. Refuses ERR_SCHEMA with every
    broken rule.

    `version` is the number the parsed document will carry; a `version` member of the document itself is
    ignored here, the store's condition decides.
    """
    details: list[Detail] = []
    if not isinstance(document, Mapping) or not isinstance(document.get("rules"), list):
        raise refuse(
            [Detail("rules", "is required and must be a list", 'send {"rules": [...]}')],
            "not a routing document",
        )
    for name in sorted(set(document) - {"rules", "budget", "version"}):
        details.append(Detail(str(name)[:64], "is not a field of a routing document", "remove it"))
    if len(document["rules"]) > MAX_RULES:
        details.append(Detail("rules", f"holds more than {MAX_RULES} rules", "merge rules"))
    rules = [
        _rule(item, f"rules[{index}]", known_channels, details)
        for index, item in enumerate(document["rules"][:MAX_RULES])
    ]
    names = [rule.name for rule in rules]
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        details.append(Detail("rules", f"two rules are named {name[:64]!r}", "give each rule its own name"))
    budget = parse_budget(document["budget"], "budget", details) if document.get("budget") is not None else None
    if details:
        raise refuse(details, "the routing document breaks the rules listed in details")
    return Routing(tuple(rules), budget, version)


def stored_routing(document: Mapping[str, Any], version: int) -> Routing:
    """A document that was accepted before. Channels it names may be gone since; they are simply not there to
    be told.
    """
    named = {channel for rule in document["rules"] for channel in rule["channels"]}
    return parse_routing(document, named, version)


def parse_budget(value: Any, path: str, details: list[Detail]) -> PushBudget:
    """{"per_hour": 1..3600, "burst": 1..1000}; what is wrong is added to `details`."""
    if not isinstance(value, Mapping) or set(value) != {"per_hour", "burst"}:
        details.append(Detail(path, "must be an object of per_hour and burst", 'send {"per_hour": 60, "burst": 20}'))
        return PushBudget()
    for name, most in (("per_hour", 3600), ("burst", 1000)):
        number = value[name]
        if type(number) is not int or not 1 <= number <= most:
            details.append(
                Detail(f"{path}.{name}", f"must be an integer from 1 to {most}", "send a number in that range")
            )
    return PushBudget() if details else PushBudget(value["per_hour"], value["burst"])


def _rule(item: Any, path: str, known: Collection[str], details: list[Detail]) -> Rule:
    if not isinstance(item, Mapping):
        details.append(Detail(path, "must be an object", "send {name, when, channels}"))
        return Rule("", When())
    for name in sorted(set(item) - _RULE_FIELDS):
        details.append(Detail(f"{path}.{str(name)[:64]}", "is not a field of a rule", "remove it"))
    name = item.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 80 or not name.isprintable():
        details.append(Detail(f"{path}.name", "must be 1 to 80 printable characters", "name the rule"))
        name = ""
    for flag in ("continue", "mute"):
        if not isinstance(item.get(flag, False), bool):
            details.append(Detail(f"{path}.{flag}", "must be true or false", "send a boolean"))
    channels = _strings(item.get("channels", []), f"{path}.channels", details)
    for channel_id in channels:
        if channel_id not in known:
            details.append(Detail(f"{path}.channels", f"no channel {channel_id[:64]!r}", "name an existing channel"))
    reason = item.get("reason")
    if reason is not None and (not isinstance(reason, str) or not 1 <= len(reason) <= 200 or not reason.isprintable()):
        details.append(Detail(f"{path}.reason", "must be 1 to 200 printable characters", "shorten the reason"))
        reason = None
    if item.get("mute") is True and reason is None:
        details.append(Detail(f"{path}.reason", "is required when mute is true", "say why this is muted"))
    return Rule(
        name=name,
        when=_when(item.get("when", {}), f"{path}.when", details),
        channels=channels,
        proceed=item.get("continue") is True,
        mute=item.get("mute") is True,
        reason=reason,
    )


def _when(value: Any, path: str, details: list[Detail]) -> When:
    if not isinstance(value, Mapping):
        details.append(Detail(path, "must be an object", "send {} to match everything"))
        return When()
    for name in sorted(set(value) - {*_LISTS, "tags"}):
        details.append(
            Detail(f"{path}.{str(name)[:64]}", "is not a condition", f"use one of {', '.join(_LISTS)}, tags")
        )
    lists = {name: _strings(value.get(name, []), f"{path}.{name}", details) for name in _LISTS}
    for name, allowed in (("tiers", TIERS), ("kinds", KINDS)):
        for item in lists[name]:
            if item not in allowed:
                details.append(Detail(f"{path}.{name}", f"{item[:32]!r} is unknown", f"use {', '.join(allowed)}"))
    tags = value.get("tags", {})
    if not isinstance(tags, Mapping) or len(tags) > 50:
        details.append(Detail(f"{path}.tags", "must be an object of at most 50 keys", 'send {"team": ["db"]}'))
        tags = {}
    return When(
        **lists,
        tags={
            str(key): _strings([item] if isinstance(item, str) else item, f"{path}.tags.{str(key)[:64]}", details)
            for key, item in tags.items()
        },
    )


def _strings(value: Any, path: str, details: list[Detail]) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) > MAX_VALUES
        or not all(isinstance(item, str) and 1 <= len(item) <= 256 for item in value)
    ):
        details.append(Detail(path, f"must be a list of at most {MAX_VALUES} strings", "send a list of strings"))
        return ()
    return tuple(dict.fromkeys(value))
