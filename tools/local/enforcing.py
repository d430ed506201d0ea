"""MiniStack with policies enforced, and a record of what each function's role asked for.

    python -P enforcing.py <record>

Runs in the emulator's own environment, so it imports nothing of the project. `AUTH=true` makes every function act under
its own role. Two kinds of calls are named here as IAM names them, because the emulator asks for actions that no policy
on AWS can grant:

- `sqs:SendMessageBatch`: AWS asks for `sqs:SendMessage` on the queue (the other batch calls alike);
- `dynamodb:BatchExecuteStatement` on `*`: AWS asks for the PartiQL action of each statement, on its table;
- a rule of the default bus as `rule/default/<name>`: on AWS it is `rule/<name>`;
- mail on `*`: AWS asks for the sender's identity, which the emulator does not look for in a raw message;
- requests come without TLS, which bucket policies refuse: there is none on loopback.

The record has one JSON line per distinct call: role, action, resource (an S3 key up to its first part), and whether it
was refused.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from ministack import app  # type: ignore[import-not-found]
from ministack.core import iam_actions, iam_evaluator  # type: ignore[import-not-found]
from ministack.core.responses import get_account_id  # type: ignore[import-not-found]

STATEMENT = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM|SELECT\b.*?\bFROM)\s+\"?([A-Za-z0-9_.-]+)", re.I | re.S)
PARTIQL = {"INSERT": "PartiQLInsert", "UPDATE": "PartiQLUpdate", "DELETE": "PartiQLDelete", "SELECT": "PartiQLSelect"}

Call = tuple[str, str, str, bool]


def statement_checks(body: bytes, region: str, account: str) -> list[tuple[str, str]]:
    """(action, table ARN) of each statement of a BatchExecuteStatement request."""
    checks = []
    for one in json.loads(body)["Statements"]:
        found = STATEMENT.match(one["Statement"])
        if found is None:
            raise ValueError(f"no table in {one['Statement']!r}")
        verb = found[1].split()[0].upper()
        checks.append((f"dynamodb:{PARTIQL[verb]}", f"arn:aws:dynamodb:{region}:{account}:table/{found[2]}"))
    return checks


class Record:
    """Distinct calls of roles, each written once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: set[Call] = set()
        path.write_text("")

    def add(self, principal: str, action: str, resource: str, refused: bool) -> None:
        """`principal` is the ARN of a role's session; those in which a test attacks are no calls of a function."""
        if principal.endswith("/attack"):
            return
        if resource.startswith("arn:aws:s3:::"):
            resource = "/".join(resource.split("/")[:2]) + ("/" if resource.count("/") > 1 else "")
        call = (principal.split("/")[1], action, resource, refused)
        if call not in self._seen:
            self._seen.add(call)
            names = ("role", "action", "resource", "refused")
            with self._path.open("a") as file:
                file.write(json.dumps(dict(zip(names, call, strict=True))) + "\n")


def install(record: Record) -> None:
    """Name calls as IAM does, and keep them."""
    transaction_checks, enforce = iam_actions.dynamodb_transaction_checks, iam_evaluator.enforce
    principals: dict[str, str] = {}

    def checks_by_item(action: str, body: bytes, region: str, account: str) -> list[tuple[str, str]]:
        if action == "dynamodb:BatchExecuteStatement":
            return statement_checks(body, region, account)
        found: list[tuple[str, str]] = transaction_checks(action, body, region, account)
        return found

    def recorded(
        access_key: str, action: str, service: str, region: str, resource_arn: str = "*", **context: Any
    ) -> Any:
        named = action.removesuffix("Batch") if service == "sqs" else action
        resource = resource_arn
        if service == "events":
            resource = resource.replace(":rule/default/", ":rule/")
        if named == "ses:SendRawEmail":
            resource = f"arn:aws:ses:{region}:{get_account_id()}:identity/sender"
        denied = enforce(access_key, named, service, region, resource_arn=resource, **context)
        if access_key and access_key not in principals:
            principal = iam_evaluator.resolve_principal(access_key, get_account_id())
            principals[access_key] = getattr(principal, "arn", "")
        if ":assumed-role/" in principals.get(access_key or "", ""):
            record.add(principals[access_key], named, resource, denied is not None)
        return denied

    app.pin_request_origin = lambda source, _: iam_evaluator.pin_request_origin(source, True)
    iam_actions.dynamodb_transaction_checks = checks_by_item
    iam_evaluator.enforce = recorded


if __name__ == "__main__":
    install(Record(Path(sys.argv.pop())))
    app.main()
