"""Projects: what owns everything, with the settings that an administrator may change and those nobody may.

A project without a record is one that was made before records existed: it has the default settings, version 0.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from tocsin.access.ports import ProjectStore
from tocsin.access.principals import MAX_CACHE_SECONDS, Principal
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.ids import new_id
from tocsin.kernel.strict_json import shown

Json = dict[str, Any]
MAX_NAME: Final = 80
MAX_REDACT_KEYS: Final = 100
MAX_RATE: Final = 1_000_000
MAX_SHARE: Final = 90
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_REDACT_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}", re.ASCII)
_READONLY: Final = frozenset({"id", "created_at", "created_by", "status", "version", "quota", "rate"})
#: What the operator may set; `deleted` is set once, by deletion, and never left.
STATUSES: Final = ("active", "suspended")
#: Days that events and what became of them are kept when a project says nothing.
RETENTION_DAYS: Final = 90


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of a project: requests per second and key, events per second, and the most that may come at once.

    `firing_share_percent` of the event burst is kept for firing events. Only the operator sets these.
    """

    requests_per_second: int = 200
    requests_burst: int = 6_000
    events_per_second: int = 2_000
    events_burst: int = 20_000
    firing_share_percent: int = 20

    def __post_init__(self) -> None:
        for name in ("requests_per_second", "requests_burst", "events_per_second", "events_burst"):
            if not 1 <= getattr(self, name) <= MAX_RATE:
                raise ValueError(f"{name} must be 1 to {MAX_RATE:,}")
        if not 0 <= self.firing_share_percent <= MAX_SHARE:
            raise ValueError(f"firing_share_percent must be 0 to {MAX_SHARE}")


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """What a project's administrator chooses. `redact_keys` are names whose values are redacted besides the built-in
    ones. Turning `redaction` off needs a second person's approval. `retention_days` is at most the deployment's.
    """

    redact_keys: tuple[str, ...] = ()
    redaction: str = "on"
    redaction_profile: str = "log"
    retention_days: int = RETENTION_DAYS

    def as_json(self) -> Json:
        """Public form; tuples as lists."""
        return {**asdict(self), "redact_keys": list(self.redact_keys)}


@dataclass(frozen=True, slots=True)
class Project:
    """One project. Times are Unix ms; `version` counts its writes."""

    id: str
    name: str
    created_at: int = 0
    created_by: str = ""
    status: str = "active"
    settings: ProjectSettings = field(default_factory=ProjectSettings)
    quota: Quota = field(default_factory=Quota)
    version: int = 0

    def as_json(self) -> Json:
        """Public form."""
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "settings": self.settings.as_json(),
            "quota": asdict(self.quota),
            "created_at": clock.rfc3339(self.created_at),
            "created_by": self.created_by or None,
            "version": self.version,
        }


def closed(body: Any, writable: Collection[str], readonly: Collection[str]) -> Mapping[str, Any]:
    """The members of a closed JSON object. Refuses ERR_READONLY_FIELD for what only the server sets (before
    anything else, so that nobody believes it was taken) and ERR_SCHEMA for what is unknown.
    """
    if not isinstance(body, Mapping):
        raise Refusal("ERR_SCHEMA", "The body is not an object.", [Detail("(body)", "object", "send a JSON object")])
    fixed = sorted(name for name in body if name in readonly)
    if fixed:
        details = [Detail(name, "read-only", "leave it out; only the server sets it") for name in fixed]
        raise Refusal("ERR_READONLY_FIELD", "Some fields cannot be set by a client.", details)
    unknown = sorted(shown(name) for name in body if name not in writable)
    if unknown:
        fix = "send only " + ", ".join(sorted(writable))
        raise Refusal("ERR_SCHEMA", "Unknown fields.", [Detail(name, "known", fix) for name in unknown[:10]])
    return body


def refuse(details: list[Detail], what: str) -> Refusal:
    """ERR_SCHEMA with every broken rule."""
    return Refusal("ERR_SCHEMA", what, details)


def visible_name(value: Any, where: str, details: list[Detail]) -> str:
    """A name of 1 to 80 visible characters; what is wrong with it goes to `details`."""
    if isinstance(value, str) and value.strip() and len(value) <= MAX_NAME and not _HIDDEN.search(value):
        return value
    details.append(Detail(where, "text", f"send 1 to {MAX_NAME} visible characters"))
    return ""


def parse_settings(body: Any, before: ProjectSettings, longest_days: int = RETENTION_DAYS) -> ProjectSettings:
    """Settings with what `body` changes; `longest_days` is the deployment's retention. Refuses ERR_SCHEMA."""
    known = ("redact_keys", "redaction", "redaction_profile", "retention_days")
    sent, details, after = closed(body, known, ()), [], before
    if "retention_days" in sent:
        days = sent["retention_days"]
        if type(days) is not int or not 1 <= days <= longest_days:
            details.append(Detail("settings.retention_days", "range", f"send 1 to {longest_days} days"))
        else:
            after = replace(after, retention_days=days)
    if "redact_keys" in sent:
        names = sent["redact_keys"]
        good = isinstance(names, list) and len(names) <= MAX_REDACT_KEYS
        if not good or not all(isinstance(name, str) and _REDACT_KEY.fullmatch(name) for name in names):
            fix = f"send at most {MAX_REDACT_KEYS} field names of 1 to 64 letters, digits, blank, _ . or -"
            details.append(Detail("settings.redact_keys", "names", fix))
        else:
            after = replace(after, redact_keys=tuple(sorted(set(names))))
    for name, choices in (("redaction", ("on", "off")), ("redaction_profile", ("log", "prose"))):
        if name in sent:
            if not isinstance(sent[name], str) or sent[name] not in choices:
                details.append(Detail(f"settings.{name}", "choice", f"send {' or '.join(choices)}"))
            else:
                after = replace(after, **{name: sent[name]})
    if details:
        raise refuse(details, "The settings are not valid.")
    return after


def parse_quota(body: Any, before: Quota) -> Quota:
    """A quota with what `body` changes. Refuses ERR_SCHEMA."""
    bounds = {one.name: (1, MAX_RATE) for one in fields(Quota)} | {"firing_share_percent": (0, MAX_SHARE)}
    sent = closed(body, tuple(bounds), ())
    details = [
        Detail(f"quota.{name}", "range", "send an integer from {} to {}".format(*bounds[name]))
        for name, value in sent.items()
        if type(value) is not int or not bounds[name][0] <= value <= bounds[name][1]
    ]
    if details:
        raise refuse(details, "The quota is not valid.")
    return replace(before, **sent)


class Projects:
    """What may be done to projects. `is_operator` tells whether a project is the one that runs the deployment: its
    administrators make projects, see them all, and set quota and status of each; the rest is the project's own.
    """

    def __init__(
        self, store: ProjectStore, is_operator: Callable[[str], bool], longest_days: int = RETENTION_DAYS
    ) -> None:
        self._store, self._is_operator, self._longest_days = store, is_operator, longest_days

    def of(self, project_id: str) -> Project:
        """The project as stored, or with default settings when it has no record."""
        return self._store.get(project_id) or Project(project_id, project_id)

    def get(self, caller: Principal, project_id: str) -> Project:
        """The caller's own project, or for the operator any; every other one is not found (404)."""
        if project_id == caller.project:
            return self.of(project_id)
        found = self._store.get(project_id) if self._is_operator(caller.project) else None
        if found is None:
            raise Refusal("ERR_NOT_FOUND", "There is no such project.")
        return found

    def is_operator(self, caller: Principal) -> bool:
        """Whether the caller belongs to the project that runs the deployment."""
        return self._is_operator(caller.project)

    def require_operator(self, caller: Principal) -> None:
        """Refuse (403 ERR_SCOPE) callers of every project but the operator's."""
        if not self.is_operator(caller):
            detail = Detail("scope", "operator", "Ask the operator of this deployment.")
            raise Refusal("ERR_SCOPE", "Only the operator's administrators may do this.", [detail])

    def all(self, caller: Principal) -> Sequence[Project]:
        """Projects the caller may see, oldest first: its own, for the operator every one that has a record."""
        return self._store.all() if self._is_operator(caller.project) else [self.of(caller.project)]

    def create(self, caller: Principal, body: Any, now: int) -> Project:
        """A new project from {"name", "settings"?, "quota"?}. Only the operator's administrators may: 403 ERR_SCOPE."""
        self.require_operator(caller)
        sent, details = closed(body, ("name", "settings", "quota"), _READONLY - {"quota"}), list[Detail]()
        name = visible_name(sent.get("name"), "name", details)
        if details:
            raise refuse(details, "Not a project.")
        settings = parse_settings(sent.get("settings", {}), ProjectSettings(), self._longest_days)
        quota = parse_quota(sent.get("quota", {}), Quota())
        if settings.redaction == "off":
            raise _unapproved()
        made = Project(new_id("prj", now), name, now, caller.credential, "active", settings, quota, 1)
        if not self._store.put(made, 0):
            raise Refusal("ERR_CONFLICT", "The project could not be made; send the request again.")
        return made

    def change(
        self, caller: Principal, project_id: str, body: Any, expected: int | None, *, approved: bool = False
    ) -> Project:
        """Change what is sent and keep the rest: the project's administrators its name and settings, the operator
        the quota of every project and the status of every other one.

        Refuses ERR_READONLY_FIELD for what is not the caller's to set, ERR_CONFLICT when the version moved, and
        ERR_APPROVAL_REQUIRED for turning redaction off unless the caller of this method used an approval.
        """
        before = after = self.get(caller, project_id)
        if before.status == "deleted":
            raise _deleted()
        writable = {"version"}
        if project_id == caller.project:
            writable |= {"name", "settings"}
        if self._is_operator(caller.project):
            writable |= {"quota"} if project_id == caller.project else {"quota", "status"}
        sent, details = closed(body, writable, (_READONLY | {"name", "settings"}) - writable), list[Detail]()
        if "name" in sent:
            after = replace(after, name=visible_name(sent["name"], "name", details))
        if sent.get("status", "active") not in STATUSES:
            details.append(Detail("status", "choice", f"send {' or '.join(STATUSES)}"))
        if details:
            raise refuse(details, "Not a change of a project.")
        after = replace(
            after,
            status=sent.get("status", before.status),
            settings=parse_settings(sent.get("settings", {}), before.settings, self._longest_days),
            quota=parse_quota(sent.get("quota", {}), before.quota),
        )
        if expected not in (None, before.version):
            raise _moved()
        if after.settings.redaction == "off" and before.settings.redaction == "on" and not approved:
            raise _unapproved()
        return self._save(before, after)

    def own(self, caller: Principal, project_id: str) -> Project:
        """The caller's own project; every other one, the operator's callers included, is not found (404)."""
        if project_id != caller.project:
            raise Refusal("ERR_NOT_FOUND", "There is no such project.")
        return self.of(project_id)

    def deletable(self, caller: Principal, project_id: str) -> Project:
        """A project the caller may delete: its own, for the operator every other one.

        Refuses ERR_CONFLICT for the operator's own, which runs the deployment, and ERR_PROJECT_DELETED.
        """
        found = self.get(caller, project_id)
        if self._is_operator(project_id):
            detail = Detail("id", "operator", "Delete the deployment instead.")
            raise Refusal("ERR_CONFLICT", "The operator's project runs the deployment.", [detail])
        if found.status == "deleted":
            raise _deleted()
        return found

    def delete(self, found: Project) -> Project:
        """Stop a project for good: from now on its callers are refused."""
        return self._save(found, replace(found, status="deleted"))

    def _save(self, before: Project, after: Project) -> Project:
        after = replace(after, version=before.version + 1)
        if not self._store.put(after, before.version):
            raise _moved()
        return after


class CachedProjects:
    """Projects as they were at most `ttl_s` (<= 30) ago, for the paths that every request takes."""

    def __init__(
        self,
        read: Callable[[str], Project],
        clock_s: Callable[[], float],
        ttl_s: float = 20.0,
        size: int = 1024,
    ) -> None:
        if not 0 < ttl_s <= MAX_CACHE_SECONDS:
            raise ValueError(f"ttl_s must be above 0 and at most {MAX_CACHE_SECONDS:g}")
        self._read, self._clock_s, self._ttl_s, self._size = read, clock_s, ttl_s, size
        self._kept: OrderedDict[str, tuple[float, Project]] = OrderedDict()

    def of(self, project_id: str) -> Project:
        """The project, at most `ttl_s` old."""
        now, found = self._clock_s(), self._kept.get(project_id)
        if found is not None and now - found[0] < self._ttl_s:
            return found[1]
        project = self._read(project_id)
        self._kept[project_id] = (now, project)
        self._kept.move_to_end(project_id)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return project

    def require_active(self, project_id: str) -> Project:
        """The project, or 403 ERR_SCOPE while it is suspended, 410 ERR_PROJECT_DELETED once it is deleted."""
        project = self.of(project_id)
        if project.status == "deleted":
            raise _deleted()
        if project.status == "suspended":
            raise Refusal("ERR_SCOPE", "The project is suspended; its operator knows why.")
        return project


def _deleted() -> Refusal:
    return Refusal("ERR_PROJECT_DELETED", "The project was deleted.")


def _moved() -> Refusal:
    return Refusal("ERR_CONFLICT", "The project changed meanwhile; read it again.")


def _unapproved() -> Refusal:
    fix = "Request an approval of this exact request at POST /v1/approvals and send its id in X-Approval."
    return Refusal(
        "ERR_APPROVAL_REQUIRED",
        "Turning redaction off needs a second person's approval.",
        [Detail("x-approval", "second-person", fix)],
    )
