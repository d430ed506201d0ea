"""The deployed embedded stack as the measurements see it: its contract, its clients, its functions' environment."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from types import ModuleType
from typing import Any

import boto3
from botocore.config import Config
from tools.cli.api import ROOT, contract

from tocsin.access import keys
from tocsin.access.principals import KeyRecord
from tocsin.aws.key_store import DynamoKeyStore
from tocsin.aws.table import Table
from tocsin.kernel import clock, ids

FUNCTIONS = ("ingest", "score", "correlate", "notify", "relay", "digest", "supervise", "api", "public")
SCOPES = frozenset({"ingest:write", "events:*", "incidents:*", "topology:*", "notify:*"})


@lru_cache(maxsize=1)
def deployed() -> dict[str, Any]:
    """The contract of the stack that `make up` left."""
    return contract()


def credentials() -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": str(deployed()["endpoint_url"]),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": str(deployed().get("region", "us-east-1")),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@lru_cache(maxsize=None)
def client(service: str) -> Any:
    known = credentials()
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=known["AWS_ENDPOINT_URL"],
        region_name=known["AWS_DEFAULT_REGION"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(max_pool_connections=32),
    )


@lru_cache(maxsize=None)
def configuration(function: str) -> dict[str, Any]:
    """A function as deployed: MemorySize, Environment, Timeout."""
    name = f"{deployed()['stack']}-{function}"
    return dict(client("lambda").get_function_configuration(FunctionName=name))


def environment(function: str) -> dict[str, str]:
    return dict(configuration(function)["Environment"]["Variables"])


def project(table: str) -> tuple[str, str]:
    """A fresh project in `table` and its API key."""
    import base64

    secret = client("secretsmanager").get_secret_value(SecretId=environment("ingest")["TOCSIN_SECRET_PEPPER"])
    pepper = base64.b64decode(secret["SecretString"])
    now = clock.now_ms()
    name, (text, key_id) = ids.new_id("prj", now), keys.mint()
    record = KeyRecord(key_id, name, "live", keys.stored_hash(pepper, text), SCOPES, now)
    DynamoKeyStore(Table(client("dynamodb"), table)).put(record)
    return name, text


def handler(function: str) -> ModuleType:
    """functions/<function>/handler.py as a module of this process."""
    path = ROOT / "functions" / function / "handler.py"
    spec = importlib.util.spec_from_file_location(f"bench_handler_{function}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Context:
    """What handlers ask of a Lambda context."""

    aws_request_id = "bench"

    def __init__(self, timeout_s: int = 30) -> None:
        self._timeout_ms = timeout_s * 1000

    def get_remaining_time_in_millis(self) -> int:
        return self._timeout_ms


def records(bodies: list[str]) -> dict[str, Any]:
    """An SQS batch as Lambda hands it over."""
    return {
        "Records": [
            {"messageId": ids.uuid7(clock.now_ms()), "body": body, "eventSource": "aws:sqs", "attributes": {}}
            for body in bodies
        ]
    }
