"""Tokens: the attacks of RFC 8725 and of authz.yaml A25 to A39 and A63, rotation, and single use."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey
from tests.support.access_fakes import MASTER, NOW, Access, KeySetRow, refused

from tocsin.access.admin import Narrower
from tocsin.access.approvals import request_hash
from tocsin.access.principals import Principal, require
from tocsin.access.tokens import ACCESS, ADMIN, LEAD, LEEWAY_S, MAX_KEYS, TokenKeys, Tokens, _pair

HASHED = request_hash("p1", "DELETE", "/v1/projects/p1", {}, None)


class Desk:
    """Tokens over memory, and the means to forge them with the real key."""

    def __init__(self) -> None:
        self.access, self.set = Access(), KeySetRow()
        self.clock = self.access.clock
        self.keys = TokenKeys(MASTER, self.set, self.clock.now)
        self.tokens = Tokens(self.keys, self.access.rows, self.access.once, "tocsin:test", self.clock.now)
        self.caller = self.access.key(self.access.root, "events:*", "admin:read")

    def token(self, **named: Any) -> str:
        return str(self.tokens.issue(self.caller, **named)["token"])

    def forge(
        self,
        claims: dict[str, Any] | bytes | None = None,
        header: dict[str, Any] | bytes | None = None,
        key: bytes | None = None,
        **changes: Any,
    ) -> str:
        """A token with the given header and claims, truly signed by the deployment's key unless told else."""
        head, body, _ = self.token().split(".")
        told = json.loads(unb64(body)) | changes
        if claims is None:
            claims = {name: value for name, value in told.items() if value is not ...}
        if header is None:
            header = json.loads(unb64(head))
        raw = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in (header, claims)]
        signed = ".".join(b64(one) for one in raw)
        seed = key or hmac.new(MASTER, b"tocsin:token-key:1", hashlib.sha256).digest()
        return f"{signed}.{b64(Ed25519PrivateKey.from_private_bytes(seed).sign(signed.encode()))}"

    def header(self, **changes: Any) -> dict[str, Any]:
        head = json.loads(unb64(self.token().split(".")[0])) | changes
        return {name: value for name, value in head.items() if value is not ...}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_token_is_its_caller_for_a_quarter_of_an_hour(desk: Desk) -> None:
    text = desk.token()
    assert desk.tokens.authenticate(text) == replace(desk.caller, kind="token")
    desk.clock.ms += (900 + LEEWAY_S) * 1000 - 1
    desk.tokens.authenticate(text)
    desk.clock.ms += 1
    refusal = refused(desk.tokens.authenticate, text)
    assert (refusal.code, refusal.status) == ("ERR_AUTH_INVALID", 401)
    assert "WWW-Authenticate" in refusal.headers


def test_the_forger_of_these_tests_can_make_a_good_token(desk: Desk) -> None:
    """Otherwise every refusal below would show nothing."""
    assert desk.tokens.authenticate(desk.forge()) == replace(desk.caller, kind="token")


def test_another_library_reads_our_token(desk: Desk) -> None:
    head, _, _ = (text := desk.token()).split(".")
    (published,) = desk.keys.jwks()["keys"]
    assert json.loads(unb64(head)) == {"alg": "Ed25519", "kid": published["kid"], "typ": "at+jwt"}
    signed, _, signature = text.rpartition(".")
    Ed25519PublicKey.from_public_bytes(unb64(published["x"])).verify(unb64(signature), signed.encode())
    assert set(published) == {"kty", "crv", "x", "kid", "alg", "use"}, "no private member"


OTHER = bytes(range(50, 82))


def _sized(desk: Desk) -> str:
    return desk.forge(scope="events:read " * 1000)


def _none(alg: str, signature: str) -> Callable[[Desk], str]:
    def make(desk: Desk) -> str:
        _, body, old = desk.token().split(".")
        head = b64(json.dumps(desk.header(alg=alg)).encode())
        return f"{head}.{body}.{old if signature == 'old' else signature}"

    return make


def _resigned(key: Any, algorithm: str) -> Callable[[Desk], str]:
    """The token signed by another algorithm, with key material an attacker has: the public key."""

    def make(desk: Desk) -> str:
        body = unb64(desk.token().split(".")[1])
        public = desk.keys.jwks()["keys"][0]["x"]
        made = key(public)
        return jws.serialize_compact(desk.header(alg=algorithm), body, made, algorithms=[algorithm])

    return make


ATTACKS: dict[str, Callable[[Desk], str]] = {
    # A25: alg none in every spelling, with and without the old signature
    **{
        f"A25 {alg} {what}": _none(alg, sig)
        for alg in ("none", "NoNe", "NONE", "")
        for what, sig in (("", ""), ("old", "old"))
    },
    "A25 HS256 with the public key": _resigned(lambda x: OctKey.import_key(x), "HS256"),
    "A25 ES256": _resigned(lambda _: ECKey.generate_key("P-256"), "ES256"),
    "A25 EdDSA as alg": lambda d: d.forge(header=d.header(alg="EdDSA")),
    # A27: keys that come with the token
    "A27 jwk": lambda d: d.forge(header=d.header(jwk=OKPKey.generate_key("Ed25519").as_dict(private=False)), key=OTHER),
    "A27 jku": lambda d: d.forge(header=d.header(jku="https://attacker.example/keys"), key=OTHER),
    "A27 x5u": lambda d: d.forge(header=d.header(x5u="https://attacker.example/cert"), key=OTHER),
    "A27 x5c": lambda d: d.forge(header=d.header(x5c=["AAAA"]), key=OTHER),
    "A27 jku, truly signed": lambda d: d.forge(header=d.header(jku="https://attacker.example/keys")),
    "A27 another key": lambda d: d.forge(key=OTHER),
    "A27 another kid": lambda d: d.forge(header=d.header(kid="x")),
    "A27 no kid": lambda d: d.forge(header=d.header(kid=...)),
    "A27 kid is a list": lambda d: d.forge(header=d.header(kid=["x"])),
    "A27 kid is a path": lambda d: d.forge(header=d.header(kid="../../dev/null")),
    # A29: extensions
    "A29 crit": lambda d: d.forge(header=d.header(crit=["exp"], exp=1)),
    "A29 crit unknown": lambda d: d.forge(header=d.header(crit=["x"], x=1)),
    "A29 b64 false": lambda d: d.forge(header=d.header(b64=False, crit=["b64"])),
    "A29 zip": lambda d: d.forge(header=d.header(zip="DEF")),
    # A31: audience and issuer
    "A31 wrong aud": lambda d: d.forge(aud="other"),
    "A31 no aud": lambda d: d.forge(aud=...),
    "A31 aud is a list": lambda d: d.forge(aud=["tocsin:api"]),
    "A31 wrong iss": lambda d: d.forge(iss="tocsin:live"),
    "A31 no iss": lambda d: d.forge(iss=...),
    "A31 iss is a list": lambda d: d.forge(iss=["tocsin:test"]),
    "A31 iss is null": lambda d: d.forge(iss=None),
    # A33: duplicate members, in claims and header
    "A33 two scopes": lambda d: d.forge(claims=_doubled(d, b'"scope": "admin:*"')),
    "A33 two equal exp": lambda d: d.forge(claims=_doubled(d, b'"exp": 99999999999')),
    "A33 two algs": lambda d: d.forge(header=json.dumps(d.header()).encode()[:-1] + b', "alg": "none"}'),
    "A33 escaped double": lambda d: d.forge(claims=_doubled(d, b'"sc\\u006fpe": "admin:*"')),
    # A35: other serialisations
    "A35 JWE": lambda d: "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA",
    "A35 nested": lambda d: d.forge(header=d.header(cty="JWT"), claims=d.token().encode()),
    "A35 JSON": lambda d: json.dumps(
        dict(zip(("protected", "payload", "signature"), d.token().split("."), strict=True))
    ),
    "A35 four parts": lambda d: d.token() + ".AAAA",
    "A35 five parts": lambda d: d.token() + ".AAAA.AAAA",
    "A35 two parts": lambda d: d.token().rpartition(".")[0],
    "A35 newline inside": lambda d: d.token()[:30] + "\n" + d.token()[30:],
    "A35 newline after": lambda d: d.token() + "\n",
    "A35 blank before": lambda d: " " + d.token(),
    "A35 padding": lambda d: d.token() + "=",
    "A35 standard alphabet": lambda d: d.token()[:-1] + "/",
    "A35 not ASCII": lambda d: d.token() + "\u00e9",
    "A35 empty": lambda d: "..",
    # canonical form: other spellings of the same bytes
    "spelling of the signature": lambda d: _respelt(d.token(), 2),
    "payload is a list": lambda d: d.forge(claims=b"[]"),
    "payload is text": lambda d: d.forge(claims=b'"x"'),
    "payload is no JSON": lambda d: d.forge(claims=b"{"),
    "payload in UTF-16": lambda d: d.forge(claims=json.dumps({"iss": "x"}).encode("utf-16")),
    "header is a list": lambda d: d.forge(header=b"[]"),
    "detached payload": lambda d: d.token().split(".")[0] + ".." + d.token().split(".")[2],
    "too long": _sized,
    # types and ranges of claims
    "exp is text": lambda d: d.forge(exp=str(NOW // 1000 + 60)),
    "exp is a float": lambda d: d.forge(exp=NOW / 1000 + 60.5),
    "exp is true": lambda d: d.forge(exp=True),
    "exp is far": lambda d: d.forge(exp=NOW // 1000 + 901),
    "exp is huge": lambda d: d.forge(claims=_doubled(d, b"").replace(b'"exp": ', b'"exp": 1' + b"0" * 400)),
    "exp is negative": lambda d: d.forge(exp=-1),
    "no exp": lambda d: d.forge(exp=...),
    "no nbf": lambda d: d.forge(nbf=...),
    "no iat": lambda d: d.forge(iat=...),
    "no jti": lambda d: d.forge(jti=...),
    "nbf ahead": lambda d: d.forge(nbf=NOW // 1000 + LEEWAY_S + 1),
    "iat ahead": lambda d: d.forge(iat=NOW // 1000 + LEEWAY_S + 1, nbf=NOW // 1000 + LEEWAY_S + 1),
    "nbf before iat": lambda d: d.forge(nbf=NOW // 1000 - 1),
    "nbf after exp": lambda d: d.forge(nbf=NOW // 1000 + 900),
    "jti of another form": lambda d: d.forge(jti="1"),
    "unknown claim": lambda d: d.forge(admin=True),
    "scope is a list": lambda d: d.forge(scope=["admin:*"]),
    "scope unknown": lambda d: d.forge(scope="events:everything"),
    "scope twice": lambda d: d.forge(scope="events:read events:read"),
    "scope with two blanks": lambda d: d.forge(scope="events:read  events:write"),
    "another subject": lambda d: d.forge(sub=d.access.root.credential),
    "a person who is not": lambda d: d.forge(sub="per_01900000-0000-7000-8000-000000000000"),
    "another key's token": lambda d: d.forge(cid=d.access.root.credential),
    "a key that is not": lambda d: d.forge(cid="key_" + "0" * 12, sub="key_" + "0" * 12),
    "cid without prefix": lambda d: d.forge(cid=d.caller.key_id),
    "another project": lambda d: d.forge(prj="p2"),
    "wrong typ": lambda d: d.forge(header=d.header(typ="JWT")),
    "no typ": lambda d: d.forge(header=d.header(typ=...)),
    "typ in another case": lambda d: d.forge(header=d.header(typ="AT+JWT")),
    "an admin token": lambda d: str(d.tokens.issue_admin(d.caller, HASHED)["token"]),
    "an admin token as access": lambda d: d.forge(req=HASHED, scope=..., header=d.header(typ=ACCESS)),
}


def _doubled(desk: Desk, member: bytes) -> bytes:
    claims = json.dumps(json.loads(unb64(desk.token().split(".")[1]))).encode()
    return claims[:-1] + b", " + member + b"}" if member else claims


def _respelt(text: str, part: int) -> str:
    """The same bytes with other unused bits in the last character."""
    parts = text.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(parts[part][-1])
    parts[part] = parts[part][:-1] + alphabet[last ^ 1]
    assert unb64(parts[part]) == unb64(text.split(".")[part])
    return ".".join(parts)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_attacks_get_one_answer(desk: Desk, name: str) -> None:
    refusal = refused(desk.tokens.authenticate, ATTACKS[name](desk))
    assert (refusal.code, refusal.status) == ("ERR_AUTH_INVALID", 401)
    assert refusal.message == "The token is not valid."
    assert refusal.details == ()


def test_every_single_changed_character_is_refused(desk: Desk) -> None:
    text = desk.token()
    for i in range(len(text)):
        changed = text[:i] + ("A" if text[i] != "A" else "B") + text[i + 1 :]
        assert refused(desk.tokens.authenticate, changed).code == "ERR_AUTH_INVALID"


def test_a_token_ends_with_its_key(desk: Desk) -> None:
    text = desk.token()
    desk.access.keys.revoke(desk.access.root, desk.caller.credential, NOW)
    assert refused(desk.tokens.authenticate, text).code == "ERR_AUTH_REVOKED"


def test_a_token_lives_no_longer_than_its_key(desk: Desk) -> None:
    record = desk.access.rows.rows[desk.caller.key_id]
    desk.access.rows.rows[desk.caller.key_id] = replace(record, expires_at=NOW + 100_000)
    claims = json.loads(unb64(desk.token().split(".")[1]))
    assert claims["exp"] == NOW // 1000 + 100


def test_a_token_holds_what_was_asked_for_and_never_more_than_its_key(desk: Desk) -> None:
    assert desk.tokens.authenticate(desk.token(scopes=["events:read"])).scopes == {"events:read"}
    assert refused(desk.tokens.issue, desk.caller, ["admin:write"]).code == "ERR_SCHEMA"
    assert refused(desk.tokens.issue, desk.caller, "events:read").code == "ERR_SCHEMA"
    wide = desk.forge(scope="admin:* events:*")
    assert desk.tokens.authenticate(wide).scopes == {"admin:read", "events:*"}


@pytest.mark.parametrize("life", [59, 901, True, 60.0, "60", None])
def test_the_life_of_a_token_has_bounds(desk: Desk, life: Any) -> None:
    assert refused(desk.tokens.issue, desk.caller, None, life).code == "ERR_SCHEMA"


def test_a_token_cannot_be_prolonged_by_itself(desk: Desk) -> None:
    caller = desk.tokens.authenticate(desk.token())
    assert refused(desk.tokens.issue, caller).code == "ERR_SCOPE"


def test_a_role_that_was_removed_counts_at_once_on_admin_routes_and_soon_everywhere(desk: Desk) -> None:
    """A39: 403 ERR_SCOPE, whatever the claim still says."""
    access = desk.access
    person = access.person(access.root, "Ada", "admin:*", "events:*")
    desk.caller = access.key(access.root, "admin:*", "events:read", owner=person.id)
    caller = desk.tokens.authenticate(desk.token())
    narrower = Narrower(access.persons, access.clock.s, ttl_s=30)
    access.directory.confirm(narrower.narrow(caller), "admin:write")
    access.people.change(access.root, person.id, {"scopes": ["events:*"]}, None)
    fresh = desk.tokens.authenticate(desk.forge())
    refusal = refused(access.directory.confirm, fresh, "admin:write")
    assert (refusal.code, refusal.status) == ("ERR_SCOPE", 403)
    access.clock.ms += 60_000
    assert refused(require, narrower.narrow(fresh), "admin:write").code == "ERR_SCOPE"


# --- rotation


def test_rotation_overlaps_and_is_known_before_it_signs(desk: Desk) -> None:
    old = desk.token()
    assert desk.keys.rotate() == 2
    assert len(desk.keys.jwks()["keys"]) == 2
    assert desk.token().split(".")[0] == old.split(".")[0], "published first, used later"
    desk.clock.ms += LEAD
    new = desk.token()
    assert new.split(".")[0] != old.split(".")[0]
    desk.tokens.authenticate(new)
    desk.tokens.authenticate(old)
    desk.clock.ms += (900 + LEEWAY_S) * 1000
    assert [one["kid"] for one in desk.keys.jwks()["keys"]] == [json.loads(unb64(new.split(".")[0]))["kid"]]


def test_rotating_every_ten_seconds_fails_nobody(desk: Desk) -> None:
    """F40: other processes with a cached set; each token lives its whole life."""
    rows, once, now = desk.access.rows, desk.access.once, desk.clock.now
    readers = [Tokens(TokenKeys(MASTER, desk.set, now), rows, once, "tocsin:test", now) for _ in range(3)]
    alive: list[tuple[int, str]] = []
    for n in range(90):
        desk.keys.rotate()
        alive.append((desk.clock.ms, readers[n % 3].issue(desk.caller)["token"]))
        for made, text in alive[-40:]:
            assert desk.clock.ms - made < 900_000
            for reader in readers:
                reader.authenticate(text)
        desk.clock.ms += 10_000


def test_after_a_compromise_old_tokens_are_worth_nothing(desk: Desk) -> None:
    old = desk.token()
    desk.clock.ms += 1
    desk.keys.rotate(compromised=True)
    assert refused(desk.tokens.authenticate, old).code == "ERR_AUTH_INVALID"
    desk.tokens.authenticate(desk.token())


def test_unknown_kids_do_not_hammer_the_store(desk: Desk) -> None:
    desk.tokens.authenticate(desk.token())
    before = desk.set.reads
    for _ in range(100):
        refused(desk.tokens.authenticate, desk.forge(header=desk.header(kid="x")))
    assert desk.set.reads - before <= 1


def test_racing_rotations_and_too_many_keys_are_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(MAX_KEYS - 1):
        desk.keys.rotate()
    assert refused(desk.keys.rotate).code == "ERR_CONFLICT"
    desk.clock.ms += 2_000_000
    monkeypatch.setattr(desk.set, "put", lambda *_: False)
    assert refused(desk.keys.rotate).code == "ERR_CONFLICT"


def test_key_material_is_bound_to_the_secret_and_the_secret_has_a_length() -> None:
    assert _pair(MASTER, 1)[0] != _pair(OTHER, 1)[0] != _pair(OTHER, 2)[0]
    with pytest.raises(ValueError, match="32 bytes"):
        TokenKeys(b"short", KeySetRow(), lambda: NOW)


# --- admin tokens


def admin(desk: Desk, caller: Principal | None = None, hashed: str = HASHED) -> str:
    return str(desk.tokens.issue_admin(caller or desk.caller, hashed)["token"])


def test_an_admin_token_allows_its_request_once(desk: Desk) -> None:
    """A37."""
    text = admin(desk)
    assert desk.tokens.spend(text, desk.caller, HASHED).req == HASHED
    replayed = refused(desk.tokens.spend, text, desk.caller, HASHED)
    assert (replayed.code, replayed.status) == ("ERR_AUTH_REPLAY", 401)
    ((name, until),) = desk.access.once.seen.items()
    assert name[:2] == ("p1", "token")
    assert until >= NOW + 120_000, "remembered for as long as it could be good"


BAD_ADMIN: dict[str, Callable[[Desk], str | None]] = {
    "none": lambda d: None,
    "empty": lambda d: "",
    "noise": lambda d: "x",
    "an access token": lambda d: d.token(),
    "of another request": lambda d: admin(d, hashed=request_hash("p1", "DELETE", "/v1/projects/p2", {}, None)),
    "of another key": lambda d: admin(d, d.access.root),
    "forged": lambda d: d.forge(header=d.header(typ=ADMIN), scope=..., req=HASHED, key=OTHER),
    "of a long life": lambda d: d.forge(header=d.header(typ=ADMIN), scope=..., req=HASHED),
    "with a short hash": lambda d: d.forge(header=d.header(typ=ADMIN), scope=..., req="00", exp=NOW // 1000 + 60),
}


@pytest.mark.parametrize("name", sorted(BAD_ADMIN))
def test_without_a_valid_admin_token_there_is_403_and_nothing_is_spent(desk: Desk, name: str) -> None:
    """A63."""
    refusal = refused(desk.tokens.spend, BAD_ADMIN[name](desk), desk.caller, HASHED)
    assert (refusal.code, refusal.status) == ("ERR_ADMIN_TOKEN", 403)
    assert desk.access.once.seen == {}


def test_an_expired_admin_token_is_403(desk: Desk) -> None:
    text = admin(desk)
    desk.clock.ms += (120 + LEEWAY_S) * 1000
    assert refused(desk.tokens.spend, text, desk.caller, HASHED).code == "ERR_ADMIN_TOKEN"


@pytest.mark.parametrize(("hashed", "life"), [("00", 60), (HASHED, 0), (HASHED, 301), (HASHED.upper(), 60)])
def test_an_admin_token_binds_a_hash_for_minutes(desk: Desk, hashed: str, life: int) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        desk.tokens.issue_admin(desk.caller, hashed, life)
