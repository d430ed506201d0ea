"""Every role may do what its function does.

The stack under test enforces policies (`tools/local/enforcing.py`) and records what each function's role asked for.
These tests run last and judge what all the others made the functions do: on its own this file proves nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.stack.conftest import Deployed

pytestmark = pytest.mark.stack


class Call(NamedTuple):
    """One distinct request of a function."""

    function: str
    action: str
    resource: str
    refused: bool


@pytest.fixture(scope="module")
def roles(deployed: Deployed) -> dict[str, str]:
    """Function by the name of its role."""
    stack = deployed.contract["stack"]
    found = deployed.client("lambda").list_functions()["Functions"]
    return {one["Role"].rpartition("/")[2]: one["FunctionName"].removeprefix(f"{stack}-") for one in found}


@pytest.fixture(scope="module")
def calls(roles: dict[str, str]) -> set[Call]:
    lines = (Path(os.environ["TOCSIN_HOME"]) / "calls.jsonl").read_text().splitlines()
    return {Call(roles[one["role"]], one["action"], one["resource"], one["refused"]) for one in map(json.loads, lines)}


def test_every_function_ran_under_its_own_role(calls: set[Call], roles: dict[str, str]) -> None:
    assert {call.function for call in calls} == set(roles.values())


def test_no_role_lacks_a_permission(calls: set[Call]) -> None:
    assert sorted(call for call in calls if call.refused) == []
