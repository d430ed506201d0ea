"""The deployed supervisor repairs what is broken behind its back, and queues keep what cannot be worked off.

The supervisor repairs a target three times in ten minutes and then asks people; each test begins with its memory empty,
so that running this file again and again is not taken for a target that flaps.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.stack.conftest import Deployed, eventually
from tests.support.events import stored_event
from tools.cli.__main__ import tocsin as command_line

from tocsin.aws import keys as table_keys
from tocsin.aws.documents import CalibrationDocuments, Documents, TopologyDocuments
from tocsin.defense.ports import Memory
from tocsin.kernel import clock, envelope, ids
from tocsin.kernel.envelope import Envelope
from tocsin.kernel.errors import Retry
from tocsin.signals.ports import Fact, Message, Sealed
from tocsin.signals.scorer import ScoreWorker

pytestmark = pytest.mark.stack

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def forgotten(deployed: Deployed) -> None:
    deployed.table.delete(table_keys.watch("supervisor"))


def healings(deployed: Deployed, target: str, since: int) -> list[Json]:
    """Records about a target that began at or after `since` (Unix ms), newest first."""
    items = deployed.get("/v1/healings?limit=100", deployed.contract["admin_key"])["items"]
    return [one for one in items if one["target"] == target and clock.parse_rfc3339(one["at"]) >= since - 1000]


def healed(deployed: Deployed, target: str, since: int) -> Json | None:
    found = [one for one in healings(deployed, target, since) if one["outcome"] == "healed"]
    return found[0] if found else None


def mapping(deployed: Deployed, name: str) -> Json:
    function = f"{deployed.contract['stack']}-{name}"
    (found,) = deployed.client("lambda").list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    return dict(found)


def switch(deployed: Deployed, name: str, on: bool) -> None:
    deployed.client("lambda").update_event_source_mapping(UUID=mapping(deployed, name)["UUID"], Enabled=on)


def test_disabled_mappings_are_enabled_again_within_ten_seconds_and_nothing_is_lost(deployed: Deployed) -> None:
    project, sender = deployed.new_project()
    names = ("score", "relay")
    began, broken_at = time.monotonic(), clock.now_ms()
    try:
        for name in names:
            switch(deployed, name, False)
        for n in range(5):
            deployed.send(
                sender, {"id": f"e-{n}", "source": "s", "type": "t", "title": "waits", "severity_raw": "info"}
            )
        eventually(lambda: all(mapping(deployed, name)["State"] == "Enabled" for name in names), within_s=10)
        assert time.monotonic() - began < 10
    finally:
        for name in names:
            switch(deployed, name, True)
    eventually(lambda: deployed.settled(project, 5))

    # What it did is on record, and an event of the operators' project with an incident.
    key = deployed.contract["project_key"]
    for name in names:
        record = eventually(lambda name=name: healed(deployed, f"mapping {name}", broken_at))
        assert (record["finding"], record["action"], record["attempts"]) == ("disabled", "enable", 1)
        assert (record["decision"]["healer"], record["detected_after_ms"] < 10_000) == ("enable", True)
        event = eventually(lambda name=name, record=record: told(deployed, name, record))
        assert event["tags"]["outcome"] == "repaired"
        incident = deployed.get(f"/v1/incidents/{event['incident_id']}", key)
        assert "tocsin.supervisor" in incident["sources"]
    assert deployed.call("GET", "/v1/healings", key=key).status == 403


def told(deployed: Deployed, name: str, record: Json) -> Json | None:
    """The supervisor's own event about a repaired mapping, once it is in an incident."""
    path = f"/v1/events?source=tocsin.supervisor&type=tocsin.mapping.disabled&entity=mapping:{name}&limit=5"
    for one in deployed.get(path, deployed.contract["project_key"])["items"]:
        if one["id"].startswith(record["id"]) and one["status"] == "firing" and one["incident_id"]:
            return dict(one)
    return None


# --- dead letters


@pytest.fixture
def left_alone(deployed: Deployed) -> None:
    """The supervisor takes the score queue's dead letters for sent back already, and leaves them to this test."""
    spent = Memory(spent={"dead-letters score": clock.now_ms()})
    row = {"memory": json.dumps(asdict(spent)), "version": 1, "until": 0}
    deployed.table.put(table_keys.watch("supervisor"), row)


@pytest.fixture
def impatient(deployed: Deployed) -> Iterator[Callable[[list[str]], None]]:
    """Sends one batch to the score queue, which gives messages back after a second, not after six timeouts."""
    sqs, queue = deployed.client("sqs"), deployed.outputs["ScoreQueueUrl"]
    before = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])["Attributes"]
    dead = deployed.outputs["ScoreDeadLettersUrl"]
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "1"})
    try:
        yield lambda bodies: sqs.send_message_batch(
            QueueUrl=queue, Entries=[{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies)]
        )
    finally:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes=before)
        sqs.purge_queue(QueueUrl=dead)


def command(*arguments: str) -> str:
    """Output of the command line, which must succeed; it finds the stack as this test does."""
    result = CliRunner().invoke(command_line, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def sealed(deployed: Deployed, owner: str, *sender_ids: str, **changes: Any) -> str:
    """A message as ingest writes it; keyword arguments replace parts of its head afterwards, which forges it."""
    now = clock.now_ms()
    events = [stored_event(one, at=now, project=owner, severity_raw="info", dedup_key=f"k|{one}") for one in sender_ids]
    payload = {"events": events, "digests": ["00" * 16 for _ in events]}
    message = Envelope("events", ids.new_id("env", now), owner, "trace-supervise", now, payload)
    body = json.loads(envelope.seal(message, deployed.secret("EnvelopeSecretArn"), deployed.sealer))
    return json.dumps(body | changes)


def test_poison_ends_in_the_dead_letters_while_its_neighbours_are_stored(
    deployed: Deployed, impatient: Callable[[list[str]], None], left_alone: None
) -> None:
    before = deployed.depth()
    project, _ = deployed.new_project()
    other, _ = deployed.new_project()
    poison = [
        "not JSON",
        "[]",
        '{"v": 1}',
        sealed(deployed, project, "forged", project=other),
        sealed(deployed, project, "future", v=99),
        sealed(deployed, project, "unsigned", mac="00" * 32),
        '{"claim": "claim/none/such"}',
    ]
    entries = [*poison, sealed(deployed, project, "good-1"), sealed(deployed, project, "good-2")]
    impatient(entries)
    eventually(lambda: deployed.settled(project, 2))
    eventually(lambda: deployed.depth("ScoreDeadLettersUrl") == len(poison), within_s=30)
    assert deployed.depth() <= before
    assert deployed.stored(project) == 2
    assert deployed.stored(other) == 0
    sqs, dead = deployed.client("sqs"), deployed.outputs["ScoreDeadLettersUrl"]
    kept = sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10, VisibilityTimeout=0)["Messages"]
    assert {one["Body"] for one in kept} <= set(poison)

    listed = command("dead-letters", "list", "score")
    assert "the body is not JSON" in listed
    assert "envelope version 99 is not readable here" in listed
    assert project in listed
    assert [line.split() for line in command("dead-letters", "list").splitlines()].count(["score", "7"]) == 1


def test_dead_letters_are_sent_back_once_by_decision_and_what_fails_again_stays_and_pages(
    deployed: Deployed, impatient: Callable[[list[str]], None], tmp_path: Path
) -> None:
    project, _ = deployed.new_project()
    sqs, dead = deployed.client("sqs"), deployed.outputs["ScoreDeadLettersUrl"]
    parked_at = clock.now_ms()
    sqs.send_message_batch(
        QueueUrl=dead,
        Entries=[
            {"Id": "good", "MessageBody": sealed(deployed, project, "parked-1")},
            {"Id": "poison", "MessageBody": "poison"},
        ],
    )
    record = eventually(lambda: healings(deployed, "dead-letters score", parked_at), within_s=20)[-1]
    assert (record["finding"], record["decision"]["healer"]) == ("parked", "replay")
    assert clock.parse_rfc3339(record["at"]) - parked_at < 10_000, "found within ten seconds"
    files = []
    for name in ("snapshot", "health", "certificate"):
        (tmp_path / name).write_text(record["decision"][name], "utf-8")
        files.append(str(tmp_path / name))
    checker = [sys.executable, str(ROOT / "tools/checker.py"), *files]
    assert subprocess.run(checker, capture_output=True, check=False).returncode == 0
    eventually(lambda: deployed.settled(project, 1))
    paged = eventually(
        lambda: [one for one in healings(deployed, "dead-letters score", parked_at) if one["outcome"] == "paged"],
        within_s=60,
    )
    assert paged[0]["decision"]["healer"] == "page"
    assert deployed.depth("ScoreDeadLettersUrl") == 1
    assert deployed.stored(project) == 1


@pytest.fixture
def unwatched(deployed: Deployed) -> None:
    """The supervisor's memory is in other hands for half a minute, so that it repairs nothing meanwhile."""
    key = table_keys.watch("supervisor")
    idle = eventually(lambda: (row := deployed.table.get(key)) and row["until"] == 0 and row)
    held = {"memory": idle["memory"], "version": idle["version"] + 1, "until": clock.now_ms() + 30_000}
    deployed.table.put(key, held, condition="version = :was", was=idle["version"])


def test_what_a_killed_worker_held_runs_again_within_its_visibility_timeout_and_five_seconds(
    deployed: Deployed, unwatched: None
) -> None:
    """Whoever takes a message and dies looks like this test to the queue: it takes one and says no more."""
    project, _ = deployed.new_project()
    sqs, queue = deployed.client("sqs"), deployed.outputs["ScoreQueueUrl"]
    held_s = 4
    switch(deployed, "score", False)
    try:
        eventually(lambda: mapping(deployed, "score")["State"] == "Disabled")
        sqs.send_message(QueueUrl=queue, MessageBody=sealed(deployed, project, "orphan-1"))
        taken = sqs.receive_message(QueueUrl=queue, VisibilityTimeout=held_s, MaxNumberOfMessages=10)["Messages"]
        taken_at = clock.now_ms()
    finally:
        switch(deployed, "score", True)
    assert any(project in one["Body"] for one in taken)
    eventually(lambda: deployed.settled(project, 1))
    (entry,) = deployed.ledger.read(project, 1, 10)
    assert 1_000 * (held_s - 1) <= entry.committed_at - taken_at <= 1_000 * (held_s + 5)


def test_a_stuck_lease_is_released_within_ten_seconds(deployed: Deployed) -> None:
    """A worker that took a lease and was killed: its claim ends, and nobody gives it back."""
    now = clock.now_ms()
    deployed.table.put(table_keys.lease("of-the-test"), {"holder": "gone", "until": now - 2_000, "version": 1})
    record = eventually(lambda: healings(deployed, "lease of-the-test", now), within_s=20)[0]
    assert (record["action"], record["decision"]["healer"]) == ("release", "release")
    assert record["detected_after_ms"] < 10_000
    eventually(lambda: deployed.table.get(table_keys.lease("of-the-test")) is None)
    assert clock.parse_rfc3339(record["at"]) - now < 10_000


def test_a_dead_letter_that_was_good_is_replayed_once_and_the_replay_is_on_record(
    deployed: Deployed, impatient: Callable[[list[str]], None], left_alone: None
) -> None:
    before = deployed.depth()
    project, key = deployed.new_project()
    began = clock.now_ms()
    good = sealed(deployed, project, "parked-1", "parked-2")
    sqs, dead = deployed.client("sqs"), deployed.outputs["ScoreDeadLettersUrl"]
    for _ in range(2):
        sqs.send_message(QueueUrl=dead, MessageBody=good)
    assert "2 messages were sent back to score, 0 are left" in command("dead-letters", "replay", "score")
    eventually(lambda: deployed.settled(project, 2))
    eventually(lambda: deployed.depth() <= before)
    assert {one["id"] for one in deployed.get("/v1/events", key)["items"]} == {"parked-1", "parked-2"}
    assert deployed.stored(project) == 2
    assert deployed.depth("ScoreDeadLettersUrl") == 0
    record = healings(deployed, "dead-letters score", began)[0]
    assert (record["action"], record["outcome"]) == ("replay", "replayed")
    assert record["by"]


# --- lost wake-ups


class DeafBus:
    """Loses every fact, as a worker does that dies between its commit and its announcement."""

    def publish(self, facts: list[Fact]) -> None:
        raise Retry("nobody heard")


def test_a_lost_wake_up_is_found(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    now = clock.now_ms()
    events = [
        stored_event(f"e-{n}", at=now - 1000 * n, project=project, severity_raw="critical", severity_id=5)
        for n in range(3)
    ]
    documents = Documents(deployed.table, deployed.sealer)
    worker = ScoreWorker(deployed.ledger, DeafBus(), TopologyDocuments(documents), CalibrationDocuments(documents))
    message = Message("m-1", project, "trace-lost", {"events": events, "digests": ["00" * 16] * 3})
    outcome = worker.handle([Sealed("m-1", lambda: message)], lambda: 20_000)
    assert (outcome.stored, outcome.announced) == (3, False)
    assert deployed.table.get(table_keys.cursor(project)) is None
    record = eventually(lambda: healings(deployed, f"project {project}", now), within_s=60)[0]
    assert (record["finding"], record["action"]) == ("behind", "wake")
    eventually(lambda: deployed.settled(project, 3))
    (incident,) = deployed.get("/v1/incidents", key)["items"]
    assert incident["event_count"] == 3
    record = eventually(lambda: healed(deployed, f"project {project}", now))
    assert record["attempts"] == 1
