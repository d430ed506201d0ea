"""The one builder of table keys. Every partition begins `p#<project>#`, so isolation is a prefix.

Global partitions (no project in front) are the ones in GLOBAL and no others; a test holds this list.
Numbers inside keys are zero-padded, so that string order is number order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from tocsin.kernel import clock
from tocsin.kernel.ids import base32_digest, id_time_ms
from tocsin.signals.ports import ASSIGNED_COMMITS

#: Partitions that belong to the deployment, not to a project, and why.
GLOBAL: Final[Mapping[str, str]] = {
    "key#": "API keys are looked up before their project is known",
    "due#": "directory of outbox partitions by minute, so that the relay finds due rows without a scan",
    "sys#": "the deployment's own records: projects, heartbeats, relay watermark, healings, head of the journal, token"
    " keys, failed tries by source",
    "jrn#": "directory of evidence partitions by minute, so that the journal finds what waits without a scan",
}
#: Commits whose log rows share a partition.
LOG_BUCKET: Final = 100
#: Shared items that hold packed hot series states of a project.
STATE_BUCKETS: Final = 256
#: Outbox partitions per project and minute.
OUTBOX_SHARDS: Final = 4
#: Directory rows per project and minute that writers of evidence spread over.
EVIDENCE_SHARDS: Final = 4

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{1,63}", re.ASCII)


class Key(NamedTuple):
    """Primary key of one row."""

    pk: str
    sk: str


def day(at_ms: int) -> str:
    """UTC day `yyyymmdd` of a time in ms; the bucket of everything listed by time."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y%m%d")


def partition(project: str, *parts: str) -> str:
    """`p#<project>#<parts joined by #>`. Raises ValueError for a project name that could forge another key."""
    if not _PROJECT.fullmatch(project):
        raise ValueError("project name does not fit the key grammar")
    return "#".join(("p", project, *parts))


def mark(project: str, event_id: str) -> Key:
    return Key(partition(project, "m", event_id), "m")


def commit(project: str, commit_id: str) -> Key:
    return Key(partition(project, "c", commit_id), "c")


def log_head(project: str) -> Key:
    return Key(partition(project, "head"), "log")


def cursor(project: str) -> Key:
    """Progress of correlation over the commit log."""
    return Key(partition(project, "head"), "correlate")


def log_partition(project: str, n: int) -> str:
    return partition(project, "log", f"{n // LOG_BUCKET:010d}")


def log_row(project: str, n: int) -> Key:
    return Key(log_partition(project, n), f"{n:012d}")


def assignment(project: str, n: int, version: int) -> Key:
    """Which incidents events of commit n and its neighbours went to in the change `version`; later ones overrule."""
    return Key(assignment_partition(project, n), f"{assignment_group(n)}#{version:012d}")


def assignment_group(n: int) -> str:
    """Commits whose assignments share a row, as the beginning of its sort key."""
    return f"{n // ASSIGNED_COMMITS:011d}"


def assignment_partition(project: str, n: int) -> str:
    return partition(project, "assigned", f"{n // LOG_BUCKET:010d}")


def state_bucket(project: str, bucket: int) -> Key:
    return Key(partition(project, "state", f"{bucket:03d}"), "hot")


def full_state(project: str, key: bytes) -> Key:
    return Key(partition(project, "state", key.hex()), "full")


def source_partition(project: str) -> str:
    return partition(project, "sources")


def source(project: str, name: str) -> Key:
    """A source that sent events to the project."""
    return Key(source_partition(project), base32_digest(name.encode("utf-8"), 32))


def incident_day(project: str, yyyymmdd: str) -> str:
    return partition(project, "inc", yyyymmdd)


def incident(project: str, incident_id: str) -> Key:
    """An incident sits in the partition of its id's own day, so the id alone finds it and days list newest first."""
    return Key(incident_day(project, day(id_time_ms(incident_id))), incident_id)


def member_partition(project: str, incident_id: str) -> str:
    return partition(project, "members", incident_id)


def member(project: str, incident_id: str, version: int) -> Key:
    """Members of an incident that no longer fitted its row in the change `version`."""
    return Key(member_partition(project, incident_id), f"{version:012d}")


def timeline_partition(project: str, incident_id: str) -> str:
    return partition(project, "timeline", incident_id)


def timeline(project: str, incident_id: str, position: int) -> Key:
    """Entry `position` of an incident's timeline, once it no longer fits the incident's row."""
    return Key(timeline_partition(project, incident_id), f"{position:09d}")


def token(project: str, text: str) -> Key:
    return Key(partition(project, "tok", base32_digest(text.encode("utf-8"), 32)), "t")


def document(project: str, name: str) -> Key:
    """Project documents kept under a name: settings, topology, routing."""
    return Key(partition(project, "doc"), name)


def document_version(project: str, name: str, version: int) -> Key:
    """A document as it was at a version, for as long as commits may name it."""
    return Key(partition(project, "doc", name), f"{version:09d}")


def quarantines(project: str) -> Key:
    """Everything of a project that is in quarantine, in one row, which every request goes by."""
    return Key(partition(project, "defense"), "quarantines")


def mitigation_partition(project: str) -> str:
    return partition(project, "mit")


def mitigation(project: str, mitigation_id: str) -> Key:
    return Key(mitigation_partition(project), mitigation_id)


def mitigation_name(project: str, name: str) -> Key:
    """Which mitigation was the last to do this about these facts."""
    return Key(partition(project, "mit", name), "last")


def usage(project: str, yyyymmdd: str) -> Key:
    """Counters of a UTC day; those of a day that still runs are in the log's head."""
    return Key(partition(project, "usage"), yyyymmdd)


def usage_exported(project: str, yyyymmdd: str, meter: str) -> Key:
    """Says that a meter of a day was handed to the billing system."""
    return Key(partition(project, "usage"), f"sent#{yyyymmdd}#{meter}")


def refusal_partition(project: str, yyyymmdd: str) -> str:
    return partition(project, "refused", yyyymmdd)


def refusal(project: str, at_ms: int, event_id: str, digest_hex: str) -> Key:
    """An event refused after it was accepted; the same refusal met again is the same row."""
    return Key(refusal_partition(project, day(at_ms)), f"{event_id}#{digest_hex[:16]}")


def channel_partition(project: str) -> str:
    return partition(project, "chn")


def channel(project: str, channel_id: str) -> Key:
    return Key(channel_partition(project), channel_id)


def notification_partition(project: str, incident_id: str) -> str:
    return partition(project, "ntf", incident_id)


def notification(project: str, incident_id: str, seq: int, channel_id: str) -> Key:
    return Key(notification_partition(project, incident_id), f"{seq:015d}#{channel_id}")


def notification_day(project: str, yyyymmdd: str) -> str:
    """Partition of pointers to the notifications made on one day."""
    return partition(project, "ntfd", yyyymmdd)


def notification_pointer(project: str, at_ms: int, incident_id: str, seq: int, channel_id: str) -> Key:
    return Key(notification_day(project, day(at_ms)), f"{at_ms:015d}#{incident_id}#{seq:015d}#{channel_id}")


def push_budget(project: str) -> Key:
    return Key(partition(project, "bud"), "push")


def delivery_slot(project: str, channel_id: str, n: int) -> Key:
    """Lease of one of the attempts that may be under way towards a channel."""
    return Key(partition(project, "bud"), f"slot#{channel_id}#{n}")


def digest_ledger(project: str, channel_id: str) -> Key:
    return Key(partition(project, "wth", channel_id), "ledger")


def withheld_day(project: str, channel_id: str, yyyymmdd: str) -> str:
    return partition(project, "wth", channel_id, yyyymmdd)


def withheld(project: str, channel_id: str, at_ms: int, incident_id: str, seq: int) -> Key:
    """Note for the next digest; the time orders the notes of a day."""
    return Key(withheld_day(project, channel_id, day(at_ms)), f"{at_ms:015d}#{incident_id}#{seq:015d}")


def minute(at_ms: int) -> str:
    return f"{at_ms // clock.MINUTE:010d}"


def outbox_partition(project: str, yyyymmddhhmm: str, shard: int) -> str:
    return partition(project, "out", yyyymmddhhmm, str(shard))


def outbox(project: str, due_ms: int, row_id: str) -> Key:
    return Key(outbox_partition(project, minute(due_ms), outbox_shard(due_ms)), f"{due_ms:015d}#{row_id}")


def outbox_shard(due_ms: int) -> int:
    """Rows due at the same moment, such as those of one transaction, share a partition and its directory row."""
    return due_ms % OUTBOX_SHARDS


def evidence_partition(project: str, yyyymmdd: str) -> str:
    return partition(project, "evidence", yyyymmdd)


def evidence(project: str, at_ms: int, row_id: str) -> Key:
    """Evidence waits here until the journal has sealed it."""
    return Key(evidence_partition(project, day(at_ms)), f"{at_ms:015d}#{row_id}")


def evidence_directory(minute_text: str) -> str:
    return f"jrn#{minute_text}"


def evidence_due(written_ms: int, project: str, at_ms: int, row_id: str) -> Key:
    """Says that evidence of a project and day was written in this minute; by shard, so that writers seldom meet."""
    shard = row_id.encode("utf-8")[-1] % EVIDENCE_SHARDS
    return Key(evidence_directory(minute(written_ms)), f"{project}#{day(at_ms)}#{shard}")


def journal_partition(project: str, yyyymmdd: str) -> str:
    return partition(project, "journal", yyyymmdd)


def journal_entry(project: str, at_ms: int, index: int) -> Key:
    """A project's index of its entries; the journal itself is in its bucket."""
    return Key(journal_partition(project, day(at_ms)), f"{at_ms:015d}#{index:015d}")


def journal_head() -> Key:
    return Key("sys#journal", "head")


def journal_reservation(first: int) -> Key:
    return Key("sys#journal", f"reserved#{first:015d}")


def journal_since() -> Key:
    """Time of the first entry, where listings end."""
    return Key("sys#journal", "since")


def journal_watermark() -> Key:
    return Key("sys#journal", "watermark")


def due(minute_text: str, project: str, shard: int) -> Key:
    return Key(f"due#{minute_text}", f"{project}#{shard}")


def api_key(key_id: str) -> Key:
    return Key(f"key#{key_id}", "key")


def privacy_job(project: str, job_id: str) -> Key:
    """A job over everything a project holds; it outlives the project's own partitions."""
    return Key(f"sys#privacy#{project}", job_id)


def unfinished_job(job_id: str) -> Key:
    """Says that a job has something left to do."""
    return Key("sys#privacy", job_id)


def project(project_id: str) -> Key:
    """A project's own record: name, settings, quota."""
    return Key("sys#project", project_id)


def relay_watermark() -> Key:
    return Key("sys#relay", "watermark")


def registry(project: str) -> Key:
    """Which snapshot of its contracts and policy is current."""
    return Key(partition(project, "registry"), "pointer")


def policy_partition(project: str) -> str:
    return partition(project, "policies")


def policy(project: str, version: int) -> Key:
    """A policy that was put in force."""
    return Key(policy_partition(project), f"{version:016d}")


def service_partition(project: str) -> str:
    return partition(project, "svc")


def service(project: str, name: str) -> Key:
    """What is known of a service, as name@version, between decisions."""
    return Key(service_partition(project), name)


def call(project: str, call_id: str) -> Key:
    """A call through the engine, by the id that its caller gave it."""
    return Key(partition(project, "call", base32_digest(call_id.encode("utf-8"), 32)), "c")


def incumbent(project: str, lane: str) -> Key:
    """The service that requests of a kind went to last."""
    return Key(partition(project, "lane", lane), "l")


def spending(project: str) -> Key:
    """What calls may cost and did."""
    return Key(partition(project, "registry"), "spending")


def latest_health(project: str) -> Key:
    return Key(partition(project, "registry"), "health")


def decisions(project: str, batch_id: str) -> Key:
    """Decisions that were made together."""
    return Key(partition(project, "dec", batch_id), "d")


def decided_health(project: str, digest_hex: str) -> Key:
    """A health document that decisions were made by."""
    return Key(partition(project, "hlt", digest_hex), "h")


def known_project(project: str) -> Key:
    """Register of projects that ever committed an event, so that the supervisor can look after each."""
    return Key("sys#projects", project)


def alerting_project(project: str) -> Key:
    """Register of projects that keep alerts of the Alertmanager API, whose leases must be looked after."""
    return Key("sys#alerting", project)


def sender_name(project: str, name: str) -> Key:
    """The alerts that a sender means by a name of its own, which may be any text."""
    return Key(partition(project, "cn", base32_digest(name.encode("utf-8", "surrogatepass"), 51)), "n")


def kept_alerts(project: str) -> str:
    return partition(project, "ca")


def silences(project: str) -> str:
    return partition(project, "cs")


def heartbeat(name: str) -> Key:
    return Key("sys#beat", name)


def lease(name: str) -> Key:
    """Work of which only one worker may do a run at a time."""
    return Key("sys#lease", name)


def ops_project() -> Key:
    """Names the project that gets the supervisor's own events."""
    return Key("sys#ops", "project")


def own_address() -> Key:
    """Where the deployment's API is, as callers see it."""
    return Key("sys#ops", "address")


def healing_partition(yyyymmdd: str) -> str:
    return f"sys#heal#{yyyymmdd}"


def healing(at_ms: int, healing_id: str) -> Key:
    return Key(healing_partition(day(at_ms)), f"{at_ms:015d}#{healing_id}")


def watch(name: str) -> Key:
    """What the supervisor remembers of one thing it watches."""
    return Key("sys#watch", name)
