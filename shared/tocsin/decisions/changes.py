"""Changes of a registry, as edits of whatever snapshot is current when they are made.

Each function returns what `Registry.publish` asks: given the current snapshot, the edit, or a Refusal. An edit may be
asked for more than once and must not depend on anything but the snapshot and its own arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tocsin.decisions.contracts import Contract, check_successor, identity, moved
from tocsin.decisions.policies import Policy
from tocsin.decisions.ports import Deed
from tocsin.decisions.snapshots import Edit, Snapshot
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal

#: How long a retired version stays in the registry at least, in ms; older snapshots keep it.
RETIRED_MS: Final = 90 * clock.DAY

EditOf = Callable[[Snapshot], Edit]


def deed_of(verb: str) -> Callable[[Edit], Deed]:
    """What is recorded of an edit that puts one contract."""

    def deed(edit: Edit) -> Deed:
        (contract,) = edit.put
        return Deed(verb, "contract", f"{contract['name']}-v{contract['version']}", contract)

    return deed


def register(contract: Contract) -> EditOf:
    """Add a validated contract, as a draft. Refuses 409 ERR_CONFLICT a version that is taken or not the greatest, or
    another owner's name.
    """

    def edit(snapshot: Snapshot) -> Edit:
        check_successor(contract, snapshot.contracts)
        return Edit(put=[contract])

    return edit


def move(name: str, version: int, state: str, now_ms: int, staleness_ms: int) -> EditOf:
    """Bring a contract into another state. Refuses 404 ERR_NOT_FOUND and 409 ERR_CONFLICT. One that retires takes those
    along that retired long before it.
    """

    def edit(snapshot: Snapshot) -> Edit:
        for contract in snapshot.contracts:
            if identity(contract) == (name, version):
                drop = sweep(now_ms - RETIRED_MS)(snapshot).drop if state == "retired" else ()
                return Edit(put=[moved(contract, state, now_ms, staleness_ms)], drop=drop)
        fix = "name a registered contract and version"
        raise Refusal("ERR_NOT_FOUND", "There is no such contract.", [Detail("version", "registered", fix)])

    return edit


def govern(policy: Policy) -> EditOf:
    """Put a validated policy in force. Refuses 409 ERR_CONFLICT a version that is not greater than the current one."""

    def edit(snapshot: Snapshot) -> Edit:
        current = snapshot.policy["version"]
        if policy["version"] <= current and snapshot.sequence:
            fix = f"send version {current + 1}, made from version {current}"
            raise Refusal("ERR_CONFLICT", "The policy has changed.", [Detail("version", "greater", fix)])
        return Edit(policy=policy)

    return edit


def sweep(before_ms: int) -> EditOf:
    """Drop contracts that were retired before a time, but of each name the last version, which says what comes next."""

    def edit(snapshot: Snapshot) -> Edit:
        last = {contract["name"]: contract["version"] for contract in snapshot.contracts}
        return Edit(
            drop=[
                identity(contract)
                for contract in snapshot.contracts
                if contract["state"] == "retired"
                and contract["since_ms"] < before_ms
                and contract["version"] != last[contract["name"]]
            ]
        )

    return edit
