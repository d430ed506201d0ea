"""Incidents reach people: signed webhooks, mail, budgets, rules, retries and digests of the deployed stack.

Webhooks arrive at the one private address that deliveries may reach; what arrives is verified with the
`standardwebhooks` library, which shares no code with the sender.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen
from uuid import uuid4

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from tests.stack.conftest import Deployed, Reply, eventually

from tocsin.kernel import clock

pytestmark = pytest.mark.stack

Json = dict[str, Any]


@dataclass(frozen=True)
class Post:
    """One request that arrived, and what was answered."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Json:
        """The CloudEvent, when its signature holds."""
        event: Json = Webhook(secret).verify(self.body, self.headers)
        assert event["id"] == self.webhook_id
        return event


class Receiver:
    """Answers what `answers` says by path, then 204. Each test posts to a path of its own."""

    def __init__(self, address: str) -> None:
        self.posts: list[Post] = []
        self.answers: dict[str, deque[tuple[int, dict[str, str]]]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                scripted = outer.answers.get(self.path)
                status, headers = scripted.popleft() if scripted else (204, {})
                names = {name.lower(): value for name, value in self.headers.items()}
                outer.posts.append(Post(self.path, names, body, status))
                self.send_response(status)
                for name, value in {**headers, "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        where = urlsplit(address)
        self.server = ThreadingHTTPServer((str(where.hostname), where.port or 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def at(self, path: str) -> list[Post]:
        return [post for post in self.posts if post.path == path]


@pytest.fixture(scope="module")
def receiver(deployed: Deployed) -> Iterator[Receiver]:
    receiver = Receiver(deployed.contract["receiver"])
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@dataclass(frozen=True)
class Bench:
    """A project with the means to make incidents and to see what is said about them."""

    deployed: Deployed
    receiver: Receiver
    project: str
    key: str

    def channel(self, **fields: Any) -> tuple[Json, str]:
        """A webhook channel, its secret, at a path of its own."""
        path = f"/{uuid4().hex}"
        body = {"kind": "webhook", "name": "on-call", "url": self.deployed.contract["receiver"] + path} | fields
        reply = self.deployed.call("POST", "/v1/channels", body, key=self.key)
        assert reply.status == 201, reply
        made: Json = reply.body["data"]
        return made | {"path": path}, made["secret"]

    def incident(self, service: str = "payments", **fields: Any) -> str:
        """A new incident about a service of its own."""
        event = {
            "id": uuid4().hex,
            "source": "prometheus",
            "type": "latency.high",
            "title": f"{service} answers too late",
            "entity": {"type": "service", "id": service},
            "tags": {"env": "prod", "service": service},
            "severity_raw": "critical",
        } | fields
        (item,) = self.deployed.send(self.key, event)

        def found() -> Any:
            reply = self.deployed.call("GET", f"/v1/events/{item['event_id']}", key=self.key)
            return reply.status == 200 and reply.body["data"]["incident_id"]

        return str(eventually(found))

    def records(self, **query: str) -> list[Json]:
        """Notifications, newest first."""
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        items: list[Json] = self.deployed.get(f"/v1/notifications?limit=100&{asked}", self.key)["items"]
        return items

    def told(self, channel: Json, incident: str) -> Json:
        """The record of the first notification of a channel about an incident, once nothing is under way."""

        def done() -> Json | None:
            mine = [one for one in self.records(incident=incident) if one["channel_id"] == channel["id"]]
            return mine[-1] if mine and mine[-1]["decision"] not in ("pending",) else None

        record: Json = eventually(done)
        return record


@pytest.fixture
def bench(deployed: Deployed, receiver: Receiver) -> Bench:
    return Bench(deployed, receiver, *deployed.new_project())


def refused(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.body["error"]["code"]


# --- channels and signatures


def test_a_secret_is_shown_once_and_signs_what_arrives(bench: Bench) -> None:
    channel, secret = bench.channel()
    assert secret.startswith("whsec_")
    for path in ("/v1/channels", f"/v1/channels/{channel['id']}"):
        assert secret not in json.dumps(bench.deployed.call("GET", path, key=bench.key).body)
    changed = bench.deployed.call("PATCH", f"/v1/channels/{channel['id']}", {"name": "calls"}, key=bench.key)
    assert (changed.status, changed.body["data"]["name"]) == (200, "calls")
    assert "secret" not in changed.body["data"]

    tested = bench.deployed.call("POST", f"/v1/channels/{channel['id']}/test", key=bench.key)
    assert (tested.status, tested.body["data"]["decision"]) == (200, "delivered")
    (post,) = bench.receiver.at(channel["path"])
    event = post.verified(secret)
    assert (event["type"], event["data"]["project"]) == ("dev.tocsin.test", bench.project)
    assert post.webhook_id == tested.body["data"]["webhook_id"]

    forged = Post(post.path, post.headers, post.body.replace(b"dev.tocsin", b"evil"), 204)
    with pytest.raises(WebhookVerificationError):
        forged.verified(secret)


def test_an_incident_is_told_with_its_explanation_and_each_transition_once(bench: Bench) -> None:
    channel, secret = bench.channel()
    incident = bench.incident()
    record = bench.told(channel, incident)
    assert (record["decision"], record["kind"], record["tier"]) == ("delivered", "opened", "high")
    changed = bench.deployed.call("PATCH", f"/v1/incidents/{incident}", {"status": "resolved"}, key=bench.key)
    assert changed.status == 200
    eventually(lambda: len(bench.receiver.at(channel["path"])) == 2)
    opened, resolved = (post.verified(secret) for post in bench.receiver.at(channel["path"]))
    assert (opened["type"], resolved["type"]) == ("dev.tocsin.incident.opened", "dev.tocsin.incident.resolved")
    assert opened["subject"] == resolved["subject"] == incident
    assert opened["id"] != resolved["id"]
    assert opened["data"]["incident"]["title"] == "payments answers too late"
    assert opened["data"]["explanation"]
    assert opened["data"]["links"] == {"api": f"{bench.deployed.contract['api_url']}/v1/incidents/{incident}"}
    event = bench.deployed.get("/v1/events?entity=payments", bench.key)["items"][0]
    assert opened["data"]["trace_id"] == event["trace_id"]
    eventually(lambda: [one["decision"] for one in bench.records(incident=incident)] == ["delivered"] * 2)
    assert {one["webhook_id"] for one in bench.records(incident=incident)} == {opened["id"], resolved["id"]}


def test_after_a_rotation_the_old_and_the_new_secret_verify(bench: Bench) -> None:
    channel, old = bench.channel()
    rotated = bench.deployed.call("POST", f"/v1/channels/{channel['id']}/rotate", key=bench.key)
    assert rotated.status == 200
    new = rotated.body["data"]["secret"]
    assert new != old
    bench.deployed.call("POST", f"/v1/channels/{channel['id']}/test", key=bench.key)
    (post,) = bench.receiver.at(channel["path"])
    assert post.verified(old) == post.verified(new)


def test_a_changed_and_a_deleted_channel(bench: Bench) -> None:
    channel, _ = bench.channel()
    path = f"/v1/channels/{channel['id']}"
    tag = bench.deployed.call("GET", path, key=bench.key).headers["etag"]
    off = bench.deployed.call("PATCH", path, {"enabled": False}, key=bench.key, If_Match=tag)
    assert off.status == 200
    stale = bench.deployed.call("PATCH", path, {"enabled": True}, key=bench.key, If_Match=tag)
    assert refused(stale) == (409, "ERR_CONFLICT")
    assert refused(bench.deployed.call("PATCH", path, {"secret": "x"}, key=bench.key)) == (400, "ERR_READONLY_FIELD")
    rules = {"rules": [{"name": "only", "channels": [channel["id"]]}]}
    assert bench.deployed.call("PUT", "/v1/routing", rules, key=bench.key).status == 200
    assert refused(bench.deployed.call("DELETE", path, key=bench.key)) == (409, "ERR_CONFLICT")
    assert bench.deployed.call("PUT", "/v1/routing", {"rules": []}, key=bench.key).status == 200
    assert bench.deployed.call("DELETE", path, key=bench.key).status == 200
    assert refused(bench.deployed.call("GET", path, key=bench.key)) == (404, "ERR_NOT_FOUND")


PRIVATE = (
    "https://169.254.169.254/latest/meta-data/",
    "https://127.0.0.1/",
    "https://localhost/",
    "https://[::1]/",
    "https://10.0.0.8/hook",
    "https://192.168.1.1:8443/",
    "https://2130706433/",
    "https://0x7f.1/",
    "https://metadata.google.internal/",
    "https://user:password@hooks.example.com/",
    "https://hooks.example.com:22/",
    "http://hooks.example.com/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "https://printer.local/",
)


@pytest.mark.parametrize("url", PRIVATE)
def test_private_and_other_dangerous_addresses_are_refused(bench: Bench, url: str) -> None:
    body = {"kind": "webhook", "name": "x", "url": url}
    reply = bench.deployed.call("POST", "/v1/channels", body, key=bench.key)
    assert refused(reply) == (400, "ERR_EGRESS_DENIED")
    channel, _ = bench.channel()
    changed = bench.deployed.call("PATCH", f"/v1/channels/{channel['id']}", {"url": url}, key=bench.key)
    assert refused(changed) == (400, "ERR_EGRESS_DENIED")


def test_the_allowed_private_address_is_one_exact_pair(bench: Bench) -> None:
    where = urlsplit(bench.deployed.contract["receiver"])
    for address in (f"{where.hostname}:{(where.port or 0) + 1}", f"localhost:{where.port}", f"127.0.0.2:{where.port}"):
        body = {"kind": "webhook", "name": "x", "url": f"http://{address}/"}
        assert refused(bench.deployed.call("POST", "/v1/channels", body, key=bench.key)) == (400, "ERR_EGRESS_DENIED")


# --- mail


def test_mail_is_sent_to_its_recipients_and_a_title_adds_none(bench: Bench) -> None:
    to = f"oncall-{bench.project}@example.com"
    body = {"kind": "email", "name": "team", "to": [to]}
    made = bench.deployed.call("POST", "/v1/channels", body, key=bench.key)
    assert made.status == 201
    assert "secret" not in made.body["data"]
    title = f"down\r\nBcc: evil-{bench.project}@example.com\r\n\r\n<script>x</script> ![x](https://evil.example/?q=)"
    incident = bench.incident(title=title)
    assert bench.told(made.body["data"], incident)["decision"] == "delivered"
    (mail,) = [one for one in mailbox(bench.deployed) if to in one["To"]]
    assert (mail["To"], mail["CC"], mail["BCC"]) == ([to], [], [])
    assert mail["Subject"].startswith("[Tocsin] HIGH opened: down Bcc: [redacted:email] ")
    assert "\n" not in mail["Subject"]
    assert "<script>" not in mail["BodyHtml"]
    assert "<img" not in mail["BodyHtml"]
    assert r"\!\[x\](" in mail["BodyText"]


def mailbox(deployed: Deployed) -> list[Json]:
    """Every mail that the embedded cloud took."""
    with urlopen(f"{deployed.contract['endpoint_url']}/_ministack/ses/messages", timeout=10) as answer:
        return [mail for box in json.load(answer)["messages"].values() for mail in box]


# --- rules


def test_rules_decide_who_is_told_and_the_account_says_why(bench: Bench) -> None:
    everyone, _ = bench.channel(name="everyone")
    database, _ = bench.channel(name="database")
    rules = {
        "rules": [
            {"name": "move", "when": {"services": ["billing"]}, "mute": True, "reason": "planned until Friday"},
            {"name": "database", "when": {"tags": {"service": ["ledger-*"]}}, "channels": [database["id"]]},
            {"name": "rest", "when": {"kinds": ["opened"], "services": ["mail"]}, "channels": [everyone["id"]]},
        ]
    }
    assert bench.deployed.call("PUT", "/v1/routing", rules, key=bench.key).status == 200

    muted = bench.told(everyone, bench.incident("billing"))
    assert (muted["decision"], muted["reason"]) == ("withheld", "muted")
    assert "planned until Friday" in muted["detail"]
    ledger = bench.incident("ledger-db")
    assert bench.told(database, ledger)["decision"] == "delivered"
    assert {one["channel_id"] for one in bench.records(incident=ledger)} == {database["id"]}
    silent = bench.told(everyone, bench.incident("search"))
    assert (silent["decision"], silent["reason"]) == ("withheld", "routing")
    assert {one["reason"] for one in bench.records(decision="withheld")} == {"muted", "routing"}
    assert len(bench.receiver.at(everyone["path"])) == 0


def test_a_dry_run_says_what_would_happen_and_sends_nothing(bench: Bench) -> None:
    channel, _ = bench.channel()
    asked = {"tier": "critical", "services": ["ledger-db"], "tags": {"env": ["prod"]}}

    def ask(**more: Any) -> Json:
        reply = bench.deployed.call("POST", "/v1/routing/dry-run", asked | more, key=bench.key)
        assert reply.status == 200, reply
        answer: Json = reply.body["data"]
        return answer

    assert [one["decision"] for one in ask()["channels"]] == ["push"]
    assert [one["reason"] for one in ask(rules=[])["channels"]] == ["routing"]
    rule = {"name": "move", "when": {"services": ["ledger-*"], "tiers": ["critical"]}, "mute": True, "reason": "moving"}
    told = ask(rules=[rule])
    assert [one["reason"] for one in told["channels"]] == ["muted"]
    conditions = {one["condition"]: (one["wanted"], one["actual"], one["ok"]) for one in told["rules"][0]["conditions"]}
    assert conditions["services"] == (["ledger-*"], ["ledger-db"], True)
    assert ask(rules=[rule], tier="high")["rules"][0]["matched"] is False
    assert bench.receiver.at(channel["path"]) == []
    assert bench.records() == []


def test_rules_are_replaced_under_their_version(bench: Bench) -> None:
    first = bench.deployed.call("PUT", "/v1/routing", {"rules": [], "version": 0}, key=bench.key)
    assert (first.status, first.body["data"]["version"]) == (200, 1)
    assert refused(bench.deployed.call("PUT", "/v1/routing", {"rules": [], "version": 0}, key=bench.key)) == (
        409,
        "ERR_CONFLICT",
    )
    bad = {"rules": [{"name": "x", "mute": True}]}
    assert refused(bench.deployed.call("PUT", "/v1/routing", bad, key=bench.key)) == (400, "ERR_SCHEMA")
    assert bench.deployed.get("/v1/routing", bench.key)["version"] == 1


# --- budgets and digests


def test_what_the_budget_withholds_is_on_the_account_and_in_one_digest(bench: Bench) -> None:
    channel, secret = bench.channel(budget={"per_hour": 1, "burst": 1}, digest="hourly")
    pushed = bench.incident("payments")
    assert bench.told(channel, pushed)["decision"] == "delivered"
    held = [bench.incident(service) for service in ("mail", "search")]
    for incident in held:
        record = bench.told(channel, incident)
        assert (record["decision"], record["reason"]) == ("withheld", "budget")
        assert "room again in" in record["detail"]
    listed = bench.records(decision="withheld", channel=channel["id"])
    assert {one["incident_id"] for one in listed} == set(held)
    assert bench.records(decision="withheld", incident=pushed) == []

    tick = {"time": clock.rfc3339(clock.now_ms()), "project": bench.project}
    sqs, queue = bench.deployed.client("sqs"), bench.deployed.outputs["DigestQueueUrl"]
    for _ in range(2):
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(tick))

    def digests() -> list[Json]:
        told = [post.verified(secret) for post in bench.receiver.at(channel["path"])]
        return [event["data"] for event in told if event["type"] == "dev.tocsin.digest"]

    eventually(digests)
    eventually(lambda: bench.deployed.depth("DigestQueueUrl") == 0)
    (digest,) = digests()
    assert digest["withheld"]["by_reason"] == {"budget": 2}
    assert {one["incident_id"] for one in digest["withheld"]["incidents"]} == set(held)
    assert {one["id"] for one in digest["open_incidents"]} == {pushed, *held}
    assert len(bench.receiver.at(channel["path"])) == 2


def test_the_project_has_a_budget_too(bench: Bench) -> None:
    channel, _ = bench.channel()
    document = {"rules": [{"name": "all"}], "budget": {"per_hour": 1, "burst": 1}}
    assert bench.deployed.call("PUT", "/v1/routing", document, key=bench.key).status == 200
    assert bench.told(channel, bench.incident("payments"))["decision"] == "delivered"
    record = bench.told(channel, bench.incident("mail"))
    assert (record["decision"], record["reason"]) == ("withheld", "budget")
    assert "project" in record["detail"]


# --- receivers that fail


def test_a_failed_delivery_comes_again_under_the_same_id_with_a_fresh_signature(bench: Bench) -> None:
    channel, secret = bench.channel()
    bench.receiver.answers[channel["path"]] = deque([(500, {})])
    incident = bench.incident()
    retrying = bench.told(channel, incident)
    assert (retrying["decision"], retrying["reason"]) == ("retrying", "status 500")
    assert retrying["next_at"]
    eventually(lambda: len(bench.receiver.at(channel["path"])) == 2, within_s=30)
    first, second = bench.receiver.at(channel["path"])
    assert (first.status, second.status) == (500, 204)
    assert first.webhook_id == second.webhook_id == retrying["webhook_id"]
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) >= int(first.headers["webhook-timestamp"]) + 5
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert first.verified(secret) == second.verified(secret)
    record = eventually(lambda: bench.records(incident=incident, decision="delivered"))[0]
    assert [attempt["status"] for attempt in record["attempts"]] == [500, 204]


def test_redirects_are_failures_and_are_never_followed(bench: Bench) -> None:
    channel, _ = bench.channel()
    target = f"/{uuid4().hex}"
    location = {"Location": bench.deployed.contract["receiver"] + target}
    bench.receiver.answers[channel["path"]] = deque([(302, location)])
    tested = bench.deployed.call("POST", f"/v1/channels/{channel['id']}/test", key=bench.key)
    assert (tested.body["data"]["decision"], tested.body["data"]["reason"]) == ("failed", "status 302")
    assert bench.receiver.at(target) == []


def test_a_channel_that_is_gone_is_disabled_and_another_one_is_told(bench: Bench) -> None:
    gone, _ = bench.channel(name="gone")
    other, secret = bench.channel(name="other")
    bench.receiver.answers[gone["path"]] = deque([(410, {})])
    incident = bench.incident()
    assert bench.told(gone, incident)["decision"] == "failed"
    shown = bench.deployed.get(f"/v1/channels/{gone['id']}", bench.key)
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "the endpoint answered 410 Gone")

    def notices() -> list[Json]:
        told = [post.verified(secret) for post in bench.receiver.at(other["path"])]
        return [event for event in told if event["type"] == "dev.tocsin.channel.failed"]

    (notice,) = eventually(notices)
    assert notice["data"]["channel_id"] == gone["id"]
    on = bench.deployed.call("PATCH", f"/v1/channels/{gone['id']}", {"enabled": True}, key=bench.key)
    assert (on.body["data"]["enabled"], on.body["data"]["disabled_reason"]) == (True, None)


def test_nobody_listens(bench: Bench) -> None:
    body = {"kind": "webhook", "name": "x", "url": "https://no-such-host.invalid/hook"}
    began = time.monotonic()
    reply = bench.deployed.call("POST", "/v1/channels", body, key=bench.key)
    assert refused(reply) == (400, "ERR_EGRESS_DENIED")
    assert time.monotonic() - began < 15
