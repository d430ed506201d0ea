"""Structural subtyping: never a wrong yes, judged by the jsonschema library on sampled values."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tools import checker

from tests.rooms.decisions import schemas
from tocsin.decisions.types import normalise, subtype
from tocsin.kernel.errors import Refusal

SEEDS = st.integers(0, 2**64)


def allows(schema: Any, value: Any) -> bool:
    return Draft202012Validator(schema).is_valid(value)


@settings(max_examples=600, deadline=None)
@given(SEEDS)
def test_a_subtype_never_allows_a_value_that_the_supertype_does_not(seed: int) -> None:
    rnd = random.Random(seed)
    a = schemas.schema(rnd)
    b = schemas.variant(rnd, a) if rnd.random() < 0.8 else schemas.schema(rnd)
    for small, large in ((a, b), (b, a)):
        if subtype(normalise(small), normalise(large)):
            judge_small, judge_large = Draft202012Validator(small), Draft202012Validator(large)
            for _ in range(12):
                value = schemas.value(rnd, small)
                assert not judge_small.is_valid(value) or judge_large.is_valid(value), (small, large, value)


@settings(max_examples=600, deadline=None)
@given(SEEDS)
def test_a_normal_form_allows_what_its_source_allows_and_is_its_own_normal_form(seed: int) -> None:
    rnd = random.Random(seed)
    source = schemas.schema(rnd)
    form = normalise(source)
    assert normalise(form) == form
    assert subtype(form, form)
    of_source, of_form = Draft202012Validator(source), Draft202012Validator(form)
    for _ in range(8):
        value = schemas.value(rnd, rnd.choice([source, form]))
        assert of_source.is_valid(value) == of_form.is_valid(value), (source, form, value)


def test_the_sampler_meets_both_answers_and_values_of_both_kinds() -> None:
    """Otherwise the properties above would hold for want of cases."""
    rnd, yes, allowed, tried = random.Random(1), 0, 0, 400
    for _ in range(tried):
        a = schemas.schema(rnd)
        b = schemas.variant(rnd, a)
        yes += subtype(normalise(a), normalise(b))
        allowed += allows(a, schemas.value(rnd, a))
    assert tried / 10 < yes < tried * 9 / 10
    assert tried / 10 < allowed < tried * 9 / 10


def test_both_checkers_have_the_same_rules() -> None:
    rnd, pairs = random.Random(4), []
    for _ in range(4_000):
        a = schemas.schema(rnd)
        b = schemas.variant(rnd, a) if rnd.random() < 0.8 else schemas.schema(rnd)
        pairs += [[normalise(a), normalise(b)], [normalise(b), normalise(a)]]
    expected = [subtype(a, b) for a, b in pairs]
    assert [checker.subtype(a, b) for a, b in pairs] == expected
    command = ["node", str(Path(__file__).with_name("subtypes.mjs"))]
    done = subprocess.run(command, input=json.dumps(pairs).encode(), capture_output=True, check=True)
    assert json.loads(done.stdout) == expected


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
}


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"type": "integer"}, {"type": "number"}),
        ({"type": "integer", "minimum": 3}, {"type": ["integer", "null"], "minimum": 0}),
        ({"enum": ["a", "b"]}, {"enum": ["c", "b", "a"]}),
        ({"enum": ["a", "b"]}, {"type": "string", "maxLength": 1}),
        ({"const": 3}, {"type": "number", "minimum": 3, "maximum": 3}),
        ({"enum": [True, False]}, {"type": "boolean"}),
        ({"type": "boolean"}, {"enum": [True, False]}),
        ({"type": "array", "maxItems": 0}, {"type": "array", "items": {"type": "string"}}),
        ({**PERSON, "required": ["name", "age"]}, PERSON),
        (PERSON, {"type": "object", "required": ["name"]}),
        ({**PERSON, "additionalProperties": False}, PERSON),
        ({"anyOf": [{"type": "null"}, {"const": 1}]}, {"type": ["null", "integer"]}),
        (False, {"type": "string"}),
        ({}, True),
    ],
)
def test_what_is_shown(a: Any, b: Any) -> None:
    assert subtype(normalise(a), normalise(b))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"type": "number"}, {"type": "integer"}),
        ({"const": True}, {"const": 1}),
        ({"const": 1}, {"type": "boolean"}),
        ({"type": "string"}, {"type": "string", "maxLength": 5}),
        (PERSON, {**PERSON, "required": ["name", "age"]}),
        (PERSON, {**PERSON, "additionalProperties": False}),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"type": "object", "properties": {"z": False}}),
        ({}, {"type": "object"}),
        # true, but not shown: the two branches cover the range only together
        (
            {"type": "integer", "minimum": 0, "maximum": 9},
            {"anyOf": [{"type": "integer", "maximum": 4}, {"type": "integer", "minimum": 5}]},
        ),
    ],
)
def test_what_is_not_shown(a: Any, b: Any) -> None:
    assert not subtype(normalise(a), normalise(b))


@pytest.mark.parametrize(
    ("schema", "field", "rule"),
    [
        ({"type": "string", "pattern": "^a"}, "input.pattern", "keyword"),
        ({"type": "string", "format": "email"}, "input.format", "keyword"),
        ({"properties": {"a": {"not": {}}}}, "input.properties.a.not", "keyword"),
        ({"type": "text"}, "input.type", "schema-type"),
        ({"type": []}, "input.type", "schema-type"),
        ({"enum": []}, "input.enum", "enum"),
        ({"enum": [1.5]}, "input", "constant"),
        ({"const": {"a": 1}}, "input", "constant"),
        ({"minimum": 0.5}, "input.minimum", "bound"),
        ({"minLength": -1}, "input.minLength", "bound"),
        ({"maximum": 2**53}, "input.maximum", "bound"),
        ({"properties": {"é": {}}}, "input.properties", "properties"),
        ({"required": ["a", 1]}, "input.required", "names"),
        ({"anyOf": [{}], "type": "string"}, "input", "any-of"),
        ({"anyOf": []}, "input.anyOf", "any-of"),
        ([], "input", "schema"),
        ({"anyOf": [{"const": i} for i in range(150)]}, "input.anyOf[128]", "schema-size"),
    ],
)
def test_refusals_name_field_and_rule(schema: Any, field: str, rule: str) -> None:
    with pytest.raises(Refusal) as refused:
        normalise(schema, "input")
    (detail,) = refused.value.details
    assert (refused.value.code, detail.field, detail.rule) == ("ERR_SCHEMA", field, rule)
    assert detail.fix


def test_zero_is_not_false_and_one_is_not_true() -> None:
    zero = {"type": "object", "properties": {"c": {"const": 0}}, "additionalProperties": {"const": False}}
    assert normalise(zero) == zero
    assert allows(normalise(zero), {"c": 0})
    ones = normalise({"enum": [1, True, 0]})
    assert [allows(ones, value) for value in (1, True, 0, False)] == [True, True, True, False]
    assert len(normalise({"anyOf": [{"const": 1}, {"const": True}]})["anyOf"]) == 2


def test_depth_is_bounded() -> None:
    schema: Any = {"type": "string"}
    for _ in range(20):
        schema = {"type": "array", "items": schema}
    with pytest.raises(Refusal, match="subset"):
        normalise(schema)
