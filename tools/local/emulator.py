"""Start and stop MiniStack politely, from an environment of its own.

MiniStack saves its state on SIGTERM only, so a stop waits for it, and a start after any other end says what
was lost. The process holds a lock on `emulator.pid` for as long as it lives: that tells whether it runs, not
a number that may have been reused.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from tools.local.home import REGION, ROOT, SHARED, Home, LocalError

ENFORCING = ROOT / "tools" / "local" / "enforcing.py"
START_S = 30.0
STOP_S = 60.0


def running(home: Home) -> int | None:
    """Process id of this stack's emulator, or None when it is not running."""
    found = _holder(home)
    return found[0] if found else None


def _holder(home: Home) -> tuple[int, int] | None:
    """Process id and port of the emulator that holds the lock."""
    path = home.folder / "emulator.pid"
    if not path.exists():
        return None
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fields = file.read().split()
            if len(fields) != 2:
                raise LocalError("the emulator is just being started by another command: try again") from None
            return int(fields[0]), int(fields[1])
    return None


def healthy(home: Home) -> bool:
    """Whether the emulator answers its health page."""
    try:
        with urllib.request.urlopen(f"{home.endpoint}/_ministack/health", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200 and json.load(answer))
    except (urllib.error.URLError, OSError, ValueError):
        return False


def start(home: Home) -> bool:
    """Start the emulator; False when it runs already. Raises LocalError when something else has the port."""
    found = _holder(home)
    if found and found[1] != home.port:
        raise LocalError(f"this stack runs on port {found[1]}: set TOCSIN_PORT={found[1]}, or run make down first")
    if found:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(("127.0.0.1", home.port)) == 0:
            who = "another MiniStack" if healthy(home) else "another program"
            raise LocalError(f"port {home.port} is taken by {who}: stop it, or choose another with TOCSIN_PORT=<port>")
    shutil.rmtree(home.folder / "emulator" / "tmp", ignore_errors=True)
    python = SHARED / "ministack" / "bin" / "python"
    pid_file, log = home.folder / "emulator.pid", home.folder / "emulator.log"
    with pid_file.open("a+") as lock, log.open("ab") as output:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process = subprocess.Popen(
            [str(python), *(["-P", str(ENFORCING), str(home.calls)] if home.enforced else ["-m", "ministack"])],
            cwd=home.folder,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )
        lock.truncate(0)
        lock.write(f"{process.pid} {home.port}")
    deadline = time.monotonic() + START_S
    while not healthy(home):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace").splitlines()[-5:]
            raise LocalError(f"the emulator did not start; the end of {log}:\n" + "\n".join(tail))
        time.sleep(0.1)
    _unsaved(home).touch()
    return True


def lost_state(home: Home) -> bool:
    """Whether the last end was not polite, so that what was written since is gone. Ask before start()."""
    return not running(home) and _unsaved(home).exists()


def stop(home: Home) -> bool:
    """Ask the emulator to save its state and end, and wait until it has. False when it was not running."""
    pid = running(home)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while running(home):
        if time.monotonic() > deadline:
            raise LocalError(
                f"the emulator (process {pid}) still saves its state after {STOP_S:.0f} s: try again later"
            )
        time.sleep(0.1)
    _unsaved(home).unlink(missing_ok=True)
    return True


def environment(home: Home) -> dict[str, str]:
    """The emulator's whole environment. Nothing is inherited: it would leak into every function."""
    binaries = SHARED / "ministack" / "bin"
    data = home.folder / "emulator"
    for name in ("state", "s3", "tmp"):
        (data / name).mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(data),
        "LANG": "C.UTF-8",
        "TMPDIR": str(data / "tmp"),
        "GATEWAY_PORT": str(home.port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "LOG_LEVEL": "WARNING",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LAMBDA_ACCOUNT_CONCURRENCY": "64",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(data / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(data / "s3"),
        **({"AUTH": "true"} if home.enforced else {}),
    }


def _unsaved(home: Home) -> Path:
    return home.folder / "emulator.unsaved"
