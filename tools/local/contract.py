"""The contract file: where the stack is and which keys open it. Mode 0600, git-ignored."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from tools.local.home import Home, LocalError


class Contract(TypedDict):
    """What `make up` leaves for demo, tests, CLI and people."""

    api_url: str
    console_url: str | None
    endpoint_url: str | None
    stack: str
    bulk_url: str
    project: str
    project_key: str
    admin_key: str
    journal_keys: list[str]
    receiver: NotRequired[str]
    region: NotRequired[str]
    resources: NotRequired[dict[str, str]]


def read(home: Home) -> dict[str, Any]:
    """The contract as it stands, {} when there is none. Raises LocalError for an unreadable one."""
    if not home.contract.exists():
        return {}
    try:
        found = json.loads(home.contract.read_text())
    except ValueError as error:
        raise LocalError(f"{home.contract} is not JSON: delete it and run make up again") from error
    if not isinstance(found, dict):
        raise LocalError(f"{home.contract} is not an object: delete it and run make up again")
    return found


def write(home: Home, contract: Contract) -> Path:
    """Write the contract in one step, readable by its owner only."""
    draft = home.contract.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(contract, file, indent=2)
        file.write("\n")
    draft.replace(home.contract)
    return home.contract
