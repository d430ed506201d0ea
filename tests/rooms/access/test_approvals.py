"""Approvals: two people, one exact request, one use, one day; the attacks A57, A59 and A61."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from tests.support.access_fakes import NOW, Access, refused

from tocsin.access.approvals import LIFE, Approval, Approvals, parse_request, request_hash
from tocsin.access.principals import Principal
from tocsin.kernel.errors import Refusal

WANTED: dict[str, Any] = {"method": "DELETE", "path": "/v1/projects/p1", "query": {"purge": "yes"}, "body": {"a": 1}}
HASHED = request_hash("p1", "DELETE", "/v1/projects/p1", {"purge": ("yes",)}, {"a": 1})


class Office:
    """Ada asks, Bob approves; both were added by the bootstrap's administrator."""

    def __init__(self) -> None:
        self.access = Access()
        access = self.access
        self.approvals = Approvals(access.approvals, access.directory)
        self.ada = access.person(access.root, "Ada", "admin:*", "approvals:*")
        self.bob = access.person(access.root, "Bob", "admin:*", "approvals:*")
        self.adas = access.key(access.root, "admin:*", "approvals:*", owner=self.ada.id)
        self.bobs = access.key(access.root, "admin:*", "approvals:*", owner=self.bob.id)

    @property
    def now(self) -> int:
        return self.access.clock.ms

    def ask(self, **changes: Any) -> Approval:
        return self.approvals.request(self.adas, {"request": WANTED | changes, "reason": "moving house"}, self.now)

    def approved(self, **changes: Any) -> Approval:
        return self.approvals.decide(self.bobs, self.ask(**changes).id, True, self.now)

    def use(self, approval: Approval, hashed: str = HASHED, caller: Principal | None = None) -> Approval:
        return self.approvals.use(caller or self.adas, approval.id, hashed, self.now)


@pytest.fixture
def office() -> Office:
    return Office()


def test_two_people_let_one_request_through_once(office: Office) -> None:
    asked = office.ask()
    assert (asked.status, asked.request_hash) == ("pending", HASHED)
    approved = office.approvals.decide(office.bobs, asked.id, True, NOW, "fine")
    assert (approved.status, approved.decided_by, approved.note) == ("approved", office.bobs.credential, "fine")
    used = office.use(approved)
    shown = office.approvals.get("p1", asked.id).as_json(NOW)
    assert (used.status, shown["status"], shown["version"]) == ("used", "used", 3)
    assert shown["request"] == WANTED | {"query": {"purge": ["yes"]}}


SELF: dict[str, Callable[[Office], Principal]] = {
    "the very key": lambda o: o.adas,
    "another key of the same person": lambda o: o.access.key(o.access.root, "approvals:*", owner=o.ada.id),
    "a key made by the requester": lambda o: o.access.key(o.adas, "approvals:*"),
    "a key made by that key": lambda o: o.access.key(o.access.key(o.adas, "admin:*", "approvals:*"), "approvals:*"),
    "a key made by the requester for somebody else": lambda o: o.access.key(o.adas, "approvals:*", owner=o.bob.id),
    "a key of a person made up by the requester": lambda o: o.access.key(
        o.adas, "approvals:*", owner=o.access.person(o.adas, "Puppet", "approvals:*").id
    ),
    "the key that made the requester's": lambda o: o.access.root,
}


@pytest.mark.parametrize("name", sorted(SELF))
def test_nobody_approves_their_own_request(office: Office, name: str) -> None:
    """A57."""
    asked = office.ask()
    refusal = refused(office.approvals.decide, SELF[name](office), asked.id, True, NOW)
    assert (refusal.code, refusal.status) == ("ERR_SELF_APPROVAL", 403)
    assert office.approvals.get("p1", asked.id).status == "pending"


def test_two_keys_that_name_nobody_and_were_made_by_one_are_one(office: Office) -> None:
    access = office.access
    one, two = (access.key(access.root, "approvals:*", "admin:*") for _ in range(2))
    asked = office.approvals.request(one, {"request": WANTED}, NOW)
    assert refused(office.approvals.decide, two, asked.id, True, NOW).code == "ERR_SELF_APPROVAL"


def test_a_second_key_of_the_bootstrap_is_a_second_person(office: Office) -> None:
    second = office.access.bootstrap("p1", "approvals:*")
    asked = office.approvals.request(office.access.root, {"request": WANTED}, NOW)
    assert office.approvals.decide(second, asked.id, True, NOW).status == "approved"


def _hash(
    project: str = "p1",
    method: str = "DELETE",
    path: str = "/v1/projects/p1",
    query: dict[str, tuple[str, ...]] | None = None,
    body: Any = "the same",
) -> str:
    query = {"purge": ("yes",)} if query is None else query
    return request_hash(project, method, path, query, {"a": 1} if body == "the same" else body)


USED: dict[str, Callable[[Office], Any]] = {
    "twice": lambda o: (lambda a: (o.use(a), o.use(a)))(o.approved()),
    "on another method": lambda o: o.use(o.approved(), _hash(method="PATCH")),
    "on another path": lambda o: o.use(o.approved(), _hash(path="/v1/projects/p2")),
    "on another query": lambda o: o.use(o.approved(), _hash(query={})),
    "on another body": lambda o: o.use(o.approved(), _hash(body={"a": 2})),
    "on no body": lambda o: o.use(o.approved(), _hash(body=None)),
    "on a request of another project": lambda o: o.use(o.approved(), _hash(project="p2")),
    "by another key": lambda o: o.use(o.approved(), caller=o.bobs),
    "after it was rejected": lambda o: o.use(o.approvals.decide(o.bobs, o.ask().id, False, o.now)),
}


def test_the_hash_of_these_tests_is_the_approved_one() -> None:
    assert _hash() == HASHED


@pytest.mark.parametrize("name", sorted(USED))
def test_an_approval_is_of_one_request_and_for_one_use(office: Office, name: str) -> None:
    """A59."""
    refusal = refused(USED[name], office)
    assert (refusal.code, refusal.status) == ("ERR_APPROVAL_USED", 409)


@pytest.mark.parametrize("late", [0, 1, LIFE])
def test_after_a_day_an_approval_is_worth_nothing(office: Office, late: int) -> None:
    """A59."""
    approved, asked = office.approved(), office.ask()
    office.access.clock.ms += LIFE + late
    assert refused(office.use, approved).code == "ERR_APPROVAL_USED"
    assert refused(office.approvals.decide, office.bobs, asked.id, True, office.now).code == "ERR_APPROVAL_USED"
    assert asked.as_json(office.now)["status"] == "expired"


def test_up_to_a_day_it_is_good(office: Office) -> None:
    approved = office.approved()
    office.access.clock.ms += LIFE - 1
    assert office.use(approved).status == "used"


LOST: dict[str, Callable[[Office], Any]] = {
    "the role": lambda o: o.access.people.change(o.access.root, o.bob.id, {"scopes": ["admin:*"]}, None),
    "the person": lambda o: o.access.people.remove(o.access.root, o.bob.id, o.now),
    "the key": lambda o: o.access.keys.revoke(o.access.root, o.bobs.credential, o.now),
}


@pytest.mark.parametrize("name", sorted(LOST))
def test_an_approver_who_lost_the_role_approves_nothing(office: Office, name: str) -> None:
    """A61: between approval and execution, and before approving."""
    approved, asked = office.approved(), office.ask()
    LOST[name](office)
    refusal = refused(office.use, approved)
    assert (refusal.code, refusal.status) == ("ERR_SCOPE", 403)
    assert refused(office.approvals.decide, office.bobs, asked.id, True, NOW).code == "ERR_SCOPE"
    assert office.approvals.get("p1", approved.id).status == "approved", "nothing was spent"


def test_without_an_approval_or_while_it_is_pending_the_request_waits(office: Office) -> None:
    for missing in (None, ""):
        refusal = refused(office.approvals.use, office.adas, missing, HASHED, NOW)
        assert (refusal.code, refusal.status) == ("ERR_APPROVAL_REQUIRED", 403)
    assert refused(office.use, office.ask()).code == "ERR_APPROVAL_REQUIRED"


def test_approvals_of_other_projects_do_not_exist(office: Office) -> None:
    asked, stranger = office.ask(), office.access.bootstrap("p2", "approvals:*")
    for call in (
        lambda: office.approvals.get("p2", asked.id),
        lambda: office.approvals.decide(stranger, asked.id, True, NOW),
        lambda: office.approvals.use(stranger, asked.id, HASHED, NOW),
        lambda: office.approvals.get("p1", "apr_1"),
        lambda: office.approvals.get("p1", asked.id + "\n"),
        lambda: office.approvals.get("p1", "../" + asked.id),
    ):
        assert refused(call).code == "ERR_NOT_FOUND"


def test_who_asked_may_withdraw_and_a_decision_is_final(office: Office) -> None:
    asked = office.ask()
    assert office.approvals.decide(office.adas, asked.id, False, NOW).status == "rejected"
    assert refused(office.approvals.decide, office.bobs, asked.id, True, NOW).code == "ERR_APPROVAL_USED"
    approved = office.approved()
    assert refused(office.approvals.decide, office.bobs, approved.id, False, NOW).code == "ERR_APPROVAL_USED"


def test_of_racing_uses_one_wins(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """F08."""
    approved = office.approved()
    monkeypatch.setattr(office.access.approvals, "get", lambda *_: approved)
    office.approvals.use(office.adas, approved.id, HASHED, NOW)
    for _ in range(15):
        refusal = refused(office.approvals.use, office.adas, approved.id, HASHED, NOW)
        assert (refusal.code, refusal.status) == ("ERR_APPROVAL_USED", 409)


def test_of_two_racing_decisions_one_wins(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = office.ask()
    office.approvals.decide(office.bobs, asked.id, False, NOW)
    monkeypatch.setattr(office.access.approvals, "get", lambda *_: asked)
    assert refused(office.approvals.decide, office.bobs, asked.id, True, NOW).code == "ERR_APPROVAL_USED"


BAD: dict[str, Any] = {
    "nothing": {},
    "no object": [],
    "request is text": {"request": "DELETE /"},
    "unknown field": {"request": WANTED, "force": True},
    "unknown part": {"request": WANTED | {"headers": {}}},
    "a method that reads": {"request": WANTED | {"method": "GET"}},
    "a method in lower case": {"request": WANTED | {"method": "delete"}},
    "a path with a query": {"request": WANTED | {"path": "/v1/projects/p1?x=1"}},
    "a path with a host": {"request": WANTED | {"path": "https://x/v1"}},
    "a path with a blank": {"request": WANTED | {"path": "/v1/a b"}},
    "a path that is long": {"request": WANTED | {"path": "/" + "a" * 600}},
    "a query that is text": {"request": WANTED | {"query": "a=1"}},
    "a query of numbers": {"request": WANTED | {"query": {"a": 1}}},
    "a long query": {"request": WANTED | {"query": {str(n): "x" for n in range(21)}}},
    "a large body": {"request": WANTED | {"body": "x" * 20_000}},
    "a long reason": {"request": WANTED, "reason": "x" * 501},
    "a reason with a control character": {"request": WANTED, "reason": "\x00"},
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_what_describes_no_request_is_refused(office: Office, name: str) -> None:
    assert refused(office.approvals.request, office.adas, BAD[name], NOW).code == "ERR_SCHEMA"
    assert office.access.approvals.rows == {}


@pytest.mark.parametrize("field", ["id", "status", "requested_by", "request_hash", "expires_at"])
def test_fields_of_the_server_are_refused(office: Office, field: str) -> None:
    body = {"request": WANTED, field: "x"}
    assert refused(office.approvals.request, office.adas, body, NOW).code == "ERR_READONLY_FIELD"


def test_a_note_has_a_bound(office: Office) -> None:
    asked = office.ask()
    assert refused(office.approvals.decide, office.bobs, asked.id, True, NOW, "x" * 501).code == "ERR_SCHEMA"
    assert office.approvals.get("p1", asked.id).status == "pending"


def test_approvals_are_listed_newest_first_in_pages(office: Office) -> None:
    made = []
    for _ in range(5):
        office.access.clock.ms += 1
        made.append(office.ask().id)
    first, position = office.approvals.page("p1", None, 3)
    second, end = office.approvals.page("p1", position, 3)
    assert [one.id for one in (*first, *second)] == made[::-1]
    assert end is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(json_values, json_values)
def test_two_requests_share_a_hash_only_when_they_are_one(one: Any, other: Any) -> None:
    """Python's equality takes True for 1; JSON's does not."""
    hashes = [request_hash("p1", "POST", "/v1/x", {}, body) for body in (one, other)]
    assert (hashes[0] == hashes[1]) == (repr(one) == repr(other) or _same(one, other))


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def test_the_order_of_members_does_not_count_and_that_of_values_does() -> None:
    turned = {"request": dict(reversed(WANTED.items()))}
    assert parse_request("p", {"request": WANTED})[1] == parse_request("p", turned)[1]
    one, other = ({"request": WANTED | {"query": {"a": list(values)}}} for values in ("12", "21"))
    assert parse_request("p", one)[1] != parse_request("p", other)[1]


class Machine(RuleBasedStateMachine):
    """Whatever happens in whatever order: used at most once, and only after a second person's approval."""

    def __init__(self) -> None:
        super().__init__()
        self.office = Office()
        self.asked = self.office.ask()
        self.approved_by_bob = False
        self.uses = 0

    def attempt(self, call: Callable[[], Any]) -> bool:
        try:
            call()
        except Refusal:
            return False
        return True

    @rule(approve=st.booleans())
    def bob_decides(self, approve: bool) -> None:
        office = self.office
        if self.attempt(lambda: office.approvals.decide(office.bobs, self.asked.id, approve, office.now)):
            assert not self.uses
            self.approved_by_bob = approve

    @rule()
    def ada_approves(self) -> None:
        office = self.office
        assert not self.attempt(lambda: office.approvals.decide(office.adas, self.asked.id, True, office.now))

    @rule(right=st.booleans())
    def ada_uses(self, right: bool) -> None:
        if self.attempt(lambda: self.office.use(self.asked, HASHED if right else "0" * 64)):
            self.uses += 1
            assert right
            assert self.approved_by_bob
            assert self.uses == 1
            assert self.office.now < NOW + LIFE

    @rule(wait=st.integers(0, LIFE))
    def time_passes(self, wait: int) -> None:
        self.office.access.clock.ms += wait


Machine.TestCase.settings = settings(max_examples=50, stateful_step_count=12, deadline=None)
TestMachine = Machine.TestCase
