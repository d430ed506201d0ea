"""Make the Python environments, from lock files only.

Every command needs two: `.local/venv` holds tools, tests and the run-time set, `.local/ministack` the emulator. Both
use one interpreter, because the emulator runs the functions with its own. The others are made when they are asked for:
what `make bench-decisions` compares with, and clients of other systems, which tests/stack/test_clients.py makes itself.
Standard library only: nothing is installed yet when this runs.
An environment whose lock file has not changed is left alone.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / ".local"
ENVIRONMENTS = {"venv": "dev.txt", "ministack": "emulator.txt"}
CLIENTS = {"clients": "clients.txt", "langfuse2": "langfuse2.txt"}
EXTRA = {"bench": "bench.txt", **CLIENTS}


def _stamp(lock: Path) -> str:
    interpreter = f"{sys.version}|{sys.base_prefix}|{ROOT}"
    return hashlib.sha256(lock.read_bytes() + interpreter.encode()).hexdigest()


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"tocsin: {' '.join(map(str, command[:4]))} failed\n{done.stdout}{done.stderr}")


def _uv() -> Path:
    """Path of the pinned uv, fetched by pip with its hash when the pin has changed."""
    lock, home = ROOT / "requirements" / "uv.txt", LOCAL / "uv"
    stamp = home / "stamp"
    if not stamp.exists() or stamp.read_text() != _stamp(lock):
        shutil.rmtree(home, ignore_errors=True)
        _run(sys.executable, "-m", "venv", home)
        python = home / "bin" / "python"
        _run(python, "-m", "pip", "install", "--quiet", "--no-input", "--require-hashes", "-r", lock)
        stamp.write_text(_stamp(lock))
    return home / "bin" / "uv"


def ensure(name: str) -> bool:
    """Bring environment `name` in line with its lock file; True when something had to be installed."""
    lock, home = ROOT / "requirements" / (ENVIRONMENTS | EXTRA)[name], LOCAL / name
    stamp = home / "stamp"
    if stamp.exists() and stamp.read_text() == _stamp(lock):
        return False
    uv = _uv()
    stamp.unlink(missing_ok=True)
    _run(uv, "venv", "--quiet", "--no-project", "--clear", "--python", sys.executable, home)
    python = home / "bin" / "python"
    _run(uv, "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode", "--python", python, lock)
    stamp.write_text(_stamp(lock))
    return True


def main() -> None:
    """Make both environments, or those that are named, and say what took how long. The Makefile has checked the
    interpreter."""
    for name, lock in {name: EXTRA[name] for name in sys.argv[1:]}.items() or ENVIRONMENTS.items():
        began = time.monotonic()
        if ensure(name):
            took = time.monotonic() - began
            version = ".".join(map(str, sys.version_info[:3]))
            print(
                f"  {took:6.1f} s  environment .local/{name} from requirements/{lock} (Python {version})",
                flush=True,
            )


if __name__ == "__main__":
    main()
