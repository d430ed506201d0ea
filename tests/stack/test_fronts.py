"""What senders write comes back as written, through both fronts and every media type they may use."""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import pytest
from tests.stack.conftest import Deployed, Reply, eventually

pytestmark = pytest.mark.stack

Json = dict[str, Any]
FRONTS = {"rest": "api_url", "url": "bulk_url"}
#: One title per class of text that is easily broken on the way.
TITLES = {
    "ascii": "Disk of db-1 is full",
    "latin": "Störung im Çay-Gerät, naïve façade",
    "two-byte": "Ошибка оплаты ελλάδα עברית العربية",
    "three-byte": "支払いが遅い 결제 지연 ไทย",
    "emoji": "🔥 payments 🧨 on fire 𝒟𝒷",
    "joined emoji": "family 👩‍👩‍👧‍👦 flag 🇩🇪 skin 👍🏽",
    "composed": unicodedata.normalize("NFC", "café Å ﬁ"),
    "decomposed": unicodedata.normalize("NFD", "café Å"),
    "line separators": "one\u2028two\u2029three\u0085four",
    "line ends": "one\r\ntwo\nthree\tfour",
    "quotes": 'say "it\'s" \\ `now` </script> & <b>',
    "looks escaped": "\\u0041 %41 &amp; =?utf-8?q?x?= \\ud83d",
    "zero width": "a\u200bb\u200dc\ufeffd\u00ade",
    "direction": "a\u202eb\u2066c\u2069d",
    "private and last": "\ue000 \U0010ffff \ufffd \ufffe",
    "controls": "bell \x07 escape \x1b[31m delete \x7f",
    "blanks": "  two\u00a0blanks\u3000wide  ",
}


def event(name: str, title: str) -> Json:
    return {
        "id": f"t-{name.replace(' ', '.')}",
        "source": "fronts",
        "type": "text",
        "title": title,
        "body": title * 3,
        "tags": {"said": title},
        "extras": {"k " + "é🔥": [title, {"n": 1.5}]},
        "severity_raw": "info",
    }


def cloudevent(name: str, title: str) -> Json:
    sent = event(name, title)
    head = {key: sent.pop(key) for key in ("id", "source", "type")}
    return {"specversion": "1.0", **head, "datacontenttype": "application/json", "data": sent}


def js(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


def lines(values: Iterable[Any]) -> bytes:
    return b"\n".join(map(js, values)) + b"\n"


#: Media type → bodies that together carry every title.
BODIES: dict[str, list[bytes]] = {
    "application/json": [js([event(*one) for one in TITLES.items()])],
    "application/x-ndjson": [lines(event(*one) for one in TITLES.items())],
    "application/ndjson": [lines(event(*one) for one in TITLES.items())],
    "application/jsonl": [lines(event(*one) for one in TITLES.items())],
    "application/cloudevents+json": [js(cloudevent(*one)) for one in TITLES.items()],
    "application/cloudevents-batch+json": [js([cloudevent(*one) for one in TITLES.items()])],
}


def accepted(reply: Reply, count: int) -> list[str]:
    assert reply.status == 202, reply
    assert reply.body["data"]["accepted"] == count
    return [item["event_id"] for item in reply.body["data"]["items"]]


def kept(deployed: Deployed, key: str, project: str, count: int) -> dict[str, Json]:
    """Stored events of a project by sender id."""
    eventually(lambda: deployed.stored(project) == count)
    items = deployed.get("/v1/events?limit=100", key)["items"]
    return {item["id"]: item for item in items}


def check(stored: dict[str, Json], titles: dict[str, str] = TITLES, **attributes: str) -> None:
    """Every field as written. A CloudEvent keeps its attributes, and of its data what no field takes, in extras."""
    assert len(stored) == len(titles)
    for name, title in titles.items():
        wanted = event(name, title)
        if attributes:
            wanted["extras"] = {**attributes, "data": {"extras": wanted["extras"]}}
        got = stored[wanted["id"]]
        assert {field: got[field] for field in wanted} == wanted, name


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("media", BODIES)
@pytest.mark.parametrize("front", FRONTS)
def test_what_is_sent_is_what_is_stored(deployed: Deployed, front: str, media: str, packed: bool) -> None:
    if front == "url" and packed and media != "application/x-ndjson":
        refuse_packed(deployed, media)
        return
    project, key = deployed.new_project()
    headers = {"Content-Type": media, **({"Content-Encoding": "gzip"} if packed else {})}
    bodies = [gzip.compress(body) if packed else body for body in BODIES[media]]
    for body in bodies:
        reply = deployed.raw("POST", "/v1/events", body, headers, key=key, base=FRONTS[front])
        accepted(reply, len(TITLES) // len(bodies))
    attributes = {"datacontenttype": "application/json"} if "cloudevents" in media else {}
    check(kept(deployed, key, project, len(TITLES)), **attributes)


def refuse_packed(deployed: Deployed, media: str) -> None:
    """The Function URL says what to do instead, and takes nothing."""
    project, key = deployed.new_project()
    before = deployed.depth()
    headers = {"Content-Type": media, "Content-Encoding": "gzip"}
    reply = deployed.raw("POST", "/v1/events", gzip.compress(BODIES[media][0]), headers, key=key, base="bulk_url")
    assert (reply.status, reply.body["error"]["code"]) == (415, "ERR_CONTENT_TYPE")
    (detail,) = reply.body["error"]["details"]
    assert "application/x-ndjson" in detail["fix"]
    assert deployed.depth() <= before
    assert deployed.stored(project) == 0


@pytest.mark.parametrize("front", FRONTS)
def test_binary_cloudevents_with_their_content_type(deployed: Deployed, front: str) -> None:
    project, key = deployed.new_project()
    for name, title in TITLES.items():
        sent = event(name, title)
        headers = {f"ce-{field}": sent.pop(field) for field in ("id", "source", "type")}
        headers |= {"ce-specversion": "1.0", "ce-region": quote("Köln 🔥"), "Content-Type": "application/json"}
        reply = deployed.raw("POST", "/v1/events", js(sent), headers, key=key, base=FRONTS[front])
        accepted(reply, 1)
    stored = kept(deployed, key, project, len(TITLES))
    check(stored, datacontenttype="application/json", region="Köln 🔥")


@pytest.mark.parametrize("front", FRONTS)
def test_binary_cloudevents_without_content_type(deployed: Deployed, front: str) -> None:
    project, key = deployed.new_project()
    heads = {"ce-specversion": "1.0", "ce-source": "fronts", "ce-type": "text"}
    empty = deployed.raw("POST", "/v1/events", b"", heads | {"ce-id": "empty"}, key=key, base=FRONTS[front])
    accepted(empty, 1)
    body = js({"title": "plain ASCII", "metrics": {"n": 1}})
    full = deployed.raw("POST", "/v1/events", body, heads | {"ce-id": "full"}, key=key, base=FRONTS[front])
    accepted(full, 1)
    stored = kept(deployed, key, project, 2)
    assert stored["empty"]["title"] == "text"
    assert (stored["full"]["title"], stored["full"]["metrics"]) == ("plain ASCII", {"n": 1})


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize(
    "media",
    [
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
        "Application/JSON",
        "application/json; charset=utf8; x=y",
        "application/x-ndjson; charset=utf-8",
    ],
)
def test_ways_to_write_the_content_type(deployed: Deployed, front: str, media: str) -> None:
    project, key = deployed.new_project()
    body = js(event("emoji", TITLES["emoji"]))
    reply = deployed.raw("POST", "/v1/events", body, {"Content-Type": media}, key=key, base=FRONTS[front])
    accepted(reply, 1)
    check(kept(deployed, key, project, 1), {"emoji": TITLES["emoji"]})


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-16", "us-ascii", "windows-1252"])
def test_other_charsets_are_refused(deployed: Deployed, front: str, charset: str) -> None:
    _, key = deployed.new_project()
    headers = {"Content-Type": f"application/json; charset={charset}"}
    reply = deployed.raw("POST", "/v1/events", js(event("a", "b")), headers, key=key, base=FRONTS[front])
    assert (reply.status, reply.body["error"]["code"]) == (415, "ERR_CONTENT_TYPE")


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events:batch", "/events"])
@pytest.mark.parametrize("front", FRONTS)
def test_an_array_and_one_event_on_every_address(deployed: Deployed, front: str, path: str) -> None:
    project, key = deployed.new_project()
    headers = {"Content-Type": "application/json"}
    two = [event("a", TITLES["emoji"]), event("b", TITLES["latin"])]
    first = accepted(deployed.raw("POST", path, js(two), headers, key=key, base=FRONTS[front]), 2)
    one = event("c", TITLES["quotes"])
    last = accepted(deployed.raw("POST", path, js(one), headers, key=key, base=FRONTS[front]), 1)
    stored = kept(deployed, key, project, 3)
    assert [stored[f"t-{name}"]["event_id"] for name in "abc"] == [*first, *last]


def test_both_fronts_name_the_same_event_alike(deployed: Deployed) -> None:
    project, key = deployed.new_project()
    headers = {"Content-Type": "application/json"}
    body = js(event("emoji", TITLES["emoji"]))
    rest = accepted(deployed.raw("POST", "/v1/events", body, headers, key=key), 1)
    kept(deployed, key, project, 1)
    again = deployed.raw("POST", "/v1/events", body, headers, key=key, base="bulk_url")
    assert [(one["event_id"], one["status"]) for one in again.body["data"]["items"]] == [(rest[0], "duplicate")]


@pytest.mark.parametrize("front", FRONTS)
def test_both_fronts_authenticate_and_answer_in_one_shape(deployed: Deployed, front: str) -> None:
    _, key = deployed.new_project()
    base, body, headers = FRONTS[front], js(event("a", "b")), {"Content-Type": "application/json"}
    for credentials, wanted in (
        ({}, (401, "ERR_AUTH_MISSING")),
        ({"X-Api-Key": key[:-1] + ("a" if key[-1] != "a" else "b")}, (401, "ERR_AUTH_INVALID")),
        ({"X-Api-Key": key, "Authorization": "Bearer tcn_live_x"}, (400, "ERR_AUTH_AMBIGUOUS")),
        ({"Authorization": "Basic dTpw"}, (401, "ERR_AUTH_INVALID")),
        ({"X-Api-Key": deployed.new_key("t" + "0" * 16, "events:read")}, (403, "ERR_SCOPE")),
    ):
        reply = deployed.raw("POST", "/v1/events", body, {**headers, **credentials}, base=base)
        assert (reply.status, reply.body["error"]["code"]) == wanted
        assert reply.body["error"].keys() == {"code", "message", "details", "trace_id"}
        assert reply.headers["content-type"] == "application/json; charset=utf-8"
        assert reply.headers["x-content-type-options"] == "nosniff"
    for credentials in ({"Authorization": f"Bearer {key}"}, {"X-Api-Key": key, "Authorization": f"bearer {key}"}):
        assert deployed.raw("POST", "/v1/events", body, {**headers, **credentials}, base=base).status == 202


@pytest.mark.parametrize("front", FRONTS)
def test_nul_is_stored_nowhere_a_name_is_kept(deployed: Deployed, front: str) -> None:
    project, key = deployed.new_project()
    before = deployed.depth()
    headers = {"Content-Type": "application/json"}
    for field in ("id", "source", "type", "dedup_key"):
        broken = event("nul", "x") | {field: "a\0b"}
        reply = deployed.raw("POST", "/v1/events", js(broken), headers, key=key, base=FRONTS[front])
        assert (reply.status, reply.body["error"]["code"]) == (400, "ERR_SCHEMA"), field
    raw = js(event("nul", "a?b")).replace(b"a?b", b"a\0b")
    reply = deployed.raw("POST", "/v1/events", raw, headers, key=key, base=FRONTS[front])
    assert (reply.status, reply.body["error"]["code"]) == (400, "ERR_JSON_SYNTAX")
    assert deployed.depth() <= before
    assert deployed.stored(project) == 0
