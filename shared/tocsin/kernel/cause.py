"""On whose behalf something is done: said once where work begins, read where its evidence is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cause:
    """`actor` is a key's public id (`key_…`), a pseudonym, or a part of the system (`system:correlate`). `trace_id` is
    that of the request, "" where one piece of work serves many requests.
    """

    actor: str
    trace_id: str = ""


_UNKNOWN: Final = Cause("system:tocsin")
_CAUSE: ContextVar[Cause] = ContextVar("cause", default=_UNKNOWN)


@contextmanager
def acting(actor: str, trace_id: str = "") -> Iterator[None]:
    """Everything done inside is done by `actor`."""
    token = _CAUSE.set(Cause(actor, trace_id))
    try:
        yield
    finally:
        _CAUSE.reset(token)


def cause() -> Cause:
    return _CAUSE.get()
