"""The alerts of the Alertmanager v2 API: what is posted, how it merges, when it ends, and how it is shown.

Prometheus posts an alert again and again while it fires, each time with an `endsAt` a little later: a lease rather
than an end. An event therefore tells of the lease nothing (the same alert posted again makes the very same event,
which has one effect); the lease is kept here, and an alert whose lease runs out has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from tocsin.connectors.identity import fingerprint
from tocsin.connectors.regex import RegexError, compiled
from tocsin.connectors.silences import LABEL_NAME, Matcher, Silence, parse_matcher
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.strict_json import shown

#: Lease of an alert that names no end: Alertmanager's resolve_timeout.
RESOLVE_TIMEOUT: Final = 5 * clock.MINUTE
#: So long after an alert ended, a relay that tells no times may still say that it fires.
RELAY_LAG: Final = 5 * clock.MINUTE
RECEIVER: Final = "tocsin"
VERSION: Final = "0.27.0"
_ZERO_YEAR: Final = "0001-01-01T00:00:00"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. Times are Unix ms. `leased` tells that `ends_at` is a default and not what the sender said."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: int
    ends_at: int
    updated_at: int
    generator_url: str = ""
    leased: bool = False

    @property
    def fingerprint(self) -> str:
        """The name of its label set."""
        return fingerprint(self.labels)

    def status(self, now: int) -> Literal["firing", "resolved"]:
        """resolved once its end has come."""
        return "resolved" if self.ends_at <= now else "firing"

    def as_document(self, sent: Mapping[str, Any], now: int) -> dict[str, Any]:
        """The alert as it was sent, for the mapping: with a start, and with an end only when it has ended."""
        document = {name: value for name, value in sent.items() if name != "endsAt"}
        if not _moment(sent.get("startsAt"), "startsAt"):
            document["startsAt"] = clock.rfc3339(self.starts_at)
        if self.ends_at <= now:
            document["endsAt"] = sent.get("endsAt") or clock.rfc3339(self.ends_at)
        return document

    def as_json(self, silenced_by: Sequence[str] = ()) -> dict[str, Any]:
        """A gettableAlert."""
        made: dict[str, Any] = {
            "annotations": dict(self.annotations),
            "endsAt": clock.rfc3339(self.ends_at),
            "fingerprint": self.fingerprint,
            "receivers": [{"name": RECEIVER}],
            "startsAt": clock.rfc3339(self.starts_at),
            "status": {
                "inhibitedBy": [],
                "silencedBy": list(silenced_by),
                "state": "suppressed" if silenced_by else "active",
            },
            "updatedAt": clock.rfc3339(self.updated_at),
            "labels": dict(self.labels),
        }
        if self.generator_url:
            made["generatorURL"] = self.generator_url
        return made


def _wrong(field: str, rule: str, fix: str, message: str) -> Refusal:
    return Refusal("ERR_SCHEMA", message, [Detail(field, rule, fix)])


def _moment(value: Any, field: str) -> int:
    """Unix ms, or 0 for a time that is not set: missing, or Go's zero time (amtool sends it)."""
    if value is None or value == "" or (isinstance(value, str) and value.startswith(_ZERO_YEAR)):
        return 0
    try:
        return clock.parse_rfc3339(value)
    except (TypeError, ValueError):
        fix = "send RFC 3339 with an offset, such as 2026-01-31T10:20:30Z"
        raise _wrong(field, "date-time", fix, f"{field} must be a date-time") from None


def _label_set(value: Any, field: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(field, "object", "send an object of strings", f"{field} must be an object")
    for name, text in value.items():
        if not LABEL_NAME.fullmatch(name):
            fix = "begin with a letter or _, then letters, digits, _ . : / -"
            raise _wrong(f"{field}.{shown(name)}", "label-name", fix, f"invalid label name {shown(name)}")
        if not isinstance(text, str):
            raise _wrong(f"{field}.{shown(name)}", "string", "send a string", f"{field}.{shown(name)} must be a string")
    return {name: text for name, text in value.items() if text}


def posted(value: Any, now: int, prefix: str = "") -> Alert:
    """The alert that a postableAlert means, with Alertmanager's defaults. Raises Refusal ERR_SCHEMA in its words."""
    if not isinstance(value, dict):
        raise _wrong(prefix.rstrip(".") or "(body)", "object", "send an alert as an object", "an alert is an object")
    labels = _label_set(value.get("labels"), f"{prefix}labels")
    if not labels:
        raise _wrong(f"{prefix}labels", "required", "add at least one label", "at least one label pair required")
    annotations = _label_set(value.get("annotations"), f"{prefix}annotations")
    starts_at = _moment(value.get("startsAt"), f"{prefix}startsAt")
    ends_at = _moment(value.get("endsAt"), f"{prefix}endsAt")
    url = value.get("generatorURL") or ""
    if not isinstance(url, str):
        raise _wrong(f"{prefix}generatorURL", "string", "send a URL", "generatorURL must be a string")
    starts_at = starts_at or ends_at or now
    leased = not ends_at
    ends_at = ends_at or now + RESOLVE_TIMEOUT
    if ends_at < starts_at:
        fix, message = "send a time after startsAt", "start time must be before end time"
        raise _wrong(f"{prefix}endsAt", "order", fix, message)
    return Alert(labels, annotations, starts_at, ends_at, now, url, leased)


def merged(old: Alert | None, new: Alert, now: int) -> Alert:
    """What is known of an alert after another post of it: the later post rules, the earliest start of the episode
    stays, and a stated end is not shortened by a default one.
    """
    if old is None or old.status(now) == "resolved" or new.starts_at > old.ends_at:
        return new
    starts_at = min(old.starts_at, new.starts_at)
    if new.status(now) == "firing" and new.leased and not old.leased and old.ends_at > new.ends_at:
        return replace(new, starts_at=starts_at, ends_at=old.ends_at, leased=False)
    return replace(new, starts_at=starts_at)


def lapsed(alerts: Iterable[Alert], since: int, now: int) -> list[dict[str, Any]]:
    """Alerts whose lease ran out after `since` and until `now`, as postableAlerts that say so: post them."""
    return [
        {
            "labels": dict(alert.labels),
            "annotations": dict(alert.annotations),
            "startsAt": clock.rfc3339(alert.starts_at),
            "endsAt": clock.rfc3339(alert.ends_at),
            **({"generatorURL": alert.generator_url} if alert.generator_url else {}),
        }
        for alert in alerts
        if since < alert.ends_at <= now
    ]


# --- the reading side of the API ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query:
    """Filters of GET alerts and groups. `receiver` is a pattern."""

    filters: tuple[Matcher, ...] = ()
    active: bool = True
    silenced: bool = True
    receiver: str = ""


def _flag(query: Mapping[str, tuple[str, ...]], name: str) -> bool:
    value = query.get(name, ("true",))[0]
    if value not in ("true", "false"):
        message = f'{name} in query must be of type boolean: "{shown(value)}"'
        raise Refusal("ERR_QUERY", message, [Detail(name, "boolean", "send true or false")])
    return value == "true"


def query(parameters: Mapping[str, tuple[str, ...]]) -> Query:
    """The filters of a request's query. Raises Refusal ERR_QUERY or ERR_SCHEMA."""
    receiver = parameters.get("receiver", ("",))[0]
    if receiver:
        try:
            compiled(receiver)
        except RegexError as error:
            message = f"failed to parse receiver param: {error}"
            raise Refusal("ERR_QUERY", message, [Detail("receiver", "re2", str(error))]) from None
    _flag(parameters, "inhibited")
    _flag(parameters, "unprocessed")
    filters = tuple(parse_matcher(text) for text in parameters.get("filter", ()))
    return Query(filters, _flag(parameters, "active"), _flag(parameters, "silenced"), receiver)


def _shown(
    alerts: Iterable[Alert], silences: Sequence[Silence], wanted: Query, now: int
) -> list[tuple[Alert, list[str]]]:
    if wanted.receiver and not compiled(wanted.receiver).matches(RECEIVER):
        return []
    made = []
    for alert in alerts:
        if alert.status(now) == "resolved" or not all(one.holds(alert.labels) for one in wanted.filters):
            continue
        muted = sorted(one.id for one in silences if one.mutes(alert.labels, now))
        if wanted.silenced if muted else wanted.active:
            made.append((alert, muted))
    return sorted(made, key=lambda pair: pair[0].fingerprint)


def list_alerts(alerts: Iterable[Alert], silences: Sequence[Silence], wanted: Query, now: int) -> list[dict[str, Any]]:
    """Answer of GET /api/v2/alerts: what fires now, in order of fingerprints."""
    return [alert.as_json(muted) for alert, muted in _shown(alerts, silences, wanted, now)]


def list_groups(alerts: Iterable[Alert], silences: Sequence[Silence], wanted: Query, now: int) -> list[dict[str, Any]]:
    """Answer of GET /api/v2/alerts/groups: alerts grouped by alertname, in order of their labels."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for alert, muted in _shown(alerts, silences, wanted, now):
        groups.setdefault(alert.labels.get("alertname", ""), []).append(alert.as_json(muted))
    return [
        {"alerts": found, "labels": {"alertname": name} if name else {}, "receiver": {"name": RECEIVER}}
        for name, found in sorted(groups.items())
    ]


def receivers() -> list[dict[str, str]]:
    """Answer of GET /api/v2/receivers: the one receiver that everything goes to."""
    return [{"name": RECEIVER}]


def status(started_at: int) -> dict[str, Any]:
    """Answer of GET /api/v2/status; `started_at` is Unix ms. `amtool` reads version, and configuration as YAML."""
    return {
        "cluster": {"peers": [], "status": "disabled"},
        "config": {"original": f"route:\n  receiver: {RECEIVER}\nreceivers:\n- name: {RECEIVER}\n"},
        "uptime": clock.rfc3339(started_at),
        "versionInfo": {
            "branch": "",
            "buildDate": "",
            "buildUser": "",
            "goVersion": "",
            "revision": "",
            "version": VERSION,
        },
    }


def error_answer(refusal: Refusal) -> tuple[int, Any]:
    """Status and JSON body of a refusal in the API's dialect: the message as a JSON string, or {code, message} for a
    body that could not be read.
    """
    if refusal.code.startswith(("ERR_JSON", "ERR_BODY", "ERR_CONTENT")):
        return refusal.status, {"code": refusal.status, "message": refusal.message}
    texts = "; ".join(f"{detail.field}: {detail.fix}" for detail in refusal.details)
    return refusal.status, f"{refusal.message} ({texts})" if texts else refusal.message
