"""The Alertmanager v2 API besides posting alerts: what amtool, Grafana and Karma read and silence through it.

Posting alerts is a connector (`alertmanager_api`); everything else is answered here over two stores. Statuses and
bodies are Alertmanager's, refusals included: a JSON string, or {code, message} for what its own schema refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tocsin.connectors import alerts, silences
from tocsin.connectors.ports import AlertStore, SilenceStore
from tocsin.kernel import body, clock, strict_json
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Answer, Request

PREFIX: Final = "/alertmanager/api/v2/"
#: (method, path below PREFIX, whether it changes anything). `{id}` is the id of a silence.
ROUTES: Final = (
    ("GET", "alerts", False),
    ("GET", "alerts/groups", False),
    ("GET", "receivers", False),
    ("GET", "silence/{id}", False),
    ("GET", "silences", False),
    ("GET", "status", False),
    ("POST", "silences", True),
    ("DELETE", "silence/{id}", True),
)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status=status, headers=headers or {}, raw=(canonical_json(value).decode(), "application/json"))


def _no_silence() -> Refusal:
    return Refusal("ERR_NOT_FOUND", "silence not found")


def refused(refusal: Refusal) -> Answer:
    """A refusal as Alertmanager says it."""
    status, content = alerts.error_answer(refusal)
    return _json(content, status, refusal.headers)


class Alertmanager:
    """Answers of one project at a time. `started_at` (Unix ms) is shown as uptime."""

    def __init__(
        self,
        kept: AlertStore,
        muted: SilenceStore,
        *,
        started_at: int,
        now: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._alerts, self._silences = kept, muted
        self._started_at, self._now = started_at, now

    def answer(self, request: Request, project: str) -> Answer:
        """The answer to any request below PREFIX but posting alerts; refusals are answered too. Raises Retry."""
        try:
            return self._answer(request, project)
        except Refusal as refusal:
            return refused(refusal)

    def _answer(self, request: Request, project: str) -> Answer:
        rest, now = request.path.removeprefix(PREFIX), self._now()
        name, _, silence_id = rest.partition("/")
        match request.method, name:
            case "GET", "alerts" if rest in ("alerts", "alerts/groups"):
                show = alerts.list_alerts if rest == "alerts" else alerts.list_groups
                wanted = alerts.query(request.query)
                return _json(show(self._alerts.all(project), self._silences.all(project), wanted, now))
            case "GET", "receivers" if rest == "receivers":
                return _json(alerts.receivers())
            case "GET", "status" if rest == "status":
                return _json(alerts.status(self._started_at))
            case "GET", "silences" if rest == "silences":
                filters = [silences.parse_matcher(text) for text in request.query.get("filter", ())]
                return _json(silences.listed(self._silences.all(project), filters, now))
            case "POST", "silences" if rest == "silences":
                return self._silence(request, project, now)
            case ("GET" | "DELETE") as method, "silence":
                held = self._silences.get(project, silence_id)
                if held is None:
                    raise _no_silence()
                if method == "GET":
                    return _json(held.as_json(now))
                self._silences.put(project, silences.expired(held, now))
                return Answer(raw=("", "application/json"))
        raise Refusal("ERR_NOT_FOUND", f"path {strict_json.shown(request.path)} was not found")

    def _silence(self, request: Request, project: str, now: int) -> Answer:
        asked = silences.read(strict_json.read(body.open_body(request).data), now)
        old = self._silences.get(project, asked.id) if asked.id else None
        if asked.id and old is None:
            raise _no_silence()
        kept = silences.placed(asked, old, now)
        for one in kept:
            self._silences.put(project, one)
        return _json({"silenceID": kept[-1].id})
