"""OpenTelemetry over HTTP: traces, logs and metrics as documents for the mapping, protobuf or JSON.

A document is one span, one log record, or the points of one attribute set at one time (up to 50 metrics): with its
resource and its scope beside it, and attributes as plain objects ({"service.name": "cart"}) instead of lists of
typed pairs. Bytes stay {"bytesValue": base64}; a key that comes twice gets its place as suffix; nothing is lost.

GenAI semantic conventions (opentelemetry.io/docs/specs/semconv/gen-ai, development status; the names before 1.37
are read too): a span of a call of a model is an event of its own kind, whose metrics tell the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tocsin.connectors import protobuf
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.http import Answer
from tocsin.kernel.ids import base32_digest
from tocsin.kernel.strict_json import Limits, shown

#: A batch of spans nests deeper and longer than an event of ours.
JSON_LIMITS: Final = Limits(depth=48, array_items=10_000)
_PARTS: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "traces": ("resourceSpans", "scopeSpans", "spans", "span"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords", "log"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics", "metric"),
}
_METRIC_KINDS: Final = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
_MAX_METRICS: Final = 50
_OF_A_MODEL: Final = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.system")
Document = tuple[Any, Mapping[str, Any]]


def read_protobuf(data: bytes, signal: str) -> dict[str, Any]:
    """An Export…ServiceRequest in protobuf as OTLP/JSON. Raises Refusal ERR_SCHEMA."""
    return protobuf.read(data, signal)


def _wrong(field: str, fix: str) -> Refusal:
    return Refusal("ERR_SCHEMA", "The body is no OTLP request.", [Detail(field, "otlp", fix)])


def _value(value: Any, depth: int = 0) -> Any:
    """An AnyValue as the JSON value it stands for."""
    if not isinstance(value, dict) or len(value) != 1 or depth > 16:
        return value
    ((kind, content),) = value.items()
    if kind == "intValue" and isinstance(content, str):
        try:
            return int(content) if len(content) <= 20 else value
        except ValueError:
            return value
    if kind == "arrayValue" and isinstance(content, dict) and set(content) <= {"values"}:
        items = content.get("values", [])
        return [_value(one, depth + 1) for one in items] if isinstance(items, list) else value
    if kind == "kvlistValue" and isinstance(content, dict) and set(content) <= {"values"}:
        return attributes(content.get("values", []), depth + 1)
    return content if kind in ("stringValue", "boolValue", "intValue", "doubleValue") else value


def attributes(pairs: Any, depth: int = 0) -> Any:
    """A list of KeyValue as an object; anything else, and a pair that is none, as it is."""
    if not isinstance(pairs, list) or not all(
        isinstance(pair, dict) and isinstance(pair.get("key"), str) and set(pair) <= {"key", "value"} for pair in pairs
    ):
        return pairs
    made: dict[str, Any] = {}
    for place, pair in enumerate(pairs):
        key = pair["key"] if pair["key"] not in made else f"{pair['key']}#{place}"
        made[key] = _value(pair.get("value"), depth)
    return made


def _plain(value: Any) -> Any:
    """A part of a request with every `attributes` (and `body`) in plain form."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: attributes(part)
        if name in ("attributes", "filteredAttributes", "metadata")
        else _value(part)
        if name == "body"
        else _plain(part)
        for name, part in value.items()
    }


def _list(holder: Any, name: str, where: str) -> list[dict[str, Any]]:
    found = holder.get(name, []) if isinstance(holder, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _wrong(f"{where}{name}", "send an array of objects")
    return found


def _walk(request: Any, signal: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(what surrounds it, item) of every span, record or metric."""
    resources, scopes, items, _ = _PARTS[signal]
    if not isinstance(request, dict):
        raise _wrong("(body)", "send an object")
    for key in request:
        if key != resources:
            raise _wrong(shown(key), f"send {resources} only")
    for i, resource in enumerate(_list(request, resources, "")):
        around = {name: _plain(part) for name, part in resource.items() if name not in (scopes, "schemaUrl")}
        if "schemaUrl" in resource:
            around["resource_schema_url"] = resource["schemaUrl"]
        for scope in _list(resource, scopes, f"{resources}[{i}]."):
            beside = {
                **around,
                **{name: _plain(part) for name, part in scope.items() if name not in (items, "schemaUrl")},
            }
            if "schemaUrl" in scope:
                beside["scope_schema_url"] = scope["schemaUrl"]
            for item in _list(scope, items, f"{resources}[{i}].{scopes}."):
                yield beside, item


def _nanos(value: Any) -> int | None:
    try:
        number = int(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else 0
    except ValueError:
        return None
    return number if 0 < number < 1 << 63 else None


def documents(request: Any, signal: str) -> list[Document]:
    """(document, facts) of every item of a request in OTLP/JSON. Raises Refusal ERR_SCHEMA for another shape."""
    if signal == "metrics":
        return _metric_documents(request)
    name = _PARTS[signal][3]
    made: list[Document] = []
    for beside, item in _walk(request, signal):
        document = {**beside, name: _plain(item)}
        made.append((document, _span_facts(document["span"]) if signal == "traces" else {}))
    return made


def _span_facts(span: dict[str, Any]) -> dict[str, Any]:
    """What a mapping cannot work out: how long, of what kind, and whether it failed."""
    start, end = _nanos(span.get("startTimeUnixNano")), _nanos(span.get("endTimeUnixNano"))
    kind, status = span.get("kind"), span.get("status")
    code = status.get("code") if isinstance(status, dict) else None
    facts: dict[str, Any] = {"failed": "yes" if code in (2, "STATUS_CODE_ERROR") else "no"}
    if _names_a_model(span):
        facts["gen_ai"] = "yes"
    if start is not None and end is not None and end >= start:
        facts["duration_ms"] = (end - start) / 1_000_000
    if isinstance(kind, str):
        facts["kind"] = kind.removeprefix("SPAN_KIND_").lower()
    elif isinstance(kind, int) and 0 <= kind < len(_KINDS):
        facts["kind"] = _KINDS[kind]
    return facts


def _names_a_model(span: Mapping[str, Any]) -> bool:
    """Whether a span is of a call of a model: the conventions ask for the operation's name and the provider's, and
    Langfuse's SDKs say so in a word of their own.
    """
    held = span.get("attributes")
    return isinstance(held, dict) and (
        held.get("langfuse.observation.type") in ("generation", "embedding")
        or any(isinstance(held.get(name), str) for name in _OF_A_MODEL)
    )


def _metric_documents(request: Any) -> list[Document]:
    groups: dict[bytes, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    order: list[bytes] = []
    for beside, metric in _walk(request, "metrics"):
        kind = next((one for one in _METRIC_KINDS if one in metric), None)
        if kind is None:
            raise _wrong("metric", f"send one of {', '.join(_METRIC_KINDS)}")
        about = {name: _plain(part) for name, part in metric.items() if name != kind}
        about |= (
            {name: part for name, part in metric[kind].items() if name != "dataPoints"}
            if isinstance(metric[kind], dict)
            else {}
        )
        about["kind"] = kind
        for point in _list(metric[kind], "dataPoints", f"{kind}."):
            plain = _plain(point)
            shared = [beside, plain.get("attributes"), plain.get("timeUnixNano")]
            key = canonical_json(shared)
            place = 0
            while len(groups.get(key + bytes([place % 256]) * (place > 0), ())) >= _MAX_METRICS:
                place += 1
            key += bytes([place % 256]) * (place > 0)
            if key not in groups:
                groups[key] = []
                order.append(key)
            entry = {
                "metric": about,
                "point": {n: p for n, p in plain.items() if n not in ("attributes", "timeUnixNano")},
            }
            groups[key].append(
                (
                    {**beside, "attributes": plain.get("attributes", {}), "timeUnixNano": plain.get("timeUnixNano")},
                    entry,
                )
            )
    made: list[Document] = []
    for key in order:
        around = groups[key][0][0]
        entries = [entry for _, entry in groups[key]]
        document = {name: part for name, part in around.items() if part is not None} | {"points": entries}
        names = [str(entry["metric"].get("name", "")) for entry in entries]
        title = f"{len(names)} metrics: {', '.join(names)}" if len(names) > 1 else names[0]
        series = base32_digest(canonical_json(document.get("attributes")), 16)
        facts = {"values": _values(entries), "name": names[0], "title": title or "metrics", "series": series}
        made.append((document, facts))
    return made


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < 1e300 else None


def _values(entries: list[dict[str, Any]]) -> dict[str, int | float]:
    """Numbers of points by name: the value, and for distributions count, sum, min, max and mean."""
    made: dict[str, int | float] = {}
    for entry in entries:
        name, point = str(entry["metric"].get("name", "")), entry["point"]
        for field in ("asDouble", "asInt"):
            value = _number(point.get(field))
            if value is not None:
                made.setdefault(name, value)
        count, total = _number(point.get("count")), _number(point.get("sum"))
        for field, value in (("count", count), ("sum", total), ("min", point.get("min")), ("max", point.get("max"))):
            number = _number(value)
            if number is not None:
                made.setdefault(f"{name}.{field}", number)
        if count and total is not None:
            made.setdefault(f"{name}.mean", total / count)
    return made


# --- answers ------------------------------------------------------------------------------------------------


def protobuf_answer(status: int, kind: str, refused: int, message: str, headers: Mapping[str, str]) -> Answer:
    """The answer to a protobuf request in protobuf: an Export…ServiceResponse, with partial_success for a part that was
    refused, or a google.rpc.Status. The bytes are in `raw`.
    """
    body = b""
    if kind == "partial":
        partial = protobuf.field(1, refused) + protobuf.field(2, message[:1000].encode())
        body = protobuf.field(1, partial)
    elif kind != "taken":
        codes = {400: 3, 401: 16, 403: 7, 413: 11, 415: 3, 429: 8, 503: 14}  # google.rpc.Code
        body = protobuf.field(1, codes.get(status, 2)) + protobuf.field(2, message[:1000].encode())
    return Answer(status=status, headers=headers, raw=(body, "application/x-protobuf"))
