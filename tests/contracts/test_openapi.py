"""The generated document is valid, is what the code says, and its examples are what calls really answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from tools import openapi as tool

from tocsin.api import openapi
from tocsin.kernel.errors import CODES
from tocsin.routes import ROUTES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document(tool.answers())


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_generated_files_are_up_to_date() -> None:
    differing = [str(path.relative_to(ROOT)) for path, text in tool.files().items() if path.read_text("utf-8") != text]
    assert differing == [], "run: python tools/openapi.py"


def test_there_are_no_sample_events_besides_the_generated_ones() -> None:
    wanted = set(tool.files())
    found = {
        path
        for folder in ("api", "route", "govern", "defend", "public")
        for path in (ROOT / "events" / folder).glob("*")
    }
    assert found <= wanted


def test_every_route_and_no_other_is_documented(document: dict[str, Any]) -> None:
    documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert documented == {(route.method, route.path) for route in ROUTES}


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in document["paths"].values():
        for operation in item.values():
            yield operation["operationId"], operation


def test_security_follows_scope(document: dict[str, Any]) -> None:
    for name, operation in _operations(document):
        route = next(route for route in ROUTES if route.operation_id == name)
        assert operation.get("security") == ([] if route.scope is None else None)
        assert ("401" in operation["responses"]) == (route.scope is not None)
        assert ("403" in operation["responses"]) == (route.scope is not None)


def test_every_code_is_documented_under_its_status(document: dict[str, Any]) -> None:
    for name, operation in _operations(document):
        route = next(route for route in ROUTES if route.operation_id == name)
        for code in route.codes:
            response = operation["responses"][str(CODES[code])]
            assert CODES[code] in route.success or code in response["description"]


def test_every_reference_leads_somewhere_and_every_schema_is_used(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    for name in schemas:
        assert f'"#/components/schemas/{name}"' in text, name
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in schemas


def test_examples_fit_their_schemas(document: dict[str, Any]) -> None:
    checked = 0
    for name, operation in _operations(document):
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [response.get("content", {}) for response in operation["responses"].values()]
        for content in contents:
            for media, described in content.items():
                shown = [example["value"] for example in described.get("examples", {}).values()]
                shown += [described["example"]] if "example" in described else []
                if not media.endswith("json"):
                    continue
                whole = {**described["schema"], "components": document["components"]}
                for value in shown:
                    faults = [
                        f"{'/'.join(map(str, fault.path))}: {fault.message[:200]}"
                        for fault in Draft202012Validator(whole).iter_errors(value)
                    ]
                    assert faults == [], name
                    checked += 1
    assert checked > 100


def test_markdown_names_every_route_and_code() -> None:
    text = openapi.markdown()
    for route in ROUTES:
        assert f"`{route.method} {route.path}`" in text
    for code in CODES:
        assert f"`{code}`" in text
