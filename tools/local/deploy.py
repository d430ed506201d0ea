"""Deploy with `sam deploy`, unless the stack that is there already is this build with these parameters."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError
from tools.local.build import machine, run_sam
from tools.local.home import REGION, STACK, STAGE, Home, LocalError, python_minor

ARTIFACTS = "tocsin-artifacts"
BUILD_TAG = "tocsin:build"
MAIL_FROM = "tocsin@example.com"
#: A stack that never came to be must be deleted before it can be made.
STILLBORN = frozenset({"CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED", "REVIEW_IN_PROGRESS"})


def client(home: Home, service: str) -> Any:
    """A boto3 client of this stack's endpoint, whatever the user's own AWS configuration says."""
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=home.endpoint,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106
    )


def parameters(home: Home) -> dict[str, str]:
    """Template parameters of a local stack. Deliveries may reach one private address, its receiver."""
    return {
        "Stage": STAGE,
        "Runtime": f"python{python_minor()}",
        "Architecture": machine(),
        "Size": "small",
        "BatchWindow": "1",
        "TickSeconds": "5",
        "EgressAllow": home.receiver,
        "Endpoint": home.endpoint,
        "MailFrom": MAIL_FROM,
        "EnableSentinelRed": "true" if os.environ.get("ENABLE_SENTINELRED") in ("1", "true") else "false",
        **({"JournalKeySpec": "ECC_NIST_P256"} if home.target == "localstack" else {}),
    }


def describe(home: Home) -> dict[str, Any] | None:
    """The stack as CloudFormation describes it, or None."""
    try:
        return dict(client(home, "cloudformation").describe_stacks(StackName=STACK)["Stacks"][0])
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def outputs(home: Home) -> dict[str, str]:
    """Outputs of the deployed stack. Raises LocalError when there is none."""
    stack = describe(home)
    if stack is None:
        raise LocalError("there is no stack: run make up")
    return {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}


def deploy(home: Home, template: Path, fingerprint: str) -> str:
    """Bring the stack in line with the build: "created", "updated" or "unchanged"."""
    chosen = parameters(home)
    wanted = hashlib.sha256(f"{fingerprint}|{sorted(chosen.items())}".encode()).hexdigest()[:32]
    stack = describe(home)
    if stack is not None and stack["StackStatus"] in STILLBORN:
        cloudformation = client(home, "cloudformation")
        cloudformation.delete_stack(StackName=STACK)
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=STACK, WaiterConfig={"Delay": 1})
        stack = None
    tags = {tag["Key"]: tag["Value"] for tag in stack.get("Tags", [])} if stack else {}
    if stack and tags.get(BUILD_TAG) == wanted and stack["StackStatus"] in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
        return "unchanged"
    client(home, "s3").create_bucket(Bucket=ARTIFACTS)
    run_sam(
        "deploy", "--template-file", str(template), "--stack-name", STACK,
        "--s3-bucket", ARTIFACTS, "--region", REGION, "--tags", f"{BUILD_TAG}={wanted}",
        "--parameter-overrides", *(f"{name}={value}" for name, value in chosen.items()),
        **home.credentials,
    )  # fmt: skip
    return "updated" if stack else "created"
