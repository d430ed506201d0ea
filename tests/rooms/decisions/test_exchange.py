"""Contracts go out as A2A cards and MCP entries and come back the same, signature included."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest

from tests.rooms.decisions.test_contracts import NOW, SENT
from tocsin.decisions import contracts, exchange
from tocsin.journal.signatures import Ed25519Key, verify_ed25519
from tocsin.kernel.errors import Refusal

URL = "https://mail.example/a2a"


def signed() -> contracts.Contract:
    key = Ed25519Key(bytes(range(32)))
    sent = {**SENT, "owner": base64.b64encode(key.public()).decode(), "signature": base64.b64encode(bytes(64)).decode()}
    draft = contracts.validate(sent, NOW)
    signature = base64.b64encode(key.sign(contracts.signed_bytes(draft))).decode()
    return contracts.validate({**sent, "signature": signature}, NOW)


CARD = exchange.to_agent_card(signed(), URL)
ENTRY = exchange.to_server_entry(signed(), "com.example", URL)


@pytest.mark.parametrize(("document", "read"), [(CARD, exchange.from_agent_card), (ENTRY, exchange.from_server_entry)])
def test_there_and_back_with_a_signature_that_still_holds(document: Any, read: Any) -> None:
    back = contracts.validate(read(json.loads(json.dumps(document))), NOW)
    assert back == signed()
    contracts.check_signature(back, verify_ed25519)
    with pytest.raises(Refusal):
        contracts.check_signature({**back, "cost_pusd": back["cost_pusd"] + 1}, verify_ed25519)


def test_what_the_formats_require_is_there() -> None:
    required = {"name", "description", "version", "supportedInterfaces", "capabilities", "skills"}
    assert required | {"defaultInputModes", "defaultOutputModes"} <= CARD.keys()
    assert all({"id", "name", "description", "tags"} <= skill.keys() for skill in CARD["skills"])
    assert (ENTRY["name"], ENTRY["version"], ENTRY["remotes"]) == (
        "com.example/mailer",
        "1.0.0",
        [{"type": "streamable-http", "url": URL}],
    )
    many = contracts.validate({**SENT, "capabilities": [f"capability.number-{i}" for i in range(32)]}, NOW)
    assert len(exchange.to_server_entry(many, "com.example", URL)["description"]) == 100


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "other"}, "name"),
        ({"version": "2"}, "version"),
        ({"skills": CARD["skills"][:1]}, "skills"),
        ({"skills": None}, "skills"),
        ({"capabilities": {}}, "capabilities.extensions"),
        ({"capabilities": {"extensions": CARD["capabilities"]["extensions"] * 2}}, "capabilities.extensions"),
    ],
)
def test_a_card_that_says_something_else_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refused:
        exchange.from_agent_card({**copy.deepcopy(CARD), **change})
    assert refused.value.details[0].field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "com.example/other"}, "name"),
        ({"version": "2.0.0"}, "version"),
        ({"_meta": {}}, "_meta"),
        ({"name": 1}, "name"),
    ],
)
def test_an_entry_that_says_something_else_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refused:
        exchange.from_server_entry({**copy.deepcopy(ENTRY), **change})
    assert refused.value.details[0].field == field


@pytest.mark.parametrize("junk", [None, [], "card", 3, {"capabilities": []}, {"_meta": [1]}])
def test_junk_is_refused(junk: Any) -> None:
    for read in (exchange.from_agent_card, exchange.from_server_entry):
        with pytest.raises(Refusal):
            read(junk)
