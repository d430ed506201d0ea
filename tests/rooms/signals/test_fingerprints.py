"""Fingerprints: equal for the same message about other values, different for another message."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.signals.fingerprints import MASK, MAX_TOKENS, fingerprint, template


def event(title: str, kind: str = "latency", entity_id: str = "cart-api") -> dict[str, Any]:
    return {"type": kind, "title": title, "entity": {"type": "service", "id": entity_id}}


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Disk full", "Disk full"),
        ("took 83.2 ms", "took <*> ms"),
        ('ALARM: "api-latency" in US East (value 83.2)', "ALARM: <*> in US East (value <*>"),
        ("call to https://a.example/b?c=d failed", "call to <*> failed"),
        ("cannot open /var/log/syslog today", "cannot open <*> today"),
        ("request 6ba7b810-9dad-11d1-80b4-00c04fd430c8 died", "request <*> died"),
        ("commit deadbeefcafe broke", "commit <*> broke"),
        ("rhost= uid=0 euid=1", "rhost=<*> uid=<*> euid=<*>"),
        ("Invalid user admin from 10.0.0.1", "Invalid user <*> from <*>"),
        ("mail to jo@example.org bounced", "mail to <*> bounced"),
        ("Can't connect, won't retry", "Can't connect, won't retry"),
        ("p99 of k8s (S3) is high", "p99 of k8s (S3) is high"),
        ("Pod cart-api restarted", "Pod <*> restarted"),
        ("cart-apis differ from cart-api", "cart-apis differ from <*>"),
        ("Größe zu groß: 5 Äpfel", "Größe zu groß: <*> Äpfel"),
        ("", ""),
        (" \t\n", ""),
    ],
)
def test_masks_what_varies_and_keeps_what_is_said(title: str, expected: str) -> None:
    assert template(title, "cart-api") == expected


def test_same_message_about_other_values_and_entities_is_one_fingerprint() -> None:
    first = fingerprint(event("Pod cart-api took 12 ms for request 0x1f", entity_id="cart-api"))
    other = fingerprint(event("Pod pay-db took 9800 ms for request 0xdd", entity_id="pay-db"))
    assert first == other
    assert first.startswith("fp1_")
    assert len(first) == 20


def test_another_type_or_another_message_is_another_fingerprint() -> None:
    one = fingerprint(event("Pod restarted"))
    assert one != fingerprint(event("Pod restarted", kind="restarts"))
    assert one != fingerprint(event("Pod evicted"))
    assert fingerprint({"type": "a\nb", "title": "c"}) != fingerprint({"type": "a", "title": "c"})


def test_ids_within_a_type_are_masked_and_its_name_is_kept() -> None:
    assert fingerprint(event("x", kind="k8s.pod")) != fingerprint(event("x", kind="ec2.host"))
    assert fingerprint(event("x", kind="error.48213")) == fingerprint(event("x", kind="error.99127"))


def test_missing_fields_count_as_empty() -> None:
    assert fingerprint({}) == fingerprint({"type": "", "title": "", "entity": None})


@pytest.mark.parametrize("piece", ["a", "a1 ", '="', "'", "x 'a", "a=", "ab/", "user ", "for a from ", "-", "("])
def test_a_huge_title_is_cut_before_it_costs(piece: str) -> None:
    found = template(piece * 20_000)
    assert len(found.split()) <= MAX_TOKENS
    assert len(found) <= 8 * 1024


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["disk", "full", "on", "lost", "the"]), max_size=8), st.data())
def test_numbers_never_change_a_fingerprint(words: list[str], data: st.DataObject) -> None:
    slots = [data.draw(st.booleans()) for _ in words]

    def filled() -> str:
        numbers = iter(data.draw(st.lists(st.integers(), min_size=len(words), max_size=len(words))))
        return " ".join(f"{next(numbers)}" if slot else word for word, slot in zip(words, slots, strict=True))

    assert fingerprint(event(filled())) == fingerprint(event(filled()))


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=300), st.text(max_size=20))
def test_any_text_has_a_template_of_bounded_size(title: str, entity_id: str) -> None:
    found = template(title, entity_id)
    assert len(found.split()) <= MAX_TOKENS
    assert len(found) <= len(MASK) * (len(title) + 1)
    assert len(fingerprint(event(title, entity_id=entity_id))) == 20


#: Values of the kinds that messages carry; one of a kind may stand for any other.
_KINDS = {
    "number": st.integers(0, 10**9).map(str),
    "measure": st.floats(0, 1e6).map(lambda x: f"{x:.2f}ms"),
    "address": st.tuples(*[st.integers(0, 255)] * 4).map(lambda parts: ".".join(map(str, parts)) + ":443"),
    "uuid": st.uuids().map(str),
    "digest": st.binary(min_size=8, max_size=20).map(lambda raw: "7" + raw.hex()),
    "url": st.text("abcxyz", min_size=1, max_size=9).map(lambda word: f"https://{word}.example/{word}?q={word}"),
    "path": st.text("abcxyz/", min_size=1, max_size=9).map(lambda word: f"/srv/{word}"),
    "quoted": st.text(st.characters(exclude_characters='"', exclude_categories=("Cs",)), max_size=20).map(
        lambda text: f'"{text}"'
    ),
    "pair": st.text("abcxyz", min_size=1, max_size=9).map(lambda word: f"reason={word}"),
}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["disk", "full", "on", "lost", *sorted(_KINDS)]), max_size=9), st.data())
def test_the_same_message_with_other_values_keeps_its_fingerprint(pieces: list[str], data: st.DataObject) -> None:
    def said() -> str:
        values = [data.draw(_KINDS[piece]) if piece in _KINDS else piece for piece in pieces]
        return " ".join(["begin", *values, "end"])

    one, other = said(), said()
    assert fingerprint({"type": "t", "title": one}) == fingerprint({"type": "t", "title": other})
    assert fingerprint({"type": "t", "title": f"{one} again"}) != fingerprint({"type": "t", "title": other})
