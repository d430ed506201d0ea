"""Contracts: what a service offers, needs and promises, under an owner's signature.

A version never changes once registered; only its state moves: draft → active → draining → retired. A contract as it
stands in a snapshot (`Contract`) has every field, its types in normal form and its sets sorted, so that equal
contracts are equal bytes. All quantities are integers: cost in pico-USD per call, latency in µs, error in ppb.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from tocsin.decisions import documents
from tocsin.decisions.documents import MAX_INT, Schema
from tocsin.decisions.types import normalise
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Detail, Refusal

Contract = dict[str, Any]
#: (public key, message, signature) → whether it is one; Ed25519, RFC 8032.
Verify = Callable[[bytes, bytes, bytes], bool]

STATES: Final = ("draft", "active", "draining", "retired")
#: Which state may follow which.
NEXT: Final[Mapping[str, tuple[str, ...]]] = {
    "draft": ("active", "retired"),
    "active": ("draining",),
    "draining": ("retired",),
    "retired": (),
}
PPB: Final = 1_000_000_000
MAX_TRUST: Final = 100
MAX_VERSION: Final = 2**31 - 1
MAX_BYTES: Final = 32_768
#: How long a change may take from the reading of the clock to its effect, clocks that disagree included.
PUBLISH_MS: Final = 60_000

#: What an owner sends. All but endpoint, owner and signature are required, and the last two go together.
SENT: Final[Mapping[str, Schema]] = {
    "name": documents.text("[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", "The service."),
    "version": documents.integer(1, MAX_VERSION, "Greater than every version before it."),
    "capabilities": documents.words(1, 32, "What the service does, such as mail.send."),
    "input": {"description": "JSON Schema (declared subset) of what the service takes."},
    "output": {"description": "JSON Schema (declared subset) of what the service gives."},
    "scopes": documents.words(0, 32, "What a caller must hold."),
    "data_class": documents.data_class("The most protected data that the service may be given."),
    "trust": documents.integer(0, MAX_TRUST, "How far the service is trusted."),
    "cost_pusd": documents.integer(0, MAX_INT, "Most a call costs, in 1e-12 USD."),
    "latency_us": documents.integer(0, MAX_INT, "How long a call takes at most, in µs, but for the error share."),
    "error_ppb": documents.integer(0, PPB, "Share of calls that fail or take longer, in 1e-9."),
    "deterministic": {"type": "boolean", "description": "Whether equal inputs give equal outputs."},
    "lease_ms": documents.integer(1, 86_400_000, "How long a call may run, and how long a heartbeat holds."),
    "endpoint": documents.text("https?://[!-~]{1,2040}", "Where the service is called."),
    "owner": documents.text("[A-Za-z0-9+/]{43}=", "Ed25519 public key of the owner, in base64."),
    "signature": documents.text("[A-Za-z0-9+/]{86}==", "Ed25519 signature over the fields above in canonical form."),
}
OPTIONAL: Final = frozenset({"endpoint", "owner", "signature"})
#: What only Tocsin writes.
SERVER_SET: Final[Mapping[str, Schema]] = {
    "state": {**documents.choice(STATES, "Where the version is in its life."), "readOnly": True},
    "since_ms": {**documents.integer(0, MAX_INT, "Unix ms at which it came into this state."), "readOnly": True},
}
_SCHEMA: Final = documents.closed({**SENT, **SERVER_SET}, frozenset(SENT) - OPTIONAL)
_SETS: Final = ("capabilities", "scopes")
_TOGETHER: Final = {"owner": ["signature"], "signature": ["owner"]}


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a contract; fields that only Tocsin sets are readOnly, and refused when sent."""
    return {**_SCHEMA, "properties": dict(_SCHEMA["properties"]), "dependentRequired": _TOGETHER}


def sent_schema() -> dict[str, Any]:
    """JSON Schema of a contract as an owner sends it."""
    return {**documents.closed(SENT, frozenset(SENT) - OPTIONAL), "dependentRequired": _TOGETHER}


def validate(sent: Any, now_ms: int) -> Contract:
    """The contract that an owner sent, in its one form and as a draft.

    Raises Refusal: ERR_SCHEMA with every broken rule (at most 20), or ERR_BODY_TOO_LARGE.
    """
    documents.check(sent, _SCHEMA, "contract")
    if ("owner" in sent) != ("signature" in sent):
        missing = "owner" if "signature" in sent else "signature"
        detail = Detail(missing, "required", "send owner and signature together, or neither")
        raise Refusal("ERR_SCHEMA", "The contract breaks its schema.", [detail])
    made: Contract = {name: sent[name] for name in SENT if name in sent}
    for name in _SETS:
        made[name] = sorted(sent[name])
    made["data_class"] = documents.as_label(sent["data_class"])
    for name in ("input", "output"):
        made[name] = normalise(sent[name], name)
    made |= {"state": "draft", "since_ms": now_ms}
    if len(canonical_json(made)) > MAX_BYTES:
        detail = Detail("(body)", "bytes", f"send a contract of at most {MAX_BYTES} bytes; describe the types shorter")
        raise Refusal("ERR_BODY_TOO_LARGE", "The contract is too large.", [detail])
    return made


def signed_bytes(contract: Mapping[str, Any]) -> bytes:
    """What the owner signs: the canonical form of what was sent, without the signature."""
    return canonical_json({name: contract[name] for name in SENT if name in contract and name != "signature"})


def check_signature(contract: Contract, verify: Verify) -> None:
    """Refuse 401 ERR_SIG_INVALID unless the owner signed the contract in its one form. Unsigned ones pass."""
    if "owner" not in contract:
        return
    try:
        key, signature = (base64.b64decode(contract[name], validate=True) for name in ("owner", "signature"))
        if base64.b64encode(signature).decode() == contract["signature"] and verify(
            key, signed_bytes(contract), signature
        ):
            return
    except binascii.Error:  # pragma: no cover - the grammar leaves no such text
        pass
    fix = "sign the canonical form: sets sorted, types in normal form, keys sorted, no white space"
    raise Refusal("ERR_SIG_INVALID", "The signature is not the owner's.", [Detail("signature", "ed25519", fix)])


def identity(contract: Mapping[str, Any]) -> tuple[str, int]:
    """What names a contract: (name, version)."""
    return contract["name"], contract["version"]


def service_id(contract: Mapping[str, Any]) -> str:
    """`name@version`, as health names it."""
    return f"{contract['name']}@{contract['version']}"


def check_successor(contract: Contract, registered: Iterable[Contract]) -> None:
    """Refuse 409 ERR_CONFLICT a version that is not the greatest of its name, or that has another owner."""
    same = [one for one in registered if one["name"] == contract["name"]]
    if not same:
        return
    latest = max(same, key=identity)
    if contract["version"] <= latest["version"]:
        fix = f"send version {latest['version'] + 1} or greater; a registered version never changes"
        raise Refusal("ERR_CONFLICT", "The version is taken.", [Detail("version", "greater", fix)])
    if latest.get("owner", contract.get("owner")) != contract.get("owner"):
        fix = "sign with the key that owns the name, or register another name"
        raise Refusal("ERR_CONFLICT", "The name has another owner.", [Detail("owner", "same-owner", fix)])


def retire_after_ms(contract: Mapping[str, Any], staleness_ms: int) -> int:
    """The earliest Unix ms at which a draining contract may be retired.

    Draining takes effect at most PUBLISH_MS after `since_ms`; until `staleness_ms` later a router may decide by a
    snapshot without it; a call that it starts then runs for at most the lease; and one ms, because all bounds may be
    met exactly. tests/rooms/decisions/test_snapshots.py explores every interleaving of a small model with this wait,
    and finds a call at a retired service with a shorter one.
    """
    return int(contract["since_ms"]) + PUBLISH_MS + staleness_ms + int(contract["lease_ms"]) + 1


def moved(contract: Contract, state: str, now_ms: int, staleness_ms: int) -> Contract:
    """The contract in another state. Raises Refusal 409 ERR_CONFLICT for a move that is not allowed, or not yet."""
    before = contract["state"]
    if state not in NEXT[before]:
        able = " or ".join(NEXT[before]) or "nothing; register a new version"
        fix = f"from {before} move to {able}"
        raise Refusal("ERR_CONFLICT", f"A {before} contract cannot become {state}.", [Detail("state", "order", fix)])
    if before == "draining":
        at = retire_after_ms(contract, staleness_ms)
        if now_ms < at:
            fix = f"wait {at - now_ms} ms: calls that were routed to it may still run"
            raise Refusal("ERR_CONFLICT", "The contract is still draining.", [Detail("state", "drain-time", fix)])
    return {**contract, "state": state, "since_ms": now_ms}
