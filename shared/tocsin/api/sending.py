"""The door of ingest: which path, method and origin a request must have before anything in it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tocsin.api.headers import cors, preflight
from tocsin.api.matching import allowed, match, not_found, pick
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Answer, Request

#: What the address of the Function URL itself, without a path, stands for.
_ADDRESS = "/v1/events"


def answer(request: Request, origin: str | None, take: Callable[[Request], Answer]) -> Answer:
    """Answer one request to ingest, by either front; `take` authenticates and takes the events.

    `origin` is the one that browsers may call from, if any. Raises Refusal: ERR_NOT_FOUND for paths of no or of
    another function, ERR_METHOD, ERR_ORIGIN, and what `take` raises.
    """
    bare = request.front == "url" and request.path in ("", "/")
    methods, _ = match(_ADDRESS if bare else request.path)
    if request.method == "OPTIONS":
        headers = preflight(request, origin, allowed(methods))
        return Answer(status=204, headers=headers, raw=("", "text/plain"))
    cross = cors(request, origin)
    try:
        if pick(request.method, methods).function != "ingest":
            not_found()
        taken = take(request)
    except Refusal as refusal:
        refusal.headers = {**cross, **refusal.headers}
        raise
    return replace(taken, headers={**cross, **taken.headers})
