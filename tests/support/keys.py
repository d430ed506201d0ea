"""Data keys without KMS: one per project, always the same."""

from __future__ import annotations

import hashlib

from tocsin.kernel.errors import Refusal
from tocsin.kernel.sealing import DataKey, Sealer, destroyed


class FixedRing:
    """Implements tocsin.kernel.sealing.KeyRing; `gone` holds projects whose keys were destroyed."""

    def __init__(self) -> None:
        self.gone: set[str] = set()

    def current(self, project: str) -> DataKey:
        if project in self.gone:
            raise destroyed()
        return DataKey("key_fixed", hashlib.sha256(project.encode()).digest())

    def named(self, project: str, key_id: str) -> DataKey:
        if key_id != "key_fixed":
            raise Refusal("ERR_SCHEMA", "The data key of these bytes is not known.")
        return self.current(project)


def fixed_sealer() -> Sealer:
    return Sealer(FixedRing())
