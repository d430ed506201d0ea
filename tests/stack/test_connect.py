"""Senders as they are, against the deployed API: each in its own dialect, with its own kind of credential."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.rooms.connectors.support import SAMPLES, expected, sample
from tests.rooms.connectors.test_five_ways import WAYS
from tests.stack.conftest import Deployed, Reply, eventually
from tests.support.sns import Sns
from tools import connectors as tool

from tocsin.access import keys
from tocsin.access.admin import signing_secret
from tocsin.aws import keys as table_keys
from tocsin.aws.key_store import DynamoKeys
from tocsin.connectors import registry
from tocsin.kernel import clock

_MOMENT = re.compile(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
#: What a sample says instead of a key: as it is, and as the password of HTTP Basic.
_KEY = b"tcn_demo"
_BASIC = base64.b64encode(b"tocsin:" + _KEY).decode()
#: What becomes of a request's trace in an answer.
_TRACED = {"requestId"}


def shifted(body: bytes, by_ms: int) -> bytes:
    """A body whose moments are `by_ms` later."""
    return _MOMENT.sub(lambda found: clock.rfc3339(clock.parse_rfc3339(found[0].decode()) + by_ms).encode(), body)


def sent(deployed: Deployed, given: Mapping[str, Any], key: str, *, change: Callable[[bytes], bytes] = bytes) -> Reply:
    """Send a sample's request with a real key in the place of the one it shows, and its body changed."""
    request = tool.request_of(given)
    body = change(request.body)
    headers = {name: values[0] for name, values in request.headers.items()}
    if "x-sentry-auth" in headers or "sentry" not in given["path"]:
        headers = {name: value.replace(_KEY.decode(), key) for name, value in headers.items()}
    headers = {
        name: value.replace(_BASIC, base64.b64encode(f"tocsin:{key}".encode()).decode())
        for name, value in headers.items()
    }
    if "gzip" not in headers.get("content-encoding", ""):
        body = body.replace(_KEY, key.encode())
    path = given["path"].replace(_KEY.decode(), key)
    if "/sentry/webhook/" in path:
        parsed = keys.parse(key)
        assert parsed is not None
        path = path.rpartition("/")[0] + f"/key_{parsed.key_id}"
        secret = signing_secret(deployed.secret("TokenSecretArn"), parsed.key_id)
        headers["sentry-hook-signature"] = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return deployed.raw(given["method"], path, body, headers)


class SnsHost(Sns):
    """Stands in for SNS at the one private address that functions may reach: serves its certificate, takes
    confirmations.
    """

    def __init__(self, address: str) -> None:
        super().__init__(f"{address}/{uuid.uuid4().hex}.pem")  # functions that are warm keep certificates
        self.confirmation = f"{address}/?Action=ConfirmSubscription&Token=2336412f37"
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.certificate)))
                self.end_headers()
                self.wfile.write(outer.certificate)

            def log_message(self, *arguments: Any) -> None:
                pass

        where = urlsplit(address)
        self.server = ThreadingHTTPServer((str(where.hostname), where.port or 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def sign(self, body: bytes) -> bytes:
        """A message as SNS would send it; one that asks to be confirmed, at this host."""
        message = json.loads(body)
        if "SubscribeURL" in message:
            message["SubscribeURL"] = self.confirmation
        return json.dumps(self.signed(message)).encode()


@pytest.fixture(scope="module")
def sns(deployed: Deployed) -> Iterator[SnsHost]:
    host = SnsHost(deployed.contract["receiver"])
    yield host
    host.server.shutdown()
    host.server.server_close()


def new_sender(deployed: Deployed, *scopes: str) -> tuple[str, str]:
    """A project and a key of it that may also sign."""
    project, key = deployed.new_project(*scopes)
    store = DynamoKeys(deployed.table)
    parsed = keys.parse(key)
    assert parsed is not None
    record = store.get(parsed.key_id)
    assert record is not None
    store.restore(replace(record, signing=True))
    return project, key


def said(events: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """What identifies events whose ids and times are of the moment."""
    return Counter((event["source"], event["type"]) for event in events)


def keyed(events: list[dict[str, Any]]) -> set[str]:
    """The dedup_keys of events; one that names none is given its own by default."""
    return {event["dedup_key"] for event in events if "dedup_key" in event}


@pytest.mark.parametrize("name", registry.names())
def test_every_sample_is_answered_and_stored(deployed: Deployed, sns: SnsHost, name: str) -> None:
    waiting = []
    for case in [case for one, case in SAMPLES if one == name]:
        _, key = new_sender(deployed)
        given, wanted = sample(name, case), expected(name, case)
        late = clock.now_ms() - clock.parse_rfc3339(given["now"])
        changes = {"alertmanager_api": partial(shifted, by_ms=late), "aws_sns": sns.sign}
        reply = sent(deployed, given, key, change=changes.get(name, bytes))
        assert reply.status == wanted["answer"]["status"], (case, reply)
        body = wanted["answer"].get("body")
        if isinstance(body, dict):
            assert {k: v for k, v in reply.body.items() if k not in _TRACED} == {
                k: v for k, v in body.items() if k not in _TRACED
            }, case
        waiting.append((case, key, wanted["events"]))
    for case, key, events in waiting:

        def listed(key: str = key, count: int = len(events)) -> list[dict[str, Any]] | None:
            found: list[dict[str, Any]] = deployed.get("/v1/events?limit=100", key)["items"]
            return found if len(found) >= count else None

        if events:
            found = eventually(listed, within_s=40.0)
            assert said(found) == said(events), case
            assert keyed(events) <= keyed(found), case


@pytest.mark.parametrize("name", registry.names())
def test_who_may_not_send_is_told_so_in_the_senders_dialect(deployed: Deployed, name: str) -> None:
    stranger = replace(deployed, source=f"198.51.100.{registry.names().index(name) + 1}")
    case = next(case for one, case in SAMPLES if one == name)
    answers = registry.load(name).answers
    wanted = answers.get("unauthorized", answers["refused"])
    for key in (keys.mint()[0], new_sender(deployed, "events:read")[1]):  # nobody's key, and one without the scope
        reply = sent(stranger, sample(name, case), key)
        assert reply.status == wanted.status, reply
        if isinstance(wanted.body, dict) and "protobuf" not in reply.headers["content-type"]:
            assert reply.body.keys() == wanted.body.keys()


# --- one alert, five ways -----------------------------------------------------------------------------------


def told_by_all_five(deployed: Deployed, key: str, status: str) -> bool:
    """Whether Prometheus itself and an Alertmanager's four receivers have told of alerts of a status."""
    found = deployed.get(f"/v1/events?status={status}&limit=100", key)["items"]
    ways = {event["source"].removeprefix("alertmanager/").partition("/")[0] for event in found}
    return ways == {"prometheus", "alertmanager", "pagerduty", "opsgenie", "victorops"}


def transitions(deployed: Deployed, project: str, key: str) -> tuple[list[str], list[str]]:
    """What became of the one incident of a project, once all that was sent is judged and told.

    Gives the kinds of its timeline that change its state, and the kinds that its channel was told of.
    """

    def settled() -> bool:
        head, cursor = deployed.table.get(table_keys.log_head(project)), deployed.table.get(table_keys.cursor(project))
        return bool(head and cursor and cursor["n"] == head["n"] + 1)

    eventually(settled, within_s=60.0)
    (incident,) = deployed.get("/v1/incidents?limit=100", key)["items"]
    states = {"opened", "acknowledged", "resolved", "reopened", "merged"}
    timeline = deployed.get(f"/v1/incidents/{incident['id']}", key)["timeline"]
    happened = [entry["kind"] for entry in timeline if entry["kind"] in states]

    def told() -> list[str] | None:
        records = deployed.get("/v1/notifications?limit=100", key)["items"]
        kinds = [record["kind"] for record in records if record["kind"] in states]
        return kinds if len(kinds) >= len(happened) else None

    return happened, sorted(eventually(told, within_s=60.0))


class Replayed:
    """The captures' time as it is told when they are sent without the pauses between them: a moment is the one at which
    the first capture after it was sent, and what lay ahead lies ahead.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []

    def at(self, captured: int) -> None:
        """What was captured at this time (Unix ms) is sent now."""
        self.sent.append((captured, clock.now_ms()))

    def body(self, body: bytes) -> bytes:
        """A body with its moments as they are told."""
        return _MOMENT.sub(lambda found: self._told(clock.parse_rfc3339(found[0].decode())).encode(), body)

    def _told(self, moment: int) -> str:
        captured, now = self.sent[-1]
        told = next((sent for after, sent in self.sent if after >= moment), now + moment - captured)
        return clock.rfc3339(told)


def test_one_alert_by_five_ways_is_one_incident_and_one_resolve(deployed: Deployed) -> None:
    """The captures of tests/rooms/connectors/test_five_ways.py, those of one moment at once, as Alertmanager sends."""
    project, key = new_sender(deployed)
    deployed.made("/v1/channels", {"name": "team mail", "kind": "email", "to": ["oncall@example.com"]}, key)
    moments: dict[str, list[tuple[str, str]]] = {}
    for way, case in [(way, case) for way, cases in WAYS.items() for case in cases]:
        moments.setdefault(sample(way, case)["now"], []).append((way, case))
    replayed = Replayed()
    with ThreadPoolExecutor(5) as pool:
        for now in sorted(moments):
            replayed.at(clock.parse_rfc3339(now))
            replies = pool.map(
                lambda one: sent(deployed, sample(*one), key, change=replayed.body), moments[now], timeout=60
            )
            for (way, case), reply in zip(moments[now], replies, strict=True):
                assert reply.status == expected(way, case)["answer"]["status"], (way, case, reply)

    eventually(lambda: told_by_all_five(deployed, key, "resolved"), within_s=60.0)
    eventually(lambda: "resolved" in transitions(deployed, project, key)[0], within_s=60.0)
    assert transitions(deployed, project, key) == (["opened", "resolved"], ["opened", "resolved"])


# --- AWS ------------------------------------------------------------------------------------------------------


def test_sns_is_believed_by_its_signature_and_confirmed(deployed: Deployed, sns: SnsHost) -> None:
    project, key = new_sender(deployed)
    elsewhere = Sns(sns.url.replace("127.0.0.1", "sns.us-east-1.amazonaws.com.127.0.0.1"))
    another = Sns(sns.url)
    for change, status in (
        (lambda body: json.dumps(elsewhere.signed(json.loads(body))).encode(), 401),
        (lambda body: json.dumps(another.signed(json.loads(body))).encode(), 401),
        (lambda body: sns.sign(body).replace(b"123456789012", b"210987654321"), 401),
        (sns.sign, 200),
    ):
        assert sent(deployed, sample("aws_sns", "confirmation"), key, change=change).status == status
    assert sns.asked[-1] == "/?Action=ConfirmSubscription&Token=2336412f37"
    eventually(lambda: deployed.stored(project) == 1, within_s=40.0)


def test_alarms_and_findings_of_the_account_reach_the_operator(deployed: Deployed) -> None:
    """The deployed rule matches what AWS puts on the bus, and its function takes it.

    Nobody but AWS may put events of `aws.` sources, on the emulator neither: they go to the queue, as by the rule.
    """
    bus, sqs = deployed.client("events"), deployed.client("sqs")
    rule = bus.describe_rule(Name=f"{deployed.contract['stack']}-account")
    assert rule["State"] == "ENABLED"
    (target,) = bus.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    url = deployed.outputs["ConnectQueueUrl"]
    assert (
        target["Arn"] == sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    )
    mine = uuid.uuid4().hex
    cases = ("alarm", "alarm_ok", "guardduty", "securityhub_guardduty")
    for case in cases:
        text = json.dumps(sample("aws_eventbridge", case)["body"])
        event = re.sub("ServerCpuTooHigh|16afba5c5c43e07c9e3e5e2e544e95df", mine, text).replace(
            '"id": "', f'"id": "{mine}-', 1
        )
        assert bus.test_event_pattern(EventPattern=rule["EventPattern"], Event=event)["Result"], case
        sqs.send_message(QueueUrl=url, MessageBody=event)
    key = deployed.contract["project_key"]

    def stored() -> Any:
        found = [event for event in deployed.get("/v1/events?limit=100", key)["items"] if mine in event["dedup_key"]]
        return found if len(found) == len(cases) else None

    assert Counter((event["source"], event["status"]) for event in eventually(stored, within_s=60.0)) == Counter(
        {
            ("aws.cloudwatch", "firing"): 1,
            ("aws.cloudwatch", "resolved"): 1,
            ("aws.guardduty", "firing"): 1,
            ("aws.securityhub", "firing"): 1,
        }
    )


# --- the Alertmanager API -----------------------------------------------------------------------------------

API = "/alertmanager/api/v2"


def post_alert(deployed: Deployed, key: str, lasts_ms: int, *, count: int = 1, **labels: str) -> None:
    """Post alerts as Prometheus does, with a lease; each says more than a row of the log holds."""
    now = clock.now_ms()
    alert = {"labels": labels, "startsAt": clock.rfc3339(now), "endsAt": clock.rfc3339(now + lasts_ms)}
    alerts = [
        alert | {"labels": labels | {"instance": f"i-{n}"}, "annotations": {"description": secrets.token_hex(30_000)}}
        for n in range(count)
    ]
    reply = deployed.call("POST", f"{API}/alerts", alerts, key=key)
    assert reply.status == 200, reply


def test_a_silence_withholds_and_says_why(deployed: Deployed) -> None:
    _, key = deployed.new_project()
    deployed.made("/v1/channels", {"name": "team mail", "kind": "email", "to": ["oncall@example.com"]}, key)
    now = clock.now_ms()
    silence = {
        "matchers": [{"name": "service", "value": "pay.*", "isRegex": True}],
        "startsAt": clock.rfc3339(now),
        "endsAt": clock.rfc3339(now + clock.HOUR),
        "createdBy": "ann",
        "comment": "deploy",
    }
    made = deployed.call("POST", f"{API}/silences", silence, key=key)
    assert made.status == 200, made
    silence_id = made.body["silenceID"]
    post_alert(deployed, key, clock.HOUR, alertname="InstanceDown", service="payments", severity="critical")

    def withheld() -> Any:
        return deployed.get("/v1/notifications?decision=withheld", key)["items"]

    (record,) = eventually(withheld, within_s=40.0)
    assert record["reason"] == "silenced"
    assert f"silence {silence_id} of ann until " in record["detail"]
    (alert,) = deployed.call("GET", f"{API}/alerts", key=key).body
    assert alert["status"] == {"inhibitedBy": [], "silencedBy": [silence_id], "state": "suppressed"}

    assert deployed.call("DELETE", f"{API}/silence/{silence_id}", key=key).status == 200
    held = deployed.call("GET", f"{API}/silence/{silence_id}", key=key).body
    assert held["status"]["state"] == "expired"
    (alert,) = deployed.call("GET", f"{API}/alerts", key=key).body
    assert alert["status"]["state"] == "active"


def test_alerts_and_silences_are_their_projects_own(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    _, other = deployed.new_project()
    post_alert(deployed, key, clock.HOUR, count=8, alertname="InstanceDown")  # more than a message holds
    eventually(lambda: deployed.stored(project) == 8)
    (group,) = deployed.call("GET", f"{API}/alerts/groups", key=key).body
    assert len(group["alerts"]) == 8
    assert deployed.call("GET", f"{API}/alerts", key=other).body == []
    assert deployed.call("GET", f"{API}/alerts").status == 401


def test_an_alert_that_is_renewed_no_more_resolves(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    post_alert(deployed, key, clock.SECOND, alertname="InstanceDown", severity="critical")
    eventually(lambda: deployed.stored(project) == 1, within_s=60.0)
    tick = json.dumps({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}})

    def resolved() -> bool:
        deployed.client("lambda").invoke(FunctionName=f"{deployed.contract['stack']}-connect", Payload=tick)
        items = deployed.get("/v1/incidents", key)["items"]
        return bool(items) and items[0]["status"] == "resolved"

    eventually(resolved, within_s=100.0, every_s=0.5)
