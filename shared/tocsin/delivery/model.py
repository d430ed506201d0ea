"""The nouns of delivery: channels, transitions of incidents, and the record of each notification.

Times are Unix milliseconds. Everything here is a value; nothing reads a clock or talks to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.ids import base32_digest, derived_id, length_prefixed

Json = dict[str, Any]
ChannelKind = Literal["webhook", "email"]
DigestMode = Literal["hourly", "daily", "off"]
Decision = Literal["pending", "delivered", "retrying", "withheld", "failed"]

#: Tiers from quiet to loud; a rule compares positions in this tuple.
TIERS: Final = ("info", "low", "medium", "high", "critical")
#: Transitions of an incident that a rule may name.
KINDS: Final = ("opened", "escalated", "reopened", "resolved", "acknowledged", "merged")
DIGESTS: Final = ("hourly", "daily", "off")
DECISIONS: Final = ("pending", "delivered", "retrying", "withheld", "failed")
#: Why a notification was withheld: the five answers an account may give.
WITHHELD_REASONS: Final = ("budget", "muted", "routing", "disabled", "silenced")
#: Decisions after which nothing more happens to a record.
TERMINAL: Final = frozenset({"delivered", "withheld", "failed"})

#: Kinds of record that are about Tocsin itself, not about an incident; rules never see them.
CHANNEL_FAILED: Final = "channel_failed"
DIGEST: Final = "digest"
TEST: Final = "test"
NOTICE: Final = "notice"


@dataclass(frozen=True, slots=True)
class PushBudget:
    """`per_hour` pushes in the long run, at most `burst` at once."""

    per_hour: int = 60
    burst: int = 20

    def as_json(self) -> Json:
        return {"per_hour": self.per_hour, "burst": self.burst}


@dataclass(frozen=True, slots=True)
class Channel:
    """Where a project wants to be told. `version` counts writes of the row; `secret_version` counts
    rotations.

    `failing_since` is the first failure after the last success, kept only while the channel fails.
    """

    id: str
    project: str
    kind: ChannelKind
    name: str
    created_at: int
    url: str | None = None
    to: tuple[str, ...] = ()
    enabled: bool = True
    secret_version: int = 1
    rotated_at: int | None = None
    budget: PushBudget = PushBudget()
    digest: DigestMode = "hourly"
    disabled_reason: str | None = None
    failing_since: int | None = None
    version: int = 1

    def as_json(self) -> Json:
        """The public form; it never holds a secret."""
        target: Json = {"url": self.url} if self.kind == "webhook" else {"to": list(self.to)}
        return {
            "id": self.id,
            "project": self.project,
            "kind": self.kind,
            "name": self.name,
            **target,
            "enabled": self.enabled,
            "secret_version": self.secret_version,
            "budget": self.budget.as_json(),
            "digest": self.digest,
            "disabled_reason": self.disabled_reason,
            "failing_since": None if self.failing_since is None else clock.rfc3339(self.failing_since),
            "created_at": clock.rfc3339(self.created_at),
            "version": self.version,
        }


def _words(value: Any) -> tuple[str, ...]:
    """Names from a list of strings or of {type, id} objects, as `type:id`; order kept, repeats dropped.

    A summary may tell a number instead of the names ("entities": 12); then there are none to match.
    """
    names = []
    for item in value if isinstance(value, list | tuple) else ():
        names.append(f"{item['type']}:{item['id']}" if isinstance(item, Mapping) else str(item))
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Transition:
    """One step in an incident's life, as the bus tells it. `seq` numbers the steps of one incident."""

    project: str
    incident_id: str
    seq: int
    kind: str
    at: int
    tier: str
    services: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    tags: Mapping[str, frozenset[str]] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    trace_id: str = ""

    @classmethod
    def from_fact(cls, detail: Mapping[str, Any]) -> Transition:
        """Reads the detail of a bus message. Refuses ERR_SCHEMA, which parks the message for a person."""
        try:
            summary = detail["summary"]
            at = detail["at"]
            tier = summary["tier"]
            if tier not in TIERS:
                raise ValueError(f"unknown tier {tier!r:.20}")
            return cls(
                project=str(detail["project"]),
                incident_id=str(detail["incident_id"]),
                seq=int(detail["seq"]),
                kind=str(detail["kind"]),
                at=clock.parse_rfc3339(at) if isinstance(at, str) else int(at),
                tier=tier,
                services=_words(summary.get("services")),
                sources=_words(summary.get("sources")),
                entities=_words(summary.get("entities")),
                tags={
                    str(key): frozenset([value] if isinstance(value, str) else map(str, value))
                    for key, value in (summary.get("tags") or {}).items()
                },
                summary=dict(summary),
                trace_id=str(detail.get("trace_id") or ""),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refusal("ERR_SCHEMA", f"not a transition fact: {type(error).__name__}: {error!s:.80}") from error


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: when it began, HTTP or SMTP status (0 when there was no answer), what went wrong, how long it
    took.
    """

    at: int
    status: int
    error: str | None
    ms: int

    def as_json(self) -> Json:
        return {"at": clock.rfc3339(self.at), "status": self.status, "error": self.error, "ms": self.ms}


@dataclass(frozen=True, slots=True)
class NotificationRecord:
    """What became of one transition on one channel. There is exactly one per (incident_id, seq, channel_id).

    `payload` is fixed when the record is made, so every attempt sends the same bytes. `wake_at` is the due
    time of the outbox row that will bring an unfinished record back; a record that is not finished always has
    one. `reason` is a word of WITHHELD_REASONS for what was withheld and the last error for what failed;
    `detail` says more in a sentence.
    """

    project: str
    incident_id: str
    seq: int
    kind: str
    channel_id: str
    decision: Decision
    created_at: int
    reason: str | None = None
    detail: str | None = None
    tier: str = "info"
    attempts: tuple[Attempt, ...] = ()
    deferrals: int = 0
    next_at: int | None = None
    wake_at: int | None = None
    trace_id: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    @property
    def id(self) -> str:
        """`ntf_` id; a function of what the record is about, so that a repeated claim names the same
        record.
        """
        return derived_id("ntf", self.created_at, self.project, self.incident_id, str(self.seq), self.channel_id)

    @property
    def webhook_id(self) -> str:
        return webhook_id(self.project, self.incident_id, self.seq, self.channel_id)

    @property
    def finished(self) -> bool:
        return self.decision in TERMINAL

    def step(self, **changes: Any) -> NotificationRecord:
        """The record after a change, one version on."""
        return replace(self, version=self.version + 1, **changes)

    def as_json(self) -> Json:
        return {
            "id": self.id,
            "project": self.project,
            "incident_id": self.incident_id,
            "seq": self.seq,
            "kind": self.kind,
            "tier": self.tier,
            "channel_id": self.channel_id,
            "decision": self.decision,
            "reason": self.reason,
            "detail": self.detail,
            "attempts": [attempt.as_json() for attempt in self.attempts],
            "next_at": None if self.next_at is None else clock.rfc3339(self.next_at),
            "webhook_id": self.webhook_id,
            "trace_id": self.trace_id,
            "created_at": clock.rfc3339(self.created_at),
        }


def webhook_id(project: str, incident_id: str, seq: int, channel_id: str) -> str:
    """The `webhook-id` of Standard Webhooks: one per transition and channel, whatever the number of attempts.

    `msg_` + 26 base32 characters (130 bits) of SHA-256; receivers that drop ids they have seen see it once.
    """
    return "msg_" + base32_digest(length_prefixed(project, incident_id, str(seq), channel_id), 26)


def refuse(details: Sequence[Detail], message: str, code: str = "ERR_SCHEMA") -> Refusal:
    """A Refusal that names every broken rule at once, so that the caller fixes them in one go."""
    return Refusal(code, message, details)
