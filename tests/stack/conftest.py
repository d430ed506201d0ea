"""The deployed embedded stack, as its contract file describes it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tocsin.aws.bucket import Bucket
from tocsin.aws.table import Table


@dataclass(frozen=True)
class Deployed:
    """Addresses and keys of the stack under test, and clients that speak to its cloud."""

    contract: dict[str, Any]
    outputs: dict[str, str]

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.contract["endpoint_url"],
            region_name=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    @property
    def table(self) -> Table:
        return Table(self.client("dynamodb"), self.outputs["TableName"])

    @property
    def bucket(self) -> Bucket:
        return Bucket(self.client("s3"), self.outputs["BucketName"])


@pytest.fixture(scope="session")
def deployed() -> Deployed:
    home = Path(os.environ.get("TOCSIN_HOME", ".local"))
    contract = json.loads((home / "tocsin.json").read_text())
    bare = Deployed(contract, {})
    stack = bare.client("cloudformation").describe_stacks(StackName=contract["stack"])["Stacks"][0]
    return Deployed(contract, {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]})
