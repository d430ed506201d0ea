"""boto3 clients, created on first use and kept for the life of the process."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3
from botocore.config import Config

#: Short timeouts and four attempts: a worker must notice trouble well before its own deadline.
CONFIG = Config(
    connect_timeout=2,
    read_timeout=8,
    retries={"mode": "standard", "max_attempts": 4},
    max_pool_connections=16,
)


@cache
def client(service: str) -> Any:
    """The client of one AWS service, honouring AWS_ENDPOINT_URL."""
    return boto3.client(service, config=CONFIG)  # type: ignore[call-overload]
