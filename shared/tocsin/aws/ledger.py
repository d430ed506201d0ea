"""Marks, commits and the numbered log in DynamoDB and S3; implements tocsin.signals.ports.Ledger.

Rows: mark {c: commit id, d: digest, at}; commit {n} or {dead}; head {n, folded, events, <tier>…}; log row n {c, at,
count, body | s3, …summary}. Series states travel as deltas inside the log: each commit carries the new bytes of every
state it changed. Every FOLD_EVERY commits they are folded into shared items ("buckets"), so that a reader needs the
buckets of its keys and the few commits since the last fold.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from tocsin.access.usage import STORED, llm_tokens
from tocsin.aws import evidence, keys, segments
from tocsin.aws.bucket import Bucket
from tocsin.aws.keys import Key
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.table import ConditionFailed, Row, Table, Update
from tocsin.kernel import clock
from tocsin.kernel.errors import Retry
from tocsin.kernel.sealing import Sealer
from tocsin.signals.ports import (
    MAX_READ_BYTES,
    Commit,
    CommitDead,
    CommitStatus,
    Event,
    HeadMoved,
    LogEntry,
    LogHead,
    Mark,
    Recorded,
)

#: Segments up to this size stay inside their log row.
INLINE_BYTES: Final = 4_096
FOLD_EVERY: Final = 128
#: A quiet project is folded by age, long before its log rows leave by retention.
FOLD_AFTER_MS: Final = 12 * clock.HOUR
_FOLD_LEASE_MS: Final = clock.MINUTE
#: Packed size at which a bucket sheds its oldest states; DynamoDB rows end at 400 KB.
_BUCKET_BYTES: Final = 300 * 1024
#: Distinct facet values a log row lists for filtering; rows with more are always opened.
MAX_FACETS: Final = 200
#: Sources remembered per project for look-ups by a sender's id alone.
MAX_SOURCES: Final = 1_000
#: Days a series state is kept without being touched.
STATE_DAYS: Final = 45
_HISTORY_PAGE: Final = 50
_CACHED_PROJECTS: Final = 8
_CACHED_STATES: Final = 100_000

States = dict[bytes, bytes]


@dataclass(slots=True)
class _Warm:
    """What this process knows of a project's states: deltas of commits folded+1..n over bucket rows fetched since."""

    n: int
    hot: States = field(default_factory=dict)
    full: States = field(default_factory=dict)
    buckets: dict[int, States] = field(default_factory=dict)
    singles: dict[bytes, bytes | None] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.hot) + len(self.full) + sum(map(len, self.buckets.values())) + len(self.singles)


@lru_cache(maxsize=16_384)
def facet(name: str, value: str) -> bytes:
    """Three bytes that stand for one filterable value in a log row's summary."""
    return hashlib.sha256(f"{name}={value}".encode()).digest()[:3]


def facets_of(event: Event) -> set[bytes]:
    entity = event["entity"]
    found = {
        facet("source", event["source"]),
        facet("type", event["type"]),
        facet("entity", entity["id"]),
        facet("entity", f"{entity['type']}:{entity['id']}"),
        facet("tier", event["tier"]),
        facet("status", event["status"]),
    }
    found.update(facet("tag", f"{key}:{value}") for key, value in event["tags"].items())
    return found


def segment_place(commit_id: str) -> tuple[str, str]:
    """What a segment is sealed for: it opens in no other commit."""
    return "segment", commit_id


def used_of(head: Row) -> tuple[str, int, int, int]:
    """(yyyymmdd, events, bytes, LLM tokens) of the day that a log head counts."""
    day, events, size, *tokens = head.get("used") or ("", 0, 0)
    return str(day), int(events), int(size), int(tokens[0]) if tokens else 0


def segment_object(project: str, at: int, body: bytes) -> str:
    """Key of the object that holds the segment of a commit made at `at` (ms)."""
    return f"segments/{project}/{keys.day(at)}/{hashlib.sha256(body).hexdigest()}"


class DynamoLedger:
    """The ledger of one deployment. `retention_days` sets how long rows and idempotency last."""

    def __init__(self, table: Table, bucket: Bucket, sealer: Sealer, *, retention_days: int) -> None:
        self._table = table
        self._bucket = bucket
        self._sealer = sealer
        self._retention_s = retention_days * clock.DAY // 1000
        self._warm: OrderedDict[str, _Warm] = OrderedDict()
        self._sources: dict[str, set[str]] = {}

    def _expiry(self, now: int) -> int:
        return now // 1000 + self._retention_s

    # marks
    def claim(self, project: str, commit_id: str, digests: Mapping[str, bytes], now: int) -> dict[str, Mark]:
        statement = f"INSERT INTO \"{self._table.name}\" VALUE {{'pk': ?, 'sk': ?, 'c': ?, 'd': ?, 'at': ?, 'exp': ?}}"
        expiry = self._expiry(now)
        taken = []
        outcome = self._table.statements(
            [(statement, (*keys.mark(project, e), commit_id, d, now, expiry)) for e, d in digests.items()]
        )
        for event_id, code in zip(digests, outcome, strict=True):
            if code == "DuplicateItem":
                taken.append(event_id)
            elif code:
                raise Retry(f"a mark could not be written: {code}")
        marks = self.marks(project, taken)
        if len(marks) < len(taken):
            raise Retry("a mark expired while it was read")
        # After a lost answer the SDK repeats the insert and meets its own mark.
        return {event_id: mark for event_id, mark in marks.items() if mark.commit_id != commit_id}

    def marks(self, project: str, event_ids: Collection[str], *, consistent: bool = True) -> dict[str, Mark]:
        """Marks that exist among `event_ids`; an inconsistent read costs half and may miss the last second."""
        wanted = {keys.mark(project, event_id): event_id for event_id in event_ids}
        rows = self._table.batch_get(wanted, consistent=consistent)
        return {wanted[key]: Mark(row["c"], row["d"], row["at"]) for key, row in rows.items()}

    def lookup(self, project: str, event_ids: Sequence[str]) -> dict[str, tuple[str, bool]]:
        """Advice for ingest: digest (hex) of each claimed id and whether its commit stands."""
        marks = self.marks(project, event_ids, consistent=False)
        statuses = self.statuses(project, {mark.commit_id for mark in marks.values()})
        return {
            event_id: (mark.digest.hex(), statuses[mark.commit_id] == "committed") for event_id, mark in marks.items()
        }

    def projects(self) -> Iterator[str]:
        """Every project that ever committed an event."""
        return (row["sk"] for row in self._table.query(keys.known_project("any").pk, consistent=False))

    def statuses(self, project: str, commit_ids: Collection[str]) -> dict[str, CommitStatus]:
        rows = self._table.batch_get(keys.commit(project, commit_id) for commit_id in commit_ids)
        return {one: _status(rows.get(keys.commit(project, one))) for one in commit_ids}

    def bury(self, project: str, commit_id: str, now: int) -> CommitStatus:
        key = keys.commit(project, commit_id)
        if self._table.put_if_absent(key, {"dead": 1, "at": now, "exp": self._expiry(now)}):
            return "dead"
        return _status(self._table.get(key))

    def take_over(
        self, project: str, marks: Mapping[str, Mark], commit_id: str, digests: Mapping[str, bytes], now: int
    ) -> set[str]:
        update = f'UPDATE "{self._table.name}" SET c = ? SET d = ? SET "at" = ? SET exp = ?'  # noqa: S608
        statement = f"{update} WHERE pk = ? AND sk = ? AND c = ?"
        expiry = self._expiry(now)
        outcome = self._table.statements(
            [
                (statement, (commit_id, digests[e], now, expiry, *keys.mark(project, e), mark.commit_id))
                for e, mark in marks.items()
            ]
        )
        taken = {event_id for event_id, code in zip(marks, outcome, strict=True) if code is None}
        # After a lost answer the SDK repeats the update and fails on its own write: the mark itself decides.
        unsure = [event_id for event_id in marks if event_id not in taken]
        held = self.marks(project, unsure) if unsure else {}
        return taken | {event_id for event_id, mark in held.items() if mark.commit_id == commit_id}

    # head and log
    def head(self, project: str) -> LogHead:
        row = self._table.get(keys.log_head(project)) or {}
        return LogHead(row.get("n", 0), row.get("folded", 0), row.get("folded_at", 0), used_of(row))

    def commit(self, project: str, commit: Commit) -> int:
        n = commit.head.n + 1
        plain, unpacked = segments.encode(commit.hot, commit.full, commit.events)
        body = self._sealer.seal(project, plain, *segment_place(commit.commit_id))
        row = self._log_row(commit) | {"size": len(body), "unpacked": unpacked}
        if len(body) > INLINE_BYTES:
            row["s3"] = segment_object(project, commit.at, body)
            self._bucket.put(row["s3"], body)
        else:
            row["body"] = body
        self._remember_sources(project, commit.events)
        expiry = self._expiry(commit.at)
        tiers: dict[str, int] = {}
        for event in commit.events:
            tiers[event["tier"]] = tiers.get(event["tier"], 0) + 1
        day, *used = commit.head.used
        today = max(day, keys.day(commit.at))  # a worker whose clock is behind counts for the day that has begun
        added = (len(commit.events), unpacked, sum(map(llm_tokens, commit.events)))
        counted = added if today > day else [one + more for one, more in zip(used, added, strict=True)]
        writes = [
            self._table.put_write(
                keys.commit(project, commit.commit_id),
                {"n": n, "at": commit.at, "exp": expiry},
                condition="attribute_not_exists(pk)",
            ),
            self._table.update_write(
                Update(
                    keys.log_head(project),
                    set={"n": n, "at": commit.at, "used": [today, *counted]}
                    | ({} if commit.head.n else {"folded_at": commit.at}),
                    add={"events": len(commit.events), **tiers},
                    condition="n = :n" if commit.head.n else "attribute_not_exists(n)",
                    values={"n": commit.head.n} if commit.head.n else {},
                )
            ),
            self._table.put_write(keys.log_row(project, n), row | {"exp": expiry}),
        ]
        if today > day > "":  # the head held the day before, which is over
            closed = Update(keys.usage(project, day), add=dict(zip(STORED, used, strict=True)))
            writes.append(self._table.update_write(closed))
        if commit.head.n == 0:
            writes.append(self._table.put_write(keys.known_project(project), {"at": commit.at}))
        try:
            self._table.transact(writes)
        except ConditionFailed as failure:
            if 0 in failure.positions:
                known = self._table.get(keys.commit(project, commit.commit_id)) or {}
                if "n" in known:
                    return int(known["n"])  # this attempt's own write, whose answer was lost
                raise CommitDead(commit.commit_id) from failure
            raise HeadMoved(project) from failure
        self._remember(project, commit.head, n, commit.hot, commit.full)
        due = commit.head.folded_at and commit.at - commit.head.folded_at > FOLD_AFTER_MS
        if (n - commit.head.folded >= FOLD_EVERY or due) and self._may_fold(project, commit.at):
            self._fold(project, LogHead(n, commit.head.folded), commit.at)
        return n

    def _may_fold(self, project: str, now: int) -> bool:
        """Whether this worker is the one to fold: one at a time, for as long as a fold may take."""
        try:
            self._table.update(
                Update(
                    keys.log_head(project),
                    set={"folding_until": now + _FOLD_LEASE_MS},
                    condition="attribute_not_exists(folding_until) OR folding_until < :now",
                    values={"now": now},
                )
            )
        except ConditionFailed:
            return False
        return True

    @staticmethod
    def _log_row(commit: Commit) -> Row:
        times = [event["ruling_ms"] for event in commit.events]
        facets: set[bytes] = set()
        for event in commit.events:
            facets |= facets_of(event)
            if len(facets) > MAX_FACETS:
                break
        row: Row = {
            "c": commit.commit_id,
            "at": commit.at,
            "trace": commit.trace_id,
            "count": len(commit.events),
            "t0": min(times),
            "t1": max(times),
            "versions": dict(commit.versions),
        }
        if len(facets) <= MAX_FACETS:
            row["facets"] = b"".join(sorted(facets))
        return row

    def _remember_sources(self, project: str, events: Sequence[Event]) -> None:
        """Add sources that the project's list may lack, a row each. They may be there before the commit is."""
        known = self._sources.get(project)
        if known is None:
            known = self._sources[project] = set(self.sources(project))
        fresh = sorted({event["source"] for event in events} - known)[: max(0, MAX_SOURCES - len(known))]
        self._table.put_all((keys.source(project, source), {"source": source}) for source in fresh)
        known.update(fresh)

    def sources(self, project: str) -> list[str]:
        """Sources seen in the project, for look-ups by a sender's id alone; at most MAX_SOURCES."""
        rows = self._table.query(keys.source_partition(project), limit=MAX_SOURCES)
        return sorted(row["source"] for row in rows)

    def refuse(self, project: str, event_id: str, digest: bytes, now: int, reason: str) -> None:
        row = {"event_id": event_id, "digest": digest.hex(), "at": now, "reason": reason, "exp": self._expiry(now)}
        key = keys.refusal(project, now, event_id, digest.hex())
        left = evidence.of_refusal(project, event_id, digest, reason, now)
        try:
            self._table.transact(
                [
                    self._table.put_write(key, row, condition="attribute_not_exists(pk)"),
                    *outbox_writes(self._table, [left], now),
                ]
            )
        except ConditionFailed:
            return  # it is on record already

    def rows(self, project: str, first: int, limit: int) -> list[tuple[int, Row]]:
        """Log rows first..first+limit-1 as far as they exist and have not expired."""
        found: list[tuple[int, Row]] = []
        now_s = clock.now_ms() // 1000
        for start in range(first // keys.LOG_BUCKET * keys.LOG_BUCKET, first + limit, keys.LOG_BUCKET):
            low = keys.log_row(project, max(first, start)).sk
            high = keys.log_row(project, min(first + limit, start + keys.LOG_BUCKET) - 1).sk
            page = self._table.query(keys.log_partition(project, start), low=low, high=high)
            # Expired rows linger for days after their objects were removed: for readers they are gone.
            found += [(int(row["sk"]), row) for row in page if row["exp"] > now_s]
        return found

    def rows_at(self, project: str, numbers: Collection[int]) -> dict[int, Row]:
        """Log rows of these numbers that exist and have not expired."""
        wanted = {keys.log_row(project, n): n for n in numbers}
        now_s = clock.now_ms() // 1000
        rows = self._table.batch_get(wanted)
        return {wanted[key]: row for key, row in rows.items() if row["exp"] > now_s}

    def bodies(self, project: str, rows: Sequence[Row]) -> list[bytes]:
        """Segment bytes of log rows, opened; those in S3 are fetched side by side."""
        remote = self._bucket.get_many([row["s3"] for row in rows if "s3" in row])
        fetched = iter(remote)
        sealed = [next(fetched) if "s3" in row else row["body"] for row in rows]
        pairs = zip(rows, sealed, strict=True)
        return [self._sealer.open(project, body, *segment_place(row["c"])) for row, body in pairs]

    def read(self, project: str, first: int, limit: int, max_bytes: int = MAX_READ_BYTES) -> list[LogEntry]:
        numbered: list[tuple[int, Row]] = []
        budget = max_bytes
        for n, row in self.rows(project, first, limit):
            budget -= row["unpacked"]
            if budget < 0 and numbered:
                break
            numbered.append((n, row))
        bodies = self.bodies(project, [row for _, row in numbered])
        return [
            LogEntry(n, row["c"], row["at"], row["trace"], segments.decode_events(body), row["versions"]["topology"])
            for (n, row), body in zip(numbered, bodies, strict=True)
        ]

    def history(self, project: str) -> Iterator[Recorded]:
        """Every commit that retention left, oldest first, with all it recorded."""
        head = self.head(project)
        for first in range(1, head.n + 1, _HISTORY_PAGE):
            rows = self.rows(project, first, min(_HISTORY_PAGE, head.n + 1 - first))
            for (n, row), body in zip(rows, self.bodies(project, [row for _, row in rows]), strict=True):
                hot, full = segments.states_of(body)
                yield Recorded(n, row["at"], segments.decode_events(body), hot, full, row["versions"])

    # series states
    def states(
        self, project: str, head: LogHead, hot: Collection[bytes], full: Collection[bytes]
    ) -> tuple[Mapping[bytes, bytes], Mapping[bytes, bytes]]:
        warm = self._catch_up(project, head)
        self._fetch(project, warm, hot, full)
        found_hot = {}
        for key in hot:
            state = warm.hot.get(key) or warm.buckets.get(_bucket(key), {}).get(key)
            if state is not None:
                found_hot[key] = state
        found_full = {}
        for key in full:
            state = warm.full.get(key) or warm.singles.get(key)
            if state is not None:
                found_full[key] = state
        return found_hot, found_full

    def _catch_up(self, project: str, head: LogHead) -> _Warm:
        """Deltas of all commits since the last fold, replayed from the log where this process has not seen them."""
        warm = self._warm.get(project)
        if warm is None or warm.n > head.n or warm.n < head.folded:
            warm = self._warm[project] = _Warm(head.folded)
        if warm.size > _CACHED_STATES:  # what was fetched can be fetched again; what was replayed must stay
            warm.buckets, warm.singles = {}, {}
        self._warm.move_to_end(project)
        while len(self._warm) > _CACHED_PROJECTS:
            self._warm.popitem(last=False)
        if warm.n < head.n:
            numbered = self.rows(project, warm.n + 1, head.n - warm.n)
            for body in self.bodies(project, [row for _, row in numbered]):
                hot, full = segments.states_of(body)
                warm.hot.update(hot)
                warm.full.update(full)
            warm.n = head.n
        return warm

    def _fetch(self, project: str, warm: _Warm, hot: Collection[bytes], full: Collection[bytes]) -> None:
        """Rows behind keys that no delta answers. A row that was folded later than the deltas is equal to them."""
        buckets = {_bucket(key) for key in hot if key not in warm.hot} - warm.buckets.keys()
        singles = {key for key in full if key not in warm.full} - warm.singles.keys()
        by_bucket = {keys.state_bucket(project, bucket): bucket for bucket in buckets}
        by_single = {keys.full_state(project, key): key for key in singles}
        rows = self._table.batch_get([*by_bucket, *by_single])
        for row_key, bucket in by_bucket.items():
            warm.buckets[bucket] = _unpack_bucket(rows[row_key]["z"]) if row_key in rows else {}
        for row_key, single in by_single.items():
            warm.singles[single] = zlib.decompress(rows[row_key]["z"]) if row_key in rows else None

    def _remember(
        self, project: str, head: LogHead, n: int, hot: Mapping[bytes, bytes], full: Mapping[bytes, bytes]
    ) -> None:
        warm = self._warm.get(project)
        if warm is not None and warm.n == head.n:
            warm.hot.update(hot)
            warm.full.update(full)
            warm.n = n

    def _fold(self, project: str, head: LogHead, now: int) -> None:
        """Write the deltas since the last fold into their buckets."""
        warm = self._catch_up(project, head)
        today = now // clock.DAY
        statements: list[tuple[str, tuple[Any, ...]]] = []
        by_bucket: dict[int, States] = {}
        for key, state in warm.hot.items():
            by_bucket.setdefault(_bucket(key), {})[key] = state
        rows = self._table.batch_get(
            [keys.state_bucket(project, bucket) for bucket in by_bucket]
            + [keys.full_state(project, key) for key in warm.full]
        )
        for bucket, changed in by_bucket.items():
            row_key = keys.state_bucket(project, bucket)
            old = rows.get(row_key)
            kept = _unpack_bucket(old["z"], with_days=True) if old else {}
            kept = {k: v for k, v in kept.items() if int.from_bytes(v[:3], "big") > today - STATE_DAYS}
            kept.update({k: today.to_bytes(3, "big") + v for k, v in changed.items()})
            statements.append(self._fold_statement(row_key, old, _pack_bounded(kept), head.n))
        for key, state in warm.full.items():
            row_key = keys.full_state(project, key)
            statements.append(self._fold_statement(row_key, rows.get(row_key), zlib.compress(state, 3), head.n))
        if any(self._table.statements(statements)):
            return
        try:
            self._table.update(
                Update(
                    keys.log_head(project),
                    set={"folded": head.n, "folded_at": now, "folding_until": 0},
                    condition="folded = :old" if head.folded else "attribute_not_exists(folded)",
                    values={"old": head.folded} if head.folded else {},
                )
            )
        except ConditionFailed:
            return
        self._warm.pop(project, None)

    def _fold_statement(self, key: Key, old: Row | None, data: bytes, n: int) -> tuple[str, tuple[Any, ...]]:
        """A write that holds only if the row is as it was read, so that a slow fold cannot undo a newer one."""
        expiry = self._expiry(clock.now_ms())
        if old is None:
            values = f"INSERT INTO \"{self._table.name}\" VALUE {{'pk': ?, 'sk': ?, 'z': ?, 'm': ?, 'exp': ?}}"
            return values, (*key, data, n, expiry)
        return (
            f'UPDATE "{self._table.name}" SET z = ? SET m = ? SET exp = ? WHERE pk = ? AND sk = ? AND m = ?',  # noqa: S608
            (data, n, expiry, *key, old["m"]),
        )


def _status(row: Row | None) -> CommitStatus:
    if row is None:
        return "absent"
    return "committed" if "n" in row else "dead"


def _bucket(key: bytes) -> int:
    return key[0] % keys.STATE_BUCKETS


def _pack_bucket(states: States) -> bytes:
    parts = []
    for key, state in sorted(states.items()):
        parts += [key, len(state).to_bytes(2, "big"), state]
    return zlib.compress(b"".join(parts), 3)


def _pack_bounded(states: States) -> bytes:
    """A packed bucket that fits its row: the states that were touched longest ago go first."""
    packed = _pack_bucket(states)
    while len(packed) > _BUCKET_BYTES:
        newest = sorted(states.items(), key=lambda item: item[1][:3], reverse=True)
        states = dict(newest[: len(newest) * 3 // 4])
        packed = _pack_bucket(states)
    return packed


def _unpack_bucket(data: bytes, *, with_days: bool = False) -> States:
    """States of a bucket; each is stored behind the day (3 bytes) on which it was last folded."""
    raw = zlib.decompress(data)
    states: States = {}
    at = 0
    while at < len(raw):
        key, length = raw[at : at + 8], int.from_bytes(raw[at + 8 : at + 10], "big")
        state = raw[at + 10 : at + 10 + length]
        states[key] = state if with_days else state[3:]
        at += 10 + length
    return states
