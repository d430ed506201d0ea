"""From a document to events by a mapping, with nothing of the document lost.

Fields are filled from expressions (template.py) and made to fit the event: what is too long is cut or hashed, what
is no severity, link or time is left out. A part of the document counts as told only where the event holds the very
same value; all else is the rest and goes to `extras` as it was sent: the item's own under its own names, what
surrounds the items under `envelope`, once, with the first of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tocsin.connectors.template import (
    Expression,
    Found,
    MappingError,
    Path,
    Scope,
    at,
    check,
    evaluate,
    parse_path,
)
from tocsin.kernel import clock, ids
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.strict_json import shown
from tocsin.signals import events

#: Fields that a rule fills, in the order in which they are read.
FIELDS: Final = (
    *("source", "type", "title", "body", "entity", "tags", "metrics", "severity_raw", "status"),
    *("occurred_at", "dedup_key", "links", "extras", "id"),
)
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "any": (str, int, float, bool, dict, list),
}
_RULE_KEYS: Final = frozenset((*FIELDS, "when", "each", "use", "require", "group", "recall"))
#: Most members of the rest that stand directly in extras; more go under one name.
_FLAT: Final = 200
_TITLE: Final = 1024
#: Tags or metrics of one event.
_MAX_PAIRS: Final = 50


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of an alert under a name that others use for it: enough to say more about it later."""

    dedup_key: str
    type: str
    title: str
    entity_type: str
    entity_id: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """One [[event]] of a mapping. `when` and `require` hold (path, allowed values or kinds)."""

    where: str
    fields: Mapping[str, Expression]
    when: tuple[tuple[tuple[str, Path], Any], ...] = ()
    require: tuple[tuple[str, tuple[str, Path], bool, Any], ...] = ()
    each: tuple[str, Path] | None = None
    group: Expression = None
    recall: Expression = None


@dataclass(slots=True)
class Made:
    """An event of a rule, the name of the group it belongs to, and the name under which to look for its alerts."""

    event: events.Event
    group: str | None = None
    recall: str | None = None


# --- reading rules ------------------------------------------------------------------------------------------


def requirements(table: Mapping[str, Any], where: str) -> tuple[tuple[str, tuple[str, Path], bool, Any], ...]:
    """Path → kind or list of values, as checked triples; a name that ends in ? may be missing. Raises MappingError."""
    made = []
    for name, wanted in table.items():
        optional, text = name.endswith("?"), name.removesuffix("?")
        if not (isinstance(wanted, list) and wanted) and wanted not in _KINDS:
            raise MappingError(f"{where}.{name}", "no kind", f"write one of {', '.join(_KINDS)} or a list of values")
        made.append((text, parse_path(text, f"{where}.{name}"), optional, wanted))
    return tuple(made)


def read_rule(table: Mapping[str, Any], shared: Mapping[str, Mapping[str, Any]], where: str) -> Rule:
    """A rule of a mapping file, checked as a whole. `shared` holds the tables that `use` names. Raises MappingError."""
    if "use" in table:
        if table["use"] not in shared:
            raise MappingError(f"{where}.use", "no such shared rule", f"use one of {', '.join(shared)}")
        table = {**shared[table["use"]], **{name: value for name, value in table.items() if name != "use"}}
    for name in table:
        if name not in _RULE_KEYS:
            raise MappingError(f"{where}.{name}", "unknown key", f"use one of {', '.join(sorted(_RULE_KEYS))}")
    for name in ("source", "type", "title", "id"):
        if name not in table:
            raise MappingError(f"{where}.{name}", "required", "say where it comes from")
    fields = {name: table[name] for name in FIELDS if name in table}
    for name, expression in fields.items():
        if name in ("tags", "metrics", "extras", "entity"):
            if not isinstance(expression, dict):
                raise MappingError(f"{where}.{name}", "not a table", "write name = expression")
            for key, one in expression.items():
                if key == "*":
                    for path in one:
                        parse_path(path, f"{where}.{name}.*")
                else:
                    check(one, f"{where}.{name}.{key}")
        elif name == "links":
            for index, link in enumerate(expression):
                check(link["href"], f"{where}.links[{index}].href")
                check(link.get("text", ""), f"{where}.links[{index}].text")
        else:
            check(expression, f"{where}.{name}")
    for name in ("group", "recall"):
        if name in table:
            check(table[name], f"{where}.{name}")
    return Rule(
        where=where,
        fields=fields,
        when=tuple(
            (parse_path(name, f"{where}.when"), value if isinstance(value, list) else [value])
            for name, value in table.get("when", {}).items()
        ),
        require=requirements(table.get("require", {}), f"{where}.require"),
        each=parse_path(table["each"], f"{where}.each") if "each" in table else None,
        group=table.get("group"),
        recall=table.get("recall"),
    )


# --- applying them ------------------------------------------------------------------------------------------


def _lookup(path: tuple[str, Path], scope: Scope) -> Any:
    return at(getattr(scope, path[0]), path[1])


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(value == one and type(value) is type(one) for one in wanted)
    return isinstance(value, _KINDS[wanted]) and not (wanted == "number" and isinstance(value, bool))


def applies(rule: Rule, scope: Scope) -> bool:
    """Whether the conditions of a rule hold: each path has one of its values, or for `"any"` some value."""
    for path, values in rule.when:
        value = _lookup(path, scope)
        if values == ["any"]:
            if value in (None, "", [], {}):
                return False
        elif values == ["none"]:
            if value not in (None, "", [], {}):
                return False
        elif not _is(value, values):
            return False
    return True


def required(
    requirements: Sequence[tuple[str, tuple[str, Path], bool, Any]], scope: Scope, prefix: str = ""
) -> list[Detail]:
    """What a document lacks: field, rule and fix of every requirement that does not hold."""
    details = []
    for name, path, optional, wanted in requirements:
        value = _lookup(path, scope)
        if value is None:
            if not optional:
                details.append(Detail(prefix + name, "required", "add it"))
        elif not _is(value, wanted):
            kind = "one-of" if isinstance(wanted, list) else wanted
            fix = (
                f"send one of {', '.join(map(str, wanted))}"
                if isinstance(wanted, list)
                else f"send a value of type {wanted}"
            )
            details.append(Detail(prefix + name, kind, fix))
        elif value == "" and not optional:
            details.append(Detail(prefix + name, "min-length", "send at least one character"))
    return details


def _clean(text: str, most: int) -> str:
    return events.HIDDEN.sub(" ", text).strip()[:most]


def _name(value: Any, most: int) -> str | None:
    """A value as a name of at most `most` characters; a longer one ends in a hash, so that names stay apart."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = _clean(str(value), 100_000)
    if len(text) > most:
        text = f"{text[: most - 21]}#{ids.base32_digest(text.encode(), 20)}"
    return text or None


def _key(value: Any) -> str | None:
    text = value if isinstance(value, str) else None if value is None else canonical_json(value).decode()
    if not text:
        return None
    if len(text) <= 256 and not events.HIDDEN.search(text):
        return text
    return "h_" + ids.base32_digest(text.encode("utf-8", "surrogatepass"), 32)


def _counted(value: Any, path: Path) -> Path:
    """A path with places of arrays counted from the beginning."""
    if not any(type(step) is int and step < 0 for step in path):
        return path
    made: list[str | int] = []
    for step in path:
        made.append(len(value) + step if isinstance(step, int) and step < 0 else step)
        value = value[step]
    return tuple(made)


class _Teller:
    """Builds one event and keeps account of which parts of the payload it tells."""

    def __init__(self, rule: Rule, scope: Scope, now: int) -> None:
        self._rule, self._scope, self._now = rule, scope, now
        self.told: set[tuple[str, Path]] = set()

    def value(self, name: str) -> Found:
        expression = self._rule.fields.get(name)
        return evaluate(expression, self._scope) if expression is not None else Found(None)

    def _tell(self, found: Found, used: Any) -> None:
        """Count a part of the payload as told when the event now holds the same value of the same type."""
        if found.origin is not None:
            sent = at(self._scope.item if found.origin[0] == "item" else self._scope.root, found.origin[1])
            if type(sent) is type(used) and sent == used and not isinstance(used, (dict, list)):
                kind, path = found.origin
                self.told.add((kind, _counted(self._scope.item if kind == "item" else self._scope.root, path)))

    def text(self, name: str, most: int) -> str | None:
        found = self.value(name)
        made = _name(found.value, most)
        self._tell(found, made)
        return made

    def long(self, name: str, most: int) -> str | None:
        found = self.value(name)
        if found.value is None:
            return None
        text = found.value if isinstance(found.value, str) else canonical_json(found.value).decode()
        text = text[:most]
        if not text.strip():
            return None
        self._tell(found, text)
        return text

    def pairs(self, name: str, most: int) -> dict[str, Any]:
        """Tags or metrics: members of objects under `*`, then what is named; at most 50."""
        made: dict[str, Any] = {}
        table = self._rule.fields.get(name, {})
        for text in table.get("*", ()):
            scope, path = parse_path(text, "")
            holder = _lookup((scope, path), self._scope)
            for key in holder if isinstance(holder, dict) else ():
                self._pair(
                    made, name, key, Found(holder[key], None if scope == "frame" else (scope, (*path, key))), most
                )
        for key, expression in table.items():
            if key != "*":
                self._pair(made, name, key, evaluate(expression, self._scope), most)
        return made

    def _pair(self, made: dict[str, Any], name: str, key: str, found: Found, most: int) -> None:
        value = found.value
        label = _clean(key, 64)
        if not label or label in made or len(made) == _MAX_PAIRS:
            return
        if name == "metrics":
            if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300:
                return
            made[label] = value
        else:
            text = value if isinstance(value, str) else None
            if text is None and isinstance(value, (bool, int, float)):
                text = canonical_json(value).decode()
            if text is None or text == "":
                return
            made[label] = text[:most]
        if label == key:
            self._tell(found, made[label])

    def links(self) -> list[dict[str, str]]:
        made: list[dict[str, str]] = []
        for link in self._rule.fields.get("links", ()):
            href = evaluate(link["href"], self._scope)
            if not isinstance(href.value, str) or events.url_problem(href.value):
                continue
            text = evaluate(link.get("text", ""), self._scope)
            one = {"href": href.value}
            if isinstance(text.value, str) and text.value:
                one["text"] = text.value[:256]
                self._tell(text, one["text"])
            if one not in made:
                made.append(one)
            self._tell(href, href.value)
        return made[:50]

    def time(self) -> str | None:
        """occurred_at, when it is a time that an event may have now."""
        found = self.value("occurred_at")
        if not isinstance(found.value, str):
            return None
        try:
            moment = clock.parse_rfc3339(found.value)
        except ValueError:
            return None
        if not self._now - events.OLDEST_MS <= moment <= self._now + events.FURTHEST_MS or moment < 0:
            return None
        text = clock.rfc3339(moment)
        self._tell(found, text)
        return text

    def simple(self, name: str, good: Any) -> Any:
        """severity_raw or status: the value when it is one."""
        found = self.value(name)
        if not good(found.value):
            return None
        self._tell(found, found.value)
        return found.value

    def key(self) -> str | None:
        found = self.value("dedup_key")
        made = _key(found.value)
        self._tell(found, made)
        return made

    def entity(self) -> dict[str, str] | None:
        table = self._rule.fields.get("entity")
        if table is None:
            return None
        for kind, expression in table.items():  # the first kind that has an id
            found = evaluate(expression, self._scope)
            name = _name(found.value, 256)
            if name:
                self._tell(found, name)
                return {"type": kind, "id": name}
        return None

    def extras(self) -> dict[str, Any]:
        made = {}
        for name, expression in self._rule.fields.get("extras", {}).items():
            found = evaluate(expression, self._scope)
            if found.value is not None:
                made[name] = found.value
                self._tell(found, found.value)
        return made


def _rest(value: Any, told: set[Path], without: Path | None, path: Path = ()) -> tuple[bool, Any]:
    """(whether anything is left, what is left) of a JSON value once the told leaves are taken out."""
    if path == without or path in told:
        return False, None
    if isinstance(value, dict) and value:
        made = {}
        for name, part in value.items():
            left, kept = _rest(part, told, without, (*path, name))
            if left:
                made[name] = kept
        return bool(made), made
    if isinstance(value, list) and value:
        if not any(
            len(one) > len(path) and one[: len(path)] == path for one in (*told, *([without] if without else ()))
        ):
            return True, value
        # places in an array mean something, so what is told leaves a gap rather than moving the others
        parts = [_rest(part, told, without, (*path, index)) for index, part in enumerate(value)]
        return any(left for left, _ in parts), [kept if left else None for left, kept in parts]
    return True, value


def _extras(teller: _Teller, rule: Rule, scope: Scope, first: bool) -> dict[str, Any]:
    extras = teller.extras()
    own, around = ({path for kind, path in teller.told if kind == one} for one in ("item", "root"))
    if rule.each is None:
        own |= around
    left, rest = _rest(scope.item, own, None)
    if left:
        flat = isinstance(rest, dict) and len(rest) <= _FLAT
        for name, part in rest.items() if flat else [("payload", rest)]:
            extras[name if name not in extras else f"{name}_"] = part
    if rule.each is not None and first:
        left, rest = _rest(scope.root, around, rule.each[1] if rule.each[0] != "frame" else None)
        if left:
            extras["envelope" if "envelope" not in extras else "envelope_"] = rest
    return extras


def make(rule: Rule, scope: Scope, now: int, *, first: bool = True) -> Made:
    """The event of one item; the `first` one carries what surrounds the items. `now` is Unix ms.

    Raises Refusal ERR_SCHEMA for an item that has no source or type.
    """
    teller = _Teller(rule, scope, now)
    event: dict[str, Any] = {"source": teller.text("source", 256), "type": teller.text("type", 128)}
    event["title"] = teller.long("title", _TITLE) or event["type"]
    for name in ("source", "type"):
        if not event[name]:
            raise Refusal(
                "ERR_SCHEMA", "The event has no name.", [Detail(shown(rule.fields[name]), "required", "add it")]
            )
    optional: dict[str, Any] = {
        "body": teller.long("body", events.MAX_STRING),
        "entity": teller.entity(),
        "tags": teller.pairs("tags", 256),
        "metrics": teller.pairs("metrics", 0),
        "severity_raw": teller.simple("severity_raw", events.is_severity),
        "status": teller.simple("status", lambda one: one in ("firing", "acknowledged", "resolved")),
        "occurred_at": teller.time(),
        "dedup_key": teller.key(),
        "links": teller.links(),
    }
    event |= {name: value for name, value in optional.items() if value not in (None, {}, [], "")}
    own_id = rule.fields["id"]
    named = None
    if own_id not in ("content", "receipt"):
        found = teller.value("id")
        if isinstance(found.value, (str, int)) and not isinstance(found.value, bool):
            named = ids.native_sender_id(str(found.value))
            teller._tell(found, named)
    extras = _extras(teller, rule, scope, first)
    if extras:
        event["extras"] = extras
    if named is None:
        content = canonical_json([event, now] if own_id == "receipt" else event)
        named = "h_" + ids.base32_digest(content, 32)
    event["id"] = named
    group, recall = (evaluate(one, scope).value if one is not None else None for one in (rule.group, rule.recall))
    return Made(event, str(group) if group else None, str(recall) if recall else None)


def as_known(event: events.Event, made: Made, known: Sequence[Known]) -> list[events.Event]:
    """An event about alerts known by another name, said of each of them; the event itself when there is none."""
    if not known:
        return [event]
    said = []
    for one in known:
        own = {
            **event,
            "dedup_key": one.dedup_key,
            "type": one.type,
            "title": one.title,
            "entity": {"type": one.entity_type, "id": one.entity_id},
            "tags": dict([*event.get("tags", {}).items(), *one.tags.items()][:_MAX_PAIRS]),
        }
        told = {name: event[name] for name in ("type", "title", "dedup_key", "entity") if name in event}
        own["extras"] = {**event.get("extras", {}), "reported_as": told}
        own["id"] = "h_" + ids.base32_digest(canonical_json([event["id"], made.recall, one.dedup_key]), 32)
        said.append(own)
    return said


def known(event: events.Event) -> Known:
    """What to remember of an event's alert."""
    entity = event.get("entity") or {"type": "source", "id": event["source"]}
    return Known(
        dedup_key=event["dedup_key"],
        type=event["type"],
        title=event["title"],
        entity_type=entity["type"],
        entity_id=entity["id"],
        tags=event.get("tags", {}),
    )
