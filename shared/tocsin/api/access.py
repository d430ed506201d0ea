"""Projects, keys, people, approvals, tokens and usage over HTTP. The rules are those of tocsin.access."""

from __future__ import annotations

from typing import Any, Final

from tocsin.access import usage
from tocsin.access.admin import key_json
from tocsin.access.approvals import parse_described, request_hash
from tocsin.access.principals import Principal
from tocsin.api.call import Call, etag
from tocsin.api.ports import ApiRooms, Json, Page
from tocsin.kernel import clock
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.http import Answer, Request

JWK_SET: Final = "application/jwk-set+json"
_USAGE_DAYS: Final = 30


def hash_of(principal: Principal, request: Request, document: Any) -> str:
    """What approvals and admin tokens are bound to: this request of this project."""
    return request_hash(principal.project, request.method, request.path, request.query, document)


def _given(document: Any) -> Json:
    """A body's members, null ones counted as left out."""
    return {name: value for name, value in document.items() if value is not None}


def _made(data: Json, path: str) -> Answer:
    headers = etag(data["version"]) if "version" in data else {}
    return Answer(data=data, status=201, headers={**headers, "Location": f"{path}/{data['id']}"})


def list_projects(call: Call, rooms: ApiRooms) -> Answer:
    """Projects the caller may see."""
    return Answer(data={"items": [project.as_json() for project in rooms.access().projects.all(call.principal)]})


def create_project(call: Call, rooms: ApiRooms) -> Answer:
    """A new project with its first key, whose text is shown this once."""
    access, now = rooms.access(), rooms.now()
    project = access.projects.create(call.principal, _given(call.document), now)
    first = access.keys.first(project.id, call.principal, now)
    return _made({**project.as_json(), "first_key": first}, "/v1/projects")


def get_project(call: Call, rooms: ApiRooms) -> Answer:
    """One project."""
    project = rooms.access().projects.get(call.principal, call.id)
    return Answer(data=project.as_json(), headers=etag(project.version))


def change_project(call: Call, rooms: ApiRooms) -> Answer:
    """Change what is sent; an approval in X-Approval is used up by it."""
    access, sent = rooms.access(), _given(call.document)
    approval = call.request.header("x-approval")
    if approval is not None:
        access.approvals.use(
            call.principal, approval, hash_of(call.principal, call.request, call.document), rooms.now()
        )
    expected = call.expected_version(sent.get("version"))
    changed = access.projects.change(call.principal, call.id, sent, expected, approved=approval is not None)
    return Answer(data=changed.as_json(), headers=etag(changed.version))


def list_keys(call: Call, rooms: ApiRooms) -> Answer:
    """Every key of the project; there are few, so there are no pages."""
    return Answer(data={"items": rooms.access().keys.all(call.project, rooms.now())})


def create_key(call: Call, rooms: ApiRooms) -> Answer:
    """A new key, with its text this once."""
    return _made(rooms.access().keys.create(call.principal, _given(call.document), rooms.now()), "/v1/keys")


def get_key(call: Call, rooms: ApiRooms) -> Answer:
    """One key, never its text."""
    return Answer(data=key_json(rooms.access().keys.record(call.project, call.id), rooms.now()))


def change_key(call: Call, rooms: ApiRooms) -> Answer:
    """A new name or an earlier end."""
    return Answer(data=rooms.access().keys.change(call.principal, call.id, _given(call.document), rooms.now()))


def rotate_key(call: Call, rooms: ApiRooms) -> Answer:
    """A successor, with its text this once."""
    return _made(rooms.access().keys.rotate(call.principal, call.id, _given(call.document), rooms.now()), "/v1/keys")


def revoke_key(call: Call, rooms: ApiRooms) -> Answer:
    """End a key, and what was made by way of it when asked to."""
    descendants = call.query.get("descendants") == "true"
    ended = rooms.access().keys.revoke(call.principal, call.id, rooms.now(), descendants=descendants)
    return Answer(data={"revoked": ended})


def list_people(call: Call, rooms: ApiRooms) -> Answer:
    """Everybody; there are few, so there are no pages."""
    return Answer(data={"items": [person.as_json() for person in rooms.access().people.all(call.project)]})


def add_person(call: Call, rooms: ApiRooms) -> Answer:
    """A new person."""
    return _made(rooms.access().people.add(call.principal, _given(call.document), rooms.now()).as_json(), "/v1/people")


def change_person(call: Call, rooms: ApiRooms) -> Answer:
    """Another name or role."""
    sent = _given(call.document)
    expected = call.expected_version(sent.get("version"))
    changed = rooms.access().people.change(call.principal, call.id, sent, expected)
    return Answer(data=changed.as_json(), headers=etag(changed.version))


def remove_person(call: Call, rooms: ApiRooms) -> Answer:
    """Take every role from a person."""
    removed = rooms.access().people.remove(call.principal, call.id, rooms.now())
    return Answer(data=removed.as_json(), headers=etag(removed.version))


def list_approvals(call: Call, rooms: ApiRooms) -> Answer:
    """Approvals of the project, newest first."""

    def read(position: Any, limit: int) -> Page[Json]:
        found, following = rooms.access().approvals.page(call.project, position, limit)
        return Page([one.as_json(rooms.now()) for one in found], following, len(found))

    return call.listing(rooms, None, read)


def request_approval(call: Call, rooms: ApiRooms) -> Answer:
    """Ask a second person."""
    now = rooms.now()
    asked = rooms.access().approvals.request(call.principal, _given(call.document), now)
    return _made(asked.as_json(now), "/v1/approvals")


def get_approval(call: Call, rooms: ApiRooms) -> Answer:
    """One approval."""
    return Answer(data=rooms.access().approvals.get(call.project, call.id).as_json(rooms.now()))


def approve(call: Call, rooms: ApiRooms) -> Answer:
    """Say yes, as somebody else than who asked."""
    return _decided(call, rooms, True)


def reject(call: Call, rooms: ApiRooms) -> Answer:
    """Say no, or withdraw what was asked."""
    return _decided(call, rooms, False)


def _decided(call: Call, rooms: ApiRooms, yes: bool) -> Answer:
    now, note = rooms.now(), call.document.get("note") or ""
    return Answer(data=rooms.access().approvals.decide(call.principal, call.id, yes, now, note).as_json(now))


def create_token(call: Call, rooms: ApiRooms) -> Answer:
    """An access token, or an admin token for the request that is described."""
    sent, tokens = _given(call.document), rooms.access().tokens()
    if "request" in sent:
        _, hashed = parse_described(call.project, sent["request"])
        return Answer(data=tokens.issue_admin(call.principal, hashed), status=201)
    return Answer(data=tokens.issue(call.principal, **sent), status=201)


def list_token_keys(_call: Call, rooms: ApiRooms) -> Answer:
    """Public keys, in the form that verifiers expect: the bare JWK Set."""
    return Answer(raw=(canonical_json(rooms.access().tokens().keys.jwks()).decode("ascii"), JWK_SET))


def rotate_token_keys(call: Call, rooms: ApiRooms) -> Answer:
    """Begin a new key of the whole deployment."""
    begun = rooms.access().tokens().keys.rotate(compromised=call.document.get("compromised", False))
    return Answer(data={"key": begun}, status=201)


def get_usage(call: Call, rooms: ApiRooms) -> Answer:
    """What was used, by day."""
    until: int = call.query.get("to", rooms.now() + 1) - 1
    since: int = call.query.get("from", until - _USAGE_DAYS * clock.DAY)
    return Answer(data=usage.report(rooms.access().usage, call.project, since, until))
