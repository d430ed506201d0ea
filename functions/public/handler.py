"""Public: the open routes, health and documentation. Called by API Gateway without a key."""

from pathlib import Path

from tocsin import wiring
from tocsin.api import public
from tocsin.entry import api_entry
from tocsin.kernel.http import Answer, Request

_STATIC = Path(__file__).parent / "static"
_READINESS = public.Readiness(lambda: wiring.ready())


@api_entry
def handler(request: Request) -> Answer:
    return public.answer(request, _STATIC, _READINESS.ready)
