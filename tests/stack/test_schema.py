"""The deployed API against its own documentation: generated requests, good and bad ones, of every operation.

Every answer is one that the served OpenAPI document announces: no 5xx, no other status, no other content type, no body
that does not fit. Requests are the same in every run.
"""

from __future__ import annotations

from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.stack.conftest import Deployed
from tests.stack.test_isolation import BY_ID, OPERATIONS, Owned, owned

__all__ = ["owned"]  # the fixture
pytestmark = pytest.mark.stack

CASES = 1_000
GENERATED = settings(
    max_examples=9, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def sent(case: Case, deployed: Deployed, owned: Owned, session: requests.Session) -> None:
    """Send one case with a valid key, in every second one about something that is there, and judge the answer."""
    route = BY_ID[case.operation.definition.raw["operationId"]]
    if route.names in owned.ids and len(repr(case.body)) % 2:
        case.path_parameters["id"] = owned.ids[route.names]
    response = case.call(base_url=deployed.contract["api_url"], session=session, headers={"X-Api-Key": owned.key})
    case.validate_response(response, checks=CHECKS)


def test_a_thousand_requests_are_answered_as_documented(deployed: Deployed, owned: Owned) -> None:
    document: Any = requests.get(f"{deployed.contract['api_url']}/openapi.json", timeout=10).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.generation.update(with_security_parameters=False)
    operations = [one.ok() for one in schema.get_all_operations()]
    assert len(operations) == len(OPERATIONS)
    tried, wrong, session = 0, list[str](), requests.Session()

    def attempt(case: Case) -> None:
        nonlocal tried
        tried += 1
        try:
            sent(case, deployed, owned, session)
        except FailureGroup as failures:
            found = [f"{one.title}: {one.message[:300]}" for one in failures.exceptions]
            wrong.append(f"{case.operation.label}: {'; '.join(found)}\n{case.as_curl_command()[:600]}")

    for operation in operations:
        route = BY_ID[operation.definition.raw["operationId"]]
        modes = [GenerationMode.POSITIVE]
        if route.query or route.request not in (None, "Payload"):  # else there is nothing to send that is no string
            modes.append(GenerationMode.NEGATIVE)
        for mode in modes:
            run = given(case=operation.as_strategy(generation_mode=mode))(attempt)
            seed(1)(GENERATED(run))()
    session.close()
    assert not wrong, "\n\n".join(wrong)
    assert tried >= CASES, tried
