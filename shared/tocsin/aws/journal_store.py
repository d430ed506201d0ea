"""The journal on AWS: head, evidence and index in the table, tiles and checkpoint in a bucket of their own, keys
in KMS; implements tocsin.journal.ports and tocsin.journal.notes.Signer.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from botocore.exceptions import BotoCoreError, ClientError

from tocsin.api.filters import JournalFilters
from tocsin.api.ports import Page
from tocsin.aws import keys
from tocsin.aws.clients import attempt
from tocsin.aws.evidence import evidence_row
from tocsin.aws.keys import Key
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.table import MAX_TRANSACTION, ConditionFailed, Row, Table, Update
from tocsin.journal.entries import Entry
from tocsin.journal.notes import public_of_spki
from tocsin.journal.ports import Evidence, Fork, Head, HeadMoved, Published, Reservation
from tocsin.journal.tree import pack, unpack
from tocsin.kernel import clock
from tocsin.kernel.envelope import unpack as unpack_row
from tocsin.kernel.errors import Retry

#: Evidence is looked for in minutes that ended so long ago: slow workers and clocks that differ.
LATE_MINUTES: Final = 5
#: A first run looks back so far.
_LOOK_BACK_MINUTES: Final = 60
#: Days without entries that one page of a listing walks over.
_DAYS_PER_PAGE: Final = 62
_EXISTS: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_ABSENT: Final = frozenset({"NoSuchKey", "404"})


class EvidenceRecorder:
    """Leaves evidence of what has no transaction of its own: refusals, sign-ins, reads of what is secret."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def record(self, entries: Sequence[Entry], now: int) -> None:
        """All of them, or an error. Raises Retry when the table is in conflict."""
        writes = outbox_writes(self._table, [evidence_row(entry) for entry in entries], now)
        for start in range(0, len(writes), MAX_TRANSACTION):
            self._table.transact(writes[start : start + MAX_TRANSACTION])


class JournalFiles:
    """Files of the log under one prefix of a bucket. What exists is never changed, the checkpoint excepted."""

    def __init__(self, client: Any, bucket: str, prefix: str = "journal/") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def read(self, path: str) -> bytes | None:
        return self._get(path)[0]

    def _get(self, path: str) -> tuple[bytes | None, str | None]:
        try:
            answer = attempt(self._client.get_object, Bucket=self._bucket, Key=self._prefix + path)
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None, None
            raise
        return answer["Body"].read(), answer["ETag"]

    def _put(self, path: str, data: bytes, **condition: str) -> bool:
        """Whether the condition held."""
        kind = "application/octet-stream" if path.startswith("tile/") else "text/plain; charset=utf-8"
        key = self._prefix + path
        try:
            attempt(
                self._client.put_object,
                Bucket=self._bucket,
                Key=key,
                Body=data,
                ContentType=kind,
                ChecksumAlgorithm="SHA256",  # a locked bucket takes nothing without a checksum
                **condition,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _EXISTS | _ABSENT:
                return False
            raise
        return True

    def create(self, path: str, data: bytes) -> None:
        if self._put(path, data, IfNoneMatch="*"):
            return
        existing = self.read(path)
        if existing is None:
            raise Retry(f"{path} is being written by another run")
        if existing != data:
            raise Fork(f"{path} exists with other bytes")

    def paths(self) -> list[str]:
        """Every file there is, relative to the log's prefix."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        return [one["Key"].removeprefix(self._prefix) for page in pages for one in page.get("Contents", ())]

    def published(self) -> Published:
        note, token = self._get("checkpoint")
        return Published(note, token)

    def publish(self, note: bytes, before: Published) -> bool:
        condition = {"IfMatch": before.token} if before.token else {"IfNoneMatch": "*"}
        return self._put("checkpoint", note, **condition)


class DynamoJournal(JournalFiles):
    """The whole log; implements JournalStore."""

    def __init__(self, table: Table, client: Any, bucket: str) -> None:
        super().__init__(client, bucket)
        self._table = table

    def head(self) -> Head:
        row = self._table.get(keys.journal_head())
        if row is None:
            return Head()
        return Head(row["version"], row["size"], row["root"], row["first"], row["count"])

    def pending(self, now: int, limit: int) -> Sequence[Evidence]:
        """Rows of every (project, day) that the directory names since the watermark, which then follows."""
        mark = self._table.get(keys.journal_watermark())
        current = now // clock.MINUTE
        start = int(mark["minute"]) if mark else current - _LOOK_BACK_MINUTES
        partitions = {
            named["sk"].rpartition("#")[0]
            for minute in range(start, current + 2)
            for named in self._table.query(keys.evidence_directory(f"{minute:010d}"))
        }
        found: list[Row] = []
        for project, _, day in sorted(sk.rpartition("#") for sk in partitions):
            found += self._table.query(keys.evidence_partition(project, day), limit=limit)
        if len(found) < limit:
            oldest = min((row["written"] // clock.MINUTE for row in found), default=current)
            reached = min(oldest, current - LATE_MINUTES)
            if reached > start or mark is None:
                self._table.put(keys.journal_watermark(), {"minute": reached, "at": now})
        found.sort(key=lambda row: (row["sk"], row["pk"]))
        return [
            Evidence((row["pk"], row["sk"]), row["row_id"], row["project"], row["due"], unpack_row(row["z"]))
            for row in found[:limit]
        ]

    def reserve(self, before: Head, reservation: Reservation) -> Head:
        after = Head(before.version + 1, before.size, before.root, reservation.first, len(reservation.leaves))
        row = {
            "leaves": zlib.compress(pack(reservation.leaves)),
            "handles": zlib.compress(json.dumps(reservation.handles).encode()),
        }
        writes = [
            self._table.put_write(
                keys.journal_reservation(reservation.first), row, condition="attribute_not_exists(pk)"
            ),
            self._table.update_write(self._head_update(before, after)),
        ]
        if before.version == 0:
            since = min(int(sk[:15]) for _, sk in reservation.handles)
            writes.append(self._table.put_write(keys.journal_since(), {"at": since}))
        try:
            self._table.transact(writes)
        except ConditionFailed as error:
            raise HeadMoved from error
        return after

    def reservation(self, head: Head) -> Reservation:
        key = keys.journal_reservation(head.first)
        row = self._table.get(key)
        if row is None:
            raise HeadMoved
        leaves = tuple(unpack(zlib.decompress(row["leaves"]), key.sk))
        handles = json.loads(zlib.decompress(row["handles"]))
        return Reservation(head.first, leaves, tuple((pk, sk) for pk, sk in handles))

    def advance(self, before: Head, size: int, root: bytes) -> Head:
        after = Head(before.version + 1, size, root, before.first, before.count)
        try:
            self._table.update(self._head_update(before, after))
        except ConditionFailed as error:
            raise HeadMoved from error
        return after

    def settle(self, before: Head, reservation: Reservation) -> Head:
        self._table.put_all(self._index_rows(reservation))
        self._table.delete_all(Key(pk, sk) for pk, sk in reservation.handles)
        after = Head(before.version + 1, before.size, before.root)
        try:
            self._table.transact(
                [
                    self._table.update_write(self._head_update(before, after)),
                    self._table.delete_write(keys.journal_reservation(reservation.first)),
                ]
            )
        except ConditionFailed as error:
            raise HeadMoved from error
        return after

    @staticmethod
    def _index_rows(reservation: Reservation) -> Iterable[tuple[Key, Mapping[str, Any]]]:
        for index, leaf in enumerate(reservation.leaves, reservation.first):
            entry = json.loads(leaf)
            yield keys.journal_entry(entry["project"], entry["at"], index), {"index": index, "entry": entry}

    @staticmethod
    def _head_update(before: Head, after: Head) -> Update:
        values = {"version": after.version, "size": after.size, "root": after.root}
        return Update(
            keys.journal_head(),
            set=values | {"first": after.first, "count": after.count},
            condition="version = :before" if before.version else "attribute_not_exists(pk)",
            values={"before": before.version} if before.version else {},
        )


class DynamoJournalIndex:
    """A project's entries by time, for listings; implements tocsin.api.ports.JournalReader. Rows are written before
    the evidence goes.
    """

    def __init__(self, table: Table, now: Callable[[], int] = clock.now_ms) -> None:
        self._table = table
        self._now = now

    def page(self, filters: JournalFilters, position: Any, limit: int) -> Page[dict[str, Any]]:
        """Entries newest first, {index, entry}; `position` is what the page before answered, or None."""
        since = self._table.get(keys.journal_since())
        if since is None:
            return Page([], None, 0)
        oldest = max(since["at"], filters.from_ms or 0)
        oldest -= oldest % clock.DAY
        newest = min(self._now(), filters.to_ms or 1 << 53)
        at, last = (newest, None) if position is None else (int(position[0]), position[1])
        items: list[dict[str, Any]] = []
        scanned = 0
        for _ in range(_DAYS_PER_PAGE):
            if at < oldest:
                return Page(items, None, scanned)
            # Keys end in a number, so "position without its last character" sorts just below it.
            high = str(last)[:-1] if last else None
            last = None
            partition = keys.journal_partition(filters.project, keys.day(at))
            for row in self._table.query(partition, high=high, newest_first=True, limit=4 * limit):
                scanned += 1
                last = row["sk"]
                if filters.matches(row["entry"]):
                    items.append({"index": row["index"], "entry": row["entry"]})
                if len(items) == limit or scanned >= 4 * limit:
                    return Page(items, [at, last], scanned)
            at, last = at - clock.DAY, None
        return Page(items, [at, None], scanned)


class KmsSigner:
    """An asymmetric signing key in KMS: Ed25519 where the platform has it, else ECDSA P-256."""

    def __init__(self, client: Any, key_id: str) -> None:
        self._client = client
        self._key_id = key_id
        self._public: tuple[Literal["ed25519", "ecdsa-p256"], bytes] | None = None

    @property
    def algorithm(self) -> Literal["ed25519", "ecdsa-p256"]:
        return self._look()[0]

    def public(self) -> bytes:
        return self._look()[1]

    def _look(self) -> tuple[Literal["ed25519", "ecdsa-p256"], bytes]:
        if self._public is None:
            answer = self._call("get_public_key")
            algorithms = answer["SigningAlgorithms"]
            kind: Literal["ed25519", "ecdsa-p256"] = "ed25519" if "ED25519_SHA_512" in algorithms else "ecdsa-p256"
            self._public = kind, public_of_spki(answer["PublicKey"])
        return self._public

    def sign(self, message: bytes) -> bytes:
        algorithm = "ED25519_SHA_512" if self.algorithm == "ed25519" else "ECDSA_SHA_256"
        signed = self._call("sign", Message=message, MessageType="RAW", SigningAlgorithm=algorithm)
        return bytes(signed["Signature"])

    def _call(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = getattr(self._client, operation)(KeyId=self._key_id, **arguments)
        except (BotoCoreError, ClientError) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
            raise Retry(f"signing key: {code}") from error
        return answer
