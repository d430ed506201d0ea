"""Signed requests for servers: HTTP Message Signatures (RFC 9421) with hmac-sha256.

The secret is the key's signing secret (admin.signing_secret), so a request proves the key without carrying it.
RFC 9421 leaves most to the application; this is the profile, and nothing else is accepted:

    Signature-Input: NAME=("@method" "@authority" "@path" "@query" "content-type" "content-digest");
                     created=…;keyid="key_…";nonce="…";alg="hmac-sha256";tag="tocsin"[;expires=…]

exactly one signature; the four derived components always, content-type and content-digest whenever there is a
body; other fields may be covered besides. `@path` is the path below the API's base URL or the full one. `@query`
is in normal form: names sorted, values in their order, percent-encoded as RFC 3986 says, "?" when empty. A
request is good for 60 s around `created`, and its nonce for one use.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from tocsin.access.admin import KEY_ID, signing_secret
from tocsin.access.ports import OnceStore
from tocsin.access.principals import KeyRecord, KeyStore, Principal
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Request

#: Seconds around `created` within which a request is good.
WINDOW_S: Final = 60
ALGORITHM: Final = "hmac-sha256"
TAG: Final = "tocsin"
MAX_INPUT: Final = 2_048
REQUIRED: Final = ("@method", "@authority", "@path", "@query")
_DERIVED: Final = frozenset(REQUIRED)
_LABEL: Final = r"[a-z*][a-z0-9_.*-]{0,31}"
_INPUT = re.compile(rf"({_LABEL})=(\(([^()]*)\)((?:;[a-z]+=(?:\"[^\"\\]*\"|[0-9]+))*))", re.ASCII)
_COMPONENT = re.compile(r'"([@a-z0-9-]+)"', re.ASCII)
_PARAMETER = re.compile(r';([a-z]+)=(?:"([^"\\]*)"|([0-9]{1,12}))', re.ASCII)
_SIGNATURE = re.compile(rf"({_LABEL})=:([A-Za-z0-9+/]{{43}}=):", re.ASCII)
_DIGEST = re.compile(r"(sha-256|sha-512)=:([A-Za-z0-9+/]+=*):", re.ASCII)
_NONCE = re.compile(r"[A-Za-z0-9_.~+/=-]{16,64}", re.ASCII)
_INTEGERS: Final = frozenset({"created", "expires"})
_STRINGS: Final = frozenset({"keyid", "nonce", "alg", "tag"})
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="tocsin"'}
_NO_KEY: Final = "tss_" + "A" * 43


def _invalid() -> Refusal:
    return Refusal("ERR_SIG_INVALID", "The signature is not valid.", headers=_CHALLENGE)


def _stale() -> Refusal:
    message = f"The signature is not of now: created must be within {WINDOW_S} s and expires ahead."
    return Refusal("ERR_SIG_TIME", message, headers=_CHALLENGE)


def normal_query(query: Mapping[str, Sequence[str]]) -> str:
    """Query string in normal form, with its question mark: "?a=1&b=x%20y", "?" when there is none."""
    pairs = [(name, value) for name in sorted(query) for value in query[name]]
    return "?" + "&".join(f"{quote(name, safe='-._~')}={quote(value, safe='-._~')}" for name, value in pairs)


def content_digest(body: bytes) -> str:
    """Content-Digest header (RFC 9530) of a body."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode('ascii')}:"


def _field(request: Request, name: str) -> str:
    """A field's value as RFC 9421 §2.1 combines it. Refuses a field that is not there."""
    values = request.headers.get(name)
    if not values:
        raise _invalid()
    return ", ".join(value.strip() for value in values)


def signature_base(request: Request, covered: Sequence[str], parameters: str, path: str) -> bytes:
    """The bytes that are signed (RFC 9421 §2.5); `parameters` is the inner list as it stands in the header."""
    lines = []
    for name in covered:
        match name:
            case "@method":
                value = request.method
            case "@authority":
                value = _field(request, "host").lower()
            case "@path":
                value = path
            case "@query":
                value = normal_query(request.query)
            case _:
                value = _field(request, name)
        lines.append(f'"{name}": {value}')
    return "\n".join([*lines, f'"@signature-params": {parameters}']).encode("utf-8")


def _mac(secret: str, data: bytes) -> bytes:
    return hmac.new(secret.encode("ascii"), data, hashlib.sha256).digest()


def sign(request: Request, secret: str, key_id: str, created: int, nonce: str, label: str = "tocsin") -> dict[str, str]:
    """Headers that sign a request (which carries its host and, with a body, its content-type): for clients.

    `key_id` is the public id, `created` Unix seconds.
    """
    extra, signed = {}, request
    covered = list(REQUIRED)
    if request.body:
        extra["content-digest"] = content_digest(request.body)
        headers = {**request.headers, "content-digest": (extra["content-digest"],)}
        signed = Request(request.method, request.path, "", "", headers, request.query, {}, request.body)
        covered += ["content-type", "content-digest"]
    names = " ".join(f'"{name}"' for name in covered)
    parameters = f'({names});created={created};keyid="{key_id}";nonce="{nonce}";alg="{ALGORITHM}";tag="{TAG}"'
    mac = _mac(secret, signature_base(signed, covered, parameters, request.path))
    value = base64.b64encode(mac).decode("ascii")
    return {**extra, "signature-input": f"{label}={parameters}", "signature": f"{label}=:{value}:"}


@dataclass(frozen=True, slots=True)
class _Claim:
    """A parsed signature: who, when, once, over which bytes of a path, and the MAC."""

    key_id: str
    created: int | None
    expires: int | None
    nonce: str
    mac: bytes
    base: Callable[[str], bytes]


def _parse(request: Request) -> _Claim:
    """A signature in the profile above. Refuses ERR_SIG_INVALID."""
    inputs, signatures = request.headers.get("signature-input", ()), request.headers.get("signature", ())
    if len(inputs) != 1 or len(signatures) != 1 or len(inputs[0]) > MAX_INPUT:
        raise _invalid()
    given, value = _INPUT.fullmatch(inputs[0].strip()), _SIGNATURE.fullmatch(signatures[0].strip())
    if given is None or value is None or given[1] != value[1]:
        raise _invalid()
    listed = given[3].split(" ") if given[3] else []
    covered = [match[1] for match in map(_COMPONENT.fullmatch, listed) if match]
    if len(covered) != len(listed) or len(set(covered)) != len(covered) or not set(REQUIRED) <= set(covered):
        raise _invalid()
    if any(name.startswith("@") and name not in _DERIVED for name in covered):
        raise _invalid()
    parameters: dict[str, str] = {}
    for name, text, number in _PARAMETER.findall(given[4]):
        known = _INTEGERS if number else _STRINGS
        if name in parameters or name not in known:
            raise _invalid()
        parameters[name] = number or text
    if parameters.get("alg", ALGORITHM) != ALGORITHM or parameters.get("tag") != TAG:
        raise _invalid()
    if request.body:
        if not {"content-type", "content-digest"} <= set(covered):
            raise _invalid()
    elif "content-digest" in covered and not request.headers.get("content-digest"):
        raise _invalid()
    if request.body or "content-digest" in covered:
        _check_digest(request)
    created, expires = (int(parameters[name]) if name in parameters else None for name in ("created", "expires"))
    return _Claim(
        key_id=parameters.get("keyid", ""),
        created=created,
        expires=expires,
        nonce=parameters.get("nonce", ""),
        mac=base64.b64decode(value[2]),
        base=lambda path: signature_base(request, covered, given[2], path),
    )


def _check_digest(request: Request) -> None:
    """Every digest the header names must be that of the body; sha-256 must be among them."""
    members = [part.strip() for part in _field(request, "content-digest").split(",")]
    found = {match[1]: match[2] for match in map(_DIGEST.fullmatch, members) if match}
    if len(found) != len(members) or "sha-256" not in found:
        raise _invalid()
    for name, text in found.items():
        expected = hashlib.new(name.replace("-", ""), request.body).digest()
        try:
            sent = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise _invalid() from None
        if not hmac.compare_digest(sent, expected):
            raise _invalid()


class Signatures:
    """Verifies signed requests. `master` derives signing secrets; `prefixes` are what may stand before the
    path of a request when the sender signs its full URL, such as ("", "/live") for an API Gateway stage.
    """

    def __init__(
        self,
        records: KeyStore,
        once: OnceStore,
        master: bytes,
        env: str,
        now: Callable[[], int],
        prefixes: Sequence[str] = ("",),
    ) -> None:
        self._records, self._once, self._master = records, once, master
        self._env, self._now, self._prefixes = env, now, prefixes

    def authenticate(self, request: Request) -> Principal:
        """The caller of a signed request.

        Refuses 401: ERR_SIG_INVALID for anything wrong with the signature, its key or its form; ERR_SIG_TIME
        when created is missing or more than 60 s away, or expires has passed; ERR_AUTH_REVOKED for a proven key
        that has ended; ERR_AUTH_REPLAY for a nonce seen before. Nothing is written before the proof.
        """
        claim = _parse(request)
        now = self._now() // 1000
        if claim.created is None or abs(now - claim.created) > WINDOW_S:
            raise _stale()
        if claim.expires is not None and claim.expires <= now:
            raise _stale()
        if not _NONCE.fullmatch(claim.nonce) or not KEY_ID.fullmatch(claim.key_id):
            raise _invalid()
        record = self._prove(claim, [prefix + request.path for prefix in self._prefixes])
        if record.refusal_code(self._now()):
            raise Refusal("ERR_AUTH_REVOKED", "The key was revoked or has expired.", headers=_CHALLENGE)
        until = (claim.created + 2 * WINDOW_S) * 1000
        if not self._once.first(record.project, f"nonce#{record.key_id}", claim.nonce, until):
            raise Refusal("ERR_AUTH_REPLAY", "The request was sent before; sign each one anew.", headers=_CHALLENGE)
        return Principal(record.project, record.key_id, record.scopes, kind="signature", person=record.owner)

    def authenticate_hook(self, key_id: str, body: bytes, signature: str) -> Principal:
        """The caller of a webhook that is signed as Sentry does it: HMAC-SHA256 of the exact body, in hexadecimal,
        under the signing secret of the key whose public id the address names.

        It has no time and no nonce, so it can be replayed; the same event sent again has one effect. Refuses 401
        ERR_SIG_INVALID and ERR_AUTH_REVOKED.
        """
        named = bool(KEY_ID.fullmatch(key_id))
        record = self._records.get(key_id[4:]) if named else None
        usable = record is not None and record.signing and record.env == self._env
        secret = signing_secret(self._master, key_id[4:]) if usable else _NO_KEY
        expected = _mac(secret, body).hex().encode("ascii")
        if record is None or not usable or not hmac.compare_digest(expected, signature.encode("utf-8", "replace")):
            raise _invalid()
        if record.refusal_code(self._now()):
            raise Refusal("ERR_AUTH_REVOKED", "The key was revoked or has expired.", headers=_CHALLENGE)
        return Principal(record.project, record.key_id, record.scopes, kind="signature", person=record.owner)

    def _prove(self, claim: _Claim, paths: Sequence[str]) -> KeyRecord:
        """The record of the key that made the MAC. An unknown key costs the same and gets the same answer."""
        record = self._records.get(claim.key_id[4:])
        usable = record is not None and record.signing and record.env == self._env
        secret = signing_secret(self._master, claim.key_id[4:]) if usable else _NO_KEY
        proven = [hmac.compare_digest(_mac(secret, claim.base(path)), claim.mac) for path in paths]
        if record is None or not usable or not any(proven):
            raise _invalid()
        return record
