"""The expressions of a mapping: paths into a document, alternatives, filters, texts. Small, total, without code.

    expression   a text, a list of expressions (the first that yields something) or {of, map, else}
    text         literal characters and {placeholders}; a text that is one placeholder yields the value itself,
                 any other yields text, or nothing when a placeholder yields nothing
    placeholder  alternatives separated by |, each a path with filters, or a 'literal' in single quotes
    path         names separated by dots, [0] or [-1] for items of arrays, 'quoted names' where they hold dots;
                 $ begins at the whole document, @ at what is known of the request, else at the item at hand
    filter       :name, from FILTERS

Evaluation never fails and takes time linear in what it reads: what is not there, or not of the type a filter
takes, is nothing (None), and so are null, "" and empty containers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from tocsin.connectors.identity import fingerprint, group_of
from tocsin.kernel import clock
from tocsin.kernel.canonical import canonical_json

Expression = Any
Path = tuple[str | int, ...]


class MappingError(Exception):
    """A mapping file is wrong. Says where, which rule it breaks, and what to write instead."""

    def __init__(self, where: str, rule: str, fix: str) -> None:
        super().__init__(f"{where}: {rule}; {fix}")
        self.where, self.rule, self.fix = where, rule, fix


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression can see: the item at hand, the whole document, and facts of the request."""

    item: Any
    root: Any
    frame: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A value and, when it is a part of the payload as it was sent, where it came from: (scope, path)."""

    value: Any
    origin: tuple[str, Path] | None = None


NOTHING: Final = Found(None)


# --- filters ------------------------------------------------------------------------------------------------

_BASIC_OFFSET = re.compile(r"([+-]\d\d):?(\d\d)$", re.ASCII)
_LONG_FRACTION = re.compile(r"(\.\d{9})\d+", re.ASCII)
_YEAR_10000_MS: Final = 253_402_300_800_000
_NUMBER = re.compile(r"-?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,2})?", re.ASCII)
#: Above these, a number of a time is in ms, µs, ns: each is beyond the year 5000 in the unit before it.
_UNITS: Final = ((100_000_000_000, 1), (100_000_000_000_000, 1_000), (100_000_000_000_000_000, 1_000_000))


def _time(value: Any) -> str | None:
    """RFC 3339 in UTC with ms, from RFC 3339, ISO 8601 with +0000, a time without offset (UTC), or a Unix time."""
    at: int | None = None
    if isinstance(value, str):
        text = value.strip() if len(value) <= 64 else ""
        if _NUMBER.fullmatch(text):
            return _time(float(text) if "." in text or "e" in text.lower() else int(text))
        text = _LONG_FRACTION.sub(r"\1", text.replace(" ", "T", 1))
        text = _BASIC_OFFSET.sub(r"\1:\2", text) if "T" in text else text
        for tried in (text, text + "Z"):
            try:
                at = clock.parse_rfc3339(tried)
            except ValueError:
                continue
            break
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 10**20:
        at = int(value * 1000)
        for least, divisor in _UNITS:
            if value >= least:
                at = int(value) // divisor
    return clock.rfc3339(at) if at is not None and 0 <= at < _YEAR_10000_MS else None


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    return canonical_json(value).decode() if isinstance(value, (dict, list)) else None


def _number(value: Any) -> int | float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value) if re.search("[.eE]", value) else int(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and abs(number) < 1e15 else None


def _base(value: Any) -> str | None:
    """What stands after the last / or, without one, the last colon: the name in an ARN or a URL."""
    if not isinstance(value, str):
        return None
    return value.rsplit("/" if "/" in value else ":", 1)[-1]


def _labels(value: Any) -> str | None:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        return None
    return fingerprint(value)


#: name → (function, what it does).
FILTERS: Final[Mapping[str, tuple[Callable[[Any], Any], str]]] = {
    "time": (_time, "RFC 3339 in UTC, from RFC 3339, ISO 8601 or a Unix time in s, ms, µs or ns"),
    "text": (_text, "the value as text; objects and arrays as JSON"),
    "number": (_number, "a number, also from text"),
    "whole": (_whole, "the whole part of a number"),
    "lower": (lambda value: value.lower() if isinstance(value, str) else None, "lower case"),
    "line": (lambda value: value.split("\n", 1)[0] if isinstance(value, str) else None, "the first line"),
    "base": (_base, "what stands after the last / (or the last colon)"),
    "labels": (_labels, "Alertmanager's fingerprint of a label set, 16 hexadecimal digits"),
    "sha256": (
        lambda value: group_of(value) if isinstance(value, str) else None,
        "SHA-256 of a text, 64 hexadecimal digits",
    ),
}


# --- reading texts ------------------------------------------------------------------------------------------

_NAME = r"[A-Za-z0-9_*\-]+"
_STEP = re.compile(rf"\.?(?:({_NAME})|'([^']+)'|\[(-?\d{{1,4}})\])")
_PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Reference:
    """One alternative of a placeholder: a path in a scope ("item", "root", "frame") and filters, or a literal."""

    scope: str
    path: Path
    filters: tuple[str, ...] = ()
    literal: str | None = None


@lru_cache(maxsize=4096)
def parse_path(text: str, where: str) -> tuple[str, Path]:
    """Scope and steps of a path. Raises MappingError."""
    rest, scope = text.strip(), "item"
    if rest[:1] in "$@" and rest:
        scope, rest = ("root" if rest[0] == "$" else "frame"), rest[1:]
    steps: list[str | int] = []
    position = 0
    while position < len(rest):
        match = _STEP.match(rest, position)
        if match is None or (match[0][0] == "." and not steps and scope == "item"):
            raise MappingError(where, f"{text!r} is no path", "write names with dots, [0], or 'quoted names'")
        steps.append(int(match[3]) if match[3] is not None else match[1] or match[2])
        position = match.end()
    return scope, tuple(steps)


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators that stand outside single quotes."""
    parts, quoted = [""], False
    for char in text:
        quoted ^= char == "'"
        if char == separator and not quoted:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _reference(text: str, where: str) -> Reference:
    text = text.strip()
    head, *filters = _split(text, ":")
    for name in filters:
        if name not in FILTERS:
            raise MappingError(where, f"{name!r} is no filter", f"use one of {', '.join(FILTERS)}")
    if len(head) >= 2 and head[0] == head[-1] == "'" and "'" not in head[1:-1]:
        return Reference("", (), tuple(filters), head[1:-1])
    scope, path = parse_path(head, where)
    return Reference(scope, path, tuple(filters))


@lru_cache(maxsize=4096)
def parse(text: str, where: str = "") -> tuple[str | tuple[Reference, ...], ...]:
    """Literal texts and placeholders of a text, in order. Raises MappingError."""
    parts: list[str | tuple[Reference, ...]] = []
    position = 0
    for match in _PLACE.finditer(text):
        if match.start() > position:
            parts.append(text[position : match.start()])
        parts.append(tuple(_reference(one, where) for one in _split(match[1], "|")))
        position = match.end()
    if position < len(text):
        parts.append(text[position:])
    if any(isinstance(part, str) and ("{" in part or "}" in part) for part in parts):
        raise MappingError(where, "a brace stands alone", "write placeholders as {path}")
    return tuple(parts)


def check(expression: Expression, where: str) -> None:
    """Refuse (MappingError) what `evaluate` could not read, so that it never has to."""
    if isinstance(expression, str):
        parse(expression, where)
    elif isinstance(expression, list):
        for index, one in enumerate(expression):
            check(one, f"{where}[{index}]")
    elif isinstance(expression, dict):
        unknown = set(expression) - {"of", "map", "else"}
        if unknown or "of" not in expression or not isinstance(expression.get("map", {}), dict):
            raise MappingError(where, "not {of, map, else}", "write of = an expression, map = {word = value}")
        check(expression["of"], f"{where}.of")
        check(expression.get("else", ""), f"{where}.else")
    elif not isinstance(expression, (int, float, bool)):
        raise MappingError(where, "not an expression", "write a text, a list or {of, map, else}")


# --- evaluation ---------------------------------------------------------------------------------------------


def at(value: Any, path: Sequence[str | int]) -> Any:
    """The part of a JSON value at a path, or None."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
        if value is None:
            return None
    return value


def _resolve(reference: Reference, scope: Scope) -> Found:
    if reference.literal is not None:
        value, origin = reference.literal, None
    else:
        value = at(getattr(scope, reference.scope), reference.path)
        origin = None if reference.scope == "frame" else (reference.scope, reference.path)
    for name in reference.filters:
        if value is None:
            break
        value = FILTERS[name][0](value)
    if value is None or (isinstance(value, (str, list, dict)) and not value):
        return NOTHING
    return Found(value, origin)


def evaluate(expression: Expression, scope: Scope) -> Found:
    """The value of an expression. `origin` is kept when the value is one part of the payload."""
    if isinstance(expression, str):
        parts = parse(expression)
        if len(parts) == 1 and isinstance(parts[0], tuple):
            return _first(parts[0], scope)
        out = ""
        for part in parts:
            if isinstance(part, str):
                out += part
                continue
            text = _text(_first(part, scope).value)
            if text is None:
                return NOTHING
            out += text
        return Found(out) if out else NOTHING
    if isinstance(expression, list):
        for one in expression:
            found = evaluate(one, scope)
            if found.value is not None:
                return found
        return NOTHING
    if isinstance(expression, dict):
        found = evaluate(expression["of"], scope)
        word = _text(found.value)
        if word is not None and word in expression.get("map", {}):
            meant = expression["map"][word]
            return Found(meant, found.origin if meant == found.value else None)
        return evaluate(expression["else"], scope) if "else" in expression else NOTHING
    return Found(expression)


def _first(references: Sequence[Reference], scope: Scope) -> Found:
    for reference in references:
        found = _resolve(reference, scope)
        if found.value is not None:
            return found
    return NOTHING


def fill(shape: Any, scope: Scope) -> Any:
    """A JSON value whose texts are filled in; members whose text yields nothing are left out."""
    if isinstance(shape, str):
        return evaluate(shape, scope).value
    if isinstance(shape, dict):
        made = {name: fill(part, scope) for name, part in shape.items()}
        return {name: part for name, part in made.items() if part is not None}
    if isinstance(shape, list):
        return [part for part in (fill(one, scope) for one in shape) if part is not None]
    return shape
