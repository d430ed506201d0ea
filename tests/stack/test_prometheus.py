"""Prometheus, Alertmanager and amtool themselves, against the deployed API, configured as docs/connectors.md says."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from tests.stack.conftest import Deployed, eventually
from tests.stack.test_connect import told_by_all_five, transitions

from tocsin.connectors import registry

PROMETHEUS = shutil.which("prometheus")
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
AMTOOL = shutil.which("amtool")
pytestmark = pytest.mark.skipif(
    not (PROMETHEUS and ALERTMANAGER and AMTOOL),
    reason="needs prometheus, alertmanager and amtool (Debian: prometheus, prometheus-alertmanager)",
)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(folder: Path, *command: str | None) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is stopped at the end, and must have run until then; its log is in the folder."""
    words = [word for word in command if word]
    log = folder / f"{Path(words[0]).name}.log"
    with log.open("wb") as written:
        process = subprocess.Popen(words, cwd=folder, stdout=written, stderr=written)
        try:
            yield process
        finally:
            ended = process.poll()
            process.terminate()
            process.wait(20)
            assert ended is None, log.read_text()[-2000:]


def rules(fires: bool) -> str:
    """One alert on two instances, or on none."""
    expr = (
        'label_replace(vector(1), "instance", "db-1", "", "") or label_replace(vector(1), "instance", "db-2", "", "")'
    )
    rule = {
        "alert": "InstanceDown",
        "expr": f"({expr}) == {1 if fires else 0}",
        "labels": {"severity": "critical", "service": "payments"},
        "annotations": {"summary": "{{ $labels.instance }} is down"},
    }
    return yaml.safe_dump({"groups": [{"name": "g", "interval": "1s", "rules": [rule]}]})


def pasted(name: str, api: str, key: str) -> Any:
    """The configuration that docs/connectors.md shows for a sender, as a user fills it in."""
    address = urlsplit(api)
    (block,) = re.findall(r"```yaml\n(.*?)```", registry.load(name).setup, re.DOTALL)
    filled = block.replace("https://<host>", api).replace("scheme: https", f"scheme: {address.scheme}")
    for placeholder, value in {"name": address.netloc, "base": address.path, "key": key, "team": "team"}.items():
        filled = filled.replace(f"<{placeholder}>", value)
    return yaml.safe_load(filled)


def write_configuration(folder: Path, api: str, key: str, relay: int) -> None:
    """Prometheus posts to Tocsin and to an Alertmanager that relays by webhook, PagerDuty, Opsgenie and VictorOps."""
    (folder / "rules.yml").write_text(rules(fires=True))
    prometheus: dict[str, Any] = {"global": {"evaluation_interval": "1s"}, "rule_files": ["rules.yml"]}
    prometheus |= pasted("alertmanager_api", api, key)
    prometheus["alerting"]["alertmanagers"].append({"static_configs": [{"targets": [f"127.0.0.1:{relay}"]}]})
    (folder / "prometheus.yml").write_text(yaml.safe_dump(prometheus))
    receiver: dict[str, Any] = {}
    for name in ("alertmanager_webhook", "pagerduty", "opsgenie", "victorops"):
        (one,) = pasted(name, api, key)["receivers"]
        receiver |= one
    route = {"receiver": receiver["name"], "group_wait": "1s", "group_interval": "1s", "group_by": ["alertname"]}
    (folder / "alertmanager.yml").write_text(yaml.safe_dump({"route": route, "receivers": [receiver]}))


def test_one_alert_of_prometheus_and_four_receivers_is_one_incident_and_one_resolve(
    deployed: Deployed, tmp_path: Path
) -> None:
    project, key = deployed.new_project()
    deployed.made("/v1/channels", {"name": "team mail", "kind": "email", "to": ["oncall@example.com"]}, key)
    relay, own = free_port(), free_port()
    write_configuration(tmp_path, deployed.contract["api_url"], key, relay)

    with (
        running(
            tmp_path,
            ALERTMANAGER,
            "--config.file=alertmanager.yml",
            "--storage.path=relay",
            f"--web.listen-address=127.0.0.1:{relay}",
            "--cluster.listen-address=",
        ),
        running(
            tmp_path,
            PROMETHEUS,
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=series",
            "--rules.alert.resend-delay=1s",
            f"--web.listen-address=127.0.0.1:{own}",
        ) as prometheus,
    ):
        eventually(lambda: told_by_all_five(deployed, key, "firing"), within_s=60.0, every_s=0.5)
        (tmp_path / "rules.yml").write_text(rules(fires=False))
        prometheus.send_signal(signal.SIGHUP)
        eventually(lambda: told_by_all_five(deployed, key, "resolved"), within_s=60.0, every_s=0.5)
    assert transitions(deployed, project, key) == (["opened", "resolved"], ["opened", "resolved"])


def test_amtool_sets_lists_and_ends_silences(deployed: Deployed, tmp_path: Path) -> None:
    _, key = deployed.new_project()
    (tmp_path / "http.yml").write_text(yaml.safe_dump({"authorization": {"credentials": key}}))

    def amtool(*words: str) -> str:
        command = [
            str(AMTOOL),
            f"--alertmanager.url={deployed.contract['api_url']}/alertmanager",
            f"--http.config.file={tmp_path / 'http.yml'}",
            *words,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    amtool("alert", "add", "InstanceDown", "service=payments")
    silence_id = amtool("silence", "add", "service=~pay.*", "--duration=1h", "--author=ann", "--comment=deploy").strip()
    assert silence_id in amtool("silence", "query")
    assert "InstanceDown" in amtool("alert", "query", "--silenced")
    amtool("silence", "expire", silence_id)
    assert silence_id not in amtool("silence", "query")
    assert "InstanceDown" in amtool("alert", "query")
