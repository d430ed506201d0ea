"""What the tests of connectors share: samples, and a sender of one request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools import connectors as tool

from tocsin.connectors import registry, translate
from tocsin.connectors.mapping import Known
from tocsin.connectors.registry import Call
from tocsin.connectors.translate import Body, Translation
from tocsin.kernel import clock
from tocsin.kernel.http import Request

SAMPLES = [(name, case) for name, case, _ in tool.samples()]
IDS = [f"{name}-{case}" for name, case in SAMPLES]


def sample(name: str, case: str) -> dict[str, Any]:
    """A sample's request."""
    value: dict[str, Any] = json.loads((registry.ROOT / name / f"{case}.request.json").read_text("utf-8"))
    return value


def expected(name: str, case: str) -> dict[str, Any]:
    """What a sample must become."""
    value: dict[str, Any] = json.loads((registry.ROOT / name / f"{case}.expected.json").read_text("utf-8"))
    return value


@dataclass(frozen=True)
class Sent:
    """A request that was translated."""

    call: Call
    request: Request
    body: Body
    made: Translation


def send(
    given: Mapping[str, Any], recall: Callable[[str], Sequence[Known]] = translate.nothing_known, **changed: Any
) -> Sent:
    """Translate a sample, with some of its members changed."""
    one = {**given, **changed}
    request = tool.request_of(one)
    call = registry.find(request.method, request.path)
    assert call is not None
    body = translate.read(call, request)
    made = translate.translate(call, request, body, now=clock.parse_rfc3339(one["now"]), recall=recall)
    return Sent(call, request, body, made)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(path, leaf) of every scalar and every empty container of a JSON value."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from leaves(part, (*path, name))
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from leaves(part, (*path, index))
    else:
        yield path, value


def comparable(leaf: Any) -> str:
    """A leaf as it is compared: 1 and 1.0 are the same number of JSON."""
    if isinstance(leaf, bool) or not isinstance(leaf, (int, float)):
        return json.dumps(leaf, sort_keys=True)
    return json.dumps(float(leaf))
