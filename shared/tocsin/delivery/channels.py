"""Channels of a project: what a client may ask for, what is refused and why, and the secret that is shown
once.

A webhook's signing secret is derived from the deployment's master secret, the channel id and the secret
version. It is never stored: it appears in the answer to creation and to rotation and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tocsin.delivery.model import DIGESTS, Channel, ChannelKind, Json, refuse
from tocsin.delivery.ports import ChannelStore
from tocsin.delivery.routing import parse_budget
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.ids import new_id

MAX_CHANNELS: Final = 50
MAX_RECIPIENTS: Final = 10
MAX_URL: Final = 2048
_WRITABLE: Final = frozenset({"name", "url", "to", "enabled", "budget", "digest"})
_READONLY: Final = frozenset(
    {"id", "project", "secret_version", "created_at", "disabled_reason", "failing_since", "version", "secret"}
)
#: Addresses of RFC 5321's dot-atom form, ASCII only; quoted local parts and address literals are not
#: accepted.
_ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]{0,61}[A-Za-z0-9]",
    re.ASCII,
)
#: Raises Refusal (ERR_URL or ERR_EGRESS_DENIED) for an address that must not be called.
CheckUrl = Callable[[str], None]
#: Secret text of (channel id, secret version).
SecretOf = Callable[[str, int], str]


def parse_channel(project: str, body: Any, now: int, check_url: CheckUrl) -> Channel:
    """A new channel from a client's JSON. Refuses with every broken rule at once.

    {"kind": "webhook", "name", "url"} or {"kind": "email", "name", "to": [...]}, with enabled, budget and
    digest optional.
    """
    if not isinstance(body, Mapping):
        raise refuse([Detail("", "must be an object", "send a JSON object")], "not a channel")
    details: list[Detail] = []
    kind: ChannelKind = "email" if body.get("kind") == "email" else "webhook"
    if body.get("kind") != kind:
        details.append(Detail("kind", "must be webhook or email", "choose one"))
    if "name" not in body:
        details.append(Detail("name", "is required", "name the channel"))
    target = "url" if kind == "webhook" else "to"
    if target not in body:
        details.append(Detail(target, f"is required for kind {kind}", f"send {target}"))
    blank = Channel(id=new_id("chn", now), project=project, kind=kind, name="", created_at=now)
    return _apply(blank, {name: value for name, value in body.items() if name != "kind"}, details, check_url)


def patch_channel(channel: Channel, body: Any, check_url: CheckUrl) -> Channel:
    """The channel after a client's partial change. Enabling it again forgets why it was disabled."""
    if not isinstance(body, Mapping) or not body:
        raise refuse([Detail("", "must be an object with at least one field", "send what to change")], "not a change")
    details = []
    if "kind" in body and body["kind"] != channel.kind:
        details.append(Detail("kind", "cannot change", "create another channel"))
    changed = _apply(channel, {name: value for name, value in body.items() if name != "kind"}, details, check_url)
    if body.get("enabled") is True:
        changed = replace(changed, disabled_reason=None, failing_since=None)
    return replace(changed, version=channel.version + 1)


def _apply(channel: Channel, body: Mapping[str, Any], details: list[Detail], check_url: CheckUrl) -> Channel:
    for name in sorted(set(body) - _WRITABLE):
        fix = "it is set by the server: remove it" if name in _READONLY else "remove it"
        details.append(Detail(str(name)[:64], "is not a writable field of a channel", fix))
    changes: dict[str, Any] = {}
    if "name" in body:
        changes["name"] = name = body["name"]
        if not isinstance(name, str) or not 1 <= len(name) <= 80 or not name.isprintable():
            details.append(Detail("name", "must be 1 to 80 printable characters", "shorten the name"))
    if "url" in body:
        changes["url"] = _url(body["url"], channel, details)
    if "to" in body:
        changes["to"] = _recipients(body["to"], channel, details)
    if "enabled" in body:
        changes["enabled"] = body["enabled"]
        if not isinstance(body["enabled"], bool):
            details.append(Detail("enabled", "must be true or false", "send a boolean"))
    if "digest" in body:
        changes["digest"] = body["digest"]
        if body["digest"] not in DIGESTS:
            details.append(Detail("digest", f"must be one of {', '.join(DIGESTS)}", "choose one"))
    if "budget" in body:
        changes["budget"] = parse_budget(body["budget"], "budget", details)
    if details:
        raise refuse(details, "the channel breaks the rules listed in details")
    if changes.get("url"):
        check_url(changes["url"])
    return replace(channel, **changes)


def _url(value: Any, channel: Channel, details: list[Detail]) -> str | None:
    if channel.kind != "webhook":
        details.append(Detail("url", "belongs to webhook channels", "remove it"))
    elif not isinstance(value, str) or not 1 <= len(value) <= MAX_URL or not value.isascii() or not value.isprintable():
        details.append(
            Detail("url", f"must be an absolute URL of at most {MAX_URL} ASCII characters", "send an https URL")
        )
    else:
        return value
    return None


def _recipients(value: Any, channel: Channel, details: list[Detail]) -> tuple[str, ...]:
    if channel.kind != "email":
        details.append(Detail("to", "belongs to email channels", "remove it"))
    elif not isinstance(value, list) or not 1 <= len(value) <= MAX_RECIPIENTS:
        details.append(Detail("to", f"must be a list of 1 to {MAX_RECIPIENTS} addresses", 'send ["name@example.org"]'))
    else:
        for index, item in enumerate(value):
            if not isinstance(item, str) or len(item) > 254 or not _ADDRESS.fullmatch(item):
                details.append(Detail(f"to[{index}]", "is not a plain ASCII e-mail address", "send name@example.org"))
        return tuple(dict.fromkeys(item for item in value if isinstance(item, str)))
    return ()


@dataclass(frozen=True, slots=True)
class Channels:
    """What the API does with channels."""

    store: ChannelStore
    secret_of: SecretOf
    check_url: CheckUrl

    def list(self, project: str) -> Sequence[Channel]:
        return self.store.get_all(project)

    def get(self, project: str, channel_id: str) -> Channel:
        """Refuses ERR_NOT_FOUND."""
        channel = self.store.get(project, channel_id)
        if channel is None:
            raise Refusal("ERR_NOT_FOUND", "no such channel")
        return channel

    def create(self, project: str, body: Any, now: int) -> Json:
        """The stored channel; for a webhook with its `secret`, this once."""
        if len(self.store.get_all(project)) >= MAX_CHANNELS:
            raise Refusal("ERR_CONFLICT", f"a project has at most {MAX_CHANNELS} channels; delete one first")
        channel = parse_channel(project, body, now, self.check_url)
        self._put(channel, None)
        return self._with_secret(channel)

    def change(self, project: str, channel_id: str, body: Any) -> Json:
        channel = self.get(project, channel_id)
        changed = patch_channel(channel, body, self.check_url)
        self._put(changed, channel.version)
        return changed.as_json()

    def rotate(self, project: str, channel_id: str, now: int) -> Json:
        """A new secret, shown this once. For a day deliveries carry signatures of both the new and the old
        one.
        """
        channel = self.get(project, channel_id)
        if channel.kind != "webhook":
            raise Refusal("ERR_CONFLICT", "only webhook channels have a secret")
        rotated = replace(
            channel,
            secret_version=channel.secret_version + 1,
            rotated_at=now,
            version=channel.version + 1,
        )
        self._put(rotated, channel.version)
        return self._with_secret(rotated)

    def delete(self, project: str, channel_id: str) -> None:
        channel = self.get(project, channel_id)
        if not self.store.delete(project, channel_id, channel.version):
            raise Refusal("ERR_CONFLICT", "the channel changed meanwhile; read it again")

    def _put(self, channel: Channel, expected_version: int | None) -> None:
        if not self.store.put(channel, expected_version):
            raise Refusal("ERR_CONFLICT", "the channel changed meanwhile; read it again")

    def _with_secret(self, channel: Channel) -> Json:
        shown = channel.as_json()
        if channel.kind == "webhook":
            shown["secret"] = self.secret_of(channel.id, channel.secret_version)
        return shown
