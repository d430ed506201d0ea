"""Checkpoints: three signed lines (origin, size, root) and the signatures of two keys, as C2SP signed notes.

    tocsin.live
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — tocsin.live Az3grlgtzPIC…
    — tocsin.live/cosigner jWbPPwAAAABkGFDL…

The log signs as type 0x01 (Ed25519) or 0x02 (ECDSA P-256), the cosigner as 0x04 (c2sp.org/tlog-cosignature: a
timestamped statement that the tree extends all it saw before) or 0x02. There is exactly one way to write a
checkpoint: base64 with spare bits, other line ends, extra lines of text and leading zeros are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from tocsin.journal.signatures import ED25519_SPKI, verify_ed25519, verify_p256
from tocsin.journal.tree import HASH_BYTES, Damaged

ED25519: Final = 1
ECDSA: Final = 2
COSIGNATURE: Final = 4
MAX_NOTE_BYTES: Final = 65_536
#: Key names and origins; narrower than C2SP, which only forbids blanks and plus signs.
_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]{0,127}", re.ASCII)
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_DASH: Final = "\u2014"
#: Line of the first signature; the lines before it are origin, size, root and an empty one.
_FIRST_SIGNATURE: Final = 5


class Signer(Protocol):
    """A private key that stays where it is."""

    @property
    def algorithm(self) -> Literal["ed25519", "ecdsa-p256"]: ...

    def public(self) -> bytes:
        """32 bytes (Ed25519) or SubjectPublicKeyInfo in DER (ECDSA). Raises Retry."""
        ...

    def sign(self, message: bytes) -> bytes:
        """64 bytes (Ed25519) or a DER signature over SHA-256 (ECDSA). Raises Retry."""
        ...


def canonical_base64(text: str) -> bytes | None:
    """Decoded text, or None when it is not the one base64 form of its bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode("ascii") == text else None


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name and signature type; as text `name+key id in hex+base64(type, key)`."""

    name: str
    kind: int
    public: bytes

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Raises ValueError with the reason."""
        parts = text.strip().split("+", 2)
        raw = canonical_base64(parts[2]) if len(parts) == 3 else None
        if raw is None or not _NAME.fullmatch(parts[0]) or raw[:1] not in (b"\1", b"\2", b"\4"):
            raise ValueError("not a verifier key: name+key id+base64")
        key = cls(parts[0], raw[0], raw[1:])
        if key.key_id.hex() != parts[1]:
            raise ValueError("the key id does not belong to the key")
        return key

    @classmethod
    def of(cls, name: str, signer: Signer, *, cosigner: bool = False) -> VerifierKey:
        if signer.algorithm == "ecdsa-p256":
            return cls(name, ECDSA, signer.public())
        return cls(name, COSIGNATURE if cosigner else ED25519, signer.public())

    @property
    def key_id(self) -> bytes:
        if self.kind == ECDSA:
            return hashlib.sha256(self.public).digest()[:4]
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        raw = base64.b64encode(bytes([self.kind]) + self.public).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{raw}"

    def verifies(self, text: bytes, signature: bytes) -> bool:
        if self.kind == ECDSA:
            return verify_p256(self.public, text, signature)
        if self.kind == COSIGNATURE:
            at = int.from_bytes(signature[:8], "big")
            return at < 1 << 63 and verify_ed25519(self.public, _cosigned(text, at), signature[8:])
        return verify_ed25519(self.public, text, signature)


def _cosigned(text: bytes, at_s: int) -> bytes:
    return f"cosignature/v1\ntime {at_s}\n".encode() + text


def public_of_spki(spki: bytes) -> bytes:
    """The key as notes hold it: 32 bytes for Ed25519, the SPKI itself for ECDSA."""
    return spki[len(ED25519_SPKI) :] if spki.startswith(ED25519_SPKI) else spki


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: `size` entries whose Merkle root is `root` (32 bytes)."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> bytes:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n".encode()

    def signature_line(self, name: str, signer: Signer) -> str:
        """The log's own line."""
        return _line(VerifierKey.of(name, signer), signer.sign(self.text))

    def cosignature_line(self, name: str, signer: Signer, now_ms: int) -> str:
        """The cosigner's line; only for a checkpoint that was found to extend all earlier ones."""
        key = VerifierKey.of(name, signer, cosigner=True)
        if key.kind == ECDSA:
            return _line(key, signer.sign(self.text))
        at_s = now_ms // 1000
        return _line(key, at_s.to_bytes(8, "big") + signer.sign(_cosigned(self.text, at_s)))

    def note(self, lines: Sequence[str]) -> bytes:
        return self.text + ("\n" + "".join(lines)).encode()


def _line(key: VerifierKey, signature: bytes) -> str:
    return f"{_DASH} {key.name} {base64.b64encode(key.key_id + signature).decode('ascii')}\n"


class Refused(Damaged):
    """A checkpoint that is not accepted. `suspect_text` when no pinned key signs these three lines."""

    def __init__(self, line: int, reason: str, *, suspect_text: Checkpoint | None = None) -> None:
        super().__init__(f"checkpoint line {line}", reason)
        self.line = line
        self.suspect_text = suspect_text


def parse_checkpoint(note: bytes, origin: str | None = None) -> tuple[Checkpoint, list[tuple[str, bytes]]]:
    """A checkpoint and its signature lines (name, raw), unverified. Raises Refused naming the line.

    Lines end in a line feed and nothing else: str.splitlines also splits at U+2028 and others, which would let
    two readers see different lines.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise Refused(1, f"a checkpoint may hold {MAX_NOTE_BYTES} bytes")
    lines = note.decode("utf-8", "replace").split("\n")  # what is not UTF-8 fits no line's grammar
    if not _NAME.fullmatch(lines[0]) or (origin is not None and lines[0] != origin):
        raise Refused(1, "not the pinned origin")
    if len(lines) < 2 or not _SIZE.fullmatch(lines[1]):
        raise Refused(2, "not a size in decimal")
    root = canonical_base64(lines[2]) if len(lines) > 2 else None
    if root is None or len(root) != HASH_BYTES:
        raise Refused(3, "not the base64 form of 32 bytes")
    if len(lines) < _FIRST_SIGNATURE or lines[3]:
        raise Refused(4, "not empty")
    signatures = []
    for number, line in enumerate(lines[_FIRST_SIGNATURE - 1 : -1], _FIRST_SIGNATURE):
        parts = line.split(" ")
        raw = canonical_base64(parts[2]) if len(parts) == 3 else None
        if raw is None or parts[0] != _DASH or not _NAME.fullmatch(parts[1]) or len(raw) < 5:
            raise Refused(number, "not a signature line")
        signatures.append((parts[1], raw))
    if lines[-1] or not signatures:
        raise Refused(len(lines), "no signature line that ends in a line feed")
    return Checkpoint(lines[0], int(lines[1]), root), signatures


def open_checkpoint(note: bytes, pinned: Sequence[VerifierKey]) -> Checkpoint:
    """A checkpoint that every pinned key has signed; the first one is the log's and names the origin.

    Signatures of other keys are ignored, as signed-note demands. Raises Refused naming the line.
    """
    checkpoint, signatures = parse_checkpoint(note, pinned[0].name)
    failed: list[tuple[int, str]] = []
    for key in pinned:
        mine = [i for i, (name, raw) in enumerate(signatures) if name == key.name and raw[:4] == key.key_id]
        if not mine:
            unknown = [i for i, one in enumerate(signatures) if not any(_is_by(one, k) for k in pinned)]
            line = (unknown[0] if unknown else len(signatures)) + _FIRST_SIGNATURE
            raise Refused(line, f"no signature by {key.name}")
        if not key.verifies(checkpoint.text, signatures[mine[0]][1][4:]):
            failed.append((mine[0] + _FIRST_SIGNATURE, f"the signature by {key.name} does not verify"))
    if failed:
        raise Refused(*failed[0], suspect_text=checkpoint if len(failed) == len(pinned) else None)
    return checkpoint


def _is_by(signature: tuple[str, bytes], key: VerifierKey) -> bool:
    return signature[0] == key.name and signature[1][:4] == key.key_id
