"""What one journal entry holds: who did what to what, when and with which outcome, by digest and pseudonym only.

Because an entry can never be removed, nothing in it may be personal or secret: every field has a grammar too
narrow for free text, and content appears as SHA-256 digests. Deleting a project or a person therefore never
touches the journal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tocsin.kernel.canonical import canonical_json, digest

VERSION: Final = 1
#: Stands as the project of what concerns the deployment as a whole: bootstrap, healing, key rotation.
DEPLOYMENT: Final = "deployment"
OUTCOMES: Final = ("done", "allowed", "refused", "failed")
#: Bytes of one entry; fields are bounded so that it is never reached.
MAX_BYTES: Final = 4_096

_GRAMMAR: Final[Mapping[str, re.Pattern[str]]] = {
    "id": re.compile(r"[A-Za-z0-9][A-Za-z0-9._:#-]{0,199}", re.ASCII),
    "kind": re.compile(r"[a-z][a-z0-9_.]{0,63}", re.ASCII),
    "project": re.compile(r"[a-z0-9][a-z0-9_-]{1,63}", re.ASCII),
    # A pseudonym, a key id, or a part of the system.
    "actor": re.compile(r"usr_[a-z2-7]{26}|key_[A-Za-z0-9-]{1,64}|(?:system|key|admin):[a-z0-9_-]{1,64}", re.ASCII),
    "action": re.compile(r"[a-z][a-z0-9_]{0,31}:[a-z][a-z0-9_.]{0,63}", re.ASCII),
    # A type, and a server-made id. Sender-chosen text does not fit; give its digest instead.
    "resource": re.compile(r"[a-z][a-z0-9_]{0,31}:[A-Za-z0-9][A-Za-z0-9_-]{0,95}", re.ASCII),
    "trace_id": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}", re.ASCII),
}
_DIGEST_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_FIELDS: Final = frozenset({"v", "at", "outcome", "digests", *_GRAMMAR})


def content_digest(value: Any) -> str:
    """`sha256:<hex>` of a JSON value's canonical form, or of bytes as they are."""
    raw = hashlib.sha256(value).digest() if isinstance(value, bytes) else digest(value)
    return f"sha256:{raw.hex()}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `at` is Unix ms; `digests` names what was digested, such as {"request": "sha256:…"}.

    `id` is unique over the whole journal, so that an entry sealed twice would show. Raises ValueError naming
    the field that does not fit its grammar, never its value.
    """

    id: str
    kind: str
    at: int
    project: str
    actor: str
    action: str
    resource: str
    trace_id: str
    outcome: str
    digests: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, grammar in _GRAMMAR.items():
            value = getattr(self, name)
            if not isinstance(value, str) or not grammar.fullmatch(value):
                raise ValueError(f"{name} does not fit its grammar")
        if not isinstance(self.at, int) or isinstance(self.at, bool) or not 0 <= self.at < 1 << 53:
            raise ValueError("at is not a time in ms")
        if self.outcome not in OUTCOMES:
            raise ValueError("outcome is not one of " + ", ".join(OUTCOMES))
        if not isinstance(self.digests, Mapping) or len(self.digests) > 16:
            raise ValueError("digests is not a map of at most 16")
        for name, value in self.digests.items():
            if not _DIGEST_NAME.fullmatch(name) or not isinstance(value, str) or not _DIGEST.fullmatch(value):
                raise ValueError("digests holds something that is not a named sha256")

    def payload(self) -> dict[str, Any]:
        """The entry as a JSON object; also the payload of an evidence row in the outbox."""
        fields = {name: getattr(self, name) for name in ("id", "kind", "at", "project", "actor", "action")}
        fields |= {name: getattr(self, name) for name in ("resource", "trace_id", "outcome")}
        return {"v": VERSION, **fields, "digests": dict(self.digests)}

    def leaf(self) -> bytes:
        """The bytes that are hashed: RFC 8785. Names are ASCII, numbers whole and below 2^53, so the kernel's
        canonical form is that of RFC 8785."""
        return canonical_json(self.payload())

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Entry:
        """Raises ValueError for anything that payload() does not make."""
        if payload.keys() != _FIELDS or payload["v"] != VERSION:
            raise ValueError("not the fields of a journal entry")
        return cls(**{name: value for name, value in payload.items() if name != "v"})


def sealables(row_id: str, project: str, at: int, payload: Any) -> list[Entry]:
    """The entries of an evidence row, {"entries": […]}; at least one."""
    entries = payload.get("entries") if isinstance(payload, dict) else None
    if not isinstance(entries, list) or not entries:
        return [sealable(row_id, project, at, payload)]
    return [sealable(f"{row_id}#{number}", project, at, one) for number, one in enumerate(entries)]


def sealable(row_id: str, project: str, at: int, payload: Any) -> Entry:
    """One entry of an evidence row. A payload that is not an entry is recorded by digest alone: what happened
    is not lost, what it said does not enter the journal, and the log is not stopped by it."""
    try:
        entry = Entry.from_payload(payload)
        if entry.project != project:
            raise ValueError("the project of the row is another")
    except (ValueError, TypeError, AttributeError):
        raw = canonical_json(payload) if isinstance(payload, dict) else repr(payload).encode()
        marker = hashlib.sha256(row_id.encode()).hexdigest()[:32]
        return Entry(
            id=f"mal_{marker}",
            kind="journal.malformed",
            at=at,
            project=project,
            actor="system:journal",
            action="journal:seal",
            resource=f"evidence:{marker}",
            trace_id=marker,
            outcome="failed",
            digests={"payload": content_digest(raw)},
        )
    return entry
