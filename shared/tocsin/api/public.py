"""The open routes: whether we are up, and the documentation. They read no project and need no key."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from pathlib import Path
from typing import Final

from tocsin.api.headers import preflight
from tocsin.api.matching import allowed, match, not_found, pick
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Answer, Request

PROBE_TIMEOUT_S: Final = 1.0
#: An answer of the probe serves this long, so that open routes cannot be used to load what is behind them.
_REMEMBER_S: Final = 2.0

#: Redoc styles the page from its script and shows images of the document inline; nothing comes from another
#: host.
_DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data:; font-src "
    "'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Addresses are relative, because the API lives below a stage's path.
_DOCS_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tocsin API</title>
<style>body { margin: 0; font-family: system-ui, sans-serif }</style>
</head>
<body>
<noscript>This page needs JavaScript to show <a href="openapi.json">openapi.json</a>.</noscript>
<redoc spec-url="openapi.json" disable-search="true" native-scrollbars="true"></redoc>
<script src="docs/redoc.js"></script>
</body>
</html>
"""


class Readiness:
    """Asks a probe whether what Tocsin stands on answers; silence for a second counts as no."""

    def __init__(self, probe: Callable[[], bool], timeout_s: float = PROBE_TIMEOUT_S) -> None:
        self._probe, self._timeout_s = probe, timeout_s
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ready")
        self._asked: Future[bool] | None = None
        self._known: tuple[float, bool] | None = None

    def ready(self) -> bool:
        """True when the probe said so within the time limit, now or at most two seconds ago. Raises what it
        raises.
        """
        if self._known is not None and time.monotonic() - self._known[0] < _REMEMBER_S:
            return self._known[1]
        if self._asked is None or self._asked.done():
            self._asked = self._worker.submit(self._probe)
        try:
            up = self._asked.result(self._timeout_s)
        except StillRunning:
            up = False
        self._known = (time.monotonic(), up)
        return up


def answer(request: Request, static: Path, ready: Callable[[], bool]) -> Answer:
    """Answer one request to an open route. `static` holds openapi.json and redoc.js, put there by the
    build.
    """
    methods, _ = match(request.path)
    if request.method == "OPTIONS":
        return Answer(status=204, headers=preflight(request, None, allowed(methods)), raw=("", "text/plain"))
    route = pick(request.method, methods)
    match route.operation_id:
        case "get_alive":
            return Answer(data={"status": "up"})
        case "get_ready":
            up = ready()
            return Answer(data={"status": "up" if up else "down"}, status=200 if up else 503)
        case "get_public_metrics":
            return Answer(data={"status": "up", "version": 1})
        case "get_openapi":
            return Answer(raw=(_read(static / "openapi.json"), "application/json; charset=utf-8"))
        case "get_docs":
            return Answer(raw=(_DOCS_PAGE, route.media), headers={"Content-Security-Policy": _DOCS_POLICY})
        case "get_docs_script":
            kept = {"Cache-Control": "public, max-age=86400"}
            return Answer(raw=(_read(static / "redoc.js"), route.media), headers=kept)
        case _:
            return not_found()  # a keyed route of another function


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Refusal("ERR_UNAVAILABLE", "The documentation was not built into this deployment.") from None
