"""The deployed embedded stack as the measurements see it: its contract, its clients, its functions' environment."""

from __future__ import annotations

import base64
import importlib.util
import secrets
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import boto3
from botocore.config import Config
from tools.cli.api import ROOT, contract

from tocsin.access import keys
from tocsin.access.principals import KeyRecord
from tocsin.aws.key_store import DynamoKeys
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


@cache
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


@cache
def configuration(function: str) -> dict[str, Any]:
    """A function as deployed: MemorySize, Environment, Timeout."""
    name = f"{deployed()['stack']}-{function}"
    return dict(client("lambda").get_function_configuration(FunctionName=name))


def environment(function: str) -> dict[str, str]:
    return dict(configuration(function)["Environment"]["Variables"])


def project(table: str) -> tuple[str, str]:
    """A fresh project in `table` and its API key."""
    secret = client("secretsmanager").get_secret_value(SecretId=environment("ingest")["TOCSIN_SECRET_PEPPER"])
    pepper = base64.b64decode(secret["SecretString"])
    now = clock.now_ms()
    name, (text, key_id) = ids.new_id("prj", now), keys.mint()
    record = KeyRecord(key_id, name, "live", keys.stored_hash(pepper, text), SCOPES, now)
    DynamoKeys(Table(client("dynamodb"), table)).restore(record)
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


class Resources:
    """A table, a bucket, a bus without rules and queues without consumers, so that the deployed functions take no part
    in what is measured, and what is measured leaves nothing behind in them.
    """

    def __init__(self) -> None:
        name = self.name = f"bench-{secrets.token_hex(4)}"
        client("dynamodb").create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("pk", "sk")],
            BillingMode="PAY_PER_REQUEST",
        )
        client("s3").create_bucket(Bucket=name)
        client("events").create_event_bus(Name=name)
        self.queues = {
            stage: str(client("sqs").create_queue(QueueName=f"{name}-{stage}")["QueueUrl"])
            for stage in ("score", "correlate", "notify", "relay")
        }

    def environment(self, function: str) -> dict[str, str]:
        """A function's environment as deployed, with these resources in place of the stack's."""
        found = environment(function)
        own = {"TOCSIN_TABLE": self.name, "TOCSIN_BUCKET": self.name, "TOCSIN_BUS": self.name}
        if function != "supervise":  # it looks at the stack's own queues, with their dead letters and mappings
            own |= {f"TOCSIN_{stage.upper()}_QUEUE": url for stage, url in self.queues.items()}
        return {key: own.get(key, value) for key, value in found.items()} | credentials()

    def close(self) -> None:
        """Take everything away, objects included."""
        client("dynamodb").delete_table(TableName=self.name)
        for page in client("s3").get_paginator("list_objects_v2").paginate(Bucket=self.name):
            for item in page.get("Contents", ()):
                client("s3").delete_object(Bucket=self.name, Key=item["Key"])
        client("s3").delete_bucket(Bucket=self.name)
        client("events").delete_event_bus(Name=self.name)
        for url in self.queues.values():
            client("sqs").delete_queue(QueueUrl=url)


class Context:
    """What handlers ask of a Lambda context."""

    aws_request_id = "bench"

    def __init__(self, timeout_s: int = 30) -> None:
        self._timeout_ms = timeout_s * 1000

    def get_remaining_time_in_millis(self) -> int:
        return self._timeout_ms


def url_event(data: bytes, key: str) -> dict[str, Any]:
    """A Function URL event (payload 2.0) of a POST of JSON."""
    return {
        "version": "2.0",
        "rawPath": "/v1/events",
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "x-api-key": key},
        "requestContext": {
            "http": {"method": "POST", "path": "/v1/events", "sourceIp": "127.0.0.1"},
            "requestId": "bench",
        },
        "body": data.decode(),
        "isBase64Encoded": False,
    }


def rest_event(method: str, path: str, key: str, data: bytes = b"") -> dict[str, Any]:
    """A REST proxy event (payload 1.0); JSON is a binary media type there and arrives as base64."""
    headers = {"Content-Type": "application/json", "X-Api-Key": key}
    return {
        "resource": path,
        "httpMethod": method,
        "path": path,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "requestContext": {"requestId": "bench", "stage": "live", "identity": {"sourceIp": "127.0.0.1"}},
        "body": base64.b64encode(data).decode() if data else None,
        "isBase64Encoded": bool(data),
    }


def records(bodies: list[str]) -> dict[str, Any]:
    """An SQS batch as Lambda hands it over."""
    return {
        "Records": [
            {"messageId": ids.uuid7(clock.now_ms()), "body": body, "eventSource": "aws:sqs", "attributes": {}}
            for body in bodies
        ]
    }
