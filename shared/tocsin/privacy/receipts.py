"""Receipts: what a job removed from each store, what is left there, and until when backups and caches know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal
from tocsin.privacy.jobs import CACHES_MS, Job

Json = dict[str, Any]
FORMAT: Final = "tocsin-receipt/1"
#: How far back the table can be restored, in days (point-in-time recovery).
BACKUP_DAYS: Final = 35
#: Days after which the platform removes by itself what no job removes.
QUEUE_DAYS: Final = 4
DEAD_LETTER_DAYS: Final = 14
LOG_DAYS: Final = 30
CLAIM_DAYS: Final = 21
EXPORT_DAYS: Final = 7

#: Store by the name under which a job counts it.
_COUNTED: Final[Mapping[str, str]] = {
    "rows": "table",
    "occurrences": "table and bucket segments/",
    "segments": "bucket segments/",
    "claims": "bucket claim/",
    "exports": "bucket exports/",
    "registry": "bucket registry/",
    "dead_letters": "dead letters",
    "data_keys": "data keys",
}
_ERASURE_LEAVES: Final = (
    {
        "store": "bucket claim/",
        "holds": "large messages on their way, sealed with the project's data key",
        "leaves_within_days": CLAIM_DAYS,
    },
)
_ELSEWHERE: Final = (
    {
        "store": "queues",
        "holds": "messages on their way, those of events sealed with the project's data key",
        "leaves_within_days": QUEUE_DAYS + DEAD_LETTER_DAYS,
    },
    {"store": "logs", "holds": "ids, counts and codes; no content and no pseudonyms", "leaves_within_days": LOG_DAYS},
    {"store": "journal", "holds": "digests and ids; no content", "leaves_within_days": None},
)


def receipt(job: Job) -> Json:
    """The receipt of a job that was gone through. Refuses ERR_CONFLICT while it runs, ERR_NOT_FOUND for exports."""
    if job.kind == "export":
        raise Refusal("ERR_NOT_FOUND", "An export has a manifest, not a receipt.")
    if job.finished_at is None:
        raise Refusal("ERR_CONFLICT", "The job is not done yet; ask again later.")
    stores: list[Json] = []
    for name in sorted({*job.removed, *job.remains} | ({"rows"} if job.kind == "retention" else set())):
        if name in _COUNTED:
            counted = {"removed": job.removed.get(name, 0), "remains": job.remains.get(name, 0)}
            stores.append({"store": _COUNTED[name], **counted})
    stores += [dict(one) for one in _ELSEWHERE]
    if job.kind == "erasure":
        stores += [dict(one) for one in _ERASURE_LEAVES]
    dropped = (job.stopped_at or job.finished_at) + CACHES_MS
    found: Json = {
        "format": FORMAT,
        "job": job.id,
        "kind": job.kind,
        "project": job.project,
        "status": job.status if job.status != "running" else "rechecking",
        "requested_by": job.requested_by,
        "requested_at": clock.rfc3339(job.requested_at),
        "approval": job.approval or None,
        "finished_at": clock.rfc3339(job.finished_at),
        "stores": stores,
        "backups": {
            "store": "table, point in time",
            "until": clock.rfc3339(job.finished_at + BACKUP_DAYS * clock.DAY),
            "sealed_content_readable": job.kind != "deletion",
        },
        "caches": {
            "dropped_by": clock.rfc3339(dropped),
            "rechecked_at": clock.rfc3339(job.rechecked_at) if job.rechecked_at else None,
        },
    }
    if job.kind == "erasure":
        found["subject_sha256"] = job.subject_hash
    if job.kind == "retention":
        found["keep_days"] = job.keep_days
        found["left_to_expiry"] = job.removed.get("left_to_expiry", 0)
    return found
