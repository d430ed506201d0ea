"""A sender's request to events, and what became of them to the sender's own answer.

call = registry.find(method, path)
body = read(call, request)                        # frame: size, gzip, media type, syntax
request = credentials.with_key(call, request, body.head)
made = translate(call, request, body, now=…, recall=…)
…each of made.items goes through intake, then made.groups is remembered…
return answer(call, made, result, trace_id=…)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tocsin.connectors import identity, mapping, otlp, sentry, template
from tocsin.connectors.alerts import Alert, posted
from tocsin.connectors.mapping import Known
from tocsin.connectors.registry import Call, Connector, Reply
from tocsin.kernel import body as bodies
from tocsin.kernel import ids, strict_json
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.http import Answer, Request
from tocsin.signals import events

#: Documents of one request; more is refused as a whole.
MAX_DOCUMENTS: Final = 500
#: Events of one request: a document may hold several alerts.
MAX_EVENTS: Final = 5_000
_HEADERS: Final = ("sentry-hook-resource", "x-amz-sns-message-type", "x-langfuse-ingestion-version", "user-agent")


@dataclass(frozen=True, slots=True)
class Body:
    """A body that was unpacked and read. `head` is where a key may stand; `documents` are what events come from.

    A document is (value, facts of it); `refused` are documents that could not be read, alone.
    """

    head: Any
    documents: Sequence[tuple[Any, Mapping[str, Any]]]
    refused: Sequence[tuple[int, Refusal]] = ()
    protobuf: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One event of a request, validated, or why there is none; `document` is the place of what it came from, `name`
    the sender's id of that.
    """

    document: int
    event: events.Event | None = None
    refusal: Refusal | None = None
    name: str = ""


@dataclass(slots=True)
class Translation:
    """What a request says. `groups` is to be remembered once its events were taken, `alerts` to be kept for the
    Alertmanager API. `reply` is for the answer.
    """

    items: list[Item] = field(default_factory=list)
    groups: dict[str, list[Known]] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)
    protobuf: bool = False

    @property
    def events(self) -> list[events.Event]:
        """The events, in order."""
        return [item.event for item in self.items if item.event is not None]


def nothing_known(_name: str) -> Sequence[Known]:
    """A memory of names that holds nothing."""
    return ()


# --- reading ------------------------------------------------------------------------------------------------


def _media(call: Call, request: Request) -> str:
    kind, parameters = bodies.media_type(request.header("content-type") or "")
    allowed = call.connector.media
    if "*" not in allowed and kind not in allowed:
        types = ", ".join(allowed)
        detail = Detail("content-type", "media-type", f"send one of {types}")
        message = "The content type is missing or not supported."
        raise Refusal("ERR_CONTENT_TYPE", message, [detail], {"Accept-Post": types})
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        detail = Detail("content-type", "charset", "send UTF-8, with charset=utf-8 or no charset")
        raise Refusal("ERR_CONTENT_TYPE", "Only UTF-8 is supported.", [detail])
    return kind


def _unpacked(request: Request, limits: bodies.Limits) -> bytes:
    if len(request.body) > limits.wire:
        detail = Detail("(body)", "wire-bytes", f"send at most {limits.wire} bytes per request, or compress with gzip")
        raise Refusal("ERR_BODY_TOO_LARGE", "The body is too large.", [detail])
    coding = (request.header("content-encoding") or "").strip().lower()
    if coding in ("gzip", "x-gzip"):
        return bodies.gunzip(request.body, limits)
    if coding not in ("", "identity"):
        detail = Detail("content-encoding", "coding", "send gzip, or no Content-Encoding")
        message = "The content encoding is not supported."
        raise Refusal("ERR_CONTENT_TYPE", message, [detail], {"Accept-Encoding": "gzip, identity"})
    return request.body


def read(call: Call, request: Request, limits: bodies.Limits = bodies.LIMITS) -> Body:
    """Unpack and read a request's body. Raises Refusal for what cannot be taken apart (kernel.body, strict_json)."""
    kind = _media(call, request)
    data = _unpacked(request, limits)
    connector = call.connector
    if not data.strip() and not kind.endswith("protobuf"):
        if not connector.empty:
            detail = Detail("(body)", "required", "send at least one event")
            raise Refusal("ERR_BODY_REQUIRED", "The body is empty.", [detail])
        return Body({}, [({}, {})])
    if connector.reader == "sentry-envelope":
        head, documents, refused = sentry.envelope(data)
        return Body(head, documents, refused)
    if connector.reader.startswith("otlp"):
        signal = connector.reader.removeprefix("otlp-")
        protobuf = kind == "application/x-protobuf"
        value = otlp.read_protobuf(data, signal) if protobuf else strict_json.read(data, otlp.JSON_LIMITS)
        return Body(None, otlp.documents(value, signal), protobuf=protobuf)
    value = strict_json.read(data, strict_json.Limits(keys_per_object=connector.keys))
    if connector.documents is None:
        return Body(value, [(value, {})])
    found = template.at(value, connector.documents) if connector.documents else value
    if not isinstance(found, list):
        where = ".".join(map(str, connector.documents)) or "(body)"
        raise Refusal("ERR_SCHEMA", "The body holds no list of events.", [Detail(where, "array", "send an array")])
    if len(found) > MAX_DOCUMENTS:
        fix = f"send at most {MAX_DOCUMENTS} per request"
        raise Refusal("ERR_BATCH_TOO_LARGE", "The batch has too many items.", [Detail("(body)", "batch-items", fix)])
    return Body(value, [(one, {}) for one in found])


# --- translating --------------------------------------------------------------------------------------------


def _without(value: Any, path: template.Path) -> Any:
    """A JSON value without the member at a path; parts that do not change are shared."""
    if not path or not isinstance(value, dict) or path[0] not in value:
        return value
    step = path[0]
    if len(path) == 1:
        return {name: part for name, part in value.items() if name != step}
    return {name: _without(part, path[1:]) if name == step else part for name, part in value.items()}


def _with(value: Any, path: template.Path, new: Any) -> Any:
    """A JSON value with another value at a path that it has."""
    if not path:
        return new
    return {name: _with(part, path[1:], new) if name == path[0] else part for name, part in value.items()}


def _as_json(value: Any) -> Any:
    """The JSON that a text holds, or the text itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return strict_json.read(value.encode("utf-8"))
        except Refusal:
            return value
    return value


def _alerts(connector: Connector, document: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The alerts that Alertmanager lists in a document, and the document without the lists: each alert tells its part.

    A list of many alerts is longer than a text of an event may be.
    """
    found: list[dict[str, Any]] = []
    for path, status in connector.alerts:
        value = template.at(document, path)
        alerts = identity.listed(value, status)
        if alerts:
            found += alerts
            document = _with(document, path, identity.unlisted(value))
    return document, found


def _frame(call: Call, request: Request) -> dict[str, Any]:
    return {
        "action": call.route.action,
        "path": {name: value for name, value in call.params.items() if name != "key"},
        "query": {name: values[0] for name, values in request.query.items() if values and name != "sentry_key"},
        "header": {name: request.header(name) for name in _HEADERS if request.header(name)},
    }


def translate(
    call: Call,
    request: Request,
    body: Body,
    *,
    now: int,
    recall: Callable[[str], Sequence[Known]] = nothing_known,
) -> Translation:
    """The events of a request. `now` is Unix ms at receipt, `recall` finds alerts by a name of the sender's.

    A document that breaks a rule is refused alone. Raises Refusal for a request of too many events.
    """
    frame = _frame(call, request)
    made = Translation(protobuf=body.protobuf)
    made.items += [Item(index, refusal=refusal) for index, refusal in body.refused]
    for index, (document, facts) in enumerate(body.documents):
        try:
            _document(call, document, {**frame, **facts}, index, now, recall, made)
        except Refusal as refusal:
            made.items.append(Item(index, refusal=refusal, name=_named(document)))
        if len(made.items) > MAX_EVENTS:
            fix = f"send at most {MAX_EVENTS} per request"
            detail = Detail("(body)", "batch-items", fix)
            raise Refusal("ERR_BATCH_TOO_LARGE", "The request holds too many events.", [detail])
    return made


def _named(document: Any) -> str:
    name = document.get("id") if isinstance(document, dict) else None
    return name if isinstance(name, str) else ""


def _document(
    call: Call,
    document: Any,
    frame: dict[str, Any],
    index: int,
    now: int,
    recall: Callable[[str], Sequence[Known]],
    made: Translation,
) -> None:
    connector = call.connector
    if connector.reader == "alertmanager-v2":
        alert = posted(document, now, f"[{index}].")
        made.alerts.append(alert)
        document, frame = alert.as_document(document, now), {**frame, "status": alert.status(now)}
    prefix = f"[{index}]." if connector.documents is not None else ""
    scope = template.Scope(document, document, frame)
    details = mapping.required(connector.require, scope, prefix)
    if not isinstance(document, dict):
        details = [Detail(prefix.rstrip(".") or "(body)", "object", "send a JSON object")]
    if details:
        raise Refusal("ERR_SCHEMA", "The request breaks its schema.", details[:20])
    for path in connector.drop:
        document = _without(document, path)
    for path in connector.unpack:
        held = template.at(document, path)
        if held is not None:
            document = _with(document, path, _as_json(held))
    if connector.alerts:
        document, frame["alerts"] = _alerts(connector, document)
    if connector.receipt:
        frame["receipt"] = ids.base32_digest(canonical_json([document, frame, index, now]), 32)
    scope = template.Scope(document, document, frame)
    rule = next((rule for rule in connector.rules if mapping.applies(rule, scope)), None)
    if rule is None:
        detail = Detail(prefix.rstrip(".") or "(body)", "known-kind", f"see docs/connectors.md, {connector.title}")
        raise Refusal("ERR_SCHEMA", "This is nothing that the connector knows.", [detail])
    for name, text in connector.reply.items():
        value = template.evaluate(text, scope).value
        if value is not None:
            made.reply.setdefault(name, value)
    _apply(rule, scope, index, now, recall, made, prefix)


def _apply(
    rule: mapping.Rule,
    scope: template.Scope,
    index: int,
    now: int,
    recall: Callable[[str], Sequence[Known]],
    made: Translation,
    prefix: str,
) -> None:
    if rule.each is None:
        items = [scope]
    else:
        base, path = rule.each
        found = template.at(scope.frame if base == "frame" else scope.root, path)
        items = [template.Scope(one, scope.root, scope.frame) for one in found or ()] if isinstance(found, list) else []
    first = True
    for item in items:
        try:
            details = mapping.required(rule.require, item, prefix)
            if details:
                raise Refusal("ERR_SCHEMA", "The request breaks its schema.", details[:20])
            one = mapping.make(rule, item, now, first=first)
            first = False
            known = recall(one.recall) if one.recall else ()
            for event in mapping.as_known(one.event, one, known):
                valid = events.validate(event)
                made.items.append(Item(index, valid, name=_named(scope.root)))
                if one.group and "dedup_key" in valid and valid["status"] == "firing":
                    made.groups.setdefault(one.group, []).append(mapping.known(valid))
        except Refusal as refusal:
            made.items.append(Item(index, refusal=refusal, name=_named(scope.root)))


# --- answering ----------------------------------------------------------------------------------------------


def _kind(status: int) -> str:
    if status in (401, 403):
        return "unauthorized"
    if status in (413, 431):
        return "too_large"
    return "busy" if status in (429, 500, 503) else "refused"


def _errors(refusals: Sequence[Refusal]) -> list[str]:
    texts = [f"{detail.field}: {detail.fix}" for refusal in refusals for detail in refusal.details]
    return (texts or [refusal.message for refusal in refusals])[:20]


def answer(call: Call, made: Translation | None, refused: Sequence[Refusal], taken: int, *, trace_id: str) -> Answer:
    """The answer in the sender's dialect. `taken` counts events that were accepted or known already, `refused` holds
    the others' refusals, of the request as a whole or of single events; a request with some of both is `partial`.
    """
    answers = call.connector.answers
    kind, chosen = "taken", None
    if refused and taken:
        kind = "partial" if "partial" in answers else "taken"
    elif refused:
        kind = _kind(max(refusal.status for refusal in refused))
    chosen = answers.get(kind)
    status = refused[0].status if refused and not taken else None
    if chosen is None:
        plain = answers["refused"]
        # The dialect has no answer of its own for this: the body of its refusals under the plain status
        chosen = Reply(status or plain.status, plain.body, plain.media, plain.headers)
    errors = _errors(refused)
    headers = dict(refused[0].headers) if refused and not taken else {}
    if kind == "busy":
        headers.setdefault("Retry-After", "2")
    frame = {
        **(made.reply if made is not None else {}),
        "errors": errors,
        "error": "; ".join(errors) or "ok",
        "message": refused[0].message if refused else "",
        "code": refused[0].code if refused else "",
        "status": chosen.status,
        "refused": len(refused),
        "taken": taken,
        "trace_id": trace_id,
        "items": _items(made),
        "retry_after": headers.get("Retry-After"),
    }
    if made is not None and made.protobuf:
        return otlp.protobuf_answer(chosen.status, kind, len(refused), frame["error"], headers)
    scope = template.Scope(frame, frame, frame)
    headers |= {name: str(template.fill(text, scope)) for name, text in chosen.headers.items()}
    content = template.fill(chosen.body, scope)
    text = "" if content is None else canonical_json(content).decode()
    return Answer(status=chosen.status, headers=headers, raw=(text, chosen.media))


def _items(made: Translation | None) -> dict[str, list[dict[str, Any]]]:
    """Fate of each item, for dialects that answer one by one: the sender's id of it and the status it is told."""
    successes, failures = [], []
    for item in made.items if made is not None else ():
        name = item.name or str(item.document)
        if item.refusal is None:
            successes.append({"id": name, "status": 201})
        else:
            text = "; ".join(_errors([item.refusal]))
            failures.append({"id": name, "status": item.refusal.status, "message": item.refusal.message, "error": text})
    return {"successes": successes, "errors": failures}
