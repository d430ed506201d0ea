"""From a path and a method to a route of the table; imports nothing heavy, as the open routes need it too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NoReturn
from urllib.parse import unquote

from tocsin.kernel.errors import Detail, Refusal
from tocsin.routes import MAX_PATH, ROUTES, Route

#: What stands for an id in a path of the table.
_VARIABLE = re.compile(r"\{[a-z_]+\}")


def not_found() -> NoReturn:
    """The one answer for everything that is not there, not theirs, or not an id at all."""
    raise Refusal("ERR_NOT_FOUND", "There is no such thing here.")


@lru_cache(maxsize=1)
def _index() -> tuple[dict[str, dict[str, Route]], list[tuple[re.Pattern[str], dict[str, Route]]]]:
    """Routes by exact path, and by pattern for paths with an id; the value is the route of each method."""
    exact: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        for path in (route.path, *route.aliases):
            exact.setdefault(path, {})[route.method] = route
    patterns = [
        (re.compile("([^/]+)".join(re.escape(part) for part in _VARIABLE.split(path))), methods)
        for path, methods in exact.items()
        if "{" in path
    ]
    return {path: methods for path, methods in exact.items() if "{" not in path}, patterns


def match(path: str) -> tuple[Mapping[str, Route], tuple[str, str]]:
    """The routes of a path by method, and the two ids it may hold ("" for none). Refuses ERR_NOT_FOUND.

    The path is percent-decoded once; what decodes to a slash does not become one, so `%2e%2e%2f` leads
    nowhere.
    """
    if len(path) <= MAX_PATH:
        exact, patterns = _index()
        if path in exact:
            return exact[path], ("", "")
        for pattern, methods in patterns:
            found = pattern.fullmatch(path)
            if found:
                first, second = (unquote(one, errors="replace") for one in (*found.groups(), "")[:2])
                return methods, (first, second)
    not_found()


def allowed(methods: Mapping[str, Route]) -> str:
    """Value of Allow for a path."""
    return ", ".join(sorted({*methods, "OPTIONS"}))


def pick(method: str, methods: Mapping[str, Route]) -> Route:
    """The route of a method on a known path. Refuses ERR_METHOD with Allow."""
    route = methods.get(method)
    if route is None:
        allow = allowed(methods)
        detail = Detail("method", "allowed", f"use one of {allow}")
        raise Refusal("ERR_METHOD", "This path does not take that method.", [detail], {"Allow": allow})
    return route


def operation_of(method: str, path: str) -> str:
    """The operation that a request asks for, "unknown" when there is none."""
    try:
        return pick(method, match(path)[0]).operation_id
    except Refusal:
        return "unknown"
