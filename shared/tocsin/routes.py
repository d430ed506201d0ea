"""The one table of HTTP routes. Dispatch, OpenAPI, docs/api.md, aliases, scopes and sample events are all
read from it.

A route belongs to one function: `ingest` (keyed, writes events), `connect` (keyed, speaks the dialects of other
senders), `route` (keyed, contracts and decisions), `govern` (keyed, publishes policies), `defend` (keyed, acts on what
is hostile), `api` (keyed, everything else) or `public` (open). Nothing here imports pydantic: request and response
shapes are named, and found in tocsin.api.models and tocsin.api.responses by those who need them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tocsin.kernel.ids import INCIDENT_ID, PSEUDONYM, SENDER_ID

Function = Literal["ingest", "connect", "api", "route", "govern", "defend", "public"]
Kind = Literal["time", "text", "tag", "choice", "number", "id", "limit", "cursor"]

#: Longest path that is looked at; longer ones name nothing.
MAX_PATH: Final = 512
DEFAULT_LIMIT: Final = 25
MAX_LIMIT: Final = 100
TIERS: Final = ("info", "low", "medium", "high", "critical")

_UUID7: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
#: Grammar of `{id}` by what it names. An id outside its grammar names nothing: 404, as any other unknown id.
GRAMMARS: Final[Mapping[str, re.Pattern[str]]] = {
    "event": SENDER_ID,
    "incident": INCIDENT_ID,
    "channel": re.compile("chn_" + _UUID7, re.ASCII),
    "project": re.compile("[a-z0-9][a-z0-9_-]{1,63}", re.ASCII),
    "key": re.compile("key_[0-9A-Za-z]{12}", re.ASCII),
    "person": re.compile("per_" + _UUID7, re.ASCII),
    "approval": re.compile("apr_" + _UUID7, re.ASCII),
    "entry": re.compile("0|[1-9][0-9]{0,14}", re.ASCII),
    "job": re.compile("job_" + _UUID7, re.ASCII),
    "pseudonym": PSEUDONYM,
    "contract": re.compile("[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII),
    "version": re.compile("[1-9][0-9]{0,9}", re.ASCII),
    "decision": re.compile(f"dec_{_UUID7}(?:-n(?:0|[1-9][0-9]?))?", re.ASCII),
    "quarantine": re.compile("qua_" + _UUID7, re.ASCII),
    "mitigation": re.compile("mit_" + _UUID7, re.ASCII),
    "silence": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII),
}


@dataclass(frozen=True, slots=True)
class Param:
    """A query parameter: how it is read (`kind`), what it means, and a value that works."""

    name: str
    kind: Kind
    meaning: str
    example: str
    choices: tuple[str, ...] = ()
    repeatable: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """A request that works against the sample world of the tests; run as a test and shown in the
    documentation.
    """

    name: str
    summary: str
    id: str | None = None
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None
    status: int = 200
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `scope` is None for open routes; `success` lists 2xx statuses, `refusals` its own error
    codes.

    `admin_token` says that a call needs an admin token of its own besides the scope, `operator` that it is about the
    whole deployment, so that only administrators of the operator's project may make it, `approval` that it needs a
    second person's; `flag` names what must be switched on in the deployment. `names` is what `{id}` names, `within`
    what the second variable of the path names. `aliases` are other paths of the same operation. `request` and
    `response` name shapes; `media` is the content type of the answer.
    What every route of its kind can answer besides is in `codes`.
    """

    method: str
    path: str
    operation_id: str
    group: str
    summary: str
    description: str
    scope: str | None
    function: Function
    response: str
    aliases: tuple[str, ...] = ()
    names: str | None = None
    within: str | None = None
    query: tuple[Param, ...] = ()
    request: str | None = None
    success: tuple[int, ...] = (200,)
    refusals: tuple[str, ...] = ()
    media: str = "application/json"
    examples: tuple[Example, ...] = ()
    admin_token: bool = False
    operator: bool = False
    approval: bool = False
    flag: str = ""

    @property
    def codes(self) -> tuple[str, ...]:
        """Every error code this route can answer, sorted."""
        codes = {*self.refusals, "ERR_INTERNAL", "ERR_METHOD"}
        if self.scope is not None:
            codes |= _KEYED
        if self.names is not None:
            codes.add("ERR_NOT_FOUND")
        if self.admin_token:
            codes.add("ERR_ADMIN_TOKEN")
        if self.approval:
            codes |= {"ERR_APPROVAL_REQUIRED", "ERR_APPROVAL_USED", "ERR_SELF_APPROVAL"}
        if self.flag:
            codes.add("ERR_FLAG_OFF")
        if self.function in ("api", "route", "govern", "defend"):
            codes |= {"ERR_QUERY", "ERR_ORIGIN"}
        if any(param.kind == "cursor" for param in self.query):
            codes.add("ERR_CURSOR")
        if self.request is not None:
            codes |= _BODY
        return tuple(sorted(codes))


_KEYED: Final = frozenset(
    (
        *("ERR_AUTH_AMBIGUOUS", "ERR_AUTH_ENV", "ERR_AUTH_INVALID", "ERR_AUTH_MISSING", "ERR_AUTH_REPLAY"),
        *("ERR_AUTH_REVOKED", "ERR_HEADERS_TOO_LARGE", "ERR_PROJECT_DELETED", "ERR_QUARANTINED"),
        *("ERR_RATE_LIMITED", "ERR_SCOPE", "ERR_SIG_INVALID", "ERR_SIG_TIME", "ERR_UNAVAILABLE"),
    )
)
_BODY: Final = frozenset(
    (
        *("ERR_BODY_ENCODING", "ERR_BODY_REQUIRED", "ERR_BODY_TOO_LARGE", "ERR_CONTENT_TYPE"),
        *("ERR_DECOMPRESSED_TOO_LARGE", "ERR_JSON_DEPTH", "ERR_JSON_DUPLICATE_KEY", "ERR_JSON_ENCODING"),
        *("ERR_JSON_NONFINITE", "ERR_JSON_NUMBER_RANGE", "ERR_JSON_SIZE", "ERR_JSON_SYNTAX", "ERR_SCHEMA"),
    )
)

# What the examples name. The tests' sample world holds exactly these.
EXAMPLE_EVENT: Final = "evt_t6rc23lc4gx6wz7scjuwhupaw5"
EXAMPLE_INCIDENT: Final = "inc_019a9f00-0000-7000-8000-000000000002"
EXAMPLE_OTHER_INCIDENT: Final = "inc_019a9f00-0000-7000-8000-000000000001"
EXAMPLE_CHANNEL: Final = "chn_019a9f00-0000-7000-8000-000000000003"
EXAMPLE_PROJECT: Final = "demo"
EXAMPLE_KEY: Final = "key_4Yx0exampleK"
EXAMPLE_PERSON: Final = "per_019a9f00-0000-7000-8000-000000000004"
EXAMPLE_APPROVAL: Final = "apr_019a9f00-0000-7000-8000-000000000005"
EXAMPLE_ENTRY: Final = "2"
EXAMPLE_OTHER_PROJECT: Final = "shop"
EXAMPLE_EXPORT: Final = "job_019a9f00-0000-7000-8000-000000000007"
EXAMPLE_DELETION: Final = "job_019a9f00-0000-7000-8000-000000000008"
EXAMPLE_PSEUDONYM: Final = "usr_mfzwizltoqqhg5dbojzs4mzom5"
EXAMPLE_CONTRACT: Final = "mailer"
EXAMPLE_DECISION: Final = "dec_019a9f00-0000-7000-8000-000000000009"
EXAMPLE_MITIGATION: Final = "mit_019a9f00-0000-7000-8000-00000000000a"
EXAMPLE_QUARANTINE: Final = "qua_019a9f00-0000-7000-8000-000000000009"
EXAMPLE_SILENCE: Final = "0d0c7c43-6f4f-4c5b-8a53-5a51a3a5d6f5"

_PAGE: Final = (
    Param("limit", "limit", f"Items per page, 1 to {MAX_LIMIT}; {DEFAULT_LIMIT} when left out.", "25"),
    Param("cursor", "cursor", "meta.next_cursor of the page before; valid for the same query only.", ""),
)
_TIMES: Final = (
    Param("from", "time", "Not before this time (RFC 3339 with offset).", "2026-11-20T00:00:00Z"),
    Param("to", "time", "Before this time (RFC 3339 with offset).", "2026-11-21T00:00:00Z"),
)
_ENTITY: Final = Param("entity", "text", "Exact entity, written type:id, or its id alone.", "service:payments")
_TAG: Final = Param("tag", "tag", "Tag, written key:value; all of several must hold.", "env:prod", repeatable=True)
_TIER: Final = Param("tier", "choice", "Tier of the score.", "high", choices=TIERS)
_WORDS: Final = Param("q", "text", "Each word is the beginning of a word of the title, in any case.", "pay time")
_EVENT_STATUS: Final = ("firing", "acknowledged", "resolved")
_CONTRACT_STATES: Final = ("draft", "active", "draining", "retired")
_FORMS: Final = ("short", "full")
_JOURNALS: Final = ("project", "deployment")
_DECISIONS: Final = ("pending", "delivered", "retrying", "withheld", "failed")
_INCIDENT_STATUS: Final = ("open", "acknowledged", "resolved", "merged")
_SOURCE: Final = Param("source", "text", "Which source is meant when several sent this id.", "checkout")


def _aliases(path: str, old: str | None = None) -> tuple[str, ...]:
    """Older names of a /v1 path: under /api, and at the root (or under `old`) where there was one."""
    rest = path.removeprefix("/v1")
    return (f"/api{rest}",) if old is None else (f"{old}{rest}", f"/api{rest}")


def _open(
    path: str,
    operation: str,
    summary: str,
    description: str,
    response: str,
    media: str = "application/json",
    aliases: tuple[str, ...] = (),
    success: tuple[int, ...] = (200,),
) -> Route:
    """A route that anybody may read, answered by the public function."""
    return Route(
        "GET",
        path,
        operation,
        "open",
        summary,
        description,
        None,
        "public",
        response,
        aliases=aliases,
        media=media,
        success=success,
        examples=(Example("read", summary),),
    )


def _sender(
    path: str,
    operation: str,
    summary: str,
    *,
    method: str = "POST",
    aliases: tuple[str, ...] = (),
    success: tuple[int, ...] = (200,),
) -> Route:
    """An address of a connector (docs/connectors.md). Reads and answers in the sender's dialect, refusals included."""
    return Route(
        method,
        path,
        operation,
        "senders",
        summary,
        "Address, credentials, payload and answers are the sender's own; connectors.md shows how to point it here.",
        "ingest:write",
        "connect",
        "dialect",
        aliases=aliases,
        request="Payload",
        success=success,
        examples=(Example("as sent", "Requests of real senders are kept beside each mapping.", status=success[0]),),
    )


def _alertmanager(
    method: str, rest: str, operation: str, summary: str, scope: str, names: str | None = None, request: bool = False
) -> Route:
    """The Alertmanager v2 API besides posting alerts, for amtool, Grafana and Karma."""
    return Route(
        method,
        f"/alertmanager/api/v2/{rest}",
        operation,
        "senders",
        summary,
        "As in Alertmanager's openapi.yaml, refusals included.",
        scope,
        "connect",
        "dialect",
        names=names,
        request="Payload" if request else None,
        examples=(Example("as in amtool", summary, id=EXAMPLE_SILENCE if names else None),),
    )


#: A contract as an owner sends it, what a caller may ask, and a policy: bodies of the examples.
_MAILER: Final[Mapping[str, Any]] = {
    "name": "mailer",
    "version": 2,
    "capabilities": ["mail.send"],
    "input": {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]},
    "output": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
    "scopes": ["mail.send"],
    "data_class": {"level": "confidential", "tags": ["eu", "gdpr"]},
    "trust": 80,
    "cost_pusd": 400_000_000,
    "latency_us": 250_000,
    "error_ppb": 1_000_000,
    "deterministic": False,
    "lease_ms": 30_000,
    "endpoint": "https://mailer.example.com/call",
}
_ASKED: Final[Mapping[str, Any]] = {
    "capabilities": ["mail.send"],
    "scopes": ["mail.send"],
    "input": {"type": "object", "properties": {"to": {"type": "string", "maxLength": 254}}, "required": ["to"]},
    "output": {"type": "object"},
    "data_class": {"level": "internal", "tags": ["gdpr"]},
    "profile": "cheap",
}
_GOVERNED: Final[Mapping[str, Any]] = {
    "version": 3,
    "profiles": {"balanced": {"cost": 10, "latency": 10, "error": 10, "distrust": 10}},
    "rules": [
        {"id": "anyone", "effect": "permit", "when": ["value", True]},
        {
            "id": "gdpr-needs-trust",
            "effect": "forbid",
            "when": [
                "and",
                ["in", ["value", "gdpr"], ["request", "tags"]],
                ["le", ["service", "trust"], ["value", 49]],
            ],
        },
    ],
}


def _decision(
    method: str,
    path: str,
    operation: str,
    summary: str,
    description: str,
    scope: str,
    response: str,
    example: Example,
    *,
    function: Function = "route",
    refusals: tuple[str, ...] = (),
    **rest: Any,
) -> Route:
    """A route of contracts, policies or decisions."""
    return Route(
        method,
        path,
        operation,
        "decisions",
        summary,
        description,
        scope,
        function,
        response,
        success=(example.status,),
        refusals=refusals,
        examples=(example,),
        **rest,
    )


def _version(
    method: str,
    rest: str,
    operation: str,
    summary: str,
    description: str,
    scope: str,
    response: str,
    example: Example,
    **more: Any,
) -> Route:
    """A route of one version of a contract."""
    path, more = f"/v1/contracts/{{id}}/versions/{{version}}{rest}", {"names": "contract", "within": "version", **more}
    return _decision(method, path, operation, summary, description, scope, response, example, **more)


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/v1/events",
        "send_events",
        "events",
        "Send events",
        "One event, an array, or NDJSON, plain or gzip; CloudEvents 1.0 structured, batched or binary. A "
        "resend of the "
        "same (source, id) has one effect. 202 when every item was accepted or is a duplicate, 207 when "
        "some were "
        "refused. The same handler answers behind the Function URL for bulk.",
        "ingest:write",
        "ingest",
        "Accepted",
        aliases=("/v1/events:batch", "/events"),
        request="EventInput",
        success=(202, 207),
        refusals=(
            *("ERR_BATCH_TOO_LARGE", "ERR_EVENT_TOO_LARGE", "ERR_IDEMPOTENCY_MISMATCH", "ERR_PARTIAL"),
            *("ERR_READONLY_FIELD", "ERR_TIMESTAMP_RANGE", "ERR_URL"),
        ),
        examples=(
            Example(
                "one event",
                "A payment service is slow.",
                status=202,
                body={
                    "id": "pay-4711",
                    "source": "checkout",
                    "type": "latency.high",
                    "title": "Payment latency above 2 s",
                    "occurred_at": "2026-11-20T10:20:30.456Z",
                    "entity": {"type": "service", "id": "payments"},
                    "tags": {"env": "prod", "region": "eu-central-1"},
                    "metrics": {"p99_ms": 2350},
                    "severity_raw": "critical",
                },
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/events",
        "list_events",
        "events",
        "List events",
        "Newest first. One request reads a bounded part of the log: a page may hold fewer items than asked "
        "for, even "
        "none, and still have meta.next_cursor; meta.scanned counts the segments that were opened.",
        "events:read",
        "api",
        "EventPage",
        aliases=_aliases("/v1/events", ""),
        query=(
            *_TIMES,
            Param("source", "text", "Exact source.", "checkout"),
            _ENTITY,
            Param("type", "text", "Exact event type.", "latency.high"),
            _TAG,
            _TIER,
            Param("status", "choice", "Status the sender gave.", "firing", choices=_EVENT_STATUS),
            _WORDS,
            *_PAGE,
        ),
        examples=(
            Example("newest", "The newest events.", query=(("limit", "2"),)),
            Example(
                "filtered",
                "High events of one source in production whose title has words beginning with pay and lat.",
                query=(("source", "checkout"), ("tag", "env:prod"), ("tier", "high"), ("q", "pay lat")),
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/events/{id}",
        "get_event",
        "events",
        "Read an event",
        "By the server's id (evt_…) or the sender's own. A sender's id used by several sources needs ?source=.",
        "events:read",
        "api",
        "EventAnswer",
        aliases=_aliases("/v1/events/{id}", ""),
        names="event",
        query=(_SOURCE,),
        refusals=("ERR_AMBIGUOUS",),
        examples=(
            Example("server id", "By the server's id.", id=EXAMPLE_EVENT),
            Example("sender id", "By the sender's id and source.", id="pay-4711", query=(("source", "checkout"),)),
        ),
    ),
    Route(
        "GET",
        "/v1/events/{id}/explain",
        "explain_event",
        "events",
        "Explain a score",
        "The contributions of an event's score in words and exact numbers; they sum to the logit of the score.",
        "events:read",
        "api",
        "ExplainAnswer",
        aliases=_aliases("/v1/events/{id}/explain", ""),
        names="event",
        query=(_SOURCE,),
        refusals=("ERR_AMBIGUOUS",),
        examples=(Example("explained", "Why this score.", id=EXAMPLE_EVENT),),
    ),
    Route(
        "GET",
        "/v1/refusals",
        "list_refusals",
        "events",
        "List events refused after they were accepted",
        "An event whose id was in flight with other content was answered accepted; once the first one is stored, the "
        "other is refused and listed here for seven days.",
        "events:read",
        "api",
        "RefusalPage",
        aliases=_aliases("/v1/refusals"),
        query=_PAGE,
        examples=(Example("newest", "What was refused lately."),),
    ),
    Route(
        "GET",
        "/v1/incidents",
        "list_incidents",
        "incidents",
        "List incidents",
        "Most recently opened first; from and to bound the time of opening.",
        "incidents:read",
        "api",
        "IncidentPage",
        aliases=_aliases("/v1/incidents", ""),
        query=(
            *_TIMES,
            Param("source", "text", "A source of any member.", "checkout"),
            _ENTITY,
            Param("service", "text", "A service of any member.", "payments"),
            _TAG,
            _TIER,
            Param("status", "choice", "Where the incident stands.", "open", choices=_INCIDENT_STATUS),
            _WORDS,
            *_PAGE,
        ),
        examples=(
            Example("open", "Incidents that are open.", query=(("status", "open"),)),
            Example("by entity", "Incidents that touch one service.", query=(("entity", "service:payments"),)),
        ),
    ),
    Route(
        "GET",
        "/v1/incidents/{id}",
        "get_incident",
        "incidents",
        "Read an incident",
        "With a page of its members (limit and cursor turn it), the reasons that tied them, the timeline "
        "and a hint at "
        "the root. A merged incident answers with merged_into. ETag holds the version.",
        "incidents:read",
        "api",
        "IncidentDetail",
        aliases=_aliases("/v1/incidents/{id}", ""),
        names="incident",
        query=_PAGE,
        examples=(Example("one incident", "With its first members.", id=EXAMPLE_INCIDENT),),
    ),
    Route(
        "PATCH",
        "/v1/incidents/{id}",
        "change_incident",
        "incidents",
        "Acknowledge, resolve, reopen, judge or annotate an incident",
        "Send at least one of status, verdict and note. With If-Match or version, a version that is no "
        "longer current "
        "is refused (409 ERR_CONFLICT), as is a change the incident's status does not allow.",
        "incidents:write",
        "api",
        "IncidentAnswer",
        aliases=_aliases("/v1/incidents/{id}", ""),
        names="incident",
        request="IncidentChange",
        refusals=("ERR_CONFLICT", "ERR_READONLY_FIELD"),
        examples=(
            Example("acknowledge", "Somebody looks.", id=EXAMPLE_INCIDENT, body={"status": "acknowledged"}),
            Example(
                "resolve with verdict",
                "It is over, and it was real.",
                id=EXAMPLE_INCIDENT,
                body={"status": "resolved", "verdict": "useful", "note": "Pool was too small."},
            ),
        ),
    ),
    Route(
        "POST",
        "/v1/incidents/{id}/merge",
        "merge_incidents",
        "incidents",
        "Merge incidents",
        "Merges the incidents named in the body into one with {id}. The survivor is the one whose first "
        "event is "
        "earliest, whichever was named first. A merge by a person is never undone by correlation.",
        "incidents:write",
        "api",
        "IncidentAnswer",
        aliases=_aliases("/v1/incidents/{id}/merge", ""),
        names="incident",
        request="IncidentMerge",
        refusals=("ERR_CONFLICT",),
        examples=(
            Example(
                "merge two",
                "Same trouble.",
                id=EXAMPLE_INCIDENT,
                body={"incidents": [EXAMPLE_OTHER_INCIDENT]},
            ),
        ),
    ),
    Route(
        "POST",
        "/v1/incidents/{id}/split",
        "split_incident",
        "incidents",
        "Split an incident",
        "Moves the named members into a new incident. A split by a person is never undone by correlation.",
        "incidents:write",
        "api",
        "SplitAnswer",
        aliases=_aliases("/v1/incidents/{id}/split", ""),
        names="incident",
        request="IncidentSplit",
        success=(201,),
        refusals=("ERR_BATCH_TOO_LARGE", "ERR_CONFLICT"),
        examples=(
            Example(
                "split one off",
                "Another matter.",
                id=EXAMPLE_INCIDENT,
                status=201,
                body={"events": [EXAMPLE_EVENT], "note": "Unrelated deploy."},
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/topology",
        "get_topology",
        "topology",
        "Read the declared topology",
        "Which service depends on which; empty until one is declared. ETag holds the version.",
        "topology:read",
        "api",
        "TopologyAnswer",
        aliases=_aliases("/v1/topology"),
        examples=(Example("declared", "As declared last."),),
    ),
    Route(
        "PUT",
        "/v1/topology",
        "put_topology",
        "topology",
        "Declare the topology",
        "Replaces the whole declaration. Events are correlated with it from the next commit on.",
        "topology:write",
        "api",
        "TopologyAnswer",
        aliases=_aliases("/v1/topology"),
        request="TopologyInput",
        refusals=("ERR_CONFLICT",),
        examples=(
            Example(
                "a chain of three",
                "checkout needs payments, payments needs a database.",
                body={
                    "services": {
                        "checkout": {"deps": ["payments"]},
                        "payments": {"deps": ["ledger-db"], "criticality": 0.9},
                        "ledger-db": {"nodes": ["db-1"]},
                    }
                },
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/calibration",
        "get_calibration",
        "calibration",
        "Read calibrations",
        "Kept versions, newest first, with the reliability diagram, Brier score and expected calibration error of each "
        "source before and after, all cross-validated. ETag holds the version.",
        "events:read",
        "api",
        "CalibrationAnswer",
        aliases=_aliases("/v1/calibration"),
        examples=(Example("as learned", "Versions and figures."),),
    ),
    Route(
        "POST",
        "/v1/calibration",
        "fit_calibration",
        "calibration",
        "Learn from verdicts",
        "Fits a calibrator per source to the verdicts on the newest 500 judged incidents and uses it from the next "
        "commit on. A source with fewer than ten, or whose cross-validated Brier score does not improve, keeps what "
        "it has. 409 ERR_CONFLICT while no source has enough.",
        "events:write",
        "api",
        "CalibrationAnswer",
        aliases=_aliases("/v1/calibration"),
        request="CalibrationFit",
        refusals=("ERR_CONFLICT",),
        examples=(Example("learn", "From all verdicts so far.", body={}),),
    ),
    Route(
        "POST",
        "/v1/calibration/rollback",
        "roll_back_calibration",
        "calibration",
        "Go back to another calibration",
        "Uses a kept version from the next commit on: the one named, or the one that was active before. Scores that "
        "were given stay as they were given.",
        "events:write",
        "api",
        "CalibrationAnswer",
        aliases=_aliases("/v1/calibration/rollback"),
        request="CalibrationReturn",
        refusals=("ERR_CONFLICT",),
        examples=(Example("none", "Scores as they are without any.", body={"to": 0}),),
    ),
    Route(
        "GET",
        "/v1/projects",
        "list_projects",
        "access",
        "List projects",
        "The caller's own; for administrators of the operator's project every one.",
        "admin:read",
        "api",
        "ProjectPage",
        aliases=_aliases("/v1/projects"),
        examples=(Example("own", "What the caller may see."),),
    ),
    Route(
        "POST",
        "/v1/projects",
        "create_project",
        "access",
        "Create a project",
        "For administrators of the operator's project only. The answer holds the project's first key, which may do "
        "what the caller's may and is shown this once.",
        "admin:write",
        "api",
        "ProjectMade",
        aliases=_aliases("/v1/projects"),
        request="ProjectInput",
        success=(201,),
        refusals=("ERR_APPROVAL_REQUIRED", "ERR_CONFLICT", "ERR_READONLY_FIELD"),
        examples=(
            Example("with a quota", "A shop.", status=201, body={"name": "shop", "quota": {"events_per_second": 500}}),
        ),
    ),
    Route(
        "GET",
        "/v1/projects/{id}",
        "get_project",
        "access",
        "Read a project",
        "Name, settings and quota. ETag holds the version.",
        "admin:read",
        "api",
        "ProjectAnswer",
        aliases=_aliases("/v1/projects/{id}"),
        names="project",
        examples=(Example("own", "The caller's project.", id=EXAMPLE_PROJECT),),
    ),
    Route(
        "PATCH",
        "/v1/projects/{id}",
        "change_project",
        "access",
        "Change a project",
        "Name and settings are the project's to change, quota and status the operator's. Turning redaction off needs "
        "the approval of a second person, whose id travels in X-Approval.",
        "admin:write",
        "api",
        "ProjectAnswer",
        aliases=_aliases("/v1/projects/{id}"),
        names="project",
        request="ProjectChange",
        refusals=(
            *("ERR_APPROVAL_REQUIRED", "ERR_APPROVAL_USED", "ERR_CONFLICT", "ERR_READONLY_FIELD"),
            "ERR_SELF_APPROVAL",
        ),
        examples=(
            Example(
                "redact more",
                "Values under this name are never stored.",
                id=EXAMPLE_PROJECT,
                body={"settings": {"redact_keys": ["customer_no"]}},
            ),
        ),
    ),
    Route(
        "DELETE",
        "/v1/projects/{id}",
        "delete_project",
        "privacy",
        "Delete a project",
        "By its own administrators, or the operator's. It stops at once; its data keys are destroyed first, then every "
        "store is swept. The receipt is the operator's to read, because the project's own keys end with it.",
        "admin:write",
        "api",
        "JobAnswer",
        aliases=_aliases("/v1/projects/{id}"),
        names="project",
        success=(202,),
        refusals=("ERR_CONFLICT",),
        approval=True,
        examples=(Example("delete", "A customer leaves.", id=EXAMPLE_OTHER_PROJECT, status=202),),
    ),
    Route(
        "POST",
        "/v1/projects/{id}/exports",
        "create_export",
        "privacy",
        "Export a project",
        "Everything the project holds, as gzip NDJSON files and a manifest with their hashes. The files are removed "
        "after seven days.",
        "admin:write",
        "api",
        "JobAnswer",
        aliases=_aliases("/v1/projects/{id}/exports"),
        names="project",
        success=(202,),
        refusals=("ERR_CONFLICT",),
        approval=True,
        examples=(Example("export", "Begin one.", id=EXAMPLE_PROJECT, status=202),),
    ),
    Route(
        "GET",
        "/v1/projects/{id}/exports/{job}",
        "get_export",
        "privacy",
        "Read an export",
        "Its status and, once it is done, its files with links that work for five minutes.",
        "admin:read",
        "api",
        "ExportAnswer",
        aliases=_aliases("/v1/projects/{id}/exports/{job}"),
        names="project",
        within="job",
        examples=(Example("done", "With its files.", id=EXAMPLE_PROJECT, part=EXAMPLE_EXPORT),),
    ),
    Route(
        "POST",
        "/v1/projects/{id}/subjects",
        "find_subject",
        "privacy",
        "Find a person's pseudonym",
        "The word that stands for a user identifier in this project; nothing is stored and nothing is looked up.",
        "admin:write",
        "api",
        "SubjectAnswer",
        aliases=_aliases("/v1/projects/{id}/subjects"),
        names="project",
        request="SubjectInput",
        examples=(Example("an address", "In any case.", id=EXAMPLE_PROJECT, body={"value": "Ada@example.com"}),),
    ),
    Route(
        "DELETE",
        "/v1/projects/{id}/subjects/{pseudonym}",
        "erase_subject",
        "privacy",
        "Erase a person",
        "Puts one word, the same for everybody, in the place of a pseudonym wherever it is stored.",
        "admin:write",
        "api",
        "JobAnswer",
        aliases=_aliases("/v1/projects/{id}/subjects/{pseudonym}"),
        names="project",
        within="pseudonym",
        success=(202,),
        refusals=("ERR_CONFLICT",),
        approval=True,
        examples=(Example("erase", "She asked for it.", id=EXAMPLE_PROJECT, part=EXAMPLE_PSEUDONYM, status=202),),
    ),
    Route(
        "GET",
        "/v1/projects/{id}/receipts/{job}",
        "get_receipt",
        "privacy",
        "Read a receipt",
        "What a deletion, an erasure or a retention run removed from each store and what is left, as JSON and as a "
        "JWS that the keys of GET /v1/tokens/keys verify. 409 while the job has not been through once.",
        "admin:read",
        "api",
        "ReceiptAnswer",
        aliases=_aliases("/v1/projects/{id}/receipts/{job}"),
        names="project",
        within="job",
        refusals=("ERR_CONFLICT",),
        examples=(Example("deletion", "Of a project.", id=EXAMPLE_OTHER_PROJECT, part=EXAMPLE_DELETION),),
    ),
    Route(
        "GET",
        "/v1/keys",
        "list_keys",
        "access",
        "List keys",
        "Prefix, last four characters, scopes, and when each was made, last used and ends; never a key's text.",
        "admin:read",
        "api",
        "KeyPage",
        aliases=_aliases("/v1/keys"),
        examples=(Example("all", "Every key of the project."),),
    ),
    Route(
        "POST",
        "/v1/keys",
        "create_key",
        "access",
        "Create a key",
        "At most with the scopes of the key that makes it, and for as long. The text is in this answer and nowhere "
        "else.",
        "admin:write",
        "api",
        "KeySecretAnswer",
        aliases=_aliases("/v1/keys"),
        request="KeyInput",
        success=(201,),
        refusals=("ERR_CONFLICT", "ERR_READONLY_FIELD"),
        examples=(
            Example("sender", "May send events, nothing else.", status=201, body={"name": "checkout"}),
            Example(
                "signing server",
                "Signs its requests, until next year.",
                status=201,
                body={
                    "name": "batch",
                    "scopes": ["ingest:write"],
                    "expires_at": "2027-01-01T00:00:00Z",
                    "signing": True,
                },
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/keys/{id}",
        "get_key",
        "access",
        "Read a key",
        "Without its text.",
        "admin:read",
        "api",
        "KeyAnswer",
        aliases=_aliases("/v1/keys/{id}"),
        names="key",
        examples=(Example("one key", "A sender's key.", id=EXAMPLE_KEY),),
    ),
    Route(
        "PATCH",
        "/v1/keys/{id}",
        "change_key",
        "access",
        "Rename a key or let it end sooner",
        "Scopes, owner and project of a key never change: make another one.",
        "admin:write",
        "api",
        "KeyAnswer",
        aliases=_aliases("/v1/keys/{id}"),
        names="key",
        request="KeyChange",
        refusals=("ERR_CONFLICT", "ERR_READONLY_FIELD"),
        examples=(Example("rename", "A better name.", id=EXAMPLE_KEY, body={"name": "checkout, old"}),),
    ),
    Route(
        "POST",
        "/v1/keys/{id}/rotate",
        "rotate_key",
        "access",
        "Replace a key",
        "A new key of the same name, scopes and owner; the old one ends after the overlap. Takes a caller that holds "
        "every scope of the key.",
        "admin:write",
        "api",
        "KeySecretAnswer",
        aliases=_aliases("/v1/keys/{id}/rotate"),
        names="key",
        request="KeyRotation",
        success=(201,),
        refusals=("ERR_CONFLICT", "ERR_READONLY_FIELD"),
        examples=(
            Example("within an hour", "The old one goes on for 3,600 s.", EXAMPLE_KEY, (), {"overlap_s": 3600}, 201),
        ),
    ),
    Route(
        "DELETE",
        "/v1/keys/{id}",
        "revoke_key",
        "access",
        "Revoke a key",
        "It ends everywhere within 30 seconds, on administrative routes at once. Answers which keys ended now.",
        "admin:write",
        "api",
        "KeysRevoked",
        aliases=_aliases("/v1/keys/{id}"),
        names="key",
        query=(
            Param(
                "descendants", "choice", "Whether keys made by way of it end too.", "true", choices=("true", "false")
            ),
        ),
        examples=(Example("with descendants", "Gone.", id=EXAMPLE_KEY, query=(("descendants", "true"),)),),
    ),
    Route(
        "GET",
        "/v1/people",
        "list_people",
        "access",
        "List people",
        "Whom keys belong to, and the most they may do.",
        "admin:read",
        "api",
        "PersonPage",
        aliases=_aliases("/v1/people"),
        examples=(Example("all", "Removed ones included."),),
    ),
    Route(
        "POST",
        "/v1/people",
        "add_person",
        "access",
        "Add a person",
        "With at most the scopes of the caller. Keys made with this person as owner do what both allow.",
        "admin:write",
        "api",
        "PersonAnswer",
        aliases=_aliases("/v1/people"),
        request="PersonInput",
        success=(201,),
        refusals=("ERR_CONFLICT", "ERR_READONLY_FIELD"),
        examples=(Example("a sender", "May send.", status=201, body={"name": "Ada", "scopes": ["ingest:write"]}),),
    ),
    Route(
        "PATCH",
        "/v1/people/{id}",
        "change_person",
        "access",
        "Change a person's name or role",
        "A role may always shrink; it grows by what the caller holds.",
        "admin:write",
        "api",
        "PersonAnswer",
        aliases=_aliases("/v1/people/{id}"),
        names="person",
        request="PersonChange",
        refusals=("ERR_CONFLICT", "ERR_READONLY_FIELD"),
        examples=(Example("rename", "She married.", id=EXAMPLE_PERSON, body={"name": "Grace B. Hopper"}),),
    ),
    Route(
        "DELETE",
        "/v1/people/{id}",
        "remove_person",
        "access",
        "Remove a person",
        "Their keys and tokens do nothing from then on: on administrative routes at once, elsewhere within 30 seconds.",
        "admin:write",
        "api",
        "PersonAnswer",
        aliases=_aliases("/v1/people/{id}"),
        names="person",
        refusals=("ERR_CONFLICT",),
        examples=(Example("remove", "Left the company.", id=EXAMPLE_PERSON),),
    ),
    Route(
        "GET",
        "/v1/approvals",
        "list_approvals",
        "access",
        "List approvals",
        "Newest first.",
        "approvals:read",
        "api",
        "ApprovalPage",
        aliases=_aliases("/v1/approvals"),
        query=_PAGE,
        examples=(Example("newest", "What was asked lately."),),
    ),
    Route(
        "POST",
        "/v1/approvals",
        "request_approval",
        "access",
        "Ask a second person to approve one request",
        "Describes the request exactly as it will be sent. It is good once, for 24 hours, for the caller alone.",
        "approvals:write",
        "api",
        "ApprovalAnswer",
        aliases=_aliases("/v1/approvals"),
        request="ApprovalInput",
        success=(201,),
        refusals=("ERR_CONFLICT", "ERR_READONLY_FIELD"),
        examples=(
            Example(
                "redaction off",
                "For a test of what senders send.",
                status=201,
                body={
                    "request": {
                        "method": "PATCH",
                        "path": f"/v1/projects/{EXAMPLE_PROJECT}",
                        "body": {"settings": {"redaction": "off"}},
                    },
                    "reason": "synthetic data only",
                },
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/approvals/{id}",
        "get_approval",
        "access",
        "Read an approval",
        "What is to be approved, by whom it was asked, and what became of it.",
        "approvals:read",
        "api",
        "ApprovalAnswer",
        aliases=_aliases("/v1/approvals/{id}"),
        names="approval",
        examples=(Example("pending", "Not yet decided.", id=EXAMPLE_APPROVAL),),
    ),
    Route(
        "POST",
        "/v1/approvals/{id}/approve",
        "approve",
        "access",
        "Approve a request",
        "By a person who has no part in the requester's keys (403 ERR_SELF_APPROVAL).",
        "approvals:approve",
        "api",
        "ApprovalAnswer",
        aliases=_aliases("/v1/approvals/{id}/approve"),
        names="approval",
        request="Decision",
        refusals=("ERR_APPROVAL_USED", "ERR_SELF_APPROVAL"),
        examples=(Example("approve", "Go ahead.", id=EXAMPLE_APPROVAL, body={"note": "seen the data"}),),
    ),
    Route(
        "POST",
        "/v1/approvals/{id}/reject",
        "reject",
        "access",
        "Reject or withdraw a request",
        "By somebody who may approve, or by who asked.",
        "approvals:write",
        "api",
        "ApprovalAnswer",
        aliases=_aliases("/v1/approvals/{id}/reject"),
        names="approval",
        request="Decision",
        refusals=("ERR_APPROVAL_USED",),
        examples=(Example("reject", "Rather not.", id=EXAMPLE_APPROVAL, body={}),),
    ),
    Route(
        "POST",
        "/v1/tokens",
        "create_token",
        "access",
        "Get a token",
        "A short-lived JWT for people and the console, with all of the caller's scopes or some. With `request`, an "
        "admin token that allows this one request once. A caller that came with a token gets none.",
        "tokens:write",
        "api",
        "TokenAnswer",
        aliases=_aliases("/v1/tokens"),
        request="TokenInput",
        success=(201,),
        examples=(
            Example("access token", "Five minutes.", status=201, body={"life_s": 300}),
            Example(
                "admin token",
                "For one request.",
                status=201,
                body={
                    "request": {"method": "POST", "path": "/v1/tokens/keys/rotate", "body": {"compromised": True}},
                },
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/tokens/keys",
        "list_token_keys",
        "access",
        "Public keys of tokens",
        "A JWK Set (RFC 7517) with every key that is trusted or about to sign.",
        "tokens:read",
        "api",
        "object",
        aliases=_aliases("/v1/tokens/keys"),
        media="application/jwk-set+json",
        examples=(Example("keys", "For those who check tokens themselves."),),
    ),
    Route(
        "POST",
        "/v1/tokens/keys/rotate",
        "rotate_token_keys",
        "access",
        "Begin a new signing key of tokens",
        "For administrators of the operator's project only. It signs five minutes from now, the old one is trusted "
        "until its last token has ended; when compromised, at once.",
        "admin:write",
        "api",
        "TokenKeysAnswer",
        aliases=_aliases("/v1/tokens/keys/rotate"),
        request="TokenKeysRotation",
        success=(201,),
        refusals=("ERR_CONFLICT",),
        examples=(Example("rotate", "As a routine.", status=201, body={}),),
        admin_token=True,
        operator=True,
    ),
    Route(
        "GET",
        "/v1/usage",
        "get_usage",
        "access",
        "Read usage",
        "Events and bytes as stored, and LLM tokens, by UTC day; the last 30 days unless from and to say otherwise, at "
        "most 92.",
        "admin:read",
        "api",
        "UsageAnswer",
        aliases=_aliases("/v1/usage"),
        query=_TIMES,
        examples=(
            Example("a day", "One day.", query=(("from", "2026-11-20T00:00:00Z"), ("to", "2026-11-21T00:00:00Z"))),
        ),
    ),
    Route(
        "GET",
        "/v1/channels",
        "list_channels",
        "delivery",
        "List channels",
        "Where notifications can go. Secrets are never shown.",
        "notify:read",
        "api",
        "ChannelPage",
        aliases=_aliases("/v1/channels", "/notify"),
        examples=(Example("all", "Every channel of the project."),),
    ),
    Route(
        "POST",
        "/v1/channels",
        "create_channel",
        "delivery",
        "Create a channel",
        "The signing secret of a webhook channel is in this answer and nowhere else.",
        "notify:write",
        "api",
        "ChannelSecretAnswer",
        aliases=_aliases("/v1/channels", "/notify"),
        request="ChannelInput",
        success=(201,),
        refusals=("ERR_CONFLICT", "ERR_EGRESS_DENIED", "ERR_READONLY_FIELD", "ERR_URL"),
        examples=(
            Example(
                "webhook",
                "A signed webhook.",
                status=201,
                body={"name": "on-call", "kind": "webhook", "url": "https://hooks.example.com/tocsin"},
            ),
            Example(
                "e-mail",
                "Mail to a team.",
                status=201,
                body={"name": "team mail", "kind": "email", "to": ["oncall@example.com"]},
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/channels/{id}",
        "get_channel",
        "delivery",
        "Read a channel",
        "Without its secret.",
        "notify:read",
        "api",
        "ChannelAnswer",
        aliases=_aliases("/v1/channels/{id}", "/notify"),
        names="channel",
        examples=(Example("one channel", "A webhook channel.", id=EXAMPLE_CHANNEL),),
    ),
    Route(
        "PATCH",
        "/v1/channels/{id}",
        "change_channel",
        "delivery",
        "Change a channel",
        "What is left out stays. The kind of a channel never changes; its secret does by rotation only. "
        "Enabling a "
        "channel again forgets why it was disabled.",
        "notify:write",
        "api",
        "ChannelAnswer",
        aliases=_aliases("/v1/channels/{id}", "/notify"),
        names="channel",
        request="ChannelChange",
        refusals=("ERR_CONFLICT", "ERR_EGRESS_DENIED", "ERR_READONLY_FIELD", "ERR_URL"),
        examples=(Example("disable", "Keep it, but send nothing.", id=EXAMPLE_CHANNEL, body={"enabled": False}),),
    ),
    Route(
        "DELETE",
        "/v1/channels/{id}",
        "delete_channel",
        "delivery",
        "Delete a channel",
        "Refused while a routing rule still names it (409 ERR_CONFLICT).",
        "notify:write",
        "api",
        "Deleted",
        aliases=_aliases("/v1/channels/{id}", "/notify"),
        names="channel",
        refusals=("ERR_CONFLICT",),
        examples=(Example("delete", "Gone for good.", id=EXAMPLE_CHANNEL),),
    ),
    Route(
        "POST",
        "/v1/channels/{id}/test",
        "test_channel",
        "delivery",
        "Send a test notification",
        "Sends one now, outside rules and budget, and answers with what the receiver said.",
        "notify:write",
        "api",
        "DeliveryAnswer",
        aliases=_aliases("/v1/channels/{id}/test", "/notify"),
        names="channel",
        refusals=("ERR_EGRESS_DENIED",),
        examples=(Example("test", "Does it ring?", id=EXAMPLE_CHANNEL),),
    ),
    Route(
        "POST",
        "/v1/channels/{id}/rotate",
        "rotate_channel",
        "delivery",
        "Replace a webhook's signing secret",
        "The new secret is in this answer and nowhere else. 409 ERR_CONFLICT for a channel that signs nothing.",
        "notify:write",
        "api",
        "ChannelSecretAnswer",
        aliases=_aliases("/v1/channels/{id}/rotate", "/notify"),
        names="channel",
        refusals=("ERR_CONFLICT",),
        examples=(Example("rotate", "A new secret.", id=EXAMPLE_CHANNEL),),
    ),
    Route(
        "GET",
        "/v1/routing",
        "get_routing",
        "delivery",
        "Read the routing rules",
        "Rules in the order in which they are tried.",
        "notify:read",
        "api",
        "RoutingAnswer",
        aliases=_aliases("/v1/routing", "/notify"),
        examples=(Example("rules", "The rules in force."),),
    ),
    Route(
        "PUT",
        "/v1/routing",
        "put_routing",
        "delivery",
        "Replace the routing rules",
        "Every channel named must exist in the project.",
        "notify:write",
        "api",
        "RoutingAnswer",
        aliases=_aliases("/v1/routing", "/notify"),
        request="RoutingInput",
        refusals=("ERR_CONFLICT",),
        examples=(
            Example(
                "by tier",
                "High and critical incidents of production ring the on-call.",
                body={
                    "rules": [
                        {
                            "name": "production",
                            "when": {"tiers": ["high", "critical"], "tags": {"env": ["prod"]}},
                            "channels": [EXAMPLE_CHANNEL],
                        }
                    ]
                },
            ),
        ),
    ),
    Route(
        "POST",
        "/v1/routing/dry-run",
        "try_routing",
        "delivery",
        "Ask where a notification would go",
        "Evaluates the stored rules, or rules sent along, for an incident described in the body. Sends nothing.",
        "notify:read",
        "api",
        "DryRunAnswer",
        aliases=_aliases("/v1/routing/dry-run", "/notify"),
        request="DryRunInput",
        examples=(
            Example(
                "critical",
                "A critical incident in production.",
                body={"tier": "critical", "tags": {"env": ["prod"]}},
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/notifications",
        "list_notifications",
        "delivery",
        "List notifications",
        "What was sent, failed or withheld, and why. Newest first.",
        "notify:read",
        "api",
        "NotificationPage",
        aliases=("/notify", *_aliases("/v1/notifications", "/notify")),
        query=(
            Param("incident", "id", "Of this incident.", EXAMPLE_INCIDENT),
            Param("decision", "choice", "What became of it.", "withheld", choices=_DECISIONS),
            Param("channel", "id", "To this channel.", EXAMPLE_CHANNEL),
            *_PAGE,
        ),
        examples=(
            Example("of an incident", "Everything one incident caused.", query=(("incident", EXAMPLE_INCIDENT),)),
        ),
    ),
    Route(
        "GET",
        "/v1/journal",
        "list_journal",
        "journal",
        "List the journal",
        "Entries of your project as they were sealed, newest first: who did what to what, by digest and pseudonym. "
        "What was done in the last minute may still wait. With of=deployment, which needs admin:read, entries that "
        "belong to no project: healings, replays, keys.",
        "journal:read",
        "api",
        "JournalPage",
        aliases=_aliases("/v1/journal"),
        query=(
            *_TIMES,
            Param("kind", "text", "Exact kind.", "incident.acknowledged"),
            Param("actor", "text", "Exact actor: a key, a pseudonym, or a part of the system.", "system:correlate"),
            Param("of", "choice", "Whose entries; project when left out.", "project", choices=_JOURNALS),
            *_PAGE,
        ),
        examples=(
            Example("newest", "The newest entries.", query=(("limit", "2"),)),
            Example("by kind", "Who acknowledged what.", query=(("kind", "incident.acknowledged"),)),
        ),
    ),
    Route(
        "GET",
        "/v1/journal/checkpoint",
        "get_checkpoint",
        "journal",
        "Read the published checkpoint",
        "The signed head of the whole log (C2SP signed note): size, root and two signatures. Keep one, and nobody can "
        "rewrite what it covers without your noticing.",
        "journal:read",
        "api",
        "CheckpointAnswer",
        aliases=_aliases("/v1/journal/checkpoint"),
        refusals=("ERR_NOT_FOUND",),
        examples=(Example("published", "The checkpoint of now."),),
    ),
    Route(
        "GET",
        "/v1/journal/consistency",
        "prove_consistency",
        "journal",
        "Prove that the log only grew",
        "Proof (RFC 9162 section 2.1.4) that the tree of `first` entries is a prefix of the tree of `second`.",
        "journal:read",
        "api",
        "ConsistencyAnswer",
        aliases=_aliases("/v1/journal/consistency"),
        query=(
            Param("first", "number", "Entries of the older tree; 0 when left out.", "1"),
            Param("second", "number", "Entries of the newer tree; the published size when left out.", "3"),
        ),
        refusals=("ERR_NOT_FOUND",),
        examples=(Example("grown", "From one entry to three.", query=(("first", "1"), ("second", "3"))),),
    ),
    Route(
        "GET",
        "/v1/journal/entries/{id}",
        "get_journal_entry",
        "journal",
        "Read an entry with its proof",
        "By its number. The proof (RFC 9162 section 2.1.3) leads from the entry's hash to the root that the checkpoint "
        "signs; it holds hashes of other entries and nothing of what is in them. tools/journal_checker.py checks it.",
        "journal:read",
        "api",
        "InclusionAnswer",
        aliases=_aliases("/v1/journal/entries/{id}"),
        names="entry",
        examples=(Example("one entry", "An incident was acknowledged.", id=EXAMPLE_ENTRY),),
    ),
    Route(
        "GET",
        "/v1/healings",
        "list_healings",
        "operations",
        "List what the supervisor found and repaired",
        "Newest first. For administrators of the operator's project only.",
        "admin:read",
        "api",
        "HealingPage",
        aliases=_aliases("/v1/healings"),
        query=_PAGE,
        examples=(Example("newest", "The last repairs."),),
        operator=True,
    ),
    Route(
        "GET",
        "/api/health",
        "get_parts",
        "operations",
        "Health of every part",
        "One row per queue, mapping, schedule and store, with what was measured. For administrators of the operator's "
        "project only.",
        "admin:read",
        "api",
        "PartsAnswer",
        aliases=("/v1/health",),
        examples=(Example("parts", "The table."),),
        operator=True,
    ),
    Route(
        "GET",
        "/metrics",
        "get_metrics",
        "operations",
        "Metrics for Prometheus",
        "Text exposition format 0.0.4. For administrators of the operator's project only.",
        "admin:read",
        "api",
        "text",
        aliases=("/v1/metrics",),
        media="text/plain; version=0.0.4; charset=utf-8",
        examples=(Example("scrape", "What a scraper reads."),),
        operator=True,
    ),
    _decision(
        "GET",
        "/v1/contracts",
        "list_contracts",
        "List contracts",
        "Registered versions by name and version, each with why it is down, if it is, and whether its promises were "
        "watched and held.",
        "contracts:read",
        "ContractPage",
        Example("active", "What is active.", query=(("state", "active"),)),
        query=(
            Param("state", "choice", "Where the version is in its life.", "active", choices=_CONTRACT_STATES),
            Param("capability", "text", "A capability it offers.", "mail.send"),
            *_PAGE,
        ),
    ),
    _decision(
        "POST",
        "/v1/contracts",
        "register_contract",
        "Register a contract",
        "As a draft. A version never changes; it is greater than every version of its name before it. The owner's "
        "signature is checked when there is one, and the address as those of webhooks are.",
        "contracts:write",
        "ContractAnswer",
        Example("mailer", "A service that sends mail.", body=_MAILER, status=201),
        request="ContractInput",
        refusals=("ERR_CONFLICT", "ERR_EGRESS_DENIED"),
    ),
    _decision(
        "POST",
        "/v1/contracts:import",
        "import_contract",
        "Import a contract",
        "From an A2A agent card or an entry of an MCP registry that carries one as the extension "
        "urn:tocsin:contract:1.",
        "contracts:write",
        "ContractAnswer",
        Example(
            "entry of a registry",
            "An MCP server.json with a contract in it.",
            body={
                "server": {
                    "name": "com.example/mailer",
                    "description": "mailer: mail.send",
                    "version": "2.0.0",
                    "_meta": {
                        "io.modelcontextprotocol.registry/publisher-provided": {"urn:tocsin:contract:1": _MAILER}
                    },
                }
            },
            status=201,
        ),
        request="ContractImport",
        refusals=("ERR_CONFLICT", "ERR_EGRESS_DENIED"),
    ),
    _decision(
        "GET",
        "/v1/contracts/{id}/versions",
        "list_contract_versions",
        "List the versions of a contract",
        "By version.",
        "contracts:read",
        "ContractVersions",
        Example("all", "Every version.", id=EXAMPLE_CONTRACT),
        names="contract",
    ),
    _decision(
        "POST",
        "/v1/contracts/{id}/versions",
        "add_contract_version",
        "Register a further version",
        "As registering, of a name that is registered.",
        "contracts:write",
        "ContractAnswer",
        Example("next", "The next version.", id=EXAMPLE_CONTRACT, body=_MAILER, status=201),
        names="contract",
        request="ContractInput",
        refusals=("ERR_CONFLICT", "ERR_EGRESS_DENIED"),
    ),
    _version(
        "GET",
        "",
        "get_contract_version",
        "Read a version of a contract",
        "As it stands in the current snapshot.",
        "contracts:read",
        "ContractShown",
        Example("one", "A version.", id=EXAMPLE_CONTRACT, part="1"),
    ),
    _version(
        "PATCH",
        "",
        "move_contract_version",
        "Move a version to its next state",
        "draft, active, draining, retired, in this order; a draft may retire at once. A draining version retires when "
        "every call that could have been routed to it is over; the answer says when that is.",
        "contracts:write",
        "ContractMoved",
        Example("drain", "No new calls.", id=EXAMPLE_CONTRACT, part="1", body={"state": "draining"}),
        request="ContractMove",
        refusals=("ERR_CONFLICT",),
    ),
    _version(
        "POST",
        "/heartbeat",
        "beat_contract_version",
        "Say that a version is there",
        "Holds for the contract's lease; without it the version is down. Becoming active counts as the first.",
        "contracts:write",
        "BeatAnswer",
        Example("beat", "Still there.", id=EXAMPLE_CONTRACT, part="1", body={}),
        request="Heartbeat",
    ),
    _version(
        "GET",
        "/agent-card",
        "get_agent_card",
        "Read a version as an A2A agent card",
        "Protocol 1.0; the contract is an extension that callers may ignore.",
        "contracts:read",
        "AgentCard",
        Example("card", "The card.", id=EXAMPLE_CONTRACT, part="1"),
        refusals=("ERR_CONFLICT",),
    ),
    _version(
        "GET",
        "/server-entry",
        "get_server_entry",
        "Read a version as an entry of an MCP registry",
        "server.json, with the contract as the publisher's metadata.",
        "contracts:read",
        "ServerEntry",
        Example("entry", "The entry.", id=EXAMPLE_CONTRACT, part="1", query=(("namespace", "com.example"),)),
        query=(Param("namespace", "text", "Reverse DNS name in front of the service's.", "com.example"),),
        refusals=("ERR_CONFLICT",),
    ),
    _decision(
        "POST",
        "/v1/discover",
        "discover",
        "Find services",
        "By capability and, where given, by type, data class and limits. Best first; every other version is named "
        "with the gate or rule that keeps it out. Nothing is kept.",
        "contracts:read",
        "Discovered",
        Example("who can", "Who can send mail.", body={"capabilities": ["mail.send"], "scopes": ["mail.send"]}),
        request="DiscoverInput",
        refusals=("ERR_SCOPE",),
    ),
    _decision(
        "GET",
        "/v1/policies",
        "list_policies",
        "List policies",
        "Those that were put in force, newest first.",
        "policies:read",
        "PolicyPage",
        Example("newest", "The newest.", query=(("limit", "1"),)),
        query=_PAGE,
    ),
    _decision(
        "GET",
        "/v1/policies/current",
        "get_policy",
        "Read the policy in force",
        "A project begins with one that permits nothing.",
        "policies:read",
        "PolicyShown",
        Example("current", "The policy in force."),
    ),
    _decision(
        "POST",
        "/v1/policies",
        "publish_policy",
        "Publish a policy",
        "Says by proof over every possible request and service what that newly allows and newly forbids, with an "
        "example of each; null is a proof that there is none. Rules that can never matter are refused.",
        "policies:write",
        "PolicyMeaning",
        Example("trust for gdpr", "What is gdpr goes to trusted services only.", body=_GOVERNED, status=201),
        function="govern",
        request="PolicyInput",
        refusals=("ERR_CONFLICT",),
    ),
    _decision(
        "POST",
        "/v1/policies:analyse",
        "analyse_policy",
        "Ask what a policy would mean",
        "As publishing, but nothing is changed.",
        "policies:read",
        "PolicyMeaning",
        Example("trust for gdpr", "What is gdpr goes to trusted services only.", body=_GOVERNED),
        function="govern",
        request="PolicyInput",
    ),
    _decision(
        "POST",
        "/v1/route",
        "route",
        "Decide who serves a request",
        "One request, or up to 100 as `requests`, which are decided by the same snapshot and health. The answer has "
        "the decision, what became of every service, what holds of the chosen one and by whose word, and a receipt. "
        "Reasons are left out when they would be more than 20,000; certificates have them.",
        "decisions:run",
        "RouteAnswer",
        Example("mail", "Who sends this mail.", body=_ASKED),
        request="RouteInput",
        refusals=("ERR_BATCH_TOO_LARGE", "ERR_SCOPE"),
    ),
    _decision(
        "POST",
        "/v1/plan",
        "plan",
        "Plan several steps",
        "The chain of services of least weight that makes what is wanted of what there is, under limits on the whole.",
        "decisions:run",
        "PlanAnswer",
        Example(
            "mail to a person",
            "Mail somebody, given an address.",
            body={
                "capabilities": ["mail.send"],
                "scopes": ["mail.send"],
                "data_class": {"level": "internal", "tags": []},
                "have": {"letter": _ASKED["input"]},
                "want": _MAILER["output"],
            },
        ),
        request="GoalInput",
        refusals=("ERR_BATCH_TOO_LARGE", "ERR_SCOPE"),
    ),
    _decision(
        "POST",
        "/v1/invoke",
        "invoke",
        "Call a service through the engine",
        "Decides, reserves what the call may cost, posts the payload as JSON to the contract's endpoint (with "
        "X-Trace-Id and Idempotency-Key), and judges what came back by the contract. Circuit breaker, window, retry "
        "budget and the project's spending apply; the answer names the decision behind each attempt.",
        "decisions:run",
        "InvokeAnswer",
        Example(
            "mail",
            "Send this mail.",
            body={"call_id": "mail-4711", "request": _ASKED, "payload": {"to": "ada@example.com"}},
        ),
        request="InvokeInput",
        refusals=("ERR_CONFLICT", "ERR_IDEMPOTENCY_MISMATCH", "ERR_SCOPE"),
    ),
    _decision(
        "GET",
        "/v1/spending",
        "get_spending",
        "Read what calls may cost",
        "Limit, spent and held in the current month (UTC). Without a limit only services that cost nothing are called.",
        "decisions:read",
        "SpendingAnswer",
        Example("month", "This month."),
    ),
    _decision(
        "PUT",
        "/v1/spending",
        "set_spending",
        "Limit what calls may cost",
        "Per calendar month (UTC).",
        "decisions:write",
        "SpendingAnswer",
        Example("a dollar", "One USD.", body={"limit_pusd": 1_000_000_000_000}),
        request="SpendingInput",
    ),
    _decision(
        "GET",
        "/v1/decisions/{id}",
        "get_decision",
        "Read a decision",
        "Its receipt and request, as kept.",
        "decisions:read",
        "DecisionAnswer",
        Example("kept", "A decision.", id=EXAMPLE_DECISION),
        names="decision",
    ),
    _decision(
        "GET",
        "/v1/decisions/{id}/certificate",
        "get_certificate",
        "Prove a decision",
        "With what tools/checker.py and tools/checker.mjs need to check it: each part as canonical JSON (sorted keys, "
        "no white space) is a file. The id of a batch (without -n…) proves all that were decided together.",
        "decisions:read",
        "CertificateAnswer",
        Example("short", "The short form.", id=EXAMPLE_DECISION, query=(("form", "short"),)),
        names="decision",
        query=(
            Param(
                "form",
                "choice",
                "full has a reason for every service, short those in front of the winner (when left out).",
                "short",
                choices=_FORMS,
            ),
        ),
        refusals=("ERR_BODY_TOO_LARGE",),
    ),
    Route(
        "POST",
        "/v1/defend",
        "defend",
        "defense",
        "Defend against what telemetry tells",
        "Events, as POST /v1/events takes them (needs ingest:write too), or the id of an incident. Events are stored "
        "once, scored by the same scorer, and a plan is made whose steps the decision engine gives to responders, each "
        "with a certificate. A plan of low risk is carried out at once (201); one of consequence waits for a second "
        "person. The same facts meet the same mitigation (200).",
        "defend:write",
        "defend",
        "Defended",
        aliases=("/defend", "/api/defend"),
        request="Telemetry",
        success=(200, 201),
        refusals=(
            *("ERR_BATCH_TOO_LARGE", "ERR_EVENT_TOO_LARGE", "ERR_IDEMPOTENCY_MISMATCH", "ERR_NOT_FOUND"),
            *("ERR_READONLY_FIELD", "ERR_TIMESTAMP_RANGE", "ERR_URL"),
        ),
        examples=(
            Example(
                "an attack",
                "A session that attacks is kept out.",
                status=201,
                body={
                    "id": "ids-981",
                    "source": "ids",
                    "type": "attack.sqli",
                    "title": "SQL injection against checkout",
                    "occurred_at": "2026-11-20T10:28:00Z",
                    "entity": {"type": "session", "id": "s-88123"},
                    "severity_raw": "critical",
                },
            ),
        ),
    ),
    Route(
        "POST",
        "/v1/sentinelred",
        "run_probes",
        "defense",
        "Probe this deployment",
        "Attacks the stack itself, and no other target, as outsiders would: weak keys, replays, more scope than held, "
        "an oversized body, an expired token, a channel to the metadata address. The report says of each what it met; "
        "each is in the journal. Off unless the deployment has ENABLE_SENTINELRED; needs an admin token.",
        "defend:run",
        "defend",
        "ProbeReport",
        request="ProbeInput",
        refusals=("ERR_TARGET_DENIED",),
        examples=(Example("one probe", "Are weak keys refused?", body={"probes": ["weak_key"]}),),
        admin_token=True,
        flag="ENABLE_SENTINELRED",
    ),
    Route(
        "GET",
        "/v1/mitigations",
        "list_mitigations",
        "defense",
        "List mitigations",
        "Newest first.",
        "defend:read",
        "defend",
        "MitigationPage",
        query=_PAGE,
        examples=(Example("newest", "The last ones."),),
    ),
    Route(
        "GET",
        "/v1/mitigations/{id}",
        "get_mitigation",
        "defense",
        "Read a mitigation",
        "Plan, steps, and how far each is.",
        "defend:read",
        "defend",
        "MitigationAnswer",
        names="mitigation",
        examples=(Example("one", "One that was applied.", id=EXAMPLE_MITIGATION),),
    ),
    Route(
        "GET",
        "/v1/mitigations/{id}/certificate",
        "get_mitigation_certificate",
        "defense",
        "Certificate of a step",
        "Why the decision engine gave this step to this responder, with the snapshot and health document that "
        "tools/checker.py and tools/checker.mjs need to check it.",
        "defend:read",
        "defend",
        "StepCertificate",
        names="mitigation",
        query=(
            Param("step", "number", "Number of the step, from 0; 0 when left out.", "0"),
            Param("form", "choice", "full when left out.", "short", choices=("full", "short")),
        ),
        examples=(Example("short", "Of the first step.", id=EXAMPLE_MITIGATION, query=(("form", "short"),)),),
    ),
    Route(
        "POST",
        "/v1/mitigations/{id}/apply",
        "apply_mitigation",
        "defense",
        "Carry out a mitigation",
        "One of consequence needs a second person's approval of this very request, whose id travels in X-Approval. One "
        "that was applied is answered as it is.",
        "defend:run",
        "defend",
        "MitigationAnswer",
        names="mitigation",
        refusals=("ERR_APPROVAL_REQUIRED", "ERR_APPROVAL_USED", "ERR_CONFLICT", "ERR_SELF_APPROVAL"),
        examples=(Example("apply", "It is applied already.", id=EXAMPLE_MITIGATION),),
    ),
    Route(
        "POST",
        "/v1/mitigations/{id}/rollback",
        "roll_back_mitigation",
        "defense",
        "Roll back a mitigation",
        "Undoes what was done, last step first; withdraws what was only planned. Again is harmless. A revoked key "
        "stays revoked.",
        "defend:run",
        "defend",
        "MitigationAnswer",
        names="mitigation",
        refusals=("ERR_CONFLICT",),
        examples=(Example("roll back", "It was a false alarm.", id=EXAMPLE_MITIGATION),),
    ),
    Route(
        "POST",
        "/v1/notify",
        "notify",
        "delivery",
        "Tell something",
        "By which channel is a decision over the project's channels, with its certificate. From there on it is a "
        "notification like any other: push budget, signature, retries. 200 when no channel could be chosen.",
        "notify:write",
        "defend",
        "NoticeAnswer",
        aliases=("/notify", "/api/notify"),
        request="NoticeInput",
        success=(200, 202),
        refusals=("ERR_READONLY_FIELD",),
        examples=(
            Example(
                "by webhook",
                "A deploy begins.",
                status=202,
                body={
                    "title": "Deploy of checkout 2.4 begins",
                    "text": "Expect restarts until 11:00.",
                    "tier": "medium",
                    "by": ["webhook"],
                },
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/quarantines",
        "list_quarantines",
        "defense",
        "List quarantines",
        "Newest first, with those that ended within the last seven days.",
        "defend:read",
        "defend",
        "Quarantines",
        examples=(Example("all", "One that is active."),),
    ),
    Route(
        "POST",
        "/v1/quarantines",
        "open_quarantine",
        "defense",
        "Put into quarantine",
        "A source or an entity: its events are refused one by one with ERR_QUARANTINED, or let through at "
        "`per_second`. A key: every request with it is refused. Takes effect within 5 s at every front, for a time.",
        "defend:write",
        "defend",
        "QuarantineAnswer",
        request="QuarantineInput",
        success=(201,),
        refusals=("ERR_READONLY_FIELD",),
        examples=(
            Example(
                "a source",
                "A scanner that floods.",
                status=201,
                body={"kind": "source", "name": "scanner-7", "reason": "floods with made-up alerts", "minutes": 30},
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/quarantines/{id}",
        "get_quarantine",
        "defense",
        "Read a quarantine",
        "Who is in it, why, and until when.",
        "defend:read",
        "defend",
        "QuarantineAnswer",
        names="quarantine",
        examples=(Example("one", "An active one.", id=EXAMPLE_QUARANTINE),),
    ),
    Route(
        "DELETE",
        "/v1/quarantines/{id}",
        "release_quarantine",
        "defense",
        "Release from quarantine",
        "Takes effect within 5 s at every front. Again is harmless.",
        "defend:write",
        "defend",
        "QuarantineAnswer",
        names="quarantine",
        examples=(Example("release", "It was a false alarm.", id=EXAMPLE_QUARANTINE),),
    ),
    _sender("/alertmanager/api/v2/alerts", "send_alertmanager_api", "From Prometheus, as to an Alertmanager"),
    _sender("/v1/alertmanager/webhook", "send_alertmanager_webhook", "From Alertmanager's webhook receiver"),
    _sender("/v1/aws/events", "send_aws_eventbridge", "From AWS EventBridge"),
    _sender("/v1/aws/sns", "send_aws_sns", "From AWS SNS"),
    _sender("/v1/grafana/webhook", "send_grafana", "From a Grafana webhook contact point"),
    _sender("/api/public/ingestion", "send_langfuse", "From Langfuse SDKs", success=(207,)),
    _sender("/api/public/scores", "send_langfuse_scores", "Scores, from Langfuse SDKs", success=(202, 207)),
    _sender("/v2/alerts", "send_opsgenie", "From senders to Opsgenie", success=(202,)),
    _sender("/v2/alerts/{identifier}/close", "send_opsgenie_close", "Close, from senders to Opsgenie", success=(202,)),
    _sender(
        "/v2/alerts/{identifier}/acknowledge",
        "send_opsgenie_acknowledge",
        "Acknowledge, from senders to Opsgenie",
        success=(202,),
    ),
    _sender(
        "/v2/alerts/{identifier}/message",
        "send_opsgenie_message",
        "Change the message, from senders to Opsgenie",
        method="PUT",
        success=(202,),
    ),
    _sender(
        "/v2/alerts/{identifier}/description",
        "send_opsgenie_description",
        "Change the description, from senders to Opsgenie",
        method="PUT",
        success=(202,),
    ),
    _sender("/v1/logs", "send_otlp_logs", "OpenTelemetry logs (OTLP/HTTP)"),
    _sender("/v1/metrics", "send_otlp_metrics", "OpenTelemetry metrics (OTLP/HTTP)"),
    _sender(
        "/v1/traces",
        "send_otlp_traces",
        "OpenTelemetry traces (OTLP/HTTP)",
        aliases=("/api/public/otel/v1/traces",),
    ),
    _sender("/v2/enqueue", "send_pagerduty", "From senders to PagerDuty (Events API v2)", success=(202,)),
    _sender("/v2/change/enqueue", "send_pagerduty_change", "Change events, from senders to PagerDuty", success=(202,)),
    _sender(
        "/api/{project}/envelope/",
        "send_sentry",
        "From Sentry SDKs",
        aliases=("/api/{project}/envelope",),
    ),
    _sender("/v1/sentry/webhook/{key_id}", "send_sentry_webhook", "From Sentry's integration platform"),
    _sender(
        "/integrations/generic/20131114/alert/{key}/{routing_key}",
        "send_victorops",
        "From senders to VictorOps (Splunk On-Call)",
        aliases=("/integrations/generic/20131114/alert/{key}",),
    ),
    _alertmanager("GET", "alerts", "list_alertmanager_alerts", "Alerts that fire now", "events:read"),
    _alertmanager("GET", "alerts/groups", "list_alertmanager_groups", "Alerts that fire now, grouped", "events:read"),
    _alertmanager("GET", "receivers", "list_alertmanager_receivers", "The one receiver", "events:read"),
    _alertmanager("GET", "status", "get_alertmanager_status", "Version and uptime", "events:read"),
    _alertmanager("GET", "silences", "list_silences", "Silences", "notify:read"),
    _alertmanager("POST", "silences", "put_silence", "Set or change a silence", "notify:write", request=True),
    _alertmanager("GET", "silence/{id}", "get_silence", "Read a silence", "notify:read", names="silence"),
    _alertmanager("DELETE", "silence/{id}", "expire_silence", "End a silence", "notify:write", names="silence"),
    _open("/livez", "get_alive", "Is it alive?", "Up whenever the function runs.", "Up", aliases=("/health",)),
    _open(
        "/readyz",
        "get_ready",
        "Is it ready?",
        "Up when the table and the queue answer within a second; otherwise 503 and down.",
        "Up",
        aliases=("/healthz", "/ready"),
        success=(200, 503),
    ),
    _open("/docs", "get_docs", "This documentation", "A page for people.", "text", "text/html; charset=utf-8"),
    _open(
        "/docs/redoc.js",
        "get_docs_script",
        "Script of the documentation",
        "Redoc, served from here so that the page needs no other host.",
        "text",
        "text/javascript; charset=utf-8",
    ),
    _open("/openapi.json", "get_openapi", "This document", "OpenAPI 3.1.", "object"),
    _open(
        "/api/metrics.json",
        "get_public_metrics",
        "Public figures",
        "Nothing of any project.",
        "PublicMetrics",
    ),
)

#: What can be had without a key: every path of every open route, aliases included.
OPEN_PATHS: Final = frozenset(path for route in ROUTES if route.scope is None for path in (route.path, *route.aliases))
