"""Short tokens for people and the console, and admin tokens that allow one exact request once.

A token is a compact JWS (RFC 7515) with an Ed25519 signature and exactly the header {alg, kid, typ}. Before the
library sees it, its form, header and claims are read strictly here, because libraries accept more than one
reading: duplicate members, lists for names, several serialisations. Keys named by the token itself (jwk, jku,
x5u, x5c) are refused by their presence; nothing is ever fetched.

    access token  typ at+jwt            iss aud sub prj cid scope iat nbf exp jti          at most 15 min
    admin token   typ tocsin-admin+jwt  iss aud sub prj cid iat nbf exp jti req            at most 5 min, once

`cid` is the key the token goes back to: when that key ends, so does the token, and its scopes never exceed what
the key and its person have at the time of use (RFC 8725, OWASP ASVS 5.0 V9).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from tocsin.access.admin import KEY_ID, PERSON_ID, shared_scopes
from tocsin.access.ports import KeySetStore, OnceStore
from tocsin.access.principals import KeyStore, Principal, parse_scopes, valid_scope
from tocsin.kernel import clock, strict_json
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.ids import uuid7
from tocsin.kernel.strict_json import Limits

#: The fully specified name of EdDSA with this curve (RFC 9864), which leaves nothing to choose.
ALGORITHM: Final = "Ed25519"
ACCESS: Final = "at+jwt"
ADMIN: Final = "tocsin-admin+jwt"
#: Typ of signed documents, which are no tokens and never pass for one.
DOCUMENT: Final = "tocsin-document+jws"
AUDIENCE: Final = "tocsin:api"
#: Longest life in seconds of an access token and of an admin token.
MAX_LIFE_S: Final = 900
MAX_ADMIN_LIFE_S: Final = 300
#: Clock difference that is forgiven, in seconds; never above 30.
LEEWAY_S: Final = 10
MAX_LENGTH: Final = 4_096
#: How long, in ms, a new signing key is published before it signs, so that caches know it first.
LEAD: Final = 5 * clock.MINUTE
MAX_KEYS: Final = 128
_RELOAD_MS: Final = 30 * clock.SECOND
_UNKNOWN_RELOAD_MS: Final = 2 * clock.SECOND
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})", re.ASCII)
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LIMITS: Final = Limits(depth=2, keys_per_object=16, array_items=1, number_digits=12, parts=200)
_COMMON: Final = frozenset({"iss", "aud", "sub", "prj", "cid", "iat", "nbf", "exp", "jti"})
_CLAIMS: Final = {ACCESS: _COMMON | {"scope"}, ADMIN: _COMMON | {"req"}}
_LIVES: Final = {ACCESS: MAX_LIFE_S, ADMIN: MAX_ADMIN_LIFE_S}
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="tocsin", error="invalid_token"'}


def _invalid() -> Refusal:
    """One answer for everything that is wrong with a token, so that it teaches nothing."""
    return Refusal("ERR_AUTH_INVALID", "The token is not valid.", headers=_CHALLENGE)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Number `n` of the key set: signs from `since` on, is trusted until `retire_at` (ms; None: open)."""

    n: int
    since: int
    retire_at: int | None = None

    def trusted(self, now: int) -> bool:
        return self.retire_at is None or now < self.retire_at


@lru_cache(maxsize=256)
def _pair(master: bytes, n: int) -> tuple[str, OKPKey]:
    """(kid, private key) number n: the Ed25519 seed is HMAC-SHA256 of the number under the deployment's secret,
    the kid is the RFC 7638 thumbprint."""
    seed = hmac.new(master, b"tocsin:token-key:" + str(n).encode("ascii"), hashlib.sha256).digest()
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    members = {"crv": "Ed25519", "kty": "OKP", "x": _b64(public)}
    kid = _b64(hashlib.sha256(canonical_json(members)).digest())
    return kid, OKPKey.import_key({**members, "d": _b64(seed)})


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def _unb64(text: str) -> bytes:
    """Base64url without padding, and in the one canonical spelling of its bytes."""
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _b64(raw) != text:
        raise ValueError("not canonical base64url")
    return raw


class TokenKeys:
    """The key set. The store holds numbers and times only; key material is derived from `master` (32 bytes).

    Rotation overlaps: a new key is published LEAD before it signs, the old one is trusted until every token it
    signed has ended. A reader keeps the set for 30 s and reads again at once, at most every 2 s, when it meets
    a kid it does not know.
    """

    def __init__(self, master: bytes, store: KeySetStore, now: Callable[[], int]) -> None:
        if len(master) < 32:
            raise ValueError("the token secret must hold at least 32 bytes")
        self._master, self._store, self._now = master, store, now
        self._read_at, self._keys = -_RELOAD_MS, tuple[SigningKey, ...]()
        self._lock = threading.Lock()

    def _load(self, max_age: int) -> tuple[SigningKey, ...]:
        with self._lock:
            now = self._now()
            if not self._keys or now - self._read_at >= max_age:
                self._keys, self._read_at = self._parse(self._store.get()[1]), now
            return self._keys

    @staticmethod
    def _parse(document: Any) -> tuple[SigningKey, ...]:
        if document is None:
            return (SigningKey(1, 0),)
        return tuple(SigningKey(one["n"], one["since"], one["retire_at"]) for one in document["keys"])

    def signing(self) -> tuple[str, OKPKey]:
        """(kid, key) that signs now: the newest that has begun."""
        now = self._now()
        begun = [key for key in self._load(_RELOAD_MS) if key.since <= now and key.trusted(now)]
        return _pair(self._master, max(begun, key=lambda key: (key.since, key.n)).n)

    def trusted(self, kid: str) -> OKPKey | None:
        """The trusted key of a kid, or None."""
        for max_age in (_RELOAD_MS, _UNKNOWN_RELOAD_MS):
            for key in self._load(max_age):
                name, pair = _pair(self._master, key.n)
                if name == kid:
                    return pair if key.trusted(self._now()) else None
        return None

    def jwks(self) -> dict[str, Any]:
        """Public keys as a JWK Set (RFC 7517), those that are yet to sign included."""
        published = []
        for key in self._load(_RELOAD_MS):
            if key.trusted(self._now()):
                kid, pair = _pair(self._master, key.n)
                public = pair.as_dict(private=False)
                members = {name: public[name] for name in ("kty", "crv", "x")}
                published.append({**members, "kid": kid, "alg": ALGORITHM, "use": "sig"})
        return {"keys": published}

    def rotate(self, *, compromised: bool = False) -> int:
        """Begin a new key; returns its number. After a compromise it signs at once and older ones end now."""
        now = self._now()
        version, document = self._store.get()
        kept = [key for key in self._parse(document) if key.trusted(now)]
        highest = max(key.n for key in self._parse(document))
        since = now if compromised else now + LEAD
        ends = now if compromised else since + (MAX_LIFE_S + LEEWAY_S) * 1000
        older = [replace(key, retire_at=min(ends, key.retire_at or ends)) for key in kept]
        older = [key for key in older if key.trusted(now)]
        if len(older) >= MAX_KEYS:
            raise Refusal("ERR_CONFLICT", "Too many token keys are still trusted; wait before rotating again.")
        keys = [*older, SigningKey(highest + 1, since)]
        listed = [{"n": key.n, "since": key.since, "retire_at": key.retire_at} for key in keys]
        if not self._store.put({"keys": listed}, version):
            raise Refusal("ERR_CONFLICT", "The token keys were rotated meanwhile.")
        self._read_at = now - _RELOAD_MS
        return highest + 1


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. Times are Unix seconds; `scopes` and `req` by the kind of token."""

    subject: str
    project: str
    key_id: str
    jti: str
    expires_at: int
    scopes: frozenset[str] = frozenset()
    req: str = ""


class Tokens:
    """Makes and reads tokens. `issuer` names this deployment; tokens of another one are refused."""

    def __init__(
        self, keys: TokenKeys, records: KeyStore, once: OnceStore, issuer: str, now: Callable[[], int]
    ) -> None:
        self.keys, self._records, self._once, self._issuer, self._now = keys, records, once, issuer, now

    def _sign(self, kind: str, claims: Mapping[str, Any]) -> str:
        kid, key = self.keys.signing()
        header = {"alg": ALGORITHM, "kid": kid, "typ": kind}
        return jws.serialize_compact(header, canonical_json(claims), key, algorithms=[ALGORITHM])

    def attest(self, document: Mapping[str, Any]) -> str:
        """A JWS over `document` with `iss` and `iat` (Unix seconds of signing) beside its own members."""
        return self._sign(DOCUMENT, {**document, "iss": self._issuer, "iat": self._now() // 1000})

    def _claims(self, caller: Principal, life_s: int) -> dict[str, Any]:
        now = self._now()
        record = self._records.get(caller.key_id)
        at = now // 1000
        ends = at + life_s
        if record is not None and record.expires_at is not None:
            ends = min(ends, record.expires_at // 1000)
        return {
            "iss": self._issuer,
            "aud": AUDIENCE,
            "sub": caller.person or caller.credential,
            "prj": caller.project,
            "cid": caller.credential,
            "iat": at,
            "nbf": at,
            "exp": ends,
            "jti": uuid7(now),
        }

    @staticmethod
    def _require_key(caller: Principal) -> None:
        if caller.kind == "token":
            detail = Detail("credential", "key", "send the API key")
            raise Refusal("ERR_SCOPE", "A token cannot be exchanged for another one.", [detail])

    def issue(self, caller: Principal, scopes: Any = None, life_s: Any = MAX_LIFE_S) -> dict[str, Any]:
        """An access token for the caller: all of its scopes or some. Refuses ERR_SCOPE for a caller that came
        with a token itself, so that a stolen one cannot be prolonged.
        """
        self._require_key(caller)
        if type(life_s) is not int or not 60 <= life_s <= MAX_LIFE_S:
            detail = Detail("life_s", "range", f"send 60 to {MAX_LIFE_S} seconds")
            raise Refusal("ERR_SCHEMA", "Not a life of a token.", [detail])
        if scopes is not None and not isinstance(scopes, list):
            detail = Detail("scopes", "array", "send an array of scopes")
            raise Refusal("ERR_SCHEMA", "The scopes are not valid.", [detail])
        held = caller.scopes if scopes is None else parse_scopes(scopes, caller)
        claims = {**self._claims(caller, life_s), "scope": " ".join(sorted(held))}
        return {
            "token": self._sign(ACCESS, claims),
            "token_type": "Bearer",
            "expires_at": clock.rfc3339(claims["exp"] * 1000),
            "scopes": sorted(held),
        }

    def issue_admin(self, caller: Principal, hashed: str, life_s: int = 120) -> dict[str, Any]:
        """An admin token for the one request with this hash (approvals.request_hash). Refuses as `issue` does."""
        self._require_key(caller)
        if not _HASH.fullmatch(hashed) or not 1 <= life_s <= MAX_ADMIN_LIFE_S:
            raise ValueError(f"an admin token binds 64 hex digits for 1 to {MAX_ADMIN_LIFE_S} seconds")
        claims = {**self._claims(caller, life_s), "req": hashed}
        return {
            "token": self._sign(ADMIN, claims),
            "token_type": "X-Admin-Token",
            "expires_at": clock.rfc3339(claims["exp"] * 1000),
            "request_hash": hashed,
        }

    def read(self, text: str, kind: str) -> Claims:
        """What a token of this kind says. Refuses 401 ERR_AUTH_INVALID for everything else, without a reason."""
        parts = _COMPACT.fullmatch(text) if len(text) <= MAX_LENGTH else None
        if parts is None:
            raise _invalid()
        try:
            header = strict_json.read(_unb64(parts[1]), _LIMITS)
            if not isinstance(header, dict) or header.keys() != {"alg", "kid", "typ"}:
                raise _invalid()
            kid = header["kid"]
            if header["alg"] != ALGORITHM or header["typ"] != kind or not isinstance(kid, str):
                raise _invalid()
            key = self.keys.trusted(kid)
            if key is None:
                raise _invalid()
            signed = jws.deserialize_compact(text, key, algorithms=[ALGORITHM])
            _unb64(parts[2]), _unb64(parts[3])
            claims = strict_json.read(bytes(signed.payload or b""), _LIMITS)
        except (JoseError, ValueError, Refusal):
            raise _invalid() from None
        return self._judge(claims, kind)

    def _judge(self, claims: Any, kind: str) -> Claims:
        """Every claim present, of one type, and nothing else."""
        if not isinstance(claims, dict) or claims.keys() != _CLAIMS[kind]:
            raise _invalid()
        texts = [claims[name] for name in claims if name not in ("iat", "nbf", "exp")]
        times = [claims[name] for name in ("iat", "nbf", "exp")]
        if not all(isinstance(one, str) for one in texts) or not all(type(one) is int for one in times):
            raise _invalid()
        now, (issued, begins, ends) = self._now() / 1000, times
        good = (
            claims["iss"] == self._issuer
            and claims["aud"] == AUDIENCE
            and KEY_ID.fullmatch(claims["cid"])
            and (claims["sub"] == claims["cid"] or PERSON_ID.fullmatch(claims["sub"]))
            and _UUID7.fullmatch(claims["jti"])
            and issued <= begins < ends <= issued + _LIVES[kind]
            and issued <= now + LEEWAY_S
            and begins <= now + LEEWAY_S
            and now < ends + LEEWAY_S
        )
        scopes = claims["scope"].split(" ") if kind == ACCESS and claims["scope"] else []
        if not good or not all(map(valid_scope, scopes)) or len(set(scopes)) != len(scopes):
            raise _invalid()
        if kind == ADMIN and not _HASH.fullmatch(claims["req"]):
            raise _invalid()
        return Claims(
            subject=claims["sub"],
            project=claims["prj"],
            key_id=claims["cid"][4:],
            jti=claims["jti"],
            expires_at=ends,
            scopes=frozenset(scopes),
            req=claims.get("req", ""),
        )

    def authenticate(self, text: str) -> Principal:
        """The caller behind an access token, with the scopes that token and key have in common now.

        Refuses ERR_AUTH_INVALID, and ERR_AUTH_REVOKED when the key behind it has ended.
        """
        claims = self.read(text, ACCESS)
        record = self._records.get(claims.key_id)
        if record is None or record.project != claims.project:
            raise _invalid()
        if record.refusal_code(self._now()):
            raise Refusal("ERR_AUTH_REVOKED", "The key behind the token has ended.", headers=_CHALLENGE)
        if claims.subject != (record.owner or f"key_{record.key_id}"):
            raise _invalid()
        held = shared_scopes(claims.scopes, record.scopes)
        return Principal(record.project, record.key_id, held, kind="token", person=record.owner)

    def spend(self, text: str | None, caller: Principal, hashed: str) -> Claims:
        """Use an admin token for the request with this hash, once.

        Refuses 403 ERR_ADMIN_TOKEN when there is none, or it is not valid, expired, somebody else's, or for
        another request; 401 ERR_AUTH_REPLAY when it was used before.
        """
        if not text:
            raise _no_admin("This needs an admin token.")
        try:
            claims = self.read(text, ADMIN)
        except Refusal:
            raise _no_admin("The admin token is not valid or has expired.") from None
        mine = claims.project == caller.project and claims.key_id == caller.key_id
        if not mine or not hmac.compare_digest(claims.req, hashed):
            raise _no_admin("The admin token is not for this request.")
        until = (claims.expires_at + 2 * LEEWAY_S) * 1000
        if not self._once.first(claims.project, "token", claims.jti, until):
            raise Refusal("ERR_AUTH_REPLAY", "The admin token was used before.", headers=_CHALLENGE)
        return claims


def _no_admin(message: str) -> Refusal:
    fix = "Get one for this exact request at POST /v1/tokens and send it in X-Admin-Token."
    return Refusal("ERR_ADMIN_TOKEN", message, [Detail("x-admin-token", "required", fix)])
