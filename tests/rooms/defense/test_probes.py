"""Probes: they hold against refusals, say so where something gives way, and aim at the own stack only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.access_fakes import KeyRowsFake
from tests.support.api_fakes import caller, sample_tokens
from tocsin.defense import probes
from tocsin.defense.probes import PROBES, Aim, Reply
from tocsin.kernel.errors import Refusal

NOW = 1_800_000_000_000


class Stack:
    """Answers as a deployment that keeps its promises, but for what `broken` names."""

    def __init__(self, *broken: str) -> None:
        self.broken, self.sent = broken, list[tuple[str, str, bytes]]()
        self.stored: dict[str, Any] = {}

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.sent.append((method, path, body))
        if len(body) > 1_048_576:
            return Reply(413, "ERR_BODY_TOO_LARGE") if "size" not in self.broken else Reply(202)
        if "X-Api-Key" in headers or (method, path) == ("GET", "/v1/events"):
            return Reply(401, "ERR_AUTH_INVALID") if "keys" not in self.broken else Reply(200)
        if path == "/v1/channels":
            return Reply(400, "ERR_EGRESS_DENIED") if "egress" not in self.broken else Reply(201)
        if path in ("/v1/keys", "/v1/tokens"):
            return Reply(403, "ERR_SCOPE") if "scopes" not in self.broken else Reply(201)
        return self._events(json.loads(body))

    def _events(self, sent: Any) -> Reply:
        if isinstance(sent, dict) and sent["id"] == "p":
            return Reply(403, "ERR_SCOPE")
        items, refused = [], False
        for event in sent if isinstance(sent, list) else [sent]:
            known = self.stored.setdefault(event["id"], event)
            differs = known != event and "replay" not in self.broken
            refused |= differs
            items.append({"status": "refused" if differs else "accepted", "event_id": f"evt_{event['id']}"})
        return Reply(207 if refused else 202, "ERR_PARTIAL" if refused else "", items)


def report(stack: Stack, *names: str) -> tuple[dict[str, Any], list[tuple[str, bool]]]:
    kept: list[tuple[str, bool]] = []
    aim = Aim(caller(), "live", stack, lambda at: sample_tokens(KeyRowsFake()), NOW)
    made = probes.run(aim, names or list(PROBES), lambda run_id, probe: kept.append((probe["name"], probe["held"])))
    return made, kept


def test_a_deployment_that_keeps_its_promises_holds_and_every_probe_is_kept() -> None:
    made, kept = report(Stack())
    assert made["held"], made
    assert kept == [(name, True) for name in PROBES]


@pytest.mark.parametrize(
    ("broken", "probe"),
    [
        ("keys", "weak_key"),
        ("keys", "expired_token"),
        ("replay", "replay"),
        ("scopes", "scope_escalation"),
        ("size", "oversized_body"),
        ("egress", "egress_canary"),
    ],
)
def test_what_gives_way_is_named(broken: str, probe: str) -> None:
    made, kept = report(Stack(broken), probe)
    assert (made["held"], kept) == (False, [(probe, False)])
    assert not all(one["right"] for one in made["probes"][0]["met"])


def test_nothing_is_sent_for_a_probe_whose_scope_the_caller_lacks() -> None:
    stack = Stack()
    aim = Aim(caller("defend:run"), "live", stack, lambda at: sample_tokens(KeyRowsFake()), NOW)
    with pytest.raises(Refusal) as caught:
        probes.run(aim, ["weak_key", "replay"], lambda run_id, probe: None)
    assert (caught.value.code, stack.sent) == ("ERR_SCOPE", [])


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/",
        "https://api.example/live/../../other",
        "https://api.example/live@evil.example",
        "https://api.example.evil.example/live",
        "HTTPS://api.example/live",
        "https://api.example:443/live",
        "",
    ],
)
def test_no_other_target_is_aimed_at_however_it_is_spelled(target: str) -> None:
    with pytest.raises(Refusal) as caught:
        probes.check_target(target, "https://api.example/live")
    assert caught.value.code == "ERR_TARGET_DENIED"
    probes.check_target("https://api.example/live/", "https://api.example/live")
    probes.check_target(None, "https://api.example/live")
