"""What connectors remember in DynamoDB: names, alerts, leases, silences; each project's own, sealed, and expiring."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import boto3
import pytest
from tests.support.keys import fixed_sealer

from tocsin.aws import keys
from tocsin.aws.connector_store import (
    KEEP_ENDED,
    KEEP_EXPIRED,
    MAX_KNOWN,
    MAX_NAME_BYTES,
    DynamoAlerts,
    DynamoLeased,
    DynamoNames,
    DynamoSilences,
)
from tocsin.aws.table import Table
from tocsin.connectors.alerts import Alert
from tocsin.connectors.mapping import Known
from tocsin.connectors.silences import Matcher, Silence
from tocsin.kernel import clock

NOW = 1_800_000_000_000


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: NOW)


def stored() -> list[dict[str, Any]]:
    """Every row as DynamoDB holds it."""
    return list(boto3.client("dynamodb").scan(TableName="t")["Items"])


# --- names --------------------------------------------------------------------------------------------------


def known(number: int = 0, text: str = "db-1 is down") -> Known:
    return Known(f"alertmanager:{number:016x}", "InstanceDown", text, "instance", "db-1", {"team": "ann@example.com"})


def test_a_name_means_what_was_said_last_and_only_in_its_project(table: Table) -> None:
    names = DynamoNames(table, fixed_sealer(), retention_days=90)
    assert names.recall("p1", "group") == ()
    names.remember("p1", {"group": [known(1), known(2)], "other": [known(3)]})
    names.remember("p1", {"group": [known(2)]})
    assert names.recall("p1", "group") == [known(2)]
    assert names.recall("p1", "other") == [known(3)]
    assert names.recall("p2", "group") == ()
    assert all(int(row["exp"]["N"]) == NOW // 1000 + 90 * 86_400 for row in stored())
    assert "ann@example.com" not in str(stored())


def test_a_group_too_large_for_a_row_keeps_its_first_members(table: Table) -> None:
    names = DynamoNames(table, fixed_sealer(), retention_days=90)
    many = [known(n, f"{n:x}" * 300) for n in range(2 * MAX_KNOWN)]
    names.remember("p1", {"many": many})
    held = names.recall("p1", "many")
    assert 0 < len(held) <= MAX_KNOWN
    assert list(held) == many[: len(held)]
    assert max(len(row["z"]["B"]) for row in stored()) <= MAX_NAME_BYTES


# --- alerts -------------------------------------------------------------------------------------------------


def alert(name: str = "InstanceDown", **changed: Any) -> Alert:
    made = Alert({"alertname": name}, {"summary": "ann's"}, NOW - 9_000, NOW + clock.MINUTE, NOW)
    return replace(made, **changed)


def test_alerts_merge_under_their_fingerprint_and_are_their_projects_own(table: Table) -> None:
    alerts = DynamoAlerts(table, fixed_sealer())
    alerts.put("p1", [alert(), alert("DiskFull")])
    later = alert(starts_at=NOW - 1, ends_at=NOW + 2 * clock.MINUTE, updated_at=NOW + 1)
    alerts.put("p1", [later])
    held = {one.labels["alertname"]: one for one in alerts.all("p1")}
    assert held == {"DiskFull": alert("DiskFull"), "InstanceDown": replace(later, starts_at=NOW - 9_000)}
    assert alerts.all("p2") == []
    assert [one.labels["alertname"] for one in alerts.get("p1", [alert().fingerprint, "0" * 16])] == ["InstanceDown"]
    assert alerts.get("p2", [alert().fingerprint]) == []
    assert "ann's" not in str(stored())
    ends = sorted(int(row["exp"]["N"]) for row in stored() if "exp" in row)
    assert ends == [(NOW + minutes * clock.MINUTE + KEEP_ENDED) // 1000 for minutes in (1, 2)]


def test_an_earlier_post_that_comes_late_changes_nothing(table: Table) -> None:
    alerts = DynamoAlerts(table, fixed_sealer())
    resolved = alert(ends_at=NOW - 1, updated_at=NOW + 5)
    alerts.put("p1", [resolved])
    alerts.put("p1", [alert(updated_at=NOW)])
    assert alerts.all("p1") == [resolved]


def test_a_project_that_posts_alerts_is_looked_through_from_then_on(table: Table) -> None:
    alerts, leased = DynamoAlerts(table, fixed_sealer()), DynamoLeased(table)
    assert leased.since() == []
    alerts.put("p1", [])
    assert leased.since() == [], "nothing was posted"
    alerts.put("p1", [alert()])
    alerts.put("p2", [alert()])
    leased.done("p1", NOW + 7)
    alerts.put("p1", [alert("DiskFull")])
    assert sorted(leased.since()) == [("p1", NOW + 7), ("p2", NOW)]


# --- silences -----------------------------------------------------------------------------------------------


def silence(**changed: Any) -> Silence:
    matchers = (Matcher("service", "pay.*", is_regex=True), Matcher("severity", "info", is_equal=False))
    return replace(Silence("s-1", matchers, NOW, NOW + clock.HOUR, NOW, "ann@example.com", "deploy"), **changed)


def test_silences_are_kept_whole_until_some_days_after_their_end(table: Table) -> None:
    silences = DynamoSilences(table, fixed_sealer())
    assert silences.get("p1", "s-1") is None
    silences.put("p1", silence())
    silences.put("p1", silence(id="s-2", comment="another"))
    silences.put("p1", silence(ends_at=NOW + 1))
    assert silences.get("p1", "s-1") == silence(ends_at=NOW + 1)
    assert [one.id for one in silences.all("p1")] == ["s-1", "s-2"]
    assert (silences.get("p2", "s-1"), silences.all("p2")) == (None, [])
    row = table.get(keys.Key(keys.silences("p1"), "s-1")) or {}
    assert row["exp"] == (NOW + 1 + KEEP_EXPIRED) // 1000
    assert "ann@example.com" not in str(stored())
