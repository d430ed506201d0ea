"""`./tocsin contracts`, `policies`, `route` and `certificate`: the decision engine from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from tools.cli.api import ROOT, Api, ApiError, contract

CHECKERS = ((sys.executable, "tools/checker.py"), ("node", "tools/checker.mjs"))
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


def _api() -> Api:
    found = contract()
    return Api(found["api_url"], found["admin_key"], timeout=40)


def _say(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _call(method: str, path: str, body: Any = None, **query: Any) -> Any:
    """`data` of an answer; a refusal ends with its details, one per line."""
    try:
        return _api().call(method, path, body, query=query)["data"]
    except ApiError as error:
        details = ((error.body or {}).get("error") or {}).get("details", ())
        more = [f"  {one['field']}: {one['rule']}: {one['fix']}" for one in details]
        raise click.ClickException("\n".join([str(error), *more])) from error
    except (FileNotFoundError, LookupError) as error:
        raise click.ClickException(str(error)) from error


@click.group()
def contracts() -> None:
    """What services offer, need and promise."""


@contracts.command("list")
@click.option("--state", type=click.Choice(["draft", "active", "draining", "retired"]))
@click.option("--capability")
def list_contracts(state: str | None, capability: str | None) -> None:
    """Versions by name: state, and why one is down."""
    for one in _call("GET", "/v1/contracts", limit=100, state=state, capability=capability)["items"]:
        made = one["contract"]
        health = f"down: {one['down']}" if one["down"] else "attested" if one["attested"] else ""
        words = " ".join(made["capabilities"])
        click.echo(f"{made['name']}@{made['version']}\t{made['state']}\t{words}\t{health}".rstrip())


@contracts.command()
@click.argument("file", type=_FILE)
def register(file: Path) -> None:
    """Register the contract in FILE (JSON), as a draft."""
    made = _call("POST", "/v1/contracts", json.loads(file.read_text("utf-8")))["contract"]
    click.echo(f"{made['name']}@{made['version']} {made['state']}")


@contracts.command()
@click.argument("name")
@click.argument("version", type=int)
@click.argument("state", type=click.Choice(["active", "draining", "retired"]))
def move(name: str, version: int, state: str) -> None:
    """Bring a version into its next state."""
    made = _call("PATCH", f"/v1/contracts/{name}/versions/{version}", {"state": state})
    click.echo(f"{name}@{version} {state}" + (f" until {made['retire_at']}" if "retire_at" in made else ""))


@click.group()
def policies() -> None:
    """Who may be asked to do what."""


@policies.command()
def show() -> None:
    """The policy in force."""
    _say(_call("GET", "/v1/policies/current")["policy"])


def _meaning(path: str, file: Path) -> None:
    found = _call("POST", path, json.loads(file.read_text("utf-8")))
    for name in ("newly_allows", "newly_forbids"):
        example = "nothing (proved)" if found[name] is None else f"for example {json.dumps(found[name])}"
        click.echo(f"{name.replace('_', ' ')}: {example}")


@policies.command()
@click.argument("file", type=_FILE)
def analyse(file: Path) -> None:
    """What the policy in FILE would newly allow and forbid."""
    _meaning("/v1/policies:analyse", file)


@policies.command()
@click.argument("file", type=_FILE)
def publish(file: Path) -> None:
    """Put the policy in FILE in force."""
    _meaning("/v1/policies", file)


@click.command()
@click.argument("file", type=_FILE)
def route(file: Path) -> None:
    """Decide who serves the request in FILE (JSON)."""
    made = _call("POST", "/v1/route", json.loads(file.read_text("utf-8")))
    for one in made.get("items", [made]):
        chosen = one["decision"]
        click.echo(f"{one['decision_id']}  " + (f"{chosen['name']}@{chosen['version']}" if chosen else "nobody"))
        for reason in one["reasons"] or ():
            click.echo(f"  {reason['name']}@{reason['version']}\t{reason['reason']}")


@click.command()
@click.argument("decision_id")
@click.option("--form", type=click.Choice(["short", "full"]), default="full", show_default=True)
@click.option("--verify", is_flag=True, help="Check it with both independent checkers.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), help="Keep the files in this folder.")
def certificate(decision_id: str, form: str, verify: bool, into: Path | None) -> None:
    """The proof of a decision, or of a batch."""
    proof = _call("GET", f"/v1/decisions/{decision_id}/certificate", form=form)
    if not verify and into is None:
        _say(proof)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = into or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        parts = {"snapshot": proof["snapshot"], "health": proof["health"]}
        parts |= {one["decision_id"]: one["certificate"] for one in proof["certificates"]}
        files = []
        for name, part in parts.items():
            files.append(folder.resolve() / name)
            files[-1].write_text(json.dumps(part, sort_keys=True, separators=(",", ":"), ensure_ascii=False), "utf-8")
        if verify:
            verdicts = [_checked([*checker, *map(str, files)]) for checker in CHECKERS]
            if not all(verdicts):
                raise click.ClickException("not verified")


def _checked(command: list[str]) -> bool:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    click.echo(f"{command[1]}: {(done.stdout + done.stderr).strip()}")
    return done.returncode == 0
