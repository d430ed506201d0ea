"""Publishing policies over HTTP: never without the proof of what the change means.

Kept apart from the other services of decisions because it alone needs Z3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tocsin.access.principals import Principal
from tocsin.api import front
from tocsin.api.call import Call
from tocsin.api.decisions import Service
from tocsin.api.ports import DecisionRooms, Json
from tocsin.decisions import analysis, changes, policies
from tocsin.decisions.policies import Policy
from tocsin.decisions.ports import Deed
from tocsin.decisions.snapshots import Edit, Snapshot
from tocsin.kernel.errors import Detail, Refusal, Retry
from tocsin.kernel.http import Answer, Request


def _witness(found: analysis.Witness | None) -> Json | None:
    return None if found is None else {"request": dict(found.request), "service": dict(found.service)}


def _meaning(before: Policy, after: Policy) -> Json:
    """What the change newly allows and newly forbids. Refuses rules that can never matter, and what is not proved."""
    try:
        analysis.check_rules_matter(after)
        found = analysis.change(before, after)
    except Retry as error:
        detail = Detail("rules", "analysis", "publish fewer or simpler rules; about a hundred are analysed in time")
        raise Refusal("ERR_SCHEMA", "The policy could not be analysed in time.", [detail]) from error
    return {"newly_allows": _witness(found.allows), "newly_forbids": _witness(found.forbids)}


def publish_policy(call: Call, rooms: DecisionRooms) -> Answer:
    """Put a policy in force, and say what that newly allows and forbids."""
    policy, found = policies.validate(call.document), Json()
    govern = changes.govern(policy)

    def edit(snapshot: Snapshot) -> Edit:
        made = govern(snapshot)
        found.clear()  # asked again, the policy before may be another
        found.update(_meaning(snapshot.policy, policy))
        return made

    deed = Deed("publish", "policy", f"v{policy['version']}", policy)
    snapshot = rooms.registry(call.project).publish(edit, lambda _: deed)
    return Answer({"policy": policy, **found}, {"snapshot": snapshot.name}, 201)


def analyse_policy(call: Call, rooms: DecisionRooms) -> Answer:
    """What publishing a policy would mean; nothing is changed."""
    policy = policies.validate(call.document)
    snapshot = rooms.registry(call.project).latest()
    return Answer({"policy": policy, **_meaning(snapshot.policy, policy)}, {"snapshot": snapshot.name})


SERVICES: Final[Mapping[str, Service]] = {"publish_policy": publish_policy, "analyse_policy": analyse_policy}


def dispatch(request: Request, principal_of: Callable[[Request], Principal], rooms: DecisionRooms) -> Answer:
    """Answer one request to a route of the govern function; see front.answer."""
    return front.answer(request, principal_of, rooms, SERVICES)
