"""From a request to the service that answers it: match, authenticate, check scope, read query and body, call.

Which services there are is the function's: see router and decisions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn, TypeVar

from tocsin.access.principals import Principal, require
from tocsin.api import headers, models
from tocsin.api.access import hash_of
from tocsin.api.call import Call
from tocsin.api.matching import allowed, match, not_found, pick
from tocsin.api.ports import Front
from tocsin.kernel import clock, strict_json
from tocsin.kernel.body import open_body
from tocsin.kernel.cause import acting
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.http import Answer, Request
from tocsin.routes import GRAMMARS, MAX_LIMIT, Param, Route

Rooms = TypeVar("Rooms", bound=Front)

#: Longest value of a query parameter other than the cursor, in characters, and most values of a repeatable
#: one.
MAX_VALUE: Final = 256
MAX_REPEATS: Final = 10
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

#: Bodies that a service reads by itself, because they come in more forms than one.
RAW: Final = frozenset({"EventInput", "Telemetry"})
#: Scope families whose routes go by what the stores say now, not by what a cache or a token says.
CONFIRMED: Final = frozenset({"admin", "approvals", "tokens"})


def _bad_query(name: str, rule: str, fix: str) -> NoReturn:
    where = strict_json.shown(name)
    raise Refusal("ERR_QUERY", f"The query parameter {where} is not valid.", [Detail(where, rule, fix)])


def _value(param: Param, text: str) -> Any:
    """One value of a parameter in its own type. Refuses ERR_QUERY; the text itself is never repeated."""
    name = param.name
    if param.kind == "cursor":
        return text  # its own check answers ERR_CURSOR, whatever is wrong with it
    if not 1 <= len(text) <= MAX_VALUE or _HIDDEN.search(text):
        _bad_query(name, "text", f"send 1 to {MAX_VALUE} visible characters")
    match param.kind:
        case "time":
            try:
                return clock.parse_rfc3339(text)
            except ValueError:
                _bad_query(name, "rfc3339", f"send a date-time with offset such as {param.example}; write + as %2B")
        case "limit":
            if not re.fullmatch("[0-9]{1,3}", text, re.ASCII) or not 1 <= int(text) <= MAX_LIMIT:
                _bad_query(name, "range", f"send an integer from 1 to {MAX_LIMIT}")
            return int(text)
        case "number":
            if not re.fullmatch("[0-9]{1,15}", text, re.ASCII):
                _bad_query(name, "number", "send a whole number of at most 15 digits")
            return int(text)
        case "choice":
            if text not in param.choices:
                _bad_query(name, "choice", f"send one of {', '.join(param.choices)}")
        case "id":
            if not GRAMMARS[name].fullmatch(text):
                _bad_query(name, "id", f"send an id such as {param.example}")
        case "tag":
            left, colon, right = text.partition(":")
            if not (left and colon and right):
                _bad_query(name, "pair", f"send two parts with a colon between, such as {param.example}")
            return left, right
        case _:
            pass
    return text


def read_query(route: Route, query: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Parsed query parameters; repeatable ones as tuples, sorted and without repeats. Refuses ERR_QUERY.

    Unknown, repeated and malformed parameters are refused: a filter that is silently dropped shows too much.
    """
    known = {param.name: param for param in route.query}
    parsed: dict[str, Any] = {}
    for name, values in query.items():
        param = known.get(name)
        if param is None:
            fix = f"use only {', '.join(known)}" if known else "this route takes no query parameters"
            _bad_query(name, "known", fix)
        if not values or len(values) > (MAX_REPEATS if param.repeatable else 1):
            most = f"at most {MAX_REPEATS} times" if param.repeatable else "once"
            _bad_query(name, "count", f"send it {most}")
        found = [_value(param, value) for value in values]
        parsed[name] = tuple(sorted(set(found))) if param.repeatable else found[0]
    if parsed.get("from", 0) >= parsed.get("to", 2**63):
        _bad_query("to", "after-from", "send a time after from")
    return parsed


def read_body(route: Route, request: Request) -> tuple[models.Body | None, Any]:
    """Body of a request as its route's model and as JSON; (None, None) for routes without one.

    A body where none belongs is ignored, as RFC 9110 §9.3.1 lets servers do.
    """
    if route.request is None or route.request in RAW:
        return None, None
    body = open_body(request)
    if body.format != "json":
        fix = "send application/json"
        detail = Detail("content-type", "media-type", fix)
        raise Refusal("ERR_CONTENT_TYPE", "This route takes JSON.", [detail], {"Accept-Post": "application/json"})
    model: type[models.Body] = getattr(models, route.request)
    value = strict_json.read(body.data, model.LIMITS)
    return models.validate(model, value), value


def answer(
    request: Request,
    principal_of: Callable[[Request], Principal],
    rooms: Rooms,
    services: Mapping[str, Callable[[Call, Rooms], Answer]],
) -> Answer:
    """Answer one request to a keyed route. `principal_of` authenticates. Raises Refusal for everything that
    is refused.

    The order is fixed: unknown path, foreign origin, method, flag, credential, scope, id, query, body, admin token,
    operator, service.
    Nothing is read from any store before the scope is known to be held, and nothing is written before the
    body is accepted.
    """
    methods, (identifier, part) = match(request.path)
    cross = headers.cors(request, rooms.origin)
    if request.method == "OPTIONS":
        return Answer(
            status=204,
            headers=headers.preflight(request, rooms.origin, allowed(methods)),
            raw=("", "text/plain"),
        )
    try:
        route = pick(request.method, methods)
        service = services.get(route.operation_id)
        if service is None or route.scope is None:
            not_found()  # the path belongs to another function
        if route.flag and route.flag not in rooms.flags:
            fix = f"deploy with {route.flag} switched on, if this deployment is to have it"
            raise Refusal("ERR_FLAG_OFF", "This is switched off.", [Detail("(deployment)", route.flag, fix)])
        principal = principal_of(request)
        require(principal, route.scope)
        if route.scope.partition(":")[0] in CONFIRMED:
            rooms.access().directory.confirm(principal, route.scope)
        if route.names is not None and not GRAMMARS[route.names].fullmatch(identifier):
            not_found()
        if route.within is not None and not GRAMMARS[route.within].fullmatch(part):
            not_found()
        query = read_query(route, request.query)
        body, document = read_body(route, request)
        with acting(principal.credential, request.trace_id):
            if route.admin_token:
                hashed = hash_of(principal, request, document)
                rooms.access().tokens().spend(request.header("x-admin-token"), principal, hashed)
            if route.operator:
                rooms.access().projects.require_operator(principal)
            made = service(Call(route, request, principal, identifier, query, body, document, part), rooms)
    except Refusal as refusal:
        refusal.headers = {**cross, **refusal.headers}
        raise
    return replace(made, headers={**cross, **made.headers}) if cross else made
