"""Strict JSON: one meaning per text, and agreement with the standard library on what is allowed."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.kernel.errors import Refusal
from tocsin.kernel.strict_json import Limits, count_strings_over, read, read_lines, shown

NUMBERS = st.integers(-(10**34) + 1, 10**34 - 1) | st.floats(-1e100, 1e100).filter(lambda x: x == 0 or abs(x) > 1e-100)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=30,
)


def code(data: bytes, limits: Limits | None = None) -> str | None:
    try:
        read(data, limits or Limits())
    except Refusal as refusal:
        return refusal.code
    return None


@settings(max_examples=100, deadline=None)
@given(VALUES, st.booleans())
def test_reads_what_json_writes(value: Any, ascii_only: bool) -> None:
    try:
        data = json.dumps(value, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    assert read(data) == value


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789.eE+-\\untrfalsNIy ', max_size=60).map(str.encode))
def test_never_more_lenient_than_the_standard_library_and_only_refusals(data: bytes) -> None:
    try:
        value = read(data)
    except Refusal:
        return
    assert value == json.loads(data.decode("utf-8"))


@pytest.mark.parametrize("depth", [1, 2, 31, 32])
def test_depth_within_the_limit(depth: int) -> None:
    assert code(b"[" * depth + b"]" * depth) is None
    assert code(b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)) is None


@pytest.mark.parametrize("depth", [33, 100, 990, 5_000, 100_000])
def test_depth_beyond_the_limit(depth: int) -> None:
    assert code(b"[" * depth + b"]" * depth) == "ERR_JSON_DEPTH"
    assert code(b"[" * depth + b"1" + b"]" * depth) == "ERR_JSON_DEPTH"


def test_brackets_in_strings_are_not_depth() -> None:
    assert code(json.dumps(["[" * 500, "{" * 500, '\\"[']).encode()) is None


def test_scalars_have_no_depth() -> None:
    assert read(b" 1 ") == 1
    assert read(b'"a"') == "a"


def test_outermost_array_may_be_longer_than_inner_ones() -> None:
    assert len(read(b"[" + b"0," * 4_999 + b"0]")) == 5_000
    assert code(b"[[" + b"0," * 1_000 + b"0]]") == "ERR_JSON_SIZE"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.0", 0.0),
        ("-0", 0),
        ("0e999999", 0.0),
        ("0.000e-5", 0.0),
        ("1e-130", 1e-130),
        ("9.99e125", 9.99e125),
        ("0." + "0" * 60 + "1", 1e-61),
        ("1" * 34, int("1" * 34)),
    ],
)
def test_numbers_that_are_kept(text: str, value: float) -> None:
    assert read(text.encode()) == value


@pytest.mark.parametrize(
    "text", ["1e126", "-1e126", "1e400", "1e-131", "4e-324", "1" * 35, "1." + "0" * 40, "-" + "1" * 35]
)
def test_numbers_out_of_range(text: str) -> None:
    assert code(f"[{text}]".encode()) == "ERR_JSON_NUMBER_RANGE"


def test_surrogate_pairs_are_characters() -> None:
    assert read(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert code(b'"\\ude00\\ud83d"') == "ERR_JSON_ENCODING"
    assert read(b'"\\\\ud800"') == "\\ud800"


def test_duplicate_key_is_named() -> None:
    with pytest.raises(Refusal) as caught:
        read(b'{"a": {"b\\u200b": 1, "c": 2, "b\\u200b": 3}}')
    assert caught.value.details[0].field == "b\\u200b"


def test_parts_bound_the_memory() -> None:
    for piece in (b"{}", b'{"a":1}', b'"ab"', b"1.5"):
        data = b"[" + (piece + b",") * ((4_194_304 - 9) // (len(piece) + 1)) + piece + b"]"
        tracemalloc.start()
        assert code(data) == "ERR_JSON_SIZE"
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
        tracemalloc.stop()


def test_text_full_of_commas_is_not_parts() -> None:
    data = json.dumps(['a,[{"' * 1000] * 200).encode()
    assert len(data) > Limits().parts
    assert read(data) == json.loads(data)
    assert [line.refusal for line in read_lines(data + b"\n" + data)] == [None, None]


def test_lines_stand_alone() -> None:
    lines = list(read_lines(b'{"a":1}\r\n\n{bad\n[1,2]\n\xff\n"end"'))
    assert [line.number for line in lines] == [1, 3, 4, 5, 6]
    assert [line.value for line in lines] == [{"a": 1}, None, [1, 2], None, "end"]
    assert [line.refusal and line.refusal.code for line in lines] == [
        None,
        "ERR_JSON_SYNTAX",
        None,
        "ERR_JSON_ENCODING",
        None,
    ]
    refusal = lines[1].refusal
    assert refusal
    assert refusal.details[0].field == "line 3"


def test_limits_are_parameters() -> None:
    assert code(b'{"a":1,"b":2}', Limits(keys_per_object=1)) == "ERR_JSON_SIZE"
    assert code(b"[1,2,3]", Limits(parts=2)) == "ERR_JSON_SIZE"
    assert code(b"[[1]]", Limits(depth=1)) == "ERR_JSON_DEPTH"
    assert code(b"123", Limits(number_digits=2)) == "ERR_JSON_NUMBER_RANGE"


def test_counting_long_strings() -> None:
    assert count_strings_over({"aaa": ["aaa", {"b": "aaaa"}], "b": "aa"}, 2) == 3


@given(st.text())
def test_shown_is_short_printable_ascii(text: str) -> None:
    out = shown(text)
    assert len(out) <= 64
    assert out.isascii()
    assert out.isprintable()
