"""Who is calling and what they may do: an API key becomes a Principal with scopes, or a uniform refusal.

Scopes are `family:verb`. A held `family:*` covers every verb of that family and nothing else: no scope covers
several families, and `admin:*` is the admin family only, so an administrator's key cannot send events unless
it also holds `ingest:write`. Verbs do not imply each other (`write` does not include `read`).
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from tocsin.access import keys
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.http import Request

FAMILIES: Final = frozenset(
    (
        *("admin", "approvals", "contracts", "decisions", "defend", "evals", "events", "feeds", "incidents"),
        *("ingest", "jobs", "journal", "llm", "map", "notify", "policies", "publish", "social", "tokens", "topology"),
        "use",
    )
)
#: The family whose verbs are a project's own words: what contracts of services ask their callers to hold.
USE: Final = "use"
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,63}", re.ASCII)
VERBS: Final = frozenset({"read", "write", "run", "approve", "*"})
MAX_SCOPES: Final = 32
#: Longest time, in seconds, for which a revoked key may still be answered from a cache.
MAX_CACHE_SECONDS: Final = 30.0

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="tocsin"'}  # RFC 9110 §11.6.1: every 401 carries one
_NO_RECORD: Final = bytes(32)


def valid_scope(text: str) -> bool:
    """Whether `text` is exactly one scope of the grammar: a known family, a colon, a known verb or `*`; after `use:`
    any word of a contract.
    """
    family, colon, verb = text.partition(":")
    if family == USE:
        return verb == "*" or _WORD.fullmatch(verb) is not None
    return bool(colon) and family in FAMILIES and verb in VERBS


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller: its project, the key it goes back to, its scopes, how it proved itself ("key",
    "token" or "signature"), and the person the key belongs to ("" when nobody was named).
    """

    project: str
    key_id: str
    scopes: frozenset[str]
    kind: str = "key"
    person: str = ""

    @property
    def credential(self) -> str:
        """Public id of the key, `key_` + 12 characters; what `created_by` and `requested_by` hold."""
        return f"key_{self.key_id}"

    def allows(self, scope: str) -> bool:
        """Whether this caller holds `scope`, by name or by its family's `*`. Unknown ones are never held."""
        return valid_scope(scope) and (scope in self.scopes or f"{scope.partition(':')[0]}:*" in self.scopes)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is stored of an API key. Times are Unix ms; `hash` is keys.stored_hash of the whole key.

    `created_by` is the public id of the key that made this one ("" for a key of the deployment's bootstrap).
    `owner` is the person it belongs to. `signing` tells that its holder also has its signing secret.
    """

    key_id: str
    project: str
    env: str
    hash: bytes
    scopes: frozenset[str]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    name: str = ""
    last_four: str = ""
    created_by: str = ""
    owner: str = ""
    signing: bool = False
    last_used_at: int | None = None

    def refusal_code(self, now: int) -> str | None:
        """ERR_AUTH_REVOKED once the key was revoked or has expired; None while it is good."""
        ended = [at for at in (self.revoked_at, self.expires_at) if at is not None and at <= now]
        return "ERR_AUTH_REVOKED" if ended else None


class KeyStore(Protocol):
    """Port: where key records are found."""

    def get(self, key_id: str) -> KeyRecord | None:
        """The record of a key id, or None. Raises Retry when the store cannot answer."""


class CachedKeyStore:
    """Keeps answers of a KeyStore for a few seconds, so that a busy key costs no read per request.

    Found and unknown ids are kept apart and each side is bounded (`size` entries, least recently used leaves
    first): a flood of made-up ids pushes out other made-up ids, never a real key. This process sees a
    revocation after at most `ttl_s` (0 < ttl_s <= 30). `clock_s` is monotonic seconds.
    """

    def __init__(self, store: KeyStore, clock_s: Callable[[], float], ttl_s: float = 20.0, size: int = 1024) -> None:
        if not 0 < ttl_s <= MAX_CACHE_SECONDS:
            raise ValueError(f"ttl_s must be above 0 and at most {MAX_CACHE_SECONDS:g}")
        if size < 1:
            raise ValueError("size must be at least 1")
        self._store, self._clock_s, self._ttl_s, self._size = store, clock_s, ttl_s, size
        self._found: OrderedDict[str, tuple[float, KeyRecord | None]] = OrderedDict()
        self._unknown: OrderedDict[str, tuple[float, KeyRecord | None]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key_id: str) -> KeyRecord | None:
        """The record as it was at most `ttl_s` ago, or None."""
        now = self._clock_s()
        with self._lock:
            for side in (self._found, self._unknown):
                entry = side.get(key_id)
                if entry is not None and now - entry[0] < self._ttl_s:
                    side.move_to_end(key_id)
                    return entry[1]
        record = self._store.get(key_id)
        with self._lock:
            self._found.pop(key_id, None)
            self._unknown.pop(key_id, None)
            side = self._unknown if record is None else self._found
            side[key_id] = (now, record)
            if len(side) > self._size:
                side.popitem(last=False)
        return record

    def forget(self, key_id: str) -> None:
        """Drop what is kept about a key, for the process that has just revoked it."""
        with self._lock:
            self._found.pop(key_id, None)
            self._unknown.pop(key_id, None)


def _refuse(code: str, message: str) -> Refusal:
    return Refusal(code, message, headers=_CHALLENGE if code != "ERR_AUTH_AMBIGUOUS" else {})


def _values(request: Request, name: str) -> Iterable[str]:
    """Non-empty values of a header. A Function URL joins repeated ones by a comma, which no key contains."""
    for value in request.headers.get(name, ()):
        joined = name == "x-api-key" or value.lower().count("bearer ") > 1
        for part in value.split(",") if joined else [value]:
            if part.strip(" \t"):
                yield part.strip(" \t")


def credential(request: Request) -> str:
    """The one API key a request carries in X-Api-Key or `Authorization: Bearer`, as sent and not yet checked.

    Raises Refusal: ERR_AUTH_MISSING for none, ERR_AUTH_AMBIGUOUS (400) for two that differ; equal ones count
    as one. An Authorization of another scheme counts as a credential that matches no key.
    """
    found = set(_values(request, "x-api-key"))
    for value in _values(request, "authorization"):
        scheme, _, token = value.partition(" ")
        found.add(token.strip(" \t") if scheme.lower() == "bearer" else f"not a bearer token: {value}")
    if len(found) > 1:
        raise _refuse("ERR_AUTH_AMBIGUOUS", "The request carries credentials that differ; send one.")
    if not found:
        raise _refuse("ERR_AUTH_MISSING", "Send an API key in X-Api-Key or in Authorization: Bearer.")
    return found.pop()


def carries_token(request: Request) -> bool:
    """Whether a bearer credential is meant as a token; keys hold no dot."""
    return any("." in value for value in _values(request, "authorization") if value.lower().startswith("bearer "))


def carries_key(request: Request) -> bool:
    """Whether a request carries a credential that is meant as a key."""
    return "x-api-key" in request.headers or ("authorization" in request.headers and not carries_token(request))


def carries_signature(request: Request) -> bool:
    """Whether a request is signed, or half of it is."""
    return "signature" in request.headers or "signature-input" in request.headers


def shown_signature(request: Request) -> str:
    """What stands for the credential of a signed request: the signature itself, which no two requests share."""
    return "\n".join(request.headers.get("signature", ()))


def authenticate(request: Request, store: KeyStore, pepper: bytes, now: int, env: str) -> Principal:
    """The caller of a request. `now` is Unix ms, `env` is what this stage serves ("live" or "test").

    Malformed keys and keys of the other environment are refused before `store` is read. An unknown id costs
    the same HMAC and comparison as a known one, and gets the same answer as a wrong secret. Only a caller who
    proves the secret learns that the key was revoked or has expired; both are ERR_AUTH_REVOKED, as the remedy
    (a new key) is the same. Raises Refusal: ERR_AUTH_MISSING, _INVALID, _ENV, _REVOKED (401),
    ERR_AUTH_AMBIGUOUS (400).
    """
    text = credential(request)
    parsed = keys.parse(text)
    if parsed is None:
        raise _refuse("ERR_AUTH_INVALID", "The API key is not valid.")
    if parsed.env != env:
        raise _refuse("ERR_AUTH_ENV", f"This is a {parsed.env} key and this stage takes {env} keys.")
    record = store.get(parsed.key_id)
    proven = keys.verify(pepper, text, record.hash if record is not None else _NO_RECORD)
    if record is None or not proven or record.env != env:
        raise _refuse("ERR_AUTH_INVALID", "The API key is not valid.")
    if record.revoked_at is not None and record.revoked_at <= now:
        raise _refuse("ERR_AUTH_REVOKED", "The API key was revoked; use another one.")
    if record.expires_at is not None and record.expires_at <= now:
        raise _refuse("ERR_AUTH_REVOKED", "The API key has expired; use another one.")
    return Principal(record.project, record.key_id, record.scopes, person=record.owner)


def require(principal: Principal, scope: str) -> None:
    """Refuse (403 ERR_SCOPE) unless the caller holds `scope`; the refusal names it and the way to get it."""
    if principal.allows(scope):
        return
    fix = f"Ask a holder of admin:write in this project for a key that has {scope}, and send that key."
    raise Refusal("ERR_SCOPE", f"The key lacks the scope {scope}.", [Detail("scope", scope, fix)])


def parse_scopes(values: Iterable[object], granter: Principal | None = None) -> frozenset[str]:
    """Scopes asked for a new key, checked one by one. Raises Refusal ERR_SCHEMA naming each wrong one.

    1 to 32 scopes. With a `granter`, a scope is given only by a caller who holds it: nobody grants more than
    they have.
    """
    wanted = list(values)
    wrong: list[Detail] = []
    if not 1 <= len(wanted) <= MAX_SCOPES:
        wrong.append(Detail("scopes", "count", f"Send 1 to {MAX_SCOPES} scopes."))
    for index, scope in enumerate(wanted[:MAX_SCOPES]):
        if not isinstance(scope, str) or not valid_scope(scope):
            fix = f"Send family:verb with a family of {', '.join(sorted(FAMILIES))} and a verb of "
            wrong.append(Detail(f"scopes[{index}]", "scope", fix + ", ".join(sorted(VERBS)) + "."))
        elif granter is not None and not granter.allows(scope):
            wrong.append(Detail(f"scopes[{index}]", "grant", f"Only a holder of {scope} can give it."))
    if wrong:
        raise Refusal("ERR_SCHEMA", "The scopes are not valid.", wrong)
    return frozenset(str(scope) for scope in wanted)
