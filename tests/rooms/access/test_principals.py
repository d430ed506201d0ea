from collections.abc import Mapping

import pytest

from tocsin.access import keys, principals
from tocsin.access.principals import (
    CachedKeyStore,
    KeyRecord,
    Principal,
    authenticate,
    parse_scopes,
    require,
    valid_scope,
)
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Request

PEPPER = bytes(range(32))
NOW = 1_800_000_000_000
TEXT, KEY_ID = keys.mint("live")
OTHER, _ = keys.mint("live")


def record(**changes: object) -> KeyRecord:
    fields: dict[str, object] = {
        "key_id": KEY_ID,
        "project": "p1",
        "env": "live",
        "hash": keys.stored_hash(PEPPER, TEXT),
        "scopes": frozenset({"ingest:write"}),
        "created_at": NOW - 1000,
    }
    return KeyRecord(**{**fields, **changes})  # type: ignore[arg-type]


class Store:
    def __init__(self, *records: KeyRecord) -> None:
        self.records = {one.key_id: one for one in records}
        self.reads: list[str] = []

    def get(self, key_id: str) -> KeyRecord | None:
        self.reads.append(key_id)
        return self.records.get(key_id)


def request(headers: Mapping[str, tuple[str, ...]]) -> Request:
    return Request("POST", "/v1/events", "t", "r", headers=headers)


def refusal(headers: Mapping[str, tuple[str, ...]], store: Store, env: str = "live") -> Refusal:
    with pytest.raises(Refusal) as caught:
        authenticate(request(headers), store, PEPPER, NOW, env)
    return caught.value


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": (TEXT,)},
        {"x-api-key": (f" {TEXT}\t",)},
        {"authorization": (f"Bearer {TEXT}",)},
        {"authorization": (f"bearer  {TEXT}",)},
        {"x-api-key": (TEXT,), "authorization": (f"Bearer {TEXT}",)},
        {"x-api-key": (TEXT, TEXT)},
        {"x-api-key": (f"{TEXT}, {TEXT}",)},
        {"authorization": (f"Bearer {TEXT},Bearer {TEXT}",)},
        {"x-api-key": ("",), "authorization": (f"Bearer {TEXT}",)},
    ],
)
def test_one_key_however_sent_is_its_principal(headers: dict[str, tuple[str, ...]]) -> None:
    principal = authenticate(request(headers), Store(record()), PEPPER, NOW, "live")
    assert principal == Principal("p1", KEY_ID, frozenset({"ingest:write"}), "key")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": (TEXT,), "authorization": (f"Bearer {OTHER}",)},
        {"x-api-key": (TEXT,), "authorization": ("Basic dXNlcjpwYXNz",)},
        {"x-api-key": (TEXT, OTHER)},
        {"x-api-key": (f"{TEXT},{OTHER}",)},
        {"authorization": (f"Bearer {TEXT}", f"Bearer {OTHER}")},
        {"authorization": (f"Bearer {TEXT},bearer {OTHER}",)},
    ],
)
def test_credentials_that_differ_are_refused_without_a_read(headers: dict[str, tuple[str, ...]]) -> None:
    store = Store(record())
    refused = refusal(headers, store)
    assert (refused.code, refused.status, store.reads) == ("ERR_AUTH_AMBIGUOUS", 400, [])


@pytest.mark.parametrize("headers", [{}, {"x-api-key": ("",)}, {"authorization": (" ",)}])
def test_no_credential_is_asked_for(headers: dict[str, tuple[str, ...]]) -> None:
    refused = refusal(headers, Store(record()))
    assert (refused.code, refused.status) == ("ERR_AUTH_MISSING", 401)
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        f"Basic {TEXT}",
        TEXT,
        "Bearer x",
        f"Bearer {TEXT[:-1]}",
        "Bearer " + "k" * 1_000_000,
        'Digest a="b", c="d"',
    ],
    ids=map(str, range(7)),
)
def test_malformed_keys_are_refused_without_a_read(value: str) -> None:
    store = Store(record())
    assert refusal({"authorization": (value,)}, store).code == "ERR_AUTH_INVALID"
    assert store.reads == []


def test_an_unknown_id_and_a_wrong_secret_get_the_same_answer_at_the_same_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[bytes] = []
    real = keys.verify
    monkeypatch.setattr(principals.keys, "verify", lambda p, t, s: compared.append(s) or real(p, t, s))
    unknown = refusal({"x-api-key": (TEXT,)}, Store())
    wrong = refusal({"x-api-key": (TEXT,)}, Store(record(hash=keys.stored_hash(PEPPER, OTHER))))
    assert (unknown.code, unknown.message, unknown.headers) == (wrong.code, wrong.message, wrong.headers)
    assert unknown.code == "ERR_AUTH_INVALID"
    assert [len(stored) for stored in compared] == [32, 32]


def test_a_key_of_the_other_environment_is_refused_without_a_read() -> None:
    store = Store(record())
    assert refusal({"x-api-key": (TEXT,)}, store, env="test").code == "ERR_AUTH_ENV"
    assert store.reads == []


@pytest.mark.parametrize(
    "changes", [{"revoked_at": NOW}, {"expires_at": NOW}, {"revoked_at": NOW - 1, "expires_at": NOW + 1}]
)
def test_a_revoked_or_expired_key_is_refused(changes: dict[str, int]) -> None:
    assert refusal({"x-api-key": (TEXT,)}, Store(record(**changes))).code == "ERR_AUTH_REVOKED"


def test_revocation_is_told_only_to_who_knows_the_secret() -> None:
    revoked = record(revoked_at=NOW - 1, hash=keys.stored_hash(PEPPER, OTHER))
    assert refusal({"x-api-key": (TEXT,)}, Store(revoked)).code == "ERR_AUTH_INVALID"


def test_a_key_that_expires_later_works() -> None:
    assert (
        authenticate(request({"x-api-key": (TEXT,)}), Store(record(expires_at=NOW + 1)), PEPPER, NOW, "live").project
        == "p1"
    )


def test_the_cache_reads_once_and_forgets_after_its_time() -> None:
    store, now = Store(record()), [0.0]
    cache = CachedKeyStore(store, lambda: now[0], ttl_s=30)
    assert cache.get(KEY_ID) == cache.get(KEY_ID) == record()
    assert cache.get("nobody") is cache.get("nobody") is None
    assert store.reads == [KEY_ID, "nobody"]
    store.records[KEY_ID] = record(revoked_at=NOW)
    now[0] = 29.9
    assert cache.get(KEY_ID) == record()
    now[0] = 30.0
    assert cache.get(KEY_ID) == record(revoked_at=NOW)
    cache.forget(KEY_ID)
    cache.get(KEY_ID)
    assert store.reads == [KEY_ID, "nobody", KEY_ID, KEY_ID]


def test_a_flood_of_unknown_ids_does_not_push_out_a_known_key() -> None:
    store = Store(record())
    cache = CachedKeyStore(store, lambda: 0.0, size=10)
    cache.get(KEY_ID)
    for number in range(1000):
        cache.get(f"id{number}")
    assert cache.get(KEY_ID) is not None
    assert store.reads.count(KEY_ID) == 1
    assert len(cache._unknown) == 10


@pytest.mark.parametrize(("ttl", "size"), [(0, 1), (31, 1), (-1, 1), (1, 0)])
def test_cache_bounds_are_checked(ttl: float, size: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        CachedKeyStore(Store(), lambda: 0.0, ttl_s=ttl, size=size)


def test_scopes_cover_their_family_and_nothing_else() -> None:
    events = Principal("p", "k", frozenset({"events:*", "jobs:read"}))
    admin = Principal("p", "k", frozenset({"admin:*"}))
    assert events.allows("events:read")
    assert events.allows("events:write")
    assert events.allows("jobs:read")
    assert not events.allows("jobs:write")
    assert not events.allows("ingest:write")
    assert not events.allows("jobs:*")
    assert admin.allows("admin:write")
    assert not admin.allows("events:read")
    assert not Principal("p", "k", frozenset({"*:*", "*", "events:"})).allows("events:read")
    assert not events.allows("events:everything")


def test_a_missing_scope_is_named_with_its_remedy() -> None:
    require(Principal("p", "k", frozenset({"events:*"})), "events:read")
    with pytest.raises(Refusal) as caught:
        require(Principal("p", "k", frozenset({"events:read"})), "ingest:write")
    assert (caught.value.code, caught.value.status) == ("ERR_SCOPE", 403)
    assert "ingest:write" in caught.value.message
    assert "ingest:write" in caught.value.details[0].fix


@pytest.mark.parametrize(
    "scope",
    [
        "events:*,admin:*",
        "events:writeX",
        "publish:",
        "еvents:read",
        "events",
        ":read",
        "*",
        "*:*",
        " events:read",
        "",
        5,
        None,
    ],
)
def test_wrong_scopes_are_refused_by_name(scope: object) -> None:
    with pytest.raises(Refusal) as caught:
        parse_scopes(["ingest:write", scope])
    assert caught.value.code == "ERR_SCHEMA"
    assert [detail.field for detail in caught.value.details] == ["scopes[1]"]


def test_scopes_are_counted_and_admin_is_given_by_admins_only() -> None:
    assert parse_scopes(["ingest:write", "events:*"]) == {"ingest:write", "events:*"}
    for wrong in ([], ["events:read"] * 33):
        with pytest.raises(Refusal):
            parse_scopes(wrong)
    plain, admin = (Principal("p", "k", frozenset({one})) for one in ("events:*", "admin:*"))
    assert parse_scopes(["admin:*"], admin) == {"admin:*"}
    with pytest.raises(Refusal) as caught:
        parse_scopes(["admin:*"], plain)
    assert caught.value.details[0].rule == "grant"


@pytest.mark.parametrize(
    ("scope", "good"),
    [
        ("use:mail.send", True),
        ("use:mail:send", True),
        ("use:*", True),
        ("use:", False),
        ("use:Mail", False),
        ("use", False),
    ],
)
def test_the_words_of_a_project_are_scopes_of_the_family_use(scope: str, good: bool) -> None:
    assert valid_scope(scope) is good
    holder = Principal("p1", "k", frozenset({"use:mail.send", "decisions:run"}))
    assert holder.allows(scope) is (scope == "use:mail.send")
    assert Principal("p1", "k", frozenset({"use:*"})).allows(scope) is good
