"""Certificates: why a decision is the one that its inputs name, so that somebody who trusts nobody here can check it.

A full certificate gives a reason for every service of the snapshot: "winner", "dominated", or the first gate or rule
that keeps it out. A short one shows only the services in front of the winner, in winning order, with their reasons
and a proof that they are the beginning of the ranking that the snapshot's header names: O(k + log n). Each decision
has exactly one certificate of each form, to the byte, and checkers accept no other.

A receipt is what needs to be kept; a certificate can be derived from it as long as its request, its snapshot and its
health document are. tools/checker.py and tools/checker.mjs check certificates and share nothing with this module or
with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tocsin.decisions import merkle
from tocsin.decisions.routing import WINNER, Engine, Health, Receipt, Request, Service, first_failure, verdicts
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Detail, Refusal

Certificate = Mapping[str, Any]

FORMS: Final = ("full", "short")


def full(engine: Engine, request: Request, health: Health) -> Certificate:
    """A reason for every service. To be checked with the whole snapshot."""
    receipt = engine.decide(request, health)
    reasons = [one.reason for one in verdicts(request, engine.snapshot, health, receipt.decision)]
    return {"v": 1, "form": "full", "receipt": receipt.document(), "request": request.document, "reasons": reasons}


def short(engine: Engine, request: Request, health: Health) -> Certificate:
    """The services in front of the winner, or all that offer the first capability when there is none.

    To be checked with the snapshot's header, policy and health document.
    """
    receipt, snapshot = engine.decide(request, health), engine.snapshot
    ranking = engine.ranking(request)
    shown, reasons = [], []
    for i in ranking:
        contract = snapshot.contracts[i]
        shown.append(contract)
        reasons.append(first_failure(request, contract, snapshot.policy, health) or WINNER)
        if reasons[-1] == WINNER:
            break
    rest = merkle.prefix_proof([snapshot.leaves[i] for i in ranking], len(shown))
    return {
        "v": 1,
        "form": "short",
        "receipt": receipt.document(),
        "request": request.document,
        "reasons": reasons,
        "shown": shown,
        "rest": [node.hex() for node in rest],
    }


def derive(receipt: Receipt, engine: Engine, request: Request, health: Health, form: str) -> bytes:
    """The certificate of a kept receipt, as canonical bytes.

    Refuses 400 ERR_QUERY an unknown form, and 409 ERR_CONFLICT inputs that are not those of the receipt.
    """
    if form not in FORMS:
        raise Refusal("ERR_QUERY", "The form is unknown.", [Detail("form", "enum", f"send {' or '.join(FORMS)}")])
    if engine.decide(request, health) != receipt:
        fix = "give the request, the snapshot and the health document that the receipt names"
        raise Refusal("ERR_CONFLICT", "The receipt is of other inputs.", [Detail("receipt", "same-inputs", fix)])
    return canonical_json((full if form == "full" else short)(engine, request, health))


def context(engine: Engine, form: str) -> bytes:
    """What a checker of the form needs besides health and certificate: the snapshot, for the short form without its
    contracts; canonical bytes.
    """
    document = engine.snapshot.document()
    if form == "short":
        del document["contracts"]
    return canonical_json(document)


def health_document(health: Health) -> bytes:
    """The health document as checkers read it."""
    return canonical_json(health.document)


def receipt_of(document: Mapping[str, Any]) -> Receipt:
    """A receipt as it was kept."""
    chosen = document["decision"]
    service = Service(chosen["name"], chosen["version"]) if chosen else None
    return Receipt(document["request"], document["snapshot"], document["health"], service)
