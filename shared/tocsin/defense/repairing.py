"""Which repair a finding gets: a decision over the healers (healers.json), with a certificate.

Every healer is a contract: what kinds of targets it heals (its capabilities), which findings it takes (its input), what
it costs. People are one of them, the dearest, so they are asked when nobody else can help. A healer that cannot help
here and now is down in the health document: `unable` when it has no hand on this very target, `spent` when it was used
too often lately.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from tocsin.decisions import certificates, contracts, routing
from tocsin.decisions.routing import Engine, Health
from tocsin.defense.plans import engine_of
from tocsin.defense.ports import Json

PAGE: Final = "page"
PRINCIPAL: Final = "system:supervise"
_SINCE_MS: Final = 1


@lru_cache(maxsize=1)
def engine() -> Engine:
    """Decides among the healers."""
    registered = []
    for healer in json.loads((Path(__file__).parent / "healers.json").read_text("utf-8")):
        sent = {
            "name": healer["name"],
            "version": 1,
            "capabilities": [f"heal.{kind}" for kind in healer["heals"]],
            "input": {
                "type": "object",
                "properties": {"finding": {"enum": healer["findings"]}},
                "required": ["finding"],
            },
            "output": {"type": "object"},
            "scopes": [],
            "data_class": {"level": "internal", "tags": []},
            "trust": healer["trust"],
            "cost_pusd": healer["cost_pusd"],
            "latency_us": healer["latency_us"],
            "error_ppb": 0,
            "deterministic": True,
            "lease_ms": 30_000,
        }
        registered.append(contracts.moved(contracts.validate(sent, _SINCE_MS), "active", _SINCE_MS, 0))
    return engine_of(registered)


@lru_cache(maxsize=1)
def healers() -> tuple[str, ...]:
    return tuple(contract["name"] for contract in engine().snapshot.contracts)


@dataclass(frozen=True, slots=True)
class Choice:
    """Who heals, and by which request and health document that was decided."""

    healer: str
    request: routing.Request
    health: Health

    def proof(self) -> Json:
        """The decision with all that a checker needs, in short form."""
        receipt = engine().decide(self.request, self.health)
        return {
            "healer": self.healer,
            "certificate": certificates.derive(receipt, engine(), self.request, self.health, "short").decode(),
            "snapshot": certificates.context(engine(), "short").decode(),
            "health": certificates.health_document(self.health).decode(),
        }


def choose(kind: str, finding: str, down: Mapping[str, str]) -> Choice:
    """Who heals a finding of a kind of target while these healers are down, and why. People can always be asked."""
    request = routing.request_of(
        {
            "principal": PRINCIPAL,
            "capabilities": [f"heal.{kind}"],
            "input": {"type": "object", "properties": {"finding": {"const": finding}}, "required": ["finding"]},
            "scopes": [],
            "data_class": {"level": "internal", "tags": []},
            "profile": "cheap",
        }
    )
    health = Health(0, {f"{name}@1": why for name, why in down.items()})
    decision = engine().decide(request, health).decision
    return Choice(decision.name if decision else PAGE, request, health)
