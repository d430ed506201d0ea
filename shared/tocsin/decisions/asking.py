"""What a caller of the service may ask: a request or goal is completed with what the caller is and holds.

Who asks and what they hold is not for them to say: the principal is the key that was shown, and scopes are those words
that the key holds as `use:<word>`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tocsin.decisions import documents, plans, routing
from tocsin.kernel.errors import Detail, Refusal

MAX_REQUESTS: Final = 100
#: What discovery takes for what it is not told: nothing will be sent, and it is public.
_UNASKED: Final[Mapping[str, Any]] = {"input": False, "data_class": {"level": "public", "tags": []}}
_GIVEN: Final = frozenset({"principal", "scopes"})
_SEVERAL: Final = frozenset({"requests", "reasons"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `name` as decisions name it, `words` it holds by name, and whether it may use whatever it says."""

    name: str
    words: frozenset[str]
    allows: Callable[[str], bool]

    def complete(self, sent: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """What was sent, with principal and scopes. Refuses 403 ERR_SCOPE another's name and words not held."""
        if sent.get("principal", self.name) != self.name:
            fix = f"send {self.name}, or leave it out"
            raise Refusal("ERR_SCOPE", "Nobody asks in another's name.", [Detail(f"{where}principal", "caller", fix)])
        scopes = sent.get("scopes", sorted(self.words))
        if isinstance(scopes, list):
            missing = [word for word in scopes if isinstance(word, str) and not self.allows(word)]
            if missing:
                fix = f"ask an administrator for a key with use:{missing[0][:64]}, or leave the word out"
                detail = Detail(f"{where}scopes", "held", fix)
                raise Refusal("ERR_SCOPE", "The key does not hold these scopes.", [detail])
        return {**sent, "principal": self.name, "scopes": scopes}


def requests_of(sent: Any, caller: Caller) -> tuple[list[routing.Request], bool, bool]:
    """The requests of a body, whether there may be several, and whether reasons are wanted.

    Raises Refusal ERR_SCHEMA naming the field, and what Caller.complete refuses.
    """
    several = "requests" in sent
    reasons = sent.get("reasons", True)
    if type(reasons) is not bool:
        raise Refusal("ERR_SCHEMA", "The body breaks its schema.", [Detail("reasons", "type", "send true or false")])
    if not several:
        one = {name: value for name, value in sent.items() if name != "reasons"}
        return [routing.request_of(caller.complete(one))], False, reasons
    listed = sent["requests"]
    others = sorted(sent.keys() - _SEVERAL)
    wrong = [Detail(name[:64], "unknown-field", "send only requests, reasons") for name in others]
    known = isinstance(listed, list) and all(isinstance(one, dict) for one in listed)
    if not known or not 1 <= len(listed) <= MAX_REQUESTS:
        wrong.append(Detail("requests", "items", f"send 1 to {MAX_REQUESTS} requests"))
    if wrong:
        raise Refusal("ERR_SCHEMA", "The body breaks its schema.", wrong[:20])
    made = []
    for i, one in enumerate(listed):
        try:
            made.append(routing.request_of(caller.complete(one)))
        except Refusal as refusal:
            refusal.details = [Detail(f"requests[{i}].{one.field}", one.rule, one.fix) for one in refusal.details]
            raise
    return made, True, reasons


def discovery_of(sent: Mapping[str, Any], caller: Caller) -> routing.Request:
    """The request that discovery makes of what was sent."""
    return routing.request_of(caller.complete({**_UNASKED, **sent}))


def goal_of(sent: Mapping[str, Any], caller: Caller) -> plans.Goal:
    return plans.goal_of(caller.complete(sent))


def _asked(schema: Mapping[str, Any], optional: frozenset[str]) -> dict[str, Any]:
    return {**schema, "required": sorted(set(schema["required"]) - optional)}


def schema() -> dict[str, Any]:
    """JSON Schema of what route takes."""
    one = _asked(routing.json_schema(), _GIVEN)
    reasons = {"type": "boolean", "default": True, "description": "Whether to say what became of every service."}
    requests = {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_REQUESTS}
    alone = {**one, "properties": {**one["properties"], "reasons": reasons}}
    return {"anyOf": [alone, documents.closed({"requests": requests, "reasons": reasons}, frozenset({"requests"}))]}


def discover_schema() -> dict[str, Any]:
    """JSON Schema of what discovery takes."""
    return _asked(routing.json_schema(), _GIVEN | _UNASKED.keys())


def goal_schema() -> dict[str, Any]:
    """JSON Schema of a goal as it is sent."""
    return _asked(plans.json_schema(), _GIVEN)
