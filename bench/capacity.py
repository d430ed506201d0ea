"""DynamoDB's capacity arithmetic: the size of an item and what reading or writing it costs (Developer Guide, "Item
sizes and formats" and "Read/write capacity").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def value_size(attribute: Mapping[str, Any]) -> int:
    """Bytes of one attribute value in the low-level form."""
    kind, value = next(iter(attribute.items()))
    match kind:
        case "S":
            return len(value.encode("utf-8"))
        case "B":
            return len(bytes(value))
        case "N":
            digits = len(value.lstrip("-").replace(".", "").strip("0")) or 1
            return (digits + 1) // 2 + 1 + int(str(value).startswith("-"))
        case "NULL" | "BOOL":
            return 1
        case "M":
            return 3 + sum(1 + len(name.encode("utf-8")) + value_size(one) for name, one in value.items())
        case "L":
            return 3 + sum(1 + value_size(one) for one in value)
        case "SS":
            return sum(len(one.encode("utf-8")) for one in value)
    raise ValueError(f"attribute type {kind} is not used here")


def item_size(item: Mapping[str, Any]) -> int:
    """Bytes of an item; 0 for one that does not exist."""
    return sum(len(name.encode("utf-8")) + value_size(value) for name, value in item.items())


def write_units(size: int) -> int:
    """Units of one standard write of an item of `size` bytes; a member of a transaction costs twice that."""
    return max(1, -(-size // 1024))


def read_units(size: int, consistent: bool) -> float:
    """Units of reading `size` bytes of one item, or of one query's items together."""
    return max(1, -(-size // 4096)) * (1.0 if consistent else 0.5)
