"""Defend: keeps out what is hostile, plans and carries out mitigations. Called by API Gateway with a key."""

from tocsin import wiring
from tocsin.api import defense
from tocsin.entry import api_entry
from tocsin.kernel.http import Answer, Request


@api_entry
def handler(request: Request) -> Answer:
    return defense.dispatch(request, wiring.principal_of, wiring.defense())
