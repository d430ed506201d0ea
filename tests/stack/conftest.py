"""The deployed embedded stack, as its contract file describes it."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from tocsin.access import keys
from tocsin.access.principals import KeyRecord
from tocsin.aws.bucket import Bucket
from tocsin.aws.key_store import DynamoKeyStore
from tocsin.aws.ledger import DynamoLedger
from tocsin.aws.table import Table
from tocsin.kernel import clock
from tools.local import bootstrap


@dataclass(frozen=True)
class Reply:
    """Status, parsed body and headers (lower-case names) of an answer."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployed:
    """Addresses and keys of the stack under test, and clients that speak to its cloud."""

    contract: dict[str, Any]

    @property
    def outputs(self) -> dict[str, str]:
        outputs: dict[str, str] = self.contract["resources"]
        return outputs

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.contract["endpoint_url"],
            region_name=self.contract["region"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    @property
    def table(self) -> Table:
        return Table(self.client("dynamodb"), self.outputs["TableName"])

    @property
    def bucket(self) -> Bucket:
        return Bucket(self.client("s3"), self.outputs["BucketName"])

    @property
    def ledger(self) -> DynamoLedger:
        return DynamoLedger(self.table, self.bucket, retention_days=90)

    def new_project(self, *scopes: str) -> tuple[str, str]:
        """A project of its own and a key for it, with the scopes of an ordinary project key or those given."""
        project = f"t{uuid.uuid4().hex[:16]}"
        text, key_id = keys.mint()
        pepper = bootstrap.pepper(self.client, self.outputs)
        record = KeyRecord(
            key_id=key_id,
            project=project,
            env="live",
            hash=keys.stored_hash(pepper, text),
            scopes=frozenset(scopes) or bootstrap.PROJECT_SCOPES,
            created_at=clock.now_ms(),
        )
        DynamoKeyStore(self.table).put(record)
        return project, text

    def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, base: str = "api_url", **headers: str
    ) -> Reply:
        """One HTTP request; `body` is sent as JSON unless it is bytes. `headers` use _ for -."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.contract[base] + path, data=data, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if key:
            request.add_header("X-Api-Key", key)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return _reply(answer.status, answer.read(), answer.headers)
        except urllib.error.HTTPError as error:
            return _reply(error.code, error.read(), error.headers)


def _reply(status: int, raw: bytes, headers: Any) -> Reply:
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = raw.decode("utf-8", "replace")
    return Reply(status, body, {name.lower(): value for name, value in headers.items()})


def eventually(check: Callable[[], Any], within_s: float = 20.0, every_s: float = 0.2) -> Any:
    """The first true value of `check`; fails with its last value when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s} s: last seen {value!r}")
        time.sleep(every_s)


@pytest.fixture(scope="session")
def deployed() -> Deployed:
    home = Path(os.environ.get("TOCSIN_HOME", ".local"))
    return Deployed(json.loads((home / "tocsin.json").read_text()))
