"""Jobs: killed anywhere they end the same, what is written late is found, and a receipt says what was done."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import KeySet
from tests.support import api_fakes
from tests.support.access_fakes import KeyRowsFake
from tests.support.privacy_fakes import JobRows, Killed, World

from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.ids import PSEUDONYM
from tocsin.privacy.jobs import (
    CACHES_MS,
    ERASED,
    MARGIN_MS,
    MAX_PASSES,
    STALLED_MS,
    Job,
    Kind,
    Worker,
    begin,
    begin_retention,
)
from tocsin.privacy.ports import Step
from tocsin.privacy.receipts import receipt

NOW = 1_795_000_000_000
ADA = "usr_" + "a" * 26


class Bench:
    def __init__(self) -> None:
        self.now, self.jobs = NOW, JobRows()
        held = {
            "data_keys": ["k1"],
            "rows": ["old 1", "old 2", "old 3", "new 1", "new 2"],
            "segments": ["s1", "s2", "s3"],
            "claims": ["c1"],
            "exports": ["x1"],
            "registry": ["delta", "snapshot"],
            "dead_letters": [f"letter of {ADA}", "letter"],
            "occurrences": [f"{ADA} {n}" for n in range(5)] + ["somebody else"],
        }
        self.world = World({project: {name: list(all_) for name, all_ in held.items()} for project in ("shop", "kept")})

    def begin(self, kind: Kind, **rest: Any) -> Job:
        return begin(self.jobs, self.jobs.enqueue, "job_1", "shop", kind, "key_1", self.now, **rest)

    def run(self, remaining: Any = lambda: 10**6) -> Job:
        worker = Worker(self.jobs, self.world, self.world, self.jobs.enqueue, lambda: self.now)
        job = worker.run("shop", "job_1", remaining)
        assert job is not None
        return job

    def left(self) -> dict[str, list[str]]:
        return {name: all_ for name, all_ in self.world.held["shop"].items() if all_}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_deletion_destroys_the_keys_first_and_leaves_nothing(bench: Bench) -> None:
    bench.begin("deletion")
    other = json.dumps(bench.world.held["kept"])
    job = bench.run()
    assert bench.world.log[:2] == ["stop", "data_keys"]
    assert (job.status, job.remains) == ("done", dict.fromkeys(job.remains, 0))
    removed = {"data_keys": 1, "rows": 5, "segments": 3, "claims": 1, "exports": 1, "registry": 2, "dead_letters": 2}
    assert job.removed == removed
    assert bench.left().keys() == {"occurrences"}  # those are in the rows above
    assert json.dumps(bench.world.held["kept"]) == other


def test_what_a_slow_worker_writes_is_found_by_counting(bench: Bench) -> None:
    bench.world.late = {"rows": ["late 1", "late 2", "late 3"]}
    bench.begin("deletion")
    job = bench.run()
    assert (job.status, job.passes, job.removed["rows"]) == ("done", 2, 8)
    assert not bench.world.held["shop"]["rows"]


def test_a_deletion_is_gone_through_once_more_when_caches_are_dropped(bench: Bench) -> None:
    bench.begin("deletion")
    job = bench.run()
    assert job.recheck_at == NOW + CACHES_MS + clock.MINUTE
    assert bench.jobs.queued[-1] == ("shop", "job_1", (CACHES_MS + clock.MINUTE) // 1000 + 1)
    assert bench.run() == job, "too early: nothing happens"
    bench.world.held["shop"]["rows"].append("written from a cache")
    bench.now = job.recheck_at
    job = bench.run()
    assert (job.status, job.rechecked_at, job.recheck_at) == ("done", bench.now, None)
    assert job.finished_at == NOW
    assert not bench.world.held["shop"]["rows"]
    assert list(bench.jobs.unfinished()) == []


def points(kind: Kind, **rest: Any) -> int:
    """How many places there are at which a job can be killed."""
    bench, seen = Bench(), []
    bench.world.before = seen.append
    bench.begin(kind, **rest)
    bench.run()
    return len(seen)


@pytest.mark.parametrize(("kind", "rest"), [("deletion", {}), ("erasure", {"subject": ADA}), ("export", {})])
def test_killed_anywhere_it_goes_on_and_ends_the_same(kind: Kind, rest: dict[str, str]) -> None:
    whole = Bench()
    whole.begin(kind, **rest)
    expected = whole.run()
    for point in range(points(kind, **rest)):
        bench, seen = Bench(), 0

        def before(_: str) -> None:
            nonlocal seen
            seen += 1
            if seen == point + 1:  # noqa: B023
                raise Killed

        bench.begin(kind, **rest)
        bench.world.before = before
        with pytest.raises(Killed):
            bench.run()
        bench.world.before = lambda _: None
        job = bench.run()
        assert (job.status, job.remains) == (expected.status, expected.remains)
        assert [one["name"] for one in job.files] == [one["name"] for one in expected.files]
        assert bench.left() == whole.left()


def test_without_time_it_is_handed_on_after_each_step(bench: Bench) -> None:
    bench.begin("deletion")
    invocations = 0
    while (job := bench.jobs.rows["shop", "job_1"]).status == "running":
        times = iter([MARGIN_MS, MARGIN_MS - 1])  # time for one step
        bench.run(lambda: next(times))  # noqa: B023
        invocations += 1
    assert invocations > 12
    assert job.remains == dict.fromkeys(job.remains, 0)
    assert bench.jobs.queued[:3] == [("shop", "job_1", 0)] * 3


def test_of_two_workers_one_goes_on(bench: Bench) -> None:
    bench.begin("deletion")

    def overtaken(name: str) -> None:
        bench.world.before = lambda _: None
        bench.run()

    bench.world.before = overtaken
    with pytest.raises(Retry):
        bench.run()
    assert bench.jobs.rows["shop", "job_1"].status == "done"


def test_what_cannot_be_removed_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.world, "objects", lambda *_, **__: Step({"segments": 1}))
    bench.begin("deletion")
    job = bench.run()
    assert (job.status, job.passes) == ("incomplete", MAX_PASSES)
    stores = {one["store"]: one for one in receipt(job)["stores"]}
    assert stores["bucket segments/"]["remains"] > 0
    assert receipt(job)["status"] == "incomplete"


def test_an_erasure_forgets_whom_it_erased(bench: Bench) -> None:
    assert PSEUDONYM.fullmatch(ERASED), "what is erased stays a pseudonym, so that it is not hashed again"
    digest = hashlib.sha256(ADA.encode()).hexdigest()
    bench.begin("erasure", subject=ADA, subject_hash=digest)
    job = bench.run()
    assert bench.world.held["shop"]["occurrences"] == ["somebody else"]
    assert bench.world.held["shop"]["dead_letters"] == ["letter"]
    assert bench.world.held["shop"]["exports"] == []
    assert bench.world.held["shop"]["rows"], "rows stay"
    bench.now = job.recheck_at or 0
    job = bench.run()
    assert job.subject == ""
    assert receipt(job)["subject_sha256"] == digest
    assert ADA not in json.dumps(receipt(job))


def test_retention_begins_once_a_day_and_only_where_less_is_kept(bench: Bench) -> None:
    kept = {"shop": 7, "kept": 90, "longer": 400}
    for _ in range(2):
        begin_retention(bench.jobs, bench.jobs.enqueue, kept, 90, NOW)
    ((project, job_id),) = bench.jobs.rows
    assert project == "shop"
    worker = Worker(bench.jobs, bench.world, bench.world, bench.jobs.enqueue, lambda: NOW)
    job = worker.run(project, job_id, lambda: 10**6)
    assert job is not None
    assert (job.status, job.removed["rows"], job.recheck_at) == ("done", 3, None)
    assert bench.world.held["shop"]["rows"] == ["new 1", "new 2"]
    assert receipt(job)["keep_days"] == 7
    assert begin_retention(bench.jobs, bench.jobs.enqueue, kept, 90, NOW + clock.DAY) == 1


def test_lost_jobs_are_taken_up_by_the_daily_round(bench: Bench) -> None:
    bench.begin("deletion")
    bench.jobs.queued.clear()
    worker = Worker(bench.jobs, bench.world, bench.world, bench.jobs.enqueue, lambda: bench.now)
    assert worker.resume() == 0
    bench.now += STALLED_MS + 1
    assert worker.resume() == 1
    assert bench.jobs.queued == [("shop", "job_1", 0)]


def test_an_export_lists_every_file_in_its_manifest(bench: Bench) -> None:
    bench.begin("export")
    job = bench.run()
    assert job.removed == {"events": 6, "incidents": 1, "project": 1}
    assert bench.world.log == ["manifest of 5"]
    with pytest.raises(Refusal) as refused:
        receipt(job)
    assert refused.value.code == "ERR_NOT_FOUND"


def test_a_receipt_lists_every_store_and_anybody_can_verify_it(bench: Bench) -> None:
    bench.begin("deletion", approval="apr_1")
    with pytest.raises(Refusal) as early:
        receipt(bench.jobs.rows["shop", "job_1"])
    assert early.value.code == "ERR_CONFLICT"
    document = receipt(bench.run())
    assert {one["store"] for one in document["stores"]} == {
        *("table", "bucket segments/", "bucket claim/", "bucket exports/", "data keys", "dead letters"),
        *("bucket registry/", "queues", "logs", "journal"),
    }
    assert document["backups"]["until"] == clock.rfc3339(NOW + 35 * clock.DAY)
    assert document["caches"]["dropped_by"] == clock.rfc3339(NOW + 5 * clock.MINUTE)

    tokens = api_fakes.sample_tokens(KeyRowsFake())
    published = json.loads(json.dumps(tokens.keys.jwks()))
    signed = jws.deserialize_compact(tokens.attest(document), KeySet.import_key_set(published), algorithms=["Ed25519"])
    claims = json.loads(signed.payload)
    assert {name: claims[name] for name in document} == document
    assert claims["iss"] == "tocsin:sample"
    header, payload, signature = tokens.attest(document).split(".")
    for kind in ("at+jwt", "tocsin-admin+jwt"):
        with pytest.raises(Refusal):
            tokens.read(f"{header}.{payload}.{signature}", kind)
