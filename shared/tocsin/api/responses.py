"""Shapes of answers, for the OpenAPI document and the contract tests; not imported at run time.

Every JSON answer is {"data", "meta"}; the classes here describe data, and `Paged` says that meta continues a
listing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from tocsin.api.models import Tier

Time = str


class Shape(BaseModel):
    """What all answers have in common: nothing beyond what is listed, every field present unless it has a
    default.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    PAGED: ClassVar[bool] = False


class Open(Shape):
    """A shape that may grow."""

    model_config = ConfigDict(extra="allow", strict=True)


class Up(Shape):
    """Up or down, and nothing else."""

    status: Literal["up", "down"]


class PublicMetrics(Shape):
    """What anybody may know. `version` is that of this answer's shape."""

    status: Literal["up"]
    version: int


class AcceptedItem(Open):
    """What became of one item of a request."""

    status: Literal["accepted", "duplicate", "refused"]


class Accepted(Open):
    """What became of a request's items."""

    items: list[AcceptedItem]


class EventPage(Shape):
    """Events, newest first; an Event is described by docs/EVENT_SCHEMA.json."""

    PAGED = True
    items: list[dict[str, Any]] = Field(json_schema_extra={"items": {"$ref": "#/components/schemas/Event"}})


class Contribution(Open):
    """One part of a score. Contributions and bias add up to the logit exactly."""

    feature: str
    value: float = Field(description="The evidence, 0 to 1.")
    micro_logits: int
    meaning: str
    text: str


class ExplainAnswer(Open):
    """Why an event has its score."""

    event_id: str
    incident_id: str | None
    score: float = Field(ge=0, le=1)
    risk_score: int = Field(ge=0, le=100)
    tier: Tier
    bias: int
    contributions: list[Contribution]
    logit: int = Field(description="Micro-logits: bias + sum of contributions.")
    to_next_tier: dict[str, Any] | None
    to_lower_tier: dict[str, Any] | None
    text: str


class Reason(Shape):
    """Why members belong together: in words, how strongly (0 to 1), how many links of this kind."""

    text: str
    weight: float
    count: int


class IncidentService(Shape):
    """A service with members in the incident."""

    service: str
    first_event_at: Time
    events: int


class Incident(Shape):
    """Correlated events."""

    id: str
    version: int
    status: Literal["open", "acknowledged", "resolved", "merged"]
    title: str
    score: float
    tier: Tier
    severity_id: int
    opened_at: Time
    updated_at: Time
    first_event_at: Time
    last_event_at: Time
    event_count: int
    entity_count: int
    entities: list[str] = Field(description="At most 100, those with most events first.")
    tags: dict[str, list[str]]
    sources: list[str]
    services: list[IncidentService] = Field(description="In the order in which they fired first.")
    root: dict[str, Any] | None = Field(description="The likeliest origin and why it is thought so.")
    reasons: list[Reason]
    acknowledged_by: str | None
    resolved_at: Time | None
    resolution: str | None = Field(description="Why it is resolved.")
    verdict: dict[str, Any] | None
    merged_into: str | None
    merged_from: list[str]


class IncidentPage(Shape):
    """Incidents, most recently opened first."""

    PAGED = True
    items: list[Incident]


class TimelineEntry(Open):
    """Something that happened. `pos` numbers the entries of an incident from 0; `by` is tocsin or the id of a
    key.
    """

    pos: int
    at: Time
    kind: str
    by: str
    text: str


class IncidentDetail(Incident):
    """An incident with a page of its members."""

    PAGED = True
    members: list[dict[str, Any]] = Field(json_schema_extra={"items": {"$ref": "#/components/schemas/Event"}})
    timeline: list[TimelineEntry]


class IncidentAnswer(Incident):
    """An incident after a change."""


class SplitAnswer(Shape):
    """Both sides of a split."""

    incident: Incident
    split: Incident


class TopologyAnswer(Shape):
    """The declaration; `version` counts its writes."""

    version: int
    services: dict[str, dict[str, Any]]


class CalibrationFigures(Shape):
    """Brier score and expected calibration error (less is better), and the reliability diagram.

    A row of the diagram is [weight of samples, mean score, share useful] of one tenth of the score's range.
    """

    brier: float
    ece: float
    diagram: list[list[float] | None]


class CalibratedSource(Shape):
    """Platt scaling of one source, slope in millionths and offset in micro-logits; figures are cross-validated."""

    slope: int
    offset: int
    reliability: float
    judged: int
    in_use: bool
    before: CalibrationFigures
    after: CalibrationFigures


class CalibrationVersion(Shape):
    version: int
    at: Time
    by: str
    judged: int
    sources: dict[str, CalibratedSource]


class CalibrationActivation(Shape):
    version: int
    at: Time
    by: str


class CalibrationAnswer(Shape):
    """Kept versions, newest first. `active` 0 is the identity; `version` counts changes of all this."""

    version: int
    active: int
    versions: list[CalibrationVersion]
    history: list[CalibrationActivation]


class BudgetShown(Shape):
    per_hour: int
    burst: int


class ChannelAnswer(Shape):
    """A channel. `failing_since` is the first failure after the last success."""

    id: str
    project: str
    kind: Literal["webhook", "email"]
    name: str
    url: str | None = None
    to: list[str] | None = None
    enabled: bool
    secret_version: int
    budget: BudgetShown
    digest: Literal["hourly", "daily", "off"]
    disabled_reason: str | None
    failing_since: Time | None
    created_at: Time
    version: int


class ChannelSecretAnswer(ChannelAnswer):
    """A channel with its signing secret (webhooks only), which is shown this once."""

    secret: str | None = None


class ChannelPage(Shape):
    """All channels."""

    items: list[ChannelAnswer]


class Deleted(Shape):
    """What is gone."""

    id: str
    deleted: Literal[True]


class DeliveryAttempt(Shape):
    """One try. `status` is the HTTP or SMTP status, 0 when there was no answer."""

    at: Time
    status: int
    error: str | None
    ms: int


class DeliveryAnswer(Open):
    """What became of one notification on one channel."""

    id: str
    incident_id: str
    seq: int
    kind: str
    tier: str
    channel_id: str
    decision: Literal["pending", "delivered", "retrying", "withheld", "failed"]
    reason: str | None
    attempts: list[DeliveryAttempt]
    next_at: Time | None
    webhook_id: str
    created_at: Time


class NotificationPage(Shape):
    """Notifications, newest first."""

    PAGED = True
    items: list[DeliveryAnswer]


class RoutingAnswer(Shape):
    """The rules in force; version 0 is the built-in default."""

    version: int
    rules: list[dict[str, Any]]
    budget: BudgetShown | None


class DryRunAnswer(Open):
    """What would happen, rule by rule and channel by channel."""

    routing_version: int
    rules: list[dict[str, Any]]
    channels: list[dict[str, Any]]


class SettingsShown(Shape):
    redact_keys: list[str]
    redaction: Literal["on", "off"]
    redaction_profile: Literal["log", "prose"]
    retention_days: int


class QuotaShown(Shape):
    requests_per_second: int
    requests_burst: int
    events_per_second: int
    events_burst: int
    firing_share_percent: int


class ProjectAnswer(Shape):
    """A project."""

    id: str
    name: str
    status: Literal["active", "suspended", "deleted"]
    settings: SettingsShown
    quota: QuotaShown
    created_at: Time
    created_by: str | None
    version: int


class ProjectPage(Shape):
    """Projects the caller may see."""

    items: list[ProjectAnswer]


class KeyAnswer(Shape):
    """A key, never its text. `created_by` is the key it was made with, null for the bootstrap's."""

    id: str
    name: str
    prefix: str
    last_four: str | None
    scopes: list[str]
    env: Literal["live", "test"]
    status: Literal["active", "expired", "revoked"]
    owner: str | None
    signing: bool
    created_at: Time
    created_by: str | None
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None


class KeySecretAnswer(KeyAnswer):
    """A key with its text, which is shown this once."""

    key: str
    signing_secret: str | None = None


class KeyPage(Shape):
    """Every key of the project, oldest first, ended ones included."""

    items: list[KeyAnswer]


class KeysRevoked(Shape):
    """Keys that ended now."""

    revoked: list[str]


class ProjectMade(ProjectAnswer):
    """A new project with its first key."""

    first_key: KeySecretAnswer


class JobAnswer(Shape):
    """Work that goes on by itself. An incomplete one left something behind; its receipt says where."""

    id: str
    project_id: str
    kind: Literal["export", "deletion", "erasure", "retention"]
    status: Literal["running", "done", "incomplete"]
    phase: str | None
    requested_by: str
    requested_at: Time
    finished_at: Time | None


class ExportFile(Shape):
    """One gzip NDJSON file; `sha256` is that of its bytes, `url` works for an hour."""

    name: str
    content: str
    rows: int
    bytes: int
    sha256: str
    url: str


class ExportAnswer(JobAnswer):
    """An export. Files and manifest are there from its end until they expire."""

    expires_at: Time | None
    manifest: str | None
    files: list[ExportFile]


class SubjectAnswer(Shape):
    """What stands for a person in this project."""

    pseudonym: str


class ReceiptAnswer(Shape):
    """A receipt, and the same signed: a compact JWS whose payload also says who signed it and when."""

    receipt: dict[str, Any]
    jws: str


class PersonAnswer(Shape):
    """A person; `scopes` is the most their keys and tokens may do."""

    id: str
    name: str
    scopes: list[str]
    status: Literal["active", "removed"]
    created_at: Time
    created_by: str | None
    version: int


class PersonPage(Shape):
    """Everybody, removed ones included."""

    items: list[PersonAnswer]


class ApprovalAnswer(Shape):
    """An approval of one exact request."""

    id: str
    status: Literal["pending", "approved", "rejected", "used", "expired"]
    request: dict[str, Any]
    request_hash: str
    reason: str
    requested_by: str
    requested_at: Time
    expires_at: Time
    decided_by: str | None
    decided_at: Time | None
    note: str | None
    used_at: Time | None
    version: int


class ApprovalPage(Shape):
    """Approvals, newest first."""

    PAGED = True
    items: list[ApprovalAnswer]


class TokenAnswer(Shape):
    """A token. Send a Bearer in Authorization, an admin token in X-Admin-Token beside the key."""

    token: str
    token_type: Literal["Bearer", "X-Admin-Token"]
    expires_at: Time
    scopes: list[str] | None = None
    request_hash: str | None = None


class TokenKeysAnswer(Shape):
    """Number of the key that was begun."""

    key: int


class UsageDay(Shape):
    """What one UTC day used; `bytes` are those of events as stored, before compression."""

    day: str
    events: int
    bytes: int
    llm_tokens: int
    calls: int
    call_cost_pusd: int


class UsageTotals(Shape):
    events: int
    bytes: int
    llm_tokens: int
    calls: int
    call_cost_pusd: int


class UsageAnswer(Shape):
    """Usage by day, days without any left out."""

    items: list[UsageDay]
    totals: UsageTotals


class Refused(Shape):
    """An event that was accepted and then refused."""

    event_id: str
    at: str
    reason: str


class RefusalPage(Shape):
    """Refusals, newest day first."""

    PAGED = True
    items: list[Refused]


class JournalEntry(Shape):
    """What was done: exactly the fields that are hashed. `at` is Unix ms."""

    v: Literal[1]
    id: str
    kind: str
    at: int
    project: str
    actor: str
    action: str
    resource: str
    trace_id: str
    outcome: Literal["done", "allowed", "refused", "failed"]
    digests: dict[str, str] = Field(description="SHA-256 of what was involved, by name.")


class JournalItem(Shape):
    """An entry and its number in the log."""

    index: int
    entry: JournalEntry


class JournalPage(Shape):
    """Entries, newest first."""

    PAGED = True
    items: list[JournalItem]


class CheckpointAnswer(Shape):
    """The signed head of the log."""

    origin: str
    size: int
    root: str = Field(description="32 bytes in base64.")
    checkpoint: str = Field(description="The signed note, to the byte.")


class ConsistencyAnswer(Shape):
    """That one tree is a prefix of another; hashes in hex."""

    first: int
    second: int
    first_root: str
    second_root: str
    proof: list[str]
    checkpoint: str


class InclusionAnswer(Shape):
    """An entry, and that it is number `index` of the tree that `checkpoint` signs; hashes in hex."""

    index: int
    entry: JournalEntry
    leaf: str = Field(description="The text that is hashed (RFC 8785).")
    leaf_hash: str
    tree_size: int
    proof: list[str]
    checkpoint: str


class HealingPage(Shape):
    """The supervisor's records, newest first."""

    PAGED = True
    items: list[dict[str, Any]]


class Part(Open):
    """One part of this deployment."""

    part: str
    kind: str
    status: Literal["up", "degraded", "down"]


class PartsAnswer(Shape):
    """Every part, and the worst status among them."""

    status: Literal["up", "degraded", "down"]
    parts: list[Part]


class Named(Shape):
    """A version of a service."""

    name: str
    version: int


class ContractAnswer(Shape):
    """A contract as it stands in the registry; schemas/contract.json."""

    contract: dict[str, Any]


class ContractMoved(ContractAnswer):
    """`retire_at` is there for a draining version."""

    retire_at: Time | None = None


class ContractShown(ContractAnswer):
    """With what is known of the service now: why it is `down`, and whether its promises were watched and held."""

    down: str | None
    attested: bool


class ContractPage(Shape):
    """By name and version."""

    PAGED = True
    items: list[ContractShown]


class ContractVersions(Shape):
    """By version."""

    items: list[ContractShown]


class BeatAnswer(Shape):
    """Until when the version counts as there."""

    holds_until: Time


class AgentCard(Open):
    """A2A agent card, protocol 1.0."""

    name: str


class ServerEntry(Open):
    """server.json of an MCP registry."""

    name: str


class ReasonShown(Named):
    """`winner`, `dominated`, or the first gate or rule that kept the service out."""

    reason: str


class Candidate(ContractShown):
    """Less `weight` is better; a whole number in text."""

    weight: str


class Discovered(Shape):
    """Admissible ones best first, and why every other version is not."""

    items: list[Candidate]
    excluded: list[ReasonShown]


class Receipt(Shape):
    """Digests (SHA-256, hex) of what was decided by, and the decision."""

    v: int
    request: str
    snapshot: str
    health: str
    decision: Named | None


class RouteOutcome(Shape):
    """`decision` is null when no service is admissible."""

    decision_id: str
    decision: Named | None
    reasons: list[ReasonShown] | None
    guarantees: dict[str, Any]
    receipt: Receipt


class RouteOutcomes(Shape):
    """In the order of the requests."""

    items: list[RouteOutcome]


class RouteAnswer(RootModel[RouteOutcome | RouteOutcomes]):
    """One outcome, or items for several requests."""

    PAGED: ClassVar[bool] = False


class PlanStep(Named):
    """A call, and for each input where it comes from."""

    inputs: dict[str, dict[str, Any]]


class PlanAnswer(Shape):
    """`steps` is null when nothing stays within the limits."""

    decision_id: str
    steps: list[PlanStep] | None
    guarantees: dict[str, Any]
    receipt: dict[str, Any]


class DecisionAnswer(Shape):
    """What is kept of a decision."""

    decision_id: str
    receipt: dict[str, Any]
    request: dict[str, Any]


class CertificateOf(Shape):
    decision_id: str
    certificate: dict[str, Any]


class CertificateAnswer(Shape):
    """Certificates of decisions by one snapshot and health."""

    form: Literal["full", "short"]
    snapshot: dict[str, Any]
    health: dict[str, Any]
    certificates: list[CertificateOf]


class PolicyShown(Shape):
    policy: dict[str, Any]


class PolicyKept(PolicyShown):
    published_at: Time


class PolicyPage(Shape):
    """Newest first."""

    PAGED = True
    items: list[PolicyKept]


class PolicyWitness(Shape):
    """A request and a service, by the attributes that the rules read, for which the two policies differ."""

    request: dict[str, Any]
    service: dict[str, Any]


class PolicyMeaning(PolicyShown):
    """What the policy allows and forbids that the one in force does not; null is a proof that there is nothing."""

    newly_allows: PolicyWitness | None
    newly_forbids: PolicyWitness | None


class CallAttempt(Shape):
    """`outcome`: kept, late, failed, timeout, unreached, type; or what kept it from being called: busy, no_endpoint,
    budget, no_service.
    """

    decision_id: str
    service: str
    outcome: str
    status: int
    took_us: int
    cost_pusd: int


class InvokeAnswer(Shape):
    """`done`: the service answered as promised, or late. `failed`: it was called and did not. `refused`: it was not
    called.
    """

    call_id: str
    status: Literal["done", "failed", "refused"]
    service: str | None
    output: Any
    guarantees: dict[str, Any]
    attempts: list[CallAttempt]
    repeated: bool


class SpendingAnswer(Shape):
    """Of the current month, in 1e-12 USD."""

    limit_pusd: int
    spent_pusd: int
    held_pusd: int


class QuarantineAnswer(Shape):
    """Something that is or was kept out."""

    id: str
    status: Literal["active", "released", "expired"]
    kind: Literal["source", "entity", "key"]
    name: str
    per_second: int = Field(description="Events that are let through; 0 is none.")
    reason: str
    created_at: Time
    until: Time
    created_by: str
    mitigation_id: str | None
    released_at: Time | None
    released_by: str | None


class Quarantines(Shape):
    """Newest first."""

    items: list[QuarantineAnswer]


class MitigationStep(Open):
    """What one step does to what, who does it, and how far it is."""

    n: int
    needs: list[str]
    target: dict[str, str]
    responder: str
    minutes: int
    risk: Literal["low", "high"]
    rollback: str
    status: Literal["planned", "applied", "failed", "rolled_back"]
    decision_id: str


class MitigationPlan(Open):
    """What is to be done about what, by which playbook."""

    playbook: str
    subject: dict[str, Any]
    tier: Tier
    risk_score: int
    risk: Literal["low", "high"]
    approval: bool
    snapshot: str = Field(description="Which responders there were, by hash.")
    steps: list[MitigationStep]
    unmet: list[dict[str, Any]]


class MitigationAnswer(Shape):
    """A mitigation as it stands."""

    id: str
    status: Literal["planned", "approved", "applying", "applied", "failed", "rolling_back", "rolled_back", "expired"]
    plan: MitigationPlan
    plan_digest: str
    created_at: Time
    created_by: str
    expires_at: Time = Field(description="Until when it may be approved and applied.")
    approval_id: str | None
    trace_id: str
    version: int


class MitigationPage(Shape):
    """Newest first."""

    PAGED = True
    items: list[MitigationAnswer]


class Defended(Shape):
    """The mitigation of what was sent, whether it is new, and what became of the telemetry."""

    mitigation: MitigationAnswer
    new: bool
    telemetry: Accepted | None


class StepCertificate(Shape):
    """Three documents for tools/checker.py and tools/checker.mjs, each as its exact text."""

    decision_id: str
    form: Literal["full", "short"]
    certificate: str
    snapshot: str
    health: str


class NoticeTold(Shape):
    """One decision and the notification that came of it; the proof as in a certificate's answer."""

    by: str | None
    decision_id: str
    notification: dict[str, Any] | None
    certificate: str
    snapshot: str
    health: str


class NoticeAnswer(Shape):
    """Who is told."""

    id: str
    told: list[NoticeTold]


class ProbeMet(Shape):
    """What one request of a probe was answered."""

    step: str
    status: int
    code: str | None
    right: bool


class Probe(Shape):
    """One probe. `held` says that every answer was the expected one."""

    name: str
    held: bool
    met: list[ProbeMet]


class ProbeReport(Shape):
    """What the probes of one run met."""

    id: str
    held: bool
    probes: list[Probe]
