"""API: every keyed route except sending events. Called by API Gateway for paths no other function takes."""

from tocsin import wiring
from tocsin.api.router import dispatch
from tocsin.entry import api_entry
from tocsin.kernel.http import Answer, Request


@api_entry
def handler(request: Request) -> Answer:
    with wiring.denials_noted(request):
        return dispatch(request, wiring.principal_of, wiring.api())
