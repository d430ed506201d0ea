"""Build the functions and layers with `sam build`, once per change of what goes in.

One build serves every local stack. LocalStack's community edition mounts no layers: for it they
are linked into every built function and taken off the built template.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.local.home import ROOT, SHARED, LocalError, python_minor

SOURCES = (
    "template.yaml",
    "samconfig.toml",
    "functions",
    "shared",
    "layers",
    "requirements/runtime.txt",
    "requirements/analysis.txt",
)
LAYERS = ("RuntimeLayer", "SharedLayer", "AnalysisLayer")
REDOC = "node_modules/redoc/bundles/redoc.standalone.js"


def build(target: str) -> tuple[Path, str, bool]:
    """Built template, fingerprint of everything in it, and whether anything had to be built."""
    home = SHARED / "build" / target
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home.parent / "lock"):
        fingerprint = _fingerprint(target)
        stamp, template = home / "stamp", home / "out" / "template.yaml"
        if stamp.exists() and stamp.read_text() == fingerprint and template.exists():
            return template, fingerprint, False
        stamp.unlink(missing_ok=True)
        run_sam(
            "build", "--build-dir", str(home / "out"),
            "--parameter-overrides", f"Runtime=python{python_minor()}",
            TOCSIN_PYTHON=python_minor(), TOCSIN_PLATFORM=_platform(target),
        )  # fmt: skip
        if target == "localstack":
            link_layers(home / "out")
        stamp.write_text(fingerprint)
        return template, fingerprint, True


def machine() -> str:
    """This machine's processor in Lambda's words."""
    return "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"


def _platform(target: str) -> str:
    """What the runtime layer is for: this machine (the emulator runs functions on it), or Lambda's Linux."""
    if target == "ministack":
        return "host"
    return {"arm64": "aarch64-manylinux2014", "x86_64": "x86_64-manylinux2014"}[machine()]


def link_layers(built: Path) -> None:
    """Hard-link the layers of every built function into it, and take them off the built template.

    A function's own files win over a layer's, as on AWS.
    """
    import yaml
    from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-untyped]

    template = built / "template.yaml"
    document = yaml_parse(template.read_text())
    resources, shared = document["Resources"], document["Globals"]["Function"].pop("Layers")
    for resource in resources.values():
        if resource["Type"] == "AWS::Serverless::Function":
            for layer in (one["Ref"] for one in [*shared, *resource["Properties"].pop("Layers", ())]):
                _link_tree(built / layer / "python", built / resource["Properties"]["CodeUri"])
    for layer in LAYERS:
        resources.pop(layer)
    template.write_text(yaml.safe_dump(_plain(document), sort_keys=False))


def run_sam(*arguments: str, **extra: str) -> str:
    """Run the SAM CLI quietly; its output is shown only when it fails."""
    binaries = f"{SHARED / 'venv' / 'bin'}{os.pathsep}{SHARED / 'uv' / 'bin'}"
    env = {
        **os.environ,
        "SAM_CLI_TELEMETRY": "0",
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        **extra,
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "samcli",
            *arguments,
            "--config-file",
            str(ROOT / "samconfig.toml"),
            "--config-env",
            "embedded",
        ],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise LocalError(f"sam {arguments[0]} failed:\n{tail}")
    return done.stdout


def page_assets() -> bool:
    """Give the docs page what it shows: the script of the locked npm package, and the generated API document.

    True when the package had to be installed.
    """
    lock, stamp = ROOT / "package-lock.json", SHARED / "node-stamp"
    static = ROOT / "functions" / "public" / "static"
    static.mkdir(exist_ok=True)
    shutil.copyfile(ROOT / "docs" / "openapi.json", static / "openapi.json")
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted and (static / "redoc.js").exists():
        return False
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LocalError("npm is not on PATH: install Node.js 20 or newer") from error
    if done.returncode:
        raise LocalError(f"npm ci failed:\n{done.stdout}{done.stderr}")
    shutil.copyfile(ROOT / REDOC, static / "redoc.js")
    stamp.write_text(wanted)
    return True


def _fingerprint(target: str) -> str:
    digest = hashlib.sha256(f"{target}|{sys.version}|{ROOT}".encode())
    for source in SOURCES:
        path = ROOT / source
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"\0{file.relative_to(ROOT)}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def _link_tree(source: Path, into: Path) -> None:
    for path in source.rglob("*"):
        place = into / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)


def _plain(value: object) -> object:
    """Ordered and tagged mappings of the SAM reader as plain ones, which YAML can write."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
