"""One request of a sender from the door to its answer: read, authenticate, translate, take in, remember, answer.

Whatever happens is answered in the sender's dialect, trouble behind us included: a sender is told to send again only
when that can help, and never told that something was taken which was not.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from tocsin.connectors import alerts as leases
from tocsin.connectors import credentials, registry, translate
from tocsin.connectors.ports import AlertStore, Leased, Names
from tocsin.connectors.registry import Call
from tocsin.connectors.translate import Item, Translation
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal, Retry
from tocsin.kernel.http import Answer, Request
from tocsin.signals import events
from tocsin.signals.intake import MAX_ITEMS, Principal

#: What the dedup_key of an alert of the Prometheus family begins with; its fingerprint follows.
_ALERT: Final = "alertmanager:"
#: Styles whose key may stand in the body, which has to be read first.
_IN_BODY: Final = frozenset({"routing-key", "dsn"})


class Door(Protocol):
    """Port: who is let in. Both raise Refusal (401, 403) and Retry."""

    def by_key(self, request: Request) -> Principal:
        """The caller whose API key the request carries in a header, if it may send events."""

    def by_signature(self, key_id: str, request: Request) -> Principal:
        """The caller whose signing secret made Sentry's signature of a body (Sentry-Hook-Signature)."""


class Signer(Protocol):
    """Port: what Amazon SNS signs, as connectors.sns.SnsMessages."""

    def check(self, message: Any) -> None:
        """Raises Refusal for a message that is not SNS's, and Retry."""

    def confirm(self, message: Mapping[str, Any]) -> bool:
        """Accept the subscription that a message asks for, if it does."""


class Taker(Protocol):
    """Port: the intake."""

    def take(self, readers: Sequence[Callable[[], events.Event]], principal: Principal, trace_id: str) -> Answer:
        """As signals.intake.Intake.take: one reader for each event."""


def _read(item: Item) -> events.Event:
    if item.refusal is not None:
        raise item.refusal
    assert item.event is not None
    return item.event


class Reception:
    """Receives requests for all connectors. Without a memory of names (`names`), what is said under a group's name
    counts for the group; without `alerts`, the Alertmanager API has nothing to list; without `sns`, signatures of SNS
    are not looked at.
    """

    def __init__(
        self,
        intake: Taker,
        door: Door,
        *,
        names: Names | None = None,
        alerts: AlertStore | None = None,
        sns: Callable[[], Signer] | None = None,
        now: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._intake, self._door = intake, door
        self._names, self._alerts, self._sns, self._now = names, alerts, sns, now

    def receive(self, call: Call, request: Request) -> Answer:
        """The answer to one request, in its sender's dialect."""
        made: Translation | None = None
        try:
            body, principal = self._authenticated(call, request)
            made = self._translate(call, request, body, principal)
            refused, taken = self._take(made, principal, request.trace_id)
            self._remember(made, principal.project)
            if call.connector.signed and self._sns is not None and not refused:
                self._sns().confirm(body.head)
        except Refusal as refusal:
            refused, taken = [refusal], 0
        except Retry as retry:
            after = str(max(1, round(retry.after_s)))
            message = "The service cannot take this now; send it again later."
            refused, taken = [Refusal("ERR_UNAVAILABLE", message, headers={"Retry-After": after})], 0
        return translate.answer(call, made, refused, taken, trace_id=request.trace_id)

    def hear(self, name: str, document: Any, principal: Principal, trace_id: str) -> tuple[list[Refusal], int]:
        """What came without HTTP, as an event of the account's own bus: (refusals, how many events were taken).

        `name` is the connector's. Raises Refusal for a document refused as a whole, and Retry.
        """
        connector = registry.load(name)
        call = Call(connector, connector.routes[0], {})
        request = Request("POST", connector.routes[0].path, trace_id, trace_id)
        made = self._translate(call, request, translate.Body(document, [(document, {})]), principal)
        refused, taken = self._take(made, principal, trace_id)
        self._remember(made, principal.project)
        return refused, taken

    def lapse(self, principal: Principal, since: int, trace_id: str) -> int:
        """End the alerts of the Alertmanager API whose lease ran out after `since` (Unix ms): how many did.

        To be called with the time of the last call. Calling it twice for a span of time does no harm: the same end is
        the same event. Raises Retry.
        """
        ended = leases.lapsed(self._alerts.all(principal.project), since, self._now()) if self._alerts else []
        for document in ended:
            self.hear("alertmanager_api", document, principal, trace_id)
        return len(ended)

    def _authenticated(self, call: Call, request: Request) -> tuple[translate.Body, Principal]:
        """What was sent, and who sent it."""
        style = call.connector.auth
        body = translate.read(call, request) if style in _IN_BODY else None
        if style == "sentry-signature":
            principal = self._door.by_signature(call.params["key_id"], request)
        else:
            principal = self._door.by_key(credentials.with_key(call, request, body.head if body else None))
        body = body or translate.read(call, request)
        if call.connector.signed and self._sns is not None:
            self._sns().check(body.head)
        return body, principal

    def _translate(self, call: Call, request: Request, body: translate.Body, principal: Principal) -> Translation:
        names = self._names
        recall = partial(names.recall, principal.project) if names is not None else translate.nothing_known
        made = translate.translate(call, request, body, now=self._now(), recall=recall)
        if self._alerts is not None:
            self._date(self._alerts, made, principal.project)
        return made

    def _date(self, alerts: AlertStore, made: Translation, project: str) -> None:
        """Give firing alerts that are told of without a time their start, where Prometheus itself said that they ended
        a moment ago: the relay was overtaken, and nothing fires anew.
        """
        undated: dict[str, list[events.Event]] = {}
        for event in made.events:
            key = event.get("dedup_key", "")
            if event["status"] == "firing" and "occurred_at" not in event and key.startswith(_ALERT):
                undated.setdefault(key.removeprefix(_ALERT), []).append(event)
        for alert in alerts.get(project, undated) if undated else ():
            if 0 <= self._now() - alert.ends_at < leases.RELAY_LAG:
                for event in undated[alert.fingerprint]:
                    event["occurred_at"] = clock.rfc3339(alert.starts_at)

    def _take(self, made: Translation, principal: Principal, trace_id: str) -> tuple[list[Refusal], int]:
        """(refusals, how many were taken or known), a message's worth of events at a time."""
        refused: list[Refusal] = []
        for start in range(0, len(made.items), MAX_ITEMS):
            part = made.items[start : start + MAX_ITEMS]
            answer = self._intake.take([partial(_read, item) for item in part], principal, trace_id)
            for index, outcome in enumerate(answer.data["items"]):
                if outcome["status"] == "refused":
                    error = outcome["error"]
                    details = [Detail(**detail) for detail in error["details"]]
                    refusal = Refusal(error["code"], error["message"], details)
                    made.items[start + index] = Item(part[index].document, refusal=refusal, name=part[index].name)
                    refused.append(refusal)
        return refused, len(made.items) - len(refused)

    def _remember(self, made: Translation, project: str) -> None:
        if self._names is not None and made.groups:
            self._names.remember(project, made.groups)
        if self._alerts is not None and made.alerts:
            self._alerts.put(project, made.alerts)


@dataclass(frozen=True, slots=True)
class Itself:
    """Stands in for a sender where the deployment itself tells something to a project."""

    project: str


def hear_account(reception: Reception, project: str, document: Any) -> int:
    """Take an event of the account's own bus for the operator's project: how many events it made.

    Raises Refusal for what is refused, so that it comes to lie among the dead letters, and Retry.
    """
    if not project:
        raise Retry("no project is the operator's yet", 60.0)
    refused, taken = reception.hear("aws_eventbridge", document, Itself(project), secrets.token_hex(16))
    if refused:
        raise refused[0]
    return taken


def lapse_all(reception: Reception, leased: Leased, now: int) -> int:
    """Reception.lapse for every project that keeps alerts, each since it was last done: how many alerts ended."""
    ended = 0
    for project, since in leased.since():
        try:
            ended += reception.lapse(Itself(project), since, secrets.token_hex(16))
        except Refusal:  # the project was deleted, and its alerts cannot be opened any more
            continue
        leased.done(project, now)
    return ended
