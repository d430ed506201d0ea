"""Keys and people: nobody grants more than they have, and who made what is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.access_fakes import MASTER, NOW, PEPPER, Access, Clock, refused, request

from tocsin.access import keys
from tocsin.access.admin import MAX_KEYS, LastUsed, Narrower, key_json, shared_scopes, signing_secret
from tocsin.access.principals import CachedKeyStore, Principal, authenticate
from tocsin.kernel import clock as times
from tocsin.kernel.errors import Retry


@pytest.fixture
def access() -> Access:
    return Access()


def create(access: Access, by: Principal, **body: Any) -> dict[str, Any]:
    return access.keys.create(by, body, access.clock.ms)


def test_a_key_is_shown_once_and_works(access: Access) -> None:
    made = create(access, access.root, name="sender")
    parsed = keys.parse(made["key"])
    assert parsed is not None
    assert made["id"] == f"key_{parsed.key_id}"
    assert made["prefix"] == made["key"][:21]
    assert made["last_four"] == made["key"][-4:]
    assert made["scopes"] == ["ingest:write"], "least privilege when nothing is asked for"
    principal = authenticate(request(headers={"x-api-key": made["key"]}), access.rows, PEPPER, NOW, "live")
    assert principal.scopes == {"ingest:write"}
    record = access.rows.rows[parsed.key_id]
    shown = [key_json(record, NOW), *access.keys.all("p1", NOW)]
    assert made["key"] not in repr(record)
    for one in shown:
        assert made["key"] not in repr(one)
        assert "hash" not in one
        assert record.hash.hex() not in repr(one)


def test_a_signing_secret_is_derived_and_only_given_when_asked_for(access: Access) -> None:
    plain, signing = create(access, access.root), create(access, access.root, signing=True)
    assert "signing_secret" not in plain
    assert signing["signing_secret"] == signing_secret(MASTER, signing["id"][4:])
    assert signing["signing_secret"] != signing_secret(MASTER, plain["id"][4:])
    assert signing["signing_secret"] not in repr(access.rows.rows)
    with pytest.raises(ValueError, match="16 bytes"):
        signing_secret(b"short", "x")


@pytest.mark.parametrize(
    "scopes",
    [
        ["admin:*"],
        ["admin:read"],
        ["events:*,admin:*"],
        ["events:writeX"],
        ["\u0435vents:read"],
        ["publish:"],
        ["events:*"],
        ["notify:read"],
        ["*:*"],
        ["events:read", "events:read\n"],
        [" events:read"],
        ["EVENTS:READ"],
        [None],
        [["events:read"]],
        [],
        ["events:read"] * 33,
        "events:read",
        {"events:read": True},
    ],
)
def test_scope_attacks_are_refused_and_make_no_key(access: Access, scopes: Any) -> None:
    """A11: from a key that may create keys' scopes events:read and ingest:write only."""
    weak = access.bootstrap("p1", "events:read", "ingest:write", "approvals:read")
    before = len(access.rows.rows)
    refusal = refused(access.keys.create, weak, {"scopes": scopes}, NOW)
    assert (refusal.code, refusal.status) == ("ERR_SCHEMA", 400)
    assert len(access.rows.rows) == before


def test_no_key_grants_more_than_it_holds_nor_for_longer(access: Access) -> None:
    middle = access.key(access.root, "admin:*", "events:read", expires_at=times.rfc3339(NOW + times.DAY))
    assert refused(create, access, middle, scopes=["events:write"]).code == "ERR_SCHEMA"
    assert create(access, middle, scopes=["events:read"])["expires_at"] == times.rfc3339(NOW + times.DAY)
    late = refused(create, access, middle, scopes=["events:read"], expires_at=times.rfc3339(NOW + times.DAY + 1))
    assert late.details[0].rule == "grant"
    sooner = create(access, middle, scopes=["events:read"], expires_at=times.rfc3339(NOW + 1000))
    assert sooner["expires_at"] == times.rfc3339(NOW + 1000)


@pytest.mark.parametrize(
    "body",
    [
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"expires_at": "tomorrow"},
        {"expires_at": 5},
        {"name": "a\x00b"},
        {"owner": "per_x"},
        {"owner": 5},
        {"signing": "yes"},
        {"colour": "red"},
        "text",
    ],
)
def test_what_is_no_key_is_refused(access: Access, body: Any) -> None:
    assert refused(access.keys.create, access.root, body, NOW).code == "ERR_SCHEMA"


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["admin:*"]},
        {"project": "p2"},
        {"rate": 10**6},
        {"requests_per_second": 10**6},
        {"created_by": ""},
        {"owner": None},
        {"name": "ok", "last_used_at": None},
        {"hash": "00"},
        {"quota": {}},
        {"signing": True},
    ],
)
def test_a_key_cannot_be_raised_by_changing_it(access: Access, body: dict[str, Any]) -> None:
    """A13: mass assignment."""
    mine = access.key(access.root, "admin:write")
    before = access.rows.rows[mine.key_id]
    refusal = refused(access.keys.change, mine, mine.credential, body, NOW)
    assert (refusal.code, refusal.status) == ("ERR_READONLY_FIELD", 400)
    assert access.rows.rows[mine.key_id] == before


@pytest.mark.parametrize("field", ["key", "created_by", "project", "last_four", "hash", "id", "rate"])
def test_fields_of_the_server_are_refused_at_creation_too(access: Access, field: str) -> None:
    assert refused(access.keys.create, access.root, {field: "x"}, NOW).code == "ERR_READONLY_FIELD"


def test_a_key_can_be_renamed_and_ended_sooner_never_later(access: Access) -> None:
    mine = access.key(access.root, "events:read", expires_at=times.rfc3339(NOW + 10_000))
    sooner = {"name": "n", "expires_at": times.rfc3339(NOW + 5_000)}
    changed = access.keys.change(access.root, mine.credential, sooner, NOW)
    assert (changed["name"], changed["expires_at"]) == ("n", times.rfc3339(NOW + 5_000))
    later = {"expires_at": times.rfc3339(NOW + 6_000)}
    assert refused(access.keys.change, access.root, mine.credential, later, NOW).code == "ERR_SCHEMA"
    access.keys.revoke(access.root, mine.credential, NOW)
    assert refused(access.keys.change, access.root, mine.credential, {"name": "x"}, NOW).code == "ERR_CONFLICT"


def test_keys_of_other_projects_do_not_exist(access: Access) -> None:
    """A17: every verb on a foreign id."""
    stranger = access.bootstrap("p2")
    mine = access.key(access.root, "events:read")
    for call in (
        lambda: access.keys.record("p2", mine.credential),
        lambda: access.keys.change(stranger, mine.credential, {"name": "x"}, NOW),
        lambda: access.keys.revoke(stranger, mine.credential, NOW),
        lambda: access.keys.record("p1", "key_" + "0" * 12),
        lambda: access.keys.record("p1", mine.key_id),
        lambda: access.keys.record("p1", mine.credential + "\n"),
    ):
        assert refused(call).code == "ERR_NOT_FOUND"
    assert [one["id"] for one in access.keys.all("p2", NOW)] == [stranger.credential]


def test_a_revoked_key_is_refused_everywhere_within_a_minute(access: Access) -> None:
    """A05: processes with a cache follow within its time, which is at most 30 s."""
    made = create(access, access.root)
    sent, clock = request(headers={"x-api-key": made["key"]}), Clock(0)
    processes = [CachedKeyStore(access.rows, clock.s, ttl_s=30) for _ in range(3)]
    for store in processes:
        authenticate(sent, store, PEPPER, NOW, "live")
    assert access.keys.revoke(access.root, made["id"], NOW) == [made["id"]]
    assert access.keys.revoke(access.root, made["id"], NOW) == []
    clock.ms += 30_000
    for store in processes:
        assert refused(authenticate, sent, store, PEPPER, NOW, "live").code == "ERR_AUTH_REVOKED"
    assert access.keys.all("p1", NOW)[-1]["status"] == "revoked"


def test_administrative_routes_do_not_wait_for_the_cache(access: Access) -> None:
    mine = access.key(access.root, "admin:*")
    access.directory.confirm(mine, "admin:write")
    access.keys.revoke(access.root, mine.credential, NOW)
    refusal = refused(access.directory.confirm, mine, "admin:write")
    assert (refusal.code, refusal.status) == ("ERR_AUTH_REVOKED", 401)


def test_revoking_with_descendants_ends_what_was_made_by_way_of_a_key(access: Access) -> None:
    stolen = access.key(access.root, "admin:*", "events:read")
    child = access.key(stolen, "admin:*", "events:read")
    grandchild = access.key(child, "events:read")
    other = access.key(access.root, "events:read")
    ended = access.keys.revoke(access.root, stolen.credential, NOW, descendants=True)
    assert ended == [stolen.credential, child.credential, grandchild.credential]
    assert access.directory.scopes_of("p1", other.credential) == {"events:read"}


def test_a_project_has_a_bounded_number_of_keys(access: Access) -> None:
    record = access.rows.rows[access.root.key_id]
    for n in range(MAX_KEYS - 1):
        access.rows.add(replace(record, key_id=f"{n:012d}"))
    assert refused(access.keys.create, access.root, {}, NOW).details[0].rule == "count"
    access.keys.revoke(access.root, "key_" + "0" * 12, NOW)
    access.keys.create(access.root, {}, NOW)


def test_the_first_key_of_a_project_is_made_by_its_maker(access: Access) -> None:
    made = access.keys.first("p9", access.root, NOW)
    assert (made["created_by"], set(made["scopes"])) == (access.root.credential, access.root.scopes)
    assert access.rows.rows[made["id"][4:]].project == "p9"


# --- last used


def test_last_used_is_written_once_per_minute_and_key() -> None:
    access = Access()
    processes = [LastUsed(access.rows, access.clock.now) for _ in range(2)]
    written = set()
    for _ in range(180):
        for one in processes:
            one.used(access.root)
        written.add(access.rows.rows[access.root.key_id].last_used_at)
        access.clock.ms += 1_000
    assert access.rows.touches == 6, "each process asks once a minute"
    assert len(written) == 3


def test_a_note_that_cannot_be_written_does_not_stop_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access()

    def away(*_: object) -> bool:
        raise Retry("away")

    monkeypatch.setattr(access.rows, "touch", away)
    LastUsed(access.rows, access.clock.now).used(access.root)


def test_notes_are_bounded_in_memory() -> None:
    access = Access()
    noted = LastUsed(access.rows, access.clock.now, size=2)
    for one in [access.root, *(access.key(access.root, "events:read") for _ in range(2)), access.root]:
        noted.used(one)
    assert access.rows.touches == 4


# --- people


def test_a_person_holds_at_most_what_is_given_and_loses_it_at_once(access: Access) -> None:
    person = access.person(access.root, "Ada", "events:*")
    key = access.key(access.root, "events:read", owner=person.id)
    assert access.directory.scopes_of("p1", key.credential) == {"events:read"}
    access.people.change(access.root, person.id, {"scopes": ["events:write"]}, 1)
    assert access.directory.scopes_of("p1", key.credential) == frozenset()
    access.people.remove(access.root, person.id, NOW)
    assert refused(access.directory.confirm, key, "events:read").code == "ERR_SCOPE"
    assert access.people.get("p1", person.id).as_json()["status"] == "removed"
    assert access.people.remove(access.root, person.id, NOW + 1).removed_at == NOW


def test_requests_of_a_person_are_narrowed_within_the_caches_time(access: Access) -> None:
    """A39, for keys: the role was removed a minute ago."""
    person, clock = access.person(access.root, "Ada", "events:*"), Clock(0)
    key = access.key(access.root, "events:read", owner=person.id)
    narrower = Narrower(access.persons, clock.s, ttl_s=30)
    assert narrower.narrow(key).allows("events:read")
    access.people.remove(access.root, person.id, NOW)
    clock.ms += 30_000
    assert narrower.narrow(key).scopes == frozenset()
    assert narrower.narrow(access.root) is access.root


def test_narrowing_is_bounded_in_time_and_memory(access: Access) -> None:
    with pytest.raises(ValueError, match="ttl_s"):
        Narrower(access.persons, Clock().s, ttl_s=0)
    narrower = Narrower(access.persons, Clock().s, size=1)
    for name in ("a", "b"):
        narrower.narrow(Principal("p1", "k", frozenset(), person=name))
    assert len(narrower._kept) == 1


def test_people_are_given_no_more_than_the_giver_has(access: Access) -> None:
    weak = access.key(access.root, "admin:*", "events:read")
    assert refused(access.people.add, weak, {"name": "x", "scopes": ["events:write"]}, NOW).code == "ERR_SCHEMA"
    person = access.person(access.root, "Ada", "events:*", "notify:read")
    assert access.people.change(weak, person.id, {"scopes": ["notify:read"]}, None).scopes == {"notify:read"}
    assert refused(access.people.change, weak, person.id, {"scopes": ["events:*"]}, None).code == "ERR_SCHEMA"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "x"}, "ERR_SCHEMA"),
        ({"name": "", "scopes": ["events:read"]}, "ERR_SCHEMA"),
        ({"name": "x", "scopes": "events:read"}, "ERR_SCHEMA"),
        ({"name": "x", "scopes": ["events:read"], "id": "per_1"}, "ERR_READONLY_FIELD"),
        ({"name": "x", "scopes": ["events:read"], "created_by": "me"}, "ERR_READONLY_FIELD"),
    ],
)
def test_what_is_no_person_is_refused(access: Access, body: dict[str, Any], code: str) -> None:
    assert refused(access.people.add, access.root, body, NOW).code == code


def test_people_of_other_projects_do_not_exist_and_versions_are_kept(access: Access) -> None:
    person, stranger = access.person(access.root, "Ada", "events:*"), access.bootstrap("p2")
    assert refused(access.people.get, "p2", person.id).code == "ERR_NOT_FOUND"
    assert refused(access.people.remove, stranger, person.id, NOW).code == "ERR_NOT_FOUND"
    assert refused(access.people.change, access.root, person.id, {"name": "x"}, 7).code == "ERR_CONFLICT"
    assert refused(access.keys.create, stranger, {"owner": person.id}, NOW).code == "ERR_SCHEMA"
    assert refused(access.people.change, access.root, person.id, {"name": ""}, None).code == "ERR_SCHEMA"
    assert [one.id for one in access.people.all("p1")] == [person.id]


def test_a_key_of_a_person_stays_within_the_role(access: Access) -> None:
    person = access.person(access.root, "Ada", "events:read")
    assert refused(create, access, access.root, owner=person.id, scopes=["events:*"]).details[0].rule == "role"


# --- who stands behind a key


def test_keys_in_one_hand_are_related_and_keys_of_two_people_are_not(access: Access) -> None:
    ada, bob = access.person(access.root, "Ada", "events:*"), access.person(access.root, "Bob", "events:*")
    adas = access.key(access.root, "events:*", owner=ada.id)
    adas_second = access.key(access.root, "events:read", owner=ada.id)
    adas_child = access.key(adas, "events:read")
    bobs = access.key(access.root, "events:*", owner=bob.id)
    nobodys, nobodys_twin = access.key(access.root, "events:read"), access.key(access.root, "events:read")
    related = access.directory.related
    assert related(adas.credential, adas.credential)
    assert related(adas.credential, adas_second.credential), "one person"
    assert related(adas_child.credential, adas_second.credential), "a key made by one's key"
    assert related(access.root.credential, adas.credential), "who made a key has seen it"
    assert related(nobodys.credential, nobodys_twin.credential), "two keys that name nobody, made by one"
    assert not related(adas.credential, bobs.credential)
    assert not related(adas_child.credential, bobs.credential)


def test_a_made_up_person_does_not_break_the_chain(access: Access) -> None:
    """Ada adds a person who does not exist, makes them a key, and with it another one."""
    ada = access.person(access.root, "Ada", "admin:*", "approvals:*")
    adas = access.key(access.root, "admin:*", "approvals:*", owner=ada.id)
    puppet = access.person(adas, "Puppet", "admin:*", "approvals:*")
    first = access.key(adas, "admin:*", "approvals:*", owner=puppet.id)
    second = access.key(first, "approvals:*", owner=puppet.id)
    assert access.directory.related(adas.credential, second.credential)
    assert {adas.credential, ada.id, access.root.credential} <= access.directory.chain(second.credential)


def test_a_chain_that_bites_its_tail_ends(access: Access) -> None:
    record = access.rows.rows[access.root.key_id]
    access.rows.rows[access.root.key_id] = replace(record, created_by=access.root.credential)
    assert access.directory.chain(access.root.credential) == {access.root.credential}
    assert access.directory.holder(access.root.credential) == access.root.credential
    assert access.directory.holder("key_" + "0" * 12) == "key_" + "0" * 12


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({"events:*"}, {"events:read"}, {"events:read"}),
        ({"events:read"}, {"events:*"}, {"events:read"}),
        ({"events:*"}, {"events:*", "admin:read"}, {"events:*"}),
        ({"events:read"}, {"events:write"}, set()),
        (set(), {"events:*"}, set()),
    ],
)
def test_shared_scopes(one: set[str], other: set[str], shared: set[str]) -> None:
    assert shared_scopes(frozenset(one), frozenset(other)) == shared


def test_a_rotated_key_goes_on_for_the_overlap_beside_a_successor_of_its_kind(access: Access) -> None:
    old = access.key(access.root, "events:read", name="reader", signing=True)
    made = access.keys.rotate(access.root, old.credential, {"overlap_s": 60}, NOW)
    assert made["key"].startswith("tcn_live_")
    assert made["signing_secret"].startswith("tss_")
    assert (made["name"], made["scopes"], made["expires_at"]) == ("reader", ["events:read"], None)
    assert access.rows.rows[old.key_id].expires_at == NOW + 60_000
    access.clock.ms += 60_000
    assert access.rows.rows[old.key_id].refusal_code(access.clock.ms) == "ERR_AUTH_REVOKED"
    assert refused(access.keys.rotate, access.root, old.credential, {}, access.clock.ms).code == "ERR_CONFLICT"


def test_rotation_gives_nobody_a_stronger_or_longer_key(access: Access) -> None:
    soon = access.clock.ms + 1_000
    strong = access.key(access.root, "admin:*", "events:*")
    weak = access.key(access.root, "admin:write", expires_at=times.rfc3339(soon))
    assert refused(access.keys.rotate, weak, strong.credential, {}, NOW).code == "ERR_SCHEMA"
    assert access.rows.rows[strong.key_id].expires_at is None
    made = access.keys.rotate(weak, weak.credential, {}, NOW)
    assert made["expires_at"] == times.rfc3339(soon)
    assert access.directory.related(made["id"], weak.credential)
    stranger = access.bootstrap("p2")
    assert refused(access.keys.rotate, stranger, strong.credential, {}, NOW).code == "ERR_NOT_FOUND"
    for body in ({"overlap_s": -1}, {"overlap_s": True}, {"overlap_s": 604_801}, {"scopes": []}):
        assert refused(access.keys.rotate, access.root, strong.credential, body, NOW).code == "ERR_SCHEMA"
