"""After a deploy: set what emulators drop from the template, generate secrets, seed a project and two keys.

Everything here may be run again at any time. On AWS the template itself sets what the first part sets, and
only secrets and the first project are made: `python -m tools.local.bootstrap --stack tocsin`.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-untyped]
from tools.local.home import ROOT

from tocsin.access import keys
from tocsin.access.principals import FAMILIES, KeyRecord
from tocsin.access.projects import Project
from tocsin.aws import keys as table_keys
from tocsin.aws.journal_store import EvidenceRecorder, KmsSigner
from tocsin.aws.key_store import DynamoKeys, DynamoProjects
from tocsin.aws.table import Table
from tocsin.journal.entries import DEPLOYMENT, Entry, content_digest
from tocsin.journal.notes import VerifierKey
from tocsin.journal.sequencer import Cosigner, origin_of
from tocsin.kernel import clock, ids

Clients = Callable[[str], Any]
Outputs = Mapping[str, str]

SECRETS = (
    "PepperSecretArn",
    "CursorSecretArn",
    "PseudonymSecretArn",
    "WebhookSecretArn",
    "EnvelopeSecretArn",
    "TokenSecretArn",
)
PROJECT_SCOPES = frozenset(
    {"ingest:write", "events:*", "incidents:*", "topology:*", "notify:*", "defend:*", "journal:read"}
)
#: Everything, because nobody grants what they do not hold.
ADMIN_SCOPES = frozenset(f"{family}:*" for family in FAMILIES)


def settle(clients: Clients, outputs: Outputs, retention_days: int, mail_from: str) -> list[str]:
    """Set what emulators ignore (expiry, recovery, lifecycle, object lock, mail identity); returns what was set."""
    resources = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]
    table, bucket = resources["Table"]["Properties"], resources["Bucket"]["Properties"]
    done = []
    dynamodb, name = clients("dynamodb"), outputs["TableName"]
    if dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]["TimeToLiveStatus"] != "ENABLED":
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=table["TimeToLiveSpecification"])
        done.append("expiry")
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    if backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus") != "ENABLED":
        dynamodb.update_continuous_backups(
            TableName=name, PointInTimeRecoverySpecification=table["PointInTimeRecoverySpecification"]
        )
        done.append("recovery")
    rules = [_lifecycle_rule(rule, retention_days) for rule in bucket["LifecycleConfiguration"]["Rules"]]
    clients("s3").put_bucket_lifecycle_configuration(
        Bucket=outputs["BucketName"], LifecycleConfiguration={"Rules": rules}
    )
    done.append("lifecycle")
    journal = resources["JournalBucket"]["Properties"]
    lock = {"Bucket": outputs["JournalBucketName"], "ObjectLockConfiguration": journal["ObjectLockConfiguration"]}
    clients("s3").put_object_lock_configuration(**lock)
    done.append("object lock")
    if mail_from:
        clients("ses").verify_email_identity(EmailAddress=mail_from)
        done.append("mail sender")
    return done


def _lifecycle_rule(rule: Mapping[str, Any], retention_days: int) -> dict[str, Any]:
    """A rule in the template's words as the S3 API wants it. A reference can only be to RetentionDays."""
    out: dict[str, Any] = {
        "ID": rule["Id"],
        "Status": rule["Status"],
        "Filter": {"Prefix": rule.get("Prefix", "")},
    }
    if "ExpirationInDays" in rule:
        days = rule["ExpirationInDays"]
        out["Expiration"] = {"Days": retention_days if isinstance(days, dict) else days}
    if "AbortIncompleteMultipartUpload" in rule:
        out["AbortIncompleteMultipartUpload"] = dict(rule["AbortIncompleteMultipartUpload"])
    return out


def fill_secrets(clients: Clients, outputs: Outputs) -> int:
    """Give every secret that has none a value, 32 random bytes in base64. Returns how many had none."""
    store, filled = clients("secretsmanager"), 0
    for output in SECRETS:
        try:
            text = store.get_secret_value(SecretId=outputs[output]).get("SecretString", "")
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            text = ""
        if not text:
            value = base64.b64encode(secrets.token_bytes(32)).decode("ascii")
            store.put_secret_value(SecretId=outputs[output], SecretString=value)
            filled += 1
    return filled


def pepper(clients: Clients, outputs: Outputs) -> bytes:
    """The value that keys the stored hashes of API keys."""
    return base64.b64decode(
        clients("secretsmanager").get_secret_value(SecretId=outputs["PepperSecretArn"])["SecretString"]
    )


def seed(clients: Clients, outputs: Outputs, known: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """A project with a project key and an admin key: those in `known` when it has them, fresh ones otherwise.

    Returns ({"project", "project_key", "admin_key"}, names of the key rows that had to be written because
    they are new, were lost, or were hashed under another pepper).
    """
    now = clock.now_ms()
    table, mixed_in = Table(clients("dynamodb"), outputs["TableName"]), pepper(clients, outputs)
    store = DynamoKeys(table)
    seeded = {"project": str(known.get("project") or ids.new_id("prj", now))}
    written = []
    for name, scopes in (("project_key", PROJECT_SCOPES), ("admin_key", ADMIN_SCOPES)):
        text = str(known.get(name) or keys.mint()[0])
        parsed = keys.parse(text)
        if parsed is None:
            raise ValueError(f"{name} in the contract file is not an API key: delete the file and run make up again")
        record = KeyRecord(
            key_id=parsed.key_id,
            project=seeded["project"],
            env=parsed.env,
            hash=keys.stored_hash(mixed_in, text),
            scopes=scopes,
            created_at=now,
            name=name.replace("_", " "),
            last_four=text[-4:],
        )
        found = store.get(parsed.key_id)
        if found is None or (found.hash, found.project, found.scopes) != (
            record.hash,
            record.project,
            scopes,
        ):
            store.restore(record)
            written.append(name)
        seeded[name] = text
    # Refused when the project has its record already.
    DynamoProjects(table).put(Project(seeded["project"], "first project", now, version=1), 0)
    if table.get(table_keys.ops_project()) is None:
        # What the supervisor finds becomes events of this project, whose administrators are the operator's.
        table.put(table_keys.ops_project(), {"project": seeded["project"]})
    if table.get(table_keys.own_address()) != {**table_keys.own_address()._asdict(), "url": outputs["ApiUrl"]}:
        # A function that the API calls cannot be told the API's address by the template that makes both.
        table.put(table_keys.own_address(), {"url": outputs["ApiUrl"]})
    if written:
        EvidenceRecorder(table).record([_bootstrapped(seeded, now)], now)
    return seeded, written


def _bootstrapped(seeded: Mapping[str, str], now: int) -> Entry:
    """Evidence that first keys were made: the log begins with how the deployment began."""
    entry_id = ids.new_id("evd", now)
    parsed = {name: keys.parse(seeded[name]) for name in ("project_key", "admin_key")}
    return Entry(
        id=entry_id,
        kind="deployment.bootstrapped",
        at=now,
        project=DEPLOYMENT,
        actor="system:bootstrap",
        action="deployment:bootstrap",
        resource=f"project:{seeded['project']}",
        trace_id=entry_id,
        outcome="done",
        digests={name: content_digest(one.key_id) for name, one in parsed.items() if one},
    )


def verifier_keys(clients: Clients, outputs: Outputs, stack: str) -> list[str]:
    """The journal's public keys as readers pin them: the log's, then the cosigner's."""
    log, cosigner = (KmsSigner(clients("kms"), outputs[name]) for name in ("JournalKeyArn", "CosignerKeyArn"))
    origin = origin_of(stack)
    return [str(VerifierKey.of(origin, log)), str(Cosigner(origin, cosigner).key())]


def start_ticking(clients: Clients, outputs: Outputs) -> None:
    """Run the supervisor once as its schedule would, so that ticks start at once."""
    event = {
        "version": "0",
        "id": ids.uuid7(clock.now_ms()),
        "source": "aws.events",
        "detail-type": "Scheduled Event",
        "time": clock.rfc3339(clock.now_ms()),
        "resources": [],
        "detail": {},
    }
    clients("lambda").invoke(
        FunctionName=outputs["SuperviseFunctionName"],
        InvocationType="Event",
        Payload=json.dumps(event).encode(),
    )


def main() -> None:
    """Bootstrap a stack on AWS (or wherever the environment's AWS settings point) and print the keys once."""
    parser = argparse.ArgumentParser(description="Generate secrets and the first project of a deployed stack.")
    parser.add_argument("--stack", required=True)
    arguments = parser.parse_args()

    def clients(service: str) -> Any:
        return boto3.client(service)  # type: ignore[call-overload]

    stack = clients("cloudformation").describe_stacks(StackName=arguments.stack)["Stacks"][0]
    outputs = {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}
    filled = fill_secrets(clients, outputs)
    if not filled:
        raise SystemExit("every secret has its value already: this stack was bootstrapped before")
    seeded, _ = seed(clients, outputs, {})
    pinned = verifier_keys(clients, outputs, arguments.stack)
    made = {"api_url": outputs["ApiUrl"], "bulk_url": outputs["BulkUrl"], **seeded, "journal_keys": pinned}
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
