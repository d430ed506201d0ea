"""B79: no function takes the event of another trigger; it refuses before it has touched anything."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.delivery_fakes import Context

from tocsin import wiring

HANDLERS = {
    path.parent.name: path.read_text() for path in (Path(__file__).parents[2] / "functions").glob("*/handler.py")
}
HTTP = {name for name, source in HANDLERS.items() if "tocsin.kernel.http" in source}
#: The schedule of this one is any event that holds no records.
SCHEDULED = {"supervise"}
QUEUED = sorted(HANDLERS.keys() - HTTP)
REQUEST = {"requestContext": {"http": {"method": "GET"}}, "version": "2.0", "rawPath": "/"}
RECORDS = {"Records": [{"messageId": "1", "body": "x"}]}
NONSENSE: tuple[Any, ...] = ({}, [], "x", None, 7, {"body": "a" * 6_000_000}, {"requestContext": None})


@pytest.fixture(autouse=True)
def _untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(service: str) -> Any:
        raise AssertionError(f"{service} was touched")

    monkeypatch.setattr(wiring, "client", touched)


def handle(name: str, event: Any) -> dict[str, Any]:
    answer: dict[str, Any] = importlib.import_module(f"functions.{name}.handler").handler(event, Context())
    return answer


@pytest.mark.parametrize("number", range(len(NONSENSE) + 1))
@pytest.mark.parametrize("name", sorted(HTTP - {"connect"}))  # it has a queue as well
def test_an_http_function_answers_requests_only(name: str, number: int) -> None:
    answer = handle(name, (*NONSENSE, RECORDS)[number])
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["error"]["code"] == "ERR_UNSUPPORTED_EVENT"


@pytest.mark.parametrize("number", range(len(NONSENSE) + 1))
@pytest.mark.parametrize("name", sorted(set(QUEUED) - SCHEDULED))
def test_a_queue_function_takes_records_only(name: str, number: int) -> None:
    answer = handle(name, (*NONSENSE, REQUEST)[number])
    assert answer == {"batchItemFailures": [], "error": "ERR_UNSUPPORTED_EVENT"}


@pytest.mark.parametrize("body", ["", "x", "null", "[]", '"x"', "7"])
@pytest.mark.parametrize("name", QUEUED)
def test_a_message_that_is_no_object_goes_back_and_becomes_a_dead_letter(
    name: str, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in ("correlator", "scorer"):  # built before the messages are read
        monkeypatch.setattr(wiring, one, lambda: None)
    if name == "score":
        monkeypatch.setattr(wiring, "envelope_key", lambda: bytes(32))
        monkeypatch.setattr(wiring, "bucket", lambda: None)
        monkeypatch.setattr(wiring, "sealer", lambda: None)
    answer = handle(name, {"Records": [{"messageId": "1", "body": body}]})
    assert answer["batchItemFailures"] == [{"itemIdentifier": "1"}]
