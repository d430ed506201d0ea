"""What connectors remember, in DynamoDB; implements the ports of tocsin.connectors.ports.

Labels and names are texts of people, so every row is sealed with its project's data key. All rows expire by themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from tocsin.aws import evidence, keys
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.rows import open_row, seal_row
from tocsin.aws.table import ConditionFailed, Row, Table
from tocsin.connectors.alerts import Alert, merged
from tocsin.connectors.mapping import Known
from tocsin.connectors.silences import Matcher, Silence
from tocsin.kernel import clock
from tocsin.kernel.sealing import Sealer

#: Alerts that are remembered under one name.
MAX_KNOWN: Final = 500
#: Bytes of one row of names; DynamoDB takes 400 KB.
MAX_NAME_BYTES: Final = 300_000
#: An alert that has ended stays for so long, so that a lease is ended late rather than never.
KEEP_ENDED: Final = clock.DAY
_LATER: Final = "attribute_not_exists(pk) OR posted_at <= :now"
#: An expired silence stays for so long: Alertmanager's data.retention.
KEEP_EXPIRED: Final = 5 * clock.DAY


class DynamoNames:
    """Implements Names: one row per name."""

    def __init__(self, table: Table, sealer: Sealer, *, retention_days: int) -> None:
        self._table, self._sealer = table, sealer
        self._retention_s = retention_days * clock.DAY // 1000

    def recall(self, project: str, name: str) -> Sequence[Known]:
        row = self._table.get(keys.sender_name(project, name))
        return [Known(**one) for one in open_row(self._sealer, project, row)] if row else ()

    def remember(self, project: str, groups: Mapping[str, Sequence[Known]]) -> None:
        exp = clock.now_ms() // 1000 + self._retention_s
        for name, known in groups.items():
            key, kept = keys.sender_name(project, name), [asdict(one) for one in known[:MAX_KNOWN]]
            sealed = seal_row(self._sealer, project, key, kept)
            while len(sealed) > MAX_NAME_BYTES:
                kept = kept[: len(kept) // 2]
                sealed = seal_row(self._sealer, project, key, kept)
            self._table.put(key, {"z": sealed, "exp": exp})


class DynamoAlerts:
    """Implements AlertStore: one row per fingerprint in a partition of the project. The later post rules."""

    def __init__(self, table: Table, sealer: Sealer) -> None:
        self._table, self._sealer = table, sealer

    def put(self, project: str, alerts: Iterable[Alert]) -> None:
        now = clock.now_ms()
        latest = {keys.Key(keys.kept_alerts(project), one.fingerprint): one for one in alerts}
        if latest:
            self._table.put_if_absent(keys.alerting_project(project), {"upto": now})
        rows = self._table.batch_get(list(latest))
        for key, new in latest.items():
            old = rows.get(key)
            alert = merged(self._alert(project, old) if old else None, new, now)
            row = {
                "z": seal_row(self._sealer, project, key, asdict(alert)),
                "posted_at": alert.updated_at,
                "exp": (alert.ends_at + KEEP_ENDED) // 1000,
            }
            try:
                self._table.put(
                    key, row, condition="attribute_not_exists(pk) OR posted_at <= :now", now=alert.updated_at
                )
            except ConditionFailed:
                continue  # a later post of the same alert was faster

    def get(self, project: str, fingerprints: Collection[str]) -> Sequence[Alert]:
        rows = self._table.batch_get([keys.Key(keys.kept_alerts(project), one) for one in fingerprints])
        return [self._alert(project, row) for row in rows.values()]

    def all(self, project: str) -> Sequence[Alert]:
        return [self._alert(project, row) for row in self._table.query(keys.kept_alerts(project))]

    def _alert(self, project: str, row: Row) -> Alert:
        return Alert(**open_row(self._sealer, project, row))


class DynamoLeased:
    """Implements Leased: a row per project that ever kept an alert, as the Alertmanager API has no lifecycle."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def since(self) -> Sequence[tuple[str, int]]:
        return [(row["sk"], row["upto"]) for row in self._table.query(keys.alerting_project("any").pk)]

    def done(self, project: str, until: int) -> None:
        self._table.put(keys.alerting_project(project), {"upto": until})


class DynamoSilences:
    """Implements SilenceStore: one row per silence in a partition of the project."""

    def __init__(self, table: Table, sealer: Sealer) -> None:
        self._table, self._sealer = table, sealer

    def put(self, project: str, silence: Silence) -> None:
        key = keys.Key(keys.silences(project), silence.id)
        exp, now = (silence.ends_at + KEEP_EXPIRED) // 1000, clock.now_ms()
        row = {"z": seal_row(self._sealer, project, key, asdict(silence)), "exp": exp}
        left = outbox_writes(self._table, [evidence.of_silence(project, silence, now)], now)
        self._table.transact([self._table.put_write(key, row), *left])

    def get(self, project: str, silence_id: str) -> Silence | None:
        row = self._table.get(keys.Key(keys.silences(project), silence_id))
        return self._silence(project, row) if row else None

    def all(self, project: str) -> Sequence[Silence]:
        return [self._silence(project, row) for row in self._table.query(keys.silences(project))]

    def _silence(self, project: str, row: Row) -> Silence:
        content = open_row(self._sealer, project, row)
        return Silence(**{**content, "matchers": tuple(Matcher(**one) for one in content["matchers"])})
