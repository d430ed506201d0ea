"""The requests of docs/decisions.md are made, in their order, and answered as the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.support.api_fakes import OTHER, caller, request, sample_decisions

from tocsin.api import decisions, governing
from tocsin.api.matching import match, pick

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "decisions.md").read_text("utf-8")
BLOCKS = re.findall(r"^```http\n(\w+) (\S+)\n(.*?)^```\n```json\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
DISPATCH = {"route": decisions.dispatch, "govern": governing.dispatch}


def fits(shown: Any, found: Any) -> bool:
    """Whether an answer is as shown: `…` is anything, and as a key any further ones."""
    if shown == "…":
        return True
    if isinstance(shown, dict) and isinstance(found, dict):
        wanted = shown.keys() - {"…"}
        more = "…" in shown or shown.keys() == found.keys()
        return more and wanted <= found.keys() and all(fits(shown[name], found[name]) for name in wanted)
    if isinstance(shown, list) and isinstance(found, list):
        return len(shown) == len(found) and all(map(fits, shown, found))
    return bool(shown == found)


def test_the_page_is_what_happens() -> None:
    rooms, principal = sample_decisions(), caller(project=OTHER)
    assert len(BLOCKS) == TEXT.count("```http") == 7
    for method, path, body, shown in BLOCKS:
        route = pick(method, match(path)[0])
        answer = DISPATCH[route.function](request(method, path, body=json.loads(body)), lambda _: principal, rooms)
        assert fits(json.loads(shown), answer.data), (path, answer.data)


def test_a_difference_is_noticed() -> None:
    assert fits({"a": 1, "…": "…"}, {"a": 1, "b": 2})
    assert not fits({"a": 1}, {"a": 1, "b": 2})
    assert not fits({"a": [1]}, {"a": [1, 2]})
    assert not fits({"a": 1, "…": "…"}, {"a": 2})
