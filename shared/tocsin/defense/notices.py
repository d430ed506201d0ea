"""Notices: something is to be told, and the decision engine says by which channel.

A project's channels are offered to the engine as services: what they cost, how fast they are, and that those that are
disabled or failing are down. A notice asks for one decision per kind of channel it names, or for one whatever the kind.
From there on it is a notification like any other: record, push budget, outbox, signed delivery, retries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tocsin.decisions import certificates, contracts, routing
from tocsin.decisions.ports import Decided, decision_ids
from tocsin.decisions.routing import Engine, Health
from tocsin.defense.mitigations import Mitigation
from tocsin.defense.plans import engine_of
from tocsin.defense.ports import Json
from tocsin.delivery.model import NOTICE, Channel, NotificationRecord
from tocsin.delivery.ports import ChannelStore
from tocsin.kernel import clock
from tocsin.kernel.ids import new_id

#: Kinds of channels, and what a notice over one costs (pUSD), takes (µs) and how often it fails (ppb), as declared.
PROMISES: Final = {
    "email": {"cost_pusd": 100_000_000, "latency_us": 30_000_000, "error_ppb": 10_000_000, "trust": 70},
    "webhook": {"cost_pusd": 2_000_000, "latency_us": 10_000_000, "error_ppb": 20_000_000, "trust": 60},
}
PRINCIPAL: Final = "system:notify"
_TEXT: Final = {
    "type": "object",
    "properties": {"title": {"type": "string", "maxLength": 200}, "text": {"type": "string", "maxLength": 2000}},
    "required": ["text", "title"],
}


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told: `about` names it (a notice or a mitigation), `seq` tells several about one thing apart, `data` is
    what webhooks get besides. `by` are the kinds of channels, each of which is told; none means one of any kind.
    """

    project: str
    about: str
    seq: int
    title: str
    text: str
    tier: str
    trace_id: str
    by: tuple[str, ...] = ()
    data: Json | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """One decision of a notice: the kind that was asked for ("" for any), its proof, and the notification, or None when
    no channel could be chosen.
    """

    by: str
    decision_id: str
    proof: Json
    record: NotificationRecord | None

    def as_json(self) -> Json:
        """Public form."""
        chosen = self.record and {
            "id": self.record.id,
            "channel_id": self.record.channel_id,
            "decision": self.record.decision,
            "reason": self.record.detail or self.record.reason,
        }
        return {"by": self.by or None, "decision_id": self.decision_id, "notification": chosen, **self.proof}


def engine_for(channels: Sequence[Channel]) -> tuple[Engine, Health]:
    """An engine over a project's channels, and which of them are down."""
    offered, down = [], {}
    for channel in channels:
        sent = {
            "name": channel.id,
            "version": 1,
            "capabilities": ["notify", f"notify.{channel.kind}"],
            "input": _TEXT,
            "output": {"type": "object"},
            "scopes": [],
            "data_class": {"level": "confidential", "tags": []},
            "deterministic": False,
            "lease_ms": 60_000,
            **PROMISES[channel.kind],
        }
        made = contracts.moved(contracts.validate(sent, channel.created_at), "active", channel.created_at, 0)
        offered.append(made)
        if not channel.enabled or channel.failing_since is not None:
            down[contracts.service_id(made)] = "failing" if channel.enabled else "disabled"
    return engine_of(offered), Health(0, down)


class Keep(Protocol):
    """Port: keeps decisions where their certificates are derived from."""

    def __call__(self, project: str, batch_id: str, engine: Engine, decided: Sequence[Decided], health: Health) -> None:
        """Keep decisions that were made together by one snapshot and one health document."""


class Notices:
    """Chooses and posts. `post` claims a record and leaves its delivery to the outbox; `keep` keeps the decisions."""

    def __init__(
        self,
        channels: ChannelStore,
        post: Callable[[NotificationRecord, Channel], NotificationRecord],
        keep: Keep = lambda *_: None,
    ) -> None:
        self._channels, self._post, self._keep = channels, post, keep

    def send(self, notice: Notice, now: int) -> list[Told]:
        """Tell whom the decisions name; again, under the same `about` and `seq`, is the same notification."""
        channels = self._channels.get_all(notice.project)
        engine, health = engine_for(channels)
        by_id = {channel.id: channel for channel in channels}
        kinds = notice.by or ("",)
        requests = [self._request(notice, kind) for kind in kinds]
        receipts = [engine.decide(request, health) for request in requests]
        batch = new_id("dec", now)
        decided = [Decided(one.document(), request.document) for one, request in zip(receipts, requests, strict=True)]
        self._keep(notice.project, batch, engine, decided, health)
        told: list[Told] = []
        for name, kind, request, receipt in zip(
            decision_ids(batch, len(kinds)), kinds, requests, receipts, strict=True
        ):
            record = None
            if receipt.decision is not None:
                channel = by_id[receipt.decision.name]
                record = self._post(self._record(notice, channel, now), channel)
            proof = {
                "certificate": certificates.derive(receipt, engine, request, health, "short").decode(),
                "snapshot": certificates.context(engine, "short").decode(),
                "health": certificates.health_document(health).decode(),
            }
            told.append(Told(kind, name, proof, record))
        return told

    @staticmethod
    def _request(notice: Notice, kind: str) -> routing.Request:
        return routing.request_of(
            {
                "principal": PRINCIPAL,
                "capabilities": [f"notify.{kind}" if kind else "notify"],
                "input": _TEXT,
                "scopes": [],
                "data_class": {"level": "confidential", "tags": []},
                "profile": "safe" if notice.tier in ("high", "critical") else "cheap",
            }
        )

    @staticmethod
    def _record(notice: Notice, channel: Channel, now: int) -> NotificationRecord:
        said: dict[str, Any] = {"title": notice.title, "text": notice.text, "tier": notice.tier, "about": notice.about}
        return NotificationRecord(
            project=notice.project,
            incident_id=notice.about,
            seq=notice.seq,
            kind=NOTICE,
            channel_id=channel.id,
            decision="pending",
            created_at=now,
            tier=notice.tier,
            trace_id=notice.trace_id,
            payload={"at": now, "data": {"notice": said, **(notice.data or {})}},
        )


class MitigationHerald:
    """Tells of a mitigation's steps; implements tocsin.defense.mitigations.Herald."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices

    def tell(self, made: Mitigation, n: int, undo: bool, now: int) -> str:
        """What is asked of webhooks and told to people, by the plan's own words."""
        step = made.plan["steps"][n]
        outside = step["responder"] in ("block", "isolate")
        target = f"{step['target']['kind']} {step['target']['name']}"
        does = step["rollback"] if undo else step["does"]
        ends = f" for {step['minutes']} minutes" if step["minutes"] and not undo else ""
        asked = {
            "id": made.id,
            "step": n,
            "action": f"un{step['responder']}" if undo else step["responder"],
            "target": step["target"],
            "until": clock.rfc3339(now + step["minutes"] * clock.MINUTE) if ends else None,
            "decision_id": made.decision_ids[n],
        }
        notice = Notice(
            project=made.project,
            about=made.id,
            seq=2 * n + undo,
            title=f"{made.plan['title']}: {step['responder']} {target}{' is undone' if undo else ''}",
            text=f"{does} Target: {target}{ends}. Mitigation {made.id}, step {n}.",
            tier=made.plan["tier"],
            trace_id=made.trace_id,
            by=("webhook",) if outside else tuple(step["by"]),
            data={"mitigation": asked},
        )
        told = [one for one in self._notices.send(notice, now) if one.record is not None]
        return "told " + ", ".join(f"{one.record.channel_id}" for one in told if one.record) if told else "told nobody"
