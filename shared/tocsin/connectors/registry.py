"""The connectors there are, read from their mapping files; which one a request is for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from tocsin.connectors import mapping, template
from tocsin.connectors.template import MappingError

ROOT: Final = Path(__file__).resolve().parent
#: How senders prove who they are: name → what the sender is given.
AUTHENTICATION: Final[Mapping[str, str]] = {
    "key": "`Authorization: Bearer <key>`, `X-Api-Key: <key>`, or HTTP Basic with the key as password",
    "routing-key": "the key as `routing_key` in the body",
    "genie-key": "`Authorization: GenieKey <key>`",
    "path-key": "the key as a part of the URL's path",
    "dsn": "a DSN, `https://<key>@<host>/<any number>`",
    "sentry-signature": "the key's id in the URL's path, its signing secret as client secret of the integration",
}
READERS: Final = frozenset(("json", "sentry-envelope", "otlp-traces", "otlp-logs", "otlp-metrics", "alertmanager-v2"))
ANSWERS: Final = frozenset(("taken", "partial", "refused", "unauthorized", "too_large", "busy"))
_KEYS: Final = frozenset(
    (
        *("title", "about", "sources", "setup", "auth", "media", "reader", "route", "answer", "retry", "state"),
        *(
            "require",
            "drop",
            "reply",
            "event",
            "alerts",
            "each",
            "documents",
            "keys",
            "empty",
            "unpack",
            "signed",
            "headers",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Route:
    """One address of a connector. Path parts in braces are given to the mapping as @.path.<name>; `{name+}` may hold
    slashes, which some gateways decode.
    """

    method: str
    path: str
    action: str = ""

    def match(self, path: str) -> Mapping[str, str] | None:
        """The values of the parts in braces when `path` is this route's, or None."""
        pattern = "".join(
            f"(?P<{part.strip('{+}')}>{'.' if '+' in part else '[^/]'}{{1,512}})" if part[0] == "{" else re.escape(part)
            for part in re.split(r"(\{[a-z_]+\+?\})", self.path)
            if part
        )
        found = re.fullmatch(pattern, path)
        return {name: unquote(value) for name, value in found.groupdict().items()} if found else None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as data: status, and a body and headers whose texts are filled in."""

    status: int
    body: Any = None
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connector:
    """One dialect: where it is spoken, how it is read and answered, and the rules that make its events."""

    name: str
    title: str
    about: str
    sources: tuple[str, ...]
    setup: str
    auth: str
    routes: tuple[Route, ...]
    media: tuple[str, ...]
    reader: str
    answers: Mapping[str, Reply]
    retry: str
    state: str
    rules: tuple[mapping.Rule, ...]
    require: Any = ()
    drop: tuple[template.Path, ...] = ()
    reply: Mapping[str, Any] = field(default_factory=dict)
    alerts: tuple[tuple[template.Path, str], ...] = ()
    #: Paths of texts that hold JSON, which takes their place.
    unpack: tuple[template.Path, ...] = ()
    #: Path of an array in the body that holds the documents, and limits of reading that differ.
    documents: template.Path | None = None
    keys: int = 256
    #: Who must have signed each message, besides the key: `sns` or nobody.
    signed: str = ""
    #: Whether a body may be empty, and whether a name is made for each request (@.receipt).
    empty: bool = False
    receipt: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A request's connector and route, with what its path holds."""

    connector: Connector
    route: Route
    params: Mapping[str, str]


def _answers(table: Mapping[str, Any], always: Mapping[str, str], where: str) -> dict[str, Reply]:
    made = {}
    for name, one in table.items():
        if name not in ANSWERS:
            raise MappingError(f"{where}.{name}", "no kind of answer", f"use one of {', '.join(sorted(ANSWERS))}")
        if not isinstance(one.get("status"), int):
            raise MappingError(f"{where}.{name}.status", "required", "write the HTTP status")
        headers = {**always, **one.get("headers", {})}
        made[name] = Reply(one["status"], one.get("body"), one.get("media", "application/json"), headers)
    for name in ("taken", "refused"):
        if name not in made:
            raise MappingError(f"{where}.{name}", "required", "say how the sender is answered")
    return made


def parse(name: str, text: str, shared: Mapping[str, Mapping[str, Any]]) -> Connector:
    """A connector from the text of its mapping file. Raises MappingError naming place, rule and fix."""
    where = f"{name}/mapping.toml"
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MappingError(where, f"not TOML: {error}", "see https://toml.io/en/v1.0.0") from None
    for key in table:
        if key not in _KEYS:
            raise MappingError(f"{where}: {key}", "unknown key", f"use one of {', '.join(sorted(_KEYS))}")
    for key in ("title", "about", "sources", "auth", "route", "answer", "event", "retry", "state", "setup"):
        if not table.get(key):
            raise MappingError(f"{where}: {key}", "required", "add it")
    if table["auth"] not in AUTHENTICATION:
        raise MappingError(f"{where}: auth", "unknown style", f"use one of {', '.join(AUTHENTICATION)}")
    if table.get("signed", "sns") != "sns":
        raise MappingError(f"{where}: signed", "unknown signer", "use sns")
    reader = table.get("reader", "json")
    if reader not in READERS:
        raise MappingError(f"{where}: reader", "unknown reader", f"use one of {', '.join(sorted(READERS))}")
    routes = tuple(Route(one["method"], one["path"], one.get("action", "")) for one in table["route"])
    rules = tuple(mapping.read_rule(rule, shared, f"{where}: event[{i}]") for i, rule in enumerate(table["event"]))
    alerts = [
        (template.parse_path(path, f"{where}: alerts.{status}")[1], status)
        for status in ("firing", "resolved")
        for path in table.get("alerts", {}).get(status, ())
    ]
    return Connector(
        name=name,
        title=table["title"],
        about=table["about"],
        sources=tuple(table["sources"]),
        setup=table["setup"],
        auth=table["auth"],
        routes=routes,
        media=tuple(table.get("media", ("application/json",))),
        reader=reader,
        answers=_answers(table["answer"], table.get("headers", {}), f"{where}: answer"),
        retry=table["retry"],
        state=table["state"],
        rules=rules,
        require=mapping.requirements(table.get("require", {}), f"{where}: require"),
        drop=tuple(template.parse_path(path, f"{where}: drop")[1] for path in table.get("drop", ())),
        reply=table.get("reply", {}),
        alerts=tuple(alerts),
        unpack=tuple(template.parse_path(path, f"{where}: unpack")[1] for path in table.get("unpack", ())),
        documents=template.parse_path(table["documents"], f"{where}: documents")[1] if "documents" in table else None,
        keys=table.get("keys", 256),
        signed=table.get("signed", ""),
        empty=table.get("empty", False),
        receipt="@.receipt" in text,
    )


@lru_cache(maxsize=1)
def shared_rules() -> Mapping[str, Mapping[str, Any]]:
    """Rules that several mappings use, by name: the tables of shared.toml."""
    return tomllib.loads((ROOT / "shared.toml").read_text("utf-8"))


def names() -> list[str]:
    """Names of the connectors, sorted: the folders that hold a mapping."""
    return sorted(path.parent.name for path in ROOT.glob("*/mapping.toml"))


@lru_cache(maxsize=64)
def load(name: str) -> Connector:
    """The connector of a name. Raises MappingError for a mapping that is wrong."""
    return parse(name, (ROOT / name / "mapping.toml").read_text("utf-8"), shared_rules())


@lru_cache(maxsize=1)
def _addresses() -> tuple[tuple[Route, str], ...]:
    return tuple((route, name) for name in names() for route in load(name).routes)


def find(method: str, path: str) -> Call | None:
    """What a request is for, or None when no connector has that address."""
    for route, name in _addresses():
        if route.method == method:
            params = route.match(path)
            if params is not None:
                return Call(load(name), route, params)
    return None
