"""Everything of a project on a real table, bucket and queues: found, removed, rewritten, exported; nobody else's."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from tests.support.api_fakes import sample_contracts
from tests.support.events import stored_event

from tocsin.access.admin import Person
from tocsin.access.principals import KeyRecord
from tocsin.access.projects import Project, ProjectSettings
from tocsin.aws import keys
from tocsin.aws.bucket import Bucket
from tocsin.aws.data_keys import KmsKeyRing
from tocsin.aws.decision_store import DynamoPointer, RegistryObjects
from tocsin.aws.delivery_store import DynamoChannels, DynamoNotifications
from tocsin.aws.documents import Documents
from tocsin.aws.incident_store import DynamoIncidentStore
from tocsin.aws.key_store import DynamoKeys, DynamoPeople, DynamoProjects
from tocsin.aws.ledger import INLINE_BYTES, DynamoLedger
from tocsin.aws.privacy_export import ProjectExports
from tocsin.aws.privacy_store import DynamoJobs, ProjectStores
from tocsin.aws.table import Table
from tocsin.decisions import changes, contracts
from tocsin.decisions.snapshots import Registry
from tocsin.delivery.model import Channel, NotificationRecord
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal
from tocsin.kernel.ids import derived_id
from tocsin.kernel.sealing import Sealer
from tocsin.privacy.jobs import ERASED, Job, Kind, Worker, begin
from tocsin.signals.incidents import Effects, Incident
from tocsin.signals.ports import Commit, Cursor, OutboxRow

NOW = clock.now_ms()
ADA, BOB = "usr_" + "a" * 26, "usr_" + "b" * 26
SECRET = "the text of somebody"
PROJECTS = ("shop", "kept")


def create_table(client: Any, name: str) -> Table:
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": one, "AttributeType": "S"} for one in ("pk", "sk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    return Table(client, name)


class World:
    """Two projects that hold the same of everything."""

    def __init__(self) -> None:
        self.now = NOW
        dynamo, self.s3, self.sqs = boto3.client("dynamodb"), boto3.client("s3"), boto3.client("sqs")
        self.table, self.key_rows = create_table(dynamo, "t"), create_table(dynamo, "k")
        self.s3.create_bucket(Bucket="bucket")
        self.bucket = Bucket(self.s3, "bucket")
        kms = boto3.client("kms")
        master = kms.create_key()["KeyMetadata"]["KeyId"]
        self.ring = KmsKeyRing(self.key_rows, lambda: kms, master)
        self.sealer = Sealer(self.ring)
        self.dead = self.sqs.create_queue(QueueName="q-dead")["QueueUrl"]
        policy = {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:q-dead", "maxReceiveCount": "5"}
        url = self.sqs.create_queue(QueueName="q", Attributes={"RedrivePolicy": json.dumps(policy)})["QueueUrl"]
        self.ledger = DynamoLedger(self.table, self.bucket, self.sealer, retention_days=90)
        self.incidents = DynamoIncidentStore(self.table, self.sealer, retention_days=90)
        self.notifications = DynamoNotifications(self.table, self.sealer, retention_days=90)
        self.channels = DynamoChannels(self.table, self.sealer)
        self.documents = Documents(self.table, self.sealer)
        self.queued: list[tuple[str, str, int]] = []
        self.jobs = DynamoJobs(self.table, self.sealer)
        self.stores = ProjectStores(
            self.table, self.bucket, self.ring, self.sealer, self.sqs, [url], retention_days=90, now=lambda: self.now
        )
        projects, key_rows, people = DynamoProjects(self.table), DynamoKeys(self.table), DynamoPeople(self.table)
        exports = ProjectExports(
            *(self.table, self.bucket, self.ledger, self.incidents, self.notifications, self.channels, self.documents),
            *(projects, key_rows, people),
            retention_days=3,
            now=lambda: self.now,
        )
        self.worker = Worker(self.jobs, self.stores, exports, self.enqueue, lambda: self.now)
        for project in PROJECTS:
            projects.put(Project(project, SECRET, NOW, version=1), 0)
            record = KeyRecord(f"{project:0<12}", project, "live", b"h" * 32, frozenset(), NOW, name=SECRET)
            key_rows.add(record)
            people.put(Person(f"per_{project}", project, SECRET, frozenset(), NOW, "key_1"), 0)
            self.fill(project)

    def enqueue(self, project: str, job_id: str, delay_s: int = 0) -> None:
        self.queued.append((project, job_id, delay_s))

    def fill(self, project: str) -> None:
        """Events in a row and in an object, an incident, a notification, a channel, a document, an outbox row."""
        for n, text in ((1, SECRET), (2, "".join(map(chr, range(200, 9_000))))):
            events = [
                stored_event(
                    f"{n}-{i}",
                    title=SECRET,
                    body=text,
                    entity={"type": "user", "id": who},
                    tags={"user": who},
                    ruling_ms=NOW,
                    tier="info",
                )
                for i, who in enumerate((ADA, BOB))
            ]
            head = self.ledger.head(project)
            mark = {"c": f"c{n}", "d": b"d" * 32, "at": NOW, "exp": NOW // 1000 + 90 * 86_400}
            self.table.put_all((keys.mark(project, event["event_id"]), mark) for event in events)
            versions = {"topology": "topology-0"}
            self.ledger.commit(project, Commit(f"c{n}", head, NOW, "t" * 8, events, {b"k" * 8: b"s"}, {}, versions))
        incident = Incident(derived_id("inc", NOW, project), NOW, NOW, NOW, NOW, NOW, title=f"{SECRET} {ADA}")
        self.incident_id = incident.id
        effects = Effects(incidents={incident.id: incident}, index={"u:x": [incident.id]})
        fact = {"facts": [{"kind": "IncidentOpened", "detail": {"title": f"{SECRET} {ADA}"}}]}
        row = OutboxRow(project, "out_1", "fact", NOW, fact)
        self.incidents.save(project, Cursor(), Cursor(1, 0, 1), effects, [row], NOW)
        record = NotificationRecord(
            project, incident.id, 1, "opened", "chn_1", "delivered", NOW, payload={"title": f"{SECRET} {ADA}"}
        )
        self.notifications.claim(record)
        self.channels.put(Channel("chn_1", project, "email", SECRET, NOW, to=("a@b.example",)), None)
        registry = Registry(RegistryObjects(self.bucket, project), DynamoPointer(self.table, project), lambda: NOW)
        registry.publish(changes.register(contracts.validate(sample_contracts()[0], NOW)))
        self.documents.put(project, "topology", {"services": {SECRET: {}}}, None, NOW)
        self.table.put(keys.evidence(project, NOW, "evd_1"), {"payload": "digests"})
        for prefix in ("claim", "exports"):
            self.bucket.put(f"{prefix}/{project}/x", SECRET.encode())
        letter = {"detail-type": "IncidentOpened", "detail": {"project": project, "title": f"{SECRET} {ADA}"}}
        self.sqs.send_message(QueueUrl=self.dead, MessageBody=json.dumps(letter))

    def run(self, kind: Kind, **rest: Any) -> Job:
        job_id = derived_id("job", NOW, kind)
        begin(self.jobs, self.enqueue, job_id, "shop", kind, "key_1", NOW, **rest)
        job = self.worker.run("shop", job_id, lambda: 10**6)
        assert job is not None
        return job

    def rows(self, project: str) -> list[dict[str, Any]]:
        return self.table.scan(keys.partition(project, ""))[0]

    def objects(self, project: str) -> dict[str, bytes]:
        found = self.s3.list_objects_v2(Bucket="bucket").get("Contents", [])
        return {one["Key"]: self.bucket.get(one["Key"]) for one in found if one["Key"].split("/")[1] == project}

    def letters(self) -> list[str]:
        answer = self.sqs.receive_message(QueueUrl=self.dead, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return sorted(json.loads(one["Body"])["detail"]["project"] for one in answer.get("Messages", []))

    def readable(self, project: str) -> str:
        """Everything of a project that a reader with its keys can read, as text."""
        events = [event for entry in self.ledger.read(project, 1, 10) for event in entry.events]
        incidents = [one.to_row() for one in self.incidents.listed(project, keys.day(NOW))]
        told = self.notifications.list_for(project, now=NOW + 1).records
        facts = [repr(self.sealer.open(project, row["z"], "row", row["pk"], row["sk"]))
                 for row in self.rows(project) if "#out#" in row["pk"]]  # fmt: skip
        return repr((events, incidents, told, facts))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield World()


def test_the_world_has_segments_in_rows_and_in_objects(world: World) -> None:
    rows = {row["sk"]: row for row in world.rows("shop") if "#log#" in row["pk"]}
    assert len(rows["000000000001"]["body"]) <= INLINE_BYTES
    assert rows["000000000002"]["s3"] in world.objects("shop")
    assert SECRET in world.readable("shop")


def test_a_deleted_project_is_gone_and_the_other_untouched(world: World) -> None:
    backup = world.rows("shop")
    kept = (world.rows("kept"), world.objects("kept"), world.readable("kept"))
    job = world.run("deletion")
    assert job.status == "done", job
    assert {row["pk"].split("#")[2] for row in world.rows("shop")} == {"evidence"}
    assert world.objects("shop") == {}
    assert world.letters() == ["kept"]
    assert [row["sk"] for row in world.key_rows.query("shop")] == ["~destroyed"]
    assert (world.rows("kept"), world.objects("kept"), world.readable("kept")) == kept

    record, key = DynamoProjects(world.table).get("shop"), DynamoKeys(world.table).get("shop00000000")
    assert record is not None
    assert (record.status, record.name, record.settings) == ("deleted", "", ProjectSettings())
    assert key is not None
    assert (key.hash, key.name) == (b"h" * 32, ""), "what it takes to tell its callers that it is gone"
    assert list(world.table.query("sys#privacy")) != [], "once more when caches are gone"
    world.now = job.recheck_at or 0
    assert world.worker.run("shop", job.id, lambda: 10**6).rechecked_at == world.now  # type: ignore[union-attr]
    assert list(world.table.query("sys#privacy")) == []

    world.table.put_all((keys.Key(row.pop("pk"), row.pop("sk")), row) for row in backup)
    ring = KmsKeyRing(world.key_rows, lambda: boto3.client("kms"), "none")
    restored = DynamoIncidentStore(world.table, Sealer(ring), retention_days=90)
    with pytest.raises(Refusal) as refused:
        list(restored.listed("shop", keys.day(NOW)))
    assert refused.value.code == "ERR_PROJECT_DELETED"
    raw = repr([row for row in world.rows("shop") if "#people" not in row["pk"]])
    assert SECRET not in raw


def test_an_erased_person_is_nobody_everywhere_and_others_stay(world: World) -> None:
    old = set(world.objects("shop"))
    kept = (world.rows("kept"), world.objects("kept"), world.readable("kept"))
    assert ADA in world.readable("shop")
    job = world.run("erasure", subject=ADA, subject_hash="h")
    assert job.status == "done"
    after = world.readable("shop")
    assert ADA not in after
    assert ERASED in after
    assert BOB in after
    assert after.count(SECRET) == kept[2].count(SECRET)
    assert {name for name in old if name.startswith("segments/")} & set(world.objects("shop")) == set()
    assert len([name for name in world.objects("shop") if name.startswith("segments/")]) == 1
    assert not [name for name in world.objects("shop") if name.startswith("exports/")]
    assert world.letters() == ["kept"]
    assert not [row for row in world.rows("shop") if "was" in row]
    assert (world.rows("kept"), world.objects("kept"), world.readable("kept")) == kept
    stored = world.table.get(keys.privacy_job("shop", job.id))
    assert ADA not in repr(stored)
    again = world.stores.occurrences("shop", ADA, None, remove=False)
    assert again.counts == {"occurrences": 0}


def test_an_object_that_was_replaced_is_removed_even_when_the_worker_died_before(world: World) -> None:
    (row,) = [row for row in world.rows("shop") if "s3" in row]
    delete, world.bucket.delete_many = world.bucket.delete_many, lambda _: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        world.run("erasure", subject=ADA, subject_hash="h")
    world.bucket.delete_many = delete  # type: ignore[method-assign]
    assert row["s3"] in world.objects("shop")
    assert world.worker.run("shop", derived_id("job", NOW, "erasure"), lambda: 10**6).status == "done"  # type: ignore[union-attr]
    assert row["s3"] not in world.objects("shop")
    assert ADA not in world.readable("shop")


def test_retention_removes_what_is_older_than_the_project_keeps_with_its_objects(world: World) -> None:
    assert world.run("retention", keep_days=7).removed["rows"] == 0
    world.now = NOW + 8 * clock.DAY
    job_id = derived_id("job", NOW, "later")
    begin(world.jobs, world.enqueue, job_id, "shop", "retention", "schedule", world.now, keep_days=7)
    job = world.worker.run("shop", job_id, lambda: 10**6)
    assert job is not None
    assert (job.status, job.remains) == ("done", {"rows": 0})
    kinds = {row["pk"].split("#")[2] for row in world.rows("shop")}
    assert not kinds & {"m", "c", "log", "inc", "ntf", "ntfd"}
    assert {"head", "chn", "doc", "people", "keys", "evidence"} <= kinds
    assert not [name for name in world.objects("shop") if name.startswith("segments/")]
    assert world.ledger.read("kept", 1, 10)


def test_an_export_is_what_its_manifest_says(world: World) -> None:
    job = world.run("export")
    folder = f"exports/shop/{job.id}/"
    manifest = json.loads(world.bucket.get(folder + "manifest.json"))
    content: dict[str, list[Any]] = {}
    for file in manifest["files"]:
        data = world.bucket.get(folder + file["name"])
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["bytes"])
        lines = [json.loads(line) for line in gzip.decompress(data).splitlines()]
        assert len(lines) == file["rows"]
        content.setdefault(file["content"], []).extend(lines)
    assert {name: len(rows) for name, rows in content.items()} == {
        name: count for name, count in manifest["counts"].items() if count
    }
    assert {event["id"] for event in content["events"]} == {"1-0", "1-1", "2-0", "2-1"}
    assert content["incidents"][0]["title"].startswith(SECRET)
    assert content["notifications"][0]["payload"]["title"].startswith(SECRET)
    assert content["channels"][0]["to"] == ["a@b.example"]
    assert {one["name"] for one in content["documents"]} == {"topology"}
    assert [one["name"] for one in content["contracts"]] == ["mailer"]
    assert not [file for file in set(world.objects("shop")) if "/kept/" in file]
