"""The digest of a fixed set of decisions, on every supported Python there is and under several hash seeds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.mathematics.symbolic import ROOT

MINORS: Final = (11, 12, 13)
SEEDS: Final = ("0", "1", "2")
#: Minor versions on which the digest must have been found equal before it is promoted.
REQUIRED: Final = 2


def pythons() -> dict[str, str]:
    """Minor version → path: this interpreter, and one of every other supported minor that there is."""
    found = {sys.version_info[1]: sys.executable}
    for minor in MINORS:
        beside = sorted(Path(sys.base_prefix).parent.glob(f"*3.{minor}*/bin/python3"))  # as pyenv and uv install them
        for path in (shutil.which(f"python3.{minor}"), *map(str, beside)):
            if path and minor not in found:
                command = [path, "-c", "import sys; print(sys.version_info[1])"]
                if subprocess.run(command, capture_output=True, check=False).stdout.strip() == str(minor).encode():
                    found[minor] = path
    return {f"3.{minor}": found[minor] for minor in sorted(found)}


def digests(interpreters: dict[str, str]) -> dict[str, dict[str, str]]:
    """Minor version → hash seed → digest, or what went wrong. The seed shuffles the order of registration too."""
    started = {
        (minor, seed): subprocess.Popen(
            [python, "-B", "-m", "tests.rooms.decisions.digest_main", seed],
            cwd=ROOT,
            env={
                "PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT}",
                "PYTHONHASHSEED": seed,
                "PATH": os.environ["PATH"],
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for minor, python in interpreters.items()
        for seed in SEEDS
    }
    made: dict[str, dict[str, str]] = {minor: {} for minor in interpreters}
    for (minor, seed), process in started.items():
        out, problem = process.communicate(timeout=120)
        made[minor][seed] = out.strip() or problem.strip()[-500:]
    return made
