"""The way of a signal on the deployed stack: events in, explained incidents out, and what people do with them.

Every test has a project of its own and speaks HTTP only; the table is looked at where no route shows what is asserted.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.stack.conftest import Deployed, Reply, eventually

from tocsin.aws import keys as table_keys
from tocsin.kernel import clock

pytestmark = pytest.mark.stack

Json = dict[str, Any]
SERVICES: Json = {
    "gateway": {"deps": ["checkout"]},
    "checkout": {"deps": ["payments"]},
    "payments": {"deps": ["ledger-db"]},
    "ledger-db": {"criticality": 0.9},
}


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def alert(number: int, service: str, seconds_ago: float, source: str = "prometheus", **fields: Any) -> Json:
    """A critical alert about a service; keyword arguments replace its fields."""
    return {
        "id": f"e-{number}",
        "source": source,
        "type": "latency.high",
        "title": f"{service} answers too late",
        "occurred_at": ago(seconds_ago),
        "entity": {"type": "service", "id": service},
        "tags": {"env": "prod", "service": service},
        "severity_raw": "critical",
    } | fields


def cascade() -> list[Json]:
    """A database that fails and what follows from it, told by three systems; one event is noise."""
    return [
        alert(1, "ledger-db", 100, metrics={"connections": 498}),
        alert(2, "payments", 80, "sentry", severity_raw="error", title="payments: cannot reach ledger-db"),
        alert(3, "checkout", 60),
        alert(4, "gateway", 40, "cloudwatch", severity_raw="ALARM"),
        alert(5, "newsletter", 50, "kubernetes", severity_raw="Normal", title="Pulled image", type="Pulled"),
    ]


def ready(deployed: Deployed, project: str, events: int) -> None:
    eventually(lambda: deployed.settled(project, events))


def incident_of(deployed: Deployed, key: str, sender_id: str) -> str:
    found = deployed.get(f"/v1/events/{sender_id}", key)["incident_id"]
    assert found is not None
    return str(found)


def two_incidents(deployed: Deployed) -> tuple[str, str, str, str]:
    """(project, key, earlier incident, later incident): an undeclared pair of services, two events each."""
    project, key = deployed.new_project()
    events = [alert(1, "mail", 300), alert(2, "mail", 290), alert(3, "search", 100), alert(4, "search", 90)]
    deployed.send(key, events)
    ready(deployed, project, 4)
    first, second = incident_of(deployed, key, "e-1"), incident_of(deployed, key, "e-3")
    assert first != second
    return project, key, first, second


def refused(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.body["error"]["code"]


def walk(deployed: Deployed, key: str, path: str, **query: Any) -> list[list[Json]]:
    """Every page of a listing, by its cursors."""
    pages, cursor = [], None
    while True:
        asked = {**query, **({"cursor": cursor} if cursor else {})}
        reply = deployed.call("GET", f"{path}?{urlencode(asked, doseq=True)}", key=key)
        assert reply.status == 200, reply
        pages.append(reply.body["data"]["items"])
        cursor = reply.body["meta"]["next_cursor"]
        if cursor is None:
            return pages
        assert len(pages) < 200, "the cursor does not come to an end"


def found(deployed: Deployed, key: str, path: str, **query: Any) -> list[Json]:
    return [item for page in walk(deployed, key, path, **query) for item in page]


# --- events in, incidents out


def test_a_cascade_becomes_one_explained_incident_and_noise_none(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    declared = deployed.call("PUT", "/v1/topology", {"services": SERVICES}, key=key)
    assert (declared.status, declared.body["data"]["version"]) == (200, 1)
    taken = deployed.send(key, cascade())
    assert [item["status"] for item in taken] == ["accepted"] * 5
    ready(deployed, project, 5)

    (incident,) = found(deployed, key, "/v1/incidents")
    whole = deployed.get(f"/v1/incidents/{incident['id']}", key)
    assert (whole["status"], whole["event_count"], whole["tier"]) == ("open", 4, "critical")
    assert whole["sources"] == ["cloudwatch", "prometheus", "sentry"]
    assert [one["service"] for one in whole["services"]] == ["ledger-db", "payments", "checkout", "gateway"]
    assert whole["root"]["service"] == "ledger-db"

    ids = [item["event_id"] for item in taken]
    assert [member["event_id"] for member in whole["members"]] == ids[:4]
    assert all(member["incident_reason"] for member in whole["members"])
    reasons = {reason["text"] for reason in whole["reasons"]}
    assert reasons == {
        "payments depends on ledger-db and both fired within 20 s",
        "checkout depends on payments and both fired within 20 s",
        "gateway depends on checkout and both fired within 20 s",
    }
    kinds = [entry["kind"] for entry in whole["timeline"]]
    assert kinds[0] == "opened"
    assert kinds.count("joined") == 3
    assert [entry["pos"] for entry in whole["timeline"]] == list(range(len(kinds)))

    noise = deployed.get("/v1/events/e-5", key)
    assert (noise["incident_id"], noise["event_id"]) == (None, ids[4])


def test_a_score_is_explained_by_numbers_that_add_up(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    (item,) = deployed.send(key, alert(1, "payments", 10, metrics={"p99_ms": 4200}))
    ready(deployed, project, 1)
    event = deployed.get(f"/v1/events/{item['event_id']}", key)
    told = deployed.get(f"/v1/events/{item['event_id']}/explain", key)
    assert told["logit"] == told["bias"] + sum(one["micro_logits"] for one in told["contributions"])
    assert (told["score"], told["tier"]) == (event["score"], event["tier"])
    assert 0 < told["score"] < 1
    severity = next(one for one in told["contributions"] if one["feature"] == "severity")
    assert "critical" in severity["text"]
    assert told["incident_id"] == event["incident_id"] is not None


def test_a_trace_goes_from_the_request_to_the_event_and_the_timeline(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    reply = deployed.call("POST", "/v1/events", alert(1, "payments", 5), key=key, X_Trace_Id="trace-4711-golden")
    assert reply.headers["x-trace-id"] == reply.body["meta"]["trace_id"] == "trace-4711-golden"
    ready(deployed, project, 1)
    assert deployed.get("/v1/events/e-1", key)["trace_id"] == "trace-4711-golden"


def test_a_late_event_joins_where_it_belongs_and_ties_two_incidents(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    services = {"a": {"deps": ["b"]}, "b": {"deps": ["c"]}, "c": {}}
    deployed.call("PUT", "/v1/topology", {"services": services}, key=key)
    deployed.send(key, alert(1, "a", 60))
    ready(deployed, project, 1)
    deployed.send(key, alert(2, "c", 80))
    ready(deployed, project, 2)
    later, earlier = incident_of(deployed, key, "e-1"), incident_of(deployed, key, "e-2")
    assert later != earlier
    deployed.send(key, alert(3, "b", 70))
    ready(deployed, project, 3)
    assert {incident_of(deployed, key, f"e-{n}") for n in (1, 2, 3)} == {earlier}
    gone = deployed.get(f"/v1/incidents/{later}", key)
    assert (gone["status"], gone["merged_into"]) == ("merged", earlier)
    assert deployed.get(f"/v1/incidents/{earlier}", key)["merged_from"] == [later]


def test_resolved_events_resolve_the_incident(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    firing = [alert(1, "mail", 120), alert(2, "mail", 110, "sentry")]
    deployed.send(key, firing)
    ready(deployed, project, 2)
    incident_id = incident_of(deployed, key, "e-1")
    assert incident_of(deployed, key, "e-2") == incident_id
    deployed.send(key, alert(3, "mail", 60, status="resolved"))
    ready(deployed, project, 3)
    assert deployed.get(f"/v1/incidents/{incident_id}", key)["status"] == "open"
    deployed.send(key, alert(4, "mail", 50, "sentry", status="resolved"))
    ready(deployed, project, 4)
    whole = deployed.get(f"/v1/incidents/{incident_id}", key)
    assert whole["status"] == "resolved"
    assert whole["resolution"]
    assert whole["resolved_at"]
    assert whole["timeline"][-1]["kind"] == "resolved"
    deployed.send(key, alert(5, "mail", 20))
    ready(deployed, project, 5)
    again = deployed.get(f"/v1/incidents/{incident_id}", key)
    assert (again["status"], again["timeline"][-1]["kind"]) == ("open", "reopened")


# --- listings


def test_cursors_show_every_event_exactly_once_newest_commit_first(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    sent = []
    for batch in range(5):
        events = [alert(batch * 7 + n, f"s{n}", 30, severity_raw="info") for n in range(7)]
        sent += [item["event_id"] for item in deployed.send(key, events)]
        ready(deployed, project, len(sent))
    for limit in (1, 4, 100):
        pages = walk(deployed, key, "/v1/events", limit=limit)
        assert all(len(page) <= limit for page in pages)
        assert [item["event_id"] for page in pages for item in page] == sent[::-1]


def test_a_walk_neither_repeats_nor_skips_while_events_arrive(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    deployed.send(key, [alert(n, f"s{n}", 30, severity_raw="info") for n in range(10)])
    ready(deployed, project, 10)
    first = deployed.call("GET", "/v1/events?limit=4", key=key).body
    deployed.send(key, [alert(n, f"s{n}", 20, severity_raw="info") for n in range(10, 20)])
    ready(deployed, project, 20)
    rest = found(deployed, key, "/v1/events", limit=4, cursor=first["meta"]["next_cursor"])
    seen = Counter(one["id"] for one in [*first["data"]["items"], *rest])
    assert seen == Counter({f"e-{n}": 1 for n in range(10)})


def test_events_are_narrowed_by_each_filter_and_by_several(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    sent = cascade()
    sent.append(alert(6, "mail", 7000, status="resolved", severity_raw="info", title="Mail queue is short again"))
    sent[0]["tags"]["region"] = "eu-central-1"
    deployed.send(key, sent)
    ready(deployed, project, 6)
    every = {event["id"]: event for event in found(deployed, key, "/v1/events")}
    assert len(every) == 6

    def ids(**query: Any) -> set[str]:
        return {event["id"] for event in found(deployed, key, "/v1/events", **query)}

    assert ids(source="sentry") == {"e-2"}
    assert ids(entity="service:checkout") == ids(entity="checkout") == {"e-3"}
    assert ids(type="Pulled") == {"e-5"}
    assert ids(tag="env:prod") == set(every)
    assert ids(tag=["env:prod", "region:eu-central-1"]) == {"e-1"}
    assert ids(status="resolved") == {"e-6"}
    assert ids(q="answ lat") == {"e-1", "e-3", "e-4"}
    assert ids(q="image") == {"e-5"}
    assert ids(**{"from": ago(90), "to": ago(45)}) == {"e-2", "e-3", "e-5"}
    for tier in ("info", "low", "medium", "high", "critical"):
        assert ids(tier=tier) == {name for name, event in every.items() if event["tier"] == tier}
    assert ids(source="prometheus", q="answers", entity="checkout") == {"e-3"}
    assert ids(source="nobody") == set()


def test_incidents_are_narrowed_by_each_filter(deployed: Deployed) -> None:
    _, key, mail, search = two_incidents(deployed)
    deployed.call("PATCH", f"/v1/incidents/{search}", {"status": "acknowledged"}, key=key)

    def ids(**query: Any) -> set[str]:
        return {one["id"] for one in found(deployed, key, "/v1/incidents", **query)}

    assert ids() == {mail, search}
    assert ids(limit=1) == {mail, search}
    assert ids(status="acknowledged") == {search}
    assert ids(status="open") == {mail}
    assert ids(entity="service:mail") == ids(service="mail") == ids(q="mail") == {mail}
    assert ids(source="prometheus") == ids(tag="env:prod") == {mail, search}
    assert ids(tag="service:search") == {search}
    assert ids(source="sentry") == ids(tag="env:test") == set()
    assert ids(**{"from": ago(3600)}) == {mail, search}
    assert ids(to=ago(3600)) == set()
    whole = deployed.get(f"/v1/incidents/{mail}", key)
    assert ids(tier=whole["tier"]) >= {mail}


def test_members_are_paged(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    sent = deployed.send(key, [alert(n, "mail", 100 - n, type=f"t{n}") for n in range(9)])
    ready(deployed, project, 9)
    incident_id = incident_of(deployed, key, "e-0")
    members, cursor = [], ""
    while cursor is not None:
        query = f"?limit=4&cursor={cursor}" if cursor else "?limit=4"
        reply = deployed.call("GET", f"/v1/incidents/{incident_id}{query}", key=key)
        members += [one["event_id"] for one in reply.body["data"]["members"]]
        cursor = reply.body["meta"]["next_cursor"]
    assert members == [item["event_id"] for item in sent]


def test_cursors_open_in_their_own_listing_only(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    _, other_key = deployed.new_project()
    deployed.send(key, [alert(n, f"s{n}", 30, severity_raw="info") for n in range(4)])
    ready(deployed, project, 4)
    cursor = deployed.call("GET", "/v1/events?limit=2", key=key).body["meta"]["next_cursor"]
    assert len(deployed.get(f"/v1/events?limit=2&cursor={cursor}", key)["items"]) == 2
    flipped = cursor[:8] + ("A" if cursor[8] != "A" else "B") + cursor[9:]
    wrong = [
        (key, f"/v1/events?cursor={flipped}"),
        (key, f"/v1/events?cursor={cursor[:-3]}"),
        (key, f"/v1/events?cursor={cursor}%3D"),
        (key, "/v1/events?cursor=c1.AAAA"),
        (key, "/v1/events?cursor=x"),
        (key, "/v1/events?cursor="),
        (key, f"/v1/events?cursor={'A' * 6000}"),
        (key, f"/v1/events?source=prometheus&cursor={cursor}"),
        (key, f"/v1/incidents?cursor={cursor}"),
        (other_key, f"/v1/events?limit=2&cursor={cursor}"),
    ]
    for who, path in wrong:
        assert refused(deployed.call("GET", path, key=who)) == (400, "ERR_CURSOR"), path[:80]


@pytest.mark.parametrize(
    "query",
    [
        "colour=red",
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=1&limit=2",
        "tier=huge",
        "status=open",
        "tag=prod",
        "from=yesterday",
        "from=2026-11-20T10:00:00Z&to=2026-11-20T10:00:00Z",
        "source=",
        "source=%00",
        "source=a&source=b",
        "entity=%E2%80%AEx",
        "%F0=1",
        "q=" + "x" * 257,
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(deployed: Deployed, query: str) -> None:
    _, key = deployed.new_project()
    assert refused(deployed.call("GET", f"/v1/events?{query}", key=key)) == (400, "ERR_QUERY")


# --- what people do


def test_people_acknowledge_resolve_reopen_judge_and_annotate(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    deployed.send(key, alert(1, "payments", 30))
    ready(deployed, project, 1)
    path = f"/v1/incidents/{incident_of(deployed, key, 'e-1')}"

    def change(**body: Any) -> Json:
        before = deployed.call("GET", path, key=key)
        reply = deployed.call("PATCH", path, body, key=key, If_Match=before.headers["etag"])
        assert reply.status == 200, reply
        assert reply.body["data"]["version"] > before.body["data"]["version"]
        assert reply.headers["etag"] == f'"{reply.body["data"]["version"]}"'
        changed: Json = reply.body["data"]
        return changed

    acknowledged = change(status="acknowledged")
    assert acknowledged["status"] == "acknowledged"
    assert acknowledged["acknowledged_by"]
    resolved = change(status="resolved", verdict="useful", note="The pool was too small.")
    assert (resolved["status"], resolved["verdict"]["value"]) == ("resolved", "useful")
    assert resolved["resolved_at"]
    reopened = change(status="open")
    assert (reopened["status"], reopened["resolved_at"]) == ("open", None)
    assert change(note="Looking again.")["status"] == "open"
    timeline = deployed.get(path, key)["timeline"]
    kinds = [entry["kind"] for entry in timeline]
    wanted = ["opened", "acknowledged", "resolved", "verdict", "note", "reopened", "note"]
    assert [kind for kind in kinds if kind in wanted] == wanted
    assert any("The pool was too small." in entry["text"] for entry in timeline)
    assert timeline[-1]["by"] not in ("", "tocsin")


def test_a_version_that_is_no_longer_current_is_refused_and_changes_nothing(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    deployed.send(key, alert(1, "payments", 30))
    ready(deployed, project, 1)
    path = f"/v1/incidents/{incident_of(deployed, key, 'e-1')}"
    old = deployed.call("GET", path, key=key)
    deployed.call("PATCH", path, {"note": "first"}, key=key)
    stale = old.body["data"]["version"]
    by_tag = deployed.call("PATCH", path, {"status": "resolved"}, key=key, If_Match=old.headers["etag"])
    by_body = deployed.call("PATCH", path, {"status": "resolved", "version": stale}, key=key)
    assert refused(by_tag) == refused(by_body) == (409, "ERR_CONFLICT")
    both = deployed.call("PATCH", path, {"note": "x", "version": stale + 1}, key=key, If_Match=old.headers["etag"])
    assert refused(both) == (400, "ERR_SCHEMA")
    assert refused(deployed.call("PATCH", path, {"note": "x"}, key=key, If_Match="W/x")) == (400, "ERR_SCHEMA")
    after = deployed.get(path, key)
    assert (after["status"], after["version"]) == ("open", stale + 1)


def test_of_racing_changes_on_one_version_exactly_one_wins(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    deployed.send(key, alert(1, "payments", 30))
    ready(deployed, project, 1)
    path = f"/v1/incidents/{incident_of(deployed, key, 'e-1')}"
    tag = deployed.call("GET", path, key=key).headers["etag"]
    with ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(lambda n: deployed.call("PATCH", path, {"note": f"n{n}"}, key=key, If_Match=tag), range(4))
        )
    assert sorted(reply.status for reply in replies) == [200, 409, 409, 409]
    notes = [entry for entry in deployed.get(path, key)["timeline"] if entry["kind"] == "note"]
    assert len(notes) == 1


def test_changes_that_an_incident_does_not_allow_are_refused(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    deployed.send(key, alert(1, "payments", 30))
    ready(deployed, project, 1)
    path = f"/v1/incidents/{incident_of(deployed, key, 'e-1')}"
    for body, wanted in (
        ({}, (400, "ERR_SCHEMA")),
        ({"status": "closed"}, (400, "ERR_SCHEMA")),
        ({"colour": "red"}, (400, "ERR_SCHEMA")),
        ({"score": 1.0}, (400, "ERR_READONLY_FIELD")),
        ({"verdict": "good"}, (400, "ERR_SCHEMA")),
        ({"note": "a\u202eb"}, (400, "ERR_SCHEMA")),
    ):
        assert refused(deployed.call("PATCH", path, body, key=key)) == wanted, body
    assert deployed.get(path, key)["version"] == 1
    assert deployed.call("PATCH", path, {"status": "resolved"}, key=key).status == 200
    late = deployed.call("PATCH", path, {"status": "acknowledged"}, key=key)
    assert refused(late) == (409, "ERR_CONFLICT")
    assert deployed.call("PATCH", path, {"status": "resolved"}, key=key).body["data"]["version"] == 2


def test_a_merge_by_a_person_leaves_one_incident_and_sticks(deployed: Deployed) -> None:
    project, key, first, second = two_incidents(deployed)
    body = {"incidents": [first], "note": "Same cable."}
    reply = deployed.call("POST", f"/v1/incidents/{second}/merge", body, key=key)
    assert reply.status == 200, reply
    survivor = reply.body["data"]
    assert (survivor["id"], survivor["event_count"], survivor["merged_from"]) == (first, 4, [second])
    gone = deployed.get(f"/v1/incidents/{second}", key)
    assert (gone["status"], gone["merged_into"], gone["members"]) == ("merged", first, [])
    members = deployed.get(f"/v1/incidents/{first}", key)["members"]
    assert sorted(one["id"] for one in members) == ["e-1", "e-2", "e-3", "e-4"]
    deployed.send(key, alert(5, "search", 10))
    ready(deployed, project, 5)
    assert incident_of(deployed, key, "e-5") == first
    again = deployed.call("POST", f"/v1/incidents/{first}/merge", {"incidents": [first]}, key=key)
    assert refused(again) == (400, "ERR_SCHEMA")
    assert refused(deployed.call("PATCH", f"/v1/incidents/{second}", {"status": "resolved"}, key=key)) == (
        409,
        "ERR_CONFLICT",
    )


def test_a_split_by_a_person_makes_a_second_incident_and_sticks(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    sent = deployed.send(key, [alert(n, "mail", 100 - 10 * n, type=f"t{n}") for n in range(3)])
    ready(deployed, project, 3)
    incident_id = incident_of(deployed, key, "e-0")
    body = {"events": [sent[1]["event_id"]], "note": "Unrelated deploy."}
    reply = deployed.call("POST", f"/v1/incidents/{incident_id}/split", body, key=key)
    assert reply.status == 201, reply
    left, made = reply.body["data"]["incident"], reply.body["data"]["split"]
    assert (left["id"], left["event_count"], made["event_count"]) == (incident_id, 2, 1)
    assert reply.headers["location"] == f"/v1/incidents/{made['id']}"
    assert incident_of(deployed, key, "e-1") == made["id"]
    assert [one["id"] for one in deployed.get(f"/v1/incidents/{made['id']}", key)["members"]] == ["e-1"]
    deployed.send(key, alert(7, "mail", 20))
    ready(deployed, project, 4)
    both = {deployed.get(f"/v1/incidents/{one}", key)["status"] for one in (incident_id, made["id"])}
    assert both == {"open"}, "the two sides of a split were joined again"
    stranger = {"events": ["evt_" + "a" * 26]}
    assert refused(deployed.call("POST", f"/v1/incidents/{incident_id}/split", stranger, key=key)) == (
        400,
        "ERR_SCHEMA",
    )


# --- the same event again


def test_a_resend_is_a_duplicate_and_an_altered_one_is_refused(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    event = alert(1, "payments", 30)
    (first,) = deployed.send(key, event)
    ready(deployed, project, 1)
    (again,) = deployed.send(key, event)
    assert (again["status"], again["event_id"]) == ("duplicate", first["event_id"])
    altered = event | {"title": "something else"}
    reply = deployed.call("POST", "/v1/events", altered, key=key)
    assert refused(reply) == (422, "ERR_IDEMPOTENCY_MISMATCH")
    mixed = deployed.call("POST", "/v1/events", [event, altered, alert(2, "payments", 20)], key=key)
    assert refused(mixed) == (207, "ERR_PARTIAL")
    assert [item["status"] for item in mixed.body["data"]["items"]] == ["duplicate", "refused", "accepted"]
    assert mixed.body["data"]["items"][1]["error"]["status"] == 422
    ready(deployed, project, 2)
    assert deployed.get("/v1/events/e-1", key)["title"] == event["title"]


def test_two_versions_in_flight_store_one_and_leave_a_refusal_that_can_be_queried(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    functions = deployed.client("lambda")
    name = f"{deployed.contract['stack']}-score"
    (mapping,) = functions.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    try:
        event = alert(1, "payments", 30)
        (one,) = deployed.send(key, event)
        (two,) = deployed.send(key, event | {"title": "something else"})
    finally:
        functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)
    assert (one["status"], two["status"]) == ("accepted", "accepted")
    assert one["event_id"] == two["event_id"]
    (refusal,) = eventually(lambda: found(deployed, key, "/v1/refusals"))
    assert refusal["event_id"] == one["event_id"]
    assert "ERR_IDEMPOTENCY_MISMATCH" in refusal["reason"]
    assert len(list(deployed.table.query(table_keys.refusal_partition(project, table_keys.day(clock.now_ms()))))) == 1
    ready(deployed, project, 1)


def test_an_event_is_found_by_either_id_and_sources_decide_between_equal_ones(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    one, two, alone = deployed.send(
        key,
        [alert(1, "payments", 30), alert(1, "payments", 29, "sentry"), alert(2, "payments", 28)],
    )
    ready(deployed, project, 3)
    assert one["event_id"] != two["event_id"]
    assert deployed.get("/v1/events/e-2", key)["event_id"] == alone["event_id"]
    for path in ("/v1/events/e-1", "/v1/events/e-1/explain"):
        reply = deployed.call("GET", path, key=key)
        assert refused(reply) == (409, "ERR_AMBIGUOUS")
        assert "prometheus, sentry" in reply.body["error"]["details"][0]["fix"]
        assert deployed.get(f"{path}?source=sentry", key)["event_id"] == two["event_id"]
        assert refused(deployed.call("GET", f"{path}?source=nobody", key=key)) == (404, "ERR_NOT_FOUND")
    assert deployed.get(f"/v1/events/{one['event_id']}", key)["source"] == "prometheus"
    for path in ("..%2f..%2fetc", "%2e%2e%2f", "%00", "x" * 5000, "evt_" + "a" * 26, "e-3", "e-1%0a"):
        assert refused(deployed.call("GET", f"/v1/events/{path}", key=key)) == (404, "ERR_NOT_FOUND"), path[:20]
    for path in ("../../etc", "%2e%2e%2f", "%00", "x" * 5000, "inc_x", "inc_" + "0" * 36):
        reply = deployed.call("GET", f"/v1/incidents/{path}", key=key)
        assert refused(reply) == (404, "ERR_NOT_FOUND"), path[:20]
