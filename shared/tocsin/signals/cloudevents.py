"""CloudEvents 1.0 to events: structured, batched and binary mode (CloudEvents JSON format and HTTP binding
1.0.2).

Nothing that was sent is lost: what has no place in an event is kept in its extras (`data`, `data_base64`,
`datacontenttype`, `dataschema` and every extension attribute under its own name; `ce_id`, `ce_subject` and
`ce_source` hold attributes that had to be shortened to a hash).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn
from urllib.parse import unquote_to_bytes

from tocsin.kernel import ids, strict_json
from tocsin.kernel.errors import Detail, Refusal
from tocsin.signals import events

_NAME = re.compile(r"[a-z0-9]{1,64}", re.ASCII)
_REQUIRED: Final = ("specversion", "id", "source", "type")
_TEXT: Final = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
_CORE: Final = frozenset((*_TEXT, "data", "data_base64"))
#: Fields of an event that are taken from `data` when they are valid there.
_ADOPTED: Final = (
    "title",
    "body",
    "entity",
    "tags",
    "metrics",
    "severity_raw",
    "status",
    "dedup_key",
    "links",
)


def _refuse(details: list[Detail]) -> NoReturn:
    raise Refusal("ERR_SCHEMA", "The CloudEvent breaks its specification.", details)


def _json_type(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip(" \t").lower()
    return kind.endswith(("/json", "+json"))


def from_headers(headers: Mapping[str, tuple[str, ...]], content_type: str, body: bytes) -> dict[str, Any]:
    """The structured form of a binary-mode CloudEvent (HTTP binding §3.1). Header names are lower case.

    The body becomes `data` when its type is JSON (or missing, and it is JSON) or UTF-8 text, otherwise
    `data_base64`.
    """
    made: dict[str, Any] = {}
    for header, values in headers.items():
        if not header.startswith("ce-"):
            continue
        name = header[3:]
        if len(values) != 1:
            _refuse([Detail(strict_json.shown(header), "single-header", "send it once")])
        value = values[0].strip(" \t")
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        try:
            made[name] = unquote_to_bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            _refuse([Detail(strict_json.shown(header), "utf-8", "percent-encode UTF-8")])
    if "data" in made or "data_base64" in made or "datacontenttype" in made:
        _refuse([Detail("(headers)", "attribute-name", "send data in the body and its type in Content-Type")])
    if content_type:
        made["datacontenttype"] = content_type
    if body:
        made |= _data(content_type, body)
    return made


def _data(content_type: str, body: bytes) -> dict[str, Any]:
    if _json_type(content_type):
        return {"data": strict_json.read(body)}
    try:
        if not content_type:
            return {"data": strict_json.read(body)}
        if content_type.lower().startswith("text/"):
            return {"data": body.decode("utf-8")}
    except (Refusal, UnicodeDecodeError):
        # Data of no declared type need not be JSON, nor text UTF-8: kept as bytes
        return {"data_base64": base64.b64encode(body).decode("ascii")}
    return {"data_base64": base64.b64encode(body).decode("ascii")}


def _check(ce: Any) -> dict[str, Any]:
    if not isinstance(ce, dict):
        _refuse([Detail("(event)", "object", "send a JSON object")])
    details = []
    for name in _REQUIRED:
        if ce.get(name) is None:
            details.append(Detail(name, "required", "add it"))
    for name in _TEXT:
        if ce.get(name) is not None and (not isinstance(ce[name], str) or not ce[name]):
            details.append(Detail(name, "string", "send a string of at least one character"))
        elif name in ce and events.HIDDEN.search(ce[name] or ""):
            fix = "leave out control, zero-width and text-direction characters"
            details.append(Detail(name, "visible-characters", fix))
    for name in ce:
        if name not in _CORE and not _NAME.fullmatch(name):
            fix = "use a-z and 0-9 only, or put it in data"
            details.append(Detail(strict_json.shown(name), "attribute-name", fix))
    if not details and ce["specversion"] != "1.0":
        details.append(Detail("specversion", "one-of", "send CloudEvents 1.0"))
    if ce.get("data") is not None and ce.get("data_base64") is not None:
        details.append(Detail("data_base64", "either", "send data or data_base64"))
    if ce.get("data_base64") is not None:
        try:
            binascii.a2b_base64(str(ce["data_base64"]).encode("ascii"), strict_mode=True)
        except (binascii.Error, UnicodeEncodeError):
            details.append(Detail("data_base64", "base64", "send RFC 4648 base64"))
    if details:
        _refuse(details[:20])
    return {name: value for name, value in ce.items() if value is not None}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _shortened(value: str, extras: dict[str, Any], name: str, most: int) -> str:
    """The value, or its hash with the original in extras when it is too long for its field."""
    if len(value) <= most:
        return value
    extras[name] = value
    return "h_" + ids.base32_digest(value.encode("utf-8"), 32)


def to_sent(ce: Any) -> events.Event:
    """The event (validated, not stamped) of one CloudEvent in structured form.

    id, source, type keep their meaning; time → occurred_at, subject → entity {"type": "subject"}, `severity`
    in data or as an extension → severity_raw, title from data.title, data.message, subject or type. When data
    is an object whose members are valid fields of an event (title, body, entity, tags, metrics, severity_raw,
    status, dedup_key, links), they are used; a member that is not valid as such stays in extras.data. Raises
    Refusal as events.validate does.
    """
    attributes = _check(ce)
    extras = {name: value for name, value in attributes.items() if name not in _CORE}
    sent: dict[str, Any] = {
        "id": ids.native_sender_id(attributes["id"]),
        "source": _shortened(attributes["source"], extras, "ce_source", 256),
        "type": attributes["type"],
        "extras": extras,
    }
    for name in ("datacontenttype", "dataschema", "data_base64"):
        if name in attributes:
            extras[name] = attributes[name]
    if sent["id"] != attributes["id"]:
        extras["ce_id"] = attributes["id"]
    if "time" in attributes:
        sent["occurred_at"] = attributes["time"]
    if "subject" in attributes:
        sent["entity"] = {
            "type": "subject",
            "id": _shortened(attributes["subject"], extras, "ce_subject", 256),
        }
    data = attributes.get("data")
    members = dict(data) if isinstance(data, dict) else {}
    title = _text(members.get("title")) or _text(members.get("message")) or attributes.get("subject") or sent["type"]
    base = {**sent, "title": title[:1024]}
    if "severity_raw" not in members:
        raw = members.get("severity", attributes.get("severity"))
        if events.is_severity(raw):
            base["severity_raw"] = raw
    adopted = {name: members[name] for name in _ADOPTED if name in members}
    if members.get("title") != base["title"]:
        adopted.pop("title", None)
    for name in events.broken_fields({**base, **adopted}) & adopted.keys():
        del adopted[name]
    kept = {name: value for name, value in members.items() if name not in adopted}
    if isinstance(data, dict):
        if kept or not adopted:
            extras["data"] = kept
    elif "data" in attributes:
        extras["data"] = data
    return events.validate({**base, **adopted})
