"""The deployed embedded stack, as its contract file describes it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from tools.local import bootstrap

from tocsin.access import keys
from tocsin.access.principals import KeyRecord
from tocsin.aws import keys as table_keys
from tocsin.aws.bucket import Bucket
from tocsin.aws.data_keys import KmsKeyRing
from tocsin.aws.key_store import DynamoKeys
from tocsin.aws.ledger import DynamoLedger
from tocsin.aws.table import Table
from tocsin.kernel import clock
from tocsin.kernel.sealing import Sealer


@dataclass(frozen=True)
class Reply:
    """Status, parsed body and headers (lower-case names) of an answer."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployed:
    """Addresses and keys of the stack under test, and clients that speak to its cloud. `source` is the address that
    requests come from, as the emulator believes it: tests that guess credentials have one of their own.
    """

    contract: dict[str, Any]
    source: str = "127.0.0.1"

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
        return DynamoLedger(self.table, self.bucket, self.sealer, retention_days=90)

    @property
    def sealer(self) -> Sealer:
        """Seals and opens with the data keys of the stack's projects."""
        rows = Table(self.client("dynamodb"), self.outputs["DataKeysName"])
        return Sealer(KmsKeyRing(rows, lambda: self.client("kms"), self.outputs["MasterKeyArn"]))

    def secret(self, output: str) -> bytes:
        """A secret of the stack, by the name of the output that names it."""
        answer = self.client("secretsmanager").get_secret_value(SecretId=self.outputs[output])
        return base64.b64decode(answer["SecretString"])

    def new_project(self, *scopes: str) -> tuple[str, str]:
        """A project of its own and a key for it, with the scopes of an ordinary project key or those given."""
        project = f"t{uuid.uuid4().hex[:16]}"
        return project, self.new_key(project, *scopes)

    def new_key(self, project: str, *scopes: str) -> str:
        """One more key of a project."""
        text, key_id = keys.mint()
        record = KeyRecord(
            key_id=key_id,
            project=project,
            env="live",
            hash=keys.stored_hash(self.secret("PepperSecretArn"), text),
            scopes=frozenset(scopes) or bootstrap.PROJECT_SCOPES,
            created_at=clock.now_ms(),
        )
        DynamoKeys(self.table).restore(record)
        return text

    def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, base: str = "api_url", **headers: str
    ) -> Reply:
        """One HTTP request; `body` is sent as JSON unless it is bytes. `headers` use _ for -."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.contract[base] + path, data=data, method=method)
        request.add_header("X-Forwarded-For", self.source)
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

    def raw(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        *,
        key: str | None = None,
        base: str = "api_url",
    ) -> Reply:
        """One HTTP request with exactly these headers besides Host, Content-Length and the key."""
        address = urlsplit(self.contract[base])
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        try:
            connection.putrequest(method, address.path + path, skip_accept_encoding=True)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            if key:
                connection.putheader("X-Api-Key", key)
            if self.source != "127.0.0.1":
                connection.putheader("X-Forwarded-For", self.source)
            for name, value in headers.items() if isinstance(headers, Mapping) else headers:
                connection.putheader(name, value.encode("utf-8"))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return _reply(answer.status, answer.read(), answer.headers)
        finally:
            connection.close()

    def get(self, path: str, key: str) -> Any:
        """`data` of a GET that must succeed."""
        reply = self.call("GET", path, key=key)
        assert reply.status == 200, reply
        return reply.body["data"]

    def made(self, path: str, body: Any, key: str) -> Any:
        """`data` of a POST that must make something."""
        reply = self.call("POST", path, body, key=key)
        assert reply.status == 201, reply
        return reply.body["data"]

    def send(self, key: str, events: Any) -> list[dict[str, Any]]:
        """POST events that must all be taken; what became of each."""
        reply = self.call("POST", "/v1/events", events, key=key)
        assert reply.status == 202, reply
        items: list[dict[str, Any]] = reply.body["data"]["items"]
        return items

    def depth(self, output: str = "ScoreQueueUrl") -> int:
        """Messages that a queue holds, in hand and delayed ones included.

        Compare it with what it was: a copy that met its twin under way comes back after the visibility timeout, so
        other tests may have left some.
        """
        sqs = self.client("sqs")
        attributes = sqs.get_queue_attributes(QueueUrl=self.outputs[output], AttributeNames=["All"])["Attributes"]
        counts = ("", "NotVisible", "Delayed")
        return sum(int(attributes.get(f"ApproximateNumberOfMessages{one}", 0)) for one in counts)

    def stored(self, project: str) -> int:
        """Events in a project's log."""
        return int((self.table.get(table_keys.log_head(project)) or {}).get("events", 0))

    def settled(self, project: str, events: int) -> bool:
        """Whether the log holds that many events and correlation has seen all of it."""
        head = self.table.get(table_keys.log_head(project)) or {"events": 0, "n": 0}
        cursor = self.table.get(table_keys.cursor(project)) or {"n": 1}
        return bool(head["events"] == events and cursor["n"] == head["n"] + 1)


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


_JUDGE_ALL = ("test_every_function_ran_under_its_own_role", "test_every_permission_is_needed_or_has_its_reason")


def _complete(config: pytest.Config, items: list[pytest.Item]) -> bool:
    """Whether every stack test runs: every file is there and nothing was picked out of it."""
    picked = any(config.getoption(name, None) for name in ("keyword", "markexpr", "deselect"))
    files = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    return not picked and not any("::" in one for one in config.args) and files <= {item.path.name for item in items}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What judges the calls of all other tests comes after them, and is left out when they are not all run."""
    items.sort(key=lambda item: item.path.name == "test_least_privilege.py")
    if not _complete(config, items):
        left_out = [item for item in items if item.name in _JUDGE_ALL]
        items[:] = [item for item in items if item.name not in _JUDGE_ALL]
        config.hook.pytest_deselected(items=left_out)


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> str:
    """Say when unused permissions are not judged."""
    if any(item.path.parent == Path(__file__).parent for item in items) and not _complete(config, items):
        return f"stack: not every test is run, so left out are {' and '.join(_JUDGE_ALL)}"
    return ""


@pytest.fixture(scope="session")
def deployed() -> Deployed:
    home = Path(os.environ.get("TOCSIN_HOME", ".local"))
    return Deployed(json.loads((home / "tocsin.json").read_text()))
