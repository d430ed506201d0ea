"""Data keys of projects: made and unwrapped by KMS, kept wrapped in a table of their own.

Rows of that table: {pk: project, sk: key id, w: the wrapped key, at}, and a tombstone {pk, sk, at} once the keys of a
project are gone. The table has no point-in-time recovery and no backup, so what was deleted from it is gone at once;
KMS keeps no copy of a data key. The project's name is the encryption context: a wrapped key opens for no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tocsin.aws.clients import attempt
from tocsin.aws.keys import Key
from tocsin.aws.table import ConditionFailed, Table
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.ids import new_id
from tocsin.kernel.sealing import KEY_BYTES, DataKey, destroyed

#: Longest time a process works with a key that was destroyed meanwhile.
MAX_CACHE_MS: Final = 5 * clock.MINUTE
#: A project's key is followed by a new one after so long; older ones stay for what they sealed.
ROTATE_AFTER_MS: Final = 90 * clock.DAY
_CACHED: Final = 1_000
_TOMBSTONE: Final = "~destroyed"  # after every key id, so that it is the newest row


class KmsKeyRing:
    """Implements tocsin.kernel.sealing.KeyRing; one instance per process keeps keys for MAX_CACHE_MS."""

    def __init__(
        self, table: Table, kms: Callable[[], Any], master_key: str, now: Callable[[], int] = clock.now_ms
    ) -> None:
        self._table = table
        self._kms = kms
        self._master = master_key
        self._now = now
        self._current: dict[str, tuple[int, DataKey]] = {}
        self._named: dict[tuple[str, str], tuple[int, DataKey]] = {}

    def current(self, project: str) -> DataKey:
        known = self._current.get(project)
        now = self._now()
        if known and now - known[0] < MAX_CACHE_MS:
            return known[1]
        rows = list(self._table.query(project, newest_first=True, limit=1))
        if rows and rows[0]["sk"] == _TOMBSTONE:
            self._current.pop(project, None)
            raise destroyed()
        if rows and now - rows[0]["at"] < ROTATE_AFTER_MS:
            key = self._unwrapped(project, rows[0])
        else:
            key = self._made(project, now)
            self._remember(project, key)
        if len(self._current) >= _CACHED:
            self._current.clear()
        self._current[project] = (now, key)
        return key

    def named(self, project: str, key_id: str) -> DataKey:
        known = self._named.get((project, key_id))
        now = self._now()
        if known and now - known[0] < MAX_CACHE_MS:
            return known[1]
        row = self._table.get(Key(project, key_id), consistent=True)
        if row is None:
            self._named.pop((project, key_id), None)
            if self._table.get(Key(project, _TOMBSTONE), consistent=True):
                raise destroyed()
            raise Refusal("ERR_SCHEMA", "The data key of these bytes is not known.")
        return self._unwrapped(project, row)

    def _remember(self, project: str, key: DataKey) -> DataKey:
        if len(self._named) >= _CACHED:
            self._named.clear()
        self._named[project, key.key_id] = (self._now(), key)
        return key

    def count(self, project: str) -> int:
        """How many keys a project has."""
        return sum(row["sk"] != _TOMBSTONE for row in self._table.query(project))

    def destroy(self, project: str) -> int:
        """Destroy every key of a project for good; returns how many there were. Repeating it does no harm."""
        self._table.put(Key(project, _TOMBSTONE), {"at": self._now()})
        keys = [row["sk"] for row in self._table.query(project) if row["sk"] != _TOMBSTONE]
        for key_id in keys:
            self._table.delete(Key(project, key_id))
        self._current.pop(project, None)
        self._named = {name: known for name, known in self._named.items() if name[0] != project}
        return len(keys)

    def _made(self, project: str, now: int) -> DataKey:
        """A new key, kept before it is used. Two workers may make one each: both stay, the newer one seals."""
        answer = attempt(
            self._kms().generate_data_key,
            KeyId=self._master,
            NumberOfBytes=KEY_BYTES,
            EncryptionContext={"project": project},
        )
        key = DataKey(new_id("key", now), answer["Plaintext"])
        row = {"w": answer["CiphertextBlob"], "at": now}
        try:
            self._table.transact(
                [
                    self._table.check_write(Key(project, _TOMBSTONE), condition="attribute_not_exists(pk)"),
                    self._table.put_write(Key(project, key.key_id), row, condition="attribute_not_exists(pk)"),
                ]
            )
        except ConditionFailed as failure:
            if 0 in failure.positions:
                raise destroyed() from failure
            raise Retry("a data key of that name is there already") from failure
        return key

    def _unwrapped(self, project: str, row: dict[str, Any]) -> DataKey:
        known = self._named.get((project, row["sk"]))
        if known and self._now() - known[0] < MAX_CACHE_MS:
            return known[1]
        answer = attempt(
            self._kms().decrypt,
            KeyId=self._master,
            CiphertextBlob=row["w"],
            EncryptionContext={"project": project},
        )
        return self._remember(project, DataKey(row["sk"], answer["Plaintext"]))
