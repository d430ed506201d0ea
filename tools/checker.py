#!/usr/bin/env python3
"""Check certificates of routing decisions: python3 checker.py SNAPSHOT HEALTH CERTIFICATE...

SNAPSHOT holds header, policy and contracts; without contracts, the header is taken as it is and certificates of the
short form are checked. Exit status 0: each certificate is, to the byte, the one there is for its request; 1: not.
Prints the digests of the receipts. Hashing: RFC 6962 over RFC 8785. Standard library only, no code of the service.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

LEVELS = ("public", "internal", "confidential", "restricted")
NUMBERS = ("trust", "cost_pusd", "latency_us", "error_ppb")
BOUNDS = ((1, ("minimum", "minLength", "minItems")), (-1, ("maximum", "maxLength", "maxItems")))


def need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha(data: Any) -> str:
    return hashlib.sha256(data if isinstance(data, bytes) else canonical(data)).hexdigest()


def root(known: list[Any], low: int, high: int, rest: list[str]) -> str:
    """Root over [low, high) of a list that begins with the known services; roots of what lies behind are in rest."""
    if high <= len(known) and high - low < 2:
        return sha(b"\0" + canonical(known[low])) if low < high else sha(b"")
    if low >= len(known):
        return rest.pop(0)
    cut = low + (1 << (high - low - 1).bit_length() - 1)
    return sha(b"\1" + bytes.fromhex(root(known, low, cut, rest) + root(known, cut, high, rest)))


def subtype(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is False or b is True
    if "anyOf" in a or "anyOf" in b:
        return all(subtype(x, b) for x in a["anyOf"]) if "anyOf" in a else any(subtype(a, x) for x in b["anyOf"])
    if "const" in b:
        return sha(a) == sha(b)
    if "const" in a:
        n, text = a["const"], isinstance(a["const"], str)
        a = {"type": "integer", "minimum": n, "maximum": n} if type(n) is int else {"type": "boolean"}
        a = {"type": "string", "minLength": len(n), "maxLength": len(n)} if text else a
    if a["type"] != b["type"] and (a["type"], b["type"]) != ("integer", "number"):
        return False
    if any(k in b and (k not in a or a[k] * sign < b[k] * sign) for sign, keys in BOUNDS for k in keys):
        return False
    if a["type"] == "array":
        return a.get("maxItems") == 0 or subtype(a.get("items", True), b.get("items", True))
    (of_a, any_a), (of_b, any_b) = ((t.get("properties", {}), t.get("additionalProperties", True)) for t in (a, b))
    fits = all(subtype(of_a.get(k, any_a), of_b.get(k, any_b)) for k in {*of_a, *of_b}) and subtype(any_a, any_b)
    return a["type"] != "object" or (fits and set(b.get("required", [])) <= set(a.get("required", [])))


def value(condition: Any, r: Any, s: Any) -> Any:
    """Value of a rule's condition for request r and service s."""
    op, *parts = condition
    if op in ("request", "service", "value"):
        return parts[0] if op == "value" else {**(of := r if op == "request" else s), **of["data_class"]}[parts[0]]
    held = [value(part, r, s) for part in parts]
    if op in ("not", "and", "or"):
        return not held[0] if op == "not" else all(held) if op == "and" else any(held)
    a, b = held
    if op == "le":
        return LEVELS.index(a) <= LEVELS.index(b) if isinstance(a, str) else a <= b
    need(op in ("eq", "in", "subset"), f"operator {op}")
    return a == b if op == "eq" else a in b if op == "in" else set(a) <= set(b)


def reason(r: Any, s: Any, policy: Any, health: Any) -> str | None:
    """The first gate or rule that keeps service s from request r."""
    need(all(type(d[n]) is int and 0 <= d[n] < 2**53 for d in (r, s) for n in NUMBERS), "a quantity is none")
    rules = [(x["effect"], x["id"], value(x["when"], r, s)) for x in policy["rules"]]
    gates = {
        "active": s["state"] == "active",
        "healthy": f"{s['name']}@{s['version']}" not in health["down"],
        "capabilities": set(r["capabilities"]) <= set(s["capabilities"]),
        "input": subtype(r["input"], s["input"]),
        "output": subtype(s["output"], r["output"]),
        "scopes": set(s["scopes"]) <= set(r["scopes"]),
        "level": LEVELS.index(r["data_class"]["level"]) <= LEVELS.index(s["data_class"]["level"]),
        "tags": set(r["data_class"]["tags"]) <= set(s["data_class"]["tags"]),
        "trust": s["trust"] >= r["trust"],
        **{name.partition("_")[0]: s[name] <= r[name] for name in NUMBERS[1:]},
        **{f"forbid:{name}": not holds for effect, name, holds in rules if effect == "forbid"},
        "permit": any(holds for effect, _, holds in rules if effect == "permit"),
    }
    return next((name for name, passed in gates.items() if not passed), None)


def key(s: Any, w: Any) -> tuple[int, str, int]:
    j = w["cost"] * s["cost_pusd"] + w["latency"] * s["latency_us"] + w["error"] * s["error_ppb"]
    return j + w["distrust"] * (100 - s["trust"]), s["name"], s["version"]


def audit(head: Any, policy: Any, held: Any) -> None:
    names, rankings = [(s["name"], s["version"]) for s in held], {}
    need(names == sorted(set(names)), "contracts are not sorted or not unique")
    for profile, weights in policy["profiles"].items():
        ordered = [held[i] for *_, i in sorted((*key(s, weights), i) for i, s in enumerate(held))]
        for word in {word for s in held for word in s["capabilities"]}:
            offering = [s for s in ordered if word in s["capabilities"]]
            rankings[f"{word}|{profile}"] = [len(offering), root(offering, 0, len(offering), [])]
    made = {**head, "v": 1, "count": len(held), "root": root(held, 0, len(held), []), "rankings": rankings}
    need(sha(made) == sha(head), "the header is not of these contracts")


def verify(snapshot: Any, health: Any, data: bytes) -> str:
    """Digest of the receipt of a genuine certificate. The snapshot was audited, or its header is trusted."""
    head, policy, given = snapshot["header"], snapshot["policy"], json.loads(data)
    need(head["policy"] == sha(policy), "the policy is not the header's")
    request, form, weights = given["request"], given["form"], policy["profiles"][given["request"]["profile"]]
    shown = snapshot["contracts"] if form == "full" else given["shown"]
    reasons = [reason(request, s, policy, health) for s in shown]
    able = [(key(s, weights), i) for i, s in enumerate(shown) if reasons[i] is None]
    at, extra = min(able)[1] if able else None, {}
    if form == "short":
        way, rest = f"{request['capabilities'][0]}|{request['profile']}", list(given["rest"])
        count, top = head["rankings"].get(way, [0, sha(b"")])
        need(root(shown, 0, count, rest) == top, "not the ranking's beginning")
        need(not rest and at == (len(shown) - 1 if len(shown) < count or able else None), "the wrong ones are shown")
        extra = {"shown": shown, "rest": given["rest"]}
    digests = {k: sha(d) for k, d in (("request", request), ("snapshot", head), ("health", health))}
    receipt = {"v": 1, **digests, "decision": None if at is None else {k: shown[at][k] for k in ("name", "version")}}
    words = ["winner" if i == at else why or "dominated" for i, why in enumerate(reasons)]
    made = {"v": 1, "form": form, "receipt": receipt, "request": request, "reasons": words, **extra}
    need(canonical(made) == data, "not the certificate of these inputs")
    return sha(receipt)


if __name__ == "__main__":
    try:
        snapshot, health = (json.loads(Path(name).read_bytes()) for name in sys.argv[1:3])
        if "contracts" in snapshot:
            audit(snapshot["header"], snapshot["policy"], snapshot["contracts"])
        for name in sys.argv[3:]:
            print(f"VERIFIED {name}: receipt {verify(snapshot, health, Path(name).read_bytes())}")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        sys.exit(f"NOT VERIFIED: {type(error).__name__}: {error}")
