"""Patterns of clients: RE2's meaning, linear time, and refusal of what is not supported."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.connectors.regex import _MEMORY, MAX_PATTERN, MAX_PROGRAM, Regex, RegexError


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("", [""], ["a"]),
        ("web", ["web"], ["webs", "we", ""]),
        ("web-[0-9]+", ["web-1", "web-42"], ["web-", "web-x", "xweb-1"]),
        ("a|bc|", ["a", "bc", ""], ["b", "abc"]),
        ("(db|web)-(eu|us)", ["db-eu", "web-us"], ["db", "dbweb-eu"]),
        (".*", ["", "anything"], ["two\nlines"]),
        ("(?s).*", ["two\nlines"], []),
        ("(?i)Warn(ing)?", ["WARN", "warning"], ["warned"]),
        ("a(?i:B)c", ["abc", "aBc"], ["Abc", "abC"]),
        ("(?i:a(?-i)b)c", ["Abc"], ["ABc"]),
        ("x{2,3}", ["xx", "xxx"], ["x", "xxxx"]),
        ("x{2,}", ["xx", "xxxxxxx"], ["x"]),
        ("x{2}y*?", ["xx", "xxyy"], ["xy"]),
        ("x{,3}", ["x{,3}"], ["xx"]),
        ("(?i)[^a-c]", ["d", "D"], ["a", "A"]),
        ("[^a-c]", ["d", "é"], ["a", "b", ""]),
        ("[]a]", ["]", "a"], ["b"]),
        ("[a-]", ["-", "a"], ["b"]),
        (r"[\d.]+", ["10.0", "1"], ["a"]),
        (r"\w+\s\S", ["ab c"], ["ab  c", "é c"]),
        (r"\D\W", ["a-"], ["1-", "ab"]),
        ("[[:alpha:]_][[:^digit:]]", ["ab", "_-"], ["1b", "a1"]),
        (r"\.\*\[", [".*["], ["x"]),
        (r"\x41\x{1F514}", ["A🔔"], ["A"]),
        ("(?P<name>a)(?:b)", ["ab"], ["a"]),
        ("^a$", ["a"], ["b"]),
        (r"\Aa\z", ["a"], ["aa"]),
        ("a^b", [], ["ab", "a^b"]),
        ("é+", ["éé"], ["e"]),
        ("(a*)*b", ["aaab", "b"], ["aaaa"]),
    ],
)
def test_meaning(pattern: str, yes: list[str], no: list[str]) -> None:
    regex = Regex(pattern)
    assert [text for text in yes if not regex.matches(text)] == []
    assert [text for text in no if regex.matches(text)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(",
            ")",
            "a)",
            "[",
            "[a",
            "[z-a]",
            "*a",
            "+",
            "{2}a",
            "a**",
            "\\",
            r"\b",
            r"\pL",
            r"\1",
            "(?=a)",
            "(?m)a",
            "(?P<1>a)",
        ),
        *(
            "(?P<a",
            "x{3,2}",
            "x{1001}",
            "[[:nope:]]",
            r"\xZZ",
            r"\xd",
            r"\x{110000}",
            "((a{200}){200}){200}",
            "(?i",
            "(?#a)",
        ),
        *("((){1000}){1000}", "(" * 600 + ")" * 600, "a" * (MAX_PATTERN + 1), "(?<!a)b"),
    ],
)
def test_wrong_or_unsupported_patterns_are_refused_with_a_reason(pattern: str) -> None:
    with pytest.raises(RegexError, match=r"error parsing regexp: ."):
        Regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+b", "a" * 4_000),
        ("(a|aa)+b", "a" * 4_000),
        ("(a|a?)+b", "a" * 4_000),
        ("(.*)*(.*)*x", "y" * 4_000),
        ("a?" * 100 + "a" * 100, "a" * 100),
        ("(([a-z])+.)+[A-Z]([a-z])+", "a" * 4_000),
    ],
)
def test_no_pattern_makes_matching_slow(pattern: str, text: str) -> None:
    regex = Regex(pattern)
    reads = 0
    original = regex._reach

    def counted(steps, *, begin, end):  # type: ignore[no-untyped-def]
        nonlocal reads
        reads += 1
        return original(steps, begin=begin, end=end)

    regex._reach = counted  # type: ignore[method-assign]
    assert regex.matches(text) is (pattern.startswith("a?"))
    assert reads <= len(text) + 1
    assert len(regex._steps) <= MAX_PROGRAM


def test_what_a_pattern_remembers_is_bounded() -> None:
    regex = Regex("(.?){200}" + "x?" * 50 + "é")
    for start in range(40):
        regex.matches("".join(chr(0x4E00 + start * 90 + n) for n in range(90)))
        assert sum(1 + len(known) for known in regex._memory.values()) <= _MEMORY + MAX_PROGRAM


_ATOM = st.sampled_from(["a", "b", "c", ".", "[ab]", "[^a]", r"\d", r"\w", "1"])
_PATTERN = st.recursive(
    _ATOM,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,}", "*?"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    ),
    max_leaves=6,
)


@given(_PATTERN, st.lists(st.text("abc1-", max_size=6), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_agrees_with_a_backtracking_engine(pattern: str, texts: list[str]) -> None:
    mine, other = Regex(pattern), re.compile(pattern, re.ASCII)
    for text in texts:
        assert mine.matches(text) == bool(other.fullmatch(text)), (pattern, text)


@given(st.text(max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_pattern_or_is_refused(pattern: str) -> None:
    with contextlib.suppress(RegexError):
        Regex(pattern).matches("some text")
