"""Text of people in table rows: packed, and sealed with the project's data key for the row's own place."""

from __future__ import annotations

from typing import Any

from tocsin.aws.keys import Key
from tocsin.aws.table import Row
from tocsin.kernel.envelope import pack, unpack
from tocsin.kernel.sealing import Sealer, is_sealed


def seal_row(sealer: Sealer, project: str, key: Key, value: Any) -> bytes:
    """The attribute `z` of the row at `key`. Its bytes open nowhere else."""
    return sealer.seal(project, pack(value), "row", *key)


def open_row(sealer: Sealer, project: str, row: Row) -> Any:
    """Inverse of seal_row; rows that were written before rows of their kind were sealed are read as well.

    Refuses ERR_PROJECT_DELETED when the project's keys were destroyed.
    """
    if not is_sealed(row["z"]):
        return unpack(row["z"])
    return unpack(sealer.open(project, row["z"], "row", row["pk"], row["sk"]))
