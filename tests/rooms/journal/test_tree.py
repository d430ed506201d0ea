"""Hashes, tiles and proofs against the definitions of RFC 6962 and RFC 9162, written down naively here."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.journal.tree import (
    EMPTY_ROOT,
    Damaged,
    Edge,
    TileName,
    Tree,
    file_names,
    grow,
    leaf_hash,
    load_edge,
    node_hash,
    pack,
    parse_path,
    unpack,
    verify_consistency,
    verify_inclusion,
)

MAX = 70
ENTRIES = [b"entry %d" % i for i in range(1_200)]


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


def path(m: int, hashes: list[bytes]) -> list[bytes]:
    if len(hashes) == 1:
        return []
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m < k:
        return [*path(m, hashes[:k]), mth(hashes[k:])]
    return [*path(m - k, hashes[k:]), mth(hashes[:k])]


def subproof(m: int, hashes: list[bytes], whole: bool) -> list[bytes]:
    if m == len(hashes):
        return [] if whole else [mth(hashes)]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m <= k:
        return [*subproof(m, hashes[:k], whole), mth(hashes[k:])]
    return [*subproof(m - k, hashes[k:], False), mth(hashes[:k])]


LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def grown(size: int) -> tuple[Edge, dict[str, bytes]]:
    return grow(Edge(), ENTRIES[:size])


def test_known_roots() -> None:
    """Leaves and roots of the reference tests of certificate-transparency."""
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    edge, _ = grow(Edge(), [bytes.fromhex(one) for one in data])
    assert edge.root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert Edge().root == EMPTY_ROOT
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


def test_every_proof_up_to_70_entries_is_the_one_of_the_definition() -> None:
    for size in range(1, MAX + 1):
        edge, files = grown(size)
        tree, root = Tree(size, files.get), mth(LEAVES[:size])
        assert tree.root() == edge.root == root
        for index in range(size):
            proof = tree.inclusion(index)
            assert proof == path(index, LEAVES[:size])
            assert verify_inclusion(index, size, LEAVES[index], proof, root)
            assert tree.entry(index) == ENTRIES[index]
        for old in range(1, size + 1):
            consistency = tree.consistency(old)
            assert consistency == subproof(old, LEAVES[:size], True)
            assert verify_consistency(old, size, mth(LEAVES[:old]), root, consistency)


def test_no_proof_verifies_for_another_place_or_another_tree() -> None:
    for size in range(2, 34):
        root = mth(LEAVES[:size])
        for index in range(size):
            proof = path(index, LEAVES[:size])
            for other in range(size):
                assert verify_inclusion(other, size, LEAVES[index], proof, root) == (other == index)
            assert not verify_inclusion(index, size, LEAVES[index], [*proof, root], root)
            assert not verify_inclusion(index, size, LEAVES[index], proof[:-1], root)
            assert not verify_inclusion(size, size, LEAVES[index], proof, root)
        for old in range(1, size):
            proof = subproof(old, LEAVES[:size], True)
            for claimed in range(1, size):
                same = claimed == old
                assert verify_consistency(claimed, size, mth(LEAVES[:old]), root, proof) == same
            assert not verify_consistency(old, size, mth(LEAVES[1 : old + 1]), root, proof)
            assert not verify_consistency(old, size, mth(LEAVES[:old]), root, [*proof, root])
            assert not verify_consistency(old, size, mth(LEAVES[:old]), root, proof[:-1])


def test_empty_and_equal_trees_are_consistent_without_proof() -> None:
    root = mth(LEAVES[:5])
    assert verify_consistency(0, 5, EMPTY_ROOT, root, [])
    assert not verify_consistency(0, 5, root, root, [])
    assert verify_consistency(5, 5, root, root, [])
    assert not verify_consistency(5, 5, root, EMPTY_ROOT, [])
    assert not verify_consistency(6, 5, root, root, [])


@pytest.mark.parametrize("size", [255, 256, 257, 511, 512, 513, 1_023, 1_200])
def test_proofs_across_tile_borders(size: int) -> None:
    edge, files = grown(size)
    tree, root = Tree(size, files.get), mth(LEAVES[:size])
    assert edge.root == root == tree.root()
    for index in {0, 1, 254, 255, 256, 257, 511, 512, 1_022, size - 1}:
        if index < size:
            assert verify_inclusion(index, size, LEAVES[index], tree.inclusion(index), root)
    for old in {1, 2, 255, 256, 257, 512, 1_000, size - 1}:
        if old <= size:
            assert verify_consistency(old, size, mth(LEAVES[:old]), root, tree.consistency(old))


def test_a_level_2_tile_appears_at_65536_entries() -> None:
    edge, files = grow(Edge(), [b""] * 65_537)
    assert files["tile/2/000.p/1"] == edge.tiles[2] != b""
    assert Tree(65_537, files.get).root() == edge.root == node_hash(edge.tiles[2], leaf_hash(b""))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=5))
def test_files_follow_from_the_sequence_alone(steps: list[int]) -> None:
    """However the entries are cut into batches, what is needed of the final tree is written the same."""
    edge, files, size = Edge(), {}, 0
    for step in steps:
        edge = load_edge(size, files.get)
        edge, more = grow(edge, ENTRIES[size : size + step])
        for name, data in more.items():
            assert files.setdefault(name, data) == data
        size = min(size + step, len(ENTRIES))
        assert edge.size == size
    whole, at_once = grown(size)
    assert edge == whole or size == 0
    assert set(at_once) == {name.path for name in file_names(size)}
    assert {name: files[name] for name in at_once} == at_once


def test_an_edge_with_a_bad_bundle_or_a_missing_tile_is_refused() -> None:
    _, files = grown(300)
    for change in ({"tile/entries/001.p/44": files["tile/entries/001.p/44"][:-1] + b"!"}, {"tile/0/001.p/44": b""}):
        with pytest.raises(Damaged, match=r"001\.p/44"):
            load_edge(300, {**files, **change}.get)
    del files["tile/1/000.p/1"]
    with pytest.raises(Damaged, match=r"tile/1/000\.p/1: missing"):
        load_edge(300, files.get)


def test_a_full_tile_serves_for_a_partial_one_that_is_gone() -> None:
    _, files = grown(256)
    tree = Tree(200, files.get)
    assert tree.root() == mth(LEAVES[:200])
    assert tree.entry(199) == ENTRIES[199]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (TileName(0, 0, 256), "tile/0/000"),
        (TileName(3, 1_234_067, 256), "tile/3/x001/x234/067"),
        (TileName(None, 999, 1), "tile/entries/999.p/1"),
        (TileName(1, 1_000, 255), "tile/1/x001/000.p/255"),
    ],
)
def test_paths_are_those_of_tlog_tiles(name: TileName, text: str) -> None:
    assert name.path == text
    assert parse_path(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "tile/00/000",
        "tile/64/000",
        "tile/0/0",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000\n",
        "tile/0/../000",
        "tile/entry/000",
        "checkpoint",
    ],
)
def test_other_spellings_of_a_path_name_nothing(text: str) -> None:
    assert parse_path(text) is None


def test_bundles() -> None:
    assert list(unpack(pack([b"", b"a", b"bc" * 9]), "x")) == [b"", b"a", b"bc" * 9]
    for broken in (b"\0", b"\0\2a", b"\0\1ab"):
        with pytest.raises(Damaged):
            list(unpack(broken, "x"))
    with pytest.raises(ValueError, match="65535"):
        pack([b"x" * 65_536])
