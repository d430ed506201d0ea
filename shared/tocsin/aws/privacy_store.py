"""Everything that holds something of a project, for those who remove or count it; implements ports of tocsin.privacy.

A project's rows are found by reading the whole table: marks and tokens lie in a partition each, and the events that
would name them cannot be read once the data keys are destroyed. This is the one place that scans, and the one function
that may.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from tocsin.access.projects import Project, ProjectSettings, Quota
from tocsin.aws import evidence, keys, segments
from tocsin.aws.bucket import Bucket
from tocsin.aws.data_keys import KmsKeyRing
from tocsin.aws.dead_letters import PAGE, dead_letter_url, project_of
from tocsin.aws.key_store import DynamoProjects, put_versioned
from tocsin.aws.keys import Key
from tocsin.aws.ledger import facets_of, segment_object, segment_place
from tocsin.aws.table import ConditionFailed, Row, Table, Update
from tocsin.kernel import clock
from tocsin.kernel.envelope import inflate, pack, unpack
from tocsin.kernel.errors import Retry
from tocsin.kernel.sealing import Sealer, is_sealed
from tocsin.privacy.jobs import ERASED, Job
from tocsin.privacy.ports import Step

#: Kinds of rows that stay. Those of the journal hold digests and ids, and it must not lose an entry; counters of
#: requests come to be whenever a caller is refused, and leave by expiry.
KEPT: Final = frozenset({"evidence", "journal", "limit"})
#: Kinds of rows that are a project's history, whose expiry is their time plus the deployment's retention.
HISTORY: Final = frozenset(
    ("m", "c", "log", "refused", "inc", "members", "assigned", "timeline", "ntf", "ntfd", "wth", "dec", "mit")
)
#: Finished jobs and their receipts stay readable so long, in ms.
JOB_LIFE: Final = 400 * clock.DAY
#: Rows that are opened in one step when a pseudonym is looked for.
_OPENED: Final = 200
#: Seconds a dead letter stays hidden from others while all are looked through.
_HIDDEN_S: Final = 60
_MOST_LETTERS: Final = 10_000


def _kind(row: Mapping[str, Any]) -> str:
    """Third part of a partition: p#<project>#<kind>…"""
    return str(row["pk"]).split("#", 3)[2]


def _text_without(value: Any, needle: str) -> Any:
    """A value with ERASED for every `needle` in its strings."""
    if isinstance(value, str):
        return value.replace(needle, ERASED)
    if isinstance(value, list):
        return [_text_without(one, needle) for one in value]
    if isinstance(value, dict):
        return {name: _text_without(one, needle) for name, one in value.items()}
    return value


class DynamoJobs:
    """Implements JobStore. The subject of an erasure is sealed with the project's data key while it is needed."""

    def __init__(self, table: Table, sealer: Sealer) -> None:
        self._table, self._sealer = table, sealer

    def get(self, project: str, job_id: str) -> Job | None:
        key = keys.privacy_job(project, job_id)
        row = self._table.get(key)
        if row is None:
            return None
        content = unpack(row["z"])
        if "subject" in row:
            content["subject"] = self._sealer.open(project, row["subject"], "subject", job_id).decode("ascii")
        return Job(**content)

    def put(self, job: Job, expected_version: int) -> bool:
        content = asdict(job)
        subject = content.pop("subject")
        row: Row = {
            "z": pack(content),
            "version": job.version,
            "exp": (job.requested_at + JOB_LIFE) // 1000,
        }
        if subject:
            row["subject"] = self._sealer.seal(job.project, subject.encode("ascii"), "subject", job.id)
        if job.status == "running" or job.recheck_at is not None:
            self._table.put(keys.unfinished_job(job.id), {"project": job.project, "exp": row["exp"]})
        left = evidence.of_job(job, clock.now_ms())
        if not put_versioned(self._table, keys.privacy_job(job.project, job.id), row, expected_version, left):
            return False
        if job.status != "running" and job.recheck_at is None:
            self._table.delete(keys.unfinished_job(job.id))
        return True

    def unfinished(self) -> Sequence[tuple[str, str]]:
        rows = self._table.query(keys.unfinished_job("any").pk)
        return [(row["project"], row["sk"]) for row in rows]


class ProjectStores:
    """Implements Stores. `queues` are the work queues whose dead letters are looked through."""

    def __init__(
        self,
        table: Table,
        bucket: Bucket,
        ring: KmsKeyRing,
        sealer: Sealer,
        sqs: Any,
        queues: Sequence[str],
        *,
        retention_days: int,
        now: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._table, self._bucket, self._ring, self._sealer = table, bucket, ring, sealer
        self._sqs, self._queues, self._retention_days, self._now = sqs, queues, retention_days, now

    def stop(self, project: str) -> Step:
        records = DynamoProjects(self._table)
        found = records.get(project) or Project(project, project)
        if found.status != "deleted" or found.name:
            bare = Project(project, "", found.created_at, "", "deleted", ProjectSettings(), Quota(), found.version + 1)
            if not records.put(bare, found.version):
                raise Retry("the project's record changed meanwhile")
        for place in self._table.query(keys.partition(project, "keys")):
            blank = {"name": "", "last_four": "", "owner": "", "created_by": ""}
            self._table.update(Update(keys.api_key(place["key_id"]), set=blank, condition="attribute_exists(pk)"))
        self._table.delete(keys.known_project(project))
        return Step()

    def data_keys(self, project: str, *, remove: bool) -> Step:
        return Step({"data_keys": self._ring.destroy(project) if remove else self._ring.count(project)})

    def rows(self, project: str, position: Any, *, remove: bool, keep_days: int | None = None) -> Step:
        page, last = self._page(project, position, ("exp", "s3"))
        left_to_expiry = 0
        if keep_days is None:
            found = [row for row in page if _kind(row) not in KEPT]
        else:
            now_s = self._now() // 1000
            latest = now_s + (self._retention_days - keep_days) * clock.DAY // 1000
            old = [row for row in page if _kind(row) in HISTORY and row.get("exp", latest + 1) <= latest]
            found = [row for row in old if row["exp"] > now_s]
            left_to_expiry = len(old) - len(found)
        if remove:
            if keep_days is not None:  # objects of rows that are gone would be found by nobody
                self._bucket.delete_many([row["s3"] for row in found if "s3" in row])
            self._table.delete_all(Key(row["pk"], row["sk"]) for row in found)
        counts = {"rows": len(found)}
        if keep_days is not None and remove:
            counts["left_to_expiry"] = left_to_expiry
        return Step(counts, last)

    def _page(self, project: str, position: Any, only: Sequence[str] = (), limit: int = 1_000) -> tuple[list[Row], Any]:
        after = Key(*position) if position else None
        page, last = self._table.scan(keys.partition(project, ""), after=after, only=only, limit=limit)
        return page, list(last) if last else None

    def objects(self, project: str, prefix: str, position: Any, *, remove: bool) -> Step:
        name = {"claim": "claims"}.get(prefix, prefix)
        found, more = self._bucket.page(f"{prefix}/{project}/", position or "")
        if remove:
            self._bucket.delete_many(found)
        return Step({name: len(found)}, found[-1] if more else None)

    def letters(self, project: str, *, remove: bool, needle: str = "") -> Step:
        return Step({"dead_letters": sum(self._letters(url, project, remove, needle) for url in self._queues)})

    def _letters(self, queue_url: str, project: str, remove: bool, needle: str) -> int:
        """Dead letters of one work queue that are the project's; the others are visible again afterwards."""
        url, seen, found = dead_letter_url(self._sqs, queue_url), dict[str, str](), 0
        while len(seen) < _MOST_LETTERS:
            answer = self._sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=PAGE, VisibilityTimeout=_HIDDEN_S, WaitTimeSeconds=0
            )
            fresh = [one for one in answer.get("Messages", ()) if one["MessageId"] not in seen]
            if not fresh:
                break
            for one in fresh:
                seen[one["MessageId"]] = one["ReceiptHandle"]
                if project_of(one["Body"]) == project and needle in one["Body"]:
                    found += 1
                    if remove:
                        self._sqs.delete_message(QueueUrl=url, ReceiptHandle=seen.pop(one["MessageId"]))
        for handle in seen.values():
            self._sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
        return found

    def occurrences(self, project: str, pseudonym: str, position: Any, *, remove: bool) -> Step:
        page, last = self._page(project, position, limit=_OPENED)
        needle, found, now_s = pseudonym.encode("ascii"), 0, self._now() // 1000
        for row in page:
            if row.get("exp", now_s + 1) <= now_s:
                continue  # gone for readers, and its object may be gone altogether
            if "was" in row and remove:
                self._drop_former(row)
            change = self._without(project, row, needle)
            if change is None:
                found += "was" in row and not remove
                continue
            found += 1
            if remove:
                self._rewrite(row, change)
        return Step({"occurrences": found}, last)

    def _without(self, project: str, row: Row, needle: bytes) -> Row | None:
        """Attributes of a row that change when a pseudonym is erased from it, None when it does not hold it."""
        if _kind(row) == "log":
            return self._segment_without(project, row, needle)
        change: Row = {}
        for name, value in row.items():
            if isinstance(value, bytes):
                after = self._bytes_without(project, row, value, needle)
            else:
                after = _text_without(value, needle.decode("ascii"))
            if after not in (None, value):
                change[name] = after
        return change or None

    def _bytes_without(self, project: str, row: Row, value: bytes, needle: bytes) -> bytes | None:
        place = ("row", row["pk"], row["sk"])
        sealed = is_sealed(value)
        try:
            raw = inflate(self._sealer.open(project, value, *place) if sealed else value)
        except ValueError:
            return None  # digests and packed states: bytes that never hold text
        if needle not in raw:
            return None
        packed = pack(json.loads(raw.replace(needle, ERASED.encode("ascii"))))
        return self._sealer.seal(project, packed, *place) if sealed else packed

    def _segment_without(self, project: str, row: Row, needle: bytes) -> Row | None:
        place = segment_place(row["c"])
        sealed = self._bucket.get(row["s3"]) if "s3" in row else row["body"]
        plain = segments.rewritten(self._sealer.open(project, sealed, *place), needle, ERASED.encode("ascii"))
        if plain is None:
            return None
        body = self._sealer.seal(project, plain, *place)
        change: Row = {"size": len(body)}
        if "facets" in row:
            facets = set[bytes]().union(*(facets_of(event) for event in segments.decode_events(plain)))
            change["facets"] = b"".join(sorted(facets))
        if "s3" not in row:
            return change | {"body": body}
        return change | {"s3": segment_object(project, row["at"], body), "new": body, "was": row["s3"]}

    def _rewrite(self, row: Row, change: Row) -> None:
        """Put the change over the row as it was read. One that moved meanwhile is met again by the next pass."""
        name = next(one for one in ("s3", "body", "z", *change) if one in change)
        if "new" in change:
            self._bucket.put(change["s3"], change.pop("new"))
        key = Key(row["pk"], row["sk"])
        try:
            self._table.update(Update(key, set=change, condition=f"{name} = :old", values={"old": row[name]}))
        except ConditionFailed:
            return
        if "was" in change:
            self._drop_former({**row, **change})

    def _drop_former(self, row: Row) -> None:
        """Remove the object that a row pointed to before; the row remembers it until that is done."""
        self._bucket.delete_many([row["was"]])
        gone = Update(Key(row["pk"], row["sk"]), remove=("was",), condition="was = :was", values={"was": row["was"]})
        try:
            self._table.update(gone)
        except ConditionFailed:
            return
