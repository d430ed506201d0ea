"""A DynamoDB client that keeps items in a dictionary: what growth and the chain measure runs through the real store
code, without a network in between. Only what tocsin.aws.incident_store calls; it counts the units it would cost.
"""

from __future__ import annotations

from typing import Any

from bench.capacity import item_size, read_units, write_units

Item = dict[str, Any]


class MemoryDynamo:
    """Items by (pk, sk). `writes` and `reads` are units as DynamoDB would bill them; conditions always hold,
    since there is one worker.
    """

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], Item] = {}
        self.writes = 0
        self.reads = 0.0

    def get_item(self, Key: Item, ConsistentRead: bool, **_: Any) -> dict[str, Any]:
        item = self._items.get((Key["pk"]["S"], Key["sk"]["S"]))
        self.reads += read_units(item_size(item or {}), ConsistentRead)
        return {"Item": item} if item else {}

    def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:
        ((table, request),) = RequestItems.items()
        found = []
        for key in request["Keys"]:
            item = self._items.get((key["pk"]["S"], key["sk"]["S"]))
            self.reads += read_units(item_size(item or {}), request["ConsistentRead"])
            if item:
                found.append(item)
        return {"Responses": {table: found}}

    def transact_write_items(self, TransactItems: list[dict[str, Any]]) -> None:
        for member in TransactItems:
            item = member["Put"]["Item"]
            self._items[item["pk"]["S"], item["sk"]["S"]] = item
            self.writes += 2 * write_units(item_size(item))
