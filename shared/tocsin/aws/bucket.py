"""The one S3 bucket: immutable objects under names derived from their content."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tocsin.aws.clients import attempt


class Bucket:
    """Puts and gets whole objects."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name

    def put(self, key: str, data: bytes) -> None:
        attempt(self._client.put_object, Bucket=self.name, Key=key, Body=data, ContentType="application/octet-stream")

    def get(self, key: str) -> bytes:
        body: bytes = attempt(self._client.get_object, Bucket=self.name, Key=key)["Body"].read()
        return body

    def get_many(self, keys: Sequence[str]) -> list[bytes]:
        """Objects in the order of `keys`, fetched side by side."""
        if len(keys) <= 1:
            return [self.get(key) for key in keys]
        with ThreadPoolExecutor(min(8, len(keys))) as pool:
            return list(pool.map(self.get, keys))
