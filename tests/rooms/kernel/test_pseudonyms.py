import base64
import hmac

import pytest

from tocsin.kernel.ids import PSEUDONYM
from tocsin.kernel.pseudonyms import Pseudonyms, project_key, protect
from tocsin.kernel.redaction import Redactor

MASTER = bytes(range(32))
ONE, TWO = Pseudonyms(project_key(MASTER, "one")), Pseudonyms(project_key(MASTER, "two"))


def test_a_pseudonym_is_stable_keyed_and_of_fixed_form() -> None:
    mac = hmac.new(project_key(MASTER, "one"), b"alice", "sha256").digest()
    assert ONE.of("alice") == "usr_" + base64.b32encode(mac).decode().lower()[:26]
    assert PSEUDONYM.fullmatch(ONE.of("alice"))
    assert ONE.of("alice") != ONE.of("bob")
    assert ONE.of("alice") != TWO.of("alice")
    assert PSEUDONYM.fullmatch(ONE.of(""))


def test_spelling_of_an_address_does_not_matter_but_case_of_a_name_does() -> None:
    assert ONE.of(" Alice@Example.com") == ONE.of("alice＠example.com")
    assert ONE.of("Alice") != ONE.of("alice")


def test_a_pseudonym_is_its_own() -> None:
    assert ONE.of(ONE.of("alice")) == ONE.of("alice")


@pytest.mark.parametrize("short", [b"", b"x" * 15])
def test_short_keys_are_refused(short: bytes) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        Pseudonyms(short)
    with pytest.raises(ValueError, match="at least 16"):
        project_key(short, "one")


def test_user_fields_become_linkable_pseudonyms() -> None:
    alice = ONE.of("alice")
    event = {
        "tags": {"user": "alice", "env": "prod"},
        "extras": {
            "user": {"id": 42, "email": "a@example.com", "plan": "gold"},
            "list": [{"userId": "alice"}],
            "n": 1,
        },
        "entity": {"type": "user", "id": "alice"},
        "dedup_key": "app|login|user:alice|malice",
        "metrics": {"n": 1},
    }
    out = ONE.event(event)
    assert out["tags"] == {"user": alice, "env": "prod"}
    assert out["extras"]["user"] == {"id": ONE.of("42"), "email": ONE.of("a@example.com"), "plan": "gold"}
    assert out["extras"]["list"] == [{"userId": alice}]
    assert out["entity"] == {"type": "user", "id": alice}
    assert out["dedup_key"] == f"app|login|user:{alice}|malice"
    assert event["tags"]["user"] == "alice"
    assert ONE.event(out) == out


def test_an_entity_is_a_person_by_type_or_by_form_only() -> None:
    assert ONE.event({"entity": {"type": "mailbox", "id": "a@example.com"}})["entity"]["id"] == ONE.of("a@example.com")
    assert ONE.event({"entity": {"type": "host", "id": "web-1"}})["entity"]["id"] == "web-1"


def test_protect_keeps_pseudonyms_and_tells_identities_apart() -> None:
    redactor = Redactor()
    outs = [
        protect(
            {
                "id": f"login:{mail}",
                "body": f"by {mail}",
                "tags": {"user_email": mail},
                "entity": {"type": "user", "id": mail},
                "dedup_key": f"app|{mail}",
            },
            redactor,
            ONE,
        )
        for mail in ("a@example.com", "b@example.com")
    ]
    assert "@" not in repr(outs)
    first, second = outs
    assert first["entity"]["id"] == first["tags"]["user_email"] == ONE.of("a@example.com")
    assert first["id"] == f"login:{ONE.of('a@example.com')}"
    assert len({first["id"], second["id"], first["dedup_key"], second["dedup_key"]}) == 4
    assert first["body"] == second["body"] == "by [redacted:email]"
