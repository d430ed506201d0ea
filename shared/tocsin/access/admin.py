"""Keys and people of a project, and who stands behind a key.

Nobody grants more than they have: a new key holds at most the scopes of the key that makes it, lives at most as
long, and belongs to the same project. Who made a key has seen it, so the chain `created_by` is kept and tells,
with `owner`, whether two keys are in the same hands.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tocsin.access import keys
from tocsin.access.ports import KeyRows, PersonStore
from tocsin.access.principals import MAX_CACHE_SECONDS, KeyRecord, KeyStore, Principal, parse_scopes
from tocsin.access.projects import closed, refuse, visible_name
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal, Retry
from tocsin.kernel.ids import new_id

Json = dict[str, Any]
MAX_KEYS: Final = 200
MAX_PEOPLE: Final = 200
#: What a key may do when nothing is asked for: send events.
DEFAULT_SCOPES: Final = ("ingest:write",)
#: A key's record says at most this often, in ms, when it was last used.
TOUCH_EVERY: Final = clock.MINUTE
#: Longest time, in seconds, for which a rotated key goes on beside its successor.
MAX_OVERLAP_S: Final = 7 * clock.DAY // 1000
#: Longest chain of keys that made keys which is followed.
MAX_CHAIN: Final = 64
KEY_ID = re.compile(r"key_[0-9A-Za-z]{12}", re.ASCII)
PERSON_ID = re.compile(r"per_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
_CHANGEABLE: Final = ("name", "expires_at")
_READONLY: Final = frozenset(
    (
        *("id", "key", "secret", "hash", "prefix", "last_four", "project", "project_id", "env", "status", "quota"),
        *("created_at", "created_by", "last_used_at", "revoked_at", "signing_secret", "rate", "requests_per_second"),
    )
)
_PERSON_READONLY: Final = frozenset({"id", "project", "status", "created_at", "created_by", "removed_at"})


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who works with a project: a name, a role as scopes, and since and until when. Times in ms."""

    id: str
    project: str
    name: str
    scopes: frozenset[str]
    created_at: int
    created_by: str
    removed_at: int | None = None
    version: int = 1

    def as_json(self) -> Json:
        """Public form."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": sorted(self.scopes),
            "status": "removed" if self.removed_at is not None else "active",
            "created_at": clock.rfc3339(self.created_at),
            "created_by": self.created_by or None,
            "version": self.version,
        }


def key_json(record: KeyRecord, now: int) -> Json:
    """Public form of a key: never its text, never its hash."""

    def told(at: int | None) -> str | None:
        return None if at is None else clock.rfc3339(at)

    status = "revoked" if record.revoked_at is not None and record.revoked_at <= now else "active"
    if status == "active" and record.refusal_code(now):
        status = "expired"
    return {
        "id": f"key_{record.key_id}",
        "name": record.name,
        "prefix": f"tcn_{record.env}_{record.key_id}",
        "last_four": record.last_four or None,
        "scopes": sorted(record.scopes),
        "env": record.env,
        "status": status,
        "owner": record.owner or None,
        "signing": record.signing,
        "created_at": clock.rfc3339(record.created_at),
        "created_by": record.created_by or None,
        "expires_at": told(record.expires_at),
        "revoked_at": told(record.revoked_at),
        "last_used_at": told(record.last_used_at),
    }


def signing_secret(master: bytes, key_id: str) -> str:
    """The secret with which the holder of a key signs requests: derived, so that it is stored nowhere.

    `tss_` + 43 characters of base64url: HMAC-SHA256 over the key's id under the deployment's secret.
    """
    if len(master) < keys.MIN_PEPPER_BYTES:
        raise ValueError(f"the secret must hold at least {keys.MIN_PEPPER_BYTES} bytes")
    mac = hmac.new(master, b"tocsin:request-signing:" + key_id.encode("ascii"), hashlib.sha256).digest()
    return "tss_" + base64.urlsafe_b64encode(mac).decode("ascii").rstrip("=")


def _bare(public_id: str) -> str:
    """The 12-character id of a public key id, "" for anything else."""
    return public_id[4:] if KEY_ID.fullmatch(public_id) else ""


class Directory:
    """Who stands behind a key, read fresh from the stores."""

    def __init__(self, store: KeyStore, people: PersonStore, now: Callable[[], int]) -> None:
        self._keys, self._people, self._now = store, people, now

    def _record(self, credential: str) -> KeyRecord | None:
        return self._keys.get(_bare(credential)) if _bare(credential) else None

    def scopes_of(self, project: str, credential: str) -> frozenset[str]:
        """Scopes a key has now: none when it is revoked, expired, unknown, of another project, or its person
        was removed; otherwise those that the key and its person both have.
        """
        record = self._record(credential)
        if record is None or record.project != project or record.refusal_code(self._now()):
            return frozenset()
        if not record.owner:
            return record.scopes
        return shared_scopes(record.scopes, role_of(self._people.get(project, record.owner)))

    def confirm(self, caller: Principal, scope: str) -> None:
        """For administrative routes: hold the caller to what the stores say now, not to a cache or a claim.

        Refuses 401 ERR_AUTH_REVOKED for a key that has ended, 403 ERR_SCOPE for a role that was taken away.
        """
        record = self._record(caller.credential)
        if record is None or record.project != caller.project or record.refusal_code(self._now()):
            headers = {"WWW-Authenticate": 'Bearer realm="tocsin"'}
            raise Refusal("ERR_AUTH_REVOKED", "The API key was revoked or has expired.", headers=headers)
        held = replace(caller, scopes=shared_scopes(caller.scopes, self.scopes_of(caller.project, caller.credential)))
        if not held.allows(scope):
            fix = f"Ask an administrator for {scope}."
            raise Refusal("ERR_SCOPE", f"You no longer hold {scope}.", [Detail("scope", scope, fix)])

    def chain(self, credential: str) -> frozenset[str]:
        """A key, its person, and everybody who had a part in making either: keys and people by public id."""
        seen: set[str] = set()
        waiting = [(credential, "")]
        while waiting and len(seen) < MAX_CHAIN:
            one, project = waiting.pop()
            if not one or one in seen:
                continue
            seen.add(one)
            if one.startswith("key_"):
                record = self._record(one)
                if record is not None:
                    waiting += [(record.owner, record.project), (record.created_by, "")]
            elif project:
                person = self._people.get(project, one)
                if person is not None:
                    waiting.append((person.created_by, ""))
        return frozenset(seen)

    def holder(self, credential: str) -> str:
        """The person a key belongs to: its owner, else the holder of the key that made it, else itself."""
        for _ in range(MAX_CHAIN):
            record = self._record(credential)
            if record is None:
                return credential
            if record.owner:
                return record.owner
            if not record.created_by:
                return credential
            credential = record.created_by
        return credential

    def related(self, one: str, other: str) -> bool:
        """Whether two keys are in the same hands: one holder, or one's key or person had a part in making the
        other.

        Two people are not related by having been added by the same administrator.
        """
        first, second = self.holder(one), self.holder(other)
        if one == other or first == second:
            return True
        return bool({one, first} & self.chain(other) or {other, second} & self.chain(one))


def role_of(person: Person | None) -> frozenset[str]:
    """Scopes of a person now: none for nobody and for who was removed."""
    return person.scopes if person is not None and person.removed_at is None else frozenset()


def shared_scopes(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """Scopes that both sets cover, `family:*` counted as every verb of the family."""

    def covers(held: frozenset[str], scope: str) -> bool:
        return scope in held or f"{scope.partition(':')[0]}:*" in held

    return frozenset({s for s in one if covers(other, s)} | {s for s in other if covers(one, s)})


class Narrower:
    """Holds callers to what their person may do, as it was at most `ttl_s` (<= 30) ago."""

    def __init__(
        self, people: PersonStore, clock_s: Callable[[], float], ttl_s: float = 20.0, size: int = 1_024
    ) -> None:
        if not 0 < ttl_s <= MAX_CACHE_SECONDS:
            raise ValueError(f"ttl_s must be above 0 and at most {MAX_CACHE_SECONDS:g}")
        self._people, self._clock_s, self._ttl_s, self._size = people, clock_s, ttl_s, size
        self._kept: OrderedDict[tuple[str, str], tuple[float, frozenset[str]]] = OrderedDict()

    def narrow(self, principal: Principal) -> Principal:
        """The principal with the scopes that its key and its person share; as it is when it has no person."""
        if not principal.person:
            return principal
        name, now = (principal.project, principal.person), self._clock_s()
        found = self._kept.get(name)
        if found is None or now - found[0] >= self._ttl_s:
            found = self._kept[name] = (now, role_of(self._people.get(*name)))
            self._kept.move_to_end(name)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return replace(principal, scopes=shared_scopes(principal.scopes, found[1]))


class LastUsed:
    """Notes when keys were used: in the store at most once per minute and key, from memory otherwise."""

    def __init__(self, store: KeyRows, now: Callable[[], int], size: int = 4_096) -> None:
        self._store, self._now, self._size = store, now, size
        self._noted: OrderedDict[str, int] = OrderedDict()

    def used(self, principal: Principal) -> None:
        """Note a use. A store that does not answer loses the note, never the request."""
        now, key_id = self._now(), principal.key_id
        if now - self._noted.get(key_id, -TOUCH_EVERY) < TOUCH_EVERY:
            return
        self._noted[key_id] = now
        self._noted.move_to_end(key_id)
        if len(self._noted) > self._size:
            self._noted.popitem(last=False)
        try:
            self._store.touch(key_id, now, now - TOUCH_EVERY)
        except Retry:
            return


class Keys:
    """What an administrator may do with keys. `pepper` keys stored hashes, `signing` derives signing secrets."""

    def __init__(self, store: KeyRows, people: PersonStore, pepper: bytes, signing: bytes, env: str) -> None:
        self._store, self._people, self._env = store, people, env
        self._pepper, self._signing = pepper, signing

    def create(self, caller: Principal, body: Any, now: int) -> Json:
        """A new key from {"name"?, "scopes"?, "expires_at"?, "owner"?, "signing"?}: its public form with `key`,
        and `signing_secret` when asked for. Both texts are in this answer and nowhere else.
        """
        sent, details = closed(body, ("name", "scopes", "expires_at", "owner", "signing"), _READONLY), list[Detail]()
        name = visible_name(sent["name"], "name", details) if "name" in sent else ""
        granter = self._store.get(caller.key_id)
        expires_at = self._expiry(sent.get("expires_at"), granter, now, details)
        owner = self._owner(caller.project, sent.get("owner"), details)
        signing = sent.get("signing", False)
        if not isinstance(signing, bool):
            details.append(Detail("signing", "boolean", "send true or false"))
        if not isinstance(sent.get("scopes", []), list):
            details.append(Detail("scopes", "array", "send an array of scopes"))
        if details:
            raise refuse(details, "Not a key.")
        scopes = parse_scopes(sent.get("scopes", DEFAULT_SCOPES), caller)
        if owner is not None and shared_scopes(scopes, owner.scopes) != scopes:
            raise refuse([Detail("scopes", "role", "give at most the scopes of the person's role")], "Not a key.")
        good = [one for one in self._store.of_project(caller.project) if not one.refusal_code(now)]
        if len(good) >= MAX_KEYS:
            fix = f"revoke some: a project has at most {MAX_KEYS} keys that are good"
            raise refuse([Detail("(body)", "count", fix)], "Too many keys.")
        owner_id = owner.id if owner else ""
        return self._mint(caller.project, name, scopes, expires_at, caller.credential, owner_id, signing, now)

    def first(self, project: str, caller: Principal, now: int) -> Json:
        """The first key of a project just made: what its maker holds, for as long, made by the maker."""
        maker = self._store.get(caller.key_id)
        ends = maker.expires_at if maker else None
        return self._mint(project, "first administrator", caller.scopes, ends, caller.credential, "", False, now)

    def rotate(self, caller: Principal, public_id: str, body: Any, now: int) -> Json:
        """A new key in place of one that is still good, which ends {"overlap_s"} seconds from now (a day when left
        out, at most a week). What `create` answers.

        Whoever rotates a key sees its successor, so it takes a caller that holds all of its scopes.
        """
        record, details = self.record(caller.project, public_id), list[Detail]()
        overlap = closed(body, ("overlap_s",), _READONLY).get("overlap_s", clock.DAY // 1000)
        if type(overlap) is not int or not 0 <= overlap <= MAX_OVERLAP_S:
            raise refuse([Detail("overlap_s", "range", f"send 0 to {MAX_OVERLAP_S}")], "Not a rotation.")
        if record.refusal_code(now):
            raise Refusal("ERR_CONFLICT", "The key has ended; make a new one.")
        scopes = parse_scopes(sorted(record.scopes), caller)
        latest = self._expiry(None, self._store.get(caller.key_id), now, details)
        ends = min((at for at in (record.expires_at, latest) if at is not None), default=None)
        made = self._mint(
            record.project, record.name, scopes, ends, caller.credential, record.owner, record.signing, now
        )
        until = now + overlap * 1000
        if not self._store.change(replace(record, expires_at=min(until, record.expires_at or until))):
            raise Refusal("ERR_CONFLICT", "The key was revoked meanwhile.")
        return made

    def _mint(
        self,
        project: str,
        name: str,
        scopes: frozenset[str],
        expires_at: int | None,
        created_by: str,
        owner: str,
        signing: bool,
        now: int,
    ) -> Json:
        text, key_id = keys.mint(self._env)
        record = KeyRecord(
            key_id=key_id,
            project=project,
            env=self._env,
            hash=keys.stored_hash(self._pepper, text),
            scopes=scopes,
            created_at=now,
            expires_at=expires_at,
            name=name,
            last_four=text[-4:],
            created_by=created_by,
            owner=owner,
            signing=signing,
        )
        if not self._store.add(record):
            raise Refusal("ERR_CONFLICT", "The key could not be made; send the request again.")
        shown = {**key_json(record, now), "key": text}
        return {**shown, "signing_secret": signing_secret(self._signing, key_id)} if signing else shown

    def _expiry(self, value: Any, granter: KeyRecord | None, now: int, details: list[Detail]) -> int | None:
        latest = granter.expires_at if granter else None
        if value is None:
            return latest
        try:
            at = clock.parse_rfc3339(value)
        except (TypeError, ValueError):
            details.append(Detail("expires_at", "rfc3339", "send a date-time with offset"))
            return None
        if at <= now:
            details.append(Detail("expires_at", "future", "send a time to come"))
        if latest is not None and at > latest:
            fix = "a key lives at most as long as the key that makes it: " + clock.rfc3339(latest)
            details.append(Detail("expires_at", "grant", fix))
        return at

    def _owner(self, project: str, value: Any, details: list[Detail]) -> Person | None:
        if value is None:
            return None
        person = self._people.get(project, value) if isinstance(value, str) and PERSON_ID.fullmatch(value) else None
        if person is None or person.removed_at is not None:
            details.append(Detail("owner", "person", "send the id of an active person of this project"))
            return None
        return person

    def all(self, project: str, now: int) -> list[Json]:
        """Every key of a project, oldest first, ended ones included."""
        return [key_json(record, now) for record in self._store.of_project(project)]

    def record(self, project: str, public_id: str) -> KeyRecord:
        """A key of the project, else 404."""
        record = self._store.get(_bare(public_id)) if _bare(public_id) else None
        if record is None or record.project != project:
            raise Refusal("ERR_NOT_FOUND", "There is no such key.")
        return record

    def change(self, caller: Principal, public_id: str, body: Any, now: int) -> Json:
        """Rename a key or let it end sooner. Everything else is fixed: ERR_READONLY_FIELD."""
        record = self.record(caller.project, public_id)
        sent, details = closed(body, _CHANGEABLE, _READONLY | {"scopes", "owner", "signing"}), list[Detail]()
        after = record
        if "name" in sent:
            after = replace(after, name=visible_name(sent["name"], "name", details))
        if "expires_at" in sent:
            at = self._expiry(sent["expires_at"], record, now, details)
            after = replace(after, expires_at=at)
        if details:
            raise refuse(details, "Not a change of a key.")
        if not self._store.change(after):
            raise Refusal("ERR_CONFLICT", "The key was revoked.")
        return key_json(after, now)

    def revoke(self, caller: Principal, public_id: str, now: int, *, descendants: bool = False) -> list[str]:
        """End a key, and with `descendants` every key of the project that was made by way of it. Public ids of
        the keys that ended now; the processes' caches follow within 30 s.
        """
        record = self.record(caller.project, public_id)
        ended = [record]
        if descendants:
            made: dict[str, list[KeyRecord]] = {}
            for one in self._store.of_project(caller.project):
                made.setdefault(one.created_by, []).append(one)
            for one in ended:  # grows while it is walked
                ended += [child for child in made.get(f"key_{one.key_id}", ()) if child not in ended]
        return [f"key_{one.key_id}" for one in ended if self._store.revoke(caller.project, one.key_id, now)]


class People:
    """What an administrator may do with people."""

    def __init__(self, store: PersonStore) -> None:
        self._store = store

    def add(self, caller: Principal, body: Any, now: int) -> Person:
        """A person from {"name", "scopes"}; the role holds at most what the caller holds."""
        sent, details = closed(body, ("name", "scopes"), _PERSON_READONLY | {"version"}), list[Detail]()
        name = visible_name(sent.get("name"), "name", details)
        if not isinstance(sent.get("scopes"), list):
            details.append(Detail("scopes", "array", "send an array of scopes"))
        if details:
            raise refuse(details, "Not a person.")
        scopes = parse_scopes(sent["scopes"], caller)
        if sum(one.removed_at is None for one in self._store.all(caller.project)) >= MAX_PEOPLE:
            fix = f"remove some: a project has at most {MAX_PEOPLE} people"
            raise refuse([Detail("(body)", "count", fix)], "Too many people.")
        person = Person(new_id("per", now), caller.project, name, scopes, now, caller.credential)
        if not self._store.put(person, 0):
            raise Refusal("ERR_CONFLICT", "The person could not be added; send the request again.")
        return person

    def all(self, project: str) -> Sequence[Person]:
        """Everybody, oldest first, removed ones included."""
        return self._store.all(project)

    def get(self, project: str, person_id: str) -> Person:
        """A person of the project, else 404."""
        person = self._store.get(project, person_id) if PERSON_ID.fullmatch(person_id) else None
        if person is None:
            raise Refusal("ERR_NOT_FOUND", "There is no such person.")
        return person

    def change(self, caller: Principal, person_id: str, body: Any, expected: int | None) -> Person:
        """Change name or role. A role may always shrink; it grows by what the caller holds."""
        before = self.get(caller.project, person_id)
        sent, details = closed(body, ("name", "scopes", "version"), _PERSON_READONLY), list[Detail]()
        after = before
        if "name" in sent:
            after = replace(after, name=visible_name(sent["name"], "name", details))
        if not isinstance(sent.get("scopes", []), list):
            details.append(Detail("scopes", "array", "send an array of scopes"))
        if details:
            raise refuse(details, "Not a change of a person.")
        if "scopes" in sent:
            granter = replace(caller, scopes=caller.scopes | before.scopes)
            after = replace(after, scopes=parse_scopes(sent["scopes"], granter))
        if expected not in (None, before.version):
            raise Refusal("ERR_CONFLICT", "The person changed meanwhile; read it again.")
        return self._save(before, after)

    def remove(self, caller: Principal, person_id: str, now: int) -> Person:
        """Take every role from a person; their keys and tokens do nothing from then on (within 30 s)."""
        before = self.get(caller.project, person_id)
        return before if before.removed_at else self._save(before, replace(before, removed_at=now))

    def _save(self, before: Person, after: Person) -> Person:
        after = replace(after, version=before.version + 1)
        if not self._store.put(after, before.version):
            raise Refusal("ERR_CONFLICT", "The person changed meanwhile; read it again.")
        return after
