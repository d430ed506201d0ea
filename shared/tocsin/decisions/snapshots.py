"""Registry states: immutable, named by content, changed by swapping one pointer.

A snapshot is its contracts and its policy. Its name is the SHA-256 of its header, which binds everything: the root
over the contracts, the digest of the policy, and for every capability and profile the root over the services that
offer it in the order in which they would win. A certificate needs the header and the few services in front.

A change is stored as a delta, then the pointer is swapped on the condition that it has not moved. After `COMPACT`
deltas the snapshot is stored whole. Readers keep a snapshot for at most the staleness bound; see
`contracts.retire_after_ms` for what that buys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from tocsin.decisions import merkle
from tocsin.decisions.contracts import PUBLISH_MS, Contract, identity
from tocsin.decisions.policies import PROFILES, Policy, key, validate
from tocsin.decisions.ports import Deed, Pointer, SnapshotStore
from tocsin.kernel.canonical import canonical_json, digest
from tocsin.kernel.errors import Retry

#: Deltas behind a pointer before a snapshot is stored whole.
COMPACT: Final = 32
_TRIES: Final = 8


class Damaged(Exception):
    """What is stored is not what its name says. Nothing is decided by it."""


@dataclass(frozen=True)
class Snapshot:
    """A registry state. `contracts` are sorted by (name, version); `previous` is the state it came from."""

    sequence: int
    previous: str | None
    policy: Policy
    contracts: tuple[Contract, ...]

    @cached_property
    def leaves(self) -> tuple[bytes, ...]:
        return tuple(merkle.leaf(contract) for contract in self.contracts)

    def ranking(self, capability: str, profile: str) -> list[int]:
        """Positions of the services that offer a capability, in the order in which they would win."""
        weights = self.policy["profiles"][profile]
        offering = [i for i, contract in enumerate(self.contracts) if capability in contract["capabilities"]]
        return sorted(offering, key=lambda i: key(self.contracts[i], weights))

    @cached_property
    def header(self) -> Mapping[str, Any]:
        """What the name is the digest of."""
        return {
            "v": 1,
            "sequence": self.sequence,
            "previous": self.previous,
            "count": len(self.contracts),
            "root": merkle.root(self.leaves).hex(),
            "policy": digest(self.policy).hex(),
            "rankings": self._rankings(),
        }

    def _rankings(self) -> dict[str, list[Any]]:
        """`capability|profile` → [number of services, root over them in winning order]."""
        made: dict[str, list[Any]] = {}
        for profile, weights in self.policy["profiles"].items():
            offering: dict[str, list[bytes]] = {}
            keys = [key(contract, weights) for contract in self.contracts]
            for i in sorted(range(len(keys)), key=keys.__getitem__):
                for capability in self.contracts[i]["capabilities"]:
                    offering.setdefault(capability, []).append(self.leaves[i])
            for capability, leaves in offering.items():
                made[f"{capability}|{profile}"] = [len(leaves), merkle.root(leaves).hex()]
        return made

    @cached_property
    def name(self) -> str:
        return digest(self.header).hex()

    def document(self) -> dict[str, Any]:
        """All of it, as it is stored and as checkers read it."""
        return {"header": self.header, "policy": self.policy, "contracts": list(self.contracts)}


EMPTY: Final = Snapshot(
    0, None, validate({"version": 1, "rules": [], "profiles": {name: dict(of) for name, of in PROFILES.items()}}), ()
)


@dataclass(frozen=True, slots=True)
class Edit:
    """What changes: contracts put in place by (name, version), contracts dropped, and the policy unless None."""

    put: Sequence[Contract] = ()
    drop: Sequence[tuple[str, int]] = ()
    policy: Policy | None = None

    def applied(self, contracts: Iterable[Contract], policy: Policy) -> tuple[tuple[Contract, ...], Policy]:
        by = {identity(contract): contract for contract in contracts}
        for gone in self.drop:
            by.pop(gone, None)
        by |= {identity(contract): contract for contract in self.put}
        return tuple(by[name] for name in sorted(by)), policy if self.policy is None else self.policy

    def document(self) -> dict[str, Any]:
        return {"v": 1, "put": list(self.put), "drop": [list(name) for name in self.drop], "policy": self.policy}


def edited(before: Snapshot, edit: Edit) -> Snapshot:
    """The state after an edit."""
    contracts, policy = edit.applied(before.contracts, before.policy)
    after = Snapshot(before.sequence + 1, before.name, policy, contracts)
    known = dict(zip(map(id, before.contracts), before.leaves, strict=True))  # what stays is not hashed again
    vars(after)["leaves"] = tuple(known.get(id(contract)) or merkle.leaf(contract) for contract in contracts)
    return after


def from_document(data: bytes, name: str) -> Snapshot:
    """A stored snapshot. Raises Damaged unless it is the one that `name` names."""
    try:
        held = json.loads(data)
        head = held["header"]
        made = Snapshot(head["sequence"], head["previous"], held["policy"], tuple(held["contracts"]))
        genuine = made.name == name
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(name) from error
    if not genuine:
        raise Damaged(name)
    return made


@dataclass(frozen=True, slots=True)
class _Place:
    """What the pointer says: which snapshot, and how to build it: a whole one and deltas after it."""

    snapshot: str
    sequence: int
    previous: str | None
    base: str
    deltas: tuple[str, ...] = ()

    def data(self) -> bytes:
        made = {name: getattr(self, name) for name in ("snapshot", "sequence", "previous", "base")}
        return canonical_json({**made, "v": 1, "deltas": list(self.deltas)})

    @classmethod
    def read(cls, data: bytes) -> _Place:
        held = json.loads(data)
        return cls(held["snapshot"], held["sequence"], held["previous"], held["base"], tuple(held["deltas"]))


@dataclass(slots=True)
class Registry:
    """The current snapshot: read with bounded staleness, changed by compare-and-swap.

    `refresh_ms` is how often the pointer is asked; `staleness_ms` how old an answer may be when it cannot be asked.
    Every router of a deployment must have the same `staleness_ms`, because retiring waits for it.
    """

    store: SnapshotStore
    pointer: Pointer
    now_ms: Callable[[], int]
    refresh_ms: int = 1_000
    staleness_ms: int = 30_000
    _held: tuple[Snapshot, int] | None = field(default=None, init=False)

    def current(self) -> Snapshot:
        """A snapshot that was current at most `staleness_ms` ago. Raises Retry when there is none."""
        now = self.now_ms()
        if self._held and 0 <= now - self._held[1] < self.refresh_ms:
            return self._held[0]
        try:
            return self._read(now)[0]
        except Retry:
            if self._held and 0 <= self.now_ms() - self._held[1] <= self.staleness_ms:
                return self._held[0]
            raise

    def latest(self) -> Snapshot:
        """The snapshot that is current now. Raises Retry when that cannot be known."""
        return self._read(self.now_ms())[0]

    def publish(self, edit_of: Callable[[Snapshot], Edit], deed_of: Callable[[Edit], Deed] | None = None) -> Snapshot:
        """Apply the edit that `edit_of` makes of the current snapshot; it is asked again when another came first. What
        `deed_of` makes of the edit is recorded with the change.

        Whatever `edit_of` raises passes through. Raises Retry when it keeps losing, or when it has become too late
        for times that the edit carries.
        """
        for _ in range(_TRIES):
            began = self.now_ms()
            before, place, token = self._read(began)
            edit = edit_of(before)
            after = edited(before, edit)
            delta = edit.document()
            name = digest(delta).hex()
            deltas = (*place.deltas, name)
            if len(deltas) > COMPACT or not before.sequence:
                self.store.create(f"snapshot/{after.name}", canonical_json(after.document()))
                moved = _Place(after.name, after.sequence, after.previous, after.name)
            else:
                self.store.create(f"delta/{name}", canonical_json(delta))
                moved = _Place(after.name, after.sequence, after.previous, place.base, deltas)
                self.store.create(f"steps/{after.name}", moved.data())
            if self.now_ms() - began > PUBLISH_MS // 2:
                raise Retry("publishing took too long")
            if self.pointer.swap(moved.data(), token, deed_of(edit) if deed_of else None):
                self._held = (after, began)
                return after
        raise Retry("others keep publishing")

    def at(self, name: str) -> Snapshot:
        """Any snapshot there ever was, to derive certificates from. Raises Damaged, or Retry when it is not there."""
        if self._held and self._held[0].name == name:
            return self._held[0]
        steps = self.store.get(f"steps/{name}")
        if steps is None:
            return EMPTY if name == EMPTY.name else from_document(self._bytes(f"snapshot/{name}"), name)
        return self._build(_Place.read(steps), name)

    def _read(self, began: int) -> tuple[Snapshot, _Place, str]:
        """The current snapshot, which is as old as `began`, the time before the pointer was asked."""
        data, token = self.pointer.read()
        place = _Place.read(data) if data else _Place(EMPTY.name, 0, None, EMPTY.name)
        if self._held and self._held[0].name == place.snapshot:
            snapshot = self._held[0]
        else:
            snapshot = self._build(place, place.snapshot)
        self._held = (snapshot, began)
        return snapshot, place, token

    def _build(self, place: _Place, wanted: str) -> Snapshot:
        if wanted == EMPTY.name:
            return EMPTY
        base = from_document(self._bytes(f"snapshot/{place.base}"), place.base)
        contracts, policy = base.contracts, base.policy
        for name in place.deltas:
            held = json.loads(self._bytes(f"delta/{name}"))
            edit = Edit(held["put"], [(gone, version) for gone, version in held["drop"]], held["policy"])
            contracts, policy = edit.applied(contracts, policy)
        made = Snapshot(place.sequence, place.previous, policy, contracts)
        if made.name != wanted:
            raise Damaged(wanted)
        return made

    def _bytes(self, name: str) -> bytes:
        data = self.store.get(name)
        if data is None:
            raise Retry(f"{name} is not readable yet")
        return data
