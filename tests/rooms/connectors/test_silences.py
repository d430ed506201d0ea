"""Silences: matchers, states, what they mute and the reason on record."""

from __future__ import annotations

from typing import Any

import pytest

from tocsin.connectors import silences
from tocsin.connectors.silences import (
    Matcher,
    Silence,
    expired,
    labels_of,
    listed,
    muting,
    parse_matcher,
    placed,
    read,
    silencing,
)
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal

NOW = clock.parse_rfc3339("2026-11-21T10:00:00Z")
POSTED: dict[str, Any] = {
    "matchers": [
        {"name": "alertname", "value": "InstanceDown", "isRegex": False, "isEqual": True},
        {"name": "instance", "value": "web-[0-9]+", "isRegex": True},
    ],
    "startsAt": "2026-11-21T10:00:00Z",
    "endsAt": "2026-11-21T11:00:00Z",
    "createdBy": "ann",
    "comment": "deploy",
}


def silence(**changed: Any) -> Silence:
    return placed(read({**POSTED, **changed}, NOW), None, NOW, "11111111-1111-4111-8111-111111111111")[0]


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ('a="b"', {"a": "b"}, True),
        ("a=b", {"a": "b"}, True),
        (" a = b ", {"a": "b"}, True),
        ('a="b"', {}, False),
        ('a=""', {}, True),
        ('a!="b"', {}, True),
        ('a!="b"', {"a": "b"}, False),
        ('a=~"b|c"', {"a": "c"}, True),
        ('a=~"b"', {"a": "bb"}, False),
        ('a!~"b.*"', {"a": "bb"}, False),
        ('a!~"b.*"', {"a": "c"}, True),
        ('a=~".+"', {}, False),
        ('a="say \\"x\\"\\n"', {"a": 'say "x"\n'}, True),
    ],
)
def test_matchers(text: str, labels: dict[str, str], holds: bool) -> None:
    assert parse_matcher(text).holds(labels) is holds


@pytest.mark.parametrize("text", ["", "a", '="b"', "1a=b", 'a=~"("', "a=~" + "b" * 1100, "a b=c"])
def test_wrong_matchers_are_told(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_matcher(text)
    assert caught.value.details[0].fix


def test_a_matcher_is_written_as_it_is_read() -> None:
    for text in ('a="b"', 'a!="b"', 'a=~"b"', 'a!~"b"'):
        assert str(parse_matcher(text)) == text


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"matchers": []}, "matchers"),
        ({"matchers": None}, "matchers"),
        ({"matchers": [7]}, "matchers[0]"),
        ({"matchers": [{"name": "a", "value": "b"}]}, "matchers[0].isRegex"),
        ({"matchers": [{"name": "a", "value": 7, "isRegex": False}]}, "matchers[0].value"),
        ({"matchers": [{"name": "a", "value": "b", "isRegex": False, "isEqual": 1}]}, "matchers[0].isEqual"),
        ({"matchers": [{"name": "a b", "value": "b", "isRegex": False}]}, "matchers[0].name"),
        ({"matchers": [{"name": "a", "value": "(", "isRegex": True}]}, "matchers[0].value"),
        ({"matchers": [{"name": "a", "value": ".*", "isRegex": True}]}, "matchers"),
        ({"matchers": [{"name": "a", "value": "b", "isRegex": False, "isEqual": False}]}, "matchers"),
        ({"comment": ""}, "comment"),
        ({"createdBy": None}, "createdBy"),
        ({"startsAt": "soon"}, "startsAt"),
        ({"endsAt": None}, "endsAt"),
        ({"endsAt": "2026-11-21T10:00:00Z"}, "endsAt"),
        ({"startsAt": "2026-11-21T08:00:00Z", "endsAt": "2026-11-21T09:00:00Z"}, "endsAt"),
        ({"id": "mine"}, "id"),
    ],
)
def test_wrong_silences_are_told_by_field(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as caught:
        read({**POSTED, **changed}, NOW)
    (detail,) = caught.value.details
    assert (detail.field, bool(detail.fix)) == (field, True)


def test_words_of_a_refusal_are_alertmanagers() -> None:
    with pytest.raises(Refusal, match="Failed to create silence: start time must be before end time"):
        read({**POSTED, "endsAt": POSTED["startsAt"]}, NOW)


def test_states() -> None:
    one = silence(startsAt="2026-11-21T10:30:00Z")
    states = [one.state(NOW + minutes * clock.MINUTE) for minutes in (0, 30, 59, 60)]
    assert states == ["pending", "active", "active", "expired"]


def test_an_event_is_muted_with_a_reason() -> None:
    event = {
        "type": "InstanceDown",
        "source": "prometheus",
        "entity": {"type": "instance", "id": "web-1"},
        "tags": {"instance": "web-1"},
    }
    (reason,) = muting([silence()], labels_of(event), NOW)
    assert reason.as_json() == {
        "reason": "silenced",
        "silence_id": "11111111-1111-4111-8111-111111111111",
        "matchers": ['alertname="InstanceDown"', 'instance=~"web-[0-9]+"'],
        "created_by": "ann",
        "comment": "deploy",
        "until": "2026-11-21T11:00:00.000Z",
    }
    assert muting([silence()], labels_of({**event, "tags": {"instance": "db-1"}}), NOW) == []
    assert muting([silence()], labels_of(event), NOW + clock.HOUR) == []


def test_tags_go_before_names_of_the_event() -> None:
    event = {"type": "t", "source": "s", "tags": {"alertname": "A", "source": "mine"}}
    assert labels_of(event) == {
        "alertname": "A",
        "type": "t",
        "source": "mine",
        "entity": "",
        "entity_type": "",
    }


def test_changing_times_and_texts_keeps_the_id() -> None:
    old = silence()
    asked = read({**POSTED, "id": old.id, "endsAt": "2026-11-21T12:00:00Z", "comment": "longer"}, NOW + 1)
    (kept,) = placed(asked, old, NOW + 1)
    assert (kept.id, kept.comment, kept.ends_at - old.ends_at) == (old.id, "longer", clock.HOUR)


def test_changing_matchers_ends_the_old_one() -> None:
    old = silence()
    other = [{"name": "job", "value": "x", "isRegex": False}]
    before, after = placed(read({**POSTED, "id": old.id, "matchers": other}, NOW + 1), old, NOW + 1)
    assert (before.id, before.state(NOW + 1)) == (old.id, "expired")
    assert after.id != old.id
    assert after.state(NOW + 1) == "active"


def test_an_expired_one_is_not_revived() -> None:
    old = expired(silence(), NOW + 5)
    later = NOW + 10
    (fresh,) = placed(read({**POSTED, "id": old.id}, later), old, later)
    assert fresh.id != old.id
    assert expired(old, later) == old


def test_ending_a_pending_one() -> None:
    one = expired(silence(startsAt="2026-11-21T10:30:00Z"), NOW + 5)
    assert one.state(NOW + 5) == "expired"
    assert one.starts_at <= one.ends_at


def test_listing_and_filtering() -> None:
    late, soon = silence(endsAt="2026-11-21T12:00:00Z"), silence()
    pending = silence(startsAt="2026-11-21T10:30:00Z")
    over = expired(silence(), NOW)
    shown = listed([over, pending, late, soon], [], NOW)
    assert [one["status"]["state"] for one in shown] == ["active", "active", "pending", "expired"]
    assert shown[0]["endsAt"] < shown[1]["endsAt"]
    assert shown[0]["matchers"][1] == {"name": "instance", "value": "web-[0-9]+", "isRegex": True, "isEqual": True}
    assert listed([soon], [Matcher("alertname", "Other")], NOW) == []
    assert len(listed([soon], [Matcher("alertname", "InstanceDown")], NOW)) == 1


def test_at_most_so_many_matchers() -> None:
    many = [{"name": "a", "value": "b", "isRegex": False}] * (silences.MAX_MATCHERS + 1)
    with pytest.raises(Refusal):
        read({**POSTED, "matchers": many}, NOW)


def test_a_group_is_silenced_when_all_of_it_is() -> None:
    event = {"type": "InstanceDown", "source": "prometheus", "tags": {"alertname": "InstanceDown"}}
    rule = silence(matchers=[{"name": "alertname", "value": "InstanceDown", "isRegex": False}])
    reason = silencing([rule], [event, event], NOW)
    assert reason is not None
    assert str(reason) == f'silence {rule.id} of ann until 2026-11-21T11:00:00.000Z: deploy (alertname="InstanceDown")'
    assert silencing([rule], [event, {**event, "tags": {}, "type": "DiskFull"}], NOW) is None
    assert silencing([rule], [], NOW) is None
    assert silencing([rule], [event], NOW + clock.HOUR) is None
