"""Govern: publishes policies, with the proof of what each change means. The one function that carries Z3."""

from tocsin import wiring
from tocsin.api.governing import dispatch
from tocsin.entry import api_entry
from tocsin.kernel.http import Answer, Request


@api_entry
def handler(request: Request) -> Answer:
    return dispatch(request, wiring.principal_of, wiring.decisions())
