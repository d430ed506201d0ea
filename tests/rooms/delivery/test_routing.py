"""Rules: order, continue, mute, the built-in default, the dry run's explanation, and what a document may
hold.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.delivery_fakes import fact, mailbox, webhook
from tocsin.delivery.model import TIERS, PushBudget, Transition
from tocsin.delivery.routing import DEFAULT_RULE, Routing, Rule, When, dry_run, parse_routing, plan
from tocsin.kernel.errors import Refusal

OPS, MAIL = webhook(), mailbox()
CHANNELS = [OPS, MAIL]
KNOWN = {OPS.id, MAIL.id}


def _transition(**summary: Any) -> Transition:
    return Transition.from_fact(fact(**summary))


def _answer(routing: Routing, transition: Transition) -> dict[str, str | None]:
    return {verdict.channel.id: verdict.withheld for verdict in plan(routing, CHANNELS, transition)}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("kind", ["opened", "escalated", "reopened", "resolved", "acknowledged", "merged"])
def test_the_default_tells_everybody_what_matters(tier: str, kind: str) -> None:
    transition = Transition.from_fact(fact(kind=kind, tier=tier))
    due = TIERS.index(tier) >= TIERS.index("medium") and kind not in ("acknowledged", "merged")
    assert _answer(Routing(), transition) == ({OPS.id: None, MAIL.id: None} if due else {})


def test_the_first_match_decides_unless_it_continues() -> None:
    first, second = Rule("a", When(tiers=("high",)), (OPS.id,)), Rule("b", When(), (MAIL.id,))
    assert _answer(Routing((first, second)), _transition()) == {OPS.id: None}
    onward = Rule("a", When(tiers=("high",)), (OPS.id,), proceed=True)
    assert _answer(Routing((onward, second)), _transition()) == {OPS.id: None, MAIL.id: None}
    assert _answer(Routing((first, second)), _transition(tier="low")) == {MAIL.id: None}


def test_a_mute_wins_over_a_match_before_it() -> None:
    push = Rule("all", When(), proceed=True)
    mute = Rule("hush", When(entities=("service:db-*",)), (MAIL.id,), mute=True, reason="planned")
    assert _answer(Routing((push, mute)), _transition()) == {OPS.id: None, MAIL.id: "muted"}


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        (When(tags={"team": ("db", "web")}), True),
        (When(tags={"team": ("web",)}), False),
        (When(tags={"env": ("pr*",)}), True),
        (When(tags={"region": ("eu",)}), False),
        (When(services=("checkout",), tiers=("low",)), False),
        (When(sources=("prom*",), kinds=("opened",)), True),
        (When(entities=("service:db-1",)), True),
        (When(entities=("db-1",)), False),
    ],
)
def test_conditions(when: When, holds: bool) -> None:
    answer = _answer(Routing((Rule("r", when),)), _transition())
    assert (answer == {OPS.id: None, MAIL.id: None}) is holds


def test_disabled_channels_are_named_only_when_a_rule_names_them() -> None:
    off = webhook("off", enabled=False, disabled_reason="gone")
    named = plan(Routing((Rule("r", When(), (off.id,)),)), [off], _transition())
    assert [(verdict.withheld, verdict.detail) for verdict in named] == [("disabled", "gone")]
    assert plan(Routing(), [off], _transition()) == []


def test_silence_is_on_the_account() -> None:
    nobody = Routing((Rule("r", When(services=("billing",))),))
    assert _answer(nobody, _transition()) == {OPS.id: "routing", MAIL.id: "routing"}
    assert _answer(nobody, _transition(tier="low")) == {}


def test_a_dry_run_says_which_condition_failed_and_why() -> None:
    routing = Routing(
        (
            Rule("billing", When(services=("billing",), tiers=("high",)), (OPS.id,)),
            Rule("db", When(tags={"team": ("db",)}), (MAIL.id,)),
            DEFAULT_RULE,
        ),
        version=7,
    )
    answer = dry_run(routing, CHANNELS, _transition())
    assert answer["routing_version"] == 7
    assert [(r["rule"], r["matched"], r["applied"], r["reached"]) for r in answer["rules"]] == [
        ("billing", False, False, True),
        ("db", True, True, True),
        ("default", True, False, False),
    ]
    assert answer["rules"][0]["conditions"] == [
        {"condition": "tiers", "wanted": ["high"], "actual": ["high"], "ok": True},
        {"condition": "services", "wanted": ["billing"], "actual": ["checkout"], "ok": False},
    ]
    assert answer["channels"] == [
        {
            "channel_id": MAIL.id,
            "name": "mail",
            "decision": "push",
            "reason": None,
            "detail": None,
            "rule": "db",
        }
    ]
    json.dumps(answer)


def test_a_document_survives_a_round_trip() -> None:
    document = {
        "rules": [
            {
                "name": "db",
                "when": {"tiers": ["high", "critical"], "tags": {"team": "db", "env": ["prod", "stage"]}},
                "channels": [OPS.id],
                "continue": True,
            },
            {"name": "night", "when": {}, "mute": True, "reason": "nobody home"},
        ],
        "budget": {"per_hour": 30, "burst": 5},
    }
    parsed = parse_routing(document, KNOWN, 3)
    assert parsed.budget == PushBudget(30, 5)
    assert parsed.rules[0].when.tags == {"team": ("db",), "env": ("prod", "stage")}
    assert parse_routing(parsed.as_json(), KNOWN, 3) == parsed


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], "rules"),
        ({"rules": {}}, "rules"),
        ({"rules": [], "extra": 1}, "extra"),
        ({"rules": ["x"]}, "rules[0]"),
        ({"rules": [{"name": "a"}, {"name": "a"}]}, "rules"),
        ({"rules": [{"when": {}}]}, "rules[0].name"),
        ({"rules": [{"name": "a\r\nb"}]}, "rules[0].name"),
        ({"rules": [{"name": "a", "when": []}]}, "rules[0].when"),
        ({"rules": [{"name": "a", "when": {"tier": ["high"]}}]}, "rules[0].when.tier"),
        ({"rules": [{"name": "a", "when": {"tiers": ["urgent"]}}]}, "rules[0].when.tiers"),
        ({"rules": [{"name": "a", "when": {"kinds": ["digest"]}}]}, "rules[0].when.kinds"),
        ({"rules": [{"name": "a", "when": {"tags": {"k": [1]}}}]}, "rules[0].when.tags.k"),
        ({"rules": [{"name": "a", "channels": ["chn_other"]}]}, "rules[0].channels"),
        ({"rules": [{"name": "a", "mute": True}]}, "rules[0].reason"),
        ({"rules": [{"name": "a", "mute": "yes"}]}, "rules[0].mute"),
        ({"rules": [{"name": "a", "continue": 1}]}, "rules[0].continue"),
        ({"rules": [], "budget": {"per_hour": 0, "burst": 1}}, "budget.per_hour"),
        ({"rules": [], "budget": {"per_hour": True, "burst": 1}}, "budget.per_hour"),
        ({"rules": [], "budget": 5}, "budget"),
        ({"rules": [{"name": f"r{i}"} for i in range(101)]}, "rules"),
    ],
)
def test_a_broken_document_is_refused_with_the_field(document: Any, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_routing(document, KNOWN, 1)
    assert refused.value.status == 400
    assert field in [detail.field for detail in refused.value.details]
    assert all(detail.fix for detail in refused.value.details)
