"""Contracts as others write them: A2A agent cards (protocol 1.0) and entries of an MCP registry (server.json).

Neither format says what a call costs, how long it takes or what data it may see, so the contract travels whole, owner's
signature included, in the place that the format keeps for such things: an extension of the card, publisher-provided
metadata of the entry. What is read back must agree with what the rest of the document tells people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from tocsin.decisions.contracts import SENT, Contract
from tocsin.kernel.errors import Detail, Refusal

#: Names the contract inside a foreign document.
EXTENSION: Final = "urn:tocsin:contract:1"
A2A_VERSION: Final = "1.0"
MCP_SCHEMA: Final = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
_PUBLISHER: Final = "io.modelcontextprotocol.registry/publisher-provided"
_MEDIA: Final = ["application/json"]


def sent_fields(contract: Contract) -> dict[str, Any]:
    """A contract as its owner would send it."""
    return {name: contract[name] for name in SENT if name in contract}


def _summary(contract: Contract) -> str:
    """At most 100 characters, as an MCP entry allows."""
    made = f"{contract['name']}: {', '.join(contract['capabilities'])}"
    return made if len(made) <= 100 else made[:97] + "..."


def to_agent_card(contract: Contract, url: str) -> dict[str, Any]:
    """A2A agent card: one skill per capability, the contract as an extension that callers may ignore."""
    extension = {
        "uri": EXTENSION,
        "description": "What a call costs and promises, and what it may be given.",
        "required": False,
        "params": sent_fields(contract),
    }
    return {
        "name": contract["name"],
        "description": _summary(contract),
        "version": str(contract["version"]),
        "supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": A2A_VERSION}],
        "capabilities": {"extensions": [extension]},
        "defaultInputModes": _MEDIA,
        "defaultOutputModes": _MEDIA,
        "skills": [
            {"id": word, "name": word, "description": f"{word} as the contract describes it", "tags": word.split(".")}
            for word in contract["capabilities"]
        ],
    }


def from_agent_card(card: Any) -> Any:
    """The contract inside an agent card, as sent: to be validated like any other.

    Raises Refusal ERR_SCHEMA when there is none, or when name, version or skills say something else.
    """
    extensions = _at(card, "capabilities", "extensions")
    found = [one for one in extensions if _at(one, "uri") == EXTENSION] if isinstance(extensions, list) else []
    if len(found) != 1:
        _refuse("capabilities.extensions", "contract", f"add one extension {EXTENSION} whose params are a contract")
    sent = _at(found[0], "params")
    skills = _at(card, "skills")
    ids = [_at(skill, "id") for skill in skills] if isinstance(skills, list) else None
    _agree(card, sent, "name", _at(sent, "name"))
    _agree(card, sent, "version", str(_at(sent, "version")))
    named = _at(sent, "capabilities")
    if not isinstance(named, list) or ids is None or sorted(map(str, ids)) != sorted(map(str, named)):
        _refuse("skills", "agree", "list exactly the contract's capabilities, by id")
    return sent


def to_server_entry(contract: Contract, namespace: str, url: str) -> dict[str, Any]:
    """MCP server.json of a remote server; `namespace` is a reverse DNS name such as com.example."""
    return {
        "$schema": MCP_SCHEMA,
        "name": f"{namespace}/{contract['name']}",
        "description": _summary(contract),
        "version": f"{contract['version']}.0.0",
        "remotes": [{"type": "streamable-http", "url": url}],
        "_meta": {_PUBLISHER: {EXTENSION: sent_fields(contract)}},
    }


def from_server_entry(entry: Any) -> Any:
    """The contract inside an MCP entry, as sent: to be validated like any other.

    Raises Refusal ERR_SCHEMA when there is none, or when name or version say something else.
    """
    sent = _at(entry, "_meta", _PUBLISHER, EXTENSION)
    if not isinstance(sent, dict):
        _refuse("_meta", "contract", f"put a contract under {_PUBLISHER}, {EXTENSION}")
    name = _at(entry, "name")
    _agree({"name": name.rpartition("/")[2] if isinstance(name, str) else None}, sent, "name", _at(sent, "name"))
    _agree(entry, sent, "version", f"{_at(sent, 'version')}.0.0")
    return sent


def _at(document: Any, *path: str) -> Any:
    """What is at a path of keys, or None."""
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _agree(document: Any, sent: Any, field: str, wanted: Any) -> None:
    if _at(document, field) != wanted or _at(sent, field) is None:
        _refuse(field, "agree", f"send the contract's own {field}")


def _refuse(field: str, rule: str, fix: str) -> NoReturn:
    raise Refusal("ERR_SCHEMA", "The document holds no contract that agrees with it.", [Detail(field, rule, fix)])
