"""Offline verification of a whole log against pinned keys. Says where the first bad byte is.

The signed root decides: from the entries all hashes are computed anew, and every tile file is compared with
them, those of earlier sizes too. Files are tampered with one at a time far more often than together, so a
mismatch is blamed on the part that disagrees with all others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tocsin.journal.notes import Checkpoint, Refused, VerifierKey, open_checkpoint
from tocsin.journal.ports import Archive
from tocsin.journal.tree import (
    ENTRIES,
    HASH_BYTES,
    WIDTH,
    Damaged,
    Edge,
    TileName,
    Tree,
    file_names,
    leaf_hash,
    node_hash,
    parse_path,
    split_hashes,
)
from tocsin.kernel.canonical import canonical_json

CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Verified:
    """A log that is what its keys signed. `files` were compared; `beyond` of them hold entries that the
    checkpoint does not cover yet; `ignored` files belong to no log."""

    checkpoint: Checkpoint
    files: int
    beyond: int
    ignored: int


class Directory:
    """A log in a directory; implements Archive."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes | None:
        file = self._root / path
        return file.read_bytes() if file.is_file() else None

    def paths(self) -> list[str]:
        return sorted(str(p.relative_to(self._root).as_posix()) for p in self._root.rglob("*") if p.is_file())


def verify(archive: Archive, pinned: Sequence[VerifierKey], earlier: Sequence[bytes] = ()) -> Verified:
    """Check everything in a log: signatures of all `pinned` keys (the log's first), every entry, every tile,
    and that the log extends each of the `earlier` checkpoints.

    Raises Damaged with the place of the first bad byte: `checkpoint line 5`, `tile/1/000 byte 37 (hash 1)`,
    `tile/entries/000 entry 17`.
    """
    note = archive.read(CHECKPOINT)
    if note is None:
        raise Damaged(CHECKPOINT, "missing")
    try:
        checkpoint = open_checkpoint(note, pinned)
    except Refused as refused:
        raise _located(refused, archive) from None
    log = _Log(checkpoint.size, archive)
    if log.root() != checkpoint.root:
        raise log.culprit()
    files, beyond, ignored = log.compare()
    log.check_contents()
    for number, old_note in enumerate(earlier, 1):
        old = open_checkpoint(old_note, pinned)
        if old.size > checkpoint.size:
            raise Damaged(f"earlier checkpoint {number}", f"its size {old.size} is larger: the log was cut")
        if Tree(old.size, log.tile).root() != old.root:
            raise Damaged(f"earlier checkpoint {number}", f"the first {old.size} entries are others: a fork")
    return Verified(checkpoint, files, beyond, ignored)


def _located(refused: Refused, archive: Archive) -> Damaged:
    """Which line is bad when no key signs the three lines of text: the tiles know size and root."""
    text = refused.suspect_text
    if text is None:
        return refused
    names = [name for name in map(parse_path, archive.paths()) if name and name.level == 0]
    sizes = {name.n * WIDTH + name.width for name in names}
    for size in sorted(sizes | {text.size}, reverse=True):
        try:
            root = Tree(size, archive.read).root()
        except Damaged:
            continue
        if root == text.root:
            # Text and tiles agree at this size: either that is what the text says, or the size alone is wrong.
            return refused if size == text.size else Refused(2, "no pinned key signs this size")
    return Refused(3 if text.size in sizes else 2, "no pinned key signs this text")


class _Log:
    """A log computed from its entries. Entry bundles are read once; hashes of all levels are kept."""

    def __init__(self, size: int, archive: Archive) -> None:
        self.size = size
        self._archive = archive
        self._bundles: list[bytes] = []
        #: Where each entry of a bundle begins, and at last where the bundle ends.
        self._starts: list[list[int]] = []
        leaves: list[bytes] = []
        for n in range(-(-size // WIDTH)):
            leaves += self._bundle(TileName(None, n, min(WIDTH, size - n * WIDTH)))
        self.levels = [leaves]
        while len(self.levels[-1]) >= WIDTH:
            below = self.levels[-1]
            whole = len(below) - len(below) % WIDTH
            self.levels.append([_root(below[i : i + WIDTH]) for i in range(0, whole, WIDTH)])

    def _bundle(self, name: TileName) -> list[bytes]:
        data = self._archive.read(name.path)
        if data is None and name.width < WIDTH:
            data = self._archive.read(name.full.path)
        if data is None:
            raise Damaged(name.path, "missing")
        starts: list[int] = [0]
        hashes: list[bytes] = []
        while len(hashes) < name.width and starts[-1] + 2 <= len(data):
            at = starts[-1]
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            if end > len(data):
                break
            hashes.append(leaf_hash(data[at + 2 : end]))
            starts.append(end)
        whole = self._archive.read(name.path) is not None
        if len(hashes) < name.width or (whole and starts[-1] != len(data)):
            raise self._misfit(name, hashes, starts)
        self._bundles.append(data[: starts[-1]])
        self._starts.append(starts)
        return hashes

    def _misfit(self, name: TileName, hashes: list[bytes], starts: list[int]) -> Damaged:
        """The first entry of a bundle that cannot be cut up; the tile tells where it went wrong."""
        tile = self._archive.read(name._replace(level=0).path) or b""
        stored = split_hashes(tile)
        wrong = next((i for i, pair in enumerate(zip(hashes, stored, strict=False)) if pair[0] != pair[1]), None)
        number = min(len(hashes) if wrong is None else wrong, name.width)
        return Damaged(f"{name.path} entry {number} byte {starts[number]}", "the lengths do not fit the bundle")

    def tile(self, path: str) -> bytes | None:
        """A tile as computed from the entries."""
        name = parse_path(path)
        if name is None or name.level is None or name.level >= len(self.levels):
            return None
        hashes = self.levels[name.level][name.n * WIDTH : name.n * WIDTH + name.width]
        return b"".join(hashes) if len(hashes) == name.width else None

    def root(self) -> bytes:
        return self._edge_root(self.levels)

    def _edge_root(self, levels: list[list[bytes]]) -> bytes:
        partial = (level[len(level) - len(level) % WIDTH :] for level in levels)
        return Edge(self.size, tuple(b"".join(part) for part in partial)).root

    def culprit(self) -> Damaged:
        """Why the entries do not hash to the signed root: the first entry that its tile does not know, or,
        when entries and tiles agree, all of them."""
        for n in range(len(self._bundles)):
            width = min(WIDTH, self.size - n * WIDTH)
            name = TileName(0, n, width)
            stored = self._archive.read(name.path) or self._archive.read(name.full.path) or b""
            for i in range(width):
                if self.levels[0][n * WIDTH + i] != stored[i * HASH_BYTES : (i + 1) * HASH_BYTES]:
                    entries = name._replace(level=None)
                    place = f"{entries.path} entry {n * WIDTH + i} byte {self._starts[n][i]}"
                    return Damaged(place, f"the entry is not the one that {name.path} names")
        return Damaged("checkpoint line 3", "entries and tiles agree, and hash to another root")

    def compare(self) -> tuple[int, int, int]:
        """Compare every file with what the entries make of it; (compared, beyond the checkpoint, ignored)."""
        for name in file_names(self.size):
            if self._archive.read(name.path) is None and self._archive.read(name.full.path) is None:
                raise Damaged(name.path, "missing")
        files = beyond = ignored = 0
        for path in self._archive.paths():
            named = parse_path(path)
            if named is None:
                ignored += path != CHECKPOINT
                continue
            files += 1
            beyond += self._differs(path, named, self._archive.read(path) or b"")
        return files, beyond, ignored

    def _differs(self, path: str, name: TileName, data: bytes) -> bool:
        """Whether a file goes beyond the checkpoint. Raises Damaged at its first byte that is not right."""
        if name.level is None:
            starts = self._starts[name.n] if name.n < len(self._starts) else [0]
            known = min(name.width, len(starts) - 1)
            want = self._bundles[name.n][: starts[known]] if known else b""
        else:
            level = self.levels[name.level] if name.level < len(self.levels) else []
            hashes = level[name.n * WIDTH : name.n * WIDTH + name.width]
            known, want = len(hashes), b"".join(hashes)
        ahead = known < name.width
        if data[: len(want)] != want or (not ahead and len(data) != len(want)):
            at = next((i for i, (a, b) in enumerate(zip(data, want, strict=False)) if a != b), None)
            at = min(len(data), len(want)) if at is None else at
            raise Damaged(f"{path} byte {at} ({self._unit(name, at)})", "not what the signed entries make of it")
        return ahead

    def _unit(self, name: TileName, at: int) -> str:
        if name.level is not None:
            return f"hash {at // HASH_BYTES}"
        starts = self._starts[name.n]
        return f"entry {name.n * WIDTH + sum(start <= at for start in starts) - 1}"

    def check_contents(self) -> None:
        """Every entry is canonical JSON, and no entry was sealed twice."""
        seen: set[str] = set()
        for n, bundle in enumerate(self._bundles):
            for i, (start, end) in enumerate(zip(self._starts[n], self._starts[n][1:], strict=False)):
                leaf = bundle[start + 2 : end]
                number = n * WIDTH + i
                place = f"tile/{ENTRIES} entry {number}"
                try:
                    entry = json.loads(leaf)
                    proper = isinstance(entry, dict) and canonical_json(entry) == leaf
                except ValueError:
                    proper = False
                if not proper:
                    raise Damaged(place, "not canonical JSON")
                if entry.get("id") in seen:
                    raise Damaged(place, "its id was sealed before")
                seen.add(entry.get("id"))


def _root(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]
