"""`python -m tools.local up|down|status`: what the Makefile calls."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from tools.local import bootstrap, contract, deploy, emulator
from tools.local.build import build, page_assets
from tools.local.home import REGION, ROOT, STACK, Home, LocalError, current
from tools.local.steps import step

RETENTION_DAYS = 90


def up(home: Home) -> None:
    """Start, build, deploy, bootstrap; leave the contract file and say where everything is."""
    began = time.monotonic()
    known = contract.read(home)
    if home.target == "ministack":
        lost = emulator.lost_state(home)
        with step("emulator runs already") as said:
            if emulator.start(home):
                said.said = f"emulator started on 127.0.0.1:{home.port}"
        if lost:
            print("            it was not stopped politely: what was written since its last start is lost")
            print("            where the journal was ahead of it, seal goes on after make clean only")
    else:
        _wait_for_localstack(home)
    with step("docs page unchanged") as said:
        if page_assets():
            said.said = "docs page assets installed (npm ci)"
    with step("build unchanged") as said:
        template, fingerprint, built = build(home.target)
        if built:
            said.said = "built functions and layers (sam build)"
    with step("") as said:
        change = deploy.deploy(home, template, fingerprint)
        said.said = f"stack {STACK} {change}" + (" (sam deploy)" if change != "unchanged" else "")
    if change == "created" and known:
        print("            the earlier stack is gone: seeding the same project and keys again")
    with step("") as said:
        said.said = _bootstrap(home, known, fresh=change == "created")
    found = contract.read(home)
    print(f"\n  ready in {time.monotonic() - began:.1f} s\n")
    print(f"  API       {found['api_url']}")
    print(f"  bulk      {found['bulk_url']}")
    print(f"  docs      {found['api_url']}/docs")
    print(f"  project   {found['project']}; its keys are in {_shown(home)} (mode 0600)")
    print("  next      make demo · make down · docs/development.md")


def _bootstrap(home: Home, known: dict[str, Any], *, fresh: bool) -> str:
    def clients(service: str) -> object:
        return deploy.client(home, service)

    outputs = deploy.outputs(home)
    bootstrap.settle(clients, outputs, RETENTION_DAYS, deploy.MAIL_FROM)
    filled = bootstrap.fill_secrets(clients, outputs)
    seeded, written = bootstrap.seed(clients, outputs, known)
    # Pinned once: a key that is asked for again later proves nothing.
    pinned = None if fresh else known.get("journal_keys")
    api_url, bulk_url = _addresses(home, outputs)
    contract.write(
        home,
        {
            "api_url": api_url,
            "console_url": None,
            "endpoint_url": home.endpoint,
            "stack": STACK,
            "bulk_url": bulk_url,
            "project": seeded["project"],
            "project_key": seeded["project_key"],
            "admin_key": seeded["admin_key"],
            "journal_keys": pinned or bootstrap.verifier_keys(clients, outputs, STACK),
            "receiver": f"http://{home.receiver}",
            "region": REGION,
            "resources": dict(outputs),
        },
    )
    bootstrap.start_ticking(clients, outputs)
    if not written and not filled:
        return "bootstrap: nothing was missing"
    again = "written again" if known.get("project_key") else "made"
    return f"bootstrap: {filled} secrets generated, {' and '.join(written) or 'no key'} {again}"


def _addresses(home: Home, outputs: dict[str, str]) -> tuple[str, str]:
    """Addresses of both front doors that any HTTP client can use: emulators resolve no AWS host names."""
    api = outputs["ApiUrl"]
    if home.target == "localstack":
        return api, outputs["BulkUrl"].rstrip("/")
    url_id = outputs["BulkUrl"].split("//", 1)[1].split(".", 1)[0]
    return api, f"{home.endpoint}/_aws/lambda-url/{url_id}"


def _wait_for_localstack(home: Home) -> None:
    with step(f"LocalStack answers at {home.endpoint}"):
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{home.endpoint}/_localstack/health", timeout=2):  # noqa: S310
                    return
            except (urllib.error.URLError, OSError) as error:
                if time.monotonic() > deadline:
                    raise LocalError(f"no LocalStack at {home.endpoint}: docker compose up -d") from error
                time.sleep(1)


def down(home: Home) -> None:
    """Stop the emulator politely, so that its state is saved."""
    if home.target == "localstack":
        raise LocalError("LocalStack is stopped by: docker compose down")
    with step("emulator was not running") as said:
        if emulator.stop(home):
            said.said = "emulator stopped, its state is saved"


def status(home: Home) -> None:
    """Whether the emulator runs, and where."""
    pid = emulator.running(home)
    print(f"  {home.endpoint}: " + (f"running, process {pid}" if pid else "not running"))


def stack_tests(arguments: list[str]) -> int:
    """Run the stack tests against a stack of their own, made anew and stopped afterwards."""
    env = {
        **os.environ,
        "TOCSIN_HOME": ".local/test",
        "TOCSIN_PORT": os.environ.get("TOCSIN_TEST_PORT") or "4966",
        "TOCSIN_ENFORCE": "1",
    }
    home = current(env)
    emulator.stop(home)
    shutil.rmtree(home.folder)
    home = current(env)
    try:
        up(home)
        print(flush=True)
        return subprocess.run(
            [sys.executable, "-m", "pytest", "tests/stack", *arguments], cwd=ROOT, env=env, check=False
        ).returncode
    finally:
        down(home)


def _shown(home: Home) -> str:
    return str(home.contract.relative_to(ROOT)) if home.contract.is_relative_to(ROOT) else str(home.contract)


def main() -> None:
    """Command line: up, down, status, stack-tests."""
    parser = argparse.ArgumentParser(prog="python -m tools.local")
    parser.add_argument("command", choices=["up", "down", "status", "stack-tests"])
    chosen, rest = parser.parse_known_args()
    try:
        if chosen.command == "stack-tests":
            sys.exit(stack_tests(rest))
        {"up": up, "down": down, "status": status}[chosen.command](current())
    except LocalError as error:
        sys.exit(f"tocsin: {error}")


if __name__ == "__main__":
    main()
