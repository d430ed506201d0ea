"""Snapshots: names bind everything, deltas rebuild them, publishers race, readers are never too stale."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms.decisions import samples
from tests.rooms.decisions.memory import Cell, Objects
from tocsin.decisions import contracts, merkle
from tocsin.decisions.contracts import PUBLISH_MS
from tocsin.decisions.snapshots import COMPACT, EMPTY, Damaged, Edit, Registry, Snapshot, edited, from_document
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Refusal, Retry

NOW = samples.NOW


class Time:
    def __init__(self) -> None:
        self.ms = NOW

    def __call__(self) -> int:
        return self.ms


def registry(store: Objects | None = None, cell: Cell | None = None, time: Time | None = None) -> Registry:
    return Registry(store or Objects(), cell or Cell(), time or Time())


def one(name: str, version: int = 1) -> dict[str, Any]:
    return samples.contract(random.Random(f"{name}{version}"), name, version)


def adding(*names: str) -> Edit:
    return Edit(put=[one(name) for name in names])


def mth(hashes: list[bytes]) -> bytes:
    """RFC 6962 §2.1 as it is written."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hashlib.sha256(b"\1" + mth(hashes[:k]) + mth(hashes[k:])).digest()


@pytest.mark.parametrize("size", range(18))
def test_roots_and_prefix_proofs_are_those_of_rfc_6962(size: int) -> None:
    leaves = [merkle.leaf({"i": i}) for i in range(size)]
    assert merkle.root(leaves) == mth(leaves)
    for known in range(size + 1):
        rest = merkle.prefix_proof(leaves, known)

        def rebuild(low: int, high: int, known: int = known, rest: list[bytes] = rest) -> bytes:
            if high <= known:
                return mth(leaves[low:high])
            if low >= known:
                return rest.pop(0)
            k = 1
            while k * 2 < high - low:
                k *= 2
            left = rebuild(low, low + k)
            return hashlib.sha256(b"\1" + left + rebuild(low + k, high)).digest()

        assert len(rest) <= size.bit_length()
        assert (rebuild(0, size) if size else mth([])) == mth(leaves)
        assert rest == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**64))
def test_a_name_changes_with_anything_and_with_nothing_else(seed: int) -> None:
    rnd = random.Random(seed)
    held = samples.registry(rnd, rnd.randrange(1, 8))
    policy = samples.policy(rnd)
    edit = Edit(put=rnd.sample(held, len(held)), policy=policy)
    snapshot = edited(EMPTY, edit)
    assert snapshot.name == edited(EMPTY, Edit(put=held, policy=copy.deepcopy(policy))).name
    victim = rnd.choice(held)
    field = rnd.choice(sorted(victim))
    other = {**victim, field: one("zz", 9)[field] if field in ("name", "version") else "other"}
    if field in ("name", "version", "state", "input", "output"):
        assert edited(EMPTY, Edit(put=[other if c is victim else c for c in held], policy=policy)).name != snapshot.name
    assert edited(EMPTY, Edit(put=held, policy={**policy, "version": 2})).name != snapshot.name
    assert Snapshot(2, snapshot.previous, policy, snapshot.contracts).name != snapshot.name


def test_publish_rebuild_compact_and_look_back() -> None:
    store, cell, rnd = Objects(), Cell(), random.Random(5)
    writer = registry(store, cell)
    names: list[str] = []
    for i in range(2 * COMPACT + 7):
        gone = [(f"s{rnd.randrange(i)}", 1)] if i and rnd.random() < 0.3 else []
        made = writer.publish(lambda _, i=i, gone=gone: Edit(put=[one(f"s{i}")], drop=gone))
        names.append(made.name)
        assert registry(store, cell).current().name == made.name
    whole = [name for name in store.kept if name.startswith("snapshot/")]
    assert len(whole) == 1 + (2 * COMPACT + 6) // (COMPACT + 1)
    previous = EMPTY.name
    for sequence, name in enumerate(names, 1):
        past = registry(store, cell).at(name)
        assert (past.name, past.sequence, past.previous) == (name, sequence, previous)
        previous = name
    assert registry(store, cell).at(EMPTY.name) == EMPTY
    with pytest.raises(Retry):
        registry(store, cell).at("00" * 32)


def test_a_publisher_that_loses_the_race_edits_what_the_winner_made() -> None:
    store, cell = Objects(), Cell()
    first, second = registry(store, cell), registry(store, cell)
    cell.before_swap = lambda: void(second.publish(lambda _: adding("b")))
    seen: list[int] = []

    def edit(before: Snapshot) -> Edit:
        seen.append(before.sequence)
        return adding("a")

    assert [c["name"] for c in first.publish(edit).contracts] == ["a", "b"]
    assert seen == [0, 1]


def void(_: object) -> None:
    pass


def test_an_edit_that_refuses_changes_nothing() -> None:
    store, cell = Objects(), Cell()

    def refuse(_: Snapshot) -> Edit:
        raise Refusal("ERR_CONFLICT", "no")

    with pytest.raises(Refusal):
        registry(store, cell).publish(refuse)
    assert (cell.data, store.kept) == (None, {})


def test_a_slow_publisher_gives_up_before_the_swap() -> None:
    time = Time()
    slow = registry(time=time)

    def edit(_: Snapshot) -> Edit:
        time.ms += PUBLISH_MS
        return adding("a")

    with pytest.raises(Retry):
        slow.publish(edit)
    assert slow.pointer.read()[0] is None


def test_staleness_is_bounded() -> None:
    store, cell, time = Objects(), Cell(), Time()
    registry(store, cell, time).publish(lambda _: adding("a"))
    reader = registry(store, cell, time)
    old = reader.current()
    registry(store, cell, time).publish(lambda _: adding("b"))
    time.ms += reader.refresh_ms - 1
    assert reader.current() is old
    time.ms += 1
    assert reader.current().sequence == 2
    held = reader.current()
    cell.broken = True
    time.ms += reader.staleness_ms
    assert reader.current() is held
    time.ms += 1
    with pytest.raises(Retry):
        reader.current()
    cell.broken = False
    assert reader.current() is held


def test_a_clock_that_went_back_does_not_make_a_snapshot_fresh_for_longer() -> None:
    cell, time = Cell(), Time()
    reader = registry(cell=cell, time=time)
    reader.current()
    time.ms -= 1
    cell.broken = True
    with pytest.raises(Retry):
        reader.current()


def test_what_is_stored_is_believed_only_when_it_is_what_its_name_says() -> None:
    store, cell = Objects(), Cell()
    writer = registry(store, cell)
    whole = writer.publish(lambda _: adding("a", "b"))
    writer.publish(lambda _: adding("c"))
    data = store.kept[f"snapshot/{whole.name}"]
    assert from_document(data, whole.name).contracts == whole.contracts
    for damaged in (b"", b"[]", b"{}", data.replace(b'"a"', b'"z"', 1), data[:-5]):
        with pytest.raises(Damaged):
            from_document(damaged, whole.name)
    (delta,) = [name for name in store.kept if name.startswith("delta/")]
    changed = json.loads(store.kept[delta])
    changed["put"][0]["trust"] += 1
    store.kept[delta] = canonical_json(changed)
    with pytest.raises(Damaged):
        registry(store, cell).current()


def violation(publish: int, stale: int, lease: int, wait: int) -> str | None:
    """Explore a publisher, two routers and their calls in every order; a way to a call at a retired service, if any.

    The state: time, when draining was decided, whether it has taken effect, whether the service is retired, each
    router's view (active or not, and when it was asked for), ends of running calls.
    """
    start = (0, None, False, False, (None, None), ())
    seen, queue = {start}, deque([(start, "")])
    while queue:
        (now, decided, effective, retired, views, calls), way = queue.popleft()
        if retired and calls:
            return way
        steps: list[tuple[str, Any]] = []
        may_wait = decided is None or effective or now < decided + publish
        if now < publish + stale + lease + 3 and may_wait:
            left = tuple(end for end in calls if end > now)
            steps.append(("tick", (now + 1, decided, effective, retired, views, left)))
        if decided is None:
            steps.append(("decide", (now, now, False, False, views, calls)))
        elif not effective:
            steps.append(("take effect", (now, decided, True, False, views, calls)))
        elif not retired and now >= decided + wait:
            steps.append(("retire", (now, decided, True, True, views, calls)))
        for i, view in enumerate(views):
            asked = (not effective, now)
            if asked != view:
                steps.append((f"router {i} asks", (now, decided, effective, retired, swapped(views, i, asked), calls)))
            if view and view[0] and now - view[1] <= stale and len(calls) < 2:
                running = tuple(sorted({*calls, now + lease}))
                steps.append((f"router {i} calls", (now, decided, effective, retired, views, running)))
        for name, state in steps:
            if state not in seen:
                seen.add(state)
                queue.append((state, f"{way} > {name}"))
    return None


def swapped(views: tuple[Any, ...], i: int, view: Any) -> tuple[Any, ...]:
    return tuple(view if j == i else old for j, old in enumerate(views))


@pytest.mark.parametrize(
    ("publish", "stale", "lease"), [(0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1), (0, 2, 1), (1, 1, 2)]
)
def test_the_wait_before_retiring_is_long_enough_and_no_shorter_one_is(
    publish: int, stale: int, lease: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contracts, "PUBLISH_MS", publish)
    wait = contracts.retire_after_ms({"since_ms": 0, "lease_ms": lease}, stale)
    assert violation(publish, stale, lease, wait) is None
    assert violation(publish, stale, lease, wait - 1) is not None
