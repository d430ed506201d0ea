"""What decisions keep, in the table and the bucket; implements the ports of tocsin.decisions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from tocsin.aws import evidence, keys
from tocsin.aws.bucket import Bucket
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.rows import open_row, seal_row
from tocsin.aws.table import ConditionFailed, Row, Table, Update, Write
from tocsin.decisions.control import Breaker, Budget, Hold, Monitor, Retries, Watch, Window
from tocsin.decisions.ports import Decided, Deed, Step, Taken, decision_ids
from tocsin.decisions.routing import Health, health_of
from tocsin.kernel import clock
from tocsin.kernel.envelope import pack, unpack
from tocsin.kernel.errors import Detail, Refusal, Retry
from tocsin.kernel.sealing import Sealer

#: Sealed bytes of one row; DynamoDB takes 400 KB.
MAX_ROW: Final = 350_000
#: Bytes of registry objects that a process remembers; they never change.
_REMEMBERED: Final = 32 * 1024 * 1024
#: How often a health document that is still decided by is kept anew, so that it outlives those decisions.
_RENEWED: Final = clock.DAY
#: How long the answer of a call is remembered, in ms.
_CALL_LIFE: Final = clock.DAY
_TRIES: Final = 16


class RegistryObjects:
    """Implements SnapshotStore for one project: objects under registry/<project>/, never changed, kept as long as the
    project, because the current snapshot may stand on an old one.
    """

    def __init__(self, bucket: Bucket, project: str) -> None:
        self._bucket, self._prefix = bucket, f"registry/{project}/"
        self._known: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def get(self, name: str) -> bytes | None:
        if name in self._known:
            self._known.move_to_end(name)
            return self._known[name]
        data = self._bucket.find(self._prefix + name)
        if data is not None:
            self._remember(name, data)
        return data

    def create(self, name: str, data: bytes) -> None:
        self._bucket.put(self._prefix + name, data)
        self._remember(name, data)

    def _remember(self, name: str, data: bytes) -> None:
        self._size += len(data) - len(self._known.pop(name, b""))
        self._known[name] = data
        while self._size > _REMEMBERED:
            self._size -= len(self._known.popitem(last=False)[1])


class DynamoPointer:
    """Implements Pointer for one project: a row whose version is the token.

    `table` must stand on a client that asks once and briefly (clients.prompt): then a swap takes effect within seconds
    or never.
    """

    def __init__(self, table: Table, project: str) -> None:
        self._table, self._project, self._key = table, project, keys.registry(project)

    def read(self) -> tuple[bytes | None, str]:
        row = self._table.get(self._key)
        return (row["data"], str(row["version"])) if row else (None, "0")

    def swap(self, data: bytes, token: str, deed: Deed | None = None) -> bool:
        now, known = clock.now_ms(), int(token)
        condition = "version = :known" if known else "attribute_not_exists(pk)"
        row = {"data": data, "version": known + 1, "at": now}
        writes = [self._table.put_write(self._key, row, condition=condition, **({"known": known} if known else {}))]
        if deed is not None:
            writes += outbox_writes(self._table, [evidence.of_deed(self._project, deed, data, now)], now)
            if deed.sort == "policy":
                kept = keys.policy(self._project, deed.content["version"])
                writes.append(self._table.put_write(kept, {"z": pack(deed.content), "at": now}))
        try:
            self._table.transact(writes, tries=1)
        except ConditionFailed:
            return False
        except Retry:
            held, version = self.read()
            if held == data:  # ours, whose answer was lost
                return True
            if version == token:
                raise  # nobody knows yet
            return False
        return True

    def policies(self, before: int | None, limit: int) -> list[Row]:
        """Kept policies, newest first: version, policy, at (Unix ms)."""
        high = None if before is None else keys.policy(self._project, before - 1).sk
        rows = self._table.query(keys.policy_partition(self._project), high=high, newest_first=True, limit=limit)
        return [{"version": int(row["sk"]), "policy": unpack(row["z"]), "at": row["at"]} for row in rows]


class DynamoControl:
    """Implements ControlStore for one project: a row per service, and one for the latest health document."""

    def __init__(self, table: Table, project: str) -> None:
        self._table, self._project = table, project

    def watches(self) -> Mapping[str, Watch]:
        rows = self._table.query(keys.service_partition(self._project), consistent=False)
        return {row["sk"]: _watch(row) for row in rows}

    def beat(self, service: str, at_ms: int) -> None:
        condition = "attribute_not_exists(beat) OR beat < :at"
        try:
            self._table.update(
                Update(keys.service(self._project, service), {"beat": at_ms}, condition=condition, values={"at": at_ms})
            )
        except ConditionFailed:
            return  # a later one was faster

    def health(self) -> Health:
        row = self._table.get(keys.latest_health(self._project))
        return health_of(unpack(row["z"])) if row else Health()

    def advance(self, health: Health) -> bool:
        now, before = clock.now_ms(), health.epoch - 1
        condition = "epoch = :before" if before else "attribute_not_exists(pk)"
        row = {"epoch": health.epoch, "z": pack(health.document), "at": now}
        key, known = keys.latest_health(self._project), {"before": before} if before else {}
        left = evidence.of_health(self._project, health, now)
        try:
            self._table.transact(
                [
                    self._table.put_write(key, row, condition=condition, **known),
                    *outbox_writes(self._table, [left], now),
                ]
            )
        except ConditionFailed:
            return False
        return True


def _watch(row: Row) -> Watch:
    if "z" not in row:
        return Watch(row["beat"])
    held = unpack(row["z"])
    return Watch(
        row.get("beat", 0),
        Breaker(**held["breaker"]),
        Monitor(**held["monitor"]) if held["monitor"] else None,
        Window(**held["window"]),
        Retries(**held["retries"]),
        held["running"],
    )


class DynamoCalls:
    """Implements Calls for one project: a row per call, sealed; watch and budget change together or not at all."""

    def __init__(self, table: Table, sealer: Sealer, project: str) -> None:
        self._table, self._sealer, self._project = table, sealer, project

    def claim(self, call_id: str, digest: str, until_ms: int) -> Mapping[str, Any] | None:
        key, now = keys.call(self._project, call_id), clock.now_ms()
        row = {"digest": digest, "ends": until_ms, "exp": (now + _CALL_LIFE) // 1000}
        free = "attribute_not_exists(pk) OR (attribute_not_exists(z) AND digest = :digest AND ends < :now)"
        try:
            self._table.put(key, row, condition=free, digest=digest, now=now)
        except ConditionFailed:
            held = self._table.get(key) or {}
            if held.get("digest", digest) != digest:
                detail = Detail("call_id", "same-call", "give another call another id")
                raise Refusal("ERR_IDEMPOTENCY_MISMATCH", "The id was used for another call.", [detail]) from None
            if "z" in held:
                known: Mapping[str, Any] = open_row(self._sealer, self._project, held)
                return known
            detail = Detail("call_id", "running", "ask again when it is over")
            raise Refusal("ERR_CONFLICT", "The call still runs.", [detail]) from None
        return None

    def answer(self, call_id: str, answer: Mapping[str, Any], spent_pusd: int) -> None:
        key, now = keys.call(self._project, call_id), clock.now_ms()
        self._table.transact(
            [
                self._table.update_write(Update(key, {"z": seal_row(self._sealer, self._project, key, answer)})),
                *outbox_writes(self._table, [evidence.of_call(self._project, call_id, answer, now)], now),
            ]
        )
        # Apart from it: all calls of a day meet in this row, and a call whose answer is not kept might be made again.
        used = {"calls": 1, "call_cost_pusd": spent_pusd}
        self._table.update(Update(keys.usage(self._project, keys.day(now)), add=used))

    def take(self, service: str, step: Step) -> Taken:
        for _ in range(_TRIES):
            watched, spending = keys.service(self._project, service), keys.spending(self._project)
            rows = self._table.batch_get([watched, spending])
            seen, money = rows.get(watched, {}), rows.get(spending, {})
            taken = step(_watch(seen) if seen else Watch(0), _budget(money))
            if taken.refused is not None or taken.watch is None or taken.budget is None:
                return taken
            state = {name: getattr(taken.watch, name) for name in ("breaker", "monitor", "window", "retries")}
            held = {name: one and asdict(one) for name, one in state.items()} | {"running": dict(taken.watch.running)}
            writes = [_changed(self._table, watched, seen, held)]
            if taken.budget != _budget(money):
                writes.append(_changed(self._table, spending, money, _kept(taken.budget)))
            try:
                self._table.transact(writes)
            except ConditionFailed:
                continue
            return taken
        raise Retry("others keep calling")

    def incumbent(self, lane: str) -> str | None:
        row = self._table.get(keys.incumbent(self._project, lane), consistent=False)
        return str(row["service"]) if row else None

    def set_incumbent(self, lane: str, service: str) -> None:
        row = {"service": service, "exp": (clock.now_ms() + _CALL_LIFE) // 1000}
        self._table.put(keys.incumbent(self._project, lane), row)

    def budget(self) -> Budget:
        return _budget(self._table.get(keys.spending(self._project)) or {})

    def set_limit(self, limit_pusd: int) -> Budget:
        key = keys.spending(self._project)
        for _ in range(_TRIES):
            row, now = self._table.get(key) or {}, clock.now_ms()
            after = replace(_budget(row), limit=limit_pusd)
            left = evidence.of_limit(self._project, limit_pusd, row.get("v", 0) + 1, now)
            try:
                writes = [_changed(self._table, key, row, _kept(after)), *outbox_writes(self._table, [left], now)]
                self._table.transact(writes)
            except ConditionFailed:
                continue
            return after
        raise Retry("others keep calling")


def _changed(table: Table, key: keys.Key, before: Row, state: Mapping[str, Any]) -> Write:
    """Member of a transaction that changes a row's state if it is still as it was read."""
    known = before.get("v", 0)
    condition = "v = :known" if known else "attribute_not_exists(v)"
    values = {"known": known} if known else {}
    return table.update_write(Update(key, {"z": pack(state), "v": known + 1}, condition=condition, values=values))


def _kept(budget: Budget) -> dict[str, Any]:
    return {"month": _month(), **asdict(budget)}


def _budget(row: Row) -> Budget:
    """The budget of the current month; with no row nothing may be spent."""
    if not row:
        return Budget(0)
    held = unpack(row["z"])
    holds = {name: Hold(**one) for name, one in held["holds"].items()}
    return Budget(held["limit"], held["spent"] if held["month"] == _month() else 0, holds)


def _month() -> str:
    return keys.day(clock.now_ms())[:6]


class DynamoDecisionLog:
    """Implements DecisionLog for one project: a row per batch, sealed with the project's data key, gone after the
    deployment's retention.
    """

    def __init__(self, table: Table, sealer: Sealer, project: str, *, retention_days: int) -> None:
        self._table, self._sealer, self._project = table, sealer, project
        self._retention = retention_days * clock.DAY
        self._renewed: dict[str, int] = {}

    def writes(self, batch_id: str, decided: Sequence[Decided], now: int) -> list[Write]:
        """Members of a transaction that keep decisions and leave their evidence: for who decides and acts at once."""
        key = keys.decisions(self._project, batch_id)
        sealed = seal_row(self._sealer, self._project, key, [[one.receipt, one.request] for one in decided])
        if len(sealed) > MAX_ROW:
            fix = "ask for fewer decisions at once, or describe the types shorter"
            raise Refusal("ERR_BATCH_TOO_LARGE", "The requests are too large.", [Detail("(body)", "bytes", fix)])
        left = evidence.of_decisions(self._project, batch_id, [one.receipt for one in decided], now)
        row = {"z": sealed, "exp": (now + self._retention) // 1000}
        return [self._table.put_write(key, row), *outbox_writes(self._table, [left], now)]

    def append(self, batch_id: str, decided: Sequence[Decided]) -> None:
        self._table.transact(self.writes(batch_id, decided, clock.now_ms()))

    def get(self, decision_id: str) -> Decided | None:
        return self.together(decision_id.partition("-n")[0]).get(decision_id)

    def together(self, batch_id: str) -> Mapping[str, Decided]:
        row = self._table.get(keys.decisions(self._project, batch_id))
        if row is None:
            return {}
        kept = [Decided(*one) for one in open_row(self._sealer, self._project, row)]
        return dict(zip(decision_ids(batch_id, len(kept)), kept, strict=True))

    def put_health(self, digest: str, health: Mapping[str, Any]) -> None:
        now = clock.now_ms()
        if now - self._renewed.get(digest, 0) < _RENEWED:
            return
        key = keys.decided_health(self._project, digest)
        sealed = seal_row(self._sealer, self._project, key, health)
        self._table.put(key, {"z": sealed, "exp": (now + 2 * _RENEWED + self._retention) // 1000})
        if len(self._renewed) >= 256:
            self._renewed.clear()
        self._renewed[digest] = now

    def health(self, digest: str) -> Mapping[str, Any] | None:
        row = self._table.get(keys.decided_health(self._project, digest))
        return open_row(self._sealer, self._project, row) if row else None
