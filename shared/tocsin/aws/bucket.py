"""The one S3 bucket: immutable objects under names derived from their content."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import ClientError

from tocsin.aws.clients import attempt
from tocsin.kernel.errors import Retry


class Bucket:
    """Puts and gets whole objects."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name

    def put(self, key: str, data: bytes) -> None:
        attempt(self._client.put_object, Bucket=self.name, Key=key, Body=data, ContentType="application/octet-stream")

    def find(self, key: str) -> bytes | None:
        """The object, or None when there is none. Who may not list the bucket is answered 403 instead of 404."""
        try:
            return self.get(key)
        except ClientError as error:
            if error.response["Error"].get("Code") in ("NoSuchKey", "404"):
                return None
            raise

    def get(self, key: str) -> bytes:
        body: bytes = attempt(self._client.get_object, Bucket=self.name, Key=key)["Body"].read()
        return body

    def page(self, prefix: str, after: str = "") -> tuple[list[str], bool]:
        """Up to 1,000 keys under `prefix` in order, from beyond `after`, and whether there are more."""
        answer = attempt(self._client.list_objects_v2, Bucket=self.name, Prefix=prefix, StartAfter=after)
        return [item["Key"] for item in answer.get("Contents", ())], bool(answer.get("IsTruncated"))

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are gone do not matter. Raises Retry when one could not be removed."""
        for start in range(0, len(keys), 1_000):
            objects = [{"Key": key} for key in keys[start : start + 1_000]]
            answer = attempt(self._client.delete_objects, Bucket=self.name, Delete={"Objects": objects, "Quiet": True})
            if answer.get("Errors"):
                raise Retry(f"{len(answer['Errors'])} objects were not removed")

    def get_many(self, keys: Sequence[str]) -> list[bytes]:
        """Objects in the order of `keys`, fetched side by side."""
        if len(keys) <= 1:
            return [self.get(key) for key in keys]
        with ThreadPoolExecutor(min(8, len(keys))) as pool:
            return list(pool.map(self.get, keys))
