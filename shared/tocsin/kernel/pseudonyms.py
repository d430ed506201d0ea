"""Keyed pseudonyms: a person stays recognisable as the same person inside one project, and nowhere else.

`usr_` + 26 base32 characters (130 bits) of HMAC-SHA256(project key, value). Without the key a guessed e-mail
address cannot be confirmed, and the same person has unrelated pseudonyms in two projects. Destroying the key
unlinks them all.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from tocsin.kernel.ids import PSEUDONYM
from tocsin.kernel.redaction import Redactor, words

MIN_KEY_BYTES: Final = 16
#: Field names (as words run together) whose text identifies a user: `user.id`, `userId`, `user`,
# `enduser.id`, ...
USER_FIELDS: Final = frozenset(
    ("user", "userid", "username", "useremail", "uid", "enduser", "enduserid", "customerid", "actorid")
)
#: Members of a mapping called `user` that identify the user.
USER_MEMBERS: Final = frozenset({"id", "name", "username", "email", "login", "fullname"})
#: Entity types whose id identifies a user.
USER_ENTITIES: Final = frozenset({"user", "enduser", "customer", "person"})
_EMAIL_LIKE: Final = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")


def project_key(master: bytes, project: str) -> bytes:
    """A project's 32-byte pseudonym key, derived from the deployment's secret by HMAC-SHA256."""
    if len(master) < MIN_KEY_BYTES:
        raise ValueError(f"the pseudonym secret must hold at least {MIN_KEY_BYTES} bytes")
    return hmac.new(master, b"tocsin:pseudonym:" + project.encode("utf-8"), hashlib.sha256).digest()


class Pseudonyms:
    """Pseudonyms under one project's key (at least 16 bytes)."""

    def __init__(self, key: bytes) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise ValueError(f"the pseudonym key must hold at least {MIN_KEY_BYTES} bytes")
        self._key = key

    def of(self, value: str) -> str:
        """The pseudonym of a value. Surrounding blanks, compatibility forms and the case of e-mail addresses
        do not count; a pseudonym is its own pseudonym, so that treating an event twice changes nothing."""
        if PSEUDONYM.fullmatch(value):
            return value
        plain = unicodedata.normalize("NFKC", value).strip()
        if "@" in plain:
            plain = plain.casefold()
        mac = hmac.new(self._key, plain.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return "usr_" + base64.b32encode(mac).decode("ascii").lower()[:26]

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of an event whose user identifiers are pseudonyms: user fields of `tags` and `extras` (any
        depth), `entity.id` of a user or in the form of an e-mail address, and those values inside
        `dedup_key`.

        Runs before redaction, which would turn all addresses into the same word. Untouched parts are shared.
        """
        out = dict(event)
        known: dict[str, str] = {}
        for name in ("tags", "extras"):
            if isinstance(event.get(name), Mapping):
                out[name] = self._members(event[name], known)
        entity = event.get("entity")
        if isinstance(entity, Mapping) and isinstance(entity.get("id"), str):
            of_user = "".join(words(str(entity.get("type", "")))) in USER_ENTITIES
            if of_user or _EMAIL_LIKE.fullmatch(entity["id"]):
                out["entity"] = {**entity, "id": self._noted(entity["id"], known)}
        key = event.get("dedup_key")
        if known and isinstance(key, str):
            for value in sorted(known, key=len, reverse=True):
                key = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", known[value], key)
            out["dedup_key"] = key
        return out

    def _noted(self, value: str, known: dict[str, str]) -> str:
        if not value.strip():
            return value
        return known.setdefault(value, self.of(value))

    def _members(self, members: Mapping[str, Any], known: dict[str, str], of_user: bool = False) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, value in members.items():
            plain = "".join(words(name))
            wanted = plain in USER_FIELDS or (of_user and plain in USER_MEMBERS)
            out[name] = self._part(value, known, wanted, plain in ("user", "enduser"))
        return out

    def _part(self, value: Any, known: dict[str, str], wanted: bool, of_user: bool) -> Any:
        if isinstance(value, str):
            return self._noted(value, known) if wanted else value
        if wanted and isinstance(value, int) and not isinstance(value, bool):
            return self._noted(str(value), known)
        if isinstance(value, Mapping):
            return self._members(value, known, of_user)
        if isinstance(value, list):
            return [self._part(part, known, wanted, of_user) for part in value]
        return value


def protect(event: Mapping[str, Any], redactor: Redactor, pseudonyms: Pseudonyms) -> dict[str, Any]:
    """An event as it may be stored: users first (redaction would make them all equal), then the rest."""
    return redactor.event(pseudonyms.event(event), pseudonyms.of)
