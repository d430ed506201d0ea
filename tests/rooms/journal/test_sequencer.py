"""Sequencing: whatever dies or races, every entry is sealed exactly once and no two histories exist."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms.journal.memory import COSIGNER, LOG, NOW, ORIGIN, PINNED, Killed, Memory, entry, log_of
from tocsin.journal import sequencer
from tocsin.journal.notes import Refused, open_checkpoint
from tocsin.journal.ports import Fork, Head, HeadMoved, Published
from tocsin.journal.sequencer import Sequencer
from tocsin.journal.tree import Damaged, Tree, verify_consistency
from tocsin.journal.verify import verify
from tocsin.kernel.errors import Retry

STEPS = ("reserve", "write bundle", "write tile", "advance", "index", "delete", "settle", "publish")


def sealer(store: Memory, log: object = LOG) -> Sequencer:
    return Sequencer(store, ORIGIN, log, COSIGNER)  # type: ignore[arg-type]


class Watcher:
    """Remembers every checkpoint that a reader could have seen."""

    def __init__(self, store: Memory) -> None:
        self.store = store
        self.seen: list[bytes] = []

    def look(self) -> None:
        note = self.store.published().note
        if note is not None and note not in self.seen:
            self.seen.append(note)

    def settled(self, expected: int) -> None:
        """Everything is sealed once, indexed once, under a checkpoint that extends all earlier ones."""
        files, size = self.store.files, self.store.head().size
        assert size == expected
        assert not self.store.rows
        verified = verify(files, PINNED, self.seen)
        assert verified.checkpoint.size == expected
        tree = Tree(size, files.read)
        leaves = Counter(tree.entry(i) for i in range(size))
        assert leaves == Counter(entry(i).leaf() for i in range(expected))
        assert {number: leaf for (_, number), leaf in self.store.index.items()} == {
            i: tree.entry(i) for i in range(size)
        }
        sizes = [open_checkpoint(note, PINNED).size for note in self.seen]
        assert sizes == sorted(set(sizes))
        for note in self.seen:
            old = open_checkpoint(note, PINNED)
            assert verify_consistency(old.size, size, old.root, tree.root(), tree.consistency(old.size))


def test_evidence_becomes_a_log_that_verifies() -> None:
    store = Memory()
    store.add(*(entry(i) for i in range(5)))
    outcome = sealer(store).seal(NOW)
    assert (outcome.sealed, outcome.size, outcome.unpublished, outcome.trouble) == (5, 5, 0, "")
    store.add(*(entry(i) for i in range(5, 300)))
    assert sealer(store).seal(NOW).sealed == 295
    Watcher(store).settled(300)


def test_nothing_to_seal_writes_nothing() -> None:
    store = Memory()
    store.before_write = lambda what: pytest.fail(what)
    assert sealer(store).seal(NOW).size == 0
    store = Memory()
    store.add(entry(0))
    sealer(store).seal(NOW)
    store.before_write = lambda what: pytest.fail(what)
    assert sealer(store).seal(NOW).sealed == 0


def test_a_batch_is_bounded_and_each_has_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "MAX_ENTRIES", 10)
    store = Memory()
    store.add(*(entry(i) for i in range(35)))
    watcher = Watcher(store)
    store.before_write = lambda what: watcher.look()
    assert sealer(store).seal(NOW).sealed == 35
    watcher.look()
    assert [open_checkpoint(note, PINNED).size for note in watcher.seen] == [10, 20, 30, 35]
    watcher.settled(35)
    monkeypatch.setattr(sequencer, "MAX_BATCH_BYTES", 2_000)
    store.add(*(entry(i) for i in range(35, 50)))
    sealer(store).seal(NOW)
    watcher.settled(50)


def test_no_batch_is_begun_without_time() -> None:
    store = Memory()
    store.add(entry(0))
    assert sealer(store).seal(NOW, lambda: False).sealed == 0
    assert store.head() == Head()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("start", [0, 250])
def test_killed_at_each_step_twenty_times(step: str, moment: str, start: int) -> None:
    """Kill, maybe add, run again: twenty times at the same step, on a log that crosses a tile border."""
    store, total = Memory(), 0
    watcher = Watcher(store)
    if start:
        store.add(*(entry(i) for i in range(start)))
        sealer(store).seal(NOW)
        total = start
    chance = random.Random(f"{step}{moment}{start}")
    for _ in range(20):
        watcher.look()
        store.add(*(entry(i) for i in range(total, total + 3)))
        total += 3
        at = chance.randrange(3)
        occurrences = 0

        def kill(what: str, at: int = at) -> None:
            nonlocal occurrences
            if what == f"{moment} {step}":
                if occurrences == at or step in ("reserve", "advance", "settle", "publish"):
                    raise Killed
                occurrences += 1

        store.before_write = kill
        try:
            sealer(store).seal(NOW)
        except Killed:
            watcher.look()
        store.before_write = lambda what: None
        if chance.random() < 0.7:
            sealer(store).seal(NOW)
    sealer(store).seal(NOW)
    watcher.settled(total)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 60)), min_size=1, max_size=12))
def test_killed_at_any_write(runs: list[tuple[int, int]]) -> None:
    store, total = Memory(), 0
    watcher = Watcher(store)
    for added, life in runs:
        store.add(*(entry(i) for i in range(total, total + added)))
        total += added
        left = life

        def tick(what: str) -> None:
            nonlocal left
            watcher.look()
            left -= 1
            if left < 0:
                raise Killed

        store.before_write = tick
        try:
            sealer(store).seal(NOW)
        except Killed:
            watcher.look()
    store.before_write = lambda what: None
    sealer(store).seal(NOW)
    if total:
        watcher.settled(total)


def race(store: Memory, position: int, others: Callable[[], None]) -> None:
    """One run that is paused before its write number `position`, while others do as they like."""
    at = 0

    def pause(what: str) -> None:
        nonlocal at
        at += 1
        if at == position:
            store.before_write = lambda what: None
            others()

    store.before_write = pause
    sealer(store).seal(NOW)
    store.before_write = lambda what: None


@pytest.mark.parametrize("start", [0, 254])
@pytest.mark.parametrize("position", range(1, 32))
def test_a_paused_run_wakes_up_after_others_have_moved_on(start: int, position: int) -> None:
    """F30: two sequencers, one paused at every possible write; the other one seals twice meanwhile."""
    store = Memory()
    store.add(*(entry(i) for i in range(start)))
    sealer(store).seal(NOW)
    watcher = Watcher(store)
    store.add(*(entry(i) for i in range(start, start + 4)))

    def others() -> None:
        sealer(store).seal(NOW)
        watcher.look()
        store.add(*(entry(i) for i in range(start + 4, start + 9)))
        sealer(store).seal(NOW)
        watcher.look()

    race(store, position, others)
    if len(store.index) < start + 9:  # the pause came after the last write
        others()
    sealer(store).seal(NOW)
    watcher.look()
    watcher.settled(start + 9)


def test_rows_that_were_listed_before_another_run_sealed_them_are_not_sealed_again() -> None:
    store = Memory()
    store.add(entry(0), entry(1))
    listed = store.pending

    def slow(now: int, limit: int) -> object:
        rows = listed(now, limit)
        store.pending = listed  # type: ignore[method-assign]
        sealer(store).seal(NOW)
        return rows

    store.pending = slow  # type: ignore[method-assign,assignment]
    outcome = sealer(store).seal(NOW)
    assert outcome.trouble == "another run is at work"
    Watcher(store).settled(2)


class Silent:
    """A key service that does not answer while `down`."""

    algorithm = "ed25519"
    down = True

    def public(self) -> bytes:
        return LOG.public()

    def sign(self, message: bytes) -> bytes:
        if self.down:
            raise Retry("signing key: KMSInternalException")
        return LOG.sign(message)


def test_sequencing_goes_on_while_the_keys_do_not_answer() -> None:
    """F32: entries are sequenced, the checkpoint lags and catches up."""
    store, keys = Memory(), Silent()
    store.add(*(entry(i) for i in range(3)))
    outcome = sealer(store, keys).seal(NOW)
    assert (outcome.sealed, outcome.size, outcome.unpublished) == (3, 3, 3)
    assert outcome.trouble == "signing key: KMSInternalException"
    assert not store.rows
    assert store.published() == Published(None, None)
    store.add(*(entry(i) for i in range(3, 5)))
    assert sealer(store, keys).seal(NOW).unpublished == 5
    keys.down = False
    assert sealer(store, keys).seal(NOW).unpublished == 0
    Watcher(store).settled(5)


def test_a_head_set_back_finds_no_cosigner_for_another_history() -> None:
    """A table restored from a backup must not lead to a second history."""
    store = Memory()
    store.add(*(entry(i) for i in range(4)))
    sealer(store).seal(NOW)
    set_back = store.head()
    store.add(*(entry(i) for i in range(4, 8)))
    sealer(store).seal(NOW)
    store._head = set_back
    with pytest.raises(Fork, match="published"):
        sealer(store).seal(NOW)
    # Tiles gone as well, and another history grown beyond the published size: still refused.
    note = store.files["checkpoint"]
    store.files.clear()
    store._head = Head()
    store.add(*(entry(i) for i in range(100, 112)))
    sealer(store).seal(NOW)
    store.files["checkpoint"] = note
    with pytest.raises(Fork, match="does not extend"):
        sealer(store).seal(NOW)
    assert store.files["checkpoint"] == note


def test_a_tree_that_was_changed_is_not_extended() -> None:
    store = Memory()
    store.add(*(entry(i) for i in range(5)))
    sealer(store).seal(NOW)
    tile = store.files["tile/0/000.p/5"]
    store.files["tile/0/000.p/5"] = bytes([tile[0] ^ 1]) + tile[1:]
    store.add(entry(5))
    with pytest.raises(Damaged, match="tile"):
        sealer(store).seal(NOW)
    store.files["tile/0/000.p/5"] = tile
    assert sealer(store).seal(NOW).size == 6
    consistent = log_of(6)
    store.add(entry(6))
    store.files |= {name: data for name, data in consistent.items() if name.startswith("tile")}
    assert sealer(store).seal(NOW).size == 7


def test_a_published_checkpoint_by_somebody_else_is_not_built_upon() -> None:
    store = Memory()
    store.add(entry(0))
    sealer(store).seal(NOW)
    forged = bytearray(store.files["checkpoint"])
    forged[-3] = ord("A") if forged[-3] != ord("A") else ord("B")
    store.files["checkpoint"] = bytes(forged)
    store.add(entry(1))
    with pytest.raises(Refused):
        sealer(store).seal(NOW)


def test_a_file_that_exists_with_other_bytes_is_a_fork() -> None:
    store = Memory()
    store.add(entry(0))
    store.files["tile/entries/000.p/1"] = b"\0\1x"
    with pytest.raises(Fork):
        sealer(store).seal(NOW)


def test_a_signer_that_signs_wrongly_publishes_nothing() -> None:
    class Wrong(Silent):
        def sign(self, message: bytes) -> bytes:
            return LOG.sign(message + b"x")

    store = Memory()
    store.add(entry(0))
    with pytest.raises(Refused):
        sealer(store, Wrong()).seal(NOW)
    assert store.published().note is None


def test_malformed_evidence_does_not_stop_the_log() -> None:
    store = Memory()
    store.add(entry(0), entry(1))
    handle = next(iter(store.rows))
    row = store.rows[handle]
    store.rows[handle] = type(row)(row.handle, row.row_id, row.project, row.at, {"secret": "hunter2"})
    assert sealer(store).seal(NOW).sealed == 2
    assert verify(store.files, PINNED).checkpoint.size == 2
    assert not any(b"hunter2" in data for data in store.files.values())


def test_head_moved_is_what_a_stale_writer_gets() -> None:
    store = Memory()
    store.add(entry(0))
    sealer(store).seal(NOW)
    with pytest.raises(HeadMoved):
        store.advance(Head(), 9, b"x")
