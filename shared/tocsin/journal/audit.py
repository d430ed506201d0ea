"""What readers of the journal are shown: entries with their proofs, proofs between checkpoints, and tiles.

Everything shown refers to the published checkpoint, so a reader can check it with the pinned keys alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from tocsin.journal.notes import Checkpoint, parse_checkpoint
from tocsin.journal.ports import LogFiles
from tocsin.journal.tree import HASH_BYTES, WIDTH, Tree, leaf_hash, parse_path
from tocsin.kernel.errors import Detail, Refusal

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Inclusion:
    """An entry, and the proof that it is number `index` of the tree that `note` signs."""

    index: int
    leaf: bytes
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint
    note: bytes

    def as_json(self) -> Json:
        return {
            "index": self.index,
            "entry": json.loads(self.leaf),
            "leaf": self.leaf.decode("utf-8"),
            "leaf_hash": leaf_hash(self.leaf).hex(),
            "tree_size": self.checkpoint.size,
            "proof": [node.hex() for node in self.proof],
            "checkpoint": self.note.decode("utf-8"),
        }


class Audit:
    """Reads one log. `origin` and keys are not checked here: that is the reader's part."""

    def __init__(self, store: LogFiles) -> None:
        self._store = store

    def checkpoint(self) -> tuple[Checkpoint, bytes]:
        """The published checkpoint. Refuses ERR_NOT_FOUND before the first."""
        note = self._store.published().note
        if note is None:
            raise Refusal("ERR_NOT_FOUND", "nothing has been sealed yet; the first checkpoint comes in a minute")
        return parse_checkpoint(note)[0], note

    def inclusion(self, projects: Collection[str], index: int) -> Inclusion:
        """Entry `index` of one of `projects` with its proof. Refuses ERR_NOT_FOUND for entries of others and for
        those that no published checkpoint covers yet: the two look the same."""
        checkpoint, note = self.checkpoint()
        unknown = Refusal("ERR_NOT_FOUND", "no such journal entry, or not yet under a checkpoint")
        if not 0 <= index < checkpoint.size:
            raise unknown
        tree = Tree(checkpoint.size, self._store.read)
        leaf = tree.entry(index)
        if json.loads(leaf)["project"] not in projects:
            raise unknown
        return Inclusion(index, leaf, tuple(tree.inclusion(index)), checkpoint, note)

    def consistency(self, old: int, new: int | None = None) -> Json:
        """Proof that the tree of `old` entries is a prefix of the tree of `new` (None: the published one)."""
        checkpoint, note = self.checkpoint()
        new = checkpoint.size if new is None else new
        if not 0 <= old <= new <= checkpoint.size:
            fix = f"send 0 <= first <= second <= {checkpoint.size}"
            raise Refusal("ERR_QUERY", "These sizes are not under the checkpoint.", [Detail("first", "sizes", fix)])
        tiles = self._tiles(checkpoint.size)
        tree = Tree(new, tiles)
        return {
            "first": old,
            "second": new,
            "first_root": Tree(old, tiles).root().hex(),
            "second_root": tree.root().hex(),
            "proof": [node.hex() for node in tree.consistency(old)],
            "checkpoint": note.decode("utf-8"),
        }

    def _tiles(self, size: int) -> Callable[[str], bytes | None]:
        """Tiles of the trees up to `size`. Those of a tree that was never published are cut from wider ones."""

        def read(path: str) -> bytes | None:
            data, name = self._store.read(path), parse_path(path)
            if data is None and name is not None and name.level is not None:
                held = min(WIDTH, (size >> 8 * name.level) - name.n * WIDTH)
                wider = self._store.read(name._replace(width=held).path)
                data = None if wider is None else wider[: name.width * HASH_BYTES]
            return data

        return read

    def file(self, path: str) -> bytes:
        """One file of the log, `checkpoint` or a tile. Refuses ERR_NOT_FOUND."""
        if path == "checkpoint":
            return self.checkpoint()[1]
        data = self._store.read(path) if parse_path(path) else None
        if data is None:
            raise Refusal("ERR_NOT_FOUND", "the log has no such file")
        return data
