"""Sealed cursors open where they were made for, and nowhere else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.kernel import cursor
from tocsin.kernel.errors import Refusal

KEY = b"k" * 32
QUERY = ["list_events", "", {"source": "checkout"}]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def refused(text: str, *, key: bytes = KEY, project: str = "demo", query: object = QUERY) -> str:
    with pytest.raises(Refusal) as caught:
        cursor.open_sealed(key, project, query, text)
    return caught.value.code


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_what_was_sealed_opens_again(position: object) -> None:
    sealed = cursor.seal(KEY, "demo", QUERY, position)
    assert cursor.open_sealed(KEY, "demo", QUERY, sealed) == position
    assert len(sealed) <= cursor.MAX_CURSOR


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_flip_of_any_bit_of_any_character_is_noticed(data: st.DataObject) -> None:
    sealed = cursor.seal(KEY, "demo", QUERY, [4711, "evt_x"])
    index = data.draw(st.integers(0, len(sealed) - 1))
    flipped = chr(ord(sealed[index]) ^ (1 << data.draw(st.integers(0, 6))))
    assert refused(sealed[:index] + flipped + sealed[index + 1 :]) == "ERR_CURSOR"


def test_other_spellings_of_the_same_bytes_are_refused() -> None:
    # 1 to 3 positions, so that every length of the last base64 group occurs.
    spellings = 0
    for position in (1, 12, 123):
        sealed = cursor.seal(KEY, "demo", QUERY, position)
        prefix, text = sealed.split(".")
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
            other = text[:-1] + last
            if other != text and base64.urlsafe_b64decode(other + "=" * (-len(other) % 4)) == raw:
                spellings += 1
                assert refused(f"{prefix}.{other}") == "ERR_CURSOR"
        assert refused(sealed + "=") == "ERR_CURSOR"
        assert refused(sealed + "!") == "ERR_CURSOR"
    assert spellings > 0


def test_a_cursor_of_another_project_query_or_key_is_refused() -> None:
    sealed = cursor.seal(KEY, "demo", QUERY, 7)
    assert refused(sealed, project="other") == "ERR_CURSOR"
    assert refused(sealed, query=["list_events", "", {"source": "billing"}]) == "ERR_CURSOR"
    assert refused(sealed, query=["list_incidents", "", {"source": "checkout"}]) == "ERR_CURSOR"
    assert refused(sealed, key=b"x" * 32) == "ERR_CURSOR"


def test_project_and_query_cannot_trade_characters() -> None:
    sealed = cursor.seal(KEY, "ab", "c", 7)
    assert refused(sealed, project="a", query="bc") == "ERR_CURSOR"


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 20, 40])
def test_a_truncated_cursor_is_refused(cut: int) -> None:
    assert refused(cursor.seal(KEY, "demo", QUERY, [1, 2, 3])[:cut]) == "ERR_CURSOR"


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_junk_is_refused(junk: str) -> None:
    assert refused(junk) == "ERR_CURSOR"
    assert refused(f"c1.{junk}") == "ERR_CURSOR"


def test_ten_kilobytes_are_refused_and_never_repeated() -> None:
    with pytest.raises(Refusal) as caught:
        cursor.open_sealed(KEY, "demo", QUERY, "c1." + "A" * 10_240)
    assert caught.value.code == "ERR_CURSOR"
    assert "AAAA" not in str(caught.value.details) + caught.value.message


def test_a_position_that_does_not_fit_is_a_defect_and_not_a_refusal() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        cursor.seal(KEY, "demo", QUERY, "x" * 1024)
