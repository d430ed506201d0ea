"""The route table agrees with itself, with the code, and with the list of what is open."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import product

import pytest
from tests.support import api_fakes

from tocsin.access.principals import valid_scope
from tocsin.api import matching, models, responses, router
from tocsin.connectors import alertmanager, registry
from tocsin.kernel.errors import CODES, Refusal
from tocsin.routes import EXAMPLE_EVENT, GRAMMARS, OPEN_PATHS, ROUTES, Route

SPECIAL_REQUESTS = {"EventInput", "Payload", "Telemetry"}
SPECIAL_RESPONSES = {"EventAnswer", "dialect", "text", "object"}


def test_exactly_these_paths_are_open() -> None:
    assert {
        *("/livez", "/health", "/healthz", "/ready", "/readyz"),
        *("/docs", "/docs/redoc.js", "/openapi.json", "/api/metrics.json"),
    } == OPEN_PATHS


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation_id)
def test_a_route_is_complete(route: Route) -> None:
    assert (route.scope is None) == (route.function == "public")
    assert route.scope is None or valid_scope(route.scope)
    assert ("{id}" in route.path) == (route.names is not None)
    assert all(("{id}" in alias) == ("{id}" in route.path) for alias in route.aliases)
    assert route.names is None or route.names in GRAMMARS
    assert set(route.codes) <= CODES.keys()
    assert route.request is None or route.request in SPECIAL_REQUESTS or hasattr(models, route.request)
    assert route.response in SPECIAL_RESPONSES or hasattr(responses, route.response)
    assert route.examples, "documentation without an example"
    assert {example.status for example in route.examples} <= set(route.success)
    assert len({example.name for example in route.examples}) == len(route.examples)
    if route.method == "GET":
        assert route.scope is None or route.scope.endswith(":read")
        assert route.request is None
    assert all(re.fullmatch(r"/[A-Za-z0-9/{}._:-]*", path) for path in (route.path, *route.aliases))


def test_operations_and_paths_are_named_once() -> None:
    operations = [route.operation_id for route in ROUTES]
    assert len(set(operations)) == len(operations)
    taken = [(route.method, path) for route in ROUTES for path in (route.path, *route.aliases)]
    assert len(set(taken)) == len(taken)


def test_every_keyed_operation_of_the_api_has_a_service_and_no_other() -> None:
    assert router.SERVICES.keys() == {route.operation_id for route in ROUTES if route.function == "api"}


def test_the_addresses_of_connectors_are_those_of_the_table() -> None:
    """The table is not read from the mappings, which would cost every function their loading."""
    spoken = {
        (route.method, route.path.replace("+}", "}")): connector.answers["taken"].status
        for connector in map(registry.load, registry.names())
        for route in connector.routes
    }
    listed = {
        (route.method, path): route.success[0]
        for route in ROUTES
        if route.function == "connect" and route.scope == "ingest:write"
        for path in (route.path, *route.aliases)
    }
    assert listed == spoken
    asked = {(route.method, route.path): route for route in ROUTES if route.path.startswith(alertmanager.PREFIX)}
    for method, rest, changes in alertmanager.ROUTES:
        route = asked.pop((method, alertmanager.PREFIX + rest))
        assert str(route.scope).endswith(":write") == changes
    assert [path for _, path in asked] == [alertmanager.PREFIX + "alerts"]


def test_every_path_and_alias_leads_to_its_route() -> None:
    for route in ROUTES:
        for path in (route.path, *route.aliases):
            filled = re.sub(r"\{[a-z_]+\}", "a-part", path.replace("{id}", "some-id"))
            methods, (identifier, part) = matching.match(filled)
            assert methods[route.method] is route
            assert identifier == ("some-id" if route.names else "a-part" if "{" in path else "")
            assert part == ("a-part" if path.count("{") == 2 else "")


def test_no_path_is_hidden_behind_the_pattern_of_another() -> None:
    patterns = [path for route in ROUTES for path in (route.path, *route.aliases) if "{id}" in path]
    fixed = [path for route in ROUTES for path in (route.path, *route.aliases) if "{id}" not in path]
    for pattern, path in product(patterns, fixed):
        assert not re.fullmatch(re.escape(pattern).replace(r"\{id\}", "[^/]+"), path), (pattern, path)


def test_the_sample_world_holds_the_example_event() -> None:
    assert EXAMPLE_EVENT in {event["event_id"] for event in api_fakes.sample_events()}


def test_choices_are_those_of_the_rooms() -> None:
    from tocsin.delivery.model import DECISIONS
    from tocsin.signals.incidents import TIERS, VERDICTS

    by_name = {(route.operation_id, param.name): param.choices for route in ROUTES for param in route.query}
    assert by_name["list_events", "tier"] == TIERS
    assert by_name["list_incidents", "tier"] == TIERS
    assert by_name["list_notifications", "decision"] == DECISIONS
    annotation = models.IncidentChange.model_fields["verdict"].annotation
    assert set(re.findall(r"'(\w+)'", str(annotation))) == set(VERDICTS)


def test_the_open_routes_and_the_table_need_no_pydantic() -> None:
    program = (
        "import sys, tocsin.api.public, tocsin.routes; sys.exit('pydantic' in sys.modules or 'boto3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": "shared"}, check=False)
    assert done.returncode == 0


def test_a_request_with_a_key_needs_no_cryptography_of_tokens() -> None:
    """joserfc and what it stands on cost a cold start more than all of the way in; only a token pays for them."""
    program = (
        "import sys, functions.ingest.handler, functions.api.handler, tocsin.access.limits, tocsin.access.admin, "
        "tocsin.access.signatures, tocsin.aws.key_store, tocsin.aws.access_store, tocsin.aws.limit_store; "
        "sys.exit('joserfc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": "shared:."}, check=False)
    assert done.returncode == 0


def test_a_path_that_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(Refusal) as caught:
        matching.match("/v1/events/" + "x" * 600)
    assert caught.value.code == "ERR_NOT_FOUND"
