"""Equal inputs, equal bytes: over hash seeds, orders of registration and Python versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rooms.decisions.digest_main import digest_of_decisions

ROOT = Path(__file__).resolve().parents[3]
#: Of everything that `digest_main` decides. Found equal on Python 3.11, 3.12 and 3.13. A change of it means that
#: receipts kept before it can no longer be derived: raise `v` of what changed.
EXPECTED = "69b4dbb34b75d495b2a4077a7090cc0152e738ade9a3aadbac722e2d0655e790"


def pythons() -> list[str]:
    """This interpreter, and one of every other supported minor version there is on this machine."""
    found = {sys.version_info[:2]: sys.executable}
    for minor in (11, 12, 13):
        beside = sorted(Path(sys.base_prefix).parent.glob(f"*3.{minor}*/bin/python3"))  # as pyenv and uv install them
        for path in (shutil.which(f"python3.{minor}"), *map(str, beside)):
            if path and (3, minor) not in found:
                command = [path, "-c", "import sys; print(sys.version_info[1])"]
                if subprocess.run(command, capture_output=True, check=False).stdout.strip() == str(minor).encode():
                    found[3, minor] = path
    return list(found.values())


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_decisions_are_equal_over_hash_seeds_and_versions(seed: str) -> None:
    environment = {
        "PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT}",
        "PYTHONHASHSEED": seed,
        "PATH": os.environ["PATH"],
    }
    for python in pythons():
        done = subprocess.run(
            [python, "-B", "-m", "tests.rooms.decisions.digest_main", seed],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == EXPECTED, python


def test_decisions_do_not_depend_on_the_order_of_registration() -> None:
    assert {digest_of_decisions(order) for order in range(5)} == {EXPECTED}
