"""The one DynamoDB table: typed rows in and out, bounded retries, and failed conditions read position by position."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from botocore.exceptions import ClientError

from tocsin.aws.clients import attempt
from tocsin.aws.keys import Key
from tocsin.kernel.errors import Retry

Row = dict[str, Any]
Page = TypeVar("Page")
Result = TypeVar("Result")
#: DynamoDB's own limits per call.
MAX_TRANSACTION: Final = 100
MAX_BATCH_GET: Final = 100
MAX_BATCH_WRITE: Final = 25
MAX_STATEMENTS: Final = 25
_ATTEMPTS: Final = 6


class ConditionFailed(Exception):
    """A write's condition did not hold. `positions` are the failing members of a transaction (0 for a single write)."""

    def __init__(self, positions: Sequence[int]) -> None:
        super().__init__(f"condition failed at {list(positions)}")
        self.positions = tuple(positions)


def to_attribute(value: Any) -> dict[str, Any]:
    """A Python value as a DynamoDB attribute; numbers keep their shortest round-trip text."""
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int):
        return {"N": str(value)}
    if isinstance(value, float):
        return {"N": repr(value)}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"B": bytes(value)}
    if isinstance(value, Mapping):
        return {"M": {key: to_attribute(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return {"L": [to_attribute(item) for item in value]}
    raise TypeError(f"{type(value).__name__} has no DynamoDB form")


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def from_attribute(attribute: Mapping[str, Any]) -> Any:
    """Inverse of to_attribute."""
    ((kind, value),) = attribute.items()
    match kind:
        case "S" | "BOOL":
            return value
        case "B":
            return bytes(value)
        case "N":
            return _number(value)
        case "NULL":
            return None
        case "M":
            return {key: from_attribute(item) for key, item in value.items()}
        case "L":
            return [from_attribute(item) for item in value]
        case "SS":
            return set(value)
    raise TypeError(f"attribute type {kind} is not used here")


def to_item(key: Key, row: Mapping[str, Any]) -> dict[str, Any]:
    return {"pk": {"S": key.pk}, "sk": {"S": key.sk}, **{name: to_attribute(value) for name, value in row.items()}}


def from_item(item: Mapping[str, Any]) -> Row:
    return {name: from_attribute(value) for name, value in item.items()}


@dataclass(slots=True)
class Write:
    """One member of a transaction."""

    operation: dict[str, Any]


@dataclass(slots=True)
class Update:
    """An UpdateItem expression built from plain assignments; values are always bound, never spliced."""

    key: Key
    set: Mapping[str, Any] = field(default_factory=dict)
    add: Mapping[str, int] = field(default_factory=dict)
    remove: Sequence[str] = ()
    condition: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


class Table:
    """Reads and writes of one table through the low-level client."""

    def __init__(self, client: Any, name: str, pause: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self.name = name
        self._pause = pause

    # reads
    def get(self, key: Key, *, consistent: bool = True) -> Row | None:
        answer = attempt(self._client.get_item, TableName=self.name, Key=_key(key), ConsistentRead=consistent)
        item = answer.get("Item")
        return from_item(item) if item else None

    def batch_get(self, keys: Iterable[Key], *, consistent: bool = True) -> dict[Key, Row]:
        """Rows that exist among `keys`, whatever their number; several calls run side by side."""
        wanted = list(dict.fromkeys(keys))
        pages = [wanted[i : i + MAX_BATCH_GET] for i in range(0, len(wanted), MAX_BATCH_GET)]
        found: dict[Key, Row] = {}
        for result in _side_by_side(lambda page: self._get_page(page, consistent), pages):
            found.update(result)
        return found

    def _get_page(self, keys: Sequence[Key], consistent: bool) -> dict[Key, Row]:
        request = {self.name: {"Keys": [_key(key) for key in keys], "ConsistentRead": consistent}}
        found: dict[Key, Row] = {}
        for turn in range(_ATTEMPTS):
            answer = attempt(self._client.batch_get_item, RequestItems=request)
            for item in answer["Responses"].get(self.name, ()):
                row = from_item(item)
                found[Key(row["pk"], row["sk"])] = row
            request = answer.get("UnprocessedKeys") or {}
            if not request:
                return found
            self._backoff(turn)
        raise Retry("table reads are throttled")

    def query(
        self,
        pk: str,
        *,
        low: str | None = None,
        high: str | None = None,
        prefix: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        consistent: bool = True,
    ) -> Iterator[Row]:
        """Rows of one partition in sort-key order, `low` and `high` inclusive; pages are fetched as needed."""
        condition, values = "pk = :pk", {":pk": {"S": pk}}
        if prefix is not None:
            condition += " AND begins_with(sk, :prefix)"
            values[":prefix"] = {"S": prefix}
        elif low is not None and high is not None:
            condition += " AND sk BETWEEN :low AND :high"
            values |= {":low": {"S": low}, ":high": {"S": high}}
        elif low is not None:
            condition += " AND sk >= :low"
            values[":low"] = {"S": low}
        elif high is not None:
            condition += " AND sk <= :high"
            values[":high"] = {"S": high}
        request: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "ScanIndexForward": not newest_first,
            "ConsistentRead": consistent,
        }
        left = limit
        while True:
            if left is not None:
                request["Limit"] = left
            answer = attempt(self._client.query, **request)
            for item in answer["Items"]:
                yield from_item(item)
            if left is not None:
                left -= len(answer["Items"])
                if left <= 0:
                    return
            if not answer.get("LastEvaluatedKey"):
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def scan(
        self, prefix: str, *, after: Key | None = None, only: Sequence[str] = (), limit: int = 1_000
    ) -> tuple[list[Row], Key | None]:
        """A page of rows whose partition begins with `prefix`, and where the next page begins (None: the end).

        Reads the whole table in the end, `limit` rows or 1 MB at a time: for work on everything that a project holds,
        which nothing else finds. `only` names attributes to fetch beside the key.
        """
        request: dict[str, Any] = {
            "TableName": self.name,
            "FilterExpression": "begins_with(pk, :prefix)",
            "ExpressionAttributeValues": {":prefix": {"S": prefix}},
            "Limit": limit,
            "ConsistentRead": True,
        }
        if only:
            names = {f"#{name}": name for name in ("pk", "sk", *only)}
            request |= {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}
        if after:
            request["ExclusiveStartKey"] = _key(after)
        answer = attempt(self._client.scan, **request)
        last = answer.get("LastEvaluatedKey")
        return [from_item(item) for item in answer["Items"]], Key(last["pk"]["S"], last["sk"]["S"]) if last else None

    # single writes
    def put(self, key: Key, row: Mapping[str, Any], *, condition: str | None = None, **values: Any) -> None:
        self._single("put_item", self.put_write(key, row, condition=condition, **values).operation["Put"])

    def put_if_absent(self, key: Key, row: Mapping[str, Any]) -> bool:
        """True when this call created the row."""
        try:
            self.put(key, row, condition="attribute_not_exists(pk)")
        except ConditionFailed:
            return False
        return True

    def update(self, update: Update) -> None:
        self._single("update_item", self.update_write(update).operation["Update"])

    def delete(self, key: Key, *, condition: str | None = None, **values: Any) -> None:
        self._single("delete_item", self.delete_write(key, condition=condition, **values).operation["Delete"])

    def _single(self, method: str, arguments: dict[str, Any]) -> None:
        try:
            attempt(getattr(self._client, method), **arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                raise ConditionFailed([0]) from error
            raise

    def delete_all(self, keys: Iterable[Key]) -> None:
        self._write_all([{"DeleteRequest": {"Key": _key(key)}} for key in keys])

    def put_all(self, rows: Iterable[tuple[Key, Mapping[str, Any]]]) -> None:
        """Unconditional puts in batches; only for rows whose content is a function of their key."""
        self._write_all([{"PutRequest": {"Item": to_item(key, row)}} for key, row in rows])

    def _write_all(self, requests: list[dict[str, Any]]) -> None:
        for start in range(0, len(requests), MAX_BATCH_WRITE):
            pending = {self.name: requests[start : start + MAX_BATCH_WRITE]}
            for turn in range(_ATTEMPTS):
                pending = attempt(self._client.batch_write_item, RequestItems=pending).get("UnprocessedItems") or {}
                if not pending:
                    break
                self._backoff(turn)
            else:
                raise Retry("table writes are throttled")

    # transactions
    def put_write(self, key: Key, row: Mapping[str, Any], *, condition: str | None = None, **values: Any) -> Write:
        return Write({"Put": self._guarded({"Item": to_item(key, row)}, condition, values)})

    def delete_write(self, key: Key, *, condition: str | None = None, **values: Any) -> Write:
        return Write({"Delete": self._guarded({"Key": _key(key)}, condition, values)})

    def check_write(self, key: Key, *, condition: str, **values: Any) -> Write:
        return Write({"ConditionCheck": self._guarded({"Key": _key(key)}, condition, values)})

    def update_write(self, update: Update) -> Write:
        names: dict[str, str] = {}
        values: dict[str, Any] = {f":{name}": to_attribute(value) for name, value in update.values.items()}
        clauses = []
        for verb, joint, assignments in (("SET", " = ", update.set), ("ADD", " ", update.add)):
            parts = []
            for name, value in assignments.items():
                names[f"#{name}"] = name
                values[f":{verb}_{name}"] = to_attribute(value)
                parts.append(f"#{name}{joint}:{verb}_{name}")
            if parts:
                clauses.append(f"{verb} {', '.join(parts)}")
        if update.remove:
            names |= {f"#{name}": name for name in update.remove}
            clauses.append("REMOVE " + ", ".join(f"#{name}" for name in update.remove))
        arguments: dict[str, Any] = {
            "TableName": self.name,
            "Key": _key(update.key),
            "UpdateExpression": " ".join(clauses),
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
        if update.condition:
            arguments["ConditionExpression"] = update.condition
        return Write({"Update": arguments})

    def _guarded(self, arguments: dict[str, Any], condition: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
        arguments["TableName"] = self.name
        if condition:
            arguments["ConditionExpression"] = condition
        if values:
            arguments["ExpressionAttributeValues"] = {f":{name}": to_attribute(v) for name, v in values.items()}
        return arguments

    def transact(self, writes: Sequence[Write], tries: int = _ATTEMPTS) -> None:
        """All or nothing. Raises ConditionFailed with the failing positions; conflicts and throttles are retried."""
        items = [write.operation for write in writes]
        for turn in range(tries):
            try:
                attempt(self._client.transact_write_items, TransactItems=items)
                return
            except ClientError as error:
                if error.response["Error"]["Code"] != "TransactionCanceledException":
                    raise
                codes = [reason.get("Code") for reason in error.response.get("CancellationReasons", ())]
                failed = [i for i, code in enumerate(codes) if code == "ConditionalCheckFailed"]
                if failed:
                    raise ConditionFailed(failed) from error
                if not {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"} & set(codes):
                    raise
            self._backoff(turn)
        raise Retry("table transactions are in conflict")

    def statements(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[str | None]:
        """PartiQL batch; one entry per statement: None when it was carried out, else the error code."""
        pages = [statements[i : i + MAX_STATEMENTS] for i in range(0, len(statements), MAX_STATEMENTS)]
        return [code for page in _side_by_side(self._statement_page, pages) for code in page]

    def _statement_page(self, page: Sequence[tuple[str, Sequence[Any]]]) -> list[str | None]:
        codes: list[str | None] = [None] * len(page)
        pending = list(range(len(page)))
        for turn in range(_ATTEMPTS):
            answer = attempt(
                self._client.batch_execute_statement,
                Statements=[
                    {"Statement": page[i][0], "Parameters": [to_attribute(value) for value in page[i][1]]}
                    for i in pending
                ],
            )
            again = []
            for i, response in zip(pending, answer["Responses"], strict=True):
                code = response.get("Error", {}).get("Code")
                codes[i] = code
                if code in {"ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded",
                            "TransactionConflict", "InternalServerError"}:  # fmt: skip
                    again.append(i)
            pending = again
            if not pending:
                return codes
            self._backoff(turn)
        raise Retry("table statements are throttled")

    def _backoff(self, turn: int) -> None:
        self._pause(random.uniform(0, 0.05 * 2**turn))  # noqa: S311 - jitter, not a secret


def _key(key: Key) -> dict[str, Any]:
    return {"pk": {"S": key.pk}, "sk": {"S": key.sk}}


def _side_by_side(work: Callable[[Page], Result], pages: Sequence[Page]) -> list[Result]:
    """`work` of each page, in order; several calls are under way at once."""
    if len(pages) <= 1:
        return [work(page) for page in pages]
    with ThreadPoolExecutor(min(8, len(pages))) as pool:
        return list(pool.map(work, pages))
