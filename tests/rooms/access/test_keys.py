import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.access import keys

PEPPER = bytes(range(32))
TEXT, KEY_ID = keys.mint()


@pytest.mark.parametrize("env", keys.ENVIRONMENTS)
def test_a_minted_key_says_what_it_is(env: str) -> None:
    text, key_id = keys.mint(env)
    assert text.startswith(f"tcn_{env}_{key_id}")
    assert len(text) == 59
    assert keys.parse(text) == keys.ParsedKey(env, key_id)
    assert keys.mint(env)[0] != text


def test_only_known_environments_are_minted() -> None:
    with pytest.raises(ValueError, match="live, test"):
        keys.mint("prod")


def test_a_known_key_parses() -> None:
    body = "tcn_test_" + "A" * 12 + "b" * 32
    assert keys.parse(body + "2ZLsMw") == keys.ParsedKey("test", "A" * 12)


def test_every_single_typing_error_and_swap_is_noticed() -> None:
    rng = random.Random(5)
    for place in range(len(TEXT)):
        for _ in range(20):
            changed = TEXT[:place] + rng.choice(keys.ALPHABET) + TEXT[place + 1 :]
            assert changed == TEXT or keys.parse(changed) is None
        swapped = TEXT[:place] + TEXT[place : place + 2][::-1] + TEXT[place + 2 :]
        assert swapped == TEXT or keys.parse(swapped) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " " + TEXT,
        TEXT + "\n",
        TEXT[:-1],
        TEXT + "0",
        TEXT.upper(),
        "tcn_prod" + TEXT[8:],
        "k" * 1_000_000,
        TEXT[:20] + "é" + TEXT[21:],
        TEXT[:20] + "１" + TEXT[21:],
        TEXT[:20] + "\x00" + TEXT[21:],
        TEXT[:20] + "-" + TEXT[21:],
    ],
    ids=map(str, range(12)),  # the texts are fresh keys, which no two runs would name alike
)
def test_malformed_text_is_no_key(text: str) -> None:
    assert keys.parse(text) is None


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_arbitrary_text_is_no_key_and_raises_nothing(text: str) -> None:
    assert keys.parse(text) is None
    assert keys.parse(("tcn_live_" + text)[:59].ljust(59, "0")) is None
    assert not keys.verify(PEPPER, text, keys.stored_hash(PEPPER, TEXT))


def test_only_the_same_key_under_the_same_pepper_verifies() -> None:
    stored = keys.stored_hash(PEPPER, TEXT)
    assert len(stored) == 32
    assert keys.verify(PEPPER, TEXT, stored)
    assert not keys.verify(PEPPER[::-1], TEXT, stored)
    assert not keys.verify(PEPPER, keys.mint()[0], stored)
    assert not keys.verify(PEPPER, TEXT, stored[:-1])
    assert not keys.verify(PEPPER, TEXT, bytes(32))


def test_a_short_pepper_is_refused() -> None:
    with pytest.raises(ValueError, match="pepper"):
        keys.stored_hash(b"short", TEXT)
