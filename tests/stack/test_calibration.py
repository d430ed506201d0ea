"""Verdicts change later scores of the deployed stack, one call takes that back, and the log repeats to the byte."""

from __future__ import annotations

from typing import Any

import pytest
from tests.stack.conftest import Deployed, eventually
from tests.stack.test_golden_path import alert, incident_of
from tools.cli import replay

from tocsin.signals.verdicts import MIN_JUDGED

pytestmark = pytest.mark.stack

#: Tiers of what somebody is woken for; which of them depends on how many events it took to see the change.
LOUD = ("high", "critical")


def explained(deployed: Deployed, key: str, event: dict[str, Any]) -> dict[str, Any]:
    """The explanation of one event that is sent now."""
    deployed.send(key, event)
    path = f"/v1/events/{event['id']}/explain"
    eventually(lambda: deployed.call("GET", path, key=key).status == 200)
    found: dict[str, Any] = deployed.get(path, key)
    return found


def test_a_source_that_cries_wolf_is_believed_less_until_that_is_taken_back(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    for criticality in (0.8, 1.0):  # commits name the topology of their time
        body = {"services": {"island-0": {"criticality": criticality}}}
        assert deployed.call("PUT", "/v1/topology", body, key=key).status == 200
    assert deployed.call("POST", "/v1/calibration", {}, key=key).status == 409
    wolves = [alert(n, f"island-{n}", 60, "wolf", title=f"island {n} is on fire") for n in range(MIN_JUDGED + 2)]
    deployed.send(key, wolves)
    eventually(lambda: deployed.settled(project, len(wolves)))
    incidents = {incident_of(deployed, key, event["id"]) for event in wolves}
    assert len(incidents) == len(wolves)
    for incident in incidents:
        changed = deployed.call("PATCH", f"/v1/incidents/{incident}", {"verdict": "noise"}, key=key)
        assert changed.status == 200
    before = explained(deployed, key, alert(100, "island-a", 0, "wolf"))
    learned = deployed.call("POST", "/v1/calibration", {}, key=key)
    assert learned.status == 200, learned.body
    (version,) = learned.body["data"]["versions"]
    figures = version["sources"]["wolf"]
    assert (figures["judged"], figures["in_use"]) == (len(wolves), True)
    assert figures["after"]["brier"] < figures["before"]["brier"]

    def with_calibration(name: str, number: int) -> dict[str, Any]:
        """What a new event is worth once workers see the calibration of that name."""
        found: list[dict[str, Any]] = []

        def seen() -> bool:
            count = number + len(found)
            found.append(explained(deployed, key, alert(count, f"island-{count}", 0, "wolf")))
            return bool(found[-1]["calibrator"]["version"] == name)

        eventually(seen)
        return found[-1]

    calmer = with_calibration("calibration-1", 200)
    assert before["tier"] in LOUD
    assert calmer["tier"] in ("info", "low")
    assert calmer["bias"] + sum(one["micro_logits"] for one in calmer["contributions"]) == calmer["logit"]
    other = explained(deployed, key, alert(300, "island-b", 0, "shepherd"))
    assert other["calibrator"]["version"] == "identity"
    assert deployed.call("POST", "/v1/calibration/rollback", {}, key=key).body["data"]["active"] == 0
    assert with_calibration("identity", 400)["tier"] in LOUD

    again = replay.run(deployed.outputs, deployed.client, project, 0, None)
    assert again.exact, again.as_json()
    assert again.incidents["before"] == len(deployed.get("/v1/incidents?limit=100", key)["items"])
    otherwise = replay.run(deployed.outputs, deployed.client, project, 0, "calibration-1")
    assert 0 < otherwise.identical < otherwise.events == again.events
    assert otherwise.same_states == otherwise.commits
