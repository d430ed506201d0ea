"""What somebody could do who has got hold of a function's role, or of an administrator's credentials: nothing of this.

Needs policies enforced, as `make test` does. Sessions are named "attack", which keeps them out of the record of what
functions ask for (tools/local/enforcing.py).
"""

from __future__ import annotations

import datetime
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.stack.conftest import Deployed

pytestmark = pytest.mark.stack
Do = Callable[["Thief"], object]


@dataclass(frozen=True)
class Thief:
    """The role of one function in other hands."""

    deployed: Deployed
    credentials: dict[str, str]

    def client(self, service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.deployed.contract["endpoint_url"],
            region_name=self.deployed.contract["region"],
            aws_access_key_id=self.credentials["AccessKeyId"],
            aws_secret_access_key=self.credentials["SecretAccessKey"],
            aws_session_token=self.credentials["SessionToken"],
        )

    @property
    def dynamo(self) -> Any:
        return self.client("dynamodb")

    @property
    def s3(self) -> Any:
        return self.client("s3")

    @property
    def table(self) -> dict[str, str]:
        return {"TableName": self.deployed.outputs["TableName"]}

    @property
    def row(self) -> dict[str, Any]:
        return {**self.table, "Key": {"pk": {"S": "p#demo#log"}, "sk": {"S": "x"}}}

    def journal(self, name: str = "checkpoint") -> dict[str, str]:
        return {"Bucket": self.deployed.outputs["JournalBucketName"], "Key": f"journal/{name}"}

    def send(self, output: str) -> Any:
        return self.client("sqs").send_message(QueueUrl=self.deployed.outputs[output], MessageBody="{}")

    def publish(self) -> Any:
        entry = {"Source": "tocsin", "DetailType": "IncidentOpened", "Detail": "{}"}
        return self.client("events").put_events(Entries=[entry | {"EventBusName": self.deployed.outputs["BusName"]}])

    def secret(self, output: str) -> Any:
        return self.client("secretsmanager").get_secret_value(SecretId=self.deployed.outputs[output])

    def sign(self) -> Any:
        key = self.deployed.outputs["JournalKeyArn"]
        return self.client("kms").sign(KeyId=key, Message=b"x", SigningAlgorithm="ED25519_SHA_512")


#: (function whose role was taken, what is tried with it)
THEFTS: dict[str, tuple[str, Do]] = {
    "A23 notify reads the whole table": ("notify", lambda t: t.dynamo.scan(**t.table)),
    "A23 score deletes": ("score", lambda t: t.dynamo.delete_item(**t.row)),
    "A23 ingest deletes": ("ingest", lambda t: t.dynamo.delete_item(**t.row)),
    "A23 public writes": ("public", lambda t: t.dynamo.put_item(**t.table, Item=t.row["Key"])),
    "A23 correlate writes segments": (
        "correlate",
        lambda t: t.s3.put_object(Bucket=t.deployed.bucket.name, Key="segments/x", Body=b""),
    ),
    "A23 notify reads exports": (
        "notify",
        lambda t: t.s3.get_object(Bucket=t.deployed.bucket.name, Key="exports/demo/x"),
    ),
    "A23 digest destroys data keys": (
        "digest",
        lambda t: t.dynamo.delete_item(TableName=t.deployed.outputs["DataKeysName"], Key=t.row["Key"]),
    ),
    "A23 score reads the pepper": ("score", lambda t: t.secret("PepperSecretArn")),
    "A55 seal deletes a tile": ("seal", lambda t: t.s3.delete_object(**t.journal())),
    "A55 api overwrites a checkpoint": ("api", lambda t: t.s3.put_object(**t.journal(), Body=b"x")),
    "A55 seal changes the lock": (
        "seal",
        lambda t: t.s3.put_object_lock_configuration(
            Bucket=t.journal()["Bucket"], ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
        ),
    ),
    "A55 api signs a checkpoint": ("api", lambda t: t.sign()),
    "A77 notify reads the secret of pseudonyms": ("notify", lambda t: t.secret("PseudonymSecretArn")),
    "A79 notify feeds score": ("notify", lambda t: t.send("ScoreQueueUrl")),
    "A79 public wakes privacy": ("public", lambda t: t.send("PrivacyQueueUrl")),
    "A79 ingest tells notify": ("ingest", lambda t: t.send("NotifyQueueUrl")),
    "A79 notify puts a fact on the bus": ("notify", lambda t: t.publish()),
    "A79 seal puts a fact on the bus": ("seal", lambda t: t.publish()),
}


@pytest.fixture(scope="module")
def roles(deployed: Deployed) -> dict[str, Thief]:
    """Each function's role in other hands."""
    found = deployed.client("lambda").list_functions()["Functions"]
    sts, stack = deployed.client("sts"), deployed.contract["stack"]
    return {
        one["FunctionName"].removeprefix(f"{stack}-"): Thief(
            deployed, sts.assume_role(RoleArn=one["Role"], RoleSessionName="attack")["Credentials"]
        )
        for one in found
    }


def denied(attack: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as caught:
        attack()
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.parametrize("name", THEFTS)
def test_a_stolen_role_is_denied_what_its_function_does_not_do(roles: dict[str, Thief], name: str) -> None:
    function, attack = THEFTS[name]
    assert denied(lambda: attack(roles[function])).startswith("AccessDenied")


def test_a_role_is_allowed_what_its_function_does(roles: dict[str, Thief]) -> None:
    """So that what is denied above is denied for what it is."""
    assert roles["notify"].dynamo.get_item(**roles["notify"].row)["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_a55_an_administrator_takes_nothing_out_of_the_journal(deployed: Deployed) -> None:
    s3, bucket = deployed.client("s3"), deployed.outputs["JournalBucketName"]
    key = "journal/attack"
    version = s3.put_object(Bucket=bucket, Key=key, Body=b"kept")["VersionId"]
    place = {"Bucket": bucket, "Key": key, "VersionId": version}
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)
    shorter = {"Mode": "COMPLIANCE", "RetainUntilDate": soon}
    weaker = {"Mode": "GOVERNANCE", "RetainUntilDate": soon}
    for attack in (
        lambda: s3.delete_object(**place),
        lambda: s3.delete_object(**place, BypassGovernanceRetention=True),
        lambda: s3.put_object_retention(**place, Retention=shorter),
        lambda: s3.put_object_retention(**place, Retention=weaker, BypassGovernanceRetention=True),
    ):
        assert denied(attack) == "AccessDenied"
    s3.put_object(Bucket=bucket, Key=key, Body=b"over it")
    assert s3.get_object(**place)["Body"].read() == b"kept", "a version beside it, not over it"


# --- links to exports


@pytest.fixture(scope="module")
def link(deployed: Deployed) -> str:
    """A link to an object as the api function makes them."""
    deployed.bucket.put("exports/attack/file", b"{}")
    signer = boto3.client(
        "s3",
        endpoint_url=deployed.contract["endpoint_url"],
        region_name=deployed.contract["region"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(signature_version="s3v4"),
    )
    where = {"Bucket": deployed.bucket.name, "Key": "exports/attack/file"}
    return str(signer.generate_presigned_url("get_object", Params=where, ExpiresIn=300))


LINKS: dict[str, Callable[[str], str]] = {
    "A51 made to last": lambda link: link.replace("X-Amz-Expires=300", "X-Amz-Expires=86400"),
    "A51 another object": lambda link: link.replace("attack/file", "attack/other"),
    "A53 another content type": lambda link: link + "&response-content-type=text/html",
    "A53 another disposition": lambda link: link + "&response-content-disposition=inline",
}


@pytest.mark.parametrize("name", LINKS)
def test_a_link_cannot_be_bent(link: str, name: str) -> None:
    with urllib.request.urlopen(link, timeout=10) as answer:
        assert json.load(answer) == {}
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(LINKS[name](link), timeout=10)
    assert caught.value.code == 403
    assert b"SignatureDoesNotMatch" in caught.value.read()
