"""Random schemas of the declared subset, close variants of them, and values to try them with."""

from __future__ import annotations

import copy
import random
from typing import Any

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
NAMES = ("a", "b", "c")
SCALARS: list[Any] = [None, True, False, True, False, 0, 1, 0, 1, 2, 3, -1, "", "x", "xy", "xyz", "é"]


def schema(rnd: random.Random, depth: int = 3) -> Any:
    roll = rnd.random()
    if roll < 0.06 or depth == 0:
        return rnd.choice([True, {}, {"type": rnd.choice(TYPES)}, False])
    if roll < 0.2:
        return {"anyOf": [schema(rnd, depth - 1) for _ in range(rnd.randrange(1, 4))]}
    made: dict[str, Any] = {}
    if roll < 0.35:
        made["enum"] = [rnd.choice(SCALARS) for _ in range(rnd.randrange(1, 4))]
    elif roll < 0.4:
        made["const"] = rnd.choice(SCALARS)
    if rnd.random() < 0.9:
        made["type"] = rnd.choice(TYPES[1:]) if rnd.random() < 0.7 else rnd.sample(TYPES, rnd.randrange(1, 4))
    for low, high in (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")):
        if rnd.random() < 0.3:
            made[low] = rnd.randrange(3)
        if rnd.random() < 0.3:
            made[high] = rnd.randrange(1, 4)
    if rnd.random() < 0.3:
        made["items"] = schema(rnd, depth - 1)
    if rnd.random() < 0.4:
        made["properties"] = {name: schema(rnd, depth - 1) for name in rnd.sample(NAMES, rnd.randrange(3))}
        made["required"] = rnd.sample(NAMES, rnd.randrange(3))
        if rnd.random() < 0.5:
            made["additionalProperties"] = schema(rnd, depth - 1)
    return made


def variant(rnd: random.Random, source: Any) -> Any:
    """The schema with one thing changed somewhere, so that subtypes are not rare."""
    made = copy.deepcopy(source)
    nodes = [node for node in _nodes(made) if isinstance(node, dict)]
    if not nodes:
        return schema(rnd, 1)
    node = rnd.choice(nodes)
    kind = rnd.random()
    if len(node) > 1 and kind < 0.4:
        node.pop(rnd.choice(sorted(node)))
    elif kind < 0.7:
        for key in ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"):
            if key in node:
                node[key] = max(0, node[key] + rnd.choice([-1, 1]))
    else:
        node["type"] = rnd.sample(TYPES, rnd.randrange(1, 3))
        if "anyOf" in node:
            del node["type"]
    return {"anyOf": [made, schema(rnd, 1)]} if rnd.random() < 0.2 else made


def _nodes(node: Any) -> list[Any]:
    if not isinstance(node, dict):
        return [node]
    inner = [*node.get("anyOf", []), *node.get("properties", {}).values()]
    inner += [node[key] for key in ("items", "additionalProperties") if key in node]
    return [node, *(one for child in inner for one in _nodes(child))]


def value(rnd: random.Random, of: Any, depth: int = 4) -> Any:
    """A value that tends to be allowed by the schema."""
    if isinstance(of, dict) and "anyOf" in of:
        return value(rnd, rnd.choice(of["anyOf"]), depth)
    if not isinstance(of, dict) or depth == 0 or rnd.random() < 0.08:
        return rnd.choice([*SCALARS, 1.0, 1.5, [], {}, [1], {"a": 1}, {"b": "x", "z": None}])
    if "const" in of:
        return of["const"]
    if "enum" in of:
        return rnd.choice(of["enum"])
    named = of.get("type", list(TYPES))
    kind = named if isinstance(named, str) else rnd.choice(named)
    if kind in ("integer", "number"):
        low = of.get("minimum", -1)
        number = rnd.randint(low, max(low, of.get("maximum", low + 4)))
        return rnd.choice([number, float(number), number + 0.5]) if kind == "number" else number
    if kind == "string":
        low = of.get("minLength", 0)
        return "".join(rnd.choice("xyé😀") for _ in range(rnd.randint(low, max(low, of.get("maxLength", low + 2)))))
    if kind == "array":
        low = of.get("minItems", 0)
        count = rnd.randint(low, max(low, of.get("maxItems", low + 2)))
        return [value(rnd, of.get("items", True), depth - 1) for _ in range(count)]
    if kind == "object":
        properties, rest = of.get("properties", {}), of.get("additionalProperties", True)
        names = set(of.get("required", ())) | {name for name in (*properties, *NAMES, "z") if rnd.random() < 0.4}
        return {name: value(rnd, properties.get(name, rest), depth - 1) for name in sorted(names)}
    return {"null": None, "boolean": rnd.random() < 0.5}[kind]
