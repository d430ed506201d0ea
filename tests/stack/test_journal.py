"""The deployed journal: what is done is sealed, verified with pinned keys, and damage is named.

Seal is asked to run by a message, as the supervisor's ticks ask; that it also runs every minute by itself stands in the
template (tests/contracts/test_template.py).
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.stack.conftest import Deployed, eventually
from tools.cli.__main__ import tocsin as command_line

from tocsin.aws import keys as table_keys
from tocsin.aws.journal_store import JournalFiles
from tocsin.journal.notes import VerifierKey, open_checkpoint
from tocsin.journal.tree import WIDTH, TileName, unpack, verify_consistency
from tocsin.kernel import clock

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
#: Until what was asked for is there, on a machine under load.
BOUND_S = 80
Json = dict[str, Any]


class Log:
    """The log of the deployed stack, past the API."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self.s3 = deployed.client("s3")
        self.bucket = deployed.outputs["JournalBucketName"]
        self.files = JournalFiles(self.s3, self.bucket)
        self.pinned = [VerifierKey.parse(text) for text in deployed.contract["journal_keys"]]

    def tick(self) -> None:
        """Ask for a run now."""
        body = json.dumps({"tick": {"at": clock.now_ms()}})
        self.deployed.client("sqs").send_message(QueueUrl=self.deployed.outputs["SealQueueUrl"], MessageBody=body)

    def shows(self, check: Callable[[], Any]) -> Any:
        """The first true value of `check`, with seal asked to run before each try."""

        def once() -> Any:
            self.tick()
            return check()

        return eventually(once, within_s=BOUND_S, every_s=0.5)

    def note(self) -> bytes:
        return self.files.read("checkpoint") or b""

    def size(self) -> int:
        return open_checkpoint(self.note(), self.pinned).size

    def entries(self) -> list[Json]:
        """Every entry that the published checkpoint covers, read from the bundles."""
        found: list[bytes] = []
        size = self.size()
        for n in range(-(-size // WIDTH)):
            name = TileName(None, n, min(WIDTH, size - n * WIDTH))
            bundle = self.files.read(name.path) or self.files.read(name.full.path)
            assert bundle is not None
            found += list(unpack(bundle, name.path))[: name.width]
        return [json.loads(leaf) for leaf in found]


@pytest.fixture
def log(deployed: Deployed) -> Log:
    return Log(deployed)


def run(*arguments: str) -> Result:
    """The command line; it finds the stack as this test does."""
    return CliRunner().invoke(command_line, list(arguments), catch_exceptions=False)


def verified() -> None:
    result = run("journal", "verify")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("VERIFIED")


def incident(deployed: Deployed, project: str, key: str) -> str:
    """An incident made of real events; its id."""
    tag = uuid.uuid4().hex[:8]
    sent = [
        {
            "id": f"{tag}-{n}",
            "source": "checkout",
            "type": "latency.high",
            "title": f"Payment latency above {n} s",
            "severity_raw": "critical",
            "entity": {"type": "service", "id": f"payments-{tag}"},
        }
        for n in range(3)
    ]
    stored = deployed.stored(project)
    deployed.send(key, sent)
    eventually(lambda: deployed.settled(project, stored + len(sent)))
    items = deployed.get("/v1/incidents?limit=1", key)["items"]
    return str(items[0]["id"])


def sealed(deployed: Deployed, key: str, query: str = "") -> list[Json]:
    items: list[Json] = deployed.get(f"/v1/journal?limit=100{query}", key)["items"]
    return items


def test_what_is_done_is_sealed_in_time_and_proved_to_its_owner_only(
    deployed: Deployed, log: Log, tmp_path: Path
) -> None:
    project, key = deployed.new_project()
    identity = incident(deployed, project, key)
    trace = uuid.uuid4().hex
    reply = deployed.call(
        "PATCH",
        f"/v1/incidents/{identity}",
        {"status": "acknowledged", "verdict": "useful"},
        key=key,
        X_Trace_Id=trace,
    )
    assert reply.status == 200
    assert deployed.call("PUT", "/v1/topology", {"services": {"a": {"deps": []}}}, key=key).status == 200
    wanted = {"incident.opened", "incident.acknowledged", "incident.verdict", "topology.replaced"}
    found = log.shows(
        lambda: (items := sealed(deployed, key)) and wanted <= {one["entry"]["kind"] for one in items} and items
    )
    by_kind = {one["entry"]["kind"]: one for one in found}
    acknowledged = by_kind["incident.acknowledged"]["entry"]
    assert acknowledged["actor"].startswith("key_")
    assert (acknowledged["trace_id"], acknowledged["resource"]) == (trace, f"incident:{identity}")
    assert by_kind["incident.opened"]["entry"]["actor"] == "system:correlate"
    only = sealed(deployed, key, f"&kind=incident.acknowledged&actor={acknowledged['actor']}")
    assert [one["entry"] for one in only] == [acknowledged]

    # Proofs hold for a checker that shares no code with the product; entries of others are not there.
    _, stranger = deployed.new_project()
    assert sealed(deployed, stranger) == []
    before = log.note()
    for one in found:
        path = f"/v1/journal/entries/{one['index']}"
        shown = eventually(lambda path=path: (r := deployed.call("GET", path, key=key)).status == 200 and r)
        (tmp_path / "proof.json").write_text(json.dumps(shown.body))
        checker = [sys.executable, str(ROOT / "tools/journal_checker.py"), "--proof", str(tmp_path / "proof.json")]
        done = subprocess.run([*checker, *map(str, log.pinned)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert deployed.call("GET", path, key=stranger).status == 404
    assert deployed.call("GET", "/v1/journal?of=deployment", key=key).status == 403
    assert sealed(deployed, deployed.contract["admin_key"], "&of=deployment&kind=deployment.bootstrapped")

    # The log only grows: from the checkpoint that was seen first to the one that is published now.
    first = open_checkpoint(before, log.pinned)
    proof = deployed.get(f"/v1/journal/consistency?first={first.size}", key)
    second = open_checkpoint(proof["checkpoint"].encode(), log.pinned)
    nodes = [bytes.fromhex(node) for node in proof["proof"]]
    assert verify_consistency(first.size, second.size, first.root, second.root, nodes)
    verified()


def test_what_was_decided_about_notifications_and_channels_is_evidence(deployed: Deployed, log: Log) -> None:
    project, key = deployed.new_project()
    body = {"name": "team", "kind": "email", "to": ["somebody@example.com"]}
    made = deployed.call("POST", "/v1/channels", body, key=key)
    assert made.status == 201, made
    channel = made.body["data"]["id"]
    identity = incident(deployed, project, key)

    def decided() -> list[Json]:
        items: list[Json] = deployed.get(f"/v1/notifications?incident={identity}", key)["items"]
        return items if items and all(one["decision"] in ("delivered", "withheld") for one in items) else []

    notifications = eventually(decided)
    assert deployed.call("PATCH", f"/v1/channels/{channel}", {"enabled": False}, key=key).status == 200
    assert deployed.call("DELETE", f"/v1/channels/{channel}", key=key).status == 200
    wanted = {(f"notification.{one['decision']}", f"notification:{one['id']}") for one in notifications}
    wanted |= {(f"channel.{change}", f"channel:{channel}") for change in ("created", "changed", "deleted")}

    log.shows(lambda: wanted <= {(one["kind"], one["resource"]) for one in log.entries()})
    assert wanted <= {(one["entry"]["kind"], one["entry"]["resource"]) for one in sealed(deployed, key)}
    assert "somebody" not in json.dumps(log.entries())


def test_a_flipped_byte_is_found_and_its_place_is_named(deployed: Deployed, log: Log, tmp_path: Path) -> None:
    log.shows(log.note)
    assert run("journal", "fetch", str(tmp_path / "kept")).exit_code == 0
    size = log.size()
    name = TileName(None, (size - 1) // WIDTH, (size - 1) % WIDTH + 1)
    for path, part in (
        (name.path, f"entry {size - 1}"),
        (name._replace(level=0).path, f"hash {name.width - 1}"),
        ("checkpoint", "line "),
    ):
        copy = tmp_path / "kept" / path
        good = copy.read_bytes()
        bad = bytearray(good)
        bad[-9] ^= 1
        current = log.files.read(path)
        log.s3.put_object(Bucket=log.bucket, Key=f"journal/{path}", Body=bytes(bad))
        try:
            result = run("journal", "verify")
        finally:
            log.s3.put_object(Bucket=log.bucket, Key=f"journal/{path}", Body=current)
        assert result.exit_code == 1
        assert result.output.startswith(f"NOT VERIFIED: {path} ")
        assert part in result.output
    verified()
    # Nothing was overwritten: the bytes from before are still there under their own version.
    versions = log.s3.list_object_versions(Bucket=log.bucket, Prefix=f"journal/{name.path}")["Versions"]
    assert len(versions) >= 3


@pytest.fixture
def dying(deployed: Deployed, tmp_path: Path) -> Iterator[Path]:
    """The seal function dies right after it has advanced the head; the path of the file that says so."""
    lambdas, name = deployed.client("lambda"), f"{deployed.contract['stack']}-seal"
    real = (ROOT / "functions/seal/handler.py").read_text()
    said = tmp_path / "said"
    plan = json.dumps({"after": "advance", "said": str(said)})
    dying = (ROOT / "tests/support/dying_seal_handler.py").read_text()
    lambdas.update_function_code(
        FunctionName=name, ZipFile=zipped({"handler.py": dying, "seal_handler.py": real, "plan.json": plan})
    )
    yield said
    lambdas.update_function_code(FunctionName=name, ZipFile=zipped({"handler.py": real}))


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def test_killed_between_two_steps_it_goes_on_without_fork_or_gap(
    deployed: Deployed, log: Log, dying: Path, tmp_path: Path
) -> None:
    project, key = deployed.new_project()
    before = log.shows(log.note)
    (tmp_path / "before").write_bytes(before)
    incident(deployed, project, key)
    log.shows(dying.exists)
    head = deployed.table.get(table_keys.journal_head())
    assert head is not None
    assert head["count"] > 0, "the batch was not left half done"
    assert log.note() == before
    lambdas, name = deployed.client("lambda"), f"{deployed.contract['stack']}-seal"
    real = (ROOT / "functions/seal/handler.py").read_text()
    lambdas.update_function_code(FunctionName=name, ZipFile=zipped({"handler.py": real}))
    # The dead run's lease would end by itself after 30 s (tests/contracts/test_watch.py); the next run goes on.
    deployed.table.delete(table_keys.lease("seal"))
    log.shows(lambda: sealed(deployed, key))
    log.shows(lambda: log.size() >= head["size"])
    entries = log.entries()
    assert len({one["id"] for one in entries}) == len(entries)
    result = run("journal", "verify", "--earlier", str(tmp_path / "before"))
    assert result.exit_code == 0, result.output
