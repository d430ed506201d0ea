"""What tests of stores stand on."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from tocsin.aws.table import Table


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    """An empty table `t` in an account of its own, which other services of the account can be made beside."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("dynamodb")
        names = (("pk", "HASH"), ("sk", "RANGE"))
        client.create_table(
            TableName="t",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in names],  # type: ignore[misc]
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in names],
        )
        yield Table(client, "t", pause=lambda _: None)
