"""The Merkle tree of the journal: hashes, tiles, growth and proofs, all as pure functions of bytes.

Hashing is RFC 6962 §2.1 (SHA-256, 0x00 before leaves, 0x01 before nodes). Tiles are C2SP tlog-tiles: a tile
of level L holds up to 256 hashes of complete subtrees of 256^L leaves; a bundle holds up to 256 entries, each
after its length in two bytes, big-endian. Proofs are made and checked as in RFC 9162 §2.1.3 and §2.1.4.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

HASH_BYTES: Final = 32
#: Hashes of a full tile and entries of a full bundle.
WIDTH: Final = 256
MAX_ENTRY_BYTES: Final = 0xFFFF
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
ENTRIES: Final = "entries"

_PATH = re.compile(r"tile/(0|[1-9][0-9]?|entries)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)

Read = Callable[[str], bytes | None]


class Damaged(Exception):
    """Stored bytes are not what they must be. `place` names where, such as `tile/0/000 hash 17`."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class TileName(NamedTuple):
    """What a tile path names. `level` is None for a bundle of entries; `width` is 1 to 256."""

    level: int | None
    n: int
    width: int

    @property
    def path(self) -> str:
        parts = [f"{self.n % 1000:03d}"]
        rest = self.n // 1000
        while rest:
            parts.append(f"x{rest % 1000:03d}")
            rest //= 1000
        kind = ENTRIES if self.level is None else str(self.level)
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{kind}/{'/'.join(reversed(parts))}{partial}"

    @property
    def full(self) -> TileName:
        return self._replace(width=WIDTH)


def parse_path(path: str) -> TileName | None:
    """The tile that a path names, or None for anything that is not written exactly as TileName.path does."""
    match = _PATH.fullmatch(path)
    if not match:
        return None
    n = int("".join(part.lstrip("x") for part in match[2].split("/")))
    name = TileName(None if match[1] == ENTRIES else int(match[1]), n, int(match[3] or WIDTH))
    return name if name.path == path and (name.level or 0) < 64 else None


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def split_hashes(tile: bytes) -> list[bytes]:
    return [tile[i : i + HASH_BYTES] for i in range(0, len(tile), HASH_BYTES)]


def _perfect(hashes: list[bytes]) -> bytes:
    """Root over a power of two of subtree hashes."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]


def _fold(subtrees: list[bytes]) -> bytes:
    """Root over perfect subtrees in falling size, from left to right."""
    if not subtrees:
        return EMPTY_ROOT
    root = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        root = node_hash(left, root)
    return root


def pack(entries: Sequence[bytes]) -> bytes:
    """Bundle of entries. Raises ValueError for an entry over MAX_ENTRY_BYTES."""
    out = bytearray()
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise ValueError(f"an entry may hold {MAX_ENTRY_BYTES} bytes")
        out += len(entry).to_bytes(2, "big") + entry
    return bytes(out)


def unpack(bundle: bytes, place: str) -> Iterator[bytes]:
    """Entries of a bundle. Raises Damaged where a length does not fit."""
    at, number = 0, 0
    while at < len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle) or at + 2 > len(bundle):
            raise Damaged(f"{place} entry {number} byte {at}", "the length does not fit the bundle")
        yield bundle[at + 2 : end]
        at, number = end, number + 1


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree of `size` entries: all that is needed to know its root and to let it grow.

    `tiles[L]` is the partial tile of level L (empty where there is none), `bundle` the partial bundle.
    """

    size: int = 0
    tiles: tuple[bytes, ...] = ()
    bundle: bytes = b""

    @property
    def root(self) -> bytes:
        subtrees: list[bytes] = []
        for tile in reversed(self.tiles):
            hashes, start = split_hashes(tile), 0
            while start < len(hashes):
                count = 1 << (len(hashes) - start).bit_length() - 1
                subtrees.append(_perfect(hashes[start : start + count]))
                start += count
        return _fold(subtrees)


def edge_names(size: int) -> list[TileName]:
    """The partial tiles of a tree of `size` entries, lowest level first."""
    names, level = [], 0
    while size >> 8 * level:
        count = size >> 8 * level
        if count % WIDTH:
            names.append(TileName(level, count // WIDTH, count % WIDTH))
        level += 1
    return names


def file_names(size: int) -> list[TileName]:
    """Every bundle and tile that a tree of `size` entries consists of; what a copy of the log must hold."""
    bundles = [TileName(None, n, min(WIDTH, size - n * WIDTH)) for n in range(-(-size // WIDTH))]
    full, level = [], 0
    while size >> 8 * (level + 1):
        full += [TileName(level, n, WIDTH) for n in range(size >> 8 * (level + 1))]
        level += 1
    return [*bundles, *full, *edge_names(size)]


def load_edge(size: int, read: Read) -> Edge:
    """The right edge as stored. Raises Damaged for tiles that are missing, of a wrong length, or disagree
    with the partial bundle."""
    tiles = [b""] * ((size.bit_length() + 7) // 8)
    for name in edge_names(size):
        tile = _load(name, read)
        tiles[name.level or 0] = tile
    bundle = b""
    if size % WIDTH:
        name = TileName(None, size // WIDTH, size % WIDTH)
        bundle = read(name.path) or b""
        hashes = [leaf_hash(entry) for entry in unpack(bundle, name.path)]
        if b"".join(hashes) != tiles[0]:
            raise Damaged(name.path, "the entries do not hash to the tile of level 0")
    return Edge(size, tuple(tiles), bundle)


def _load(name: TileName, read: Read) -> bytes:
    """A tile of exactly the named width; a full tile serves for a partial one that is gone."""
    tile = read(name.path)
    if tile is None and name.width != WIDTH and (full := read(name.full.path)) is not None:
        tile = full[: name.width * HASH_BYTES]
    if tile is None:
        raise Damaged(name.path, "missing")
    if len(tile) != name.width * HASH_BYTES:
        raise Damaged(name.path, f"{len(tile)} bytes instead of {name.width * HASH_BYTES}")
    return tile


def grow(edge: Edge, entries: Sequence[bytes]) -> tuple[Edge, dict[str, bytes]]:
    """The tree with `entries` appended: its edge, and the files to write, bundles first.

    Every file is a function of the sequence of entries alone, so two runs over the same sequence write the
    same bytes under the same names.
    """
    bundles: dict[str, bytes] = {}
    files: dict[str, bytes] = {}
    size, bundle, tiles = edge.size, bytearray(edge.bundle), [bytearray(tile) for tile in edge.tiles]
    for entry in entries:
        bundle += pack([entry])
        carried, level = leaf_hash(entry), 0
        while True:
            if level == len(tiles):
                tiles.append(bytearray())
            tiles[level] += carried
            if len(tiles[level]) < WIDTH * HASH_BYTES:
                break
            full = bytes(tiles[level])
            files[TileName(level, size >> 8 * (level + 1), WIDTH).path] = full
            carried, tiles[level] = _perfect(split_hashes(full)), bytearray()
            level += 1
        size += 1
        if size % WIDTH == 0:
            bundles[TileName(None, size // WIDTH - 1, WIDTH).path] = bytes(bundle)
            bundle.clear()
    if size % WIDTH:
        bundles[TileName(None, size // WIDTH, size % WIDTH).path] = bytes(bundle)
    for name in edge_names(size):
        files[name.path] = bytes(tiles[name.level or 0])
    return Edge(size, tuple(map(bytes, tiles)), bytes(bundle)), bundles | files


class Tree:
    """A tree of `size` entries read from its tiles, for roots, proofs and single entries.

    Nothing read here is believed: whoever uses a proof checks it against a signed root. Tiles are kept for
    the life of the object. Raises Damaged for files that are missing or too short.
    """

    def __init__(self, size: int, read: Read) -> None:
        self.size = size
        self._read = read
        self._tiles: dict[tuple[int, int], bytes] = {}

    def root(self) -> bytes:
        return self._range(0, self.size) if self.size else EMPTY_ROOT

    def inclusion(self, index: int) -> list[bytes]:
        """Proof that entry `index` is in this tree (RFC 9162 §2.1.3.1), lowest node first."""
        if not 0 <= index < self.size:
            raise ValueError("no such entry in this tree")
        low, high, proof = 0, self.size, []
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                proof.append(self._range(middle, high))
                high = middle
            else:
                proof.append(self._range(low, middle))
                low = middle
        return proof[::-1]

    def consistency(self, old: int) -> list[bytes]:
        """Proof that the first `old` entries are a prefix of this tree (RFC 9162 §2.1.4.1)."""
        if not 0 <= old <= self.size:
            raise ValueError("the older tree is not older")
        if old in (0, self.size):
            return []
        low, high, whole, proof = 0, self.size, True, []
        while old != high:
            middle = low + _split(high - low)
            if old <= middle:
                proof.append(self._range(middle, high))
                high = middle
            else:
                proof.append(self._range(low, middle))
                low, whole = middle, False
        return ([] if whole else [self._range(low, high)]) + proof[::-1]

    def entry(self, index: int) -> bytes:
        """The bytes of entry `index`."""
        if not 0 <= index < self.size:
            raise ValueError("no such entry in this tree")
        n, offset = divmod(index, WIDTH)
        name = TileName(None, n, min(WIDTH, self.size - n * WIDTH))
        bundle = self._read(name.path)
        bundle = self._read(name.full.path) if bundle is None else bundle
        if bundle is None:
            raise Damaged(name.path, "missing")
        for number, entry in enumerate(unpack(bundle, name.path)):
            if number == offset:
                return entry
        raise Damaged(name.path, f"entry {offset} is missing")

    def _range(self, low: int, high: int) -> bytes:
        """Root of the entries low to high; `low` is a multiple of the largest power of two below the range."""
        count = high - low
        if count & (count - 1) == 0:
            return self._subtree(count.bit_length() - 1, low // count)
        middle = low + _split(count)
        return node_hash(self._range(low, middle), self._range(middle, high))

    def _subtree(self, height: int, n: int) -> bytes:
        """Root of the n-th complete subtree of 2^height leaves."""
        level, inner = divmod(height, 8)
        tile_n, position = divmod(n << inner, WIDTH)
        key = (level, tile_n)
        if key not in self._tiles:
            width = min(WIDTH, (self.size >> 8 * level) - tile_n * WIDTH)
            self._tiles[key] = _load(TileName(level, tile_n, width), self._read)
        tile = self._tiles[key]
        return _perfect(split_hashes(tile[position * HASH_BYTES : (position + (1 << inner)) * HASH_BYTES]))


def _split(count: int) -> int:
    """Largest power of two below `count` (> 1)."""
    return 1 << (count - 1).bit_length() - 1


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162 §2.1.3.2. `leaf` is the leaf's hash."""
    if not 0 <= index < size:
        return False
    fn, sn, computed = index, size - 1, leaf
    for node in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            computed = node_hash(node, computed)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            computed = node_hash(computed, node)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and computed == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """RFC 9162 §2.1.4.2; an empty older tree is a prefix of every tree."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for node in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            first, second = node_hash(node, first), node_hash(node, second)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node_hash(second, node)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and first == old_root and second == new_root
