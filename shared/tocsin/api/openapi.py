"""The OpenAPI 3.1 document and docs/api.md, made from the route table, the models and the answers of real
calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from tocsin.api import models, responses
from tocsin.connectors import alertmanager, registry
from tocsin.kernel.errors import CODES
from tocsin.routes import MAX_LIMIT, ROUTES, TIERS, Example, Param, Route
from tocsin.signals import events

Json = dict[str, Any]
#: What an example was answered with: (operation id, example name) -> JSON body, or text for other media.
Answers = Mapping[tuple[str, str], Any]

VERSION: Final = "1"
_REF: Final = "#/components/schemas/{model}"
_GROUPS: Final[Mapping[str, str]] = {
    "events": "What happened, as it was sent and scored.",
    "senders": "Addresses for those who speak another dialect; see connectors.md.",
    "incidents": "Events that belong together, and what people do about them.",
    "topology": "Which service depends on which.",
    "calibration": "How well scores foretold verdicts, and what was learned from them.",
    "access": "Who may do what: projects, keys, people, approvals, tokens; and what was used.",
    "privacy": "Export, deletion and erasure, each with a second person's approval, and the receipts of it.",
    "decisions": "Which service may do what is asked, and the proof of it; see decisions.md.",
    "delivery": "Who is told of what, and the account of it.",
    "defense": "What is kept out, what is done about attacks, and proof of who was chosen to do it; see defense.md.",
    "journal": "What was done, decided, refused or changed, and the proof of it.",
    "operations": "How Tocsin itself is doing.",
    "open": "Needs no key.",
}
#: Parts of a sender's address that are not ids of ours.
_PLACE = re.compile(r"\{([a-z_]+)\}")
_PLACES: Final[Mapping[str, str]] = {
    "identifier": "The alert, as its sender names it.",
    "key": "An API key.",
    "key_id": "The public id of an API key.",
    "project": "Any number; the key decides.",
    "routing_key": "Any word; the key decides.",
}
_WITHIN: Final[Mapping[str, str]] = {
    "job": "Id of the job.",
    "pseudonym": "The pseudonym.",
    "version": "Number of the version.",
}
_STATUS_WORDS: Final[Mapping[int, str]] = {
    200: "Done.",
    201: "Made.",
    202: "Taken.",
    207: "Taken in part: data.items says what became of each item.",
    400: "The request is wrong.",
    401: "No valid key.",
    403: "The key or the origin may not do this.",
    404: "Not there, or not yours.",
    405: "Not with this method; Allow names those that work.",
    410: "The project was deleted.",
    409: "It changed meanwhile, or its standing does not allow this.",
    413: "Too large.",
    415: "Not this media type or encoding.",
    422: "The id is known with other content.",
    429: "Too many requests; Retry-After says when.",
    431: "The headers are too large.",
    500: "A defect of ours; the trace id finds it.",
    503: "Something behind us does not answer; repeat later.",
}


def document(answers: Answers) -> Json:
    """The OpenAPI document. Examples of answers come from `answers`; examples without one are shown as
    requests only.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tocsin",
            "version": VERSION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": (
                "Events in, explained incidents out. Answers are {data, meta}, errors {error: {code, "
                "message, details, "
                "trace_id}}. Send the API key in X-Api-Key or as Authorization: Bearer."
            ),
        },
        "servers": [{"url": ".", "description": "Where this document came from."}],
        "tags": [{"name": name, "description": text} for name, text in _GROUPS.items()],
        "security": [{"ApiKeyAuth": []}, {"BearerAuth": []}],
        "paths": _paths(answers),
        "components": {
            "securitySchemes": {
                "ApiKeyAuth": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "BearerAuth": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "API key (tcn_live_… or tcn_test_…) or access token (JWT)",
                },
            },
            "headers": {
                "TraceId": {
                    "description": "Trace of this request, in every log line and record it caused.",
                    "schema": {"type": "string"},
                }
            },
            "schemas": _schemas(),
        },
    }


def _schemas() -> Json:
    requests: list[type[Any]] = [getattr(models, str(route.request)) for route in ROUTES if _is_model(route.request)]
    requests.append(models.IncidentNamed)
    shapes: list[type[Any]] = [
        getattr(responses, route.response) for route in ROUTES if hasattr(responses, route.response)
    ]
    wanted = list(dict.fromkeys(requests + shapes))
    _, made = models_json_schema([(one, "validation") for one in wanted], ref_template=_REF)
    schemas: Json = dict(made["$defs"])
    schemas |= _event_schemas()
    schemas["Error"] = _ERROR
    schemas["AllRefused"] = {
        **_ERROR,
        "description": "As Error; when items were read and all refused, data says why of each.",
        "properties": {**_ERROR["properties"], "data": _ref("Accepted"), "meta": _ref("Meta")},
    }
    schemas["Meta"] = _META
    schemas["PageMeta"] = _PAGE_META
    return dict(sorted(schemas.items()))


def _event_schemas() -> Json:
    """Event (as read) and EventInput (as sent) from the one event schema; its own definitions are renamed to
    fit in.
    """
    schema = events.json_schema()
    inner = {f"Event{name}": value for name, value in schema.pop("$defs", {}).items()}
    schema.pop("$schema", None)
    sent = {name: value for name, value in schema["properties"].items() if not value.get("readOnly")}
    as_read = {
        **schema,
        "title": "Event",
        "properties": {
            **schema["properties"],
            "ruling_ms": {"type": "integer", "readOnly": True},
            "onset_ms": {"type": "integer", "readOnly": True},
            "onset_near_s": {"type": "integer", "readOnly": True},
            "onset_busy": {"type": "boolean", "readOnly": True},
            "tier": {"enum": list(TIERS), "readOnly": True},
            "incident_id": {"type": ["string", "null"], "readOnly": True, "description": "null while in none."},
            "incident_reason": {"type": ["string", "null"], "readOnly": True, "description": "Why it joined."},
        },
    }
    found = {"Event": as_read, "EventInput": {**schema, "title": "EventInput", "properties": sent}, **inner}
    return {name: _renamed(value) for name, value in found.items()}


def _renamed(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: f"#/components/schemas/Event{value.rpartition('/')[2]}"
            if key == "$ref" and isinstance(value, str)
            else _renamed(value)
            for key, value in node.items()
        }
    return [_renamed(item) for item in node] if isinstance(node, list) else node


_ERROR: Final[Json] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "additionalProperties": False,
            "required": ["code", "message", "details", "trace_id"],
            "properties": {
                "code": {"type": "string", "enum": sorted(CODES)},
                "message": {"type": "string"},
                "details": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["field", "rule", "fix"],
                        "properties": {
                            "field": {"type": "string", "description": "What is wrong."},
                            "rule": {"type": "string", "description": "The rule it broke."},
                            "fix": {"type": "string", "description": "What to send instead."},
                        },
                    },
                },
                "trace_id": {"type": "string"},
            },
        }
    },
}
_META: Final[Json] = {
    "type": "object",
    "required": ["trace_id"],
    "properties": {"trace_id": {"type": "string"}},
}
_PAGE_META: Final[Json] = {
    "type": "object",
    "required": ["trace_id", "next_cursor", "scanned", "limit"],
    "properties": {
        "trace_id": {"type": "string"},
        "next_cursor": {"type": ["string", "null"], "description": "null at the end."},
        "scanned": {"type": "integer", "minimum": 0, "description": "Segments or rows that were read."},
        "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
    },
}


def _is_model(name: str | None) -> bool:
    return name is not None and hasattr(models, name)


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _paths(answers: Answers) -> Json:
    paths: Json = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, answers)
    return paths


def _operation(route: Route, answers: Answers) -> Json:
    description = route.description
    if route.scope is not None:
        description += f"\n\nScope: `{route.scope}`."
    if route.aliases:
        description += "\n\nAlso at " + ", ".join(f"`{alias}`" for alias in route.aliases) + "."
    operation: Json = {
        "operationId": route.operation_id,
        "tags": [route.group],
        "summary": route.summary,
        "description": description,
        "parameters": _parameters(route),
        "responses": _responses(route, answers),
        "x-scope": route.scope,
        "x-function": route.function,
    }
    if route.scope is None:
        operation["security"] = []
    if route.request is not None:
        operation["requestBody"] = _request_body(route)
    return operation


def _parameters(route: Route) -> list[Json]:
    found: list[Json] = []
    schema: Json
    for place in _PLACE.findall(route.path):
        if place in _PLACES:
            word, schema = _PLACES[place], {"type": "string", "minLength": 1, "maxLength": 512}
            found.append({"name": place, "in": "path", "required": True, "description": word, "schema": schema})
    if route.names is not None:
        schema = {"type": "string"}
        meaning = f"Id of the {route.names}."
        shown = {e.name: {"summary": e.summary, "value": e.id} for e in route.examples if e.id}
        found.append(
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": meaning,
                "schema": schema,
                "examples": shown,
            }
        )
    if route.within is not None:
        shown = {e.name: {"summary": e.summary, "value": e.part} for e in route.examples if e.part}
        found.append(
            {
                "name": route.within,
                "in": "path",
                "required": True,
                "description": _WITHIN[route.within],
                "schema": {"type": "string"},
                "examples": shown,
            }
        )
    if route.approval:
        found.append(
            {
                "name": "X-Approval",
                "in": "header",
                "required": True,
                "description": "Id of an approval of this very request by a second person; good once.",
                "schema": {"type": "string"},
            }
        )
    if route.admin_token:
        found.append(
            {
                "name": "X-Admin-Token",
                "in": "header",
                "required": True,
                "description": "Token of POST /v1/tokens for this very request; good once.",
                "schema": {"type": "string"},
            }
        )
    for param in route.query:
        made: Json = {
            "name": param.name,
            "in": "query",
            "description": param.meaning,
            "schema": _param_schema(param),
        }
        if param.repeatable:
            made |= {"style": "form", "explode": True}
        if param.example:
            made["example"] = [param.example] if param.repeatable else param.example
        if param.kind in ("limit", "number"):
            made["example"] = int(param.example)
        found.append(made)
    if route.request is not None and "ERR_CONFLICT" in route.refusals and _is_model(route.request):
        meaning = 'ETag that was read, such as "3"; 409 when it is no longer current.'
        found.append({"name": "If-Match", "in": "header", "description": meaning, "schema": {"type": "string"}})
    return found


def _param_schema(param: Param) -> Json:
    match param.kind:
        case "limit":
            return {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}
        case "number":
            return {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
        case "time":
            return {"type": "string", "format": "date-time"}
        case "choice":
            return {"type": "string", "enum": list(param.choices)}
        case "tag":
            pair = {"type": "string", "pattern": "^[^:]+:.+$", "maxLength": 256}
            return {"type": "array", "items": pair, "minItems": 1, "maxItems": 10}
        case "cursor":
            return {"type": "string", "maxLength": 1024}
        case _:
            return {"type": "string", "minLength": 1, "maxLength": 256}


def _request_body(route: Route) -> Json:
    shown = {e.name: {"summary": e.summary, "value": e.body} for e in route.examples if e.body is not None}
    if route.request == "Payload":
        return {"required": False, "content": {"*/*": {"schema": {}}}}
    if _is_model(route.request):
        content: Json = {"application/json": {"schema": _ref(str(route.request)), "examples": shown}}
    else:
        one = _ref("EventInput")
        many = {"type": "array", "items": one, "minItems": 1, "maxItems": 500}
        cloud = {"type": "object", "description": "CloudEvents 1.0 in JSON format."}
        others = [_ref("IncidentNamed")] if route.request == "Telemetry" else []
        content = {
            "application/json": {"schema": {"anyOf": [one, many, *others]}, "examples": shown},
            "application/x-ndjson": {"schema": {"type": "string", "description": "One event per line."}},
            "application/cloudevents+json": {"schema": cloud},
            "application/cloudevents-batch+json": {"schema": {"type": "array", "items": cloud, "maxItems": 500}},
        }
    return {"required": True, "content": content}


def _responses(route: Route, answers: Answers) -> Json:
    found: Json = {}
    for status in route.success:
        found[str(status)] = _success(route, status, answers)
    by_status: dict[int, list[str]] = {}
    for code in route.codes:
        by_status.setdefault(CODES[code], []).append(code)
    if route.response == "dialect":
        for status in _dialect_statuses(route):
            by_status.setdefault(status, [])
    for status, codes in sorted(by_status.items()):
        if str(status) not in found:
            found[str(status)] = _refusal(status, codes)
            if route.response == "dialect":
                found[str(status)]["content"] = {"*/*": {"schema": {}}}
            if route.operation_id in ("send_events", "defend"):
                found[str(status)]["content"]["application/json"]["schema"] = _ref("AllRefused")
    return found


def _dialect_statuses(route: Route) -> set[int]:
    """Statuses with which a connector answers at this address; 404 where the sender names something."""
    stated = {
        reply.status
        for connector in map(registry.load, registry.names())
        if any((one.method, one.path.replace("+}", "}")) == (route.method, route.path) for one in connector.routes)
        for reply in connector.answers.values()
    }
    named = "{" in route.path or route.path.startswith(alertmanager.PREFIX)
    return stated | ({404} if named else set())


def _success(route: Route, status: int, answers: Answers) -> Json:
    media = route.media.partition(";")[0]
    if route.response == "dialect":
        content: Json = {"schema": {}}
    elif route.response == "text":
        content = {"schema": {"type": "string"}}
    elif route.response == "object":
        content = {"schema": {"type": "object"}}
    else:
        content = {"schema": _answer_schema(route)}
    content |= _shown(route.operation_id, [e for e in route.examples if e.status == status], answers)
    made: Json = {
        "description": _STATUS_WORDS[status],
        "headers": {"X-Trace-Id": {"$ref": "#/components/headers/TraceId"}},
        "content": {media: content},
    }
    return made


def _answer_schema(route: Route) -> Json:
    data = _ref("Event") if route.response == "EventAnswer" else _ref(route.response)
    paged = getattr(getattr(responses, route.response, None), "PAGED", False)
    properties: Json = {"data": data, "meta": _ref("PageMeta" if paged else "Meta")}
    required = ["data", "meta"]
    if route.operation_id == "send_events":
        properties["error"] = _ERROR["properties"]["error"]
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def _shown(operation: str, examples: Iterable[Example], answers: Answers) -> Json:
    found = {
        e.name: {"summary": e.summary, "value": answers[operation, e.name]}
        for e in examples
        if (operation, e.name) in answers
    }
    return {"examples": found} if found else {}


def _refusal(status: int, codes: list[str]) -> Json:
    example = {
        "error": {
            "code": next(iter(codes), "ERR_SCHEMA"),
            "message": _STATUS_WORDS[status],
            "details": [],
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
        }
    }
    made: Json = {
        "description": _STATUS_WORDS[status] + (f" Codes: {', '.join(codes)}." if codes else ""),
        "headers": {"X-Trace-Id": {"$ref": "#/components/headers/TraceId"}},
        "content": {"application/json": {"schema": _ref("Error"), "example": example}},
    }
    if status == 405:
        made["headers"]["Allow"] = {"schema": {"type": "string"}}
    if status in (429, 503):
        made["headers"]["Retry-After"] = {"schema": {"type": "integer", "minimum": 0}}
    if status == 401:
        made["headers"]["WWW-Authenticate"] = {"schema": {"type": "string"}}
    return made


def markdown() -> str:
    """docs/api.md: every route on a line, then what they have in common."""
    lines = [
        "# HTTP API",
        "",
        "Made from `shared/tocsin/routes.py` by `tools/openapi.py`. The full reference is `openapi.json`",
        "beside this file, served at `/openapi.json` and, for people, at `/docs`.",
        "",
        'Answers are `{"data", "meta"}`, errors `{"error": {"code", "message", "details", "trace_id"}}`;',
        'each detail is `{"field", "rule", "fix"}`.',
        "The key travels in `X-Api-Key` or `Authorization: Bearer`. An object of another project is 404,",
        "like one that does not exist. A wrong method is 405 with `Allow`. Unknown, repeated and malformed",
        "query parameters are refused. Browsers may call from the configured origin only (403 `ERR_ORIGIN`).",
        "",
        "Listings answer a page: `limit` 1 to 100 (25 when left out), `meta.next_cursor` continues,",
        "`meta.scanned` counts what was read. A request reads at most 20 segments of the log, so a page",
        "may be short, even empty, and still go on. A cursor fits its own project and query only.",
        "",
        "Changes may carry the version that was read, as `If-Match` (the `ETag`) or `version` in the body:",
        "409 `ERR_CONFLICT` when it is no longer current.",
        "",
    ]
    for group, meaning in _GROUPS.items():
        lines += [
            f"## {group.capitalize()}",
            "",
            meaning,
            "",
            "| route | scope | what it does | also at |",
            "|---|---|---|---|",
        ]
        for route in ROUTES:
            if route.group == group:
                scope = f"`{route.scope}`" if route.scope else "none"
                also = ", ".join(f"`{alias}`" for alias in route.aliases)
                lines.append(f"| `{route.method} {route.path}` | {scope} | {route.summary} | {also} |")
        lines.append("")
    lines += ["## Errors", "", "| code | status |", "|---|---|"]
    lines += [f"| `{code}` | {status} |" for code, status in sorted(CODES.items())]
    return "\n".join(lines) + "\n"
