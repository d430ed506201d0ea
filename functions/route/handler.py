"""Route: contracts, discovery, decisions and their certificates, plans, calls. Publishing policies is govern's."""

from tocsin import wiring
from tocsin.api.decisions import dispatch
from tocsin.entry import api_entry
from tocsin.kernel.http import Answer, Request


@api_entry
def handler(request: Request) -> Answer:
    return dispatch(request, wiring.principal_of, wiring.decisions())
