"""The command line, its client and the demo's receiver against a small HTTP server that answers as the API
does.
"""

from __future__ import annotations

import getpass
import http.client
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
import pytest
from click.testing import CliRunner
from moto import mock_aws
from standardwebhooks import Webhook
from tests.rooms.journal.memory import PINNED, entry, log_of
from tests.support.stripe import Stripe
from tools import demo
from tools.cli.__main__ import QUEUES, tocsin
from tools.cli.api import Api, ApiError, contract
from tools.cli.replay import since_ms
from tools.receiver import Receiver, signature_problem

from tocsin.access.usage import day_of
from tocsin.aws.access_store import DynamoUsage
from tocsin.aws.table import Table
from tocsin.aws.watch import Healings
from tocsin.delivery import signing
from tocsin.kernel import clock
from tocsin.signals import events as ces
from tocsin.signals.topology import Topology

EVENT = {
    "event_id": "evt_" + "a" * 26,
    "occurred_at": "2026-11-20T12:00:00.000Z",
    "score": 0.5,
    "source": "prometheus",
    "title": "[bold]not markup[/bold]",
    "incident_id": None,
}
INCIDENT = {
    "id": "inc_01a1f91a-b129-709a-be63-20ed5648d1f6",
    "opened_at": "2026-11-20T12:00:00.000Z",
    "status": "open",
    "tier": "critical",
    "score": 0.91,
    "event_count": 3,
    "entity_count": 2,
    "title": "31 % of requests fail",
    "services": [],
    "root": {"service": "orders-db", "why": ["orders-db fired first"]},
    "reasons": [{"text": "a depends on b", "weight": 0.7, "count": 2}],
    "timeline": [{"at": "2026-11-20T12:00:00.000Z", "by": "tocsin", "text": "opened"}],
    "members": [EVENT],
}
EXPLAINED = {
    "event_id": EVENT["event_id"],
    "tier": "high",
    "score": 0.731059,
    "text": "High because the sender calls it critical.",
    "contributions": [{"feature": "severity", "value": 0.85, "micro_logits": 3_400_000, "text": "critical: +3.40"}],
    "bias": -2_400_000,
    "logit": 1_000_000,
    "to_next_tier": {"text": "0.2 more"},
    "to_lower_tier": None,
}
KEY = {
    "id": "key_4Yx0exampleK",
    "prefix": "tcn_live_4Yx0exampleK",
    "last_four": "9Qz1",
    "status": "active",
    "name": "checkout",
    "scopes": ["ingest:write"],
    "created_at": "2026-11-20T12:00:00.000Z",
    "last_used_at": None,
    "expires_at": None,
}
PROJECT = {
    "id": "prj_1",
    "name": "shop",
    "status": "active",
    "quota": {"events_per_second": 500},
    "created_at": "2026-11-20T12:00:00.000Z",
}
USAGE = {
    "items": [{"day": "2026-11-20", "events": 12, "bytes": 3400, "llm_tokens": 0}],
    "totals": {"events": 12, "bytes": 3400, "llm_tokens": 0},
}
HEALING = {
    "id": "heal_1",
    "at": "2026-11-20T12:00:00.000Z",
    "target": "mapping score",
    "finding": "disabled",
    "action": "enable",
    "outcome": "healed",
    "attempts": 1,
    "healed_after_ms": 4_300,
}


class Server:
    """Answers GETs from `pages` and keeps what was posted."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {
            "/v1/events": {"items": [EVENT]},
            "/v1/events/e-1/explain": EXPLAINED,
            "/v1/incidents": {"items": [INCIDENT]},
            f"/v1/incidents/{INCIDENT['id']}": INCIDENT,
            "/v1/healings": {"items": [HEALING]},
            "/v1/keys": {"items": [KEY]},
            "/v1/projects": {"items": [PROJECT]},
            "/v1/usage": USAGE,
            "/v1/journal": {"items": [{"index": 7, "entry": entry(7).payload()}]},
        }
        self.answers: list[tuple[int, Any]] = []
        self.requests: list[tuple[str, str, dict[str, str], str, str, bytes]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                where = urlsplit(self.path)
                key, kind = self.headers["X-Api-Key"], self.headers.get("Content-Type", "")
                server.requests.append((self.command, where.path, dict(parse_qsl(where.query)), key, kind, body))
                status, document = server.answer(self.command, where.path)
                raw = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        if self.answers:
            return self.answers.pop(0)
        if method == "GET" and path in self.pages:
            return 200, {"data": self.pages[path], "meta": {}}
        return 404, {"error": {"code": "ERR_NOT_FOUND", "message": "There is no such thing here."}}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    found = {"api_url": server.url, "project_key": "tcn_live_p", "admin_key": "tcn_live_a", "stack": "tocsin"}
    (tmp_path / "tocsin.json").write_text(json.dumps(found))
    monkeypatch.setenv("TOCSIN_HOME", str(tmp_path))
    yield server
    server.http.shutdown()
    server.http.server_close()


def run(*arguments: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(tocsin, arguments, input=stdin, catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("events",), ("evt_" + "a" * 26, "[bold]not markup[/bold]", "0.50")),
        (("incidents",), (INCIDENT["id"], "critical 0.91", "31 % of requests fail")),
        (("incidents", INCIDENT["id"]), ("orders-db fired first", "a depends on b", "opened")),
        (("explain", "e-1"), ("0.731059", "+3.400000", "-2.400000", "+1.000000", "0.2 more")),
        (("healings",), ("mapping score", "healed", "4.3 s")),
        (("keys", "list"), ("key_4Yx0exampleK", "tcn_live_4Yx0exampleK…9Qz1", "ingest:write")),
        (("projects", "list"), ("prj_1", "active", "500", "shop")),
        (("usage",), ("2026-11-20", "12", "3400", "all")),
        (("journal", "list"), ("7", "incident.opened", "done", "system:correlate", "incident:inc_7")),
    ],
)
def test_reading(server: Server, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    for word in words:
        assert word in result.output
    key = "tcn_live_a" if arguments[0] in ("healings", "keys", "projects", "usage") else "tcn_live_p"
    assert {request[3] for request in server.requests} == {key}


@pytest.mark.parametrize("command", [("events",), ("incidents",), ("healings",), ("explain", "e-1")])
def test_json_is_what_the_api_said(server: Server, command: tuple[str, ...]) -> None:
    said = json.loads(run(*command, "--json").output)
    page = server.pages["/v1/events/e-1/explain" if command[0] == "explain" else f"/v1/{command[0]}"]
    assert said == page.get("items", page)


def test_a_key_is_made_rotated_and_revoked(server: Server) -> None:
    made = {**KEY, "key": "tcn_live_whole", "signing_secret": "tss_whole"}
    server.answers = [(201, {"data": made}), (201, {"data": made}), (200, {"data": {"revoked": [KEY["id"]]}})]
    said = run("keys", "create", "--name", "checkout", "--scope", "ingest:write", "--signing")
    assert said.output.splitlines()[1:] == ["tcn_live_whole", "tss_whole"]
    assert "tcn_live_whole" in run("keys", "rotate", KEY["id"], "--overlap", "60").output
    assert KEY["id"] in run("keys", "revoke", KEY["id"], "--descendants").output
    create, rotate, revoke = server.requests
    assert json.loads(create[5]) == {"name": "checkout", "scopes": ["ingest:write"], "signing": True}
    assert (rotate[1], json.loads(rotate[5])) == (f"/v1/keys/{KEY['id']}/rotate", {"overlap_s": 60})
    assert revoke[:3] == ("DELETE", f"/v1/keys/{KEY['id']}", {"descendants": "true"})


def test_a_new_project_comes_with_its_first_key(server: Server) -> None:
    server.answers = [(201, {"data": {**PROJECT, "first_key": {**KEY, "key": "tcn_live_whole"}}})]
    assert run("projects", "create", "shop").output.splitlines()[::2] == ["prj_1", "tcn_live_whole"]
    assert json.loads(server.requests[0][5]) == {"name": "shop"}


def test_usage_goes_to_stripe_where_a_key_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"endpoint_url": None, "resources": {"TableName": "t"}}
    (tmp_path / "tocsin.json").write_text(json.dumps(found))
    file = tmp_path / "accounts.json"
    file.write_text(json.dumps({"p1": {"customer": "cus_1", "meters": {"events": "tocsin_events"}}}))
    monkeypatch.setenv("TOCSIN_HOME", str(tmp_path))
    monkeypatch.delenv("STRIPE_SECRET_KEY", raising=False)
    assert "STRIPE_SECRET_KEY is not set" in run("bill", str(file)).output
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "STRIPE_SECRET_KEY"):
        monkeypatch.setenv(name, "sk_test_x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    now = clock.now_ms()
    stripe = Stripe(now)
    try:
        with mock_aws():
            client = boto3.client("dynamodb")
            client.create_table(
                TableName="t",
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            )
            DynamoUsage(Table(client, "t")).add("p1", day_of(now - 2 * clock.DAY), {"events": 41})
            said = run("bill", str(file), "--stripe-url", stripe.url)
            assert "41" in said.output, said.output
            run("bill", str(file), "--stripe-url", stripe.url)
            stripe.close()
            DynamoUsage(Table(client, "t")).add("p1", day_of(now - 3 * clock.DAY), {"events": 1})
            assert "run it again" in run("bill", str(file), "--stripe-url", stripe.url).output
    finally:
        stripe.server.server_close()
    assert stripe.values("tocsin_events") == 41


def test_the_journal_of_the_deployment_is_read_as_its_operator(server: Server) -> None:
    run("journal", "list", "--deployment", "--kind", "healing.repaired", "--actor", "system:supervise", "--json")
    ((_, path, query, key, _, _),) = server.requests
    asked = {"limit": "20", "kind": "healing.repaired", "actor": "system:supervise", "of": "deployment"}
    assert (path, query, key) == ("/v1/journal", asked, "tcn_live_a")


def journal_in(folder: Path, size: int) -> None:
    for name, data in log_of(size, [3, 300]).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_a_copy_of_the_journal_is_verified_with_the_keys_given(tmp_path: Path) -> None:
    journal_in(tmp_path / "log", 310)
    journal_in(tmp_path / "longer", 400)
    keys = [part for key in PINNED for part in ("--key", str(key))]
    good = run("journal", "verify", str(tmp_path / "log"), *keys)
    assert (good.exit_code, good.output[:23]) == (0, "VERIFIED: 310 entries i")
    kept = ("--earlier", str(tmp_path / "log" / "checkpoint"))
    assert run("journal", "verify", str(tmp_path / "longer"), *keys, *kept).exit_code == 0
    cut = run("journal", "verify", str(tmp_path / "log"), *keys, "--earlier", str(tmp_path / "longer" / "checkpoint"))
    assert (cut.exit_code, "the log was cut" in cut.output) == (1, True)
    assert run("journal", "verify", str(tmp_path / "log"), "--key", "nonsense").exit_code == 2
    for path, place in (("tile/0/001.p/54", "tile/0/001.p/54 byte 0 (hash 0)"), ("checkpoint", "checkpoint line 1")):
        file = tmp_path / "log" / path
        whole = file.read_bytes()
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        bad = run("journal", "verify", str(tmp_path / "log"), *keys)
        file.write_bytes(whole)
        assert (bad.exit_code, f"NOT VERIFIED: {place}" in bad.output) == (1, True), bad.output


def test_the_bucket_is_verified_with_the_pinned_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "t"),
        ("AWS_SECRET_ACCESS_KEY", "t"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TOCSIN_HOME", str(tmp_path))
    found = {
        "stack": "tocsin",
        "resources": {"JournalBucketName": "journal"},
        "journal_keys": [str(key) for key in PINNED],
    }
    (tmp_path / "tocsin.json").write_text(json.dumps(found))
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="journal")
        for name, data in {**log_of(300), "../../escape": b"x"}.items():
            s3.put_object(Bucket="journal", Key=f"journal/{name}", Body=data)
        assert run("journal", "keys").output.split() == found["journal_keys"]
        assert run("journal", "verify").output.startswith("VERIFIED: 300 entries")
        assert run("journal", "fetch", str(tmp_path / "copy" / "log")).exit_code == 0
        copied = {path.name for path in (tmp_path / "copy").rglob("*") if path.is_file()}
        assert "escape" not in copied
        s3.put_object(Bucket="journal", Key="journal/tile/entries/000", Body=b"no bundle")
        bad = run("journal", "verify")
    assert (bad.exit_code, "NOT VERIFIED: tile/entries/000" in bad.output) == (1, True), bad.output


def test_filters_are_passed_on(server: Server) -> None:
    run("events", "--source", "sentry", "--tier", "high", "--text", "disk", "--limit", "7")
    assert server.requests[0][2] == {"source": "sentry", "tier": "high", "q": "disk", "limit": "7"}


def test_a_listing_follows_cursors_up_to_its_limit(server: Server) -> None:
    pages = [{"data": {"items": [{"n": n}] * 100}, "meta": {"next_cursor": f"c{n}"}} for n in range(5)]
    server.answers = [(200, page) for page in pages]
    assert len(list(Api(server.url, "k").items("/v1/events", 250))) == 250
    assert [request[2].get("cursor") for request in server.requests] == [None, "c0", "c1"]
    assert [request[2]["limit"] for request in server.requests] == ["100", "100", "50"]


def test_send_one_event(server: Server) -> None:
    server.answers = [(202, {"data": {"items": [{"status": "accepted", "event_id": "evt_1"}]}, "meta": {}})]
    result = run("send", "--title", "Disk full", "--severity", "high", "--entity", "host:db-1", "--tag", "env=prod")
    assert result.exit_code == 0, result.output
    method, path, _, _, kind, body = server.requests[0]
    assert (method, path, kind) == ("POST", "/v1/events", "application/json")
    event = json.loads(body)
    assert ces.validate(dict(event))["entity"] == {"type": "host", "id": "db-1"}
    assert event["tags"] == {"env": "prod"}


def test_send_a_file_byte_for_byte(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "two.ndjson"
    file.write_bytes(b'{"a": 1}\n\n{"a":2}')
    refused = {"status": "refused", "error": {"code": "ERR_SCHEMA", "message": "no"}}
    server.answers = [(207, {"data": {"items": [refused]}, "error": {"code": "ERR_PARTIAL"}})]
    result = run("send", str(file))
    assert server.requests[0][4:] == ("application/x-ndjson", b'{"a": 1}\n\n{"a":2}')
    assert result.exit_code == 1
    assert "ERR_SCHEMA: no" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("send",),
        ("send", "--title", "x", "--entity", "host"),
        ("send", "--title", "x", "--tag", "env"),
        ("replay", "--sinse", "1h"),
        ("dead-letters", "replay"),
        ("dead-letters", "replay", "unknown"),
        ("events", "--limit", "0"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_sent(server: Server, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert server.requests == []


def test_a_refusal_is_one_line_and_status_1(server: Server) -> None:
    result = run("explain", "nothing")
    assert (result.exit_code, result.output) == (
        1,
        "Error: 404 ERR_NOT_FOUND: There is no such thing here.\n",
    )


def test_no_stack_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_HOME", str(tmp_path / "none"))
    result = run("events")
    assert result.exit_code == 1
    assert "run make up" in result.output


def test_an_api_that_is_down_or_speaks_no_json(server: Server) -> None:
    server.answers = [(502, b"<html>bad gateway</html>")]
    with pytest.raises(ApiError, match="ERR_NOT_JSON"):
        Api(server.url, "k").get("/v1/events")
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ApiError) as caught:
        Api(server.url, "k", timeout=2).get("/v1/events")
    assert caught.value.status == 0


def test_the_contract_is_found_where_tocsin_home_says(server: Server) -> None:
    assert contract()["project_key"] == "tcn_live_p"


def test_dead_letter_queues_are_those_of_the_template() -> None:
    template = (Path(__file__).parents[2] / "template.yaml").read_text()
    assert all(f'QueueName: !Sub "${{AWS::StackName}}-{name}"' in template for name in QUEUES)
    assert template.count("Type: AWS::SQS::Queue\n") == 2 * len(QUEUES)


@pytest.fixture
def parked(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An account with the stack's queues, its table, and three dead letters of notify."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    file = Path(os.environ["TOCSIN_HOME"]) / "tocsin.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"resources": {"TableName": "rows"}}))
    with mock_aws():
        boto3.client("dynamodb").create_table(
            TableName="rows",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
        )
        sqs = boto3.client("sqs")
        for name in QUEUES:
            dead = sqs.create_queue(QueueName=f"tocsin-{name}-dead")["QueueUrl"]
            asked = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
            policy = {"deadLetterTargetArn": asked["Attributes"]["QueueArn"], "maxReceiveCount": 5}
            sqs.create_queue(QueueName=f"tocsin-{name}", Attributes={"RedrivePolicy": json.dumps(policy)})
        dead = sqs.get_queue_url(QueueName="tocsin-notify-dead")["QueueUrl"]
        for n in range(3):
            sqs.send_message(QueueUrl=dead, MessageBody=f'{{"deliver":{{"n":{n}}},"project":"shop"}}')
        yield sqs


@pytest.mark.usefixtures("parked")
def test_dead_letters_are_counted_listed_and_sent_back_by_somebody() -> None:
    counted = run("dead-letters", "list").output
    assert [line.split() for line in counted.splitlines() if line.startswith("notify")] == [["notify", "3"]]
    listed = run("dead-letters", "list", "notify").output
    assert listed.count("deliver") == 3
    assert "shop" in listed
    result = run("dead-letters", "replay", "notify", "--limit", "2", "--rate", "1000")
    assert result.exit_code == 0, result.output
    assert "2 messages were sent back to notify, 1 are left" in result.output
    (record,) = Healings(Table(boto3.client("dynamodb"), "rows")).page(None, 10).items
    assert (record["action"], record["by"]) == ("replay", getpass.getuser())


# the receiver
SECRET = signing.channel_secret(bytes(range(32)), "chn_1", 1)
BODY = b'{"type":"dev.tocsin.incident.opened","subject":"inc_1","data":{"a":1}}'


def post(port: int, headers: dict[str, str], body: bytes = BODY) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("POST", "/hook", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(0, [SECRET], tmp_path / "receipts.jsonl")
    yield receiver
    receiver.close()


def test_the_receiver_takes_what_we_sign_and_what_the_reference_signs(receiver: Receiver, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ours = signing.sign([SECRET], "msg_1", int(now.timestamp()), BODY)
    theirs = {
        "webhook-id": "msg_2",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_2", now, BODY.decode()),
    }
    other = signing.channel_secret(bytes(range(32)), "chn_1", 2)
    rotated = signing.sign([other, SECRET], "msg_3", int(now.timestamp()), BODY)
    assert [post(receiver.port, headers) for headers in (ours, theirs, rotated)] == [204, 204, 204]
    assert receiver.wait(lambda got: len(got) == 3, 5)
    assert [(one.verified, one.subject, one.data) for one in receiver.receipts] == [(True, "inc_1", {"a": 1})] * 3
    lines = (tmp_path / "receipts.jsonl").read_text().splitlines()
    assert [json.loads(line)["webhook_id"] for line in lines] == ["msg_1", "msg_2", "msg_3"]


def test_the_receiver_refuses_what_is_not_genuine(receiver: Receiver) -> None:
    now = int(datetime.now(UTC).timestamp())
    good = signing.sign([SECRET], "msg_1", now, BODY)
    assert post(receiver.port, good, BODY + b" ") == 401
    assert post(receiver.port, good | {"webhook-id": "msg_2"}) == 401
    assert post(receiver.port, good | {"webhook-timestamp": str(now + 1)}) == 401
    assert post(receiver.port, signing.sign([SECRET], "msg_1", now - 600, BODY)) == 401
    assert post(receiver.port, {}) == 401
    other = signing.channel_secret(bytes(range(1, 33)), "chn_1", 1)
    assert post(receiver.port, signing.sign([other], "msg_1", now, BODY)) == 401
    assert [one.verified for one in receiver.receipts] == [False] * 6
    assert signature_problem([], "msg_1", str(now), good["webhook-signature"], BODY, now) == "no signature matches"


# the demo's story
def test_the_story_is_made_of_valid_events_and_a_valid_topology() -> None:
    for shop in ("", "shop2-"):
        story, topology = demo.read_story(shop)
        assert set(story) == set(demo.SOURCES)
        told = [event for events in story.values() for event in events]
        demo.happen_now(told, "abc123", 1_795_176_000.0)
        assert len({event["id"] for event in told}) == len(told)
        for event in told:
            ces.check_time(ces.validate(dict(event)), 1_795_176_000_000)
        assert max(event["occurred_at"] for event in told) == "2026-11-20T11:59:59.000Z"
        declared = Topology.from_document(topology)
        assert f"{shop}{demo.HEART}" in declared
        services = {event["tags"]["service"] for event in told if "service" in event["tags"]}
        assert all(service in declared for service in services)


def test_every_resolve_of_the_story_follows_its_alert() -> None:
    story, _ = demo.read_story("")
    for events in story.values():
        fired: set[str] = set()
        for event in sorted(events, key=lambda one: one["occurred_at"]):
            key = ces.default_dedup_key(event)
            if event.get("status") == "resolved":
                assert key in fired, event["id"]
            fired.add(key)


def test_waiting_ends_with_what_was_seen() -> None:
    with pytest.raises(demo.DemoFailedError, match="a thing: not within 0 s; seen: only this"):
        demo.until("a thing", 0, lambda: None, lambda: "only this")
    assert demo.until("a thing", 0, lambda: [1]) == [1]


def test_a_demo_without_a_stack_fails_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOCSIN_HOME", str(tmp_path))
    assert demo.main() == 1
    assert "demo FAILED" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "ago_ms"), [("90min", 5_400_000), ("24h", 86_400_000), ("7d", 604_800_000), ("2026-11-20T00:00:00Z", None)]
)
def test_a_replay_begins_at_a_span_or_a_time(text: str, ago_ms: int | None) -> None:
    now = clock.parse_rfc3339("2026-11-21T00:00:00Z")
    assert since_ms(text, now) == (now - ago_ms if ago_ms else now - 86_400_000)


@pytest.mark.parametrize("text", ["", "h", "0h", "-1d", "1w", "yesterday", "2026-11-20"])
def test_a_replay_begins_at_nothing_else(text: str) -> None:
    with pytest.raises(LookupError, match="--since"):
        since_ms(text, 0)
