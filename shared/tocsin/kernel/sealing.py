"""Encryption under a project's own data key: what is sealed is readable only while that key exists.

AES-256-GCM (NIST SP 800-38D) with a fresh 96-bit nonce. Sealed bytes are

    [1: format 0xE1][1: length of key id][key id, ASCII][12: nonce][ciphertext and 16-byte tag]

What the bytes are for (project, kind, name) is associated data, so that they cannot be moved to another project or
place. A nonce is random: one key may seal 2^32 times before two of them are alike with a chance of 2^-33, which is why
keys are rotated by count of days, not kept for ever.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tocsin.kernel.errors import Refusal
from tocsin.kernel.ids import length_prefixed

FORMAT: Final = 0xE1
KEY_BYTES: Final = 32
_NONCE: Final = 12


@dataclass(frozen=True, slots=True)
class DataKey:
    """One data key of a project. `material` never leaves the process; `key_id` names it in what it sealed."""

    key_id: str
    material: bytes = field(repr=False)


class KeyRing(Protocol):
    """Data keys by project. Both refuse ERR_PROJECT_DELETED once the project's keys were destroyed."""

    def current(self, project: str) -> DataKey:
        """The key that new data is sealed with; made when there is none yet."""
        ...

    def named(self, project: str, key_id: str) -> DataKey:
        """The key that sealed something earlier. Refuses ERR_SCHEMA for one that never was."""
        ...


def seal(key: DataKey, plain: bytes, *context: str) -> bytes:
    """`plain` sealed for exactly this context, such as (project, "segment")."""
    name = key.key_id.encode("ascii")
    nonce = os.urandom(_NONCE)
    head = bytes((FORMAT, len(name))) + name
    return head + nonce + AESGCM(key.material).encrypt(nonce, plain, head + length_prefixed(*context))


def is_sealed(data: bytes) -> bool:
    """Whether bytes begin as sealed ones do; zlib data never does."""
    return data[:1] == bytes((FORMAT,))


def key_id(sealed: bytes) -> str:
    """Which key sealed these bytes. Raises ValueError for bytes that are not sealed."""
    if len(sealed) < 2 or sealed[0] != FORMAT or len(sealed) < 2 + sealed[1] + _NONCE:
        raise ValueError("not sealed bytes")
    return sealed[2 : 2 + sealed[1]].decode("ascii")


def unseal(key: DataKey, sealed: bytes, *context: str) -> bytes:
    """Inverse of seal. Raises ValueError for damaged bytes, another key or another context."""
    start = 2 + sealed[1]
    try:
        plain = AESGCM(key.material).decrypt(
            sealed[start : start + _NONCE], sealed[start + _NONCE :], sealed[:start] + length_prefixed(*context)
        )
    except InvalidTag as error:
        raise ValueError("sealed bytes are damaged, or belong elsewhere") from error
    return bytes(plain)


class Sealer:
    """Seals and opens for whoever has a project's name, whatever key it is."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def seal(self, project: str, plain: bytes, *context: str) -> bytes:
        return seal(self._ring.current(project), plain, project, *context)

    def open(self, project: str, sealed: bytes, *context: str) -> bytes:
        """Raises ValueError for damaged bytes; refuses ERR_PROJECT_DELETED when the key is destroyed."""
        return unseal(self._ring.named(project, key_id(sealed)), sealed, project, *context)


def destroyed() -> Refusal:
    """What a key ring refuses with once a project's keys are gone."""
    return Refusal("ERR_PROJECT_DELETED", "The project was deleted; what it held cannot be read any more.")
