"""Closed documents: one table of fields gives both the JSON Schema that is published and the check that is made.

Contracts, requests, policies and health are all hashed and read again by checkers in other languages, so what may
stand in them is narrow: ASCII keys, integers below 2^53, no floats, sets as sorted arrays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from tocsin.kernel.errors import Detail, Refusal

Schema = Mapping[str, Any]

#: Largest integer that every JSON reader keeps (RFC 8259 §6, RFC 8785).
MAX_INT: Final = 2**53 - 1
#: Levels of a data class, from what anybody may see to what few may.
LEVELS: Final = ("public", "internal", "confidential", "restricted")
_MAX_DETAILS: Final = 20

_COMPILED = lru_cache(maxsize=256)(re.compile)


def text(pattern: str, about: str) -> Schema:
    """A string that a pattern describes from its first to its last character."""
    return {"type": "string", "pattern": f"^{pattern}$", "description": about}


def integer(least: int, most: int, about: str) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most, "description": about}


def choice(values: tuple[str, ...], about: str) -> Schema:
    return {"type": "string", "enum": list(values), "description": about}


def words(least: int, most: int, about: str) -> Schema:
    """A set of lower-case words such as `mail.send` or `events:read`."""
    item = {"type": "string", "pattern": "^[a-z0-9][a-z0-9._:/-]{0,63}$"}
    return {
        "type": "array",
        "items": item,
        "minItems": least,
        "maxItems": most,
        "uniqueItems": True,
        "description": about,
    }


def closed(fields: Mapping[str, Schema], required: frozenset[str], about: str = "") -> Schema:
    made: dict[str, Any] = {
        "type": "object",
        "properties": dict(fields),
        "required": sorted(required),
        "additionalProperties": False,
    }
    return made | ({"description": about} if about else {})


def data_class(about: str) -> Schema:
    """A level and tags: the lattice that labels of data form."""
    fields = {"level": choice(LEVELS, "How few may see the data."), "tags": words(0, 32, "What the data is, as gdpr.")}
    return closed(fields, frozenset(fields), about)


_TYPES: Final[Mapping[str, type]] = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}


def broken(value: Any, schema: Schema, where: str) -> Iterator[Detail]:
    """Every rule of the schema that the value breaks. Only the keywords that this module writes are known."""
    if "type" not in schema:
        return
    kind: str = schema["type"]
    if type(value) is not _TYPES[kind]:
        article = "an" if kind[0] in "aeiou" else "a"
        yield Detail(where or "(body)", "type", f"send {article} {kind}")
    elif "enum" in schema and value not in schema["enum"]:
        yield Detail(where, "enum", f"send one of {', '.join(schema['enum'])}")
    elif kind == "string" and "pattern" in schema and not _COMPILED(schema["pattern"][1:-1], re.A).fullmatch(value):
        yield Detail(where, "pattern", f"send text of the form {schema['pattern']}")
    elif kind == "integer" and not schema["minimum"] <= value <= schema["maximum"]:
        yield Detail(where, "range", f"send an integer from {schema['minimum']} to {schema['maximum']}")
    elif isinstance(value, list):
        yield from _broken_array(value, schema, where)
    elif isinstance(value, dict):
        yield from _broken_object(value, schema, where)


def _broken_array(value: list[Any], schema: Schema, where: str) -> Iterator[Detail]:
    if not schema["minItems"] <= len(value) <= schema["maxItems"]:
        yield Detail(where, "items", f"send {schema['minItems']} to {schema['maxItems']} items")
        return
    found = [detail for i, item in enumerate(value) for detail in broken(item, schema["items"], f"{where}[{i}]")]
    yield from found
    if not found and schema.get("uniqueItems") and len(set(value)) < len(value):
        yield Detail(where, "unique", "send each item once")


def _broken_object(value: dict[str, Any], schema: Schema, where: str) -> Iterator[Detail]:
    prefix = f"{where}." if where else ""
    for key in sorted(value.keys() - schema["properties"].keys()):
        yield Detail(prefix + key[:64], "unknown-field", f"send only {', '.join(schema['properties'])}")
    for key in schema["required"]:
        if key not in value:
            yield Detail(prefix + key, "required", "send this field")
    for key, field in schema["properties"].items():
        if key in value:
            if field.get("readOnly"):
                yield Detail(prefix + key, "read-only", "leave this field out; it is set on the server")
            else:
                yield from broken(value[key], field, prefix + key)


def check(value: Any, schema: Schema, what: str, where: str = "") -> None:
    """Refuse ERR_SCHEMA with every broken rule (at most 20). `what` names the document in the message."""
    details = list(broken(value, schema, where))
    if details:
        raise Refusal("ERR_SCHEMA", f"The {what} breaks its schema.", details[:_MAX_DETAILS])


def as_label(value: Mapping[str, Any]) -> dict[str, Any]:
    """A data class in its one form: tags sorted."""
    return {"level": value["level"], "tags": sorted(value["tags"])}
