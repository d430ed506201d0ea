"""RFC 6962 §2.1 trees over lists that are read from the left: root, and proof that a list is a prefix of another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tocsin.kernel.canonical import canonical_json

EMPTY: Final = hashlib.sha256(b"").digest()


def leaf(value: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(b"\0" + canonical_json(value)).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Level by level: a lone last node moves up unchanged, which makes the tree of RFC 6962."""
    level = list(leaves)
    while len(level) > 1:
        pairs = [hashlib.sha256(b"\1" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0] if level else EMPTY


def _split(size: int) -> int:
    """Largest power of two below size."""
    return 1 << (size - 1).bit_length() - 1


def prefix_proof(leaves: Sequence[bytes], known: int) -> list[bytes]:
    """Roots of the subtrees right of the first `known` leaves, from left to right: with these leaves they give the
    root of all. At most log2 of the number of leaves.
    """
    proof: list[bytes] = []

    def walk(low: int, high: int) -> None:
        if low >= known:
            proof.append(root(leaves[low:high]))
        elif high > known:
            middle = low + _split(high - low)
            walk(low, middle)
            walk(middle, high)

    if known < len(leaves):
        walk(0, len(leaves))
    return proof
