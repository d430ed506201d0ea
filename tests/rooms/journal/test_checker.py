"""The standalone checker: alone, short, and as strict as the product."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tools import journal_checker as checker

from tests.rooms.journal.memory import ORIGIN, PINNED, Memory, log_of
from tests.rooms.journal.test_notes import Ecdsa
from tests.rooms.journal.test_verify import KEYS, write
from tocsin.journal.audit import Audit
from tocsin.journal.notes import Checkpoint, VerifierKey
from tocsin.journal.tree import Edge, grow

CHECKER = Path(checker.__file__)


def test_every_changed_byte_of_a_checkpoint_is_refused() -> None:
    note = log_of(12)["checkpoint"]
    assert checker.open_checkpoint(note, KEYS)[0] == 12
    for at, byte in enumerate(note):
        with pytest.raises(checker.BadError, match="checkpoint line"):
            checker.open_checkpoint(note[:at] + bytes([byte ^ 1]) + note[at + 1 :], KEYS)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(CHECKER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_the_checker_runs_alone(tmp_path: Path) -> None:
    files = log_of(70)
    write(files, tmp_path)
    good = run(tmp_path, *PINNED)
    assert (good.returncode, good.stdout) == (0, f"VERIFIED: 70 entries as signed by {ORIGIN}\n")
    (tmp_path / "tile/0/000.p/70").write_bytes(b"\0" * 70 * 32)
    bad = run(tmp_path, *PINNED)
    assert bad.returncode == 1
    assert bad.stdout.startswith("NOT VERIFIED: tile/0/000.p/70 byte 0: ")
    assert run(tmp_path).returncode == 2
    assert run(tmp_path, "not a key").returncode == 2
    assert run(tmp_path / "nowhere", *PINNED).returncode == 1


def test_the_checker_needs_the_standard_library_only_and_shares_no_code() -> None:
    source = CHECKER.read_text()
    assert source.count("\n") < 250
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported <= sys.stdlib_module_names


def test_the_checker_takes_ecdsa_keys(tmp_path: Path) -> None:
    key, (edge, files) = Ecdsa(), grow(Edge(), [b"{}"])
    checkpoint = Checkpoint(ORIGIN, 1, edge.root)
    note = checkpoint.note([checkpoint.signature_line(ORIGIN, key)])
    pinned = [checker.pinned_key(str(VerifierKey.of(ORIGIN, key)))]
    write({**files, "checkpoint": note}, tmp_path)
    assert checker.check_directory(tmp_path, pinned) == "1 entries"
    for at in range(len(note)):
        mutated = note[:at] + bytes([note[at] ^ 1]) + note[at + 1 :]
        with pytest.raises(checker.BadError):
            checker.open_checkpoint(mutated, pinned)


@pytest.mark.parametrize("size", [1, 2, 7, 70, 300])
def test_the_checker_checks_single_entries(size: int, tmp_path: Path) -> None:
    store = Memory()
    store.files.update(log_of(size))
    file = tmp_path / "proof.json"
    for index in {0, size // 2, size - 1}:
        shown = Audit(store).inclusion({"demo"}, index).as_json()
        file.write_text(json.dumps({"data": shown}))
        assert checker.check_proof(file, KEYS) == f"entry {index} of {size}"
        for change in (
            {"index": index + 1},
            {"leaf": shown["leaf"].replace("done", "failed")},
            {"entry": {**shown["entry"], "outcome": "failed"}},
            {"proof": [*shown["proof"], "00" * 32]},
            {"proof": ["00" * 32, *shown["proof"][1:]]},
        ):
            file.write_text(json.dumps({"data": {**shown, **change}}))
            with pytest.raises(checker.BadError):
                checker.check_proof(file, KEYS)
