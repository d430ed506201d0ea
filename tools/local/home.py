"""Where one local stack lives: its folder, its port and the names derived from them.

TOCSIN_HOME (default `.local`) and TOCSIN_PORT (default 4566) may be set so that two stacks run side by side;
the Python environments and the build are shared by all of them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / ".local"
REGION = "us-east-1"
STACK = "tocsin"
STAGE = "live"
RECEIVER_OFFSET = 1000


class LocalError(Exception):
    """Something a person has to put right; the message is one line and names the remedy."""


@dataclass(frozen=True)
class Home:
    """One local stack: where its state, logs and contract are, the emulator's port, and the platform."""

    folder: Path
    port: int
    target: str
    #: Whether functions act under their own roles, so that policies hold, and their calls are recorded.
    enforced: bool = False

    @property
    def calls(self) -> Path:
        """What the functions' roles asked for since the emulator's start, where policies are enforced."""
        return self.folder / "calls.jsonl"

    @property
    def endpoint(self) -> str:
        """The AWS endpoint of this stack."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def contract(self) -> Path:
        """The contract file that every tool and test reads."""
        return self.folder / "tocsin.json"

    @property
    def receiver(self) -> str:
        """host:port kept for a webhook receiver; the only private address that deliveries may reach."""
        host = "127.0.0.1" if self.target == "ministack" else "host.docker.internal"
        return f"{host}:{self.port + RECEIVER_OFFSET}"

    @property
    def credentials(self) -> dict[str, str]:
        """Environment variables that point an AWS client at this stack and at nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def current(environment: dict[str, str] | None = None) -> Home:
    """The stack that the environment selects. Raises LocalError for a port or target that cannot be."""
    env = dict(os.environ) if environment is None else environment
    target = env.get("TARGET") or "ministack"
    if target not in {"ministack", "localstack"}:
        raise LocalError(f"TARGET={target} is unknown: use ministack (default) or localstack, or sam deploy for AWS")
    raw = env.get("TOCSIN_PORT") or "4566"
    if not raw.isdigit() or not 1024 <= int(raw) <= 65535 - RECEIVER_OFFSET:
        raise LocalError(f"TOCSIN_PORT={raw} is not a port between 1024 and {65535 - RECEIVER_OFFSET}")
    default = SHARED if target == "ministack" else SHARED / "localstack"
    folder = Path(env["TOCSIN_HOME"]) if env.get("TOCSIN_HOME") else default
    folder = folder if folder.is_absolute() else ROOT / folder
    folder.mkdir(parents=True, exist_ok=True)
    return Home(folder=folder, port=int(raw), target=target, enforced=env.get("TOCSIN_ENFORCE") == "1")


def python_minor() -> str:
    """The running interpreter as "3.x"; the emulator uses the same one, so build and Runtime must too."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
