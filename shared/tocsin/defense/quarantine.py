"""Quarantine: a source, an entity or a key whose events are refused, or let through at a trickle, for a while.

Who is in quarantine is one list per project. The doors read it at most every few seconds per process (`Cordon`), so a
request costs no read of its own, and an entry takes effect, and ends by release, within `FRESH_MS`. Its end by time is
exact. A quarantined key is refused on every route with 403 ERR_QUARANTINED; events of a quarantined source or entity
are refused one by one with the same code, while their neighbours in the batch pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from tocsin.access.principals import Principal
from tocsin.defense.ports import Json, QuarantineStore
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal, Retry
from tocsin.kernel.ids import new_id

KINDS: Final = ("source", "entity", "key")
#: How old, in ms, the list may be that a door goes by.
FRESH_MS: Final = 5 * clock.SECOND
DEFAULT_MINUTES: Final = 60
MAX_MINUTES: Final = 30 * 24 * 60
#: Entries of a project that may be active at once.
MAX_ACTIVE: Final = 200
#: Entries that one plan may ask for.
PLANNED: Final = 20
#: Ended entries that stay listed, newest first, and for how long in ms.
MAX_ENDED: Final = 100
ENDED_MS: Final = 7 * clock.DAY
MAX_REASON: Final = 200
_TRIES: Final = 5
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_KEY = re.compile(r"key_[0-9A-Za-z]{12}", re.ASCII)
_ENTITY = re.compile(r"[^:]{1,64}:.{1,256}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """One entry. `name` is a source's name, an entity as `type:id` in the form in which it is stored, or a key's public
    id. `per_second` events pass, 0 for none. `mitigation` is the plan that asked for it, or "". Times are Unix ms.
    """

    id: str
    kind: str
    name: str
    reason: str
    created_at: int
    until: int
    created_by: str
    per_second: int = 0
    mitigation: str = ""
    released_at: int | None = None
    released_by: str = ""

    def status(self, now: int) -> str:
        """active, released or expired."""
        if self.released_at is not None:
            return "released"
        return "active" if now < self.until else "expired"

    def ended_at(self) -> int:
        return self.until if self.released_at is None else min(self.until, self.released_at)

    def as_json(self, now: int) -> Json:
        """Public form."""
        return {
            "id": self.id,
            "status": self.status(now),
            "kind": self.kind,
            "name": self.name,
            "per_second": self.per_second,
            "reason": self.reason,
            "created_at": clock.rfc3339(self.created_at),
            "until": clock.rfc3339(self.until),
            "created_by": self.created_by,
            "mitigation_id": self.mitigation or None,
            "released_at": None if self.released_at is None else clock.rfc3339(self.released_at),
            "released_by": self.released_by or None,
        }


def opened(entries: Sequence[Quarantine], entry: Quarantine, now: int) -> list[Quarantine]:
    """The list with one more entry, which replaces an active one of the same thing. Refuses ERR_SCHEMA when full."""
    kept = [
        replace(one, released_at=now, released_by=entry.created_by)
        if one.status(now) == "active" and (one.kind, one.name) == (entry.kind, entry.name)
        else one
        for one in entries
        if one.id != entry.id
    ]
    if sum(one.status(now) == "active" for one in kept) >= MAX_ACTIVE:
        fix = f"release some first: a project has at most {MAX_ACTIVE}"
        raise Refusal("ERR_SCHEMA", "Too much is in quarantine.", [Detail("(body)", "count", fix)])
    return _tidy([*kept, entry], now)


def has_room(entries: Sequence[Quarantine], now: int) -> bool:
    """Whether a plan's worth of entries fits."""
    return sum(one.status(now) == "active" for one in entries) + PLANNED <= MAX_ACTIVE


def released(entries: Sequence[Quarantine], quarantine_id: str, by: str, now: int) -> list[Quarantine]:
    """The list with an entry let go. One that has ended, or is not there, changes nothing."""
    return _tidy(
        [
            replace(one, released_at=now, released_by=by)
            if one.id == quarantine_id and one.status(now) == "active"
            else one
            for one in entries
        ],
        now,
    )


def _tidy(entries: Sequence[Quarantine], now: int) -> list[Quarantine]:
    """Active entries, and the ended ones that are still worth showing."""
    ended = [one for one in entries if one.status(now) != "active" and now - one.ended_at() < ENDED_MS]
    shown = {one.id for one in sorted(ended, key=lambda one: (-one.ended_at(), one.id))[:MAX_ENDED]}
    return [one for one in entries if one.status(now) == "active" or one.id in shown]


def parse(body: Mapping[str, Any], caller: Principal, now: int) -> Quarantine:
    """The entry that a caller asks for: {kind, name, reason, minutes?, per_second?}, as its model let it through.

    Refuses ERR_SCHEMA a name that is none of its kind, and the caller's own key, which could not be released by it.
    """
    kind, name = str(body["kind"]), str(body["name"])
    details = []
    if kind == "key" and not _KEY.fullmatch(name):
        details.append(Detail("name", "key", "send the public id of a key, such as key_4Yx0exampleK"))
    if kind == "entity" and not _ENTITY.fullmatch(name):
        details.append(Detail("name", "entity", "send the entity as type:id"))
    if name == caller.credential:
        details.append(Detail("name", "own-key", "use another key: this one could not undo it"))
    if kind == "key" and body.get("per_second"):
        details.append(Detail("per_second", "kind", "leave it out: a key is refused whole"))
    if details:
        raise Refusal("ERR_SCHEMA", "Not a quarantine.", details)
    minutes = int(body.get("minutes") or DEFAULT_MINUTES)
    return Quarantine(
        id=new_id("qua", now),
        kind=kind,
        name=name,
        reason=_HIDDEN.sub("", str(body["reason"]))[:MAX_REASON],
        created_at=now,
        until=now + minutes * clock.MINUTE,
        created_by=caller.credential,
        per_second=int(body.get("per_second") or 0),
    )


class Quarantines:
    """What people do with the list."""

    def __init__(self, store: QuarantineStore) -> None:
        self._store = store

    def all(self, project: str) -> list[Quarantine]:
        """Newest first, ended ones of the last days included."""
        return sorted(self._store.get(project)[1], key=lambda one: (-one.created_at, one.id))

    def get(self, project: str, quarantine_id: str) -> Quarantine:
        """One entry, else 404."""
        found = next((one for one in self._store.get(project)[1] if one.id == quarantine_id), None)
        if found is None:
            raise Refusal("ERR_NOT_FOUND", "There is no such quarantine.")
        return found

    def open(self, project: str, entry: Quarantine, now: int) -> Quarantine:
        """Begin one."""
        for _ in range(_TRIES):
            version, entries = self._store.get(project)
            if self._store.put(project, opened(entries, entry, now), version, ("open", entry), now):
                return entry
        raise Retry("the list of quarantines is contended")

    def release(self, project: str, quarantine_id: str, by: str, now: int) -> Quarantine:
        """End one now; again is harmless."""
        for _ in range(_TRIES):
            entry = self.get(project, quarantine_id)
            if entry.status(now) != "active":
                return entry
            version, entries = self._store.get(project)
            after = released(entries, quarantine_id, by, now)
            entry = next(one for one in after if one.id == quarantine_id)
            if self._store.put(project, after, version, ("release", entry), now):
                return entry
        raise Retry("the list of quarantines is contended")


class Trickle(Protocol):
    """Port: lets `per_second` things of a name through, over all processes."""

    def __call__(self, project: str, name: str, per_second: int) -> Refusal | None:
        """None when one more may pass, else why not."""


class Cordon:
    """What the doors ask. `entity_of` gives an event's entity as `type:id` in the form in which it would be stored, or
    None; it is asked only while some entity is in quarantine.
    """

    def __init__(
        self,
        store: QuarantineStore,
        now: Callable[[], int],
        entity_of: Callable[[str, Mapping[str, Any]], str | None],
        trickle: Trickle,
        size: int = 1_024,
    ) -> None:
        self._store, self._now, self._entity_of, self._trickle = store, now, entity_of, trickle
        self._size = size
        self._known: dict[str, tuple[int, dict[tuple[str, str], Quarantine]]] = {}

    def _active(self, project: str) -> Mapping[tuple[str, str], Quarantine]:
        """Entries by kind and name that did not end before the list was read, at most FRESH_MS ago."""
        now = self._now()
        known = self._known.get(project)
        if known is None or not 0 <= now - known[0] < FRESH_MS:
            entries = self._store.get(project)[1]
            known = now, {(one.kind, one.name): one for one in entries if one.status(now) == "active"}
            if len(self._known) >= self._size:
                self._known.clear()
            self._known[project] = known
        return known[1]

    def admit(self, principal: Principal) -> None:
        """Refuse 403 ERR_QUARANTINED a caller whose key is in quarantine."""
        held = self._active(principal.project).get(("key", principal.credential))
        if held is not None and held.status(self._now()) == "active":
            raise _refusal(held, "x-api-key")

    def judge(self, project: str, event: Mapping[str, Any]) -> Refusal | None:
        """Why an event may not pass: 403 ERR_QUARANTINED, or 429 ERR_RATE_LIMITED where some do; None when it may."""
        active = self._active(project)
        if not active:
            return None
        held = active.get(("source", str(event["source"])))
        where = "source"
        if held is None and any(kind == "entity" for kind, _ in active):
            held, where = active.get(("entity", self._entity_of(project, event) or "")), "entity"
        if held is None or held.status(self._now()) != "active":
            return None
        if held.per_second:
            return self._trickle(project, f"quarantine#{held.id}", held.per_second)
        return _refusal(held, where)


def _refusal(held: Quarantine, where: str) -> Refusal:
    until = clock.rfc3339(held.until)
    fix = f"wait until {until}, or ask a holder of defend:write to release {held.id}"
    message = f"This {held.kind} is in quarantine: {held.reason}"
    return Refusal("ERR_QUARANTINED", message, [Detail(where, "quarantine", fix)])
