"""The one error tree: a thing is either refused (the caller must change it) or retried (time may heal it).

    TocsinError
    ├── Refusal   the request or message is wrong; repeating it cannot help. Carries an HTTP status and a public code.
    └── Retry     a dependency or a race got in the way; the same work may succeed later.

Anything else that is raised is a defect: the entry points turn it into 500 ERR_INTERNAL or a failed message, with
the details in the log only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Public error codes and their HTTP status. A code not listed here cannot be raised.
CODES: Mapping[str, int] = {
    "ERR_ADMIN_TOKEN": 403,
    "ERR_AMBIGUOUS": 409,
    "ERR_APPROVAL_REQUIRED": 403,
    "ERR_APPROVAL_USED": 409,
    "ERR_AUTH_AMBIGUOUS": 400,
    "ERR_AUTH_ENV": 401,
    "ERR_AUTH_INVALID": 401,
    "ERR_AUTH_MISSING": 401,
    "ERR_AUTH_REPLAY": 401,
    "ERR_AUTH_REVOKED": 401,
    "ERR_BATCH_TOO_LARGE": 400,
    "ERR_BODY_ENCODING": 400,
    "ERR_BODY_REQUIRED": 400,
    "ERR_BODY_TOO_LARGE": 413,
    "ERR_CONFLICT": 409,
    "ERR_CONTENT_TYPE": 415,
    "ERR_CURSOR": 400,
    "ERR_DECOMPRESSED_TOO_LARGE": 413,
    "ERR_EGRESS_DENIED": 400,
    "ERR_EVENT_TOO_LARGE": 413,
    "ERR_FLAG_OFF": 403,
    "ERR_HEADERS_TOO_LARGE": 431,
    "ERR_IDEMPOTENCY_MISMATCH": 422,
    "ERR_INTERNAL": 500,
    "ERR_JSON_DEPTH": 400,
    "ERR_JSON_DUPLICATE_KEY": 400,
    "ERR_JSON_ENCODING": 400,
    "ERR_JSON_NONFINITE": 400,
    "ERR_JSON_NUMBER_RANGE": 400,
    "ERR_JSON_SIZE": 400,
    "ERR_JSON_SYNTAX": 400,
    "ERR_METHOD": 405,
    "ERR_NOT_FOUND": 404,
    "ERR_ORIGIN": 403,
    "ERR_PARTIAL": 207,
    "ERR_PROJECT_DELETED": 410,
    "ERR_QUARANTINED": 403,
    "ERR_QUERY": 400,
    "ERR_RATE_LIMITED": 429,
    "ERR_READONLY_FIELD": 400,
    "ERR_SCHEMA": 400,
    "ERR_SCOPE": 403,
    "ERR_SELF_APPROVAL": 403,
    "ERR_SIG_INVALID": 401,
    "ERR_SIG_TIME": 401,
    "ERR_TARGET_DENIED": 403,
    "ERR_TIMESTAMP_RANGE": 400,
    "ERR_UNAVAILABLE": 503,
    "ERR_UNSUPPORTED_EVENT": 400,
    "ERR_URL": 400,
}


@dataclass(frozen=True, slots=True)
class Detail:
    """One reason of a refusal: which field, which rule it broke, and what to send instead."""

    field: str
    rule: str
    fix: str

    def as_json(self) -> dict[str, str]:
        return {"field": self.field, "rule": self.rule, "fix": self.fix}


class TocsinError(Exception):
    """Root of everything Tocsin raises on purpose."""


@dataclass(eq=False)
class Refusal(TocsinError):
    """The caller's input is refused; nothing was written. `code` must be one of CODES."""

    code: str
    message: str
    details: Sequence[Detail] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.message)
        self.status = CODES[self.code]


@dataclass(eq=False)
class Retry(TocsinError):
    """The work could not be finished now and is safe to repeat. `after_s` is advice in seconds."""

    reason: str
    after_s: float = 1.0

    def __post_init__(self) -> None:
        super().__init__(self.reason)
