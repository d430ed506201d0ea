"""Offline verification, by the product and by the standalone checker: any changed byte is refused and placed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import journal_checker as checker

from tests.rooms.journal.memory import PINNED, Files, Memory, entry, log_of, signed
from tocsin.journal.audit import Audit
from tocsin.journal.notes import Refused
from tocsin.journal.tree import Damaged, Edge, file_names, grow, pack, verify_consistency
from tocsin.journal.verify import Directory, verify
from tocsin.kernel.errors import Refusal

KEYS = [checker.pinned_key(str(key)) for key in PINNED]


def write(files: dict[str, bytes], root: Path) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def place(files: dict[str, bytes]) -> str:
    with pytest.raises(Damaged) as damaged:
        verify(Files(files), PINNED)
    return damaged.value.place


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 700])
def test_a_whole_log_verifies(size: int, tmp_path: Path) -> None:
    files = log_of(size, range(0, size, 97))
    verified = verify(Files(files), PINNED)
    assert (verified.checkpoint.size, verified.beyond, verified.ignored) == (size, 0, 0)
    assert verified.files == len(files) - 1
    write(files, tmp_path)
    assert verify(Directory(tmp_path), PINNED) == verified
    assert checker.check_directory(tmp_path, KEYS) == f"{size} entries"


def test_every_changed_byte_of_a_checkpoint_is_refused_and_its_line_named() -> None:
    files = log_of(12)
    note = files["checkpoint"]
    for at, byte in enumerate(note):
        line = note[:at].count(b"\n") + 1
        for changed in (byte ^ 1, byte ^ 0x20):
            mutated = note[:at] + bytes([changed]) + note[at + 1 :]
            assert place({**files, "checkpoint": mutated}) == f"checkpoint line {line}"


def test_every_changed_byte_of_every_file_is_refused_and_placed(tmp_path: Path) -> None:
    """A log of short entries with files of two sizes: all bytes. The checker reads the files of the last size."""
    leaves = [b'{"id":"e%d"}' % i for i in range(5)]
    edge, files = grow(Edge(), leaves[:2])
    edge, more = grow(edge, leaves[2:])
    files |= more | {"checkpoint": signed(edge)}
    assert verify(Files(files), PINNED).files == 4
    needed = {name.path for name in file_names(5)}
    write(files, tmp_path)
    for name in files.keys() - {"checkpoint"}:
        data = files[name]
        for at in range(len(data)):
            mutated = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
            found = place({**files, name: mutated})
            assert found.startswith(name), (found, name, at)
            if name.startswith("tile/0"):
                assert f"byte {at} (hash {at // 32})" in found
            else:
                assert f"entry {entry_at(data, at)} " in found or f"entry {entry_at(data, at)})" in found
            if name in needed and at % 5 == 0:
                (tmp_path / name).write_bytes(mutated)
                with pytest.raises(checker.BadError, match=name.replace(".", r"\.")):
                    checker.check_directory(tmp_path, KEYS)
        (tmp_path / name).write_bytes(data)


def entry_at(bundle: bytes, at: int) -> int:
    start, number = 0, 0
    while (end := start + 2 + int.from_bytes(bundle[start : start + 2], "big")) <= at:
        start, number = end, number + 1
    return number


def test_sampled_bytes_of_a_log_with_two_levels_are_refused_and_placed(tmp_path: Path) -> None:
    files = log_of(600, [300])
    needed = {name.path for name in file_names(600)}
    write(files, tmp_path)
    for name, data in files.items():
        if name == "checkpoint":
            continue
        for at in {0, 1, 31, 32, len(data) // 3, len(data) // 2, len(data) - 1}:
            if at >= len(data):
                continue
            mutated = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
            assert place({**files, name: mutated}).startswith(name)
            if name in needed and at in (0, len(data) - 1):
                (tmp_path / name).write_bytes(mutated)
                with pytest.raises(checker.BadError, match=name.replace(".", r"\.")):
                    checker.check_directory(tmp_path, KEYS)
                (tmp_path / name).write_bytes(data)


@pytest.mark.parametrize("change", ["cut", "longer", "missing", "empty"])
def test_files_that_are_cut_longer_or_missing(change: str, tmp_path: Path) -> None:
    files = log_of(300)
    for name in {name.path for name in file_names(300)}:
        changed = dict(files)
        if change == "missing":
            del changed[name]
        else:
            data = files[name]
            changed[name] = {"cut": data[:-1], "longer": data + b"\0", "empty": b""}[change]
        assert place(changed).startswith(name)
        root = tmp_path / name.replace("/", "-")
        write(changed, root)
        with pytest.raises(checker.BadError, match=name.replace(".", r"\.")):
            checker.check_directory(root, KEYS)


def test_a_rewritten_log_is_refused_whatever_agrees_inside_it(tmp_path: Path) -> None:
    """Entries, tiles and root all changed consistently: only the signature is left to tell."""
    files = log_of(5)
    edge, forged = grow(Edge(), [entry(i).leaf() for i in (0, 1, 9, 3, 4)])
    assert place({**files, **forged}) == "checkpoint line 3"
    write({**files, **forged}, tmp_path)
    with pytest.raises(checker.BadError, match="line 3"):
        checker.check_directory(tmp_path, KEYS)
    text = signed(edge).split(b"\n\n")[0] + b"\n\n" + files["checkpoint"].split(b"\n\n")[1]
    # Text and tiles agree with each other, so the blame falls on the signatures.
    assert place({**files, **forged, "checkpoint": text}) == "checkpoint line 5"


def test_a_checkpoint_of_another_size_is_told_by_the_tiles() -> None:
    files = log_of(12, [7])
    for size in (b"7", b"13", b"11", b"99"):
        note = files["checkpoint"].replace(b"\n12\n", b"\n" + size + b"\n")
        assert place({**files, "checkpoint": note}) == "checkpoint line 2"


def test_a_log_must_extend_the_checkpoints_a_reader_has_kept() -> None:
    files = log_of(300, [10, 256])
    kept = [log_of(size)["checkpoint"] for size in (0, 10, 256, 300)]
    assert verify(Files(files), PINNED, kept).checkpoint.size == 300
    with pytest.raises(Damaged, match="earlier checkpoint 1: its size 300 is larger"):
        verify(Files(log_of(10)), PINNED, [kept[3]])
    other = signed(grow(Edge(), [b"{}"] * 10)[0])
    with pytest.raises(Damaged, match=r"earlier checkpoint 2: .* fork"):
        verify(Files(files), PINNED, [kept[0], other])


def test_files_beyond_the_checkpoint_are_counted_not_trusted() -> None:
    files = log_of(300)
    ahead = {**log_of(400), "checkpoint": files["checkpoint"], "README": b"hello"}
    verified = verify(Files({**files, **ahead}), PINNED)
    assert (verified.checkpoint.size, verified.beyond, verified.ignored) == (300, 2, 1)


def test_an_entry_that_was_sealed_twice_or_is_not_canonical_is_named() -> None:
    leaves = [entry(0).leaf(), entry(1).leaf()]
    for extra, reason in ((leaves[0], "its id was sealed before"), (b'{"a": 1}', "canonical"), (b"\xff", "canonical")):
        edge, files = grow(Edge(), [*leaves, extra])
        files["checkpoint"] = signed(edge)
        with pytest.raises(Damaged, match=f"tile/entries entry 2: .*{reason}"):
            verify(Files(files), PINNED)


def test_no_checkpoint_is_no_log() -> None:
    assert place({}) == "checkpoint"


# ------------------------------------------------------------------------------------------------ what readers see
def test_audit_shows_entries_of_the_own_project_only() -> None:
    store = Memory()
    edge, files = grow(Edge(), [entry(0).leaf(), entry(1, "other").leaf()])
    store.files.update(files)
    audit = Audit(store)
    with pytest.raises(Refusal) as refused:
        audit.inclusion({"demo"}, 0)
    assert refused.value.code == "ERR_NOT_FOUND"
    store.files["checkpoint"] = signed(edge)
    assert audit.inclusion({"demo"}, 0).leaf == entry(0).leaf()
    for index in (1, 2, -1):
        with pytest.raises(Refusal, match="no such journal entry"):
            audit.inclusion({"demo"}, index)


def test_audit_proves_that_one_checkpoint_extends_another() -> None:
    store = Memory()
    store.files.update(log_of(300, [10]))
    shown = Audit(store).consistency(10)
    assert (shown["first"], shown["second"]) == (10, 300)
    assert shown["first_root"] == grow(Edge(), [entry(i).leaf() for i in range(10)])[0].root.hex()
    roots = {size: grow(Edge(), [entry(i).leaf() for i in range(size)])[0].root for size in (0, 1, 7, 256, 257, 299)}
    for old, new in ((0, 1), (1, 7), (7, 256), (7, 299), (256, 257), (257, 299)):  # trees that were never published
        shown = Audit(store).consistency(old, new)
        assert (shown["first_root"], shown["second_root"]) == (roots[old].hex(), roots[new].hex())
        proof = [bytes.fromhex(node) for node in shown["proof"]]
        assert verify_consistency(old, new, roots[old], roots[new], proof)
    for old, new in ((301, None), (5, 4), (-1, 3), (1, 301)):
        with pytest.raises(Refusal, match="not under the checkpoint"):
            Audit(store).consistency(old, new)


def test_audit_hands_out_files_of_the_log_and_nothing_else() -> None:
    store = Memory()
    store.files.update(log_of(3))
    store.files["secret"] = b"x"
    audit = Audit(store)
    assert audit.file("checkpoint") == store.files["checkpoint"]
    assert audit.file("tile/entries/000.p/3") == pack([entry(i).leaf() for i in range(3)])
    for path in ("secret", "tile/0/001", "tile/0/../../secret", "", "tile/0/000.p/3/../../../../secret"):
        with pytest.raises(Refusal):
            audit.file(path)


def test_refused_says_the_line() -> None:
    assert str(Refused(4, "not empty")) == "checkpoint line 4: not empty"
