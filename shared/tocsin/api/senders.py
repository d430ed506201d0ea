"""The door of connect: which connector a request is for, or what it asks of the Alertmanager API."""

from __future__ import annotations

from collections.abc import Callable

from tocsin.access.principals import Principal
from tocsin.api.matching import match, not_found, pick
from tocsin.connectors import alertmanager, credentials, registry
from tocsin.connectors.alertmanager import Alertmanager
from tocsin.connectors.reception import Reception
from tocsin.kernel.cause import acting
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Answer, Request


def answer(
    request: Request,
    admit: Callable[[Request, str], Principal],
    reception: Callable[[], Reception],
    api: Callable[[], Alertmanager],
) -> Answer:
    """Answer one request in its sender's dialect. Raises Refusal ERR_NOT_FOUND for paths of no sender."""
    call = registry.find(request.method, request.path)
    if call is not None:
        return reception().receive(call, request)
    if not request.path.startswith(alertmanager.PREFIX):
        not_found()
    try:
        route = pick(request.method, match(request.path)[0])
        principal = admit(credentials.with_any_key(request), str(route.scope))
    except Refusal as refusal:
        return alertmanager.refused(refusal)
    with acting(principal.credential, request.trace_id):
        return api().answer(request, principal.project)
