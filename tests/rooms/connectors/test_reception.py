"""From the door to the answer, with the real intake: dialects under failure, memory, and the Alertmanager API."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tools import connectors as tool

from tests.rooms.connectors.support import sample
from tocsin.connectors import registry
from tocsin.connectors.alertmanager import PREFIX, Alertmanager
from tocsin.connectors.alerts import Alert, merged
from tocsin.connectors.mapping import Known
from tocsin.connectors.reception import Reception
from tocsin.connectors.silences import Silence
from tocsin.kernel import clock
from tocsin.kernel.envelope import Envelope
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.http import Answer, Request
from tocsin.signals import intake

NOW = clock.parse_rfc3339("2026-11-21T10:54:10.000Z")


@dataclass
class Caller:
    project: str = "prj_1"


@dataclass
class World:
    """Everything outside: a queue that may be down, a door, memories."""

    queued: list[dict[str, Any]] = field(default_factory=list)
    down: bool = False
    names: dict[str, Sequence[Known]] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    silences: dict[str, Silence] = field(default_factory=dict)
    now: int = NOW

    def send(self, envelope: Envelope) -> None:
        if self.down:
            raise Retry("the queue is down", 4)
        self.queued += envelope.payload["events"]

    def by_key(self, request: Request) -> Caller:
        if request.header("x-api-key") == "tcn_demo" or request.header("authorization") == "Bearer tcn_demo":
            return Caller()
        raise Refusal("ERR_AUTH_INVALID", "The API key is not valid.", headers={"WWW-Authenticate": "Bearer"})

    def by_signature(self, key_id: str, request: Request) -> Caller:
        made = hmac.new(f"secret of {key_id}".encode(), request.body, hashlib.sha256).hexdigest()
        if request.header("sentry-hook-signature") != made:
            raise Refusal("ERR_SIG_INVALID", "The signature is not valid.")
        return Caller()

    def recall(self, project: str, name: str) -> Sequence[Known]:
        return self.names.get(f"{project}|{name}", ())

    def remember(self, project: str, groups: Mapping[str, Sequence[Known]]) -> None:
        self.names |= {f"{project}|{name}": known for name, known in groups.items()}

    def reception(self) -> Reception:
        taker = intake.Intake(self, marks=None, protect=lambda _, event: event, now=lambda: self.now)
        return Reception(taker, self, names=self, alerts=Alerts(self), now=lambda: self.now)

    def receive(self, given: Mapping[str, Any], **changed: Any) -> Answer:
        request = tool.request_of({**given, **changed})
        call = registry.find(request.method, request.path)
        assert call is not None
        self.now = clock.parse_rfc3339(given["now"])
        return self.reception().receive(call, request)

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        request = Request(
            method,
            PREFIX + path,
            "t" * 32,
            "r",
            {"content-type": ("application/json",)},
            {name: (value,) for name, value in query.items()},
            body=b"" if body is None else json.dumps(body).encode(),
        )
        api = Alertmanager(Alerts(self), Silences(self), started_at=NOW, now=lambda: self.now)
        answer = api.answer(request, "prj_1")
        assert answer.raw is not None
        assert isinstance(answer.raw[0], str)
        return answer.status, json.loads(answer.raw[0]) if answer.raw[0] else None


@dataclass
class Alerts:
    world: World

    def put(self, project: str, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            old = self.world.alerts.get(alert.fingerprint)
            self.world.alerts[alert.fingerprint] = merged(old, alert, self.world.now)

    def get(self, project: str, fingerprints: Collection[str]) -> Sequence[Alert]:
        return [alert for name, alert in self.world.alerts.items() if name in fingerprints]

    def all(self, project: str) -> Sequence[Alert]:
        return list(self.world.alerts.values())


@dataclass
class Silences:
    world: World

    def put(self, project: str, silence: Silence) -> None:
        self.world.silences[silence.id] = silence

    def get(self, project: str, silence_id: str) -> Silence | None:
        return self.world.silences.get(silence_id)

    def all(self, project: str) -> Sequence[Silence]:
        return list(self.world.silences.values())


def text(answer: Answer) -> Any:
    assert answer.raw is not None
    return answer.raw[0]


def test_taken_in_and_answered_in_the_dialect() -> None:
    world = World()
    answer = world.receive(sample("pagerduty", "trigger"))
    assert (answer.status, json.loads(text(answer))["status"]) == (202, "success")
    assert [event["dedup_key"] for event in world.queued] == ["pagerduty:srv01/HTTP"]
    assert world.queued[0]["project_id"] == "prj_1"


def test_a_resend_is_taken_again_without_harm() -> None:
    world = World()
    first = world.receive(sample("alertmanager_webhook", "firing"))
    again = world.receive(sample("alertmanager_webhook", "firing"))
    assert first.status == again.status == 200
    assert [one["event_id"] for one in world.queued[:2]] == [one["event_id"] for one in world.queued[2:]]


@pytest.mark.parametrize(
    ("name", "case", "status"),
    [
        ("alertmanager_api", "firing", 503),
        ("alertmanager_webhook", "firing", 503),
        ("pagerduty", "trigger", 429),
        ("opsgenie", "create", 429),
        ("victorops", "critical", 503),
        ("sentry", "error", 429),
        ("otlp_traces", "json", 503),
        ("langfuse", "batch", 503),
    ],
)
def test_trouble_behind_us_asks_for_another_try(name: str, case: str, status: int) -> None:
    answer = World(down=True).receive(sample(name, case))
    assert answer.status == status
    assert answer.headers["Retry-After"] == "4"


def test_a_memory_that_fails_asks_for_another_try() -> None:
    class Forgetful(World):
        def remember(self, project: str, groups: Mapping[str, Sequence[Known]]) -> None:
            raise Retry("no memory")

    assert Forgetful().receive(sample("opsgenie", "alertmanager_firing")).status == 429


@pytest.mark.parametrize(
    ("name", "case", "change", "status"),
    [
        ("alertmanager_webhook", "firing", {"authorization": "Bearer other"}, 401),
        ("opsgenie", "create", {"authorization": "GenieKey other"}, 401),
        ("sentry", "error", {"x-sentry-auth": "Sentry sentry_key=other"}, 403),
        ("sentry", "error", {}, 403),
    ],
)
def test_a_wrong_key_is_refused_in_the_dialect(name: str, case: str, change: dict[str, str], status: int) -> None:
    given = sample(name, case)
    kept = {"content-type": given["headers"]["content-type"]}
    given["text"] = given.get("text", "").replace("tcn_demo", "other")
    world = World()
    assert world.receive(given, headers={**kept, **change}).status == status
    assert world.queued == []


def test_a_wrong_routing_key_takes_nothing() -> None:
    given = sample("pagerduty", "trigger")
    world = World()
    assert world.receive(given, body={**given["body"], "routing_key": "other"}).status == 403
    assert world.queued == []


def test_sentrys_signature_opens_the_door() -> None:
    given = sample("sentry_webhook", "event_alert")
    body = tool.request_of(given).body
    signature = hmac.new(b"secret of key_Abcdefghijkl", body, hashlib.sha256).hexdigest()
    signed = {**given["headers"], "sentry-hook-signature": signature}
    world = World()
    assert world.receive(given, headers=signed).status == 200
    assert world.receive(given, headers={**signed, "sentry-hook-signature": "0" * 64}).status == 401
    assert len(world.queued) == 1


def test_what_the_intake_refuses_is_counted() -> None:
    given = sample("otlp_logs", "json")
    record = given["body"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    big = {**record, "body": {"stringValue": "x" * 70_000}, "timeUnixNano": "1795258400000000001"}
    given["body"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"].append(big)
    world = World()
    answer = world.receive(given)
    assert answer.status == 200
    assert json.loads(text(answer))["partialSuccess"]["rejectedLogRecords"] == 1
    assert len(world.queued) == 1


def test_more_than_one_messages_worth_is_taken_in_parts() -> None:
    given = sample("otlp_logs", "json")
    records = given["body"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    records += [{**records[0], "timeUnixNano": str(1_795_258_400_000_000_000 + n)} for n in range(1, 700)]
    world = World()
    assert world.receive(given).status == 200
    assert len(world.queued) == 700


def test_an_event_of_the_accounts_bus_needs_no_http() -> None:
    world = World()
    document = sample("aws_eventbridge", "alarm")["body"]
    assert world.reception().hear("aws_eventbridge", document, Caller(), "t" * 32) == ([], 1)
    assert world.queued[0]["type"] == "cloudwatch.alarm"
    refused, taken = world.reception().hear("aws_eventbridge", {"id": "x"}, Caller(), "t" * 32)
    assert (len(refused), taken) == (1, 0)


def test_nothing_in_a_request_is_nothing_taken() -> None:
    world = World()
    given = sample("otlp_metrics", "json")
    assert world.receive(given, body={"resourceMetrics": []}).status == 200
    assert world.queued == []


def test_opsgenies_close_resolves_what_fired() -> None:
    world = World()
    world.receive(sample("opsgenie", "alertmanager_firing"))
    world.receive(sample("opsgenie", "alertmanager_close"))
    fired, resolved = (
        {event["dedup_key"] for event in world.queued if event["status"] == status} for status in ("firing", "resolved")
    )
    assert fired == resolved
    assert len(fired) == 2


def test_alerts_that_prometheus_posts_no_more_end_when_their_lease_does() -> None:
    world = World()
    world.receive(sample("alertmanager_api", "firing"))
    began, world.queued = world.now, []
    reception = world.reception()
    assert reception.lapse(Caller(), began, "t" * 32) == 0
    world.now = began + 10 * clock.MINUTE
    assert reception.lapse(Caller(), began, "t" * 32) == 2
    assert reception.lapse(Caller(), began, "t" * 32) == 2
    assert [event["status"] for event in world.queued] == ["resolved"] * 4
    assert len({event["event_id"] for event in world.queued}) == 2
    assert world.ask("GET", "alerts")[1] == []


# --- the Alertmanager API ------------------------------------------------------------------------------------


def test_alerts_silences_and_their_life() -> None:
    world = World()
    assert world.receive(sample("alertmanager_api", "firing")).status == 200
    status, shown = world.ask("GET", "alerts")
    assert (status, len(shown)) == (200, 2)
    posted = {
        "matchers": [{"name": "instance", "value": "db-1.*", "isRegex": True}],
        "startsAt": clock.rfc3339(world.now),
        "endsAt": clock.rfc3339(world.now + clock.HOUR),
        "createdBy": "ann",
        "comment": "deploy",
    }
    status, made = world.ask("POST", "silences", posted)
    assert status == 200
    assert world.ask("GET", f"silence/{made['silenceID']}")[1]["comment"] == "deploy"
    status, groups = world.ask("GET", "alerts/groups")
    states = {one["labels"]["instance"]: one["status"]["state"] for group in groups for one in group["alerts"]}
    assert states == {"db-1:9100": "suppressed", "db-2:9100": "active"}
    assert world.ask("GET", "alerts", silenced="false")[1][0]["labels"]["instance"] == "db-2:9100"
    assert world.ask("DELETE", f"silence/{made['silenceID']}") == (200, None)
    assert world.ask("GET", "silences")[1][0]["status"]["state"] == "expired"
    world.receive(sample("alertmanager_api", "resolved_one"))
    assert [one["labels"]["instance"] for one in world.ask("GET", "alerts")[1]] == ["db-2:9100"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "silence/11111111-1111-4111-8111-111111111111", None, 404),
        ("DELETE", "silence/11111111-1111-4111-8111-111111111111", None, 404),
        ("POST", "silences", {"id": "11111111-1111-4111-8111-111111111111"}, 400),
        ("POST", "silences", [], 400),
        ("POST", "status", {}, 404),
        ("GET", "alerts/other", None, 404),
        ("GET", "nothing", None, 404),
        ("GET", "", None, 404),
    ],
)
def test_refusals_of_the_api(method: str, path: str, body: Any, status: int) -> None:
    got, said = World().ask(method, path, body)
    assert got == status
    assert said


def test_the_rest_of_the_api() -> None:
    world = World()
    assert world.ask("GET", "receivers") == (200, [{"name": "tocsin"}])
    assert world.ask("GET", "status")[1]["versionInfo"]["version"]
    assert world.ask("GET", "alerts", filter="(")[0] == 400


@pytest.mark.parametrize("relay", ["pagerduty", "opsgenie", "victorops"])
def test_a_relay_that_prometheus_overtook_fires_nothing_anew(relay: str) -> None:
    world = World()
    for case in ("firing", "resolved_one", "resolved"):
        world.receive(sample("alertmanager_api", case))
    ends = {alert.fingerprint: alert.ends_at for alert in world.alerts.values()}
    starts = {alert.fingerprint: alert.starts_at for alert in world.alerts.values()}

    def relayed(after_ms: int) -> list[dict[str, Any]]:
        world.queued.clear()
        late = {"now": clock.rfc3339(max(ends.values()) + after_ms)}
        assert world.receive({**sample(relay, "alertmanager_firing"), **late}).status in (200, 202)
        return world.queued

    for event in relayed(20 * clock.SECOND):
        assert event["occurred_at"] == clock.rfc3339(starts[event["dedup_key"].removeprefix("alertmanager:")])
        assert clock.parse_rfc3339(event["occurred_at"]) < ends[event["dedup_key"].removeprefix("alertmanager:")]
    for event in relayed(clock.HOUR):  # by then it fires again
        assert event.get("occurred_at", event["received_at"]) == event["received_at"]


def test_what_sns_did_not_sign_is_refused_and_what_it_did_is_confirmed_once_taken() -> None:
    world, told = World(), []

    class Signer:
        def check(self, message: Any) -> None:
            told.append(f"check {message['Type']}")
            if message["Signature"] == "forged":
                raise Refusal("ERR_SIG_INVALID", "The message is not signed.")

        def confirm(self, message: Mapping[str, Any]) -> bool:
            told.append(f"confirm with {len(world.queued)} taken")
            return True

    def receive(**changed: Any) -> Answer:
        given = sample("aws_sns", "confirmation")
        request = tool.request_of({**given, "body": {**given["body"], **changed}})
        call = registry.find(request.method, request.path)
        assert call is not None
        taker = intake.Intake(world, marks=None, protect=lambda _, event: event, now=lambda: NOW)
        return Reception(taker, AnyKey(), sns=Signer, now=lambda: NOW).receive(call, request)

    assert receive(Signature="forged").status == 401
    assert (world.queued, told) == ([], ["check SubscriptionConfirmation"])
    assert receive().status == 200
    assert told[1:] == ["check SubscriptionConfirmation", "confirm with 1 taken"]
    world.down = True
    assert receive().status == 503
    assert told[3:] == ["check SubscriptionConfirmation"], "nothing is confirmed that was not taken"


class AnyKey:
    def by_key(self, request: Request) -> Caller:
        return Caller()

    def by_signature(self, key_id: str, request: Request) -> Caller:
        raise AssertionError
