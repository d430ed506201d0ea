"""Bodies that the keyed routes take, as closed models: an unknown field is refused, types are never coerced.

Each model's READONLY names fields that answers hold and only the server sets; sent by a client they are
refused as ERR_READONLY_FIELD, so that nobody believes they were taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.strict_json import Limits, shown
from tocsin.routes import GRAMMARS

#: Control characters except tab and line ends, and characters that reorder or hide text, are refused.
_VISIBLE = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]*$"
Note = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=_VISIBLE)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=_VISIBLE)]
ServiceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=_VISIBLE)]
LabelText = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_VISIBLE)]
IncidentId = Annotated[str, StringConstraints(pattern=f"^{GRAMMARS['incident'].pattern}$")]
ServerEventId = Annotated[str, StringConstraints(pattern=r"^evt_[a-z2-7]{26}$")]
ChannelId = Annotated[str, StringConstraints(pattern=f"^{GRAMMARS['channel'].pattern}$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=_VISIBLE)]
Words = Annotated[list[Word], Field(max_length=100)]
Tier = Literal["info", "low", "medium", "high", "critical"]
Version = Annotated[int, Field(ge=0, le=2**53 - 1, description="Version read before; refused when it moved.")]


class Body(BaseModel):
    """What every body has in common."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)
    READONLY: ClassVar[frozenset[str]] = frozenset()
    LIMITS: ClassVar[Limits] = Limits()


class IncidentChange(Body):
    """At least one of status, verdict and note. "open" reopens."""

    READONLY = frozenset(
        (
            *("id", "title", "score", "tier", "severity_id", "opened_at", "updated_at", "first_event_at"),
            *(
                "last_event_at",
                "event_count",
                "entity_count",
                "entities",
                "sources",
                "services",
                "root",
                "reasons",
            ),
            *(
                "acknowledged_by",
                "resolved_at",
                "resolution",
                "merged_into",
                "merged_from",
                "members",
                "timeline",
            ),
        )
    )
    status: Literal["open", "acknowledged", "resolved"] | None = None
    verdict: Literal["useful", "noise", "duplicate"] | None = Field(
        default=None, description="Whether it was worth somebody's time; calibrators learn from it."
    )
    note: Note | None = None
    version: Version | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.status is None and self.verdict is None and self.note is None:
            raise ValueError("send at least one of status, verdict and note")
        return self


class IncidentMerge(Body):
    """Incidents to unite with the one in the path."""

    incidents: list[IncidentId] = Field(min_length=1, max_length=20)
    note: Note | None = None
    version: Version | None = None


class IncidentSplit(Body):
    """Members to move into a new incident, by server id."""

    events: list[ServerEventId] = Field(min_length=1, max_length=200)
    note: Note | None = None
    version: Version | None = None


class TopologyService(Body):
    """One service; every field may be left out."""

    deps: list[ServiceName] = Field(default_factory=list, max_length=50, description="What it calls or needs.")
    nodes: list[ServiceName] = Field(default_factory=list, max_length=16, description="Hosts it shares with others.")
    criticality: float = Field(default=0.5, ge=0, le=1, description="0 (nobody notices) to 1 (the business stops).")
    team: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=_VISIBLE)] | None = None
    labels: dict[Label, LabelText] = Field(default_factory=dict, max_length=20)


class TopologyInput(Body):
    """The whole declaration; what is left out is gone."""

    READONLY = frozenset(("updated_at",))
    LIMITS = Limits(keys_per_object=2000)
    services: dict[ServiceName, TopologyService] = Field(max_length=2000)
    version: Version | None = None


class CalibrationFit(Body):
    """Nothing is needed; `version` guards against somebody else's change."""

    version: Version | None = None


class CalibrationReturn(Body):
    """Which calibration to go back to."""

    to: int | None = Field(default=None, ge=0, description="A kept version; 0 is none. Left out: the one before.")
    version: Version | None = None


class Budget(Body):
    """`per_hour` pushes in the long run, at most `burst` at once; what is above is withheld and goes to the
    digest.
    """

    per_hour: int = Field(ge=1, le=3600)
    burst: int = Field(ge=1, le=1000)


_CHANNEL_READONLY = frozenset(
    ("id", "project", "secret", "secret_version", "created_at", "disabled_reason", "failing_since", "version")
)


class ChannelInput(Body):
    """A webhook channel has `url`, an e-mail channel has `to`."""

    READONLY = _CHANNEL_READONLY
    kind: Literal["webhook", "email"]
    name: Name
    url: str | None = Field(default=None, min_length=1, max_length=2048, description="https address to post to.")
    to: list[Annotated[str, StringConstraints(max_length=254)]] | None = Field(
        default=None, min_length=1, max_length=10, description="Addresses to write to."
    )
    enabled: bool = True
    budget: Budget | None = None
    digest: Literal["hourly", "daily", "off"] = "hourly"


class ChannelChange(Body):
    """At least one field; what is left out stays."""

    READONLY = _CHANNEL_READONLY
    kind: Literal["webhook", "email"] | None = Field(default=None, description="May be repeated, never changed.")
    name: Name | None = None
    url: str | None = Field(default=None, min_length=1, max_length=2048)
    to: list[Annotated[str, StringConstraints(max_length=254)]] | None = Field(
        default=None, min_length=1, max_length=10
    )
    enabled: bool | None = None
    budget: Budget | None = None
    digest: Literal["hourly", "daily", "off"] | None = None


Kind = Literal["opened", "escalated", "reopened", "resolved", "acknowledged", "merged"]


class RoutingWhen(Body):
    """All conditions given must hold; within a list any value does. A trailing * stands for every ending."""

    tiers: list[Tier] = Field(default_factory=list, max_length=100)
    kinds: list[Kind] = Field(default_factory=list, max_length=100)
    services: Words = Field(default_factory=list)
    sources: Words = Field(default_factory=list)
    entities: Words = Field(default_factory=list)
    tags: dict[Word, Word | Words] = Field(default_factory=dict, max_length=50)


class RoutingRule(Body):
    """The first rule that matches ends the search, unless it continues. No channels means every channel."""

    name: Name
    when: RoutingWhen = Field(default_factory=RoutingWhen)
    channels: list[ChannelId] = Field(default_factory=list, max_length=100)
    continue_: bool = Field(default=False, alias="continue", description="Go on to the next rule.")
    mute: bool = Field(default=False, description="Withhold what the rule's channels would get.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_VISIBLE)] | None = Field(
        default=None, description="Why it is muted; required with mute."
    )


class RoutingInput(Body):
    """The whole document. `version`, when sent, is the one read before."""

    rules: list[RoutingRule] = Field(max_length=100)
    budget: Budget | None = Field(default=None, description="Of all channels of the project together.")
    version: Version | None = None


class DryRunInput(Body):
    """An imagined transition, and the rules to try it on (the stored ones when left out)."""

    tier: Tier
    kind: Kind = "opened"
    services: Words = Field(default_factory=list)
    sources: Words = Field(default_factory=list)
    entities: Words = Field(default_factory=list)
    tags: dict[Word, Words] = Field(default_factory=dict, max_length=50)
    rules: list[RoutingRule] | None = Field(default=None, max_length=100)


Scopes = Annotated[
    list[Annotated[str, StringConstraints(max_length=40)]],
    Field(min_length=1, max_length=32, description="family:verb, each held by the caller."),
]
PersonId = Annotated[str, StringConstraints(pattern=f"^{GRAMMARS['person'].pattern}$")]
_PROJECT_READONLY = frozenset(("id", "created_at", "created_by", "rate"))
_KEY_READONLY = frozenset(
    (
        *("id", "key", "secret", "hash", "prefix", "last_four", "project", "project_id", "env", "status", "quota"),
        *("created_at", "created_by", "last_used_at", "revoked_at", "signing_secret", "rate", "requests_per_second"),
    )
)
_PERSON_READONLY = frozenset(("id", "project", "status", "created_at", "created_by", "removed_at"))


class ProjectSettings(Body):
    """What a project's administrators choose; what is left out stays. Redaction off needs an approval."""

    redact_keys: list[str] | None = Field(
        default=None, max_length=100, description="Names whose values are redacted besides the built-in ones."
    )
    redaction: Literal["on", "off"] | None = None
    redaction_profile: Literal["log", "prose"] | None = None
    retention_days: int | None = Field(default=None, ge=1, le=3_650, description="At most the deployment's.")


class Quota(Body):
    """What a project may send; the operator sets it. A share of the event burst is kept for firing events."""

    requests_per_second: int | None = Field(default=None, ge=1, le=1_000_000, description="Of each key.")
    requests_burst: int | None = Field(default=None, ge=1, le=1_000_000)
    events_per_second: int | None = Field(default=None, ge=1, le=1_000_000, description="Of the whole project.")
    events_burst: int | None = Field(default=None, ge=1, le=1_000_000)
    firing_share_percent: int | None = Field(default=None, ge=0, le=90)


class ProjectInput(Body):
    """A new project."""

    READONLY = _PROJECT_READONLY | {"status", "version"}
    name: Name
    settings: ProjectSettings | None = None
    quota: Quota | None = None


class ProjectChange(Body):
    """What is left out stays. Only the operator sends quota and status."""

    READONLY = _PROJECT_READONLY
    name: Name | None = None
    settings: ProjectSettings | None = None
    quota: Quota | None = None
    status: Literal["active", "suspended"] | None = None
    version: Version | None = None


class SubjectInput(Body):
    """A user identifier as senders write it: an id, a name, an e-mail address."""

    value: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class KeyInput(Body):
    """A new key. Without scopes it may send events and nothing else."""

    READONLY = _KEY_READONLY
    name: Name | None = None
    scopes: Scopes | None = None
    expires_at: str | None = Field(default=None, max_length=40, description="RFC 3339; at most when the maker's ends.")
    owner: PersonId | None = Field(default=None, description="The person it belongs to; narrows it to their role.")
    signing: bool | None = Field(default=None, description="Whether it comes with a secret for signing requests.")


class KeyChange(Body):
    """Name, and an end that is not later than it was; everything else of a key is fixed."""

    READONLY = _KEY_READONLY | {"scopes", "owner", "signing"}
    name: Name | None = None
    expires_at: str | None = Field(default=None, max_length=40, description="RFC 3339.")


class KeyRotation(Body):
    """How long the old key goes on."""

    READONLY = _KEY_READONLY
    overlap_s: int | None = Field(default=None, ge=0, le=604_800, description="Seconds; a day when left out.")


class PersonInput(Body):
    """Somebody who works with the project, and what they may do at most."""

    READONLY = _PERSON_READONLY | {"version"}
    name: Name
    scopes: Scopes


class PersonChange(Body):
    """What is left out stays."""

    READONLY = _PERSON_READONLY
    name: Name | None = None
    scopes: Scopes | None = None
    version: Version | None = None


class RequestDescribed(Body):
    """One request, exactly as it will be sent: path without host and query, query by name, body as JSON."""

    method: Literal["DELETE", "PATCH", "POST", "PUT"]
    path: str = Field(min_length=1, max_length=512)
    query: dict[str, str | list[str]] | None = Field(default=None, max_length=20)
    body: Any = None


class ApprovalInput(Body):
    """A request that a second person is to approve, and why."""

    READONLY = frozenset(
        (
            *("id", "status", "request_hash", "requested_by", "decided_by", "decided_at", "used_at", "expires_at"),
            "version",
        )
    )
    request: RequestDescribed
    reason: Annotated[str, StringConstraints(max_length=500)] | None = None


class Decision(Body):
    """A word on the decision."""

    note: Annotated[str, StringConstraints(max_length=500)] | None = None


class TokenInput(Body):
    """An access token; with `request` an admin token, good once for that very request."""

    scopes: Scopes | None = None
    life_s: int | None = Field(default=None, ge=60, le=900, description="900 when left out; admin tokens live 120.")
    request: RequestDescribed | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.request is not None and (self.scopes is not None or self.life_s is not None):
            raise ValueError("send request alone, or scopes and life_s")
        return self


class TokenKeysRotation(Body):
    """Whether the keys in use are compromised: then older tokens end now."""

    compromised: bool = False


class Document(Body):
    """A body that its room reads and checks itself; the schema shown is the room's."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    @classmethod
    def described(cls) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def __get_pydantic_json_schema__(cls, _core: Any, _handler: Any) -> dict[str, Any]:
        return {"title": cls.__name__, **cls.described()}


class ContractInput(Document):
    """A contract as its owner sends it."""

    @classmethod
    def described(cls) -> dict[str, Any]:
        from tocsin.decisions import contracts

        return contracts.sent_schema()


class ContractImport(Body):
    """A contract inside an A2A agent card or an entry of an MCP registry; exactly one of them."""

    agent_card: dict[str, Any] | None = None
    server: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.agent_card is None) == (self.server is None):
            raise ValueError("send agent_card or server")
        return self


class ContractMove(Body):
    """Where the version goes: draft, active, draining, retired, in this order."""

    state: Literal["active", "draining", "retired"]


class Heartbeat(Body):
    """Nothing is needed."""


class RouteInput(Document):
    """A request, or up to 100 as `requests`. `principal` is the key that asks; `scopes` are those it holds as use:…
    when left out. `reasons` says what became of every service; true when left out.
    """

    @classmethod
    def described(cls) -> dict[str, Any]:
        from tocsin.decisions import asking

        return asking.schema()


class DiscoverInput(Document):
    """A request of which only capabilities are needed."""

    @classmethod
    def described(cls) -> dict[str, Any]:
        from tocsin.decisions import asking

        return asking.discover_schema()


class GoalInput(Document):
    """What is wanted of what there is."""

    @classmethod
    def described(cls) -> dict[str, Any]:
        from tocsin.decisions import asking

        return asking.goal_schema()


class InvokeInput(Body):
    """A call. The same `call_id` again is the same call: it is answered, not made, again. `retries` (0 to 2) is how
    often it may be made elsewhere after it failed, which may have had effects.
    """

    call_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,63}$")] | None = None
    request: dict[str, Any] = Field(description="As of POST /v1/route.")
    payload: Any
    retries: int = Field(default=0, ge=0, le=2)


class SpendingInput(Body):
    """What calls may cost in a calendar month (UTC), in 1e-12 USD."""

    limit_pusd: int = Field(ge=0, le=2**53 - 1)


class PolicyInput(Document):
    """A whole policy."""

    @classmethod
    def described(cls) -> dict[str, Any]:
        from tocsin.decisions import policies

        return policies.json_schema()


class IncidentNamed(Body):
    """An incident to defend against, instead of telemetry."""

    incident_id: IncidentId


class ProbeInput(Body):
    """Which probes to run, and against what: the stack itself, whatever else is said."""

    READONLY = frozenset(("id", "held"))
    probes: list[
        Literal["weak_key", "replay", "scope_escalation", "oversized_body", "expired_token", "egress_canary"]
    ] = Field(
        default=["weak_key", "replay", "scope_escalation", "oversized_body", "expired_token", "egress_canary"],
        max_length=6,
        description="All when left out.",
    )
    target: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = Field(
        default=None, description="Only this deployment's own address is taken."
    )


class NoticeInput(Body):
    """What to tell, and by which kinds of channels."""

    READONLY = frozenset(("told",))
    title: LabelText
    text: Note
    tier: Tier = "medium"
    by: list[Literal["email", "webhook"]] = Field(
        default_factory=list, max_length=2, description="One channel of each kind; one of any kind when left out."
    )
    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,63}$")] | None = Field(
        default=None, description="A name of the sender's own; the same one again is the same notice."
    )


class QuarantineInput(Body):
    """What to put into quarantine, why, and for how long."""

    READONLY = frozenset(("id", "status", "created_at", "until", "created_by", "mitigation_id", "released_at"))
    kind: Literal["source", "entity", "key"]
    name: Annotated[str, StringConstraints(min_length=1, max_length=321, pattern=_VISIBLE)] = Field(
        description="A source's name; an entity as type:id, as events show it; a key's public id."
    )
    reason: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_VISIBLE)] = Field(
        description="Shown to whoever is refused."
    )
    minutes: int | None = Field(default=None, ge=1, le=43_200, description="60 when left out.")
    per_second: int | None = Field(
        default=None, ge=0, le=1_000, description="Events let through; none when left out. For sources and entities."
    )


Model = TypeVar("Model", bound=Body)


def validate(model: type[Model], value: Any) -> Model:
    """The body as `model`. Refuses ERR_READONLY_FIELD or ERR_SCHEMA naming every field that is wrong, no
    values.
    """
    readonly = sorted(model.READONLY & value.keys()) if isinstance(value, Mapping) else []
    if readonly:
        raise Refusal(
            "ERR_READONLY_FIELD",
            "The body sets fields that only the server sets.",
            [Detail(name, "read-only", "remove it") for name in readonly],
        )
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Refusal("ERR_SCHEMA", "The body breaks the rules listed in details.", _details(error)) from None


def _details(error: ValidationError) -> list[Detail]:
    """At most 20 problems in our shape. Messages that could repeat the sender's text are replaced."""
    found = []
    for item in error.errors(include_url=False, include_input=False, include_context=False)[:20]:
        where = ".".join(shown(part) for part in item["loc"]) or "(body)"
        fix = "remove it" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        found.append(Detail(where, item["type"], fix[:200]))
    return found
