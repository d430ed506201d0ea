"""The event: Tocsin's one normalised input (CES), what a sender may write in it, and what Tocsin adds.

Attribute names follow CloudEvents 1.0 where it has them (id, source, type, specversion). A native event is
closed: an unknown field is refused, and so is a field that only Tocsin sets.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tocsin.kernel import clock, ids
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.strict_json import count_strings_over, shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails, SchemaValidator, ValidationError
    from pydantic_core.core_schema import CoreSchema

Event = dict[str, Any]

MAX_BYTES: Final = 204_800
MAX_STRING: Final = 65_536
MAX_KEYS: Final = 5_000
MAX_URL: Final = 2_048
#: Event time rules between these bounds around the time of receipt; outside, the time of receipt does.
LATE_MS: Final = 2 * clock.HOUR
SKEW_MS: Final = 5 * clock.MINUTE
#: Beyond these bounds an event is refused.
OLDEST_MS: Final = 30 * clock.DAY
FURTHEST_MS: Final = 24 * clock.HOUR
_MAX_DETAILS: Final = 20
_YEAR_10000_MS: Final = 253_402_300_800_000

#: Characters that cannot be seen or that reorder text: controls, soft hyphen, bidi controls, zero width,
#: separators.
_HIDDEN: Final = (
    r"\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
)
_VISIBLE: Final = f"^[^{_HIDDEN}]+$"
_NATIVE_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,63}$"

#: What a sender may write, and what it is for. Only the first four are required; null is not a value.
SENT: Final[Mapping[str, str]] = {
    "id": "Unique within source; sending it again with the same content is harmless.",
    "source": "Who reports: a system, not a person.",
    "type": "What kind of occurrence this is, such as disk.full.",
    "title": "One line for people.",
    "specversion": "Version of the attribute names.",
    "occurred_at": "RFC 3339 with offset, at most 24 h ahead and 30 d back; default: the time of receipt.",
    "entity": 'What the event is about; default: {"type": "source", "id": source}.',
    "body": "Longer text for people.",
    "tags": "Words to group and filter by.",
    "metrics": "Numbers that were measured, by name.",
    "severity_raw": "The sender's own word or number for how bad it is.",
    "status": "State of what is reported; default: firing.",
    "dedup_key": "Events with the same key report the same thing; default: made of source, type and entity.",
    "links": "Places to read more: absolute http or https URLs without user name.",
    "extras": "Anything else; kept and shown, not interpreted.",
}
REQUIRED: Final = frozenset({"id", "source", "type", "title"})


def _model() -> CoreSchema:
    """The model, as pydantic-core reads it; pydantic itself would add 0.15 s to every cold start."""
    from pydantic_core import core_schema as cs

    def name(most: int) -> CoreSchema:
        return cs.str_schema(min_length=1, max_length=most, pattern=_VISIBLE)

    def closed(required: Collection[str], **fields: CoreSchema) -> CoreSchema:
        made = {key: cs.typed_dict_field(field, required=key in required) for key, field in fields.items()}
        return cs.typed_dict_schema(made, extra_behavior="forbid", strict=True)

    integer = cs.int_schema(ge=-(2**53) + 1, le=2**53 - 1, strict=True)
    fields: dict[str, CoreSchema] = {
        "id": cs.str_schema(pattern=_NATIVE_ID),
        "source": name(256),
        "type": name(128),
        "title": cs.str_schema(min_length=1, max_length=1024),
        "specversion": cs.literal_schema(["1.0"]),
        "occurred_at": cs.str_schema(max_length=40),
        "entity": closed(("type", "id"), type=name(64), id=name(256)),
        "body": cs.str_schema(max_length=MAX_STRING),
        "tags": cs.dict_schema(name(64), cs.str_schema(max_length=256), max_length=50),
        "metrics": cs.dict_schema(name(64), cs.float_schema(allow_inf_nan=False, strict=True), max_length=50),
        "severity_raw": cs.union_schema([integer, name(64)]),
        "status": cs.literal_schema(["firing", "acknowledged", "resolved"]),
        "dedup_key": name(256),
        "links": cs.list_schema(
            closed(("href",), href=cs.str_schema(), text=cs.str_schema(min_length=1, max_length=256)),
            max_length=50,
        ),
        "extras": cs.dict_schema(cs.str_schema(), cs.any_schema(), max_length=256),
    }
    return closed(REQUIRED, **{key: fields[key] for key in SENT})


@lru_cache(maxsize=1)
def _validator() -> SchemaValidator:
    from pydantic_core import SchemaValidator

    return SchemaValidator(_model())


#: Fields that only Tocsin writes: name → JSON Schema.
SERVER_SET: Final[Mapping[str, dict[str, Any]]] = {
    "event_id": {
        "type": "string",
        "pattern": "^evt_[a-z2-7]{26}$",
        "description": "Derived from project, source and id.",
    },
    "project_id": {"type": "string", "description": "Project of the key that sent it."},
    "received_at": {"type": "string", "format": "date-time", "description": "When Tocsin took it."},
    "trace_id": {"type": "string", "description": "Trace of the request that brought it."},
    "severity_id": {
        "type": "integer",
        "enum": [0, 1, 2, 3, 4, 5, 6, 99],
        "description": "OCSF severity, from severity_raw by the map of its source.",
    },
    "flags": {
        "type": "array",
        "items": {"type": "string"},
        "description": "late or clock_skew: the time of receipt rules instead of occurred_at.",
    },
    "fingerprint": {"type": "string", "description": "Same for events of the same shape."},
    "features": {
        "type": "object",
        "additionalProperties": {"type": "number"},
        "description": "Evidence by name.",
    },
    "score": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "description": "How much this deserves attention.",
    },
    "explain": {
        "type": "object",
        "description": "Contributions that add up to the score, in words and numbers.",
    },
    "scored_by": {"type": "string", "description": "Version of the scorer."},
    "incident_id": {"type": "string", "description": "Incident it belongs to, if any."},
}

#: Names that senders use elsewhere, and ours.
_OTHER_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("timestamp", "time", "ts"), "occurred_at"),
    **dict.fromkeys(("severity", "level", "priority"), "severity_raw"),
    **dict.fromkeys(("message", "description"), "body"),
    **dict.fromkeys(("summary", "name"), "title"),
    **dict.fromkeys(("subject", "host", "service"), "entity"),
    **dict.fromkeys(("data", "details"), "extras"),
    "event_type": "type",
    "labels": "tags",
    "url": "links",
    "values": "metrics",
}

HIDDEN: Final = re.compile(f"[{_HIDDEN}]")
_URL_BAD = re.compile(f"[{_HIDDEN}" + r"\s\\\"<>`^{|}]")


def _path(location: Iterable[int | str]) -> str:
    """`tags.region`, `links[2].href`; names that came from the sender are escaped and cut."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part == "[key]":
            path += " (key)"
        else:
            path += ("." if path else "") + (part if part in SENT else shown(part))
    return path or "(event)"


def _unknown(name: str) -> tuple[str, str]:
    if name in SERVER_SET:
        return "server-set", "leave it out; only Tocsin sets it"
    near = _OTHER_NAMES.get(name.lower()) or next(iter(difflib.get_close_matches(name[:64], SENT, 1, 0.75)), None)
    return "unknown-field", f"use {near}, or put it in extras" if near else "leave it out or put it in extras"


def _reason(error: ErrorDetails) -> tuple[str, str]:
    """Rule and fix for one pydantic error; values of the sender are never part of either."""
    kind, context = error["type"], error.get("ctx", {})
    field = next((part for part in reversed(error["loc"]) if isinstance(part, str)), "")
    match kind:
        case "missing":
            return "required", "add it"
        case "extra_forbidden":
            return _unknown(field) if len(error["loc"]) == 1 else ("unknown-field", "leave it out")
        case "string_type":
            return "string", "send a string"
        case "string_too_short":
            return "min-length", "send at least one character"
        case "string_too_long":
            return "max-length", f"send at most {context.get('max_length')} characters"
        case "string_pattern_mismatch":
            if error["loc"] == ("id",):
                return (
                    "id-grammar",
                    "send 1 to 64 of A-Z a-z 0-9 . _ : @ + = - beginning with a letter or digit",
                )
            return "visible-characters", "leave out control, zero-width and text-direction characters"
        case "literal_error":
            return "one-of", f"send {context.get('expected')}"
        case "too_long":
            return "max-items", f"send at most {context.get('max_length')}"
        case "float_type" | "finite_number":
            return "number", "send a finite number"
        case "dict_type":
            return "object", "send an object"
        case "list_type":
            return "array", "send an array"
        case _:
            return kind.replace("_", "-"), "see docs/EVENT_SCHEMA.json"


def _details(error: ValidationError) -> list[Detail]:
    details: dict[str, Detail] = {}
    for item in error.errors(include_url=False, include_input=False):
        if item["loc"][:1] == ("severity_raw",):
            rule, fix = "string-or-integer", "send a string of at most 64 visible characters or an integer"
            details.setdefault("severity_raw", Detail("severity_raw", rule, fix))
        else:
            path = _path(item["loc"])
            details.setdefault(path, Detail(path, *_reason(item)))
        if len(details) == _MAX_DETAILS:
            break
    return list(details.values())


def url_problem(href: str) -> str | None:
    """Why a link would not be safe to show, as a fix for the sender, or None. Nothing is fetched."""
    if len(href) > MAX_URL:
        return f"send at most {MAX_URL} characters"
    if _URL_BAD.search(href):
        return "percent-encode spaces, quotes, backslashes and other characters that URLs do not have"
    if not href[:8].lower().startswith(("http://", "https://")):
        return "send an absolute http or https URL"
    try:
        parts = urlsplit(href)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "send a URL with a valid host and port"
    if not host or not host.isascii():
        return "send a URL with a host name (in its ASCII form)"
    if "@" in parts.netloc:
        return "leave user name and password out of the URL"
    return None


def broken_fields(value: dict[str, Any]) -> set[str]:
    """Names of the fields that `validate` would refuse; for readers that may leave a field out instead."""
    from pydantic_core import ValidationError

    broken: set[str] = set()
    try:
        _validator().validate_python(value)
    except ValidationError as error:
        broken = {str(item["loc"][0]) for item in error.errors(include_url=False, include_input=False) if item["loc"]}
    if "links" in value and "links" not in broken and any(url_problem(link["href"]) for link in value["links"]):
        broken.add("links")
    return broken


def is_severity(value: Any) -> bool:
    """Whether a value can be a severity_raw."""
    if isinstance(value, str):
        return 0 < len(value) <= 64 and not HIDDEN.search(value)
    return type(value) is int and abs(value) < 2**53


def _count_keys(value: Any) -> int:
    count, stack = 0, [value]
    while stack:
        node = stack.pop()
        if type(node) is dict:
            count += len(node)
            stack.extend(node.values())
        elif type(node) is list:
            stack.extend(node)
    return count


def validate(value: Any) -> Event:
    """The event a sender wrote, with defaults filled in, and occurred_at (if sent) as UTC with milliseconds.

    Left open for `stamp`: the default of occurred_at and dedup_key. Raises Refusal: ERR_SCHEMA with every
    broken rule (at most 20), ERR_URL for a link that is not absolute http or https, ERR_JSON_SIZE for more
    than 5,000 keys.
    """
    from pydantic_core import ValidationError

    try:
        sent = _validator().validate_python(value)
    except ValidationError as error:
        raise Refusal("ERR_SCHEMA", "The event breaks its schema.", _details(error)) from None
    event: Event = {
        "specversion": "1.0",
        "id": sent["id"],
        "source": sent["source"],
        "type": sent["type"],
        "title": sent["title"],
        "body": sent.get("body", ""),
        "entity": sent.get("entity") or {"type": "source", "id": sent["source"]},
        "tags": sent.get("tags", {}),
        "metrics": sent.get("metrics", {}),
        "status": sent.get("status", "firing"),
        "links": sent.get("links", []),
        "extras": sent.get("extras", {}),
    }
    for name in ("severity_raw", "dedup_key"):
        if name in sent:
            event[name] = sent[name]
    if event["links"]:
        problems = [(i, url_problem(link["href"])) for i, link in enumerate(event["links"])]
        details = [Detail(f"links[{i}].href", "url", fix) for i, fix in problems if fix][:_MAX_DETAILS]
        if details:
            raise Refusal("ERR_URL", "A link is not an absolute http or https URL.", details)
    if "occurred_at" in sent:
        try:
            at = clock.parse_rfc3339(sent["occurred_at"])
        except ValueError:
            fix = "send RFC 3339 with an offset, such as 2026-01-31T10:20:30.456Z"
            detail = Detail("occurred_at", "date-time", fix)
            raise Refusal("ERR_SCHEMA", "The event breaks its schema.", [detail]) from None
        if not 0 <= at < _YEAR_10000_MS:  # has no RFC 3339 form in UTC, and no chance of being in range
            raise _out_of_range()
        event["occurred_at"] = clock.rfc3339(at)
    if event["extras"]:
        if count_strings_over(event["extras"], MAX_STRING):
            detail = Detail("extras", "max-length", f"send strings of at most {MAX_STRING} characters")
            raise Refusal("ERR_SCHEMA", "The event breaks its schema.", [detail])
        if _count_keys(event["extras"]) > MAX_KEYS:
            detail = Detail("extras", "keys-per-event", f"send at most {MAX_KEYS} keys in one event")
            raise Refusal("ERR_JSON_SIZE", "The event has too many keys.", [detail])
    return event


def _out_of_range() -> Refusal:
    detail = Detail("occurred_at", "range", "send a time at most 24 h ahead and 30 d back")
    return Refusal("ERR_TIMESTAMP_RANGE", "occurred_at is out of range.", [detail])


def check_time(event: Event, received_at: int) -> None:
    """Refuses ERR_TIMESTAMP_RANGE when occurred_at is > 24 h after or > 30 d before receipt (Unix ms)."""
    if "occurred_at" in event:
        at = clock.parse_rfc3339(event["occurred_at"])
        if at > received_at + FURTHEST_MS or at < received_at - OLDEST_MS:
            raise _out_of_range()


def sent_bytes(event: Event) -> bytes:
    """Canonical bytes of a validated event before stamping: what its digest and its size are taken from.

    Equal for two sendings that mean the same: defaults are filled in, an occurred_at that was not sent is not
    part of it.
    """
    return canonical_json(event)


def default_dedup_key(event: Event) -> str:
    """`source|type|entity.type:entity.id`, or `h_` + 32 base32 characters of its hash when longer than 256
    characters.
    """
    entity = event["entity"]
    key = f"{event['source']}|{event['type']}|{entity['type']}:{entity['id']}"
    return key if len(key) <= 256 else "h_" + ids.base32_digest(key.encode("utf-8"), 32)


def stamp(event: Event, *, project: str, event_id: str, trace_id: str, received_at: int) -> Event:
    """Add in place what only Tocsin sets at receipt, and the defaults that depend on it. `received_at` is
    Unix ms.
    """
    received = clock.rfc3339(received_at)
    event["event_id"] = event_id
    event.setdefault("occurred_at", received)
    event["received_at"] = received
    if "dedup_key" not in event:
        event["dedup_key"] = default_dedup_key(event)
    event["project_id"] = project
    event["trace_id"] = trace_id
    flag = _time_flag(clock.parse_rfc3339(event["occurred_at"]), received_at)
    event["flags"] = [flag] if flag else []
    return event


def _time_flag(occurred_at: int, received_at: int) -> str | None:
    if occurred_at < received_at - LATE_MS:
        return "late"
    return "clock_skew" if occurred_at > received_at + SKEW_MS else None


def ruling_time(event: Event) -> int:
    """Unix ms at which a stamped event counts: occurred_at, or received_at when occurred_at is > 2 h earlier
    or > 5 min
    later than it."""
    occurred, received = clock.parse_rfc3339(event["occurred_at"]), clock.parse_rfc3339(event["received_at"])
    return received if _time_flag(occurred, received) else occurred


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of an event; fields that only Tocsin sets are readOnly, and refused when sent."""
    from pydantic.json_schema import GenerateJsonSchema

    schema = GenerateJsonSchema().generate(_model())
    properties = schema["properties"]
    for name, about in SENT.items():
        properties[name] = {key: value for key, value in properties[name].items() if key != "title"}
        properties[name]["description"] = about
    for name in ("tags", "metrics"):  # said so that other keys than those of the pattern are not left open
        ((pattern, value),) = properties[name].pop("patternProperties").items()
        keys = properties[name]["propertyNames"]
        properties[name] |= {"propertyNames": {**keys, "pattern": pattern}, "additionalProperties": value}
    properties["occurred_at"]["format"] = "date-time"
    href = properties["links"]["items"]["properties"]["href"]
    href |= {"format": "uri", "maxLength": MAX_URL, "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"}
    return {**schema, "properties": properties | {k: {**v, "readOnly": True} for k, v in SERVER_SET.items()}}
