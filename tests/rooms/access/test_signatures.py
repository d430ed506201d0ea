"""Signed requests: RFC 9421's own vector, another implementation's reading, and the attacks A41 to A45."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms
from http_message_signatures.structures import CaseInsensitiveDict
from tests.support.access_fakes import MASTER, NOW, Access, refused

from tocsin.access.admin import signing_secret
from tocsin.access.principals import Principal, carries_signature, shown_signature
from tocsin.access.signatures import (
    WINDOW_S,
    Signatures,
    content_digest,
    normal_query,
    sign,
    signature_base,
)
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Request

AT = NOW // 1000
NONCE = "0123456789abcdef"
BODY = json.dumps({"source": "s", "id": "1"}).encode()


class Server:
    """A verifier with one signing key, and requests signed by its holder."""

    def __init__(self) -> None:
        self.access = Access()
        self.caller = self.access.key(self.access.root, "ingest:write", signing=True)
        self.plain = self.access.key(self.access.root, "ingest:write")
        self.secret = signing_secret(MASTER, self.caller.key_id)
        self.signatures = self.verifier()

    def verifier(self, **named: Any) -> Signatures:
        access = self.access
        return Signatures(access.rows, access.once, MASTER, "live", access.clock.now, **named)

    def request(self, body: bytes = BODY, **changes: Any) -> Request:
        headers = {"host": ("api.example",), "content-type": ("application/json",)}
        made = Request("POST", "/v1/events", "t", "r", headers, {"b": ("2", "1"), "a": ("x y",)}, {}, body)
        return replace(made, **changes)

    def signed(self, request: Request | None = None, created: int = AT, nonce: str = NONCE, **named: Any) -> Request:
        request = request or self.request()
        key_id, secret = named.pop("key_id", self.caller.credential), named.pop("secret", self.secret)
        return joined(request, sign(request, secret, key_id, created, nonce, **named))

    def resigned(self, parameters: str, covered: list[str], request: Request | None = None) -> Request:
        """Truly signed with the right secret, but with another signature input."""
        made = request or self.request()
        digest = (content_digest(made.body),)
        made = replace(made, headers={**made.headers, "content-digest": digest})
        names = " ".join(f'"{name}"' for name in covered)
        given = f"({names}){parameters}"
        mac = hmac.new(self.secret.encode(), signature_base(made, covered, given, made.path), hashlib.sha256).digest()
        return joined(made, {"signature-input": f"sig={given}", "signature": f"sig=:{base64.b64encode(mac).decode()}:"})


def joined(request: Request, extra: dict[str, str]) -> Request:
    return replace(request, headers={**request.headers, **{name: (value,) for name, value in extra.items()}})


def swapped(request: Request, name: str, old: str, new: str) -> Request:
    (value,) = request.headers[name]
    assert old in value
    return joined(request, {name: value.replace(old, new)})


def without(request: Request, name: str) -> Request:
    return replace(request, headers={k: v for k, v in request.headers.items() if k != name})


@pytest.fixture
def server() -> Server:
    return Server()


FULL = ["@method", "@authority", "@path", "@query", "content-type", "content-digest"]


def parameters(server: Server, **changes: str | None) -> str:
    given: dict[str, str | None] = {
        "created": str(AT),
        "keyid": f'"{server.caller.credential}"',
        "nonce": f'"{NONCE}"',
        "alg": '"hmac-sha256"',
        "tag": '"tocsin"',
    }
    return "".join(f";{name}={value}" for name, value in (given | changes).items() if value is not None)


def test_the_base_is_that_of_the_rfc() -> None:
    """RFC 9421 B.2.5, hmac-sha256 with the shared secret of B.1.5."""
    headers = {
        "host": ("example.com",),
        "date": ("Tue, 20 Apr 2021 02:07:55 GMT",),
        "content-type": ("application/json",),
    }
    given = '("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'
    sent = Request("POST", "/foo", "", "", headers)
    base = signature_base(sent, ["date", "@authority", "content-type"], given, "/foo")
    secret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
    mac = hmac.new(base64.b64decode(secret), base, hashlib.sha256).digest()
    assert base64.b64encode(mac) == b"pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="


def test_the_digest_is_that_of_the_rfc() -> None:
    """RFC 9530, Appendix D: the body of its first example."""
    assert content_digest(b'{"hello": "world"}\n') == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


def test_a_signed_request_is_its_key(server: Server) -> None:
    expected = Principal("p1", server.caller.key_id, frozenset({"ingest:write"}), kind="signature")
    assert server.signatures.authenticate(server.signed()) == expected
    empty = server.request(b"", method="GET", query={})
    assert server.signatures.authenticate(server.signed(empty, nonce="e" * 16)) == expected


def test_what_is_covered_besides_does_not_hurt(server: Server) -> None:
    made = joined(server.request(), {"x-trace-id": "abc"})
    server.signatures.authenticate(server.resigned(parameters(server), [*FULL, "x-trace-id"], made))


def test_the_full_path_of_a_stage_may_be_signed(server: Server) -> None:
    sent = server.signed(server.request(path="/live/v1/events"))
    arrived = replace(sent, path="/v1/events")
    assert refused(server.signatures.authenticate, arrived).code == "ERR_SIG_INVALID"
    server.verifier(prefixes=("", "/live")).authenticate(arrived)


TIMES: dict[str, Callable[[Server], Request]] = {
    "A41 61 s old": lambda s: s.signed(created=AT - WINDOW_S - 1),
    "A41 61 s ahead": lambda s: s.signed(created=AT + WINDOW_S + 1),
    "A41 no created": lambda s: s.resigned(parameters(s, created=None), FULL),
    "A41 expires passed": lambda s: s.resigned(parameters(s, expires=str(AT)), FULL),
    "A41 expires long ago": lambda s: s.resigned(parameters(s, expires="1"), FULL),
}


@pytest.mark.parametrize("name", sorted(TIMES))
def test_a_request_is_of_now(server: Server, name: str) -> None:
    refusal = refused(server.signatures.authenticate, TIMES[name](server))
    assert (refusal.code, refusal.status) == ("ERR_SIG_TIME", 401)
    assert server.access.once.seen == {}


@pytest.mark.parametrize("created", [AT - WINDOW_S, AT + WINDOW_S])
def test_the_window_is_sixty_seconds_either_way(server: Server, created: int) -> None:
    server.signatures.authenticate(server.signed(created=created))


def _altered(**changes: Any) -> Callable[[Server], Request]:
    return lambda s: replace(s.signed(), **changes)


def _headers(**changes: str) -> Callable[[Server], Request]:
    return lambda s: joined(s.signed(), {name.replace("_", "-"): value for name, value in changes.items()})


def _twice(server: Server) -> Request:
    good, other = server.signed(label="good"), server.signed(label="bad", secret="tss_" + "B" * 43)
    return joined(
        good,
        {
            name: f"{good.header(name)}, {other.header(name)}"
            for name in ("content-digest", "signature-input", "signature")
        },
    )


def _repeated(server: Server) -> Request:
    good, other = server.signed(), server.signed(secret="tss_" + "B" * 43)
    headers = {
        name: (*good.headers[name], *other.headers[name]) for name in ("content-digest", "signature-input", "signature")
    }
    return replace(good, headers={**good.headers, **headers})


def _of_other_project(server: Server) -> Request:
    other = server.access.key(server.access.bootstrap("p2"), "ingest:write", signing=True)
    return server.signed(key_id=other.credential)


FORGERIES: dict[str, Callable[[Server], Request]] = {
    # A43: what was signed is not what arrived
    "A43 method": _altered(method="PUT"),
    "A43 path": _altered(path="/v1/incidents"),
    "A43 path with a slash": _altered(path="/v1/events/"),
    "A43 query value": _altered(query={"b": ("2", "1"), "a": ("x z",)}),
    "A43 query order": _altered(query={"b": ("1", "2"), "a": ("x y",)}),
    "A43 query gone": _altered(query={}),
    "A43 query more": _altered(query={"b": ("2", "1"), "a": ("x y",), "c": ("",)}),
    "A43 authority": _headers(host="other.example"),
    "A43 content type": _headers(content_type="text/plain"),
    "A43 body": _altered(body=BODY + b" "),
    "A43 body gone": _altered(body=b""),
    "A43 body and digest": lambda s: joined(replace(s.signed(), body=b"{}"), {"content-digest": content_digest(b"{}")}),
    "A43 digest of another kind": _headers(content_digest="md5=:AAAA:"),
    "A43 digest with one wrong member": lambda s: joined(
        s.signed(), {"content-digest": content_digest(BODY) + ", sha-512=:AAAA:"}
    ),
    "A43 digest is noise": _headers(content_digest="sha-256=:A===:"),
    # A45: algorithm, key, several signatures
    "A45 alg ed25519": lambda s: swapped(s.signed(), "signature-input", "hmac-sha256", "ed25519"),
    "A45 alg ed25519, truly signed": lambda s: s.resigned(parameters(s, alg='"ed25519"'), FULL),
    "A45 alg none": lambda s: s.resigned(parameters(s, alg='"none"'), FULL),
    "A45 keyid of another project": _of_other_project,
    "A45 keyid of a key that is not": lambda s: s.signed(key_id="key_" + "0" * 12),
    "A45 keyid of a key that does not sign": lambda s: s.signed(
        key_id=s.plain.credential, secret=signing_secret(MASTER, s.plain.key_id)
    ),
    "A45 no keyid": lambda s: s.resigned(parameters(s, keyid=None), FULL),
    "A45 keyid without prefix": lambda s: s.signed(key_id=s.caller.key_id),
    "A45 two signatures in one header": _twice,
    "A45 two signatures in two headers": _repeated,
    "A45 labels differ": lambda s: swapped(s.signed(), "signature", "tocsin=", "other="),
    # the profile
    "another tag": lambda s: s.resigned(parameters(s, tag='"other"'), FULL),
    "no tag": lambda s: s.resigned(parameters(s, tag=None), FULL),
    "no nonce": lambda s: s.resigned(parameters(s, nonce=None), FULL),
    "short nonce": lambda s: s.signed(nonce="abc"),
    "long nonce": lambda s: s.signed(nonce="a" * 65),
    "a parameter twice": lambda s: s.resigned(parameters(s) + f";created={AT}", FULL),
    "an unknown parameter": lambda s: s.resigned(parameters(s) + ";x=1", FULL),
    "created as text": lambda s: s.resigned(parameters(s, created=f'"{AT}"'), FULL),
    **{
        f"without {name}": lambda s, name=name: s.resigned(  # type: ignore[misc]
            parameters(s), [one for one in FULL if one != name]
        )
        for name in FULL
    },
    "a component twice": lambda s: s.resigned(parameters(s), [*FULL, "@path"]),
    "an unknown derived component": lambda s: swapped(s.signed(), "signature-input", '"@path"', '"@path" "@status"'),
    "a covered field that is not there": lambda s: swapped(
        s.signed(), "signature-input", '"@path"', '"@path" "x-none"'
    ),
    "a component with parameters": lambda s: swapped(s.signed(), "signature-input", '"@query"', '"@query";req'),
    "nothing covered": lambda s: s.resigned(parameters(s), []),
    "signature of other bytes": lambda s: joined(s.signed(), {"signature": f"tocsin=:{'A' * 43}=:"}),
    "signature in another form": lambda s: joined(s.signed(), {"signature": "tocsin=abc"}),
    "signature cut off": lambda s: swapped(s.signed(), "signature", "=:", ":"),
    "input too long": lambda s: s.resigned(parameters(s) + ";x=1" * 600, FULL),
    "no input": lambda s: without(s.signed(), "signature-input"),
    "no signature": lambda s: without(s.signed(), "signature"),
    "digest covered but gone": lambda s: without(replace(s.signed(), body=b""), "content-digest"),
}


@pytest.mark.parametrize("name", sorted(FORGERIES))
def test_what_was_not_signed_so_is_refused_alike(server: Server, name: str) -> None:
    refusal = refused(server.signatures.authenticate, FORGERIES[name](server))
    assert (refusal.code, refusal.status, refusal.message) == ("ERR_SIG_INVALID", 401, "The signature is not valid.")
    assert server.access.once.seen == {}, "nothing is written for a request that proved nothing"


def test_a_request_is_good_once(server: Server) -> None:
    sent = server.signed()
    server.signatures.authenticate(sent)
    refusal = refused(server.signatures.authenticate, sent)
    assert (refusal.code, refusal.status) == ("ERR_AUTH_REPLAY", 401)
    ((_, until),) = server.access.once.seen.items()
    assert until >= (AT + 2 * WINDOW_S) * 1000, "remembered for as long as it could be good"
    server.signatures.authenticate(server.signed(nonce="another-nonce-16"))


def test_a_nonce_is_of_one_key(server: Server) -> None:
    other = server.access.key(server.access.root, "ingest:write", signing=True)
    server.signatures.authenticate(server.signed())
    secret = signing_secret(MASTER, other.key_id)
    server.signatures.authenticate(server.signed(key_id=other.credential, secret=secret))


def test_a_key_that_ended_signs_nothing(server: Server) -> None:
    server.access.keys.revoke(server.access.root, server.caller.credential, NOW)
    assert refused(server.signatures.authenticate, server.signed()).code == "ERR_AUTH_REVOKED"
    assert server.access.once.seen == {}


def test_a_key_of_the_other_environment_signs_nothing(server: Server) -> None:
    record = server.access.rows.rows[server.caller.key_id]
    server.access.rows.rows[server.caller.key_id] = replace(record, env="test")
    assert refused(server.signatures.authenticate, server.signed()).code == "ERR_SIG_INVALID"


def test_signed_requests_are_told_from_others(server: Server) -> None:
    assert carries_signature(server.signed())
    assert carries_signature(joined(server.request(), {"signature-input": "x"}))
    assert not carries_signature(joined(server.request(), {"authorization": "Bearer x"}))
    assert shown_signature(server.signed()) != shown_signature(server.signed(nonce="f" * 16))


class _Secret(HTTPSignatureKeyResolver):  # type: ignore[misc]
    """The one secret of both sides, as the other implementation asks for it."""

    def __init__(self, secret: str) -> None:
        self.secret = secret.encode("ascii")

    def resolve_public_key(self, key_id: str) -> bytes:
        return self.secret

    def resolve_private_key(self, key_id: str) -> bytes:
        return self.secret


def _message(request: Request) -> SimpleNamespace:
    """A request as http-message-signatures reads it."""
    headers = CaseInsensitiveDict({name: ", ".join(values) for name, values in request.headers.items()})
    url = f"https://{request.header('host')}{request.path}{normal_query(request.query)}"
    return SimpleNamespace(method=request.method, url=url, headers=headers)


def test_another_implementation_accepts_what_we_sign(server: Server) -> None:
    sent = _message(server.signed(created=int(time.time())))
    verifier = HTTPMessageVerifier(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=_Secret(server.secret))
    (result,) = verifier.verify(sent)
    assert result.parameters["tag"] == "tocsin"


def test_we_accept_what_another_implementation_signs(server: Server) -> None:
    made = server.request()
    message = _message(made)
    signer = HTTPMessageSigner(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=_Secret(server.secret))
    signer.sign(
        message,
        key_id=server.caller.credential,
        created=datetime.fromtimestamp(AT, UTC),
        nonce=NONCE,
        label="sig1",
        tag="tocsin",
        covered_component_ids=[name for name in FULL if name != "content-digest"],
        body=BODY,
    )
    headers = {name: message.headers[name] for name in ("content-digest", "signature-input", "signature")}
    assert server.signatures.authenticate(joined(made, headers)).key_id == server.caller.key_id


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, "?"),
        ({"b": ("2",), "a": ("1", "0")}, "?a=1&a=0&b=2"),
        ({"q": ("x y/&=\u00e9~",)}, "?q=x%20y%2F%26%3D%C3%A9~"),
        ({"": ("",)}, "?="),
    ],
)
def test_the_normal_form_of_a_query(query: dict[str, tuple[str, ...]], text: str) -> None:
    assert normal_query(query) == text


def test_a_webhook_signed_as_sentry_does_it_is_its_key(server: Server) -> None:
    body, key_id = b'{"action":"created"}', server.caller.key_id
    good = hmac.new(server.secret.encode(), body, hashlib.sha256).hexdigest()
    caller = server.signatures.authenticate_hook(f"key_{key_id}", body, good)
    assert (caller.key_id, caller.kind) == (key_id, "signature")
    for named, sent, signature in (
        (f"key_{key_id}", body + b" ", good),
        (f"key_{key_id}", body, good.upper()),
        (f"key_{key_id}", body, ""),
        (f"key_{key_id}", body, "\ud800"),
        (key_id, body, good),
        ("key_" + "0" * 12, body, good),
    ):
        with pytest.raises(Refusal) as caught:
            server.signatures.authenticate_hook(named, sent, signature)
        assert caught.value.code == "ERR_SIG_INVALID"
