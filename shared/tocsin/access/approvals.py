"""Four-eyes approvals: a dangerous request is described, approved by a second person, and then carried out once.

    pending ──approve──▶ approved ──use──▶ used
       ├──────reject───▶ rejected
       └──24 h─────────▶ expired  ◀──24 h── approved

An approval fits one request only: method, path, query and body are hashed, and the hash is checked again when
the request arrives. Who may approve is compared by person, along the chain in which keys were made, because
whoever made a key has seen it. Every step is a write over the version that was read, so that of two racing
decisions or uses one wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from tocsin.access.ports import ApprovalStore
from tocsin.access.principals import Principal
from tocsin.access.projects import closed, refuse
from tocsin.kernel import clock
from tocsin.kernel.canonical import canonical_json, digest
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.ids import new_id

Json = dict[str, Any]
#: How long an approval lives from its request, in ms, whatever becomes of it.
LIFE: Final = 24 * clock.HOUR
MAX_BODY_BYTES: Final = 16_384
SCOPE: Final = "approvals:approve"
APPROVAL_ID = re.compile(r"apr_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
METHODS: Final = ("DELETE", "PATCH", "POST", "PUT")
_PATH = re.compile(r"/[\x21-\x7e]{0,511}", re.ASCII)
_READONLY: Final = frozenset(
    ("id", "status", "request_hash", "requested_by", "decided_by", "decided_at", "used_at", "expires_at", "version")
)


def request_hash(project: str, method: str, path: str, query: Mapping[str, Sequence[str]], body: Any) -> str:
    """SHA-256 (64 hex digits) that names one request of one project.

    `path` is the path as sent, `query` its decoded parameters, `body` the JSON value or None: two texts of the
    same JSON are the same request, any other difference is another one.
    """
    pairs = [[name, list(values)] for name, values in sorted(query.items())]
    described = {"v": 1, "project": project, "method": method, "path": path, "query": pairs, "body": body}
    return digest(described).hex()


class Standing(Protocol):
    """Who stands behind a key, read fresh. Implemented by tocsin.access.admin.Directory."""

    def scopes_of(self, project: str, credential: str) -> frozenset[str]:
        """Scopes held now; none for revoked, expired and unknown keys and removed people."""

    def related(self, one: str, other: str) -> bool:
        """Whether two credentials belong to one person or one was made by way of the other."""


@dataclass(frozen=True, slots=True)
class Approval:
    """One approval. Times are Unix ms. `described` is what the approver is shown: method, path, query, body."""

    id: str
    project: str
    request_hash: str
    described: Json
    reason: str
    requested_by: str
    requested_at: int
    status: str = "pending"
    decided_by: str = ""
    decided_at: int | None = None
    note: str = ""
    used_at: int | None = None
    version: int = 1

    @property
    def expires_at(self) -> int:
        return self.requested_at + LIFE

    def status_at(self, now: int) -> str:
        """The status that counts: what was left undecided or unused for 24 h has expired."""
        return "expired" if self.status in ("pending", "approved") and now >= self.expires_at else self.status

    def as_json(self, now: int) -> Json:
        """Public form."""
        return {
            "id": self.id,
            "status": self.status_at(now),
            "request": self.described,
            "request_hash": self.request_hash,
            "reason": self.reason,
            "requested_by": self.requested_by,
            "requested_at": clock.rfc3339(self.requested_at),
            "expires_at": clock.rfc3339(self.expires_at),
            "decided_by": self.decided_by or None,
            "decided_at": clock.rfc3339(self.decided_at) if self.decided_at else None,
            "note": self.note or None,
            "used_at": clock.rfc3339(self.used_at) if self.used_at else None,
            "version": self.version,
        }


def _text(value: Any, where: str, details: list[Detail]) -> str:
    if isinstance(value, str) and len(value) <= 500 and not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", value):
        return value
    details.append(Detail(where, "text", "send at most 500 characters"))
    return ""


def parse_described(project: str, value: Any) -> tuple[Json, str]:
    """(described, request hash) of {"method", "path", "query"?, "body"?}. Refuses ERR_SCHEMA."""
    wanted, details = closed(value, ("method", "path", "query", "body"), ()), list[Detail]()
    method, path, query = wanted.get("method"), wanted.get("path"), wanted.get("query") or {}
    if method not in METHODS:
        details.append(Detail("request.method", "choice", f"send one of {', '.join(METHODS)}"))
    if not isinstance(path, str) or not _PATH.fullmatch(path) or "?" in path or "#" in path:
        details.append(Detail("request.path", "path", "send the path without host and query"))
    pairs: dict[str, list[str]] = {}
    if not isinstance(query, Mapping) or len(query) > 20:
        details.append(Detail("request.query", "object", "send names with their values, at most 20"))
    else:
        for name, sent in query.items():
            values = sent if isinstance(sent, list) else [sent]
            if not all(isinstance(one, str) and len(one) <= 512 for one in values) or len(values) > 10:
                details.append(Detail("request.query", "text", "send each value as a string"))
            pairs[name] = values
    document = wanted.get("body")
    if len(canonical_json(document)) > MAX_BODY_BYTES:
        details.append(Detail("request.body", "size", f"send a body of at most {MAX_BODY_BYTES} bytes"))
    if details:
        raise refuse(details, "Not a description of a request.")
    described = {"method": method, "path": path, "query": pairs, "body": document}
    return described, request_hash(project, str(method), str(path), pairs, document)


def parse_request(project: str, body: Any) -> tuple[Json, str, str]:
    """(described, request hash, reason) of {"request": {"method", "path", "query"?, "body"?}, "reason"?}."""
    sent, details = closed(body, ("request", "reason"), _READONLY), list[Detail]()
    reason = _text(sent.get("reason", ""), "reason", details)
    if details:
        raise refuse(details, "Not a request for approval.")
    return *parse_described(project, sent.get("request")), reason


def _used(message: str) -> Refusal:
    fix = "Request a new approval for this exact request at POST /v1/approvals."
    return Refusal("ERR_APPROVAL_USED", message, [Detail("x-approval", "single-use", fix)])


class Approvals:
    """The state machine over a store. Callers' scopes are looked up when it matters, not taken on trust."""

    def __init__(self, store: ApprovalStore, standing: Standing) -> None:
        self._store, self._standing = store, standing

    def get(self, project: str, approval_id: str) -> Approval:
        """One approval of the project, else 404."""
        found = self._store.get(project, approval_id) if APPROVAL_ID.fullmatch(approval_id) else None
        if found is None:
            raise Refusal("ERR_NOT_FOUND", "There is no such approval.")
        return found

    def request(self, caller: Principal, body: Any, now: int) -> Approval:
        """Ask for approval of one exact request, which the same person will send."""
        described, hashed, reason = parse_request(caller.project, body)
        made = Approval(new_id("apr", now), caller.project, hashed, described, reason, caller.credential, now)
        if not self._store.put(made, 0):
            raise Refusal("ERR_CONFLICT", "The approval could not be made; send the request again.")
        return made

    def decide(self, caller: Principal, approval_id: str, approve: bool, now: int, note: str = "") -> Approval:
        """Approve or reject what is pending. Refuses ERR_SELF_APPROVAL for the requester and everybody related,
        ERR_SCOPE for who no longer holds approvals:approve, ERR_APPROVAL_USED when it is no longer pending.

        The requester may reject, which withdraws the request.
        """
        found = self.get(caller.project, approval_id)
        own = self._standing.related(found.requested_by, caller.credential)
        if approve and own:
            fix = "Ask a person who has no part in the requester's keys."
            raise Refusal(
                "ERR_SELF_APPROVAL", "Nobody approves their own request.", [Detail("id", "second-person", fix)]
            )
        if not own:
            self._require(caller.project, caller.credential, "You no longer hold")
        if found.status_at(now) != "pending":
            raise _used(f"The approval is {found.status_at(now)}.")
        status = "approved" if approve else "rejected"
        details: list[Detail] = []
        after = replace(
            found,
            status=status,
            decided_by=caller.credential,
            decided_at=now,
            note=_text(note, "note", details),
            version=found.version + 1,
        )
        if details:
            raise refuse(details, "Not a decision.")
        return self._save(found, after)

    def use(self, caller: Principal, approval_id: str | None, hashed: str, now: int) -> Approval:
        """Spend an approval on the request with this hash, before the request takes effect.

        Refuses ERR_APPROVAL_REQUIRED without one and while it is pending; ERR_APPROVAL_USED for one that is
        used, rejected, expired or of another request; ERR_SCOPE when the approver has lost the role since;
        ERR_NOT_FOUND for another project's. Exactly one call ever succeeds.
        """
        if not approval_id:
            fix = "Request an approval of this exact request at POST /v1/approvals and send its id in X-Approval."
            detail = Detail("x-approval", "second-person", fix)
            raise Refusal("ERR_APPROVAL_REQUIRED", "This needs a second person's approval.", [detail])
        found = self.get(caller.project, approval_id)
        status = found.status_at(now)
        if found.request_hash != hashed:
            raise _used("The approval is of another request.")
        if status == "pending":
            detail = Detail("x-approval", "approved", "Wait until a second person has approved it.")
            raise Refusal("ERR_APPROVAL_REQUIRED", "The approval is still pending.", [detail])
        if status != "approved":
            raise _used(f"The approval is {status}.")
        if caller.credential != found.requested_by:
            raise _used("The approval was requested by another key.")
        self._require(caller.project, found.decided_by, "The approver no longer holds")
        if self._standing.related(found.requested_by, found.decided_by):
            raise Refusal("ERR_SELF_APPROVAL", "Requester and approver turned out to be related.")
        return self._save(found, replace(found, status="used", used_at=now, version=found.version + 1))

    def page(self, project: str, position: str | None, limit: int) -> tuple[Sequence[Approval], str | None]:
        """Approvals of a project, newest first."""
        return self._store.page(project, position, limit)

    def _require(self, project: str, credential: str, who: str) -> None:
        held = self._standing.scopes_of(project, credential)
        if SCOPE not in held and "approvals:*" not in held:
            fix = f"Somebody who holds {SCOPE} now must approve."
            raise Refusal("ERR_SCOPE", f"{who} {SCOPE}.", [Detail("scope", SCOPE, fix)])

    def _save(self, before: Approval, after: Approval) -> Approval:
        if not self._store.put(after, before.version):
            raise _used("The approval was decided or used meanwhile.")
        return after
