"""Contracts: what is refused and why, the one form, signatures, versions and the life of a version."""

from __future__ import annotations

import base64
import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tools import contract_schema

from tocsin.decisions import contracts
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Refusal

NOW = 1_800_000_000_000
SENT: dict[str, Any] = {
    "name": "mailer",
    "version": 1,
    "capabilities": ["mail.send", "mail.check"],
    "input": {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]},
    "output": {"type": "object"},
    "scopes": ["mail:send"],
    "data_class": {"level": "internal", "tags": ["eu", "gdpr"]},
    "trust": 80,
    "cost_pusd": 400_000,
    "latency_us": 250_000,
    "error_ppb": 1_000_000,
    "deterministic": False,
    "lease_ms": 30_000,
}
KEY, SIGNATURE = base64.b64encode(bytes(32)).decode(), base64.b64encode(bytes(64)).decode()


def changed(**fields: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SENT), **fields}


def refused(sent: Any) -> list[tuple[str, str]]:
    with pytest.raises(Refusal) as caught:
        contracts.validate(sent, NOW)
    assert caught.value.code == "ERR_SCHEMA"
    assert all(detail.fix for detail in caught.value.details)
    return [(detail.field, detail.rule) for detail in caught.value.details]


def test_the_one_form_does_not_depend_on_how_it_was_sent() -> None:
    one = contracts.validate(SENT, NOW)
    shuffled = dict(reversed(changed(capabilities=["mail.check", "mail.send"]).items()))
    shuffled["data_class"] = {"tags": ["gdpr", "eu"], "level": "internal"}
    shuffled["output"] = {"type": ["object"], "title": "nothing in particular", "minLength": 3}
    assert canonical_json(contracts.validate(shuffled, NOW)) == canonical_json(one)
    assert (one["state"], one["since_ms"], one["capabilities"]) == ("draft", NOW, ["mail.check", "mail.send"])


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ([], [("(body)", "type")]),
        (changed(name="Mailer"), [("name", "pattern")]),
        (changed(name="mailer\n"), [("name", "pattern")]),
        (changed(version=0), [("version", "range")]),
        (changed(version=1.0), [("version", "type")]),
        (changed(version=True), [("version", "type")]),
        (changed(cost_pusd=2**53), [("cost_pusd", "range")]),
        (changed(capabilities=[]), [("capabilities", "items")]),
        (changed(capabilities=["a", "a"]), [("capabilities", "unique")]),
        (changed(scopes=["ok", "Not ok", 3]), [("scopes[1]", "pattern"), ("scopes[2]", "type")]),
        (changed(data_class={"level": "secret", "tags": []}), [("data_class.level", "enum")]),
        (changed(data_class={"level": "public"}), [("data_class.tags", "required")]),
        (changed(trust=101, error_ppb=-1), [("trust", "range"), ("error_ppb", "range")]),
        (changed(state="active"), [("state", "read-only")]),
        (changed(colour="red"), [("colour", "unknown-field")]),
        (changed(owner=KEY), [("signature", "required")]),
        (changed(signature=SIGNATURE), [("owner", "required")]),
        (changed(output={"format": "uri"}), [("output.format", "keyword")]),
    ],
)
def test_refusals_name_every_field_and_rule(sent: Any, found: list[tuple[str, str]]) -> None:
    assert refused(sent) == found


def test_a_contract_is_bounded() -> None:
    names = {f"{'n' * 200}{i}": {"type": "string"} for i in range(200)}
    with pytest.raises(Refusal) as caught:
        contracts.validate(changed(input={"type": "object", "properties": names}), NOW)
    assert caught.value.code == "ERR_BODY_TOO_LARGE"


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**64))
def test_the_published_schema_and_the_check_agree(seed: int) -> None:
    """Random damage to a contract; the jsonschema library reads the published document. Types are judged apart."""
    rnd = random.Random(seed)
    sent = copy.deepcopy(SENT) | rnd.choice([{}, {"owner": KEY, "signature": SIGNATURE}])
    junk = [None, True, 0, -1, 101, 2**53, 1.5, "", "a", "A!", [], ["a"], ["a", "a"], ["A!"], {}, {"level": "public"}]
    for _ in range(rnd.randrange(3)):
        key = rnd.choice([*(key for key in sent if key not in ("input", "output")), "extra"])
        if rnd.random() < 0.3:
            sent.pop(key, None)
        else:
            sent[key] = rnd.choice(junk)
    allowed = Draft202012Validator(contracts.json_schema()).is_valid(sent)
    try:
        contracts.validate(sent, NOW)
    except Refusal:
        assert not allowed
    else:
        assert allowed


def test_the_published_schema_is_generated() -> None:
    assert contract_schema.main(["--check"]) == 0
    Draft202012Validator.check_schema(json.loads(Path(contract_schema.PATH).read_text("utf-8")))


def test_a_signature_is_over_the_one_form_without_itself() -> None:
    seen: list[tuple[bytes, bytes, bytes]] = []

    def verify(key: bytes, message: bytes, signature: bytes) -> bool:
        seen.append((key, message, signature))
        return len(seen) == 1

    contract = contracts.validate(changed(owner=KEY, signature=SIGNATURE), NOW)
    contracts.check_signature(contract, verify)
    key, message, signature = seen[0]
    assert (key, signature) == (bytes(32), bytes(64))
    signed = json.loads(message)
    assert signed.keys() == SENT.keys() | {"owner"}
    assert contracts.signed_bytes({**contract, "state": "retired", "since_ms": 7}) == message
    with pytest.raises(Refusal) as caught:
        contracts.check_signature(contract, verify)
    assert caught.value.code == "ERR_SIG_INVALID"
    contracts.check_signature(contracts.validate(SENT, NOW), verify)
    assert len(seen) == 2


def test_a_signature_in_a_second_base64_form_is_refused() -> None:
    contract = contracts.validate(changed(owner=KEY, signature=SIGNATURE[:-3] + "B=="), NOW)
    with pytest.raises(Refusal):
        contracts.check_signature(contract, lambda *_: True)


def test_versions_grow_and_stay_with_their_owner() -> None:
    old = contracts.validate(changed(version=3, owner=KEY, signature=SIGNATURE), NOW)
    other = base64.b64encode(bytes(31) + b"\1").decode()
    contracts.check_successor(contracts.validate(changed(name="other"), NOW), [old])
    contracts.check_successor(contracts.validate(changed(version=4, owner=KEY, signature=SIGNATURE), NOW), [old])
    for fields, field in (
        ({"version": 3, "owner": KEY, "signature": SIGNATURE}, "version"),
        ({"version": 2, "owner": KEY, "signature": SIGNATURE}, "version"),
        ({"version": 4, "owner": other, "signature": SIGNATURE}, "owner"),
        ({"version": 4}, "owner"),
    ):
        with pytest.raises(Refusal) as caught:
            contracts.check_successor(contracts.validate(changed(**fields), NOW), [old])
        assert (caught.value.code, caught.value.details[0].field) == ("ERR_CONFLICT", field)


def test_the_life_of_a_version() -> None:
    draft = contracts.validate(SENT, NOW)
    active = contracts.moved(draft, "active", NOW + 1, 5_000)
    draining = contracts.moved(active, "draining", NOW + 2, 5_000)
    at = NOW + 2 + contracts.PUBLISH_MS + 5_000 + 30_000 + 1
    assert contracts.retire_after_ms(draining, 5_000) == at
    with pytest.raises(Refusal) as caught:
        contracts.moved(draining, "retired", at - 1, 5_000)
    assert caught.value.details[0].rule == "drain-time"
    retired = contracts.moved(draining, "retired", at, 5_000)
    assert (retired["state"], retired["since_ms"]) == ("retired", at)
    allowed = {("draft", "active"), ("draft", "retired"), ("active", "draining"), ("draining", "retired")}
    for before in contracts.STATES:
        for after in contracts.STATES:
            contract = {**draft, "state": before, "since_ms": 0}
            if (before, after) in allowed:
                assert contracts.moved(contract, after, at, 5_000)["state"] == after
            else:
                with pytest.raises(Refusal):
                    contracts.moved(contract, after, at, 5_000)
