"""API key records; implements tocsin.access.principals.KeyStore."""

from __future__ import annotations

from tocsin.access.principals import KeyRecord
from tocsin.aws import keys
from tocsin.aws.table import Table


class DynamoKeyStore:
    """Records by key id. Only the keyed hash of a key is stored."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, key_id: str) -> KeyRecord | None:
        row = self._table.get(keys.api_key(key_id))
        if row is None:
            return None
        return KeyRecord(
            key_id=row["key_id"],
            project=row["project"],
            env=row["env"],
            hash=row["hash"],
            scopes=frozenset(row["scopes"]),
            created_at=row["created_at"],
            expires_at=row["expires_at"],
            revoked_at=row["revoked_at"],
        )

    def put(self, record: KeyRecord) -> None:
        """Write a record whole, replacing an older one of the same id."""
        self._table.put(
            keys.api_key(record.key_id),
            {
                "key_id": record.key_id,
                "project": record.project,
                "env": record.env,
                "hash": record.hash,
                "scopes": sorted(record.scopes),
                "created_at": record.created_at,
                "expires_at": record.expires_at,
                "revoked_at": record.revoked_at,
            },
        )
