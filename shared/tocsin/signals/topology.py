"""Declared topology: which service depends on which, where it runs, and how much it matters.

A project declares it with `PUT /v1/topology`. Correlation asks it one question per event, the neighbours of a
service, so the answers are computed when the document is read and looked up afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from tocsin.kernel.errors import Detail, Refusal

MAX_SERVICES: Final = 2_000
MAX_DEPS: Final = 50
MAX_NODES: Final = 16
MAX_LABELS: Final = 20
#: A service with more direct dependents than this is reached through one token of its own instead of theirs.
HUB_DEPENDENTS: Final = 32
DEFAULT_CRITICALITY: Final = 0.5
_NOTHING: Final[Mapping[str, Collection[str]]] = MappingProxyType({})

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}", re.ASCII)
_NAME_RULE: Final = "name"
_NAME_FIX: Final = "1 to 100 of A-Z a-z 0-9 . _ : / @ -, starting with a letter or digit"
#: `-3` (ordinal) or `-7d9f8b6c5-x2x9z` / `-x2x9z` (Kubernetes ReplicaSet hash and pod suffix, vowel-free by
#: design).
_INSTANCE = re.compile(
    r"(.+?)(?:-\d{1,5}|(?:-[bcdfghjklmnpqrstvwxz2-9]{8,10})?-[bcdfghjklmnpqrstvwxz2-9]{5})", re.ASCII
)
#: Entity types whose ids carry an instance suffix by convention, so that it is removed without a declaration.
_INSTANCES: Final = frozenset({"pod", "container", "task"})
_SERVICES: Final = frozenset({"service", "application", "app", "workload", "deployment"})
_FIELDS: Final = frozenset({"deps", "nodes", "criticality", "team", "labels"})


@dataclass(frozen=True, slots=True)
class Service:
    """One declared service. `criticality` is 0 (nobody notices) to 1 (the business stops)."""

    deps: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    criticality: float = DEFAULT_CRITICALITY
    team: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class Topology:
    """An immutable, validated set of services. Relations are symmetric: a is near b exactly if b is near
    a.
    """

    __slots__ = ("_dependents", "_hubs", "_services")

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = dict(services)
        dependents: dict[str, list[str]] = {}
        for name, service in self._services.items():
            for dep in service.deps:
                dependents.setdefault(dep, []).append(name)
        self._dependents = {name: tuple(sorted(names)) for name, names in dependents.items()}
        self._hubs = frozenset(n for n, names in self._dependents.items() if len(names) > HUB_DEPENDENTS)

    @classmethod
    def empty(cls) -> Topology:
        """The topology of a project that declared none."""
        return cls({})

    @classmethod
    def from_document(cls, document: Any) -> Topology:
        """Read `{"services": {name: {"deps", "nodes", "criticality", "team", "labels"}}}`, every field
        optional.

        `deps` names what the service calls or needs (declared or not), `nodes` the hosts it shares with
        others. Raises Refusal ERR_SCHEMA with one detail (field, rule, fix) per fault, at most 50.
        """
        faults: list[Detail] = []
        services = _read_services(document, faults)
        if faults:
            raise Refusal("ERR_SCHEMA", "the topology document is not valid", faults[:50])
        return cls(services)

    def to_document(self) -> dict[str, Any]:
        """The document this topology was read from, without defaults."""
        return {"services": {name: _as_document(one) for name, one in self._services.items()}}

    def __len__(self) -> int:
        return len(self._services)

    def __contains__(self, service: object) -> bool:
        return service in self._services

    def deps(self, service: str) -> tuple[str, ...]:
        """What `service` directly depends on."""
        known = self._services.get(service)
        return known.deps if known else ()

    def dependents(self, service: str) -> tuple[str, ...]:
        """What directly depends on `service`."""
        return self._dependents.get(service, ())

    def neighbours(self, service: str) -> tuple[str, ...]:
        """Direct dependencies and dependents, sorted, without the service itself."""
        return tuple(sorted({*self.deps(service), *self.dependents(service)} - {service}))

    def is_hub(self, service: str) -> bool:
        """Whether so many services depend on this one that they are not listed one by one (see
        HUB_DEPENDENTS).
        """
        return service in self._hubs

    def nodes(self, service: str) -> tuple[str, ...]:
        """Hosts the service is declared to run on."""
        known = self._services.get(service)
        return known.nodes if known else ()

    def criticality(self, service: str | None) -> float:
        """0..1; 0.5 for a service that was not declared."""
        known = self._services.get(service) if service else None
        return known.criticality if known else DEFAULT_CRITICALITY

    def reach(self, among: Iterable[str], observed: Mapping[str, Collection[str]] = _NOTHING) -> dict[str, int]:
        """For each service of `among`, how many others of them lean on it, directly or through others of
        them.

        `observed` names services that were seen to depend on one, beside those that declare it. The most upstream
        service of a cascade has the highest count. O(services x their dependencies) per service.
        """
        inside = set(among)
        counts: dict[str, int] = {}
        for root in inside:
            seen = {root}
            queue = [root]
            while queue:
                name = queue.pop()
                leaning = {*self.dependents(name), *observed.get(name, ())}
                following = [one for one in leaning if one in inside and one not in seen]
                seen.update(following)
                queue += following
            counts[root] = len(seen) - 1
        return counts

    def service_of(self, event: Mapping[str, Any]) -> str | None:
        """The service an event speaks of: tags.service, else its entity where that names a service, else
        tags.app.

        An instance suffix (`cart-api-2`, `cart-api-7d9f8b6c5-x2x9z`) is removed where the rest is a declared
        service or the entity is a pod, container or task. None where nothing names a service.
        """
        tags: Mapping[str, str] = event.get("tags") or {}
        entity: Mapping[str, str] = event.get("entity") or {}
        kind, name = entity.get("type", ""), entity.get("id", "")
        stated = tags.get("service") or tags.get("service.name")
        if stated:
            return stated
        if name in self._services:
            return name
        instance = _INSTANCE.fullmatch(name)
        if instance and (instance[1] in self._services or kind in _INSTANCES):
            return instance[1]
        if tags.get("app"):
            return tags["app"]
        return name if name and kind in _SERVICES else None


def _as_document(service: Service) -> dict[str, Any]:
    document: dict[str, Any] = {"deps": list(service.deps)}
    if service.nodes:
        document["nodes"] = list(service.nodes)
    if service.criticality != DEFAULT_CRITICALITY:
        document["criticality"] = service.criticality
    if service.team is not None:
        document["team"] = service.team
    if service.labels:
        document["labels"] = dict(service.labels)
    return document


def _read_services(document: Any, faults: list[Detail]) -> dict[str, Service]:
    if not isinstance(document, Mapping) or not isinstance(document.get("services"), Mapping):
        faults.append(Detail("services", "object", 'send {"services": {"<name>": {"deps": ["<name>"]}}}'))
        return {}
    for extra in sorted(str(key) for key in document if key != "services"):
        faults.append(Detail(extra[:100], "unknown", "remove the field"))
    entries = document["services"]
    if len(entries) > MAX_SERVICES:
        faults.append(Detail("services", "max_items", f"at most {MAX_SERVICES} services"))
        return {}
    services = {}
    for name, entry in entries.items():
        path = f"services.{name}"[:120]
        if not isinstance(name, str) or not NAME.fullmatch(name):
            faults.append(Detail(path, _NAME_RULE, _NAME_FIX))
        elif not isinstance(entry, Mapping):
            faults.append(Detail(path, "object", 'use {} or {"deps": [...]}'))
        else:
            services[name] = _read_service(path, name, entry, faults)
    return services


def _read_service(path: str, name: str, entry: Mapping[str, Any], faults: list[Detail]) -> Service:
    for extra in sorted(str(key) for key in entry if key not in _FIELDS):
        faults.append(Detail(f"{path}.{extra}"[:200], "unknown", f"use only {', '.join(sorted(_FIELDS))}"))
    deps = _names(f"{path}.deps", entry.get("deps", ()), MAX_DEPS, faults)
    if name in deps:
        faults.append(Detail(f"{path}.deps", "self", "a service does not depend on itself"))
    criticality = entry.get("criticality", DEFAULT_CRITICALITY)
    number = isinstance(criticality, int | float) and not isinstance(criticality, bool)
    if not number or not 0 <= criticality <= 1:
        faults.append(Detail(f"{path}.criticality", "range", "a number from 0 to 1"))
        criticality = DEFAULT_CRITICALITY
    team = entry.get("team")
    if team is not None and not (isinstance(team, str) and 0 < len(team) <= 100):
        faults.append(Detail(f"{path}.team", "text", "1 to 100 characters"))
        team = None
    return Service(
        deps=deps,
        nodes=_names(f"{path}.nodes", entry.get("nodes", ()), MAX_NODES, faults),
        criticality=float(criticality),
        team=team,
        labels=_labels(f"{path}.labels", entry.get("labels", {}), faults),
    )


def _names(path: str, value: Any, limit: int, faults: list[Detail]) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        faults.append(Detail(path, "array", "a list of names"))
        return ()
    if len(value) > limit:
        faults.append(Detail(path, "max_items", f"at most {limit} names"))
        return ()
    for position, name in enumerate(value):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            faults.append(Detail(f"{path}[{position}]", _NAME_RULE, _NAME_FIX))
            return ()
    return tuple(dict.fromkeys(value))


def _labels(path: str, value: Any, faults: list[Detail]) -> dict[str, str]:
    fits = isinstance(value, Mapping) and len(value) <= MAX_LABELS
    if not fits or not all(
        isinstance(k, str) and isinstance(v, str) and 0 < len(k) <= 100 and len(v) <= 200 for k, v in value.items()
    ):
        faults.append(
            Detail(path, "labels", f"at most {MAX_LABELS} text labels, names to 100 and values to 200 characters")
        )
        return {}
    return dict(value)
