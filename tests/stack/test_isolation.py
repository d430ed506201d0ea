"""Who may do what over HTTP: foreign objects are not there, no key is no entry, a scope is needed for each route.

The matrices are made from docs/openapi.json and the route table's aliases, so a new route is covered when it is added.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.stack.conftest import Deployed, Reply, eventually

from tocsin.kernel.clock import now_ms, rfc3339
from tocsin.routes import OPEN_PATHS, ROUTES, Route

pytestmark = pytest.mark.stack

DOCUMENT = json.loads((Path(__file__).resolve().parents[2] / "docs" / "openapi.json").read_text("utf-8"))
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
BY_ID = {route.operation_id: route for route in ROUTES}
#: Addresses of senders answer in their dialects, with statuses of their own: test_connect.py attacks them. What is
#: switched off answers so to everybody: test_defense.py switches it on.
KEYED = [
    pytest.param(BY_ID[name], path, id=f"{method} {path}")
    for name, (method, shown, operation) in OPERATIONS.items()
    if operation.get("security") != [] and BY_ID[name].function != "connect" and not BY_ID[name].flag
    for path in (shown, *BY_ID[name].aliases)
]
WITH_ID = [one for one in KEYED if "{id}" in str(one.values[1])]
#: Scopes that together open every route.
EVERYTHING = (
    *("ingest:write", "events:*", "incidents:*", "topology:*", "notify:*", "admin:*", "approvals:*", "tokens:*"),
    *("journal:*", "contracts:*", "policies:*", "decisions:*", "use:*", "defend:*"),
)
#: A contract without an address, which would be looked up, and what may be asked of it.
CONTRACT = {name: value for name, value in BY_ID["register_contract"].examples[0].body.items() if name != "endpoint"}
ASKED = {**BY_ID["route"].examples[0].body, "profile": "balanced"}
#: Operations that end what others of the same id need, or fit one state only: tried last, in this order.
LAST = ("approve", "reject", "merge_incidents", "delete_channel", "remove_person", "revoke_key")


def refused(reply: Reply) -> tuple[int, str]:
    assert reply.headers["content-type"] == "application/json; charset=utf-8", reply
    assert reply.body["error"].keys() == {"code", "message", "details", "trace_id"}
    return reply.status, reply.body["error"]["code"]


@dataclass(frozen=True)
class Owned:
    """A project that holds one of everything, and ids by what a route names."""

    project: str
    key: str
    ids: dict[str, str]

    def path(self, route: Route, path: str) -> str:
        named = "other approval" if route.operation_id == "reject" else route.names
        return path.replace("{id}", self.ids[named] if named else "")

    def body(self, route: Route) -> Any:
        """A body that its owner may send: the documented one, with ids of this project."""
        if route.request is None:
            return None
        if route.operation_id == "merge_incidents":
            return {"incidents": [self.ids["other incident"]]}
        if route.operation_id == "split_incident":
            return {"events": [self.ids["event"]]}
        if route.operation_id == "add_contract_version":
            return {**CONTRACT, "version": 2}
        if route.operation_id == "put_routing":
            return {"rules": []}
        return route.examples[0].body


def entry(deployed: Deployed, key: str) -> int:
    """Number of an entry of the journal that belongs to the key's project; the seal function is asked at once."""
    tick = json.dumps({"tick": {"at": now_ms()}})
    deployed.client("sqs").send_message(QueueUrl=deployed.outputs["SealQueueUrl"], MessageBody=tick)
    return int(eventually(lambda: deployed.get("/v1/journal", key)["items"], within_s=90)[0]["index"])


@pytest.fixture
def owned(deployed: Deployed) -> Owned:
    project, key = deployed.new_project(*EVERYTHING)
    hook = {"kind": "webhook", "name": "hook", "url": f"{deployed.contract['receiver']}/hook"}
    channel = deployed.made("/v1/channels", hook, key)
    # Muted, so that no delivery is under way while the picture of the project is taken.
    mute = {"rules": [{"name": "quiet", "mute": True, "reason": "nobody listens"}]}
    assert deployed.call("PUT", "/v1/routing", mute, key=key).status == 200
    at = {"occurred_at": rfc3339(now_ms() - 60_000), "severity_raw": "critical"}
    events = [
        {"id": f"e-{n}", "source": "s", "type": f"t{n}", "title": "down", "entity": {"type": "service", "id": name}}
        | at
        for n, name in enumerate(("mail", "mail", "search"))
    ]
    items = deployed.send(key, events)
    flood = {"id": "e-3", "source": "s", "type": "flood.events", "title": "too many", "severity_raw": "error"}
    flood |= {"entity": {"type": "source", "id": "scanner"}}
    mitigation = deployed.made("/v1/defend", flood, key)["mitigation"]
    eventually(lambda: deployed.settled(project, 4))
    eventually(lambda: len(deployed.get("/v1/notifications?decision=withheld", key)["items"]) >= 2)
    other = deployed.new_key(project, *EVERYTHING)  # in other hands, so that its requests may be approved
    asked = {"request": {"method": "DELETE", "path": "/v1/keys/key_x"}}
    ids = {
        "project": project,
        "key": deployed.made("/v1/keys", {"name": "k"}, key)["id"],
        "person": deployed.made("/v1/people", {"name": "Ada", "scopes": ["ingest:write"]}, key)["id"],
        "approval": deployed.made("/v1/approvals", asked, other)["id"],
        "other approval": deployed.made("/v1/approvals", asked, other)["id"],
        "event": items[0]["event_id"],
        "incident": deployed.get("/v1/events/e-0", key)["incident_id"],
        "other incident": deployed.get("/v1/events/e-2", key)["incident_id"],
        "channel": channel["id"],
        "entry": str(entry(deployed, key)),
        "mitigation": mitigation["id"],
        "quarantine": deployed.get("/v1/quarantines", key)["items"][0]["id"],
        "contract": deployed.made("/v1/contracts", CONTRACT, key)["contract"]["name"],
        "decision": deployed.call("POST", "/v1/route", ASKED, key=key).body["data"]["decision_id"],
    }
    return Owned(project, key, ids)


def picture(deployed: Deployed, owned: Owned) -> list[Any]:
    """Everything the owner sees of what strangers try to touch."""
    paths = [f"/v1/events/{owned.ids['event']}", "/v1/channels", "/v1/routing", "/v1/topology", "/v1/notifications"]
    paths += [f"/v1/incidents/{owned.ids[name]}" for name in ("incident", "other incident")]
    paths += [f"/v1/projects/{owned.project}", f"/v1/keys/{owned.ids['key']}", "/v1/people", "/v1/approvals"]
    return [deployed.get(path, owned.key) for path in paths]


def test_a_foreign_object_is_not_there_whatever_is_done_to_it(deployed: Deployed, owned: Owned) -> None:
    _, stranger = deployed.new_project(*EVERYTHING)
    before = picture(deployed, owned)
    assert len(WITH_ID) >= 30
    for one in WITH_ID:
        route, path = one.values
        assert isinstance(route, Route)
        reply = deployed.call(route.method, owned.path(route, str(path)), owned.body(route), key=stranger)
        assert refused(reply) == (404, "ERR_NOT_FOUND"), (route.method, path)
    assert picture(deployed, owned) == before
    # The same requests are good ones: the owner's are answered.
    # (What needs a second person or a job has its own: test_privacy.py.)
    keyed = [one.values[0] for one in WITH_ID if isinstance(one.values[0], Route)]
    routes = {route.operation_id: route for route in keyed if not route.approval and route.within is None}
    assert set(LAST) <= set(routes)
    for name in sorted(routes, key=lambda name: LAST.index(name) if name in LAST else -1):
        route = routes[name]
        reply = deployed.call(route.method, owned.path(route, route.path), owned.body(route), key=owned.key)
        assert reply.status in route.success, (route.method, route.path, reply)


def test_a_foreign_object_named_in_a_body_or_query_is_not_there_either(deployed: Deployed, owned: Owned) -> None:
    project, key = deployed.new_project(*EVERYTHING)
    mine = deployed.send(key, {"id": "e-9", "source": "s", "type": "t", "title": "down", "severity_raw": "fatal"})
    eventually(lambda: deployed.settled(project, 1))
    incident = deployed.get("/v1/events/e-9", key)["incident_id"]
    merge = deployed.call("POST", f"/v1/incidents/{incident}/merge", {"incidents": [owned.ids["incident"]]}, key=key)
    assert refused(merge) == (404, "ERR_NOT_FOUND")
    both = {"events": [mine[0]["event_id"], owned.ids["event"]]}
    assert refused(deployed.call("POST", f"/v1/incidents/{incident}/split", both, key=key)) == (400, "ERR_SCHEMA")
    rules = {"rules": [{"name": "r", "channels": [owned.ids["channel"]]}]}
    assert refused(deployed.call("PUT", "/v1/routing", rules, key=key)) == (400, "ERR_SCHEMA")
    for query in (f"incident={owned.ids['incident']}", f"channel={owned.ids['channel']}"):
        assert deployed.get(f"/v1/notifications?{query}", key)["items"] == []
    assert deployed.get(f"/v1/incidents/{owned.ids['incident']}", owned.key)["version"] == 1


def test_listings_show_the_own_project_only(deployed: Deployed, owned: Owned) -> None:
    _, stranger = deployed.new_project(*EVERYTHING)
    for path in ("/v1/events", "/v1/incidents", "/v1/channels", "/v1/notifications"):
        assert deployed.get(path, stranger)["items"] == [], path
        if path != "/v1/notifications":
            assert deployed.get(path, owned.key)["items"], path
    assert deployed.get("/v1/topology", stranger)["services"] == {}


@pytest.mark.parametrize(("route", "path"), KEYED)
def test_without_a_key_there_is_no_entry(deployed: Deployed, route: Route, path: str) -> None:
    body = route.examples[0].body if route.request else None
    reply = deployed.call(route.method, path.replace("{id}", "x"), body)
    assert refused(reply) == (401, "ERR_AUTH_MISSING")
    assert reply.headers["www-authenticate"].startswith("Bearer")


def test_open_are_the_paths_of_the_list_and_no_others(deployed: Deployed) -> None:
    documented = {path for _, path, operation in OPERATIONS.values() if operation.get("security") == []}
    assert documented <= OPEN_PATHS
    for path in sorted(OPEN_PATHS):
        reply = deployed.call("GET", path)
        assert reply.status == 200, path
        assert deployed.contract["project"] not in str(reply.body)


@pytest.mark.parametrize(("route", "path"), KEYED)
def test_a_key_without_the_scope_is_turned_away_first(deployed: Deployed, route: Route, path: str) -> None:
    assert route.scope is not None
    family, _, verb = route.scope.partition(":")
    others = set(EVERYTHING) - {f"{family}:*", route.scope}
    if verb == "write" and family != "ingest":
        others.add(f"{family}:read")
    _, key = deployed.new_project(*others)
    reply = deployed.call(route.method, path.replace("{id}", "%20%21"), None, key=key, Content_Type="x/y")
    assert refused(reply) == (403, "ERR_SCOPE")
    assert reply.body["error"]["details"][0]["rule"] == route.scope


@pytest.mark.parametrize("with_key", [False, True], ids=["keyless", "keyed"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_unknown_routes_are_not_found(deployed: Deployed, method: str, with_key: bool) -> None:
    _, key = deployed.new_project(*EVERYTHING)
    for path in (
        "/v1",
        "/v2/events",
        "/v1/event",
        "/v1/events/e-1/other",
        "/admin",
        "/v1/incidents/a/b/c",
        "/v1/Events",
    ):
        body = None if method in ("GET", "DELETE") else {}
        reply = deployed.call(method, path, body, key=key if with_key else None)
        assert refused(reply) == (404, "ERR_NOT_FOUND"), path


@pytest.mark.parametrize(
    "route",
    {route.path: route for route in ROUTES if route.function != "connect"}.values(),
    ids=lambda route: route.path,
)
def test_other_methods_are_refused_by_name(deployed: Deployed, route: Route) -> None:
    taken = {one.method for one in ROUTES if route.path in (one.path, *one.aliases)}
    _, key = deployed.new_project(*EVERYTHING)
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - taken:
        reply = deployed.call(method, route.path.replace("{id}", "x"), None, key=key)
        assert refused(reply) == (405, "ERR_METHOD"), method
        assert set(reply.headers["allow"].split(", ")) == taken | {"OPTIONS"}


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
def test_a_preflight_needs_no_key_and_allows_no_foreign_origin(deployed: Deployed, path: str) -> None:
    taken = {one.method for one in ROUTES if path in (one.path, *one.aliases)}
    reply = deployed.raw("OPTIONS", path.replace("{id}", "x"))
    assert reply.status == 204, reply
    assert set(reply.headers["allow"].split(", ")) == taken | {"OPTIONS"}
    foreign = deployed.raw("OPTIONS", path.replace("{id}", "x"), b"", {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers


def test_a_key_that_does_not_work_says_so(deployed: Deployed) -> None:
    _, key = deployed.new_project()
    wrong = key[:12] + ("a" if key[12] != "a" else "b") + key[13:]
    for given in ("x", "tcn_live_", wrong, key + "x", key.replace("live", "test"), "tcn_live_" + "a" * 5000):
        reply = deployed.call("GET", "/v1/events", key=given)
        assert reply.status in (401, 431), given[:20]
        assert reply.body["error"]["code"] in ("ERR_AUTH_INVALID", "ERR_AUTH_ENV", "ERR_HEADERS_TOO_LARGE")
    both = deployed.call("GET", "/v1/events", key=key, Authorization=f"Bearer {wrong}")
    assert refused(both) == (400, "ERR_AUTH_AMBIGUOUS")
    assert deployed.call("GET", "/v1/events", Authorization=f"Bearer {key}").status == 200
