"""The frame of a request: what is asked of media types, and gzip that cannot hurt."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.kernel.body import FORMATS, LIMITS, Limits, gunzip, media_type, open_body
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Request


def request(body: bytes, headers: Mapping[str, str | tuple[str, ...]], front: str = "rest") -> Request:
    values = {name: (value,) if isinstance(value, str) else value for name, value in headers.items()}
    return Request("POST", "/v1/events", "t", "r", headers=values, body=body, front=front)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("suffix", ["", "; charset=utf-8", ';charset="UTF-8"', " ; profile=x"])
def test_media_types(kind: str, suffix: str) -> None:
    opened = open_body(request(b"{}", {"content-type": kind.upper() + suffix}))
    assert (opened.format, opened.media_type, opened.data) == (FORMATS[kind], kind, b"{}")


def test_binary_cloudevents_may_come_without_type_or_body() -> None:
    assert open_body(request(b"", {"ce-id": "1"})).format == "binary"
    assert open_body(request(b"x", {"ce-id": "1", "content-type": "image/png"})).media_type == "image/png"
    assert (
        open_body(request(b"{}", {"ce-id": "1", "content-type": "application/cloudevents+json"})).format == "cloudevent"
    )


def test_equal_repeated_headers_count_once_and_others_are_refused() -> None:
    same = ("application/json", "application/json")
    assert open_body(request(b"{}", {"content-type": same})).format == "json"
    with pytest.raises(Refusal) as caught:
        open_body(request(b"{}", {"content-type": ("application/json", "text/plain")}))
    assert caught.value.code == "ERR_CONTENT_TYPE"


def test_a_refused_type_or_coding_says_what_is_taken() -> None:
    with pytest.raises(Refusal) as caught:
        open_body(request(b"{}", {"content-type": "text/plain"}))
    assert "application/x-ndjson" in caught.value.headers["Accept-Post"]
    with pytest.raises(Refusal) as caught:
        open_body(request(b"{}", {"content-type": "application/json", "content-encoding": "br"}))
    assert caught.value.headers == {"Accept-Encoding": "gzip, identity"}


def test_gzip_by_function_url_is_for_lines_only() -> None:
    packed = gzip.compress(b"{}")
    lines = {"content-type": "application/x-ndjson", "content-encoding": "gzip"}
    assert open_body(request(packed, lines, "url")).data == b"{}"
    assert open_body(request(packed, lines | {"content-type": "application/json"})).data == b"{}"
    with pytest.raises(Refusal) as caught:
        open_body(request(packed, lines | {"content-type": "application/json"}, "url"))
    assert caught.value.status == 415
    assert "application/x-ndjson" in caught.value.details[0].fix


@pytest.mark.parametrize(
    "text", ["", "json", "/json", "application/", "a/b/c", "application/json\u00a0", "a b/c", "\x00/a"]
)
def test_malformed_media_types(text: str) -> None:
    assert media_type(text)[0] == ""


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_gunzip_reads_every_member(parts: list[bytes]) -> None:
    assert gunzip(b"".join(map(gzip.compress, parts))) == b"".join(parts)


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_cut_stream_is_refused(data: bytes, draw: st.DataObject) -> None:
    packed = gzip.compress(data)
    cut = draw.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(Refusal) as caught:
        gunzip(packed[:cut])
    assert caught.value.code == "ERR_BODY_ENCODING"


def test_the_limit_is_exact() -> None:
    limits = Limits(unpacked=1000, ratio_floor=1000)
    assert len(gunzip(gzip.compress(bytes(1000)), limits)) == 1000
    with pytest.raises(Refusal):
        gunzip(gzip.compress(bytes(1001)), limits)


def test_a_bomb_is_never_inflated() -> None:
    packed = gzip.compress(bytes(64 * 1024 * 1024))
    tracemalloc.start()
    with pytest.raises(Refusal) as caught:
        gunzip(packed)
    assert caught.value.code == "ERR_DECOMPRESSED_TOO_LARGE"
    assert tracemalloc.get_traced_memory()[1] < 3 * LIMITS.unpacked
    tracemalloc.stop()
