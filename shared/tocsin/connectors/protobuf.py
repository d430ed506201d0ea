"""Protocol Buffers, read by tables: wire format to the JSON that the same message has in OTLP/JSON.

The runtime library and its generated classes cost 40 ms of every cold start and 4 MB; OTLP needs messages, strings,
numbers and bytes. A field that no table knows is kept, as base64 under `field_<number>`, so nothing is lost.

Sources: protobuf.dev/programming-guides/encoding; opentelemetry-proto 1.9 (field numbers);
opentelemetry.io/docs/specs/otlp (JSON: camelCase names, hexadecimal trace and span ids, 64-bit integers as text).
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from tocsin.kernel.errors import Detail, Refusal

#: Field number → (JSON name, kind). Kinds: a message's name, or hex, bytes, string, double, fixed64, sfixed64, fixed32,
#: uint64, int64, uint32, int32, sint32, bool; "*" after it: repeated.
Message = Mapping[int, tuple[str, str]]

MESSAGES: Final[Mapping[str, Message]] = {
    "traces": {1: ("resourceSpans", "ResourceSpans*")},
    "logs": {1: ("resourceLogs", "ResourceLogs*")},
    "metrics": {1: ("resourceMetrics", "ResourceMetrics*")},
    "Resource": {
        1: ("attributes", "KeyValue*"),
        2: ("droppedAttributesCount", "uint32"),
        3: ("entityRefs", "EntityRef*"),
    },
    "EntityRef": {
        1: ("schemaUrl", "string"),
        2: ("type", "string"),
        3: ("idKeys", "string*"),
        4: ("descriptionKeys", "string*"),
    },
    "Scope": {
        1: ("name", "string"),
        2: ("version", "string"),
        3: ("attributes", "KeyValue*"),
        4: ("droppedAttributesCount", "uint32"),
    },
    "KeyValue": {1: ("key", "string"), 2: ("value", "AnyValue")},
    "AnyValue": {
        1: ("stringValue", "string"),
        2: ("boolValue", "bool"),
        3: ("intValue", "int64"),
        4: ("doubleValue", "double"),
        5: ("arrayValue", "ArrayValue"),
        6: ("kvlistValue", "KeyValueList"),
        7: ("bytesValue", "bytes"),
    },
    "ArrayValue": {1: ("values", "AnyValue*")},
    "KeyValueList": {1: ("values", "KeyValue*")},
    "ResourceSpans": {1: ("resource", "Resource"), 2: ("scopeSpans", "ScopeSpans*"), 3: ("schemaUrl", "string")},
    "ScopeSpans": {1: ("scope", "Scope"), 2: ("spans", "Span*"), 3: ("schemaUrl", "string")},
    "Span": {
        1: ("traceId", "hex"),
        2: ("spanId", "hex"),
        3: ("traceState", "string"),
        4: ("parentSpanId", "hex"),
        5: ("name", "string"),
        6: ("kind", "int32"),
        7: ("startTimeUnixNano", "fixed64"),
        8: ("endTimeUnixNano", "fixed64"),
        9: ("attributes", "KeyValue*"),
        10: ("droppedAttributesCount", "uint32"),
        11: ("events", "SpanEvent*"),
        12: ("droppedEventsCount", "uint32"),
        13: ("links", "SpanLink*"),
        14: ("droppedLinksCount", "uint32"),
        15: ("status", "Status"),
        16: ("flags", "fixed32"),
    },
    "SpanEvent": {
        1: ("timeUnixNano", "fixed64"),
        2: ("name", "string"),
        3: ("attributes", "KeyValue*"),
        4: ("droppedAttributesCount", "uint32"),
    },
    "SpanLink": {
        1: ("traceId", "hex"),
        2: ("spanId", "hex"),
        3: ("traceState", "string"),
        4: ("attributes", "KeyValue*"),
        5: ("droppedAttributesCount", "uint32"),
        6: ("flags", "fixed32"),
    },
    "Status": {2: ("message", "string"), 3: ("code", "int32")},
    "ResourceLogs": {1: ("resource", "Resource"), 2: ("scopeLogs", "ScopeLogs*"), 3: ("schemaUrl", "string")},
    "ScopeLogs": {1: ("scope", "Scope"), 2: ("logRecords", "LogRecord*"), 3: ("schemaUrl", "string")},
    "LogRecord": {
        1: ("timeUnixNano", "fixed64"),
        2: ("severityNumber", "int32"),
        3: ("severityText", "string"),
        5: ("body", "AnyValue"),
        6: ("attributes", "KeyValue*"),
        7: ("droppedAttributesCount", "uint32"),
        8: ("flags", "fixed32"),
        9: ("traceId", "hex"),
        10: ("spanId", "hex"),
        11: ("observedTimeUnixNano", "fixed64"),
        12: ("eventName", "string"),
    },
    "ResourceMetrics": {1: ("resource", "Resource"), 2: ("scopeMetrics", "ScopeMetrics*"), 3: ("schemaUrl", "string")},
    "ScopeMetrics": {1: ("scope", "Scope"), 2: ("metrics", "Metric*"), 3: ("schemaUrl", "string")},
    "Metric": {
        1: ("name", "string"),
        2: ("description", "string"),
        3: ("unit", "string"),
        5: ("gauge", "Gauge"),
        7: ("sum", "Sum"),
        9: ("histogram", "Histogram"),
        10: ("exponentialHistogram", "ExponentialHistogram"),
        11: ("summary", "Summary"),
        12: ("metadata", "KeyValue*"),
    },
    "Gauge": {1: ("dataPoints", "NumberPoint*")},
    "Sum": {1: ("dataPoints", "NumberPoint*"), 2: ("aggregationTemporality", "int32"), 3: ("isMonotonic", "bool")},
    "Histogram": {1: ("dataPoints", "HistogramPoint*"), 2: ("aggregationTemporality", "int32")},
    "ExponentialHistogram": {1: ("dataPoints", "ExponentialPoint*"), 2: ("aggregationTemporality", "int32")},
    "Summary": {1: ("dataPoints", "SummaryPoint*")},
    "NumberPoint": {
        2: ("startTimeUnixNano", "fixed64"),
        3: ("timeUnixNano", "fixed64"),
        4: ("asDouble", "double"),
        5: ("exemplars", "Exemplar*"),
        6: ("asInt", "sfixed64"),
        7: ("attributes", "KeyValue*"),
        8: ("flags", "uint32"),
    },
    "HistogramPoint": {
        2: ("startTimeUnixNano", "fixed64"),
        3: ("timeUnixNano", "fixed64"),
        4: ("count", "fixed64"),
        5: ("sum", "double"),
        6: ("bucketCounts", "fixed64*"),
        7: ("explicitBounds", "double*"),
        8: ("exemplars", "Exemplar*"),
        9: ("attributes", "KeyValue*"),
        10: ("flags", "uint32"),
        11: ("min", "double"),
        12: ("max", "double"),
    },
    "ExponentialPoint": {
        1: ("attributes", "KeyValue*"),
        2: ("startTimeUnixNano", "fixed64"),
        3: ("timeUnixNano", "fixed64"),
        4: ("count", "fixed64"),
        5: ("sum", "double"),
        6: ("scale", "sint32"),
        7: ("zeroCount", "fixed64"),
        8: ("positive", "Buckets"),
        9: ("negative", "Buckets"),
        10: ("flags", "uint32"),
        11: ("exemplars", "Exemplar*"),
        12: ("min", "double"),
        13: ("max", "double"),
        14: ("zeroThreshold", "double"),
    },
    "Buckets": {1: ("offset", "sint32"), 2: ("bucketCounts", "uint64*")},
    "SummaryPoint": {
        2: ("startTimeUnixNano", "fixed64"),
        3: ("timeUnixNano", "fixed64"),
        4: ("count", "fixed64"),
        5: ("sum", "double"),
        6: ("quantileValues", "Quantile*"),
        7: ("attributes", "KeyValue*"),
        8: ("flags", "uint32"),
    },
    "Quantile": {1: ("quantile", "double"), 2: ("value", "double")},
    "Exemplar": {
        2: ("timeUnixNano", "fixed64"),
        3: ("asDouble", "double"),
        4: ("spanId", "hex"),
        5: ("traceId", "hex"),
        6: ("asInt", "sfixed64"),
        7: ("filteredAttributes", "KeyValue*"),
    },
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE: Final[Mapping[str, int]] = {
    **dict.fromkeys(("uint64", "int64", "uint32", "int32", "sint32", "bool"), _VARINT),
    **dict.fromkeys(("double", "fixed64", "sfixed64"), _FIXED64),
    "fixed32": _FIXED32,
}
#: Bounds of one message: how deep, and how many fields in all.
MAX_DEPTH: Final = 24
MAX_FIELDS: Final = 400_000


def _refuse(rule: str, fix: str) -> NoReturn:
    raise Refusal("ERR_SCHEMA", "The body is no such protobuf message.", [Detail("(body)", rule, fix)])


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.left = MAX_FIELDS

    def varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self.data[at]
            value |= (byte & 127) << shift
            at += 1
            if byte < 128:
                return value & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
        _refuse("varint", "send whole protobuf messages")

    def span(self, wire: int, at: int, end: int) -> tuple[int, int, int]:
        """(first byte, end, place after it) of a field's value."""
        if wire == _BYTES:
            size, at = self.varint(at, end)
            stop = at + size
        elif wire == _VARINT:
            _, stop = self.varint(at, end)
        elif wire in (_FIXED64, _FIXED32):
            stop = at + (8 if wire == _FIXED64 else 4)
        else:
            _refuse("wire-type", "send protobuf without groups")
        if stop > end:
            _refuse("length", "send whole protobuf messages")
        return at, stop, stop

    def scalar(self, kind: str, at: int, end: int) -> tuple[Any, int]:
        """One number and the place after it."""
        if _WIRE[kind] == _VARINT:
            value, at = self.varint(at, end)
            if kind == "bool":
                return value != 0, at
            if kind == "sint32":
                return (value >> 1) ^ -(value & 1), at
            if kind in ("int64", "int32") and value >= 1 << 63:
                value -= 1 << 64
            return (str(value) if kind.endswith("64") else value), at
        size = 4 if kind == "fixed32" else 8
        if at + size > end:
            _refuse("length", "send whole protobuf messages")
        code = {"double": "<d", "fixed64": "<Q", "sfixed64": "<q", "fixed32": "<I"}[kind]
        (number,) = struct.unpack_from(code, self.data, at)
        if kind == "double" and not math.isfinite(number):
            # JSON knows no such numbers; these names are what protobuf's JSON mapping writes
            return ("NaN" if math.isnan(number) else f"{'-' if number < 0 else ''}Infinity"), at + 8
        return (str(number) if kind.endswith("fixed64") else number), at + size

    def message(self, name: str, at: int, end: int, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            _refuse("depth", f"nest at most {MAX_DEPTH} messages")
        known = MESSAGES[name]
        made: dict[str, Any] = {}
        while at < end:
            self.left -= 1
            if self.left < 0:
                _refuse("fields", f"send at most {MAX_FIELDS} fields per request")
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            first, stop, at = self.span(wire, at, end)
            field, kind = known.get(number, (f"field_{number}", ""))
            many, kind = kind.endswith("*"), kind.removesuffix("*")
            expected = _WIRE.get(kind, _BYTES)
            packed = many and wire == _BYTES and kind in _WIRE
            if not kind or (wire != expected and not packed):
                kept = base64.b64encode(self.data[first:stop]).decode()
                made.setdefault(f"field_{number}", []).append(kept)
            elif packed:
                values = made.setdefault(field, [])
                while first < stop:
                    value, first = self.scalar(kind, first, stop)
                    self.left -= 1
                    if self.left < 0:
                        _refuse("fields", f"send at most {MAX_FIELDS} fields per request")
                    values.append(value)
            else:
                value = self.value(kind, first, stop, depth)
                if many:
                    made.setdefault(field, []).append(value)
                else:
                    made[field] = value
        return made

    def value(self, kind: str, first: int, stop: int, depth: int) -> Any:
        if kind in _WIRE:
            return self.scalar(kind, first, stop)[0]
        if kind in MESSAGES:
            return self.message(kind, first, stop, depth + 1)
        raw = self.data[first:stop]
        if kind == "hex":
            return raw.hex()
        if kind == "bytes":
            return base64.b64encode(raw).decode()
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            _refuse("utf-8", "send strings in UTF-8")


def read(data: bytes, message: str) -> dict[str, Any]:
    """A message as its OTLP/JSON. Raises Refusal ERR_SCHEMA for bytes that are none, nest too deep or are too many."""
    return _Reader(data).message(message, 0, len(data), 0)


def varint(value: int) -> bytes:
    """An unsigned integer in wire format."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes | int) -> bytes:
    """One field: a varint for a number, else a length-delimited value."""
    if isinstance(content, int):
        return varint(number << 3 | _VARINT) + varint(content)
    return varint(number << 3 | _BYTES) + varint(len(content)) + content
