"""Every role may do what its function does, and nothing else.

The stack under test enforces policies (`tools/local/enforcing.py`) and records what each function's role asked for.
These tests run last and judge what all the others made the functions do: on its own this file proves nothing. Which
functions ran and which permissions were needed can only be told after all the others: in a run of some, conftest.py
leaves those checks out and says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.stack.conftest import Deployed

pytestmark = pytest.mark.stack


class Grant(NamedTuple):
    """One action on one resource that a statement of a function's policies allows."""

    function: str
    sid: str
    action: str
    resource: str


class Call(NamedTuple):
    """One distinct request of a function."""

    function: str
    action: str
    resource: str
    refused: bool


_NEW_KEY = "whoever seals first makes the key of a new project, or the next one after 90 days"
_OLD_KEY = "whoever seals into a project that has a key, or opens what was sealed, unwraps it"
#: Grants that the tests may leave unused, as patterns of "function statement action", and why they stay.
UNUSED: dict[str, str] = {
    "* WrappedKeys dynamodb:PutItem": _NEW_KEY,
    "* WrappedKeys dynamodb:ConditionCheckItem": _NEW_KEY,
    "* Unwrap kms:GenerateDataKey": _NEW_KEY,
    "* WrappedKeys dynamodb:Query": _OLD_KEY,
    "* WrappedKeys dynamodb:GetItem": _OLD_KEY,
    "* Unwrap kms:Decrypt": _OLD_KEY,
    "* SeeJournal s3:ListBucket": "nobody lists: without it S3 answers 403 instead of 404 for a file that is not there",
    "* SeeRegistry s3:ListBucket": "as SeeJournal, for the objects of registries",
    "api Wake sqs:SendMessage": "a timer of an incident that was quiet for long already is due at once",
    "correlate Outbox sqs:SendMessage": "a timer of an incident that was quiet for long already is due at once",
    "relay HandOver sqs:SendMessage": "timers fall due after QuietMinutes, longer than the tests run",
    "relay Publish events:PutEvents": "facts that a crashed worker left behind; rarely met by the tests",
    "api LinkExports s3:GetObject": "whoever follows a link; the emulator asks no role for it",
    "api SeeQueues sqs:GetQueueAttributes": "depths of queues in the operator's view of the stack's health",
    "api TestSend ses:SendRawEmail": "a test message to a channel of kind e-mail",
    "digest Mail ses:SendRawEmail": "digests go to webhooks in the tests; mail is sent by the same code as notify's",
    "privacy DeadLetters sqs:*": "dead letters of a project that is deleted; the tests leave some in few queues",
    "supervise ClaimCheck s3:PutObject": "a finding larger than a message",
    "supervise RepairMappings lambda:UpdateEventSourceMapping": "the emulator serves this call without asking",
    "supervise RepairSchedules events:EnableRule": "a schedule that somebody switched off",
    "supervise Table dynamodb:DeleteItem": "the lease of a worker that holds it for too long",
    "supervise TickWakeReplay sqs:SendMessage": "silent workers are ticked, dead letters sent back, each by its queue",
    "supervise TakeDeadLetters sqs:*": "dead letters are sent back; the tests leave some in few queues",
    "defend ClaimCheck s3:PutObject": "telemetry larger than a message",
    "defend ReadSegments s3:GetObject": "events of a large commit",
}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def documents(iam: Any, role: str) -> Iterator[dict[str, Any]]:
    """The policies of a role, without those of AWS, by which Lambda itself reads queues and writes logs."""
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        yield iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    for attached in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        arn = attached["PolicyArn"]
        if not arn.startswith("arn:aws:iam::aws:"):
            version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
            yield iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]


def excused(grant: Grant) -> bool:
    name = f"{grant.function} {grant.sid} {grant.action}"
    return any(fnmatchcase(name, pattern) for pattern in UNUSED)


@pytest.fixture(scope="module")
def roles(deployed: Deployed) -> dict[str, str]:
    """Function by the name of its role."""
    stack = deployed.contract["stack"]
    found = deployed.client("lambda").list_functions()["Functions"]
    return {one["Role"].rpartition("/")[2]: one["FunctionName"].removeprefix(f"{stack}-") for one in found}


@pytest.fixture(scope="module")
def grants(deployed: Deployed, roles: dict[str, str]) -> set[Grant]:
    iam = deployed.client("iam")
    return {
        Grant(function, statement["Sid"], action, resource)
        for role, function in roles.items()
        for document in documents(iam, role)
        for statement in document["Statement"]
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


@pytest.fixture(scope="module")
def calls(roles: dict[str, str]) -> set[Call]:
    lines = (Path(os.environ["TOCSIN_HOME"]) / "calls.jsonl").read_text().splitlines()
    return {Call(roles[one["role"]], one["action"], one["resource"], one["refused"]) for one in map(json.loads, lines)}


def test_every_function_ran_under_its_own_role(calls: set[Call], roles: dict[str, str]) -> None:
    assert {call.function for call in calls} == set(roles.values())


def test_no_role_lacks_a_permission(calls: set[Call]) -> None:
    assert sorted(call for call in calls if call.refused) == []


def test_every_permission_is_needed_or_has_its_reason(grants: set[Grant], calls: set[Call]) -> None:
    unused = {
        grant
        for grant in grants
        if not any(
            (call.function, call.action) == (grant.function, grant.action)
            and fnmatchcase(call.resource, grant.resource)
            for call in calls
        )
    }
    left = sorted(grant for grant in unused if not excused(grant))
    assert left == [], "no test made a function use these: drop them from template.yaml, or give UNUSED a reason"


def test_every_reason_is_for_a_grant_that_exists(grants: set[Grant]) -> None:
    names = {f"{grant.function} {grant.sid} {grant.action}" for grant in grants}
    assert [pattern for pattern in UNUSED if not any(fnmatchcase(name, pattern) for name in names)] == []
