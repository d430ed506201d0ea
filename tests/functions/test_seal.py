"""The seal handler over its samples, and the journal's storage on a table and a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import serialization
from functions.seal.handler import LEASE_MS, handler
from moto import mock_aws
from tests.rooms.journal.memory import COSIGNER, LOG, NOW, ORIGIN, PINNED, entry
from tests.support.delivery_fakes import Context as AnyContext

from tocsin import wiring
from tocsin.api.filters import JournalFilters
from tocsin.aws import keys
from tocsin.aws.evidence import evidence_row
from tocsin.aws.journal_store import DynamoJournal, DynamoJournalIndex, EvidenceRecorder, KmsSigner
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.table import Table
from tocsin.defense.ports import Lease
from tocsin.journal.notes import Checkpoint, VerifierKey, open_checkpoint
from tocsin.journal.ports import Fork, Head, HeadMoved, Published, Reservation
from tocsin.journal.sequencer import Outcome, Sequencer
from tocsin.journal.signatures import ED25519_SPKI
from tocsin.journal.verify import verify
from tocsin.kernel import clock
from tocsin.kernel.errors import Retry

SAMPLES = Path(__file__).parents[2] / "events" / "seal"


class Context(AnyContext):
    aws_request_id = "req-1"


class Rooms:
    """Sequencer, leases and heartbeats at once."""

    def __init__(self) -> None:
        self.sealed: list[int] = []
        self.beats: list[tuple[str, int]] = []
        self.held: Lease | None = None
        self.trouble: str | None = ""

    def seal(self, now: int, more: Any) -> Outcome:
        assert self.held is not None
        assert more()
        if self.trouble is None:
            raise Retry("the table is throttled")
        self.sealed.append(now)
        return Outcome(2, 7, 0, self.trouble)

    def take(self, name: str, holder: str, now: int, length_ms: int) -> Lease | None:
        if self.held is not None:
            return None
        self.held = Lease(name, holder, now + length_ms, 1)
        return self.held

    def release(self, lease: Lease) -> bool:
        assert lease == self.held
        self.held = None
        return True

    def beat(self, name: str, now: int) -> None:
        self.beats.append((name, now))


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Rooms:
    rooms = Rooms()
    for name in ("sequencer", "leases", "heartbeats"):
        monkeypatch.setattr(wiring, name, lambda: rooms, raising=False)
    monkeypatch.setattr(clock, "now_ms", lambda: NOW)
    return rooms


def sample(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return read


@pytest.mark.parametrize("name", sorted(path.stem for path in SAMPLES.glob("*.json")))
def test_every_sample_seals_once_and_leaves_a_heartbeat(rooms: Rooms, name: str) -> None:
    assert handler(sample(name), Context()) == {"batchItemFailures": []}
    assert rooms.sealed == [NOW]
    assert rooms.beats == [("seal", NOW)]
    assert rooms.held is None


def test_only_one_run_seals(rooms: Rooms) -> None:
    rooms.held = Lease("seal", "another", NOW + LEASE_MS, 7)
    assert handler(sample("minute"), Context()) == {"batchItemFailures": []}
    assert rooms.sealed == []
    assert rooms.beats == []


def test_a_run_that_fails_is_given_back_without_a_heartbeat(rooms: Rooms) -> None:
    rooms.trouble = None
    assert len(handler(sample("minute"), Context())["batchItemFailures"]) == 1
    assert rooms.beats == []
    assert rooms.held is None


def test_silent_keys_are_logged_and_the_run_counts(rooms: Rooms, caplog: pytest.LogCaptureFixture) -> None:
    rooms.trouble = "signing key: KMSInternalException"
    assert handler(sample("minute"), Context()) == {"batchItemFailures": []}
    assert "checkpoint lags" in caplog.text
    assert rooms.beats == [("seal", NOW)]


def test_a_stale_tick_is_dropped_but_the_minute_is_not(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: NOW + 31_000)
    handler(sample("tick"), Context())
    assert rooms.sealed == []
    handler(sample("minute"), Context())
    assert rooms.sealed == [NOW + 31_000]


# ---------------------------------------------------------------------------------------------------- storage
class Cloud:
    def __init__(self) -> None:
        dynamodb, self.s3 = boto3.client("dynamodb"), boto3.client("s3")
        names = [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")]
        schema = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
        dynamodb.create_table(
            TableName="t", AttributeDefinitions=names, KeySchema=schema, BillingMode="PAY_PER_REQUEST"
        )
        self.s3.create_bucket(Bucket="journal")
        self.table = Table(dynamodb, "t", pause=lambda seconds: None)
        self.store = DynamoJournal(self.table, self.s3, "journal")
        self.sequencer = Sequencer(self.store, ORIGIN, LOG, COSIGNER)

    def record(self, *numbers: int, project: str = "demo", now: int = NOW) -> None:
        EvidenceRecorder(self.table).record([entry(i, project) for i in numbers], now)

    def read(self, path: str) -> bytes | None:
        return self.store.read(path)

    def paths(self) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket="journal", Prefix="journal/")
        return [item["Key"].removeprefix("journal/") for page in pages for item in page.get("Contents", [])]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield Cloud()


def test_evidence_is_found_sealed_indexed_and_deleted(cloud: Cloud) -> None:
    cloud.record(0, 1, 2)
    cloud.record(3, project="other")
    assert [row.row_id for row in cloud.store.pending(NOW, 10)] == [
        "evd_demo_0",
        "evd_demo_1",
        "evd_demo_2",
        "evd_other_3",
    ]
    outcome = cloud.sequencer.seal(NOW + clock.SECOND)
    assert (outcome.sealed, outcome.size, outcome.unpublished) == (4, 4, 0)
    assert cloud.store.pending(NOW, 10) == []
    assert verify(cloud, PINNED).checkpoint.size == 4
    index = DynamoJournalIndex(cloud.table, lambda: NOW + 9)
    demo = JournalFilters("demo")
    assert [one["index"] for one in index.page(JournalFilters("other"), None, 10).items] == [3]
    page = index.page(demo, None, 2)
    assert [one["index"] for one in page.items] == [2, 1]
    assert page.items[0]["entry"] == entry(2).payload()
    rest = index.page(demo, page.next_position, 2)
    assert [one["index"] for one in rest.items] == [0]
    for narrowed, found in (
        (replace(demo, kind="key.revoked"), []),
        (replace(demo, actor="system:correlate"), [2, 1, 0]),
        (replace(demo, actor="key_0190"), []),
        (replace(demo, from_ms=NOW + 1, to_ms=NOW + 2), [1]),
        (replace(demo, from_ms=NOW + clock.DAY), []),
        (replace(demo, to_ms=NOW), []),
    ):
        assert [one["index"] for one in index.page(narrowed, None, 10).items] == found
    leftover = [row["sk"] for row in cloud.table.query("sys#journal")]
    assert leftover == ["head", "since", "watermark"]


def test_a_listing_walks_over_days_without_entries(cloud: Cloud) -> None:
    later = replace(entry(9), at=NOW + 100 * clock.DAY)
    cloud.record(0)
    cloud.sequencer.seal(NOW)
    EvidenceRecorder(cloud.table).record([later], later.at)
    cloud.table.put(keys.journal_watermark(), {"minute": later.at // clock.MINUTE - 1, "at": 0})
    cloud.sequencer.seal(later.at)
    index, position, seen, pages = DynamoJournalIndex(cloud.table, lambda: later.at + 1), None, [], 0
    while True:
        page = index.page(JournalFilters("demo"), position, 5)
        seen += [one["index"] for one in page.items]
        pages, position = pages + 1, page.next_position
        if position is None:
            break
    assert seen == [1, 0]
    assert pages == 2
    assert index.page(JournalFilters("nobody"), None, 5).items == []


def test_the_watermark_waits_for_rows_and_for_late_writers(cloud: Cloud) -> None:
    minute = NOW // clock.MINUTE
    cloud.record(0)
    cloud.store.pending(NOW + 30 * clock.MINUTE, 10)
    assert cloud.table.get(keys.journal_watermark())["minute"] == minute  # type: ignore[index]
    cloud.sequencer.seal(NOW + 30 * clock.MINUTE)
    assert cloud.table.get(keys.journal_watermark())["minute"] == minute + 25  # type: ignore[index]
    cloud.record(1, now=NOW + 26 * clock.MINUTE)  # written late, about something of the past
    assert cloud.sequencer.seal(NOW + 31 * clock.MINUTE).sealed == 1


def test_rows_of_one_transaction_hold_all_its_entries_and_share_a_directory(cloud: Cloud) -> None:
    rows = [evidence_row(*(entry(i) for i in range(5))), evidence_row(*(entry(i) for i in range(8, 20)))]
    cloud.table.transact(outbox_writes(cloud.table, rows, NOW))
    directory = keys.evidence_directory(keys.minute(NOW))
    assert [row["sk"] for row in cloud.table.query(directory)] == [f"demo#{keys.day(NOW)}#0"]
    assert cloud.sequencer.seal(NOW + clock.SECOND).sealed == 17
    assert cloud.store.pending(NOW, 10) == []


class Dying:
    """A client whose n-th writing call is the process's last; `after`: the call itself is still carried out."""

    WRITES = frozenset({"put_item", "update_item", "transact_write_items", "batch_write_item", "put_object"})

    def __init__(self, client: Any, budget: list[int], after: bool) -> None:
        self._client, self._budget, self._after = client, budget, after

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name not in self.WRITES:
            return call

        def guarded(**arguments: Any) -> Any:
            self._budget[0] -= 1
            if self._budget[0] < 0 and not self._after:
                raise KeyboardInterrupt
            answer = call(**arguments)
            if self._budget[0] < 0:
                raise KeyboardInterrupt
            return answer

        return guarded


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_call_it_resumes_without_fork_or_gap(cloud: Cloud, after: bool) -> None:
    """F31 over the real calls: the n-th writing call of a run is its last, for every n there is."""
    total, kept = 0, []
    for life in range(40):
        cloud.record(*range(total, total + 5))
        total += 5
        budget = [life]
        dying = DynamoJournal(
            Table(Dying(boto3.client("dynamodb"), budget, after), "t"),
            Dying(cloud.s3, budget, after),
            "journal",
        )
        try:
            Sequencer(dying, ORIGIN, LOG, COSIGNER).seal(NOW)
        except KeyboardInterrupt:
            note = cloud.store.published().note
            kept += [note] if note else []
            cloud.sequencer.seal(NOW)
        else:
            break  # a run has no more calls: each of them was the last one once
    assert life == 8
    cloud.sequencer.seal(NOW)
    assert verify(cloud, PINNED, kept).checkpoint.size == total
    index = DynamoJournalIndex(cloud.table, lambda: NOW + clock.SECOND).page(JournalFilters("demo"), None, 1_000)
    assert sorted(one["index"] for one in index.items) == list(range(total))
    assert cloud.store.pending(NOW, 10) == []


def test_a_stale_head_writes_nothing(cloud: Cloud) -> None:
    batch = Reservation(0, (b"{}",), (("p#demo#evidence#x", "000000000000001#a"),))
    reserved = cloud.store.reserve(Head(), batch)
    assert cloud.store.head() == reserved
    assert cloud.store.reservation(reserved) == batch
    with pytest.raises(HeadMoved):
        cloud.store.reserve(Head(), batch)
    advanced = cloud.store.advance(reserved, 1, b"r" * 32)
    with pytest.raises(HeadMoved):
        cloud.store.advance(reserved, 2, b"x")
    with pytest.raises(HeadMoved):
        cloud.store.reservation(replace(advanced, first=5))
    assert cloud.store.head() == advanced


def test_files_are_written_once_and_the_checkpoint_by_its_token(cloud: Cloud) -> None:
    cloud.store.create("tile/0/000.p/1", b"a" * 32)
    cloud.store.create("tile/0/000.p/1", b"a" * 32)
    with pytest.raises(Fork):
        cloud.store.create("tile/0/000.p/1", b"b" * 32)
    assert cloud.store.published() == Published(None, None)
    assert cloud.store.publish(b"one", Published(None, None))
    first = cloud.store.published()
    assert not cloud.store.publish(b"two", Published(None, None))
    assert cloud.store.publish(b"two", first)
    assert not cloud.store.publish(b"three", first)
    assert cloud.store.published().note == b"two"


class Kms:
    """GetPublicKey and Sign as KMS answers them for an Ed25519 key."""

    def __init__(self) -> None:
        self.fails = False

    def get_public_key(self, **arguments: Any) -> dict[str, Any]:
        spki = ED25519_SPKI + LOG.public()
        serialization.load_der_public_key(spki)
        return {"PublicKey": spki, "SigningAlgorithms": ["ED25519_SHA_512", "ED25519_PH_SHA_512"]}

    def sign(self, **arguments: Any) -> dict[str, Any]:
        if self.fails:
            raise ClientError({"Error": {"Code": "KMSInternalException"}}, "Sign")
        assert (arguments["MessageType"], arguments["SigningAlgorithm"]) == ("RAW", "ED25519_SHA_512")
        return {"Signature": LOG.sign(arguments["Message"])}


def test_kms_signs_with_ed25519() -> None:
    kms = Kms()
    signer = KmsSigner(kms, "key")
    line = Checkpoint(ORIGIN, 0, b"r" * 32).signature_line(ORIGIN, signer)
    assert open_checkpoint(Checkpoint(ORIGIN, 0, b"r" * 32).note([line]), PINNED[:1]).size == 0
    kms.fails = True
    with pytest.raises(Retry, match="KMSInternalException"):
        signer.sign(b"m")


def test_kms_signs_with_ecdsa_where_there_is_no_ed25519(cloud: Cloud) -> None:
    client = boto3.client("kms")
    key_id = client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    signer = KmsSigner(client, key_id)
    assert signer.algorithm == "ecdsa-p256"
    checkpoint = Checkpoint(ORIGIN, 0, b"r" * 32)
    pinned = [VerifierKey.of(ORIGIN, signer)]
    assert open_checkpoint(checkpoint.note([checkpoint.signature_line(ORIGIN, signer)]), pinned) == checkpoint
