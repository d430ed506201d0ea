"""Secrets Manager: keys generated at bootstrap, read once per process."""

from __future__ import annotations

import base64
import binascii
from functools import cache

from tocsin.aws.clients import client
from tocsin.kernel.errors import Retry


@cache
def secret(name: str) -> bytes:
    """32 bytes kept as base64 under `name` (ARN or name). Raises Retry while bootstrap has not set it."""
    text = client("secretsmanager").get_secret_value(SecretId=name).get("SecretString", "")
    try:
        value = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Retry(f"secret {name} is not set; run the bootstrap") from error
    if len(value) < 32:
        raise Retry(f"secret {name} is not set; run the bootstrap")
    return value
