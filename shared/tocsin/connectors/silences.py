"""Silences: what is not to be told for a while, by whom and why. Matchers and states are Alertmanager's.

A silence mutes an event when all its matchers hold for the event's labels. It hides nothing: the event is stored,
scored and grouped as any other, and what was not sent is on record with the reason that `Reason.as_json` gives.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from tocsin.connectors.regex import RegexError, compiled
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.strict_json import shown

MAX_MATCHERS: Final = 50
MAX_TEXT: Final = 1024
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:/-]{0,127}", re.ASCII)
_MATCHER = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_.:/-]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)
_MATCHER_FIELDS: Final = (("name", str, True), ("value", str, True), ("isRegex", bool, True), ("isEqual", bool, False))
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on one label: =, !=, =~ or !~. A label that is missing counts as empty; patterns are anchored."""

    name: str
    value: str
    is_regex: bool = False
    is_equal: bool = True

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether the condition holds for a label set."""
        value = labels.get(self.name, "")
        met = compiled(self.value).matches(value) if self.is_regex else value == self.value
        return met == self.is_equal

    def __str__(self) -> str:
        operator = ("=" if self.is_equal else "!") + ("~" if self.is_regex else "" if self.is_equal else "=")
        return f'{self.name}{operator}"{self.value}"'

    def as_json(self) -> dict[str, Any]:
        """The matcher in the words of the Alertmanager API."""
        return {"name": self.name, "value": self.value, "isRegex": self.is_regex, "isEqual": self.is_equal}


def _wrong(field: str, rule: str, fix: str, message: str = "The silence is not valid.") -> Refusal:
    return Refusal("ERR_SCHEMA", message, [Detail(field, rule, fix)])


def _checked(matcher: Matcher, field: str) -> Matcher:
    if not LABEL_NAME.fullmatch(matcher.name):
        raise _wrong(f"{field}.name", "label-name", "begin with a letter or _, then letters, digits, _ . : / -")
    if len(matcher.value) > MAX_TEXT:
        raise _wrong(f"{field}.value", "max-length", f"send at most {MAX_TEXT} characters")
    if matcher.is_regex:
        try:
            compiled(matcher.value)
        except RegexError as error:
            raise _wrong(f"{field}.value", "re2", str(error), str(error)) from None
    return matcher


def parse_matcher(text: str, field: str = "filter") -> Matcher:
    """A matcher written as `name="value"`, with =, !=, =~ or !~; quotes may be left out. Raises Refusal ERR_SCHEMA."""
    found = _MATCHER.fullmatch(text[: MAX_TEXT * 2])
    if not found:
        raise _wrong(field, "matcher", 'send name="value", with =, !=, =~ or !~', f"bad matcher format: {shown(text)}")
    name, operator, value = found.groups()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", lambda part: {"n": "\n"}.get(part[1], part[1]), value[1:-1])
    return _checked(Matcher(name, value, operator.endswith("~"), operator[0] == "="), field)


def read_matchers(value: Any) -> tuple[Matcher, ...]:
    """The `matchers` of a silence as the Alertmanager API sends them. Raises Refusal ERR_SCHEMA."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_MATCHERS:
        message = "matchers in body should have at least 1 items"
        raise _wrong("matchers", "count", f"send 1 to {MAX_MATCHERS} matchers", message)
    made = []
    for index, one in enumerate(value):
        field = f"matchers[{index}]"
        if not isinstance(one, dict):
            raise _wrong(field, "object", "send an object")
        for name, kind, needed in _MATCHER_FIELDS:
            if (name in one or needed) and type(one.get(name)) is not kind:
                fix = "send a string" if kind is str else "send true or false"
                raise _wrong(f"{field}.{name}", "required" if name not in one else kind.__name__, fix)
        made.append(_checked(Matcher(one["name"], one["value"], one["isRegex"], one.get("isEqual", True)), field))
    if all(one.holds({}) for one in made):
        fix = "let at least one matcher need a value"
        message = "silence invalid: at least one matcher must not match the empty string"
        raise _wrong("matchers", "not-empty", fix, message)
    return tuple(made)


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence. Times are Unix ms; `comment` is the recorded reason, `created_by` who gave it."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: int
    ends_at: int
    updated_at: int
    created_by: str
    comment: str

    def state(self, now: int) -> Literal["pending", "active", "expired"]:
        """pending before it starts, active while it mutes, then expired."""
        if now >= self.ends_at:
            return "expired"
        return "active" if now >= self.starts_at else "pending"

    def mutes(self, labels: Mapping[str, str], now: int) -> bool:
        """Whether it is active and all its matchers hold."""
        return self.state(now) == "active" and all(one.holds(labels) for one in self.matchers)

    def as_json(self, now: int) -> dict[str, Any]:
        """A gettableSilence of the Alertmanager API."""
        return {
            "id": self.id,
            "status": {"state": self.state(now)},
            "updatedAt": clock.rfc3339(self.updated_at),
            "comment": self.comment,
            "createdBy": self.created_by,
            "startsAt": clock.rfc3339(self.starts_at),
            "endsAt": clock.rfc3339(self.ends_at),
            "matchers": [one.as_json() for one in self.matchers],
        }


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was not sent: the silence, who set it, what for and until when (Unix ms)."""

    silence_id: str
    matchers: tuple[str, ...]
    created_by: str
    comment: str
    until: int

    def __str__(self) -> str:
        until, rule = clock.rfc3339(self.until), ", ".join(self.matchers)
        return f"silence {self.silence_id} of {self.created_by} until {until}: {self.comment} ({rule})"

    def as_json(self) -> dict[str, Any]:
        """The reason as it is recorded and queried."""
        return {
            "reason": "silenced",
            "silence_id": self.silence_id,
            "matchers": list(self.matchers),
            "created_by": self.created_by,
            "comment": self.comment,
            "until": clock.rfc3339(self.until),
        }


def labels_of(event: Mapping[str, Any]) -> dict[str, str]:
    """The label set of an event that matchers see: its tags, and alertname, source, type and entity where no tag is so
    named.
    """
    entity = event.get("entity") or {}
    own = {
        "alertname": event["type"],
        "type": event["type"],
        "source": event["source"],
        "entity": str(entity.get("id", "")),
        "entity_type": str(entity.get("type", "")),
    }
    return {**own, **event.get("tags", {})}


def muting(silences: Iterable[Silence], labels: Mapping[str, str], now: int) -> list[Reason]:
    """A reason for each silence that mutes a label set now, the one that lasts longest first; empty: send it."""
    found = sorted((one for one in silences if one.mutes(labels, now)), key=lambda one: (-one.ends_at, one.id))
    return [Reason(one.id, tuple(map(str, one.matchers)), one.created_by, one.comment, one.ends_at) for one in found]


def silencing(silences: Sequence[Silence], events: Iterable[Mapping[str, Any]], now: int) -> Reason | None:
    """Why nobody is to hear of a group of events: the silence of the first one when all are muted; None otherwise, and
    for no events.
    """
    found = None
    for event in events:
        reasons = muting(silences, labels_of(event), now)
        if not reasons:
            return None
        found = found or reasons[0]
    return found


# --- the life of a silence ----------------------------------------------------------------------------------


def _moment(value: Any, field: str) -> int:
    try:
        return clock.parse_rfc3339(value)
    except (TypeError, ValueError):
        raise _wrong(field, "date-time", "send RFC 3339 with an offset, such as 2026-01-31T10:20:30Z") from None


def read(value: Any, now: int) -> Silence:
    """The silence that a postableSilence asks for; `id` is "" when it names none. Raises Refusal ERR_SCHEMA."""
    if not isinstance(value, dict):
        raise _wrong("(body)", "object", "send a silence as an object")
    matchers = read_matchers(value.get("matchers"))
    for name in ("comment", "createdBy"):
        if not isinstance(value.get(name), str) or not value[name] or len(value[name]) > MAX_TEXT:
            raise _wrong(name, "string", f"send 1 to {MAX_TEXT} characters", f"{name} in body is required")
    starts_at, ends_at = _moment(value.get("startsAt"), "startsAt"), _moment(value.get("endsAt"), "endsAt")
    if starts_at >= ends_at:
        message = "Failed to create silence: start time must be before end time"
        raise _wrong("endsAt", "order", "send a time after startsAt", message)
    if ends_at < now:
        message = "Failed to create silence: end time can't be in the past"
        raise _wrong("endsAt", "future", "send a time in the future", message)
    named = value.get("id") or ""
    if not isinstance(named, str) or (named and not _UUID.fullmatch(named)):
        raise _wrong("id", "uuid", "send the id of a silence, or leave it out")
    return Silence(named, matchers, max(starts_at, 0), ends_at, now, value["createdBy"], value["comment"])


def placed(asked: Silence, old: Silence | None, now: int, new_id: str | None = None) -> list[Silence]:
    """What to keep so that `asked` holds: it alone when it is new or only changes an unexpired one's times and texts;
    otherwise the old one expired and a new one, as Alertmanager does. The last one is the one asked for.
    """
    fresh = new_id or str(uuid.uuid4())
    if old is None:
        return [replace(asked, id=fresh, starts_at=max(asked.starts_at, now))]
    state = old.state(now)
    same = old.matchers == asked.matchers
    if same and (state == "pending" or (state == "active" and asked.starts_at == old.starts_at)):
        return [replace(asked, id=old.id)]
    made = [replace(asked, id=fresh, starts_at=max(asked.starts_at, now))]
    return made if state == "expired" else [expired(old, now), *made]


def expired(silence: Silence, now: int) -> Silence:
    """The silence ended now; a pending one never starts. An expired one stays as it is."""
    if silence.state(now) == "expired":
        return silence
    return replace(silence, starts_at=min(silence.starts_at, now), ends_at=now, updated_at=now)


def listed(silences: Sequence[Silence], filters: Sequence[Matcher], now: int) -> list[dict[str, Any]]:
    """Silences as the API lists them: active ones by end, pending ones by start, expired ones latest first. A filter
    keeps those that have the same matcher.
    """
    kept = [one for one in silences if all(wanted in one.matchers for wanted in filters)]

    def order(one: Silence) -> tuple[int, int, str]:
        state = one.state(now)
        if state == "active":
            return 0, one.ends_at, one.id
        return (1, one.starts_at, one.id) if state == "pending" else (2, -one.ends_at, one.id)

    return [one.as_json(now) for one in sorted(kept, key=order)]
