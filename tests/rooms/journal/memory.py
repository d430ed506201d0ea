"""A journal's storage in memory that can die before or after any write, and keys and entries to fill it with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from tocsin.journal.entries import Entry, content_digest
from tocsin.journal.notes import Checkpoint, VerifierKey
from tocsin.journal.ports import Evidence, Fork, Head, HeadMoved, Published, Reservation
from tocsin.journal.signatures import Ed25519Key
from tocsin.journal.tree import Edge, grow

ORIGIN = "tocsin.test"
NOW = 1_795_176_005_000
LOG = Ed25519Key(b"1" * 32)
COSIGNER = Ed25519Key(b"2" * 32)
PINNED = [
    VerifierKey.of(ORIGIN, LOG),
    VerifierKey.of(f"{ORIGIN}/cosigner", COSIGNER, cosigner=True),
]


class Killed(BaseException):
    """The process ends here. Not an Exception, so that nothing in the product can catch it."""


def entry(number: int, project: str = "demo") -> Entry:
    return Entry(
        id=f"evd_{project}_{number}",
        kind="incident.opened",
        at=NOW + number,
        project=project,
        actor="system:correlate",
        action="incident:open",
        resource=f"incident:inc_{number}",
        trace_id=f"{number:032x}",
        outcome="done",
        digests={"incident": content_digest({"number": number})},
    )


def signed(edge: Edge, origin: str = ORIGIN) -> bytes:
    checkpoint = Checkpoint(origin, edge.size, edge.root)
    own = checkpoint.signature_line(origin, LOG)
    return checkpoint.note([own, checkpoint.cosignature_line(f"{origin}/cosigner", COSIGNER, NOW)])


def log_of(size: int, steps: Sequence[int] = ()) -> dict[str, bytes]:
    """The files of a log of `size` entries that was sealed at `steps` on its way there."""
    edge, files = Edge(), {}
    for step in sorted({*steps, size}):
        edge, grown = grow(edge, [entry(i).leaf() for i in range(edge.size, step)])
        files |= grown
    files["checkpoint"] = signed(edge)
    return files


class Files(dict[str, bytes]):
    """An Archive."""

    def read(self, path: str) -> bytes | None:
        return self.get(path)

    def paths(self) -> list[str]:
        return sorted(self)


class Memory:
    """JournalStore. `before_write` is called before and after each write that could be the last one."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Evidence] = {}
        self.files = Files()
        self.index: dict[tuple[str, int], bytes] = {}
        self.before_write: Callable[[str], None] = lambda what: None
        self._head = Head()
        self._reserved: dict[int, Reservation] = {}
        self._token = 0

    def add(self, *entries: Entry) -> None:
        for one in entries:
            handle = (one.project, f"{one.at:015d}#{one.id}")
            self.rows[handle] = Evidence(handle, one.id, one.project, one.at, {"entries": [one.payload()]})

    def _write(self, what: str, effect: Callable[[], object]) -> None:
        self.before_write(f"before {what}")
        effect()
        self.before_write(f"after {what}")

    def _move(self, what: str, before: Head, after: Head, *also: Callable[[], object]) -> Head:
        def effect() -> None:
            if self._head != before:
                raise HeadMoved
            self._head = after
            for one in also:
                one()

        self._write(what, effect)
        return after

    def head(self) -> Head:
        return self._head

    def pending(self, now: int, limit: int) -> list[Evidence]:
        return sorted(self.rows.values(), key=lambda row: (row.at, row.handle))[:limit]

    def reserve(self, before: Head, reservation: Reservation) -> Head:
        count = len(reservation.leaves)
        after = Head(before.version + 1, before.size, before.root, reservation.first, count)
        keep = lambda: self._reserved.update({reservation.first: reservation})  # noqa: E731
        return self._move("reserve", before, after, keep)

    def reservation(self, head: Head) -> Reservation:
        if head.first not in self._reserved:
            raise HeadMoved
        return self._reserved[head.first]

    def advance(self, before: Head, size: int, root: bytes) -> Head:
        return self._move("advance", before, replace(before, version=before.version + 1, size=size, root=root))

    def settle(self, before: Head, reservation: Reservation) -> Head:
        for number, leaf in enumerate(reservation.leaves, reservation.first):
            place = (json.loads(leaf)["project"], number)
            self._write("index", lambda place=place, leaf=leaf: self.index.update({place: leaf}))
        for handle in reservation.handles:
            self._write("delete", lambda handle=handle: self.rows.pop(handle, None))
        after = Head(before.version + 1, before.size, before.root)
        return self._move("settle", before, after, lambda: self._reserved.pop(reservation.first))

    def read(self, path: str) -> bytes | None:
        return self.files.read(path)

    def create(self, path: str, data: bytes) -> None:
        if self.files.get(path, data) != data:
            raise Fork(path)
        kind = "bundle" if "entries" in path else "tile"
        self._write(f"write {kind}", lambda: self.files.setdefault(path, data))

    def published(self) -> Published:
        note = self.files.get("checkpoint")
        return Published(note, str(self._token) if note else None)

    def publish(self, note: bytes, before: Published) -> bool:
        if self.published() != before:
            return False

        def effect() -> None:
            self._token += 1
            self.files["checkpoint"] = note

        self._write("publish", effect)
        return True
