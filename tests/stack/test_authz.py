"""Attacks on keys, tokens, signatures, approvals and limits over HTTP, each with the status and code it must meet.

The letters are those of the attack list the project keeps; what concerns ids of other projects is test_isolation.py.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.stack.conftest import Deployed, Reply, eventually

from tocsin.access.keys import mint
from tocsin.access.signatures import sign
from tocsin.kernel.clock import now_ms, rfc3339
from tocsin.kernel.http import Request
from tocsin.routes import OPEN_PATHS

pytestmark = pytest.mark.stack
Attack = Callable[["World"], Reply]
ADMIN = ("admin:*", "approvals:*", "tokens:*", "events:*", "incidents:*", "ingest:write")
EVENT = {"id": "e-1", "source": "s", "type": "t", "title": "x"}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass(frozen=True)
class World:
    """A project with an administrator's key, and what it takes to attack it."""

    deployed: Deployed
    project: str
    key: str

    def call(self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str) -> Reply:
        return self.deployed.call(method, path, body, key=key or self.key, **headers)

    def made(self, path: str, body: Any, key: str | None = None) -> Any:
        return self.deployed.made(path, body, key or self.key)

    def bearer(self, text: str, path: str = "/v1/events", **headers: str) -> Reply:
        return self.deployed.call("GET", path, Authorization=f"Bearer {text}", **headers)

    # tokens
    def token(self, **body: Any) -> str:
        return str(self.made("/v1/tokens", body)["token"])

    def forged(self, header: Any = None, claims: Any = None, signed: bool = True) -> str:
        """A token whose header and claims are changed (dicts) or replaced (text), signed with the true key or not."""
        head, body, signature = self.token().split(".")
        parts = []
        for part, change in ((head, header), (body, claims)):
            told = json.loads(base64.urlsafe_b64decode(part + "=="))
            text = change if isinstance(change, str) else json.dumps({**told, **(change or {})})
            parts.append(b64(text.encode()))
        bare = ".".join(parts)
        if not signed:
            return f"{bare}.{signature}"
        seed = hmac.new(self.deployed.secret("TokenSecretArn"), b"tocsin:token-key:1", hashlib.sha256).digest()
        return f"{bare}.{b64(Ed25519PrivateKey.from_private_bytes(seed).sign(bare.encode()))}"

    def twice(self, member: str) -> str:
        """A truly signed token with one claim given twice."""
        body = self.token().split(".")[1]
        text = base64.urlsafe_b64decode(body + "==").decode()
        return self.forged(claims=text[:-1] + f',"{member}":"admin:*"}}')

    # signatures
    def signed(self, created: int | None = None, method: str = "POST", **changes: str) -> tuple[bytes, dict[str, str]]:
        """Body and headers of a signed POST of one event."""
        made = self.made("/v1/keys", {"signing": True})
        body = json.dumps({**EVENT, "id": secrets.token_hex(8)}).encode()
        host = urlsplit(self.deployed.contract["api_url"]).netloc
        headers = {"host": (host,), "content-type": ("application/json",)}
        request = Request(method, "/v1/events", "", "", headers, {}, {}, body)
        at = int(time.time()) if created is None else created
        nonce = secrets.token_hex(16)
        key_id = changes.pop("key_id", made["id"])
        return body, sign(request, made["signing_secret"], key_id, at, nonce) | changes

    def sent(
        self, body: bytes, headers: dict[str, str], path: str = "/v1/events", kind: str = "application/json"
    ) -> Reply:
        return self.deployed.raw("POST", path, body, {"Content-Type": kind, **headers})

    # approvals
    def asked(self, key: str | None = None) -> Any:
        path = f"/v1/projects/{self.project}"
        request = {"method": "PATCH", "path": path, "body": {"settings": {"redaction": "off"}}}
        return self.made("/v1/approvals", {"request": request}, key)

    def decided(self, approval: Any, key: str, word: str = "approve") -> Reply:
        return self.call("POST", f"/v1/approvals/{approval['id']}/{word}", {}, key)

    def switched_off(self, approval: Any, key: str | None = None, **body: Any) -> Reply:
        sent = {"settings": {"redaction": "off"}, **body}
        return self.call("PATCH", f"/v1/projects/{self.project}", sent, key, X_Approval=approval["id"])


@pytest.fixture
def world(deployed: Deployed) -> World:
    project, key = deployed.new_project(*ADMIN)
    return World(
        replace(deployed, source=f"2001:db8:{secrets.randbits(16):x}:{secrets.randbits(16):x}::1"), project, key
    )


def refused(reply: Reply) -> tuple[int, str]:
    assert reply.headers["content-type"] == "application/json; charset=utf-8", reply
    assert reply.body["error"].keys() == {"code", "message", "details", "trace_id"}
    return reply.status, reply.body["error"]["code"]


def _other_env(_: World) -> str:
    return mint("test")[0]


def _stale(world: World, created: int | None, **changes: str) -> Reply:
    body, headers = world.signed(created)
    for name, value in changes.items():
        headers = {field: text.replace(name, value) for field, text in headers.items()}
    return world.sent(body, headers)


def _resigned(world: World, old: str, new: str) -> Reply:
    body, headers = world.signed()
    assert old in headers["signature-input"]
    return world.sent(body, {**headers, "signature-input": headers["signature-input"].replace(old, new)})


def _two_signatures(world: World) -> Reply:
    body, headers = world.signed()
    more = {name: f"{headers[name]}, {headers[name].replace('tocsin=', 'evil=', 1)}" for name in headers}
    return world.sent(body, {**headers, **{name: more[name] for name in ("signature", "signature-input")}})


def _key_of_another_project(world: World) -> Reply:
    _, stranger = world.deployed.new_project(*ADMIN)
    other = world.deployed.made("/v1/keys", {"signing": True}, stranger)
    return world.sent(*world.signed(key_id=other["id"]))


def _self_approval_by_second_key_of_a_person(world: World) -> Reply:
    scopes = ["approvals:*", "admin:*"]
    person = world.made("/v1/people", {"name": "Ada", "scopes": scopes})
    one, two = (world.made("/v1/keys", {"scopes": scopes, "owner": person["id"]})["key"] for _ in range(2))
    return world.decided(world.asked(one), two)


def _self_approval_by_a_key_of_the_requester(world: World) -> Reply:
    return world.decided(world.asked(), world.made("/v1/keys", {"scopes": ["approvals:*"]})["key"])


def _approval(world: World) -> tuple[Any, str]:
    """An approved approval, and the approver's key."""
    other, asked = world.deployed.new_key(world.project, *ADMIN), world.asked()
    assert world.decided(asked, other).status == 200
    return asked, other


def _approval_for_another_request(world: World) -> Reply:
    return world.switched_off(_approval(world)[0], name="another name")


def _approval_used_twice(world: World) -> Reply:
    approval, _ = _approval(world)
    assert world.switched_off(approval).status == 200
    return world.switched_off(approval)


def _approver_without_the_role(world: World) -> Reply:
    approval, other = _approval(world)
    keys = world.deployed.get("/v1/keys", world.key)["items"]
    theirs = next(one["id"] for one in keys if other.startswith(one["prefix"]))
    assert world.call("DELETE", f"/v1/keys/{theirs}").status == 200
    return world.switched_off(approval)


def _admin_token(world: World, body: Any, path: str = "/v1/tokens/keys/rotate", key: str | None = None) -> str:
    request = {"method": "POST", "path": path, "body": body}
    return str(world.made("/v1/tokens", {"request": request}, key)["token"])


def _rotate(world: World, token: str | None, body: Any, key: str | None = None) -> Reply:
    headers = {"X_Admin_Token": token} if token else {}
    return world.call("POST", "/v1/tokens/keys/rotate", body, key, **headers)


def _admin_token_twice(world: World) -> Reply:
    admin = world.deployed.contract["admin_key"]
    token = _admin_token(world, {}, key=admin)
    assert _rotate(world, token, {}, admin).status == 201
    return _rotate(world, token, {}, admin)


def _role_removed(world: World) -> Reply:
    person = world.made("/v1/people", {"name": "Ada", "scopes": ["admin:*", "tokens:*"]})
    key = world.made("/v1/keys", {"scopes": ["admin:*", "tokens:*"], "owner": person["id"]})["key"]
    token = world.made("/v1/tokens", {}, key)["token"]
    assert world.bearer(token, "/v1/keys").status == 200
    assert world.call("PATCH", f"/v1/people/{person['id']}", {"scopes": ["tokens:*"]}).status == 200
    return world.bearer(token, "/v1/keys")


def _change_own_key(world: World, body: Any) -> Reply:
    keys = world.deployed.get("/v1/keys", world.key)["items"]
    return world.call("PATCH", f"/v1/keys/{keys[0]['id']}", body)


def _subject(world: World) -> Reply:
    """Ask for the pseudonym of an address that is guessed."""
    limited = world.made("/v1/keys", {"scopes": ["events:*", "incidents:*", "ingest:write"]})["key"]
    return world.call("POST", f"/v1/projects/{world.project}/subjects", {"value": "ada@example.com"}, limited)


def _channel(url: str) -> Attack:
    def attack(world: World) -> Reply:
        key = world.deployed.new_key(world.project, "notify:*")
        return world.call("POST", "/v1/channels", {"kind": "webhook", "name": "probe", "url": url}, key)

    return attack


def _scopes(value: Any) -> Attack:
    def attack(world: World) -> Reply:
        limited = world.made("/v1/keys", {"scopes": ["admin:write"]})["key"]
        return world.call("POST", "/v1/keys", {"scopes": value}, limited)

    return attack


INVALID, AMBIGUOUS, SCHEMA = (401, "ERR_AUTH_INVALID"), (400, "ERR_AUTH_AMBIGUOUS"), (400, "ERR_SCHEMA")
READONLY, SIGNATURE, STALE = (400, "ERR_READONLY_FIELD"), (401, "ERR_SIG_INVALID"), (401, "ERR_SIG_TIME")
SELF, USED, NO_ADMIN = (403, "ERR_SELF_APPROVAL"), (409, "ERR_APPROVAL_USED"), (403, "ERR_ADMIN_TOKEN")

EGRESS = (400, "ERR_EGRESS_DENIED")

ATTACKS: dict[str, tuple[tuple[int, str], Attack]] = {
    "A01 no credential": ((401, "ERR_AUTH_MISSING"), lambda w: w.deployed.call("GET", "/v1/events")),
    "A03 bad check": (INVALID, lambda w: w.call("GET", "/v1/events", key=w.key[:-1] + "ab"[w.key[-1] == "a"])),
    "A03 wrong length": (INVALID, lambda w: w.call("GET", "/v1/events", key=w.key + "x")),
    "A03 wrong alphabet": (INVALID, lambda w: w.call("GET", "/v1/events", key=w.key[:-1] + "-")),
    "A03 a long key": (INVALID, lambda w: w.call("GET", "/v1/events", key="tcn_live_" + "a" * 5000)),
    "A03 a key nobody made": (INVALID, lambda w: w.call("GET", "/v1/events", key=mint("live")[0])),
    "A07 a test key": ((401, "ERR_AUTH_ENV"), lambda w: w.call("GET", "/v1/events", key=_other_env(w))),
    "A09 two keys": (AMBIGUOUS, lambda w: w.bearer(mint("live")[0], X_Api_Key=w.key)),
    "A09 a key and a token": (AMBIGUOUS, lambda w: w.bearer(w.token(), X_Api_Key=w.key)),
    "A09 a key and a signature": (AMBIGUOUS, lambda w: w.sent(*[w.signed()[0], {**w.signed()[1], "X-Api-Key": w.key}])),
    "A11 admin by who is none": (SCHEMA, _scopes(["admin:*"])),
    "A11 two scopes in one text": (SCHEMA, _scopes(["events:*,admin:*"])),
    "A11 a verb that is none": (SCHEMA, _scopes(["events:writeX"])),
    "A11 a look-alike": (SCHEMA, _scopes(["\u0430dmin:write"])),
    "A11 a prefix without its part": (SCHEMA, _scopes(["publish:"])),
    "A11 one text for a list": (SCHEMA, _scopes("admin:write")),
    "A11 more than the maker holds": (SCHEMA, _scopes(["admin:write", "events:read"])),
    "A13 own scopes": (READONLY, lambda w: _change_own_key(w, {"scopes": ["admin:*"]})),
    "A13 own project": (READONLY, lambda w: _change_own_key(w, {"project": "other"})),
    "A13 own rate": (READONLY, lambda w: _change_own_key(w, {"rate": 10**6})),
    "A13 own quota": (READONLY, lambda w: w.call("PATCH", f"/v1/projects/{w.project}", {"quota": {"events_burst": 9}})),
    "A13 a key born used": (READONLY, lambda w: w.call("POST", "/v1/keys", {"last_used_at": "x"})),
    "A25 alg none": (INVALID, lambda w: w.bearer(w.forged({"alg": "none"}, signed=False))),
    "A25 alg NoNe without signature": (INVALID, lambda w: w.bearer(w.forged({"alg": "NoNe"}).rpartition(".")[0] + ".")),
    "A25 a public key as HMAC key": (INVALID, lambda w: w.bearer(w.forged({"alg": "HS256"}))),
    "A27 jwk": (INVALID, lambda w: w.bearer(w.forged({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}}))),
    "A27 jku": (INVALID, lambda w: w.bearer(w.forged({"jku": "https://evil.example/keys"}))),
    "A27 x5u": (INVALID, lambda w: w.bearer(w.forged({"x5u": "https://evil.example/cert"}))),
    "A29 crit": (INVALID, lambda w: w.bearer(w.forged({"crit": ["exp"]}))),
    "A29 b64 false": (INVALID, lambda w: w.bearer(w.forged({"b64": False, "crit": ["b64"]}))),
    "A31 another audience": (INVALID, lambda w: w.bearer(w.forged(claims={"aud": "tocsin:other"}))),
    "A31 no issuer": (INVALID, lambda w: w.bearer(w.forged(claims={"iss": None}))),
    "A31 a list of issuers": (INVALID, lambda w: w.bearer(w.forged(claims={"iss": ["tocsin:tocsin:live"]}))),
    "A33 a claim twice": (INVALID, lambda w: w.bearer(w.twice("scope"))),
    "A35 five parts": (INVALID, lambda w: w.bearer(w.token() + ".a.b")),
    "A35 JSON serialisation": (INVALID, lambda w: w.bearer('{"payload":"","signatures":[]}.')),
    "A35 claims of another person": (INVALID, lambda w: w.bearer(w.forged(claims={"cid": "key_" + "0" * 12}))),
    "an expired token": (INVALID, lambda w: w.bearer(w.forged(claims={"iat": 1, "nbf": 1, "exp": 800}))),
    "an admin token as access token": (INVALID, lambda w: w.bearer(_admin_token(w, {}))),
    "A37 an admin token twice": ((401, "ERR_AUTH_REPLAY"), _admin_token_twice),
    "A39 a role that was removed": ((403, "ERR_SCOPE"), _role_removed),
    "A41 created 61 s ago": (STALE, lambda w: _stale(w, int(time.time()) - 61)),
    "A41 created 65 s ahead": (STALE, lambda w: _stale(w, int(time.time()) + 65)),
    "A43 another path": (SIGNATURE, lambda w: w.sent(*w.signed(), path="/v1/events:batch")),
    "A43 a query": (SIGNATURE, lambda w: w.sent(*w.signed(), path="/v1/events?x=1")),
    "A43 another method": (SIGNATURE, lambda w: w.sent(*w.signed(method="PUT"))),
    "A43 another content type": (SIGNATURE, lambda w: w.sent(*w.signed(), kind="application/x-ndjson")),
    "A43 another body": (SIGNATURE, lambda w: w.sent(b"{}", w.signed()[1])),
    "A45 another algorithm": (SIGNATURE, lambda w: _resigned(w, "hmac-sha256", "ed25519")),
    "A45 a key of another project": (SIGNATURE, _key_of_another_project),
    "A45 two signatures": (SIGNATURE, _two_signatures),
    "A57 a second key of the same person": (SELF, _self_approval_by_second_key_of_a_person),
    "A57 a key that the requester made": (SELF, _self_approval_by_a_key_of_the_requester),
    "A57 the requester": (SELF, lambda w: w.decided(w.asked(), w.key)),
    "A59 an approval of another request": (USED, _approval_for_another_request),
    "A59 an approval twice": (USED, _approval_used_twice),
    "A61 an approver without the role": ((403, "ERR_SCOPE"), _approver_without_the_role),
    "no approval": (
        (403, "ERR_APPROVAL_REQUIRED"),
        lambda w: w.call("PATCH", f"/v1/projects/{w.project}", {"settings": {"redaction": "off"}}),
    ),
    "A63 no credential": ((401, "ERR_AUTH_MISSING"), lambda w: w.deployed.call("POST", "/v1/tokens/keys/rotate", {})),
    "A63 no admin token": (NO_ADMIN, lambda w: _rotate(w, None, {})),
    "A63 an admin token of another request": (
        NO_ADMIN,
        lambda w: _rotate(w, _admin_token(w, {"compromised": True}), {}),
    ),
    "A63 an access token as admin token": (NO_ADMIN, lambda w: _rotate(w, w.token(), {})),
    "token keys by who is no operator": ((403, "ERR_SCOPE"), lambda w: _rotate(w, _admin_token(w, {}), {})),
    "a token for a token": (
        (403, "ERR_SCOPE"),
        lambda w: w.deployed.call("POST", "/v1/tokens", {}, Authorization=f"Bearer {w.token()}"),
    ),
    "A65 the metadata address": (EGRESS, _channel("https://169.254.169.254/latest/meta-data")),
    "A65 a private address": (EGRESS, _channel("https://10.0.0.7/hook")),
    "A65 loopback in another spelling": (EGRESS, _channel("https://0x7f000001/hook")),
    "A77 a pseudonym by guessing": ((403, "ERR_SCOPE"), _subject),
    "A75 another origin": ((403, "ERR_ORIGIN"), lambda w: w.call("GET", "/v1/keys", Origin="https://evil.example")),
    "A75 no origin": ((403, "ERR_ORIGIN"), lambda w: w.call("GET", "/v1/keys", Origin="null")),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_meets_its_refusal(world: World, name: str) -> None:
    expected, attack = ATTACKS[name]
    reply = attack(world)
    assert refused(reply) == expected, reply
    assert "access-control-allow-origin" not in reply.headers
    if expected[0] == 401:
        assert reply.headers["www-authenticate"].startswith("Bearer")


def test_what_is_attacked_works_when_it_is_used_well(world: World) -> None:
    assert world.bearer(world.token(scopes=["events:read"])).status == 200
    assert refused(world.bearer(world.token(scopes=["events:read"]), "/v1/incidents")) == (403, "ERR_SCOPE")
    assert world.call("GET", "/v1/events", key=f"  {world.key} ").status == 200
    body, headers = world.signed()
    assert world.sent(body, headers).status == 202
    assert refused(world.sent(body, headers)) == (401, "ERR_AUTH_REPLAY")
    approval, _ = _approval(world)
    assert world.switched_off(approval).body["data"]["settings"]["redaction"] == "off"
    shown = world.deployed.get(f"/v1/approvals/{approval['id']}", world.key)
    assert shown["status"] == "used"


def test_a_key_is_shown_once_and_never_again(world: World) -> None:
    made = world.made("/v1/keys", {"name": "k", "signing": True})
    text, secret = made["key"], made["signing_secret"]
    for path in (f"/v1/keys/{made['id']}", "/v1/keys"):
        shown = json.dumps(world.deployed.get(path, world.key))
        assert text not in shown
        assert secret not in shown
        assert made["prefix"] in shown
    assert world.call("POST", "/v1/events", EVENT, text).status == 202
    used = eventually(lambda: world.deployed.get(f"/v1/keys/{made['id']}", world.key)["last_used_at"])
    assert used >= made["created_at"]


def test_a_rotated_key_and_its_successor_overlap(world: World) -> None:
    made = world.made("/v1/keys", {"name": "k"})
    after = world.made(f"/v1/keys/{made['id']}/rotate", {"overlap_s": 600})
    for text in (made["key"], after["key"]):
        assert world.call("POST", "/v1/events", EVENT, text).status == 202
    shown = world.deployed.get(f"/v1/keys/{made['id']}", world.key)
    assert rfc3339(now_ms() + 590_000) < shown["expires_at"] < rfc3339(now_ms() + 610_000)


def test_a05_a_revoked_key_ends_everywhere_within_a_minute(world: World) -> None:
    made = world.made("/v1/keys", {"scopes": ["events:read", "ingest:write", "admin:read"]})
    for method, path, body in (("GET", "/v1/events", None), ("POST", "/v1/events", EVENT), ("GET", "/v1/keys", None)):
        assert world.call(method, path, body, made["key"]).status in (200, 202)
    assert world.call("DELETE", f"/v1/keys/{made['id']}").body["data"]["revoked"] == [made["id"]]
    assert refused(world.call("GET", "/v1/keys", key=made["key"])) == (401, "ERR_AUTH_REVOKED"), "at once"
    for method, body in (("GET", None), ("POST", EVENT)):
        eventually(lambda m=method, b=body: world.call(m, "/v1/events", b, made["key"]).status == 401, 60, 1)


def test_a15_a_source_that_guesses_is_shut_and_others_are_not(world: World) -> None:
    seen = [refused(world.call("GET", "/v1/events", key=mint("live")[0])) for _ in range(60)]
    assert seen[0] == (401, "ERR_AUTH_INVALID")
    assert seen[-1] == (429, "ERR_RATE_LIMITED")
    reply = world.call("GET", "/v1/events", key=mint("live")[0])
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    elsewhere = replace(world.deployed, source="192.0.2.9")
    assert elsewhere.call("GET", "/v1/events", key=world.key).status == 200


def _tight(world: World, **quota: int) -> Any:
    """A project of the operator's making, with a quota of its own."""
    body = {"name": "tight", "quota": quota}
    return world.made("/v1/projects", body, world.deployed.contract["admin_key"])


def test_a69_a_limit_cannot_be_dodged(world: World) -> None:
    key = _tight(world, requests_per_second=1, requests_burst=2)["first_key"]["key"]
    dodges: list[dict[str, str]] = [
        {"X_Forwarded_For": "203.0.113.7"},
        {"X_HTTP_Method_Override": "POST"},
        {"Forwarded": "for=203.0.113.8"},
        {"X_Trace_Id": "another-trace"},
        {},
    ]
    replies = [world.call("GET", "/v1/events", key=key, **dodge) for dodge in dodges * 4]
    limited = [reply for reply in replies if reply.status == 429]
    assert limited
    assert {refused(reply) for reply in limited} == {(429, "ERR_RATE_LIMITED")}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in limited)


def test_events_over_the_quota_are_refused_one_by_one_and_firing_ones_last(world: World) -> None:
    key = _tight(world, events_per_second=1, events_burst=24, firing_share_percent=50)["first_key"]["key"]
    batch = [{**EVENT, "id": f"e-{n}", "severity_raw": ("info", "critical")[n % 2]} for n in range(16)]
    reply = world.call("POST", "/v1/events", batch, key)
    assert (reply.status, reply.body["error"]["code"]) == (207, "ERR_PARTIAL")
    items = reply.body["data"]["items"]
    assert {item["status"] for item in items[1::2]} == {"accepted"}
    over = [item for item in items if item["status"] == "refused"]
    assert over
    assert {item["error"]["status"] for item in over} == {429}
    assert int(reply.headers["retry-after"]) >= 1


def test_a71_usage_is_counted_from_what_was_stored(world: World) -> None:
    batch = [{**EVENT, "id": f"e-{n}"} for n in range(3)]
    for _ in range(2):
        world.deployed.send(world.key, batch)
    eventually(lambda: world.deployed.stored(world.project) == 3)
    told = world.deployed.get("/v1/usage", world.key)
    assert told["totals"]["events"] == 3
    assert told["totals"]["bytes"] > 300
    assert refused(world.call("POST", "/v1/events", {**EVENT, "usage": -5})) == (400, "ERR_SCHEMA")


def test_a19_an_item_that_names_anothers_incident_is_refused_alone_and_tells_nothing(world: World) -> None:
    """Nothing in a batch refers to incidents: a reference is an unknown field, whether its incident exists or not."""
    _, stranger = world.deployed.new_project(*ADMIN)
    told = []
    for incident in ("inc_019a9f00-0000-7000-8000-000000000002", "inc_01000000-0000-7000-8000-000000000000"):
        batch = [{**EVENT, "id": secrets.token_hex(4)}, {**EVENT, "id": "e-x", "incident_id": incident}]
        reply = world.call("POST", "/v1/events", batch, stranger)
        assert (reply.status, reply.body["error"]["code"]) == (207, "ERR_PARTIAL")
        good, bad = reply.body["data"]["items"]
        assert good["status"] == "accepted"
        told.append(bad["error"])
    assert told[0] == told[1]
    assert told[0]["status"] == 400


def test_a67_an_evasive_text_is_taken_and_its_hidden_letters_hide_no_address(world: World) -> None:
    """Recall on the evasion set is published in docs/privacy.md and held by tests/rooms/kernel/test_redaction.py."""
    text = "write to ada\u200b.evasive\uff20example.com"
    identity = world.deployed.send(world.key, {**EVENT, "id": "evasive", "body": text})[0]["event_id"]
    stored = eventually(lambda: (r := world.call("GET", f"/v1/events/{identity}")).status == 200 and r.body["data"])
    assert stored["body"] == "write to [redacted:email]"


#: What tells an attacker what runs here.
INSIDE = re.compile(
    r"arn:aws|Traceback|File \"|botocore|boto3|pydantic|powertools|python/?3|:\d{12}:|tocsin-(api|public)|/var/task",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", sorted(OPEN_PATHS - {"/docs/redoc.js"}))
def test_a73_what_is_open_says_nothing_of_what_is_inside(world: World, path: str) -> None:
    reply = world.deployed.call("GET", path)
    assert reply.status == 200
    assert not INSIDE.search(json.dumps(reply.body) + json.dumps(reply.headers)), path
    if path in ("/livez", "/readyz", "/health", "/healthz", "/ready"):
        assert reply.body["data"] == {"status": "up"}


def test_a73_errors_and_figures_say_nothing_either(world: World) -> None:
    errors = [
        world.deployed.call("GET", "/v1/metrics"),
        world.deployed.call("GET", "/v1/nothing"),
        world.deployed.call("POST", "/v1/events", {"a": object.__doc__}, key=world.key),
        world.deployed.raw("POST", "/v1/events", b"{", {"Content-Type": "application/json"}, key=world.key),
    ]
    assert [reply.status for reply in errors] == [401, 404, 400, 400]
    for reply in errors:
        refused(reply)
        assert not INSIDE.search(json.dumps(reply.body) + json.dumps(reply.headers)), reply


def test_a21_two_projects_may_use_one_event_id(world: World) -> None:
    _, other = world.deployed.new_project()
    for key in (world.key, other):
        assert world.deployed.send(key, EVENT)[0]["status"] == "accepted"


def test_redaction_follows_the_projects_settings(world: World) -> None:
    change = {"settings": {"redact_keys": ["customer_no"]}}
    assert world.call("PATCH", f"/v1/projects/{world.project}", change).status == 200

    def redacted() -> bool:
        event = {**EVENT, "id": secrets.token_hex(8), "extras": {"customer_no": "4711-0815"}}
        identity = world.deployed.send(world.key, event)[0]["event_id"]
        stored = eventually(lambda: (r := world.call("GET", f"/v1/events/{identity}")).status == 200 and r.body["data"])
        return "4711-0815" not in json.dumps(stored)

    eventually(redacted, 40, 2)


def test_a_suspended_project_is_closed(world: World) -> None:
    admin = world.deployed.contract["admin_key"]
    made = _tight(world)
    key = made["first_key"]["key"]
    assert world.call("PATCH", f"/v1/projects/{made['id']}", {"status": "suspended"}, admin).status == 200
    assert refused(world.call("GET", "/v1/events", key=key)) == (403, "ERR_SCOPE")
