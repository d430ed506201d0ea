"""Real clients of other systems against the deployed API: each is given an address and a key, and nothing else.

They run in environments of their own (requirements/clients.in, langfuse2.in), all at once, each with a project of its
own. A client that writes anything, a warning included, found the API to be wrong.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.stack.conftest import Deployed, eventually
from tools.local import environments

#: Script, its further arguments, and the environment it runs in.
CLIENTS: dict[str, tuple[str, ...]] = {
    "sentry": ("clients", "sentry"),
    "otlp protobuf": ("clients", "otel", "proto"),
    "otlp protobuf, gzip": ("clients", "otel", "proto", "gzip"),
    "otlp json": ("clients", "otel", "json"),
    "otlp json, gzip": ("clients", "otel", "json", "gzip"),
    "langfuse": ("clients", "langfuse"),
    "langfuse 2": ("langfuse2", "langfuse2"),
    "pagerduty": ("clients", "pagerduty"),
    "opsgenie": ("clients", "opsgenie"),
    "victorops": ("clients", "victorops"),
    "cloudevents": ("clients", "cloudevents"),
}


@dataclass(frozen=True)
class Ran:
    """A client that ran: its project and key, and what it wrote, which must be nothing."""

    project: str
    key: str
    wrote: str


@pytest.fixture(scope="module")
def installed() -> dict[str, str]:
    """Why an environment of clients could not be made, by its name; empty when it could."""
    reasons = {}
    for name in environments.CLIENTS:
        try:
            environments.ensure(name)
            reasons[name] = ""
        except SystemExit as error:
            reasons[name] = f"requirements/{name}.txt cannot be installed here: {error}"
    return reasons


@pytest.fixture(scope="module")
def ran(deployed: Deployed, installed: dict[str, str]) -> dict[str, Ran]:
    """Every client that is installed, run once."""

    def run(name: str) -> Ran:
        environment, script, *arguments = CLIENTS[name]
        project, key = deployed.new_project()
        python = environments.LOCAL / environment / "bin" / "python"
        path = Path(__file__).parent / "clients" / f"{script}_client.py"
        command = [str(python), str(path), deployed.contract["api_url"], key, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        return Ran(project, key, done.stdout + done.stderr)

    names = [name for name in CLIENTS if not installed[CLIENTS[name][0]]]
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(run, names), strict=True))


@dataclass(frozen=True)
class Heard:
    """What came of a client: its project and key, and its events."""

    project: str
    key: str
    events: list[dict[str, Any]]

    def told(self, *fields: str) -> Counter[tuple[Any, ...]]:
        """How often each combination of some fields came."""
        return Counter(tuple(event.get(field) for field in fields) for event in self.events)

    def one(self, **wanted: str) -> dict[str, Any]:
        """The one event with these fields."""
        (event,) = [event for event in self.events if all(event.get(name) == value for name, value in wanted.items())]
        return event


Hear = Callable[[str, int], Heard]


@pytest.fixture
def hear(deployed: Deployed, installed: dict[str, str], ran: dict[str, Ran]) -> Hear:
    """What came of a client, by its name, once the number of events that it sends is stored."""

    def heard(name: str, count: int) -> Heard:
        if reason := installed[CLIENTS[name][0]]:
            pytest.skip(reason)
        one = ran[name]
        assert one.wrote == ""
        eventually(lambda: deployed.stored(one.project) >= count, within_s=90.0)
        found = deployed.get("/v1/events?limit=100", one.key)["items"]
        assert len(found) == count, [(event["source"], event["type"]) for event in found]
        return Heard(one.project, one.key, found)

    return heard


def test_sentry(hear: Hear) -> None:
    heard = hear("sentry", 8)
    assert heard.told("type") == Counter(
        {
            ("KeyError",): 1,
            ("sentry.message",): 1,
            ("sentry.transaction",): 1,
            ("sentry.check_in",): 2,
            ("sentry.log",): 1,
            ("sentry.session",): 1,
            ("sentry.client_report",): 1,
        }
    )
    error = heard.one(type="KeyError")
    assert (error["severity_raw"], error["entity"]) == ("error", {"type": "transaction", "id": "reconcile"})
    assert error["tags"] == {"environment": "prod", "release": "shop@1.2.0", "platform": "python", "host": "web-1"}
    log = heard.one(type="sentry.log")
    assert (log["title"], log["severity_raw"]) == ("payment 7 failed", "error")
    statuses = {
        event["extras"]["event"]["status"]: event["status"] for event in heard.events if "check_in" in event["type"]
    }
    assert statuses == {"in_progress": "firing", "ok": "resolved"}


@pytest.mark.parametrize("name", [name for name in CLIENTS if name.startswith("otlp")])
def test_opentelemetry(hear: Hear, deployed: Deployed, name: str) -> None:
    heard = hear(name, 4)
    assert heard.told("source", "type") == Counter(
        {("otel/cart", one): 1 for one in ("otel.span.server", "gen_ai.chat", "otel.log", "otel.metric")}
    )
    span = heard.one(type="otel.span.server")
    assert (span["title"], span["body"], span["severity_raw"]) == ("POST /checkout", "card declined", "error")
    call = heard.one(type="gen_ai.chat")
    assert call["entity"] == {"type": "model", "id": "gpt-5-mini"}
    assert (call["tags"]["provider"], call["tags"]["service"]) == ("openai", "cart")
    log = heard.one(type="otel.log")
    assert (log["title"], log["severity_raw"]) == ("payment 7 failed", 17)
    assert heard.one(type="otel.metric")["metrics"]["orders"] == 3
    assert heard.one(type="otel.metric")["metrics"]["latency.mean"] == 12.5
    assert deployed.get("/v1/usage", deployed.new_key(heard.project, "admin:read"))["totals"]["llm_tokens"] == 500


def test_langfuse(hear: Hear) -> None:
    heard = hear("langfuse", 3)
    assert heard.told("type") == Counter(
        {("otel.span.internal",): 1, ("gen_ai.generation",): 1, ("langfuse.score",): 1}
    )
    generation = heard.one(type="gen_ai.generation")
    assert generation["entity"] == {"type": "model", "id": "gpt-5-mini"}
    assert generation["metrics"]["gen_ai.usage.input_tokens"] == 42
    assert generation["metrics"]["gen_ai.usage.output_tokens"] == 7
    assert heard.one(type="langfuse.score")["metrics"] == {"score": 0.9}


def test_langfuse_2(hear: Hear) -> None:
    heard = hear("langfuse 2", 4)
    kinds = ("trace-create", "generation-create", "generation-update", "score-create")
    assert heard.told("source", "type") == Counter({("langfuse", f"langfuse.{kind}"): 1 for kind in kinds})
    tokens = {"gen_ai.usage.input_tokens": 42, "gen_ai.usage.output_tokens": 7}
    assert heard.one(type="langfuse.generation-update")["metrics"] == tokens


def test_pagerduty(hear: Hear) -> None:
    heard = hear("pagerduty", 5)
    disk = heard.one(title="Disk / is 97 % full")
    assert (disk["source"], disk["extras"]["payload"]["custom_details"]) == ("pagerduty/web-1", {"free": "3 %"})
    assert heard.one(title="Queue grows")["dedup_key"] == "pagerduty:mq-1/queue"
    assert heard.one(title="Deployed shop 1.2.0")["type"] == "change"


@pytest.mark.parametrize(
    ("name", "count", "key"),
    [("pagerduty", 5, None), ("opsgenie", 3, "opsgenie:web-1/disk"), ("victorops", 3, "victorops:web-1/disk")],
)
def test_an_alert_of_a_pager_keeps_its_state(
    hear: Hear, deployed: Deployed, name: str, count: int, key: str | None
) -> None:
    heard = hear(name, count)
    fired = heard.one(title="Disk / is 97 % full", status="firing")
    assert fired["dedup_key"] == (key or fired["dedup_key"])
    said = Counter(event["status"] for event in heard.events if event["dedup_key"] == fired["dedup_key"])
    assert said == Counter(("firing", "acknowledged", "resolved"))

    def happened() -> list[str] | None:
        found = deployed.get("/v1/incidents", heard.key)["items"]
        if not found:
            return None
        timeline = deployed.get(f"/v1/incidents/{found[0]['id']}", heard.key)["timeline"]
        kinds = [entry["kind"] for entry in timeline]
        return kinds if "resolved" in kinds else None

    # Requests of one moment may be judged in any order, and an acknowledgement after the end changes nothing.
    assert [kind for kind in eventually(happened, within_s=90.0) if kind != "acknowledged"] == ["opened", "resolved"]


def test_cloudevents(hear: Hear) -> None:
    heard = hear("cloudevents", 4)
    assert heard.told("source", "type") == Counter({("/shop/orders", "com.example.order.failed"): 4})
    assert {event["id"] for event in heard.events} == {"o-1", "o-2", "o-3", "o-4"}
    assert {event["entity"]["id"] for event in heard.events} == {f"order/o-{n}" for n in range(1, 5)}
