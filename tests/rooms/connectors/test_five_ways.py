"""One alert of a real Prometheus, directly and by four receivers of a real Alertmanager: one incident, one resolve.

The requests are captures of Prometheus 2.42 and Alertmanager 0.25: two instances of one job went down and came back
one after the other, while webhook, PagerDuty, Opsgenie and VictorOps receivers and the direct way all led to one place.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.rooms.connectors.support import sample, send
from tocsin.connectors.identity import fingerprint, listed, unlisted
from tocsin.connectors.mapping import Known
from tocsin.kernel import clock
from tocsin.signals import correlation
from tocsin.signals.correlation import Incident, View
from tocsin.signals.topology import Topology

WAYS: dict[str, list[str]] = {
    "alertmanager_api": ["firing", "firing_again", "resolved_one", "resolved"],
    "alertmanager_webhook": ["firing", "mixed", "resolved"],
    "pagerduty": ["alertmanager_firing", "alertmanager_mixed", "alertmanager_resolved"],
    "opsgenie": ["alertmanager_firing", "alertmanager_mixed", "alertmanager_close"],
    "victorops": ["alertmanager_firing", "alertmanager_mixed", "alertmanager_resolved"],
}
DB1, DB2 = "alertmanager:5dabd62a8dd13da8", "alertmanager:13484e45224c7ba7"


def arrivals(ways: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """Events of some ways in order of arrival, stamped and scored; ways that arrive together come in any order."""
    chance = random.Random(seed)
    requests = [(sample(way, case)["now"], chance.random(), way, case) for way in ways for case in WAYS[way]]
    memory: dict[str, Sequence[Known]] = {}
    made = []
    for now, _, way, case in sorted(requests):
        translation = send(sample(way, case), recall=lambda name: memory.get(name, ())).made
        assert all(item.refusal is None for item in translation.items)
        memory.update(translation.groups)
        received = clock.rfc3339(clock.parse_rfc3339(now))
        for event in translation.events:
            made.append({"occurred_at": received, **event, "received_at": received, "score": 0.8, "flags": []})
    for number, event in enumerate(made):
        event["event_id"] = f"evt_{number:04d}"
    return made


def correlated(arrived: Sequence[dict[str, Any]]) -> tuple[list[Incident], list[str]]:
    """The incidents that come of events one by one, and the kinds of their transitions in order."""
    topology = Topology.from_document({"services": {}})
    rows: dict[str, dict[str, Any]] = {}
    index: dict[str, list[str]] = {}
    transitions: list[str] = []
    for number, event in enumerate(arrived):
        signal = correlation.signal_of(event, number + 1, 0, topology)
        view = View({name: Incident.from_row(copy.deepcopy(row)) for name, row in rows.items()}, copy.deepcopy(index))
        effects = correlation.correlate([signal], view, project="p1", topology=topology, now=signal.received_at)
        rows |= {name: copy.deepcopy(incident.to_row()) for name, incident in effects.incidents.items()}
        index |= effects.index
        transitions += [one.kind for one in effects.transitions]
    return [Incident.from_row(row) for row in rows.values() if row["status"] != "merged"], transitions


@pytest.mark.parametrize("seed", range(6))
def test_five_ways_are_one_incident_and_one_resolve(seed: int) -> None:
    incidents, transitions = correlated(arrivals(list(WAYS), seed))
    assert len(incidents) == 1
    assert incidents[0].status == "resolved"
    assert transitions.count("opened") == 1
    assert transitions.count("resolved") == 1
    assert len(incidents[0].keys) == 2  # two instances, whatever the ways


@pytest.mark.parametrize("ways", [[way] for way in WAYS] + [list(pair) for pair in itertools.combinations(WAYS, 2)])
def test_each_way_alone_and_each_pair_opens_and_resolves(ways: list[str]) -> None:
    incidents, transitions = correlated(arrivals(ways))
    assert [incident.status for incident in incidents] == ["resolved"]
    assert (transitions.count("opened"), transitions.count("resolved")) == (1, 1)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_says_the_same_of_the_alert(way: str) -> None:
    first = {event["dedup_key"]: event for event in arrivals([way]) if event["status"] == "firing"}
    assert set(first) == {DB1, DB2}
    event = first[DB1]
    assert event["type"] == "InstanceDown"
    assert event["title"] == "db-1:9100 of payments is down"
    assert event["entity"] == {"type": "instance", "id": "db-1:9100"}
    assert event["severity_raw"] == "critical"
    assert event["tags"]["service"] == "payments"
    assert [link["text"] for link in event["links"]] == ["Prometheus", "Runbook"]


@pytest.mark.parametrize(
    ("name", "cases", "kinds"),
    [
        ("pagerduty", ["trigger", "acknowledge", "resolve"], ["opened", "acknowledged", "resolved"]),
        ("opsgenie", ["create", "acknowledge", "close"], ["opened", "acknowledged", "resolved"]),
        ("victorops", ["critical", "acknowledgement", "recovery"], ["opened", "acknowledged", "resolved"]),
        ("aws_eventbridge", ["alarm", "alarm_ok"], ["opened", "resolved"]),
        ("aws_sns", ["alarm", "alarm_ok"], ["opened", "resolved"]),
        ("sentry_webhook", ["event_alert", "issue_resolved"], ["opened", "resolved"]),
    ],
)
def test_an_episode_of_any_sender_opens_and_ends_one_incident(name: str, cases: list[str], kinds: list[str]) -> None:
    arrived = []
    for number, case in enumerate(cases):
        given = sample(name, case)
        received = clock.rfc3339(clock.parse_rfc3339(given["now"]) + number)
        (event,) = send(given).made.events
        stamped = {"event_id": f"evt_{number}", "received_at": received, "score": 0.8, "flags": []}
        arrived.append({"occurred_at": received, **event, **stamped})
    incidents, transitions = correlated(arrived)
    assert len(incidents) == 1
    assert transitions == kinds


def test_close_without_memory_speaks_of_the_group() -> None:
    (event,) = send(sample("opsgenie", "alertmanager_close")).made.events
    assert event["status"] == "resolved"
    assert event["dedup_key"] == f"opsgenie:{event['extras']['alias']}"


def test_close_resolves_the_members_that_fired_last() -> None:
    groups = send(sample("opsgenie", "alertmanager_mixed")).made.groups
    made = send(sample("opsgenie", "alertmanager_close"), recall=lambda name: groups.get(name, ())).made
    assert [event["dedup_key"] for event in made.events] == [DB2]
    assert made.events[0]["title"] == "db-2:9100 of payments is down"
    assert made.events[0]["extras"]["reported_as"]["type"] == "opsgenie.alert"


def test_a_resend_of_prometheus_is_the_same_event_although_its_lease_moved() -> None:
    given = sample("alertmanager_api", "firing")
    later = [{**one, "endsAt": "2026-11-21T10:58:00.000Z"} for one in given["body"]]
    once, again = send(given).made, send(given, body=later, now="2026-11-21T10:54:20.000Z").made
    assert once.events == again.events
    assert once.alerts[0].ends_at < again.alerts[0].ends_at


def test_two_requests_without_times_are_two_events() -> None:
    given = sample("pagerduty", "alertmanager_firing")
    once, again = (send(given, now=f"2026-11-21T1{hour}:00:00.000Z").made.events for hour in (0, 1))
    assert {one["id"] for one in once}.isdisjoint(one["id"] for one in again)
    assert [one["dedup_key"] for one in once] == [one["dedup_key"] for one in again]


def test_fingerprint_is_alertmanagers() -> None:
    for alert in sample("alertmanager_webhook", "firing")["body"]["alerts"]:
        assert fingerprint(alert["labels"]) == alert["fingerprint"]
    # model.LabelSet{}.Fingerprint() and of two labels, from prometheus/common model/signature_test.go
    assert int(fingerprint({}), 16) == 14695981039346656037
    assert int(fingerprint({"first-label": "first-label-value", "second-label": "second-label-value"}), 16)


# --- lists of alerts in texts -------------------------------------------------------------------------------

LIST = "Labels:\n - alertname = A\n - note = two\nlines\nAnnotations:\n - summary = x = y\nSource: http://p.example/g\n"


def test_values_may_hold_lines_and_signs() -> None:
    (alert,) = listed(LIST)
    assert alert["labels"] == {"alertname": "A", "note": "two\nlines"}
    assert alert["annotations"] == {"summary": "x = y"}
    assert alert["generatorURL"] == "http://p.example/g"


def test_headings_tell_the_state() -> None:
    text = f"They fail\nAlerts Firing:\n{LIST}\nAlerts Resolved:\n{LIST}"
    assert [alert["status"] for alert in listed(text)] == ["firing", "resolved"]
    assert unlisted(text) == "They fail\nAlerts Firing:\nAlerts Resolved:"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing to see",
        "Labels:\nno pair\n",
        "Labels:\nAnnotations:\n - a = b\n",
        "[]",
        "[1]",
        '[{"labels": {}}]',
        '[{"labels": {"a": 1}}]',
        '[{"labels": {"a": "b"}}, {}]',
        "[not json",
        None,
        7,
        [{}],
        {"labels": {"a": "b"}},
    ],
)
def test_what_is_not_quite_a_list_names_no_alert(text: Any) -> None:
    assert listed(text) == []
