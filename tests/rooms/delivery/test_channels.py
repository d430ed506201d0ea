"""Channels as clients make them: every broken rule named, the secret shown once, conflicts seen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.support.delivery_fakes import ChannelRows, World
from tocsin.delivery.channels import MAX_CHANNELS, Channels
from tocsin.kernel.errors import Refusal

NOW = 1_800_000_000_000
HOOK = {"kind": "webhook", "name": "ops", "url": "https://hooks.example/in"}
MAIL = {"kind": "email", "name": "duty", "to": ["duty@example.org"]}


def _refuse_private(url: str) -> None:
    if "127.0.0.1" in url:
        raise Refusal("ERR_EGRESS_DENIED", "private address")


def _channels(world: World | None = None) -> Channels:
    return Channels(ChannelRows(world or World()), lambda name, version: f"whsec_{name}.{version}", _refuse_private)


def test_the_secret_is_shown_on_creation_and_rotation_only() -> None:
    world = World()
    channels = _channels(world)
    created = channels.create("acme", HOOK, NOW)
    assert created["secret"] == f"whsec_{created['id']}.1"
    assert created["digest"] == "hourly"
    assert created["budget"] == {"per_hour": 60, "burst": 20}
    channel = channels.get("acme", created["id"])
    assert "whsec_" not in json.dumps(channel.as_json())
    assert "whsec_" not in repr(world.channels)
    assert "secret" not in channels.change("acme", channel.id, {"name": "other"})
    rotated = channels.rotate("acme", channel.id, NOW + 5)
    assert rotated["secret"] == f"whsec_{created['id']}.2"
    assert channels.get("acme", channel.id).rotated_at == NOW + 5


def test_mail_has_no_secret_and_keeps_recipients_once() -> None:
    channels = _channels()
    created = channels.create("acme", {**MAIL, "to": ["a@example.org", "a@example.org", "b@example.org"]}, NOW)
    assert "secret" not in created
    assert created["to"] == ["a@example.org", "b@example.org"]
    with pytest.raises(Refusal) as refused:
        channels.rotate("acme", created["id"], NOW)
    assert refused.value.status == 409


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ([], [""]),
        ({}, ["kind", "name", "url"]),
        ({**HOOK, "kind": "pager"}, ["kind"]),
        ({**HOOK, "name": ""}, ["name"]),
        ({**HOOK, "name": "a\nb"}, ["name"]),
        ({**HOOK, "name": 5}, ["name"]),
        ({**HOOK, "url": "https://hooks.example/\r\nX: y"}, ["url"]),
        ({**HOOK, "url": "https://höoks.example/"}, ["url"]),
        ({**HOOK, "url": "https://h.example/" + "a" * 2048}, ["url"]),
        ({**HOOK, "to": ["a@example.org"]}, ["to"]),
        ({**HOOK, "enabled": "yes"}, ["enabled"]),
        ({**HOOK, "digest": "weekly"}, ["digest"]),
        ({**HOOK, "budget": {"per_hour": 10}}, ["budget"]),
        ({**HOOK, "budget": {"per_hour": 10.5, "burst": 1}}, ["budget.per_hour"]),
        ({**HOOK, "id": "chn_mine"}, ["id"]),
        ({**HOOK, "colour": 1}, ["colour"]),
        ({**MAIL, "to": []}, ["to"]),
        ({**MAIL, "to": "a@example.org"}, ["to"]),
        ({**MAIL, "to": ["a@example.org\r\nBcc: evil@example.org"]}, ["to[0]"]),
        (
            {**MAIL, "to": ["ok@example.org", "a b@example.org", "<a@example.org>", "a@b", 7]},
            ["to[1]", "to[2]", "to[3]", "to[4]"],
        ),
        ({**MAIL, "to": [f"u{i}@example.org" for i in range(11)]}, ["to"]),
    ],
)
def test_broken_channels_are_refused_with_every_field(body: Any, fields: list[str]) -> None:
    world = World()
    with pytest.raises(Refusal) as refused:
        _channels(world).create("acme", body, NOW)
    assert refused.value.status == 400
    assert [detail.field for detail in refused.value.details] == fields
    assert world.channels == {}


def test_an_address_that_must_not_be_called_is_refused() -> None:
    channels = _channels()
    with pytest.raises(Refusal, match="private"):
        channels.create("acme", {**HOOK, "url": "http://127.0.0.1/"}, NOW)
    made = channels.create("acme", HOOK, NOW)
    with pytest.raises(Refusal, match="private"):
        channels.change("acme", made["id"], {"url": "http://127.0.0.1/"})


def test_enabling_forgets_why_it_was_disabled() -> None:
    world = World()
    channels = _channels(world)
    made = channels.create("acme", HOOK, NOW)
    channel = channels.get("acme", made["id"])
    world.channels[("acme", channel.id)] = replace(
        channel, enabled=False, disabled_reason="410", failing_since=NOW, version=2
    )
    changed = channels.change("acme", channel.id, {"enabled": True})
    assert (changed["enabled"], changed["disabled_reason"], changed["failing_since"]) == (True, None, None)


def test_kind_cannot_change_and_nothing_is_not_a_change() -> None:
    channels = _channels()
    made = channels.create("acme", HOOK, NOW)
    for body in ({"kind": "email"}, {}, {"to": ["a@example.org"]}):
        with pytest.raises(Refusal):
            channels.change("acme", made["id"], body)


def test_projects_do_not_see_each_other() -> None:
    channels = _channels()
    made = channels.create("acme", HOOK, NOW)
    for step in (
        lambda: channels.get("globex", made["id"]),
        lambda: channels.change("globex", made["id"], {"name": "x"}),
        lambda: channels.rotate("globex", made["id"], NOW),
        lambda: channels.delete("globex", made["id"]),
    ):
        with pytest.raises(Refusal) as refused:
            step()
        assert refused.value.code == "ERR_NOT_FOUND"
    assert channels.list("globex") == []
    channels.delete("acme", made["id"])
    assert channels.list("acme") == []


def test_a_project_has_a_bounded_number_of_channels() -> None:
    channels = _channels()
    for _ in range(MAX_CHANNELS):
        channels.create("acme", HOOK, NOW)
    with pytest.raises(Refusal) as refused:
        channels.create("acme", HOOK, NOW)
    assert refused.value.code == "ERR_CONFLICT"


def test_a_lost_race_is_a_conflict() -> None:
    world = World()
    channels = _channels(world)
    made = channels.create("acme", HOOK, NOW)
    rows = ChannelRows(world)
    stale = Channels(rows, channels.secret_of, channels.check_url)
    rows.put = lambda channel, expected: False  # type: ignore[method-assign]
    with pytest.raises(Refusal) as refused:
        stale.change("acme", made["id"], {"name": "late"})
    assert refused.value.code == "ERR_CONFLICT"
