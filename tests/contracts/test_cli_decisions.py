"""The decision commands of the command line, answered by the real services over the sample world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.api_fakes import caller, request, sample_decisions
from tools.cli.__main__ import tocsin
from tools.cli.api import Api, ApiError

from tocsin.api import decisions, governing
from tocsin.api.matching import match, pick
from tocsin.kernel.errors import Refusal
from tocsin.routes import EXAMPLE_DECISION, ROUTES

BODIES = {route.operation_id: route.examples[0].body for route in ROUTES}


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tocsin.json").write_text(json.dumps({"api_url": "http://x", "admin_key": "k"}))
    monkeypatch.setenv("TOCSIN_HOME", str(tmp_path))
    rooms = sample_decisions()

    def call(_: Api, method: str, path: str, body: Any = None, query: Any = None) -> dict[str, Any]:
        asked = request(method, path, body=body, query=[(k, str(v)) for k, v in (query or {}).items() if v is not None])
        function = pick(method, match(path)[0]).function
        serve = governing.dispatch if function == "govern" else decisions.dispatch
        try:
            return {"data": serve(asked, lambda _: caller(), rooms).data}
        except Refusal as refusal:
            told = {"error": {"details": [one.as_json() for one in refusal.details]}}
            raise ApiError(refusal.status, refusal.code, refusal.message, told) from refusal

    monkeypatch.setattr(Api, "call", call)


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(tocsin, arguments, catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.output


def file(folder: Path, body: Any) -> str:
    (folder / "body.json").write_text(json.dumps(body))
    return str(folder / "body.json")


def test_a_contract_is_registered_moved_and_listed(tmp_path: Path) -> None:
    assert run("contracts", "register", file(tmp_path, BODIES["register_contract"])) == "mailer@2 draft\n"
    assert run("contracts", "move", "mailer", "2", "active") == "mailer@2 active\n"
    assert run("contracts", "move", "mailer", "2", "draining").startswith("mailer@2 draining until 2026-")
    assert run("contracts", "list", "--state", "draining") == "mailer@2\tdraining\tmail.send\n"
    refused = run("contracts", "move", "mailer", "2", "retired", status=1)
    assert "409 ERR_CONFLICT" in refused
    assert "state: drain-time: wait " in refused


def test_a_policy_is_analysed_published_and_shown(tmp_path: Path) -> None:
    policy = file(tmp_path, BODIES["publish_policy"])
    told = run("policies", "analyse", policy)
    assert "newly allows: nothing (proved)\nnewly forbids: for example {" in told
    assert json.loads(run("policies", "show"))["version"] == 2
    assert run("policies", "publish", policy) == told
    assert json.loads(run("policies", "show"))["version"] == 3


def test_a_request_is_routed_with_reasons(tmp_path: Path) -> None:
    told = run("route", file(tmp_path, BODIES["route"])).splitlines()
    assert told[0].endswith("  cheap-mail@1")
    assert told[1:] == ["  cheap-mail@1\twinner", "  mailer@1\tdominated"]
    assert (
        run("route", file(tmp_path, {"requests": [{**BODIES["route"], "trust": 90}]}))
        .splitlines()[0]
        .endswith("  nobody")
    )


@pytest.mark.parametrize("form", ["short", "full"])
def test_a_certificate_is_verified_by_both_checkers_and_kept(tmp_path: Path, form: str) -> None:
    told = run("certificate", EXAMPLE_DECISION, "--verify", "--form", form, "--into", str(tmp_path / "kept"))
    assert told.count("VERIFIED") == 2
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"snapshot", "health", EXAMPLE_DECISION}
    assert json.loads(run("certificate", EXAMPLE_DECISION))["form"] == "full"
