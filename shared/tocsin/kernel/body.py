"""From the bytes of a request to text of a known format: media types and gzip, each with its bound."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.http import Request

Format = Literal["json", "ndjson", "cloudevent", "cloudevents", "binary"]

#: Media types of a body that carries events. Anything with `ce-` headers is a CloudEvent in binary mode.
FORMATS: Final[dict[str, Format]] = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/cloudevents+json": "cloudevent",
    "application/cloudevents-batch+json": "cloudevents",
}
#: The media type under which a Lambda Function URL hands over gzip bytes unchanged on every platform.
GZIP_BY_URL: Final = "application/x-ndjson"
_GZIP: Final = 31  # zlib's wbits for a gzip header and trailer (RFC 1952)
_MAX_MEMBERS: Final = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in bytes. `ratio` is unpacked : wire, and holds above `ratio_floor` unpacked bytes."""

    wire: int = 1_048_576
    unpacked: int = 4_194_304
    ratio: int = 100
    ratio_floor: int = 262_144


LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Body:
    """A body ready to be read: its format, its media type ("" when none was sent) and its unpacked bytes."""

    format: Format
    media_type: str
    content_type: str
    data: bytes


def _refuse(code: str, message: str, field: str, rule: str, fix: str, **headers: str) -> NoReturn:
    raise Refusal(code, message, [Detail(field, rule, fix)], {k.replace("_", "-"): v for k, v in headers.items()})


def media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """Media type and parameters of a Content-Type value, lower case names (RFC 9110 §8.3); ("", {}) when
    malformed.
    """
    kind, *rest = content_type.split(";")
    kind = kind.strip(" \t").lower()
    if kind.count("/") != 1 or kind.startswith("/") or kind.endswith("/") or any(c <= " " or c > "~" for c in kind):
        return "", {}
    parameters = {}
    for part in rest:
        name, equals, value = part.partition("=")
        if equals:
            parameters[name.strip(" \t").lower()] = value.strip(' \t"')
    return kind, parameters


def _too_large(limits: Limits) -> NoReturn:
    fix = f"send at most {limits.wire} bytes per request, or compress with gzip"
    _refuse("ERR_BODY_TOO_LARGE", "The body is too large.", "(body)", "wire-bytes", fix)


def _one(request: Request, name: str) -> str:
    """The value of a header that may be sent once; equal repetitions count as one."""
    values = {value.strip(" \t") for value in request.headers.get(name, ())}
    if len(values) > 1:
        _refuse("ERR_CONTENT_TYPE", f"{name} was sent more than once.", name, "single-header", "send it once")
    return values.pop() if values else ""


def is_binary_cloudevent(request: Request) -> bool:
    """Whether the request is a CloudEvent in binary mode (CloudEvents HTTP binding §3.1): `ce-` headers are
    there.
    """
    return any(name in request.headers for name in ("ce-specversion", "ce-id", "ce-type", "ce-source"))


def _format(request: Request) -> tuple[Format, str, str]:
    content_type = _one(request, "content-type")
    kind, parameters = media_type(content_type)
    known = FORMATS.get(kind)
    if is_binary_cloudevent(request) and known not in ("cloudevent", "cloudevents"):
        return "binary", kind, content_type
    if known is None:
        types = ", ".join(FORMATS)
        _refuse(
            "ERR_CONTENT_TYPE",
            "The content type is missing or not supported.",
            "content-type",
            "media-type",
            f"send one of {types}",
            Accept_Post=types,
        )
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        fix = "send UTF-8, with charset=utf-8 or no charset"
        _refuse("ERR_CONTENT_TYPE", "Only UTF-8 is supported.", "content-type", "charset", fix)
    return known, kind, content_type


def gunzip(data: bytes, limits: Limits = LIMITS) -> bytes:
    """Unpack gzip (RFC 1952, up to 16 members), never beyond the limits.

    Raises Refusal: ERR_DECOMPRESSED_TOO_LARGE as soon as the output passes `unpacked` or `ratio`, and
    ERR_BODY_ENCODING for anything that is not one complete gzip stream.
    """
    most = min(limits.unpacked, max(limits.ratio_floor, limits.ratio * len(data)))
    out, rest = b"", data
    for _ in range(_MAX_MEMBERS):
        stream = zlib.decompressobj(_GZIP)
        try:
            member = stream.decompress(rest, most - len(out) + 1)
        except zlib.error:
            break
        out = out + member if out else member
        if len(out) > most:
            fix = f"send at most {limits.unpacked} bytes unpacked, packed at most {limits.ratio}:1"
            _refuse(
                "ERR_DECOMPRESSED_TOO_LARGE",
                "The unpacked body is too large.",
                "(body)",
                "unpacked-bytes",
                fix,
            )
        if not stream.eof:
            break
        rest = stream.unused_data
        if not rest:
            return out
    fix = "send one complete gzip stream, or leave Content-Encoding out"
    _refuse("ERR_BODY_ENCODING", "The body is not a complete gzip stream.", "(body)", "gzip", fix)


def open_body(request: Request, limits: Limits = LIMITS) -> Body:
    """Check the frame of a request and unpack its body; nothing is parsed yet.

    Raises Refusal: ERR_BODY_REQUIRED, ERR_BODY_TOO_LARGE, ERR_CONTENT_TYPE, ERR_BODY_ENCODING
    or ERR_DECOMPRESSED_TOO_LARGE. A CloudEvent in binary mode may have no body.
    """
    if len(request.body) > limits.wire:
        _too_large(limits)
    if not request.body and not is_binary_cloudevent(request):
        _refuse("ERR_BODY_REQUIRED", "The body is empty.", "(body)", "required", "send at least one event")
    form, kind, content_type = _format(request)
    data = request.body
    coding = _one(request, "content-encoding").lower()
    if coding in ("gzip", "x-gzip"):
        if request.front == "url" and kind != GZIP_BY_URL:
            fix = f"send gzip as {GZIP_BY_URL}, one JSON value per line, or send it uncompressed"
            _refuse(
                "ERR_CONTENT_TYPE",
                f"This address takes gzip as {GZIP_BY_URL} only.",
                "content-type",
                "gzip-by-url",
                fix,
            )
        data = gunzip(data, limits)
    elif coding not in ("", "identity"):
        _refuse(
            "ERR_CONTENT_TYPE",
            "The content encoding is not supported.",
            "content-encoding",
            "coding",
            "send gzip, or no Content-Encoding",
            Accept_Encoding="gzip, identity",
        )
    if form != "binary" and (not data or data.isspace()):
        _refuse("ERR_BODY_REQUIRED", "The body is empty.", "(body)", "required", "send at least one event")
    return Body(form, kind, content_type, data)
