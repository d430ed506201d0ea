"""What the supervisor watches, repairs and remembers, on AWS; implements tocsin.defense.ports.

Also here: heartbeats and leases that periodic workers write, and the healing records that the API lists.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from tocsin.api.ports import Page
from tocsin.aws import evidence, keys
from tocsin.aws.dead_letters import DeadLetters, dead_letter_url
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.queues import Queue, SealedQueue
from tocsin.aws.table import ConditionFailed, Table
from tocsin.defense.ports import Depth, Json, Lag, Lease, Memory, Schedule, SourceMapping
from tocsin.kernel import clock, ids
from tocsin.kernel.envelope import Envelope
from tocsin.kernel.errors import Retry

#: A run that holds the memory longer than this is taken for dead; a run takes well under a second.
MEMORY_LEASE_MS: Final = 10 * clock.SECOND
#: How far back healing records are listed and kept.
HEALING_DAYS: Final = 31
_HEALING_LIFE_S: Final = (HEALING_DAYS + 1) * clock.DAY // 1000


@contextmanager
def _answered(what: str) -> Iterator[None]:
    """Turns trouble of the service behind a look or a repair into Retry."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise Retry(f"{what}: {code}") from error


class StackWatch:
    """Everything that is watched in one stack; implements Surroundings.

    `queues` are the work queues by name; each feeds the function `<stack>-<name>`. `rules` are rule names
    with their bus (None: the default bus).
    """

    def __init__(
        self,
        stack: str,
        queues: Mapping[str, Queue],
        rules: Mapping[str, str | None],
        table: Table,
        client: Callable[[str], Any],
    ) -> None:
        self._prefix = f"{stack}-"
        self._queues = queues
        self._rules = rules
        self._table = table
        self._client = client
        self._dead: dict[str, Queue] = {}

    def mappings(self) -> Sequence[SourceMapping]:
        found = []
        with _answered("event source mappings"):
            pages = self._client("lambda").get_paginator("list_event_source_mappings").paginate()
            for page in pages:
                for one in page["EventSourceMappings"]:
                    function = one["FunctionArn"].split(":function:", 1)[-1].split(":")[0]
                    if function.startswith(self._prefix):
                        changed = one.get("LastModified")
                        at = int(changed.timestamp() * 1000) if changed else None
                        name = function.removeprefix(self._prefix)
                        found.append(SourceMapping(name, one["UUID"], one["State"], at))
        missing = self._queues.keys() - {mapping.name for mapping in found}
        return found + [SourceMapping(name, "", "Missing") for name in sorted(missing)]

    def schedules(self) -> Sequence[Schedule]:
        return [Schedule(name, self._rule_state(name, bus), bus) for name, bus in self._rules.items()]

    def _rule_state(self, name: str, bus: str | None) -> str:
        with _answered(f"rule {name}"):
            events = self._client("events")
            try:
                return str(events.describe_rule(Name=name, **({"EventBusName": bus} if bus else {}))["State"])
            except events.exceptions.ResourceNotFoundException:
                return "MISSING"

    def queues(self) -> Mapping[str, Depth]:
        return {name: self._depth(name, queue) for name, queue in self._queues.items()}

    def dead_letters(self) -> Mapping[str, Depth]:
        return {name: self._depth(f"{name} dead letters", self._dead_queue(name)) for name in self._queues}

    def _dead_queue(self, name: str) -> Queue:
        if name not in self._dead:
            with _answered(f"queue {name}"):
                url = dead_letter_url(self._client("sqs"), self._queues[name].url)
            self._dead[name] = Queue(self._client("sqs"), url)
        return self._dead[name]

    def _depth(self, name: str, queue: Queue) -> Depth:
        with _answered(f"queue {name}"):
            counts = queue.attributes()
        return Depth(counts["visible"], counts["in_flight"])

    def beats(self) -> Mapping[str, int]:
        with _answered("heartbeats"):
            return {row["sk"]: row["at"] for row in self._table.query(keys.heartbeat("any").pk)}

    def lags(self, position: str | None, limit: int) -> tuple[Sequence[Lag], str | None]:
        with _answered("projects"):
            # A low bound is inclusive; no project name holds a space, so this begins right behind `position`.
            low = f"{position} " if position else None
            rows = list(self._table.query(keys.known_project("any").pk, low=low, limit=limit))
            projects = [row["sk"] for row in rows]
            wanted = [key(one) for one in projects for key in (keys.log_head, keys.cursor)]
            heads = self._table.batch_get(wanted)
        found = []
        for project in projects:
            head = heads.get(keys.log_head(project), {}).get("n", 0)
            found.append(Lag(project, head, heads.get(keys.cursor(project), {}).get("n", 1)))
        return found, projects[-1] if len(projects) == limit else None

    def leases(self) -> Sequence[Lease]:
        with _answered("leases"):
            rows = list(self._table.query(keys.lease("any").pk))
        return [Lease(row["sk"], row["holder"], row["until"], row["version"]) for row in rows]


class StackRepairs:
    """What may be done; implements Repairs. `ticked` are the queues that take ticks, by name; `letters` gives the dead
    letters of a queue.
    """

    def __init__(
        self,
        ticked: Mapping[str, Queue],
        correlate: Queue,
        leases: Leases,
        client: Callable[[str], Any],
        letters: Callable[[str], DeadLetters],
    ) -> None:
        self._letters = letters
        self._ticked = ticked
        self._correlate = correlate
        self._leases = leases
        self._client = client

    def enable_mapping(self, mapping: SourceMapping) -> None:
        with _answered(f"mapping of {mapping.name}"):
            self._client("lambda").update_event_source_mapping(UUID=mapping.uuid, Enabled=True)

    def enable_schedule(self, schedule: Schedule) -> None:
        with _answered(f"rule {schedule.name}"):
            bus = {"EventBusName": schedule.bus} if schedule.bus else {}
            self._client("events").enable_rule(Name=schedule.name, **bus)

    def wake(self, project: str) -> None:
        self._correlate.send({"wake": {"project": project}})

    def tick(self, queue: str, delays_s: Sequence[int], now: int) -> None:
        with _answered(f"ticks for {queue}"):
            self._ticked[queue].send_many([({"tick": {"at": now + delay * clock.SECOND}}, delay) for delay in delays_s])

    def release(self, lease: Lease) -> bool:
        return self._leases.release(lease)

    def replay(self, queue: str, limit: int, before: int) -> int:
        with _answered(f"dead letters of {queue}"):
            return self._letters(queue).replay(limit, sent_before=before)


class Leases:
    """Rows that let one worker at a time do a piece of work. A lease past its end may be taken by anybody."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def take(self, name: str, holder: str, now: int, length_ms: int) -> Lease | None:
        """The lease, or None while another holder has it."""
        key = keys.lease(name)
        row = self._table.get(key)
        if row is not None and row["until"] > now:
            return None
        lease = Lease(name, holder, now + length_ms, (row["version"] if row else 0) + 1)
        content = {"holder": holder, "until": lease.until, "version": lease.version}
        try:
            if row is None:
                self._table.put(key, content, condition="attribute_not_exists(pk)")
            else:
                self._table.put(key, content, condition="version = :version", version=row["version"])
        except ConditionFailed:
            return None
        return lease

    def release(self, lease: Lease) -> bool:
        """False when somebody else has taken it meanwhile."""
        with _answered(f"lease {lease.name}"):
            try:
                self._table.delete(keys.lease(lease.name), condition="version = :version", version=lease.version)
            except ConditionFailed:
                return False
        return True


class Heartbeats:
    """Periodic workers say here that a run has ended well."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def beat(self, name: str, now: int) -> None:
        self._table.put(keys.heartbeat(name), {"at": now})


class TableMemory:
    """The supervisor's memory in one row, fenced by its version; implements MemoryStore."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._key = keys.watch("supervisor")

    def take(self, now: int) -> Memory | None:
        row = self._table.get(self._key)
        if row is not None and row["until"] > now:
            return None
        memory = _memory(row["memory"]) if row else Memory()
        version = row["version"] if row else 0
        if not self._put(memory, version, version + 1, now + MEMORY_LEASE_MS):
            return None
        memory.version = version + 1
        return memory

    def give_back(self, memory: Memory) -> None:
        # When this fails, another run took the memory after the lease had ended, and that run's is newer.
        self._put(memory, memory.version, memory.version + 1, 0)

    def _put(self, memory: Memory, before: int, after: int, until: int) -> bool:
        row = {"memory": json.dumps(asdict(memory), separators=(",", ":")), "version": after, "until": until}
        try:
            if before:
                self._table.put(self._key, row, condition="version = :version", version=before)
            else:
                self._table.put(self._key, row, condition="attribute_not_exists(pk)")
        except ConditionFailed:
            return False
        return True


def _memory(text: str) -> Memory:
    """A memory as an older or newer version may have written it: unknown parts are dropped, missing ones are
    empty.
    """
    kept: Mapping[str, Any] = json.loads(text)
    return Memory(**{field.name: kept[field.name] for field in fields(Memory) if field.name in kept})


class Healings:
    """The supervisor's records, one row each, in a partition per day."""

    def __init__(self, table: Table, now: Callable[[], int] = clock.now_ms) -> None:
        self._table = table
        self._now = now

    def record(self, healing: Mapping[str, Any]) -> None:
        """Write or replace the record of `healing["id"]`."""
        at, now = ids.id_time_ms(healing["id"]), self._now()
        row = {"record": dict(healing), "exp": at // 1000 + _HEALING_LIFE_S}
        left = evidence.of_healing(healing, now)
        with _answered("healing record"):
            write = self._table.put_write(keys.healing(at, healing["id"]), row)
            self._table.transact([write, *outbox_writes(self._table, [left], now)])

    def page(self, position: Any, limit: int) -> Page[Json]:
        """Newest first, from `position` (the sort key of the last one shown; None: the newest)."""
        items: list[Json] = []
        newest = self._now() if position is None else int(str(position).partition("#")[0])
        oldest = self._now() - HEALING_DAYS * clock.DAY
        last = None
        for at in range(newest, oldest, -clock.DAY):
            day = keys.healing_partition(keys.day(at))
            # Keys end in an id in hex, so "position without its last character" sorts just below it.
            high = position[:-1] if position is not None and keys.day(newest) == keys.day(at) else None
            for row in self._table.query(day, high=high, newest_first=True, limit=limit + 1 - len(items)):
                if len(items) == limit:
                    return Page(items, last, limit)
                items.append(row["record"])
                last = row["sk"]
        return Page(items, None, len(items))


class OwnEvents:
    """Puts the supervisor's events on the score queue of the operators' project; implements EventSink.

    `project` names that project, or answers "" while there is none: then the healing records alone tell.
    """

    def __init__(self, queue: Callable[[], SealedQueue], project: Callable[[], str]) -> None:
        self._queue = queue
        self._project = project

    def send(self, event: Mapping[str, Any], now: int) -> None:
        from tocsin.signals import events  # pydantic costs 90 ms, and nearly every run has nothing to say

        with _answered("own event"):
            project = self._project()
            if not project:
                return
            valid = events.validate(dict(event))
            digest = hashlib.sha256(events.sent_bytes(valid)).digest()[:16].hex()
            event_id = ids.event_id(project, valid["source"], valid["id"])
            trace_id = event_id.removeprefix("evt_")
            events.stamp(valid, project=project, event_id=event_id, trace_id=trace_id, received_at=now)
            payload = {"events": [valid], "digests": [digest]}
            self._queue().send(Envelope("events", ids.new_id("env", now), project, trace_id, now, payload))


def ops_project(table: Table) -> str:
    """The project that the bootstrap named for the supervisor's own events, or ""."""
    row = table.get(keys.ops_project())
    return str(row["project"]) if row else ""
