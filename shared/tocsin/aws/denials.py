"""Who was turned away: requests refused for who sent them or what they may do leave evidence for the journal.

What is wrong with a request itself (its body, its query) is not here but in the log line of the request: it changes
nothing and a row for each would let anybody fill the table. For the same reason one row stands for all denials of a
minute that agree in caller, code and operation, and a process writes a bounded number of rows in a minute.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final

from tocsin.access.limits import source_of
from tocsin.access.principals import Principal
from tocsin.aws import evidence
from tocsin.aws.outbox import outbox_writes
from tocsin.aws.table import Table
from tocsin.journal.entries import DEPLOYMENT
from tocsin.kernel import clock
from tocsin.kernel.cause import acting

#: Codes of requests that are turned away for who sent them or what they may do.
DENIED: Final = frozenset(
    (
        *("ERR_ADMIN_TOKEN", "ERR_APPROVAL_REQUIRED", "ERR_APPROVAL_USED", "ERR_AUTH_AMBIGUOUS", "ERR_AUTH_ENV"),
        *("ERR_AUTH_INVALID", "ERR_AUTH_MISSING", "ERR_AUTH_REPLAY", "ERR_AUTH_REVOKED", "ERR_EGRESS_DENIED"),
        *("ERR_FLAG_OFF", "ERR_ORIGIN", "ERR_PROJECT_DELETED", "ERR_QUARANTINED", "ERR_RATE_LIMITED", "ERR_SCOPE"),
        *("ERR_SELF_APPROVAL", "ERR_SIG_INVALID", "ERR_SIG_TIME", "ERR_TARGET_DENIED"),
    )
)
#: Rows that one process writes in a minute; what is beyond is in the log only. Strangers do not use up what is kept for
#: callers with a credential.
MOST: Final = 60
MOST_CALLERS: Final = 600


class Denials:
    """Writes denials. `secret` keys the hash by which the journal names a source that showed no valid credential."""

    def __init__(self, table: Table, secret: Callable[[], bytes]) -> None:
        self._table, self._secret = table, secret
        self._process = secrets.token_hex(8)
        self._minute, self._noted = 0, (set[tuple[str, ...]](), set[tuple[str, ...]]())

    def note(self, code: str, operation: str, caller: Principal | None, address: str, trace_id: str, now: int) -> bool:
        """Leave evidence of a denial; whether a row was written for it. Raises Retry and errors of the table."""
        minute = now // clock.MINUTE
        if minute != self._minute:
            self._minute, self._noted = minute, (set(), set())
        noted, most = (self._noted[1], MOST_CALLERS) if caller else (self._noted[0], MOST)
        who = caller.credential if caller else source_of(address)
        same = (who, code, operation)
        if code not in DENIED or same in noted or len(noted) >= most:
            return False
        noted.add(same)
        project = caller.project if caller else DEPLOYMENT
        resource = ("key", who) if caller else ("source", self._source(who))
        with acting(who if caller else "system:nobody", trace_id):
            left = evidence.of_denial(project, code, operation, resource, now, (self._process,))
        self._table.transact(outbox_writes(self._table, [left], now))
        return True

    def _source(self, source: str) -> str:
        return hmac.new(self._secret(), b"tocsin:denied:" + source.encode(), hashlib.sha256).hexdigest()[:32]
