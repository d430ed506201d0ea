"""Ingest: takes events by POST /v1/events or the Function URL, and puts what is good on the score queue."""

from tocsin import wiring
from tocsin.api import sending
from tocsin.entry import api_entry, note
from tocsin.kernel.http import Answer, Request


def _take(request: Request) -> Answer:
    principal = wiring.admit(request, "ingest:write")
    answer = wiring.intake().accept(request, principal)
    note(project_id=principal.project, **{name: answer.data[name] for name in ("accepted", "duplicates", "refused")})
    return answer


@api_entry
def handler(request: Request) -> Answer:
    return sending.answer(request, wiring.origin(), _take)
