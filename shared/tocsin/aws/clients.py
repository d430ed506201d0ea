"""boto3 clients, created on first use and kept for the life of the process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tocsin.kernel.errors import Retry

#: Short timeouts and four attempts: a worker must notice trouble well before its own deadline.
CONFIG = Config(
    connect_timeout=2,
    read_timeout=8,
    retries={"mode": "standard", "max_attempts": 4},
    max_pool_connections=16,
)
#: Codes of a service that is there but busy, beside everything called throttling.
_BUSY = frozenset(
    {"ProvisionedThroughputExceededException", "RequestLimitExceeded", "SlowDown", "TooManyRequestsException"}
)


@cache
def client(service: str) -> Any:
    """The client of one AWS service, honouring AWS_ENDPOINT_URL."""
    return boto3.client(service, config=CONFIG)  # type: ignore[call-overload]


@cache
def prompt(service: str) -> Any:
    """A client that asks once and briefly: for a write that must take effect soon or never."""
    once = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 1})
    return boto3.client(service, config=CONFIG.merge(once))  # type: ignore[call-overload]


@cache
def signer() -> Any:
    """An S3 client that makes links: those of the older signature cannot be limited to a region."""
    return boto3.client("s3", config=CONFIG.merge(Config(signature_version="s3v4")))


def attempt(call: Callable[..., Any], **arguments: Any) -> Any:
    """One AWS call. Trouble that time may heal (no answer, throttling, 5xx) raises Retry; anything else as it is."""
    try:
        return call(**arguments)
    except BotoCoreError as error:
        raise Retry(f"no answer from AWS: {type(error).__name__}") from error
    except ClientError as error:
        code = error.response["Error"].get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= 500 or "Throttl" in code or code in _BUSY:
            raise Retry(f"{error.operation_name}: {code}") from error
        raise
