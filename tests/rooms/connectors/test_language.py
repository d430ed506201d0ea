"""The language of mappings: what it gives, and that a wrong mapping is told where and how."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.connectors import mapping, registry, template
from tocsin.connectors.template import FILTERS, MappingError, Scope, evaluate, fill
from tocsin.kernel import clock

ITEM = {
    "labels": {"severity": "page", "k8s.io/name": "web"},
    "list": [{"a": 1}, {"a": 2}],
    "empty": "",
    "none": None,
    "n": 0,
    "ok": False,
    "at": "2026-11-21T10:54:10Z",
}
SCOPE = Scope(ITEM, {"around": "yes", **ITEM}, {"action": "close", "path": {"id": "7"}})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("{labels.severity}", "page"),
        ("{labels.'k8s.io/name'}", "web"),
        ("{list[0].a}", 1),
        ("{list[-1].a}", 2),
        ("{list[9].a}", None),
        ("{n}", 0),
        ("{ok}", False),
        ("{empty|none|missing}", None),
        ("{empty|none|missing|'x'}", "x"),
        ("{$.around}", "yes"),
        ("{@.action} {@.path.id}", "close 7"),
        ("plain", "plain"),
        ("{labels.severity}: {missing}", None),
        (["{missing}", "{labels.severity}"], "page"),
        ({"of": "{labels.severity}", "map": {"page": "critical"}}, "critical"),
        ({"of": "{labels.severity}", "map": {"info": "low"}}, None),
        ({"of": "{missing}", "map": {}, "else": "{labels.severity}"}, "page"),
        ({"of": "{ok}", "map": {"false": "firing"}}, "firing"),
        ("{labels.severity.deeper}", None),
        ("{at:time}", "2026-11-21T10:54:10.000Z"),
    ],
)
def test_expressions(expression: Any, value: Any) -> None:
    template.check(expression, "here")
    assert evaluate(expression, SCOPE).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-11-21T10:54:10.123456789123Z", "2026-11-21T10:54:10.123Z"),
        ("2026-11-21T10:54:10.985+0000", "2026-11-21T10:54:10.985Z"),
        ("2026-11-21 10:54:10", "2026-11-21T10:54:10.000Z"),
        ("2026-11-21T11:54:10+01:00", "2026-11-21T10:54:10.000Z"),
        (1795258450, "2026-11-21T10:54:10.000Z"),
        (1795258450.5, "2026-11-21T10:54:10.500Z"),
        ("1795258450123", "2026-11-21T10:54:10.123Z"),
        (1795258450123456, "2026-11-21T10:54:10.123Z"),
        ("1795258450123456789", "2026-11-21T10:54:10.123Z"),
        ("0001-01-01T00:00:00Z", None),
        ("yesterday", None),
        (-1, None),
        (True, None),
        ({}, None),
    ],
)
def test_times_of_every_kind(text: Any, value: str | None) -> None:
    assert FILTERS["time"][0](text) == value


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON)
@settings(max_examples=200, deadline=None)
def test_no_filter_ever_fails(value: Any) -> None:
    for function, _ in FILTERS.values():
        function(value)


def test_filling_leaves_out_what_yields_nothing() -> None:
    shape = {"a": "{labels.severity}", "b": "{missing}", "c": ["{n}", "{missing}"], "d": 7}
    assert fill(shape, SCOPE) == {"a": "page", "c": [0], "d": 7}


GOOD = """
title = "T"
about = "a"
sources = ["https://a.example"]
setup = "s"
auth = "key"
retry = "r"
state = "s"
[[route]]
method = "POST"
path = "/x"
[answer.taken]
status = 200
[answer.refused]
status = 400
[[event]]
source = "x"
type = "{t}"
title = "{t}"
id = "content"
"""


def test_the_smallest_mapping_is_read() -> None:
    connector = registry.parse("x", GOOD, {})
    assert connector.rules[0].fields["type"] == "{t}"


@pytest.mark.parametrize(
    ("old", "new", "where", "rule"),
    [
        ('title = "T"\n', "title = T\n", "x/mapping.toml", "not TOML"),
        ('about = "a"\n', "", "about", "required"),
        ('about = "a"\n', 'about = "a"\nabuot = "a"\n', "abuot", "unknown key"),
        ('auth = "key"', 'auth = "magic"', "auth", "unknown style"),
        ('auth = "key"', 'auth = "key"\nreader = "xml"', "reader", "unknown reader"),
        ("[answer.refused]", "[answer.rejected]", "answer.rejected", "no kind of answer"),
        ("status = 400", "state = 400", "answer.refused.status", "required"),
        ('type = "{t}"', 'type = "{t"', "event[0].type", "a brace stands alone"),
        ('type = "{t}"', 'type = "{t:upper}"', "event[0].type", "no filter"),
        ('type = "{t}"', 'type = "{t..u}"', "event[0].type", "no path"),
        ('type = "{t}"', 'type = { off = "{t}" }', "event[0].type", "not {of, map, else}"),
        ('type = "{t}"', 'typ = "{t}"', "event[0].typ", "unknown key"),
        ('type = "{t}"\n', "", "event[0].type", "required"),
        ('id = "content"', 'id = "content"\nuse = "other"', "event[0].use", "no such shared rule"),
        ('id = "content"', 'id = "content"\ntags = ["labels"]', "event[0].tags", "not a table"),
        ('id = "content"', 'id = "content"\n[event.require]\nt = "text"', "event[0].require.t", "no kind"),
    ],
)
def test_a_wrong_mapping_is_told_where_and_how(old: str, new: str, where: str, rule: str) -> None:
    assert old in GOOD
    with pytest.raises(MappingError) as caught:
        registry.parse("x", GOOD.replace(old, new, 1), {})
    assert where in caught.value.where
    assert rule in caught.value.rule
    assert caught.value.fix


def _made(fields: dict[str, Any], item: Any, now: int = 1_795_258_450_000) -> dict[str, Any]:
    table = {"source": "s", "type": "t", "title": "x", "id": "content", **fields}
    rule = mapping.read_rule(table, {}, "here")
    return mapping.make(rule, Scope(item, item, {}), now).event


def test_what_does_not_fit_a_field_is_kept_in_extras() -> None:
    item = {
        "title": "x" * 2000,
        "source": "a" * 300,
        "tags": {"ok": "yes", "long": "v" * 300, "n": 7, "deep": {"a": 1}},
        "metrics": {"m": 1.5, "word": "high", "flag": True},
        "url": "javascript:alert(1)",
        "severity": 1.5,
        "status": "odd",
        "at": "2020-01-01T00:00:00Z",
    }
    event = _made(
        {
            "source": "{source}",
            "title": "{title}",
            "tags": {"*": ["tags"]},
            "metrics": {"*": ["metrics"]},
            "links": [{"href": "{url}"}],
            "severity_raw": "{severity}",
            "status": "{status}",
            "occurred_at": "{at:time}",
        },
        item,
    )
    assert len(event["title"]) == 1024
    assert len(event["source"]) == 256
    assert event["tags"] == {"ok": "yes", "long": "v" * 256, "n": "7"}
    assert event["metrics"] == {"m": 1.5}
    assert not {"links", "severity_raw", "status", "occurred_at"} & event.keys()
    rest = event["extras"]
    assert rest["title"] == item["title"]
    assert rest["source"] == item["source"]
    assert rest["tags"] == {"long": "v" * 300, "n": 7, "deep": {"a": 1}}
    assert rest["metrics"] == {"word": "high", "flag": True}
    assert (rest["url"], rest["severity"], rest["status"], rest["at"]) == tuple(
        item[name] for name in ("url", "severity", "status", "at")
    )


def test_a_blank_title_is_none_and_is_kept() -> None:
    event = _made({"title": "{a}"}, {"a": "  "})
    assert (event["title"], event["extras"]) == ("t", {"a": "  "})


def test_long_names_stay_apart() -> None:
    one, other = (_made({"source": "{s}"}, {"s": "a" * 300 + end})["source"] for end in "xy")
    assert one != other
    assert len(one) == len(other) == 256


def test_content_ids_follow_the_content_and_receipts_the_time() -> None:
    for kind, same in (("content", True), ("receipt", False)):
        ids = {_made({"id": kind}, {"a": 1}, now)["id"] for now in (1_795_258_450_000, 1_795_258_451_000)}
        assert (len(ids) == 1) is same


def test_a_time_decides_only_within_its_bounds() -> None:
    now = 1_795_258_450_000
    for apart, kept in ((0, True), (-29 * clock.DAY, True), (-31 * clock.DAY, False), (2 * clock.DAY, False)):
        event = _made({"occurred_at": "{at:time}"}, {"at": clock.rfc3339(now + apart)}, now)
        assert ("occurred_at" in event) is kept


def test_places_in_arrays_stay() -> None:
    event = _made({"body": "{list[1]}"}, {"list": ["a", "b", "c"]})
    assert event["body"] == "b"
    assert event["extras"]["list"] == ["a", None, "c"]
