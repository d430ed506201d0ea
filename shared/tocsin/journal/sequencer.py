"""The single sequencer: evidence rows become numbered entries, tiles and signed checkpoints.

    reserve    the batch and its order are fixed: reservation row and head in one transaction, by head version
    write      bundles, then tiles, under names and with bytes that follow from the sequence alone
    advance    head.size and head.root, by head version
    settle     index rows, then the evidence rows are deleted, then the batch ends, by head version
    publish    the checkpoint is signed, cosigned and replaced, by the replaced one's token

A run that dies between any two writes leaves a head that says what is to be done next, and doing it again
writes the same bytes. A run that was paused meanwhile finds the head's version changed, or writes bytes that
are already there. So a lease only saves work; correctness does not need it. Evidence that was sealed but not
yet deleted cannot be sealed twice: a new batch is reserved only on the version of a head whose last batch has
ended, and that version was read before the rows were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tocsin.journal.entries import sealables
from tocsin.journal.notes import Checkpoint, Signer, VerifierKey, open_checkpoint, parse_checkpoint
from tocsin.journal.ports import Fork, Head, HeadMoved, JournalStore, Published, Reservation
from tocsin.journal.tree import Damaged, Tree, grow, load_edge, verify_consistency
from tocsin.kernel.errors import Retry

#: Entries of one batch, hence of one checkpoint.
MAX_ENTRIES: Final = 512
#: Bytes of one batch: a reservation is one table row (400 KB at most).
MAX_BATCH_BYTES: Final = 300_000


def origin_of(stack: str) -> str:
    """The name of a deployment's log, first line of its checkpoints."""
    return f"tocsin.{stack.lower()}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did. `unpublished` counts entries that no published checkpoint covers yet; `trouble` says why
    ("" when there was none)."""

    sealed: int
    size: int
    unpublished: int
    trouble: str = ""


class Sequencer:
    """Seals evidence for one log. `log` signs checkpoints as `origin`, `cosigner` as `<origin>/cosigner`."""

    def __init__(self, store: JournalStore, origin: str, log: Signer, cosigner: Signer) -> None:
        self._store = store
        self._origin = origin
        self._log = log
        self._cosigner = Cosigner(origin, cosigner)

    def verifier_keys(self) -> list[VerifierKey]:
        """What a reader pins: the log's key, then the cosigner's. Raises Retry."""
        return [VerifierKey.of(self._origin, self._log), self._cosigner.key()]

    def seal(self, now: int, more: Callable[[], bool] = lambda: True) -> Outcome:
        """Finish what an earlier run began, then seal what is pending, batch by batch while `more()`.

        Trouble with the keys does not stop sequencing: entries are appended, and the checkpoint follows when
        the keys answer again. Raises Retry when storage is in the way, Damaged or Fork when the stored log
        is not what the head says.
        """
        sealed = 0
        trouble = ""
        while True:
            try:
                head = self._finish(self._store.head())
                trouble = self._publish(head, now)
                batch = self._reserve(head, now) if more() else None
            except HeadMoved:
                return self._outcome(sealed, "another run is at work")
            if batch is None:
                return self._outcome(sealed, trouble)
            sealed += len(batch.leaves)

    def _outcome(self, sealed: int, trouble: str) -> Outcome:
        size = self._store.head().size
        return Outcome(sealed, size, max(0, size - _size_of(self._store.published())), trouble)

    def _reserve(self, head: Head, now: int) -> Reservation | None:
        leaves: list[bytes] = []
        handles, room = [], MAX_BATCH_BYTES
        for row in self._store.pending(now, MAX_ENTRIES):
            more = [entry.leaf() for entry in sealables(row.row_id, row.project, row.at, row.payload)]
            room -= sum(map(len, more)) + len("".join(row.handle))
            if leaves and (room < 0 or len(leaves) + len(more) > MAX_ENTRIES):
                break
            leaves += more
            handles.append(row.handle)
        if not leaves:
            return None
        batch = Reservation(head.size, tuple(leaves), tuple(handles))
        self._store.reserve(head, batch)
        return batch

    def _finish(self, head: Head) -> Head:
        """Bring a reserved batch to its end."""
        if not head.count:
            return head
        batch = self._store.reservation(head)
        if head.size == head.first:
            edge = load_edge(head.size, self._store.read)
            if edge.root != head.root:
                raise Damaged(f"right edge at size {head.size}", "the tiles do not hash to the head's root")
            grown, files = grow(edge, batch.leaves)
            for path, data in files.items():
                self._store.create(path, data)
            head = self._store.advance(head, grown.size, grown.root)
        return self._store.settle(head, batch)

    def _publish(self, head: Head, now: int) -> str:
        """Publish the head if no reader has seen it; the reason when the keys did not answer."""
        before = self._store.published()
        seen = _size_of(before)
        if seen == head.size:
            return ""
        if seen > head.size:
            if self._store.head().size < seen:
                raise Fork(f"a checkpoint of size {seen} is published, the head has {head.size}")
            raise HeadMoved
        try:
            checkpoint = Checkpoint(self._origin, head.size, head.root)
            own = checkpoint.signature_line(self._origin, self._log)
            pinned = self.verifier_keys()
            tree = Tree(head.size, self._store.read)
            second = self._cosigner.line(checkpoint, before, pinned, tree, now)
            note = checkpoint.note([own, second])
            open_checkpoint(note, pinned)  # a signer that signs wrongly must not be what readers find out
        except Retry as error:
            return error.reason
        if not self._store.publish(note, before):
            raise HeadMoved
        return ""


class Cosigner:
    """The second key: signs only what extends the last checkpoint it has signed.

    Its memory is the published checkpoint, which carries its own signature. So it needs no state of its own,
    and a head that was set back (a table restored from a backup) finds no cosigner for another history.
    """

    def __init__(self, origin: str, signer: Signer) -> None:
        self._name = f"{origin}/cosigner"
        self._signer = signer

    def key(self) -> VerifierKey:
        return VerifierKey.of(self._name, self._signer, cosigner=True)

    def line(self, new: Checkpoint, before: Published, pinned: list[VerifierKey], tree: Tree, now: int) -> str:
        """Its signature line. Raises Fork when `new` is not an extension, Refused when `before` is not
        authentic."""
        if before.note is not None:
            old = open_checkpoint(before.note, pinned)
            proof = tree.consistency(old.size) if old.size <= new.size else []
            if not verify_consistency(old.size, new.size, old.root, new.root, proof):
                raise Fork(f"size {new.size} does not extend the published size {old.size}")
        return new.cosignature_line(self._name, self._signer, now)


def _size_of(published: Published) -> int:
    """Size that the published checkpoint states, unverified; 0 before the first."""
    return parse_checkpoint(published.note)[0].size if published.note is not None else 0
