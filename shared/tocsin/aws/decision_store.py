"""What decisions keep, in the table and the bucket; implements the ports of tocsin.decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tocsin.aws import evidence, keys
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.rows import open_row, seal_row
from tocsin.aws.table import Table, Write
from tocsin.decisions.ports import Decided
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.sealing import Sealer

#: Sealed bytes of one row; DynamoDB takes 400 KB.
MAX_ROW: Final = 350_000
#: How often a health document that is still decided by is kept anew, so that it outlives those decisions.
_RENEWED: Final = clock.DAY


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
        row = {"z": sealed, "count": len(decided), "exp": (now + self._retention) // 1000}
        return [self._table.put_write(key, row), *outbox_writes(self._table, [left], now)]

    def append(self, batch_id: str, decided: Sequence[Decided]) -> None:
        self._table.transact(self.writes(batch_id, decided, clock.now_ms()))

    def get(self, decision_id: str) -> Decided | None:
        head, dash, at = decision_id.partition("-n")
        row = self._table.get(keys.decisions(self._project, head))
        if row is None or bool(dash) == (row["count"] == 1) or (dash and int(at) >= row["count"]):
            return None
        return Decided(*open_row(self._sealer, self._project, row)[int(at or 0)])

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
