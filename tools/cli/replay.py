"""What `tocsin replay` does: the recorded log of a project through this checkout's scorer, and the account of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tocsin.aws.bucket import Bucket
from tocsin.aws.data_keys import KmsKeyRing
from tocsin.aws.documents import CalibrationDocuments, Documents, TopologyDocuments
from tocsin.aws.ledger import DynamoLedger
from tocsin.aws.table import Table
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal
from tocsin.kernel.sealing import Sealer
from tocsin.signals.replay import Account, Replay

_SPAN = re.compile(r"([1-9][0-9]{0,5})(min|h|d)", re.ASCII)
_UNITS = {"min": clock.MINUTE, "h": clock.HOUR, "d": clock.DAY}


def since_ms(text: str, now: int) -> int:
    """Unix ms of a span before now (90min, 24h, 7d) or of an RFC 3339 time. Raises LookupError for anything else."""
    if span := _SPAN.fullmatch(text):
        return now - int(span[1]) * _UNITS[span[2]]
    try:
        return clock.parse_rfc3339(text)
    except (ValueError, Refusal):
        raise LookupError(f"--since {text}: send a span such as 24h or 7d, or an RFC 3339 time with offset") from None


def run(resources: Mapping[str, str], client: Any, project: str, since: int, against: str | None) -> Account:
    """Replay the log of `project` and compare from `since` (Unix ms) on. Raises LookupError for unknown calibrators."""
    table = Table(client("dynamodb"), resources["TableName"])
    ring = KmsKeyRing(
        Table(client("dynamodb"), resources["DataKeysName"]), lambda: client("kms"), resources["MasterKeyArn"]
    )
    sealer = Sealer(ring)
    ledger = DynamoLedger(table, Bucket(client("s3"), resources["BucketName"]), sealer, retention_days=1)
    documents = Documents(table, sealer)
    topologies, calibrations = TopologyDocuments(documents), CalibrationDocuments(documents)
    if against is not None and calibrations.named(project, against) is None:
        raise LookupError(f"--against {against}: no such version is kept; tocsin replay --help says what to name")
    replay = Replay(
        project,
        topology_of=lambda label: topologies.named(project, label),
        calibrators_of=lambda label: calibrations.named(project, label),
        against=against,
    )
    for recorded in ledger.history(project):
        if recorded.at < since:
            replay.warm(recorded)
        else:
            replay.take(recorded)
    return replay.account()
