"""Every sample becomes what stands beside it; nothing of it is lost; what fires can be resolved."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import connectors as tool

from tests.rooms.connectors.support import IDS, SAMPLES, Sent, comparable, expected, leaves, sample, send
from tocsin.connectors import identity, mapping, registry, template
from tocsin.kernel.errors import Refusal
from tocsin.signals import events, severity


@pytest.mark.parametrize(("name", "case"), SAMPLES, ids=IDS)
def test_sample_becomes_what_stands_beside_it(name: str, case: str) -> None:
    assert tool.outcome(sample(name, case)) == expected(name, case)


def test_every_connector_has_samples_and_every_rule_is_used_by_one() -> None:
    used: dict[str, set[str]] = {name: set() for name in registry.names()}
    for name, case in SAMPLES:
        sent = send(sample(name, case))
        for document, facts in sent.body.documents:
            frame = {"action": sent.call.route.action, **facts}
            for path, status in sent.call.connector.alerts:
                frame["alerts"] = [*frame.get("alerts", []), *identity.listed(template.at(document, path), status)]
            for path in sent.call.connector.unpack:
                document = {**document, path[0]: _json(document.get(path[0]))}
            scope = template.Scope(document, document, frame)
            rule = next(rule for rule in sent.call.connector.rules if mapping.applies(rule, scope))
            used[name].add(rule.where)
    unused = [rule.where for name in used for rule in registry.load(name).rules if rule.where not in used[name]]
    assert unused == []


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


@pytest.mark.parametrize(("name", "case"), SAMPLES, ids=IDS)
def test_severity_is_understood(name: str, case: str) -> None:
    for event in send(sample(name, case)).made.events:
        raw = event.get("severity_raw")
        assert raw is None or severity.severity_id(event["source"], raw) != severity.OTHER, (event["source"], raw)


@pytest.mark.parametrize(("name", "case"), SAMPLES, ids=IDS)
def test_the_key_is_nowhere_in_the_events(name: str, case: str) -> None:
    sent = send(sample(name, case))
    assert "tcn_" not in json.dumps(sent.made.events)


# --- nothing is lost ----------------------------------------------------------------------------------------


def _kept(sent: Sent) -> set[str]:
    """Every leaf of events and of what is kept beside them."""
    shown = [*sent.made.events, *(alert.as_json() for alert in sent.made.alerts)]
    return {comparable(leaf) for one in shown for _, leaf in leaves(one)}


def _told(sent: Sent, document: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """Leaves of a document that must be found again: all but the key, and lists that became alerts."""
    connector = sent.call.connector
    gone = [*connector.drop]
    for path, status in connector.alerts:
        if identity.listed(template.at(document, path), status):
            gone.append(path)
    for path in connector.unpack:
        held = template.at(document, path)
        if isinstance(_json(held), (dict, list)):
            document = {**document, path[0]: _json(held)}
    return [(path, leaf) for path, leaf in leaves(document) if not any(path[: len(one)] == one for one in gone)]


def lost(sent: Sent) -> list[tuple[tuple[Any, ...], Any]]:
    kept = _kept(sent)
    return [
        (path, leaf)
        for document, _ in sent.body.documents
        for path, leaf in _told(sent, document)
        if comparable(leaf) not in kept
    ]


@pytest.mark.parametrize(("name", "case"), SAMPLES, ids=IDS)
def test_every_leaf_of_a_sample_is_in_the_event_or_its_extras(name: str, case: str) -> None:
    assert lost(send(sample(name, case))) == []


@pytest.mark.parametrize(("name", "case"), SAMPLES, ids=IDS)
def test_listed_alerts_tell_all_of_their_list(name: str, case: str) -> None:
    sent = send(sample(name, case))
    for document, _ in sent.body.documents:
        for path, status in sent.call.connector.alerts:
            for alert in identity.listed(template.at(document, path), status):
                parts = [*alert["labels"].values(), *alert["annotations"].values(), alert.get("generatorURL", "")]
                shown = json.dumps(sent.made.events)
                assert all(json.dumps(part)[1:-1] in shown for part in parts)


JSON_SAMPLES = [one for one in SAMPLES if "body" in sample(*one)]
_UNKNOWN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.integers(-999, 999).map(lambda n: n / 8)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=12), inner, max_size=3),
    max_leaves=6,
)


def _objects(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(one for part in value.values() for one in _objects(part))]
    return [one for part in value for one in _objects(part)] if isinstance(value, list) else []


@pytest.mark.parametrize(("name", "case"), JSON_SAMPLES, ids=[f"{n}-{c}" for n, c in JSON_SAMPLES])
@settings(max_examples=8, deadline=None)
@given(unknown=_UNKNOWN, seed=st.integers(0, 10**6))
def test_unknown_members_are_kept_wherever_they_stand(name: str, case: str, unknown: Any, seed: int) -> None:
    given_sample = sample(name, case)
    body = copy.deepcopy(given_sample["body"])
    chance = random.Random(seed)
    holders = _objects(body)
    mark = f"mark-{seed}"
    for holder in chance.sample(holders, min(3, len(holders))):
        holder["x_unknown"] = {"mark": mark, "value": unknown}
    try:
        sent = send({**given_sample, "body": body})
    except Refusal:
        # What a format forbids (another member beside resourceSpans, a label that is no text) may be refused
        assert name.startswith("otlp") or "labels" in json.dumps(body)
        return
    refused = [item for item in sent.made.items if item.refusal]
    if not refused:
        assert lost(sent) == []


def test_the_envelope_goes_with_the_first_alert_that_is_taken() -> None:
    given_sample = sample("alertmanager_webhook", "firing")
    body = copy.deepcopy(given_sample["body"])
    body["alerts"][0]["labels"] = None
    made = send({**given_sample, "body": body}).made
    assert [item.refusal is None for item in made.items] == [False, True]
    assert made.events[0]["extras"]["envelope"]["groupKey"] == body["groupKey"]


# --- one episode has one key --------------------------------------------------------------------------------

EPISODES = [
    ("pagerduty", ["trigger", "acknowledge", "resolve"], ["firing", "acknowledged", "resolved"]),
    ("opsgenie", ["create", "acknowledge", "close"], ["firing", "acknowledged", "resolved"]),
    ("victorops", ["critical", "acknowledgement", "recovery"], ["firing", "acknowledged", "resolved"]),
    ("aws_eventbridge", ["alarm", "alarm_ok"], ["firing", "resolved"]),
    ("aws_sns", ["alarm", "alarm_ok"], ["firing", "resolved"]),
    ("sentry_webhook", ["event_alert", "issue_resolved"], ["firing", "resolved"]),
]


@pytest.mark.parametrize(("name", "cases", "states"), EPISODES, ids=[one[0] for one in EPISODES])
def test_states_of_one_alert_share_their_key(name: str, cases: list[str], states: list[str]) -> None:
    made = [send(sample(name, case)).made.events[0] for case in cases]
    assert [event["status"] for event in made] == states
    assert len({event["dedup_key"] for event in made}) == 1


def test_a_cloudwatch_alarm_is_one_alert_by_bus_and_by_topic() -> None:
    bus, topic = (send(sample(name, "alarm")).made.events[0] for name in ("aws_eventbridge", "aws_sns"))
    assert bus["dedup_key"] == topic["dedup_key"]


def test_a_guardduty_finding_is_one_alert_directly_and_through_security_hub() -> None:
    direct, hub = (
        send(sample("aws_eventbridge", case)).made.events[0] for case in ("guardduty", "securityhub_guardduty")
    )
    assert direct["dedup_key"] == hub["dedup_key"]


@pytest.mark.parametrize(("name", "case"), SAMPLES, ids=IDS)
def test_events_are_valid_and_small_enough(name: str, case: str) -> None:
    for event in send(sample(name, case)).made.events:
        assert events.validate(copy.deepcopy(event)) == event
        assert len(events.sent_bytes(event)) < events.MAX_BYTES
