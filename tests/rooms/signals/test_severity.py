"""Severity maps: what senders say, as OCSF severity_id."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.signals.features import SEVERITY_X
from tocsin.signals.severity import CAPTIONS, FAMILIES, NUMBERS, WORDS, family, severity_id


@pytest.mark.parametrize(
    ("source", "raw", "expected"),
    [
        ("prometheus", "critical", 5),
        ("prometheus", "warning", 3),
        ("prometheus", "none", 1),
        ("prod/alertmanager-eu", "page", 5),
        ("aws.cloudwatch", "ALARM", 4),
        ("aws.cloudwatch", "INSUFFICIENT_DATA", 2),
        ("aws.cloudwatch", "OK", 1),
        ("sentry", "fatal", 6),
        ("sentry", "error", 4),
        ("pagerduty", "P1", 5),
        ("pagerduty", "low", 2),
        ("syslog", 0, 6),
        ("syslog", 3, 4),
        ("syslog", "7", 1),
        ("syslog", "emerg", 6),
        ("journald", " Notice ", 2),
        ("nagios", 0, 1),
        ("nagios", 2, 5),
        ("nagios", "3", 0),
        ("icinga2", "UNREACHABLE", 4),
        ("k8s", "Normal", 1),
        ("kubernetes/prod", "Warning", 3),
        ("zabbix", 5, 6),
        ("otel-collector", 17, 4),
        ("guardduty", 8, 4),
        ("wazuh", 12, 4),
        ("suricata", 1, 4),
        ("my-app", 4, 4),
        ("my-app", "6", 6),
        ("my-app", 7, 99),
        ("my-app", -1, 99),
        ("my-app", "purple", 99),
        ("my-app", "Kritisch", 99),
        ("my-app", None, 0),
        ("my-app", "", 0),
        ("my-app", "   ", 0),
        ("", "error", 4),
    ],
)
def test_maps_each_family_as_its_own_documents_say(source: str, raw: str | int | None, expected: int) -> None:
    assert severity_id(source, raw) == expected


def test_a_family_is_recognised_by_whole_words_only() -> None:
    assert family("team/prometheus:9090") == "prometheus"
    assert family("prometheusish") is None
    assert family("x" * 100_000) is None


def test_every_table_belongs_to_a_family_and_every_result_has_a_caption_and_a_weight() -> None:
    families = set(FAMILIES.values())
    assert set(WORDS) | set(NUMBERS) <= families
    results = {v for table in WORDS.values() for v in table.values()}
    results |= {v for table in NUMBERS.values() for v in table.values()}
    assert results <= set(CAPTIONS) == set(SEVERITY_X)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.one_of(st.none(), st.integers(), st.text(max_size=200)))
def test_is_total(source: str, raw: str | int | None) -> None:
    assert severity_id(source, raw) in CAPTIONS
