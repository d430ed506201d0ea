"""Structural types: a declared subset of JSON Schema 2020-12, its normal form, and a sound subtype relation.

`a` is a subtype of `b` when every JSON value that `a` allows is one that `b` allows. `subtype` never says yes
wrongly; it may say no although the answer is yes (two branches that together cover one, an integer range as a list).
Whoever is refused so can name the type of the other side exactly.

A normal form is `true`, `false`, one branch, or {"anyOf": [two or more branches in canonical order]}; a branch is
{"const": scalar} or has exactly one `type` and the keywords of that type that restrict something. It is itself JSON
Schema and allows exactly what its source allows. Contracts hold normal forms, so that checkers need only the rules
of `subtype`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from tocsin.decisions.documents import MAX_INT
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Detail, Refusal

#: A normal form: True, False or a dict.
Type = Any

#: Keywords that restrict values of a type; all others but the annotations are refused.
KEYWORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "null": (),
    "boolean": (),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "string": ("minLength", "maxLength"),
    "array": ("items", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties"),
}
ANNOTATIONS: Final = frozenset({"$schema", "$id", "$comment", "title", "description", "default", "examples"})
_KNOWN: Final = frozenset({"type", "const", "enum", "anyOf"}.union(ANNOTATIONS, *KEYWORDS.values()))
#: Every JSON value, without the integers twice.
_ALL: Final = ("null", "boolean", "number", "string", "array", "object")
_LOW: Final = ("minimum", "minLength", "minItems")
_HIGH: Final = ("maximum", "maxLength", "maxItems")

MAX_DEPTH: Final = 12
MAX_NODES: Final = 256


def _refuse(where: str, rule: str, fix: str) -> NoReturn:
    raise Refusal("ERR_SCHEMA", "A schema is outside the declared subset of JSON Schema.", [Detail(where, rule, fix)])


class _Reader:
    """Reads one schema; counts its parts so that a comparison stays cheap."""

    def __init__(self) -> None:
        self._nodes = 0

    def read(self, schema: Any, where: str, depth: int = 1) -> Type:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            _refuse(where, "schema-size", f"nest at most {MAX_DEPTH} schemas and use at most {MAX_NODES}")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            _refuse(where, "schema", "send an object, true or false")
        for key in sorted(schema.keys() - _KNOWN):
            _refuse(f"{where}.{key[:64]}", "keyword", f"use only {', '.join(sorted(_KNOWN))}")
        asserted = schema.keys() - ANNOTATIONS
        if "anyOf" in asserted:
            if asserted != {"anyOf"}:
                _refuse(where, "any-of", "put every other keyword inside the branches of anyOf")
            return _union(
                [self.read(one, f"{where}.anyOf[{i}]", depth + 1) for i, one in self._branches(schema, where)]
            )
        kinds = self._kinds(schema, where)
        ranges = _union([self._branch(kind, schema, where, depth) for kind in kinds])
        if not asserted & {"const", "enum"}:
            return True if set(kinds) >= set(_ALL) and not asserted - {"type"} else ranges
        values = [constant for value in self._constants(schema, where) if (constant := _constant(value)) is not None]
        return _union([value for value in values if subtype(value, ranges)])

    def _branches(self, schema: Mapping[str, Any], where: str) -> list[tuple[int, Any]]:
        branches = schema["anyOf"]
        if not isinstance(branches, list) or not branches:
            _refuse(f"{where}.anyOf", "any-of", "send an array of at least one schema")
        return list(enumerate(branches))

    def _kinds(self, schema: Mapping[str, Any], where: str) -> tuple[str, ...]:
        named = schema.get("type", list(_ALL))
        kinds = [named] if isinstance(named, str) else named
        if not isinstance(kinds, list) or not kinds or not all(isinstance(k, str) and k in KEYWORDS for k in kinds):
            _refuse(f"{where}.type", "schema-type", f"send one or more of {', '.join(KEYWORDS)}")
        return tuple(kind for kind in kinds if not (kind == "integer" and "number" in kinds))

    def _constants(self, schema: Mapping[str, Any], where: str) -> list[Any]:
        values = schema.get("enum", [schema.get("const")])
        if not isinstance(values, list) or not values:
            _refuse(f"{where}.enum", "enum", "send an array of at least one value")
        self._nodes += len(values)
        for value in values if "const" not in schema else [*values, schema["const"]]:
            if type(value) not in (str, int, bool, type(None)) or (type(value) is int and abs(value) > MAX_INT):
                _refuse(
                    where, "constant", "list texts, integers below 2^53, true, false or null; describe others by type"
                )
        if "const" in schema:
            same = [value for value in values if type(value) is type(schema["const"]) and value == schema["const"]]
            return same[:1]
        return values

    def _branch(self, kind: str, schema: Mapping[str, Any], where: str, depth: int) -> Type:
        made: dict[str, Any] = {"type": kind}
        for key in KEYWORDS[kind]:
            if key not in schema:
                continue
            value, place = schema[key], f"{where}.{key}"
            if key in ("items", "additionalProperties"):
                inner = self.read(value, place, depth + 1)
                if inner is not True:
                    made[key] = inner
            elif key == "properties":
                if not isinstance(value, dict) or not all(name.isascii() for name in value):
                    _refuse(place, "properties", "send an object whose names are ASCII")
                made[key] = {name: self.read(value[name], f"{place}.{name[:64]}", depth + 1) for name in sorted(value)}
            elif key == "required":
                if not isinstance(value, list) or not all(isinstance(name, str) and name.isascii() for name in value):
                    _refuse(place, "names", "send an array of ASCII names")
                if value:
                    made[key] = sorted(set(value))
            else:
                least = -MAX_INT if kind in ("integer", "number") else 0
                if type(value) is not int or not least <= value <= MAX_INT:
                    _refuse(place, "bound", f"send an integer from {least} to 2^53-1")
                if value or key not in ("minLength", "minItems"):
                    made[key] = value
        rest = canonical_json(made.get("additionalProperties", True))  # as values, 0 and false would be equal
        if "properties" in made:
            named = made["properties"].items()
            made["properties"] = {name: inner for name, inner in named if canonical_json(inner) != rest}
            if not made["properties"]:
                del made["properties"]
        return made


def _constant(value: Any) -> Type:
    return {"type": "null"} if value is None else {"const": value}


def _union(branches: list[Type]) -> Type:
    """Normal form of a union of normal forms."""
    flat: dict[bytes, Type] = {}
    for branch in branches:
        if branch is True:
            return True
        if branch is not False:
            for one in _branches(branch):
                flat[canonical_json(one)] = one
    both = [canonical_json({"const": value}) for value in (False, True)]
    if all(key in flat for key in both):  # all there is of a boolean
        flat = {key: one for key, one in flat.items() if key not in both}
        flat[canonical_json({"type": "boolean"})] = {"type": "boolean"}
    if len(flat) < 2:
        return next(iter(flat.values()), False)
    return {"anyOf": [flat[key] for key in sorted(flat)]}


def normalise(schema: Any, where: str = "schema") -> Type:
    """Normal form of a schema. Raises Refusal ERR_SCHEMA for what is outside the declared subset.

    `where` is the field that holds the schema, for the refusal. normalise(normalise(s)) == normalise(s).
    """
    return _Reader().read(schema, where)


def _branches(a: Type) -> list[Any]:
    branches: list[Any] = a.get("anyOf", [a])
    return branches


def subtype(a: Type, b: Type) -> bool:
    """Whether every value of `a` is a value of `b`, for normal forms; False also when that cannot be shown."""
    if a is False or b is True:
        return True
    if a is True or b is False:
        return False
    return all(any(_within(one, other) for other in _branches(b)) for one in _branches(a))


def holds(a: Type, value: Any) -> bool:
    """Whether a JSON value is of a type in normal form."""
    if isinstance(a, bool):
        return a
    return any(_holds(one, value) for one in _branches(a))


def _holds(branch: Mapping[str, Any], value: Any) -> bool:
    if "const" in branch:
        return type(value) is type(branch["const"]) and bool(value == branch["const"])
    kind = branch["type"]
    if kind in ("integer", "number"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number and (kind == "number" or value == int(value))
        size = value if fits else 0
    else:
        fits = type(value) is {"string": str, "boolean": bool, "null": type(None), "array": list, "object": dict}[kind]
        size = len(value) if fits and kind in ("string", "array") else 0
    if not fits or any(key in branch and size < branch[key] for key in _LOW):
        return False
    if any(key in branch and size > branch[key] for key in _HIGH):
        return False
    if kind == "array":
        return all(holds(branch.get("items", True), item) for item in value)
    if kind == "object":
        named, rest = branch.get("properties", {}), branch.get("additionalProperties", True)
        return set(branch.get("required", ())) <= value.keys() and all(
            holds(named.get(key, rest), item) for key, item in value.items()
        )
    return True


def _range(value: Any) -> Type:
    """The narrowest branch without `const` that holds a constant."""
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": value, "maximum": value}
    return {"type": "string", "minLength": len(value), "maxLength": len(value)}


def _within(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """The rule for two branches."""
    if "const" in b:
        return "const" in a and type(a["const"]) is type(b["const"]) and a["const"] == b["const"]
    if "const" in a:
        a = _range(a["const"])
    if a["type"] != b["type"] and (a["type"], b["type"]) != ("integer", "number"):
        return False
    if any(key in b and (key not in a or a[key] < b[key]) for key in _LOW):
        return False
    if any(key in b and (key not in a or a[key] > b[key]) for key in _HIGH):
        return False
    if a["type"] == "array":
        return a.get("maxItems") == 0 or subtype(a.get("items", True), b.get("items", True))
    if a["type"] == "object":
        return _object_within(a, b)
    return True


def _object_within(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    if not set(b.get("required", ())) <= set(a.get("required", ())):
        return False
    of_a, of_b = a.get("properties", {}), b.get("properties", {})
    rest_a, rest_b = a.get("additionalProperties", True), b.get("additionalProperties", True)
    named = all(subtype(of_a.get(key, rest_a), of_b.get(key, rest_b)) for key in of_a.keys() | of_b.keys())
    return named and subtype(rest_a, rest_b)
