"""Rate-limit buckets and failure counts in the table; implements LimitStore and FailureStore of tocsin.access.

Both need what an update returns, also when its condition fails, so they speak to the low-level client. Every
call is one UpdateItem on one item; nothing is read beforehand.
"""

from __future__ import annotations

from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from tocsin.access.ports import Advance
from tocsin.aws import keys
from tocsin.kernel import clock
from tocsin.kernel.errors import Retry

#: A bucket that nobody used for so long, in seconds, is dropped: it is full again by then.
IDLE_S: Final = clock.DAY // 1000
_HOT: Final = ("SET tat = tat + :by, #exp = :exp", "tat >= :now AND tat <= :latest")
_IDLE: Final = ("SET tat = :fresh, #exp = :exp", "attribute_not_exists(tat) OR tat < :now")


class DynamoLimits:
    """One item per bucket: `tat` in µs. Two conditional updates do what the arithmetic's max() says: one for a
    bucket whose tat is still ahead, one for an idle bucket; the wrong guess costs a second call.
    """

    def __init__(self, client: Any, table: str) -> None:
        self._client, self._table = client, table

    def advance(self, project: str, name: str, by_us: int, now_us: int, latest_us: int, seen_us: int) -> Advance:
        key = keys.Key(keys.partition(project, "limit", name), "tat")
        hot, tat, tries = seen_us >= now_us, seen_us, 0
        for _ in range(4):
            tries += 1
            taken, tat = self._update(key, hot, by_us, now_us, latest_us)
            if taken or (hot and tat >= now_us):
                return Advance(taken, tat, tries)
            hot = tat >= now_us
            if hot and tat > latest_us:
                return Advance(False, tat, tries)
        return Advance(False, tat, tries)

    def _update(self, key: keys.Key, hot: bool, by_us: int, now_us: int, latest_us: int) -> tuple[bool, int]:
        """(carried out, tat after it or, of an item that is not there, 0)."""
        update, condition = _HOT if hot else _IDLE
        values = {":now": now_us, ":exp": now_us // 1_000_000 + IDLE_S}
        values |= {":by": by_us, ":latest": latest_us} if hot else {":fresh": now_us + by_us}
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key={"pk": {"S": key.pk}, "sk": {"S": key.sk}},
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeNames={"#exp": "exp"},
                ExpressionAttributeValues={name: {"N": str(value)} for name, value in values.items()},
                ReturnValues="UPDATED_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                response: dict[str, Any] = {**error.response}
                item = response.get("Item") or {}
                return False, int(item["tat"]["N"]) if "tat" in item else 0
            raise Retry("limits cannot be counted") from error
        except BotoCoreError as error:
            raise Retry("limits cannot be counted") from error
        return True, int(answer["Attributes"]["tat"]["N"])


class DynamoFailures:
    """One item per source and minute."""

    def __init__(self, client: Any, table: str) -> None:
        self._client, self._table = client, table

    def add(self, source: str, minute: int, count: int) -> int:
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key={"pk": {"S": f"sys#failed#{minute}#{source}"}, "sk": {"S": "n"}},
                UpdateExpression="ADD n :count SET #exp = :exp",
                ExpressionAttributeNames={"#exp": "exp"},
                ExpressionAttributeValues={":count": {"N": str(count)}, ":exp": {"N": str(minute * 60 + 600)}},
                ReturnValues="UPDATED_NEW",
            )
        except (ClientError, BotoCoreError) as error:
            raise Retry("failures cannot be counted") from error
        return int(answer["Attributes"]["n"]["N"])
