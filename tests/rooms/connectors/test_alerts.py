"""The Alertmanager v2 API: what a post means, how posts merge, and what is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.rooms.connectors.support import sample
from tocsin.connectors import alerts, silences
from tocsin.connectors.alerts import Alert, Query, merged, posted, query
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal

NOW = clock.parse_rfc3339("2026-11-21T10:00:00Z")


def alert(name: str = "A", **changed: Any) -> Alert:
    return replace(posted({"labels": {"alertname": name, "instance": "web-1"}}, NOW), **changed)


def test_defaults_are_alertmanagers() -> None:
    one = posted({"labels": {"a": "b", "empty": ""}}, NOW)
    assert one.labels == {"a": "b"}
    assert (one.starts_at, one.ends_at, one.leased) == (NOW, NOW + alerts.RESOLVE_TIMEOUT, True)
    ended = posted({"labels": {"a": "b"}, "endsAt": "2026-11-21T09:00:00Z"}, NOW)
    assert ended.starts_at == ended.ends_at
    assert ended.status(NOW) == "resolved"


def test_gos_zero_time_is_no_time() -> None:
    one = posted({"labels": {"a": "b"}, "startsAt": "0001-01-01T00:00:00.000Z", "endsAt": "0001-01-01T00:00:00Z"}, NOW)
    assert (one.starts_at, one.leased) == (NOW, True)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([], "(body)"),
        ({}, "labels"),
        ({"labels": {"a": ""}}, "labels"),
        ({"labels": {"a b": "c"}}, "labels.a b"),
        ({"labels": {"a": 7}}, "labels.a"),
        ({"labels": ["a"]}, "labels"),
        ({"labels": {"a": "b"}, "annotations": {"x": None}}, "annotations.x"),
        ({"labels": {"a": "b"}, "startsAt": "now"}, "startsAt"),
        ({"labels": {"a": "b"}, "endsAt": 7}, "endsAt"),
        ({"labels": {"a": "b"}, "generatorURL": 7}, "generatorURL"),
        ({"labels": {"a": "b"}, "startsAt": "2026-11-21T10:00:00Z", "endsAt": "2026-11-21T09:00:00Z"}, "endsAt"),
    ],
)
def test_wrong_alerts_are_told_by_field(value: Any, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        posted(value, NOW)
    assert caught.value.details[0].field == field
    assert caught.value.details[0].fix


def test_merging_keeps_the_start_of_the_episode_and_a_stated_end() -> None:
    first = alert(starts_at=NOW - 100, ends_at=NOW + 60_000, leased=False)
    again = alert(starts_at=NOW, ends_at=NOW + 10, leased=True)
    kept = merged(first, again, NOW)
    assert (kept.starts_at, kept.ends_at, kept.leased) == (NOW - 100, NOW + 60_000, False)
    over = alert(starts_at=NOW - 50, ends_at=NOW)
    assert merged(first, over, NOW).status(NOW) == "resolved"
    assert merged(first, over, NOW).starts_at == NOW - 100


def test_a_new_episode_does_not_inherit_the_old_start() -> None:
    over = alert(starts_at=NOW - 1000, ends_at=NOW - 500)
    assert merged(over, alert(), NOW).starts_at == NOW
    assert merged(None, alert(), NOW) == alert()


def test_a_lease_that_runs_out_is_posted_as_an_end() -> None:
    one = alert()
    assert list(alerts.lapsed([one], NOW, NOW + alerts.RESOLVE_TIMEOUT - 1)) == []
    (said,) = alerts.lapsed([one], NOW, NOW + alerts.RESOLVE_TIMEOUT)
    again = posted(said, NOW + alerts.RESOLVE_TIMEOUT)
    assert again.status(NOW + alerts.RESOLVE_TIMEOUT) == "resolved"
    assert again.fingerprint == one.fingerprint
    assert alerts.lapsed([one], NOW + alerts.RESOLVE_TIMEOUT, NOW + alerts.RESOLVE_TIMEOUT) == []


def test_listing_is_what_alertmanager_shows() -> None:
    given_one = sample("alertmanager_api", "firing")
    now = clock.parse_rfc3339(given_one["now"])
    shown = alerts.list_alerts([posted(one, now) for one in given_one["body"]], [], Query(), now)
    assert sorted(shown[0]) == [
        *("annotations", "endsAt", "fingerprint", "generatorURL", "labels", "receivers", "startsAt", "status"),
        "updatedAt",
    ]
    assert shown[0]["status"] == {"inhibitedBy": [], "silencedBy": [], "state": "active"}
    assert [one["fingerprint"] for one in shown] == sorted(one["fingerprint"] for one in shown)


def _silence(value: str) -> silences.Silence:
    matcher = silences.parse_matcher(f'alertname="{value}"')
    return silences.Silence("s-" + value, (matcher,), NOW, NOW + clock.HOUR, NOW, "ann", "why")


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({}, ["A", "B"]),
        ({"silenced": ("false",)}, ["B"]),
        ({"active": ("false",)}, ["A"]),
        ({"filter": ('alertname=~"[BC]"',)}, ["B"]),
        ({"filter": ('alertname="A"', 'instance="web-2"')}, []),
        ({"receiver": ("toc.*",)}, ["A", "B"]),
        ({"receiver": ("other",)}, []),
    ],
)
def test_filters(parameters: dict[str, tuple[str, ...]], names: list[str]) -> None:
    held = [alert("A"), alert("B"), alert("C", ends_at=NOW)]
    shown = alerts.list_alerts(held, [_silence("A")], query(parameters), NOW)
    assert sorted(one["labels"]["alertname"] for one in shown) == names


def test_silenced_alerts_say_by_what() -> None:
    (shown,) = alerts.list_alerts([alert("A")], [_silence("A"), _silence("B")], Query(), NOW)
    assert shown["status"] == {"inhibitedBy": [], "silencedBy": ["s-A"], "state": "suppressed"}


@pytest.mark.parametrize("parameters", [{"active": ("maybe",)}, {"receiver": ("(",)}, {"filter": ("a=~(",)}])
def test_wrong_queries_are_told(parameters: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(Refusal) as caught:
        query(parameters)
    assert caught.value.details


def test_groups_receivers_status() -> None:
    held = [alert("A"), alert("B"), replace(alert("A"), labels={"alertname": "A", "instance": "web-2"})]
    groups = alerts.list_groups(held, [], Query(), NOW)
    assert [(group["labels"], len(group["alerts"])) for group in groups] == [
        ({"alertname": "A"}, 2),
        ({"alertname": "B"}, 1),
    ]
    assert groups[0]["receiver"] in alerts.receivers()
    assert set(alerts.status(NOW)) == {"cluster", "config", "uptime", "versionInfo"}


def test_errors_are_said_as_the_api_says_them() -> None:
    bad = Refusal("ERR_SCHEMA", "at least one label pair required", [Detail("labels", "required", "add one")])
    assert alerts.error_answer(bad) == (400, "at least one label pair required (labels: add one)")
    unread = Refusal("ERR_JSON_SYNTAX", "Not JSON.", [Detail("(body)", "json", "send JSON")])
    assert alerts.error_answer(unread) == (400, {"code": 400, "message": "Not JSON."})
