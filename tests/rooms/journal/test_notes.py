"""Checkpoints: one way to write them, every key must sign, and signatures agree with another implementation."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms.journal.memory import COSIGNER, LOG, NOW, ORIGIN, PINNED, signed
from tocsin.journal import signatures
from tocsin.journal.notes import (
    COSIGNATURE,
    Checkpoint,
    Refused,
    VerifierKey,
    canonical_base64,
    open_checkpoint,
    parse_checkpoint,
)
from tocsin.journal.signatures import Ed25519Key, verify_ed25519, verify_p256
from tocsin.journal.tree import Edge, grow

EDGE = grow(Edge(), [b"a", b"b", b"c"])[0]
NOTE = signed(EDGE)
SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo


class Ecdsa:
    """A Signer as KMS is one."""

    algorithm = "ecdsa-p256"

    def __init__(self) -> None:
        self._key = ec.derive_private_key(987_654_321, ec.SECP256R1())

    def public(self) -> bytes:
        return self._key.public_key().public_bytes(*SPKI)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_ed25519_agrees_with_another_implementation(seed: bytes, message: bytes) -> None:
    other = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    mine = Ed25519Key(seed)
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    assert mine.public() == other.public_key().public_bytes(*raw)
    assert mine.sign(message) == other.sign(message)
    assert verify_ed25519(mine.public(), message, other.sign(message))
    assert not verify_ed25519(mine.public(), message + b"x", other.sign(message))


def test_ed25519_vector_of_rfc_8032() -> None:
    public = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
    signature = bytes.fromhex(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    assert verify_ed25519(public, b"\xaf\x82", signature)


def test_ed25519_has_one_form_of_a_signature() -> None:
    signature = LOG.sign(b"m")
    order = 2**252 + 27742317777372353535851937790883648493
    larger = int.from_bytes(signature[32:], "little") + order
    assert verify_ed25519(LOG.public(), b"m", signature)
    assert not verify_ed25519(LOG.public(), b"m", signature[:32] + larger.to_bytes(32, "little"))
    assert not verify_ed25519(LOG.public(), b"m", signature + b"\0")
    assert not verify_ed25519((2**255 - 19).to_bytes(32, "little"), b"m", signature)
    for i in range(64):
        changed = bytes(b ^ (i == at) for at, b in enumerate(signature))
        assert not verify_ed25519(LOG.public(), b"m", changed)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 2**255), st.binary(max_size=100))
def test_p256_agrees_with_another_implementation(secret: int, message: bytes) -> None:
    other = ec.derive_private_key(secret, ec.SECP256R1())
    spki = other.public_key().public_bytes(*SPKI)
    signature = other.sign(message, ec.ECDSA(hashes.SHA256()))
    assert verify_p256(spki, message, signature)
    assert not verify_p256(spki, message + b"x", signature)


def test_p256_takes_der_in_its_one_form_only() -> None:
    key = Ecdsa()
    signature = key.sign(b"m")
    assert verify_p256(key.public(), b"m", signature)
    r_end = 4 + signature[3]
    padded = bytes([0x30, signature[1] + 1, 2, signature[3] + 1, 0]) + signature[4:]
    assert not verify_p256(key.public(), b"m", padded)
    assert not verify_p256(key.public(), b"m", signature + b"\0")
    assert not verify_p256(key.public(), b"m", signature[:r_end] + b"\2\0")
    assert not verify_p256(key.public(), b"m", b"")
    for i in range(len(signature)):
        changed = bytes(b ^ (i == at) for at, b in enumerate(signature))
        assert not verify_p256(key.public(), b"m", changed), i
    off_curve = key.public()[:-1] + bytes([key.public()[-1] ^ 1])
    assert not verify_p256(off_curve, b"m", signature)


def test_a_checkpoint_is_a_note_of_the_documents() -> None:
    lines = NOTE.decode().split("\n")
    assert lines[:4] == [ORIGIN, "3", base64.b64encode(EDGE.root).decode(), ""]
    assert lines[4].startswith(f"\u2014 {ORIGIN} ")
    assert lines[5].startswith(f"\u2014 {ORIGIN}/cosigner ")
    assert open_checkpoint(NOTE, PINNED) == Checkpoint(ORIGIN, 3, EDGE.root)
    # The cosignature signs its time too (tlog-cosignature): checked here with the other implementation.
    raw = base64.b64decode(lines[5].split(" ")[2])
    text = f"cosignature/v1\ntime {NOW // 1000}\n".encode() + "\n".join(lines[:3]).encode() + b"\n"
    assert int.from_bytes(raw[4:12], "big") == NOW // 1000
    ed25519.Ed25519PublicKey.from_public_bytes(COSIGNER.public()).verify(raw[12:], text)


def test_an_ecdsa_key_signs_and_cosigns() -> None:
    key, checkpoint = Ecdsa(), Checkpoint(ORIGIN, 3, EDGE.root)
    pinned = [VerifierKey.of(ORIGIN, key), VerifierKey.of("second", key, cosigner=True)]
    note = checkpoint.note([checkpoint.signature_line(ORIGIN, key), checkpoint.cosignature_line("second", key, NOW)])
    assert open_checkpoint(note, pinned) == checkpoint
    assert VerifierKey.parse(str(pinned[0])) == pinned[0]
    with pytest.raises(Refused, match="line 5"):
        open_checkpoint(note.replace(f"\n\u2014 {ORIGIN}".encode(), f"\n\u2014 {ORIGIN}x".encode()), pinned)


def test_every_byte_of_a_checkpoint_counts_and_its_line_is_named() -> None:
    starts = [0] + [i + 1 for i, byte in enumerate(NOTE) if byte == 10]
    for at, byte in enumerate(NOTE):
        line = sum(start <= at for start in starts)
        for changed in {byte ^ 1, byte ^ 0x20, byte ^ 0x80, 0, 10, 48, 65} - {byte}:
            with pytest.raises(Refused) as refused:
                open_checkpoint(NOTE[:at] + bytes([changed]) + NOTE[at + 1 :], PINNED)
            # A new line feed may leave a good line before it. Text that still reads well shows in the
            # signatures only; the tiles tell which line (test_verify).
            named = refused.value.line in (line, line + (changed == 10))
            assert named or refused.value.suspect_text is not None


@pytest.mark.parametrize("at", range(len(NOTE)))
def test_a_checkpoint_that_was_cut_is_refused(at: int) -> None:
    with pytest.raises(Refused):
        open_checkpoint(NOTE[:at], PINNED)


@pytest.mark.parametrize("separator", ["\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_only_a_line_feed_ends_a_line(separator: str) -> None:
    text = NOTE.decode()
    for line in range(1, text.count("\n") + 1):
        parts = text.split("\n")
        changed = "\n".join(parts[:line]) + separator + "\n".join(parts[line:])
        with pytest.raises(Refused):
            open_checkpoint(changed.encode(), PINNED)


def test_base64_has_one_form() -> None:
    assert canonical_base64("QQ==") == b"A"
    for text in ("QR==", "QQ=", "QQ", "QQ==\n", " QQ==", "QQ==QQ==", "Q-==", "\u0410"):
        assert canonical_base64(text) is None
    lines = NOTE.decode().split("\n")
    for at in (2, 4, 5):
        if not (tail := lines[at]).endswith("="):
            continue
        spare = tail.rstrip("=")
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        other = alphabet[alphabet.index(spare[-1]) ^ 1]
        changed = [*lines]
        changed[at] = spare[:-1] + other + "=" * (len(tail) - len(spare))
        with pytest.raises(Refused) as refused:
            open_checkpoint("\n".join(changed).encode(), PINNED)
        assert refused.value.line == at + 1


@pytest.mark.parametrize("size", ["03", "+3", " 3", "3 ", "-3", "3.0", "0x3", "\u0663", "", "3" * 19, "1_0"])
def test_sizes_have_one_form(size: str) -> None:
    lines = NOTE.decode().split("\n")
    lines[1] = size
    with pytest.raises(Refused) as refused:
        parse_checkpoint("\n".join(lines).encode())
    assert refused.value.line == 2


def test_signatures_of_strangers_are_ignored_but_both_pinned_ones_are_needed() -> None:
    stranger = Checkpoint(ORIGIN, 3, EDGE.root).signature_line(ORIGIN, Ed25519Key(b"3" * 32)).encode()
    assert open_checkpoint(NOTE + stranger, PINNED).size == 3
    lines = NOTE.split(b"\n")
    with pytest.raises(Refused, match=r"no signature by tocsin\.test/cosigner"):
        open_checkpoint(b"\n".join([*lines[:5], b""]), PINNED)
    with pytest.raises(Refused, match=r"no signature by tocsin\.test$"):
        open_checkpoint(b"\n".join([*lines[:4], lines[5], b""]), PINNED)
    with pytest.raises(Refused, match="line 1: not the pinned origin"):
        open_checkpoint(signed(EDGE, "tocsin.other"), PINNED)


def test_a_cosignature_does_not_pass_as_the_logs_own_signature() -> None:
    """The same key under another type has another id and signs another message."""
    as_log = VerifierKey(PINNED[1].name, 1, COSIGNER.public())
    assert PINNED[1].kind == COSIGNATURE
    assert as_log.key_id != PINNED[1].key_id
    with pytest.raises(Refused):
        open_checkpoint(NOTE, [PINNED[0], as_log])


def test_verifier_keys_as_text() -> None:
    for key in PINNED:
        assert VerifierKey.parse(str(key)) == key
        assert VerifierKey.parse(f" {key}\n") == key
    good = str(PINNED[0])
    for bad in ("", "x", good.replace("test", "tess"), good[:-1], good + "A", good.replace("+", " ", 1)):
        with pytest.raises(ValueError, match="key"):
            VerifierKey.parse(bad)


def test_a_huge_note_is_refused_before_it_is_read() -> None:
    with pytest.raises(Refused, match="65536"):
        open_checkpoint(NOTE + b"\n" * 70_000, PINNED)


def test_base_point_is_on_the_curve() -> None:
    assert signatures._BASE != signatures._ZERO
