"""What decisions need from storage. Implemented by tocsin.aws and, in tests, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class SnapshotStore(Protocol):
    """Documents that are never changed, by the SHA-256 of what they say."""

    def get(self, name: str) -> bytes | None: ...

    def create(self, name: str, data: bytes) -> None:
        """Store a document; again with the same bytes is harmless."""
        ...


class Pointer(Protocol):
    """The one thing that changes: which snapshot is current."""

    def read(self) -> tuple[bytes | None, str]:
        """What was last swapped in, never anything older, and a token that changes with it."""
        ...

    def swap(self, data: bytes, token: str) -> bool:
        """Replace it if the token still holds; False when it does not. Takes effect within
        `snapshots.PUBLISH_MS` of the call, or never.
        """
        ...


class DecisionLog(Protocol):
    """Receipts with the requests and health they were made of, for as long as certificates may be asked for."""

    def append(self, decision_id: str, receipt: Mapping[str, Any], request: Mapping[str, Any]) -> None: ...

    def get(self, decision_id: str) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """Receipt and request, or None."""
        ...

    def put_health(self, digest: str, health: Mapping[str, Any]) -> None:
        """Keep a health document under its digest; again is harmless."""
        ...

    def health(self, digest: str) -> Mapping[str, Any] | None: ...
