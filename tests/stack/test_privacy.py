"""Export, deletion and erasure on the deployed stack: with a second person only, and nothing readable afterwards."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import secrets
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import KeySet
from tests.stack.conftest import Deployed, Reply, eventually
from tests.stack.test_journal import Log, run

from tocsin.aws import keys as table_keys
from tocsin.aws.data_keys import KmsKeyRing
from tocsin.aws.privacy_store import KEPT, DynamoJobs, ProjectStores
from tocsin.aws.table import Table
from tocsin.kernel.clock import now_ms
from tocsin.kernel.ids import new_id
from tocsin.privacy.jobs import ERASED, MARGIN_MS, Job, Worker, begin
from tocsin.routes import ROUTES

pytestmark = pytest.mark.stack
SCOPES = (
    "admin:*",
    "approvals:*",
    "tokens:*",
    "events:*",
    "incidents:*",
    "notify:*",
    "topology:*",
    "ingest:write",
    "contracts:*",
)
QUEUES = ("score", "correlate", "relay", "notify", "digest", "supervise", "privacy")


@dataclass(frozen=True)
class Owner:
    """A project with two administrators who have nothing to do with each other, and what was sent to it."""

    deployed: Deployed
    project: str
    key: str
    second: str
    text: str
    user: str
    events: int

    def approved(self, method: str, path: str, by: str | None = None) -> tuple[str, Reply]:
        """An approval of one request, asked by the first and decided by the second or `by`."""
        asked = self.deployed.made("/v1/approvals", {"request": {"method": method, "path": path}}, self.key)
        return asked["id"], self.deployed.call(
            "POST", f"/v1/approvals/{asked['id']}/approve", {}, key=by or self.second
        )

    def begun(self, method: str, path: str) -> str:
        """Id of the job of a request that a second person approved."""
        bare = self.deployed.call(method, path, key=self.key)
        assert (bare.status, bare.body["error"]["code"]) == (403, "ERR_APPROVAL_REQUIRED")
        approval, _ = self.approved(method, path)
        reply = self.deployed.call(method, path, key=self.key, X_Approval=approval)
        assert reply.status == 202, reply
        again = self.deployed.call(method, path, key=self.key, X_Approval=approval)
        assert again.status in (409, 410), again
        return str(reply.body["data"]["id"])

    def titles(self) -> list[str]:
        found: list[str] = []
        cursor = ""
        while True:
            reply = self.deployed.call("GET", f"/v1/events?limit=100{cursor}", key=self.key)
            assert reply.status == 200, reply
            found += [f"{event['title']} {event['entity']['id']}" for event in reply.body["data"]["items"]]
            if not reply.body["meta"]["next_cursor"]:
                return sorted(found)
            cursor = f"&cursor={reply.body['meta']['next_cursor']}"

    @property
    def pseudonym(self) -> str:
        path = f"/v1/projects/{self.project}/subjects"
        reply = self.deployed.call("POST", path, {"value": self.user}, key=self.key)
        return str(reply.body["data"]["pseudonym"])


@pytest.fixture
def pair(deployed: Deployed) -> tuple[Owner, Owner]:
    """Two projects with the same content: a row and an object of the log, a claim, incidents, a failed notification."""
    text, user = f"seeded{secrets.token_hex(8)}", f"ada.{secrets.token_hex(4)}@example.com"
    noise = secrets.token_hex(30_000)
    events = [
        {
            "id": f"p-{n}",
            "source": "privacy-test",
            "type": "checkout.down",
            "title": f"{text} number {n}",
            "body": noise if n < 6 else "short",
            "entity": {"type": "user", "id": user if n % 2 else "grace@example.com"},
            "tags": {"user": user},
            "severity_raw": "critical",
        }
        for n in range(8)
    ]
    owners = []
    for _ in range(2):
        project, key = deployed.new_project(*SCOPES)
        second = deployed.new_key(project, *SCOPES)
        channel = {"kind": "webhook", "name": f"{text} channel", "url": f"{deployed.contract['receiver']}/hook"}
        deployed.made("/v1/channels", channel, key)
        contract = next(route for route in ROUTES if route.operation_id == "register_contract").examples[0].body
        deployed.made("/v1/contracts", {name: contract[name] for name in contract if name != "endpoint"}, key)
        deployed.send(key, events[:7])
        deployed.send(key, events[7:])
        owners.append(Owner(deployed, project, key, second, text, user, len(events)))
    for owner in owners:
        eventually(lambda owner=owner: deployed.settled(owner.project, owner.events), 60)  # type: ignore[misc]
        eventually(lambda owner=owner: deployed.get("/v1/notifications", owner.key)["items"], 60)  # type: ignore[misc]
    return owners[0], owners[1]


def forms(value: Any) -> Iterator[bytes]:
    """A stored value in every form in which somebody could read it."""
    if isinstance(value, str):
        yield value.encode()
        if len(value) > 64:
            with contextlib.suppress(ValueError):
                yield from forms(base64.b64decode(value, validate=True))
    elif isinstance(value, bytes):
        yield value
        for unpack in (zlib.decompress, gzip.decompress):
            try:
                yield unpack(value)
            except (OSError, EOFError, zlib.error):
                continue
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from forms(name)
            yield from forms(one)
    elif isinstance(value, list | tuple | set):
        for one in value:
            yield from forms(one)


def everything(deployed: Deployed) -> Iterator[tuple[str, Any]]:
    """(place, content) of every row, object, message in or behind a queue, and log line of the running stack."""
    for prefix in ("p#", *table_keys.GLOBAL):
        after = None
        while True:
            rows, after = deployed.table.scan(prefix, after=after)
            yield from ((f"row {row['pk']}", row) for row in rows)
            if after is None:
                break
    for page in deployed.client("s3").get_paginator("list_objects_v2").paginate(Bucket=deployed.bucket.name):
        for item in page.get("Contents", []):
            yield f"object {item['Key']}", deployed.bucket.get(item["Key"])
    sqs = deployed.client("sqs")
    for url in sqs.list_queues().get("QueueUrls", []):
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0).get(
            "Messages", []
        ):
            yield f"message of {url}", message["Body"]
    logs = deployed.client("logs")
    for group in logs.describe_log_groups()["logGroups"]:
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
            for line in page["events"]:
                yield f"log {group['logGroupName']}", line["message"]


def found_in(deployed: Deployed, *needles: str) -> list[tuple[str, str]]:
    wanted = [needle.encode() for needle in needles]
    return [
        (place, needle.decode())
        for place, content in everything(deployed)
        for form in forms(content)
        for needle in wanted
        if needle in form
    ]


def receipt_of(owner: Owner, job: str, key: str) -> dict[str, Any]:
    """The receipt once the job was gone through, verified with nothing but the published keys."""

    def read() -> Any:
        reply = owner.deployed.call("GET", f"/v1/projects/{owner.project}/receipts/{job}", key=key)
        assert reply.status in (200, 409), reply
        return reply.body["data"] if reply.status == 200 else None

    data = eventually(read, 90)
    published = owner.deployed.call("GET", "/v1/tokens/keys", key=key).body
    signed = jws.deserialize_compact(data["jws"], KeySet.import_key_set(published), algorithms=["Ed25519"])
    claims = json.loads(signed.payload)
    assert {name: claims[name] for name in data["receipt"]} == data["receipt"]
    receipt: dict[str, Any] = data["receipt"]
    assert receipt["status"] == "done"
    assert not [one for one in receipt["stores"] if one.get("remains")]
    return receipt


def test_nobody_approves_their_own_export(pair: tuple[Owner, Owner]) -> None:
    owner, _ = pair
    _, reply = owner.approved("POST", f"/v1/projects/{owner.project}/exports", by=owner.key)
    assert (reply.status, reply.body["error"]["code"]) == (403, "ERR_SELF_APPROVAL")


def test_an_export_is_verified_against_its_manifest_then_the_project_is_deleted(pair: tuple[Owner, Owner]) -> None:
    owner, other = pair
    deployed, path = owner.deployed, f"/v1/projects/{owner.project}"
    job = owner.begun("POST", f"{path}/exports")
    export = eventually(lambda: _done(deployed.get(f"{path}/exports/{job}", owner.key)), 90)
    manifest = json.loads(_fetched(export["manifest"]))
    listed = {file["name"]: file["sha256"] for file in manifest["files"]}
    rows: dict[str, list[Any]] = {}
    for file in export["files"]:
        data = _fetched(file["url"])
        assert hashlib.sha256(data).hexdigest() == listed.pop(file["name"])
        rows.setdefault(file["content"], []).extend(json.loads(line) for line in gzip.decompress(data).splitlines())
    assert listed == {}
    assert len(rows["events"]) == owner.events
    assert rows["incidents"]
    assert rows["notifications"]
    assert len(rows["channels"]) == 1
    assert [one["name"] for one in rows["contracts"]] == ["mailer"]

    kept, pseudonym = other.titles(), owner.pseudonym
    seen = {place.rpartition("/")[0] for place, _ in found_in(deployed, owner.text)}
    assert seen == {f"object exports/{owner.project}/{export['id']}"}, "readable in the export, and nowhere else"
    job = owner.begun("DELETE", path)
    admin = deployed.contract["admin_key"]
    receipt = receipt_of(owner, job, admin)
    counted = {one["store"]: one.get("removed") for one in receipt["stores"]}
    assert counted["data keys"] == 1
    assert counted["table"] > owner.events
    assert counted["bucket segments/"] >= 1
    assert counted["bucket claim/"] >= 1
    assert counted["bucket registry/"] >= 1
    assert counted["bucket exports/"] >= len(export["files"])
    for key in (owner.key, owner.second):
        gone = eventually(lambda key=key: _gone(deployed.call("GET", "/v1/events", key=key)), 40)  # type: ignore[misc]
        assert gone.body["error"]["code"] == "ERR_PROJECT_DELETED"
    assert found_in(deployed, owner.text, pseudonym, owner.user) == []
    rows, _ = deployed.table.scan(f"p#{owner.project}#", limit=100_000)
    assert {row["pk"].split("#")[2] for row in rows} <= KEPT
    assert other.titles() == kept
    # All of it is in the journal, which verifies as before.
    log = Log(deployed)
    told = log.shows(lambda: found if "deletion.done" in (found := kinds(log, owner.project)) else None)
    assert {"approval.asked", "approval.given", "approval.used", "export.begun", "export.done"} <= told
    assert {"deletion.begun", "project.deleted", "denied.approval_required"} <= told
    assert run("journal", "verify").exit_code == 0


def kinds(log: Log, project: str) -> set[str]:
    return {one["kind"] for one in log.entries() if one["project"] == project}


def test_an_erased_person_is_found_nowhere_and_everything_else_is(pair: tuple[Owner, Owner]) -> None:
    owner, other = pair
    deployed, pseudonym = owner.deployed, owner.pseudonym
    before, kept = owner.titles(), other.titles()
    assert any(pseudonym in title for title in before)
    job = owner.begun("DELETE", f"/v1/projects/{owner.project}/subjects/{pseudonym}")
    receipt = receipt_of(owner, job, owner.key)
    assert receipt["subject_sha256"] == hashlib.sha256(pseudonym.encode()).hexdigest()
    assert owner.titles() == sorted(title.replace(pseudonym, ERASED) for title in before)
    assert other.titles() == kept
    assert found_in(deployed, pseudonym) == []
    entries = deployed.ledger.read(owner.project, 1, 100)
    assert pseudonym not in repr(entries)
    assert deployed.get(f"/v1/events?entity=user:{ERASED}", owner.key)["items"], "filters go by what is stored"
    row = deployed.table.get(table_keys.privacy_job(owner.project, job))
    assert row is not None


def test_what_a_worker_left_half_way_the_deployed_one_ends(pair: tuple[Owner, Owner]) -> None:
    owner, other = pair
    deployed, kept = owner.deployed, other.titles()
    sqs, rows = deployed.client("sqs"), Table(deployed.client("dynamodb"), deployed.outputs["DataKeysName"])
    ring = KmsKeyRing(rows, lambda: deployed.client("kms"), deployed.outputs["MasterKeyArn"])
    jobs = DynamoJobs(deployed.table, deployed.sealer)
    urls = [deployed.outputs["ScoreQueueUrl"]]
    stores = ProjectStores(deployed.table, deployed.bucket, ring, deployed.sealer, sqs, urls, retention_days=90)

    def hand_on(project: str, job_id: str, delay_s: int = 0) -> None:
        sqs.send_message(
            QueueUrl=deployed.outputs["PrivacyQueueUrl"], MessageBody=json.dumps({"project": project, "job": job_id})
        )

    job_id, now = new_id("job", now_ms()), now_ms()
    begin(jobs, lambda *_: None, job_id, owner.project, "deletion", "key_of_the_test", now)
    times = iter([MARGIN_MS] * 3)  # time for three steps: stop, keys, a page of rows
    worker = Worker(jobs, stores, None, hand_on, now_ms)  # type: ignore[arg-type]
    half = worker.run(owner.project, job_id, lambda: next(times, 0))
    assert half is not None
    assert (half.status, half.over, half.removed["data_keys"]) == ("running", False, 1)
    job = eventually(lambda: _ended(jobs.get(owner.project, job_id)), 60)
    assert (job.status, job.remains) == ("done", dict.fromkeys(job.remains, 0))
    assert job.removed["segments"] >= 1
    assert {row["pk"].split("#")[2] for row in deployed.table.scan(f"p#{owner.project}#", limit=100_000)[0]} <= KEPT
    assert found_in(deployed, owner.text) == []
    assert other.titles() == kept


def _ended(job: Job | None) -> Job | None:
    return job if job is not None and job.status != "running" else None


def _done(export: dict[str, Any]) -> dict[str, Any] | None:
    return export if export["status"] == "done" else None


def _gone(reply: Reply) -> Reply | None:
    return reply if reply.status == 410 else None


def _fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        data: bytes = answer.read()
    return data
