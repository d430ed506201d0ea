"""The plumbing of every function, once: requests and messages in, answers and partial failures out, one log line.

Handlers stay thin because this module decides how an error is answered, which messages come back, and what is logged.
It logs names, ids, counts and error classes; never bodies. An invocation that goes well is one line: handlers add to it
by note().
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter
from botocore.exceptions import BotoCoreError, ClientError

from tocsin.api.headers import SECURITY_HEADERS
from tocsin.kernel.cause import acting
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.http import Answer, Request


class _Lines(LambdaPowertoolsFormatter):
    """Lines of JSON that also have the short names by which logs of several systems are searched together."""

    def serialize(self, log: Any) -> str:
        log |= {"svc": log["service"], "lvl": log["level"], "evt": log["message"]}
        if "trace_id" in log:
            log["trace"] = log["trace_id"]
        return super().serialize(log)


#: Times are RFC 3339: Lambda reads them, and the level, from a line when the function's log format is JSON.
logger = Logger(logger_formatter=_Lines(use_rfc3339=True))

#: Sum of header names and values that a request may carry.
MAX_HEADER_BYTES: Final = 8_192
#: A queue function starts nothing new with less than this left before it is killed.
MIN_REMAINING_MS: Final = 2_000
#: Ids of our own making, which say nothing by themselves.
_MADE = re.compile(r"(?:inc|chn|apr|per|job|ntf)_[0-9a-f-]{36}|evt_[a-z2-7]{26}|key_[0-9A-Za-z]{12}", re.ASCII)
_TRACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}", re.ASCII)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

LambdaEvent = dict[str, Any]
ProxyResult = dict[str, Any]
#: What the line of this invocation will say beside what its entry knows.
_noted: dict[str, Any] = {}


def _begin(context: Any) -> None:
    """Forget the last invocation. Every line of this one says which span and which run of the function it is of."""
    _noted.clear()
    logger.append_keys(span_id=secrets.token_hex(8), run_id=getattr(context, "aws_request_id", None))


def note(**figures: Any) -> None:
    """Add to the line that this invocation logs at its end. Lists grow; anything else is what was said last."""
    for name, value in figures.items():
        if isinstance(value, list):
            _noted[name] = [*_noted.get(name, ()), *value]
        else:
            _noted[name] = value


def trace_id_of(headers: Mapping[str, tuple[str, ...]]) -> str:
    """The caller's trace id (X-Trace-Id, or W3C traceparent) when well formed, otherwise a new one."""
    given = headers.get("x-trace-id", ("",))[0]
    if _TRACE.fullmatch(given):
        return given
    parent = _TRACEPARENT.fullmatch(headers.get("traceparent", ("",))[0])
    return parent[1] if parent and parent[1] != "0" * 32 else secrets.token_hex(16)


def request_of(event: LambdaEvent) -> Request:
    """A Request from an API Gateway REST (payload 1.0) or Function URL (payload 2.0) event. Refuses anything else."""
    if not isinstance(event, dict) or not isinstance(event.get("requestContext"), dict):
        raise Refusal("ERR_UNSUPPORTED_EVENT", "this function answers HTTP requests only")
    if event.get("version") == "2.0":
        http = event["requestContext"]["http"]
        front, method, path = "url", http["method"], event["rawPath"]
        headers = {k.lower(): (v,) for k, v in (event.get("headers") or {}).items()}
        pairs = parse_qsl(event.get("rawQueryString") or "", keep_blank_values=True)
        source_ip = http.get("sourceIp", "")
    elif "httpMethod" in event:
        front, method, path = "rest", event["httpMethod"], event["path"]
        multi = event.get("multiValueHeaders") or {}
        single = event.get("headers") or {}
        headers = {k.lower(): tuple(v) for k, v in multi.items()}
        headers |= {k.lower(): (v,) for k, v in single.items() if k.lower() not in headers}
        queries = event.get("multiValueQueryStringParameters") or {}
        pairs = [(k, value) for k, values in queries.items() for value in values]
        source_ip = (event["requestContext"].get("identity") or {}).get("sourceIp", "")
    else:
        raise Refusal("ERR_UNSUPPORTED_EVENT", "this function answers HTTP requests only")
    query: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        query[name] = (*query.get(name, ()), value)
    return Request(
        method=method.upper(),
        path=path,
        trace_id=trace_id_of(headers),
        request_id=str(event["requestContext"].get("requestId", "")),
        headers=headers,
        query=query,
        body=_body(event),
        source_ip=source_ip or "",
        front=front,
    )


def _body(event: LambdaEvent) -> bytes:
    body = event.get("body")
    if body is None:
        return b""
    if event.get("isBase64Encoded"):
        try:
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refusal("ERR_BODY_ENCODING", "the body is not valid base64") from error
    return str(body).encode("utf-8", "surrogatepass")


def _check_headers(request: Request) -> None:
    size = sum(len(name) + sum(map(len, values)) for name, values in request.headers.items())
    if size > MAX_HEADER_BYTES:
        raise Refusal("ERR_HEADERS_TOO_LARGE", f"headers may hold {MAX_HEADER_BYTES} bytes in all")


def error_body(refusal: Refusal, trace_id: str) -> dict[str, Any]:
    """The error shape of every answer."""
    return {
        "code": refusal.code,
        "message": refusal.message,
        "details": [detail.as_json() for detail in refusal.details],
        "trace_id": trace_id,
    }


def proxy_result(answer: Answer, trace_id: str) -> ProxyResult:
    headers = {**SECURITY_HEADERS, "X-Trace-Id": trace_id, **answer.headers}
    binary = False
    if answer.raw is not None:
        content, headers["Content-Type"] = answer.raw
        binary = isinstance(content, bytes)
        body = base64.b64encode(content).decode("ascii") if isinstance(content, bytes) else content
    else:
        document: dict[str, Any] = {}
        if answer.error is not None:
            document["error"] = answer.error
        if answer.data is not None or answer.error is None:
            document["data"] = answer.data
            document["meta"] = {"trace_id": trace_id, **(answer.meta or {})}
        body = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        headers["Content-Type"] = "application/json; charset=utf-8"
    return {"statusCode": answer.status, "headers": headers, "body": body, "isBase64Encoded": binary}


def _shown(path: str) -> str:
    """A path as the log may show it: that of its route, with ids that we made. What a sender put there (an id, a key, a
    pseudonym, a path that is none) may be anything, an address for one.
    """
    from tocsin.api.matching import match

    try:
        methods, ids = match(path)
    except Refusal:
        return "unknown"
    route = next(iter(methods.values()))
    return " ".join([route.path, *(one for one in ids if _MADE.fullmatch(one))])


def api_entry(handle: Callable[[Request], Answer]) -> Callable[[LambdaEvent, Any], ProxyResult]:
    """Lambda handler of an HTTP function: refusals become error answers, trouble behind us 503, defects 500."""

    def handler(event: LambdaEvent, context: Any) -> ProxyResult:
        _begin(context)
        started = time.perf_counter()
        trace_id, request_id, method, path = secrets.token_hex(16), "", "?", "?"
        try:
            request = request_of(event)
            trace_id, request_id = request.trace_id, request.request_id
            method, path = request.method, request.path
            _check_headers(request)
            answer = handle(request)
            code = (answer.error or {}).get("code")
        except Refusal as refusal:
            code = refusal.code
            answer = Answer(status=refusal.status, error=error_body(refusal, trace_id), headers=refusal.headers)
        except (Retry, BotoCoreError, ClientError) as error:
            code = "ERR_UNAVAILABLE"
            logger.warning("a dependency failed", extra={"trace_id": trace_id, "error": _describe(error)})
            busy = Refusal(code, "the service cannot take this now; send it again later")
            answer = Answer(status=503, error=error_body(busy, trace_id), headers={"Retry-After": "2"})
        except Exception:
            code = "ERR_INTERNAL"
            logger.exception("a defect was met", extra={"trace_id": trace_id})
            defect = Refusal(code, "something is wrong on our side; the trace id finds it in the log")
            answer = Answer(status=500, error=error_body(defect, trace_id))
        logger.info(
            "answered",
            extra={
                "trace_id": trace_id,
                "request_id": request_id,
                "method": method[:10],
                "path": _shown(path),
                "status": answer.status,
                "code": code,
                "ms": round((time.perf_counter() - started) * 1000, 1),
                **_noted,
            },
        )
        return proxy_result(answer, trace_id)

    return handler


def _describe(error: Exception) -> str:
    """Class and AWS code of an error, without values that came from a caller."""
    if isinstance(error, ClientError):
        return f"{error.operation_name}: {error.response['Error'].get('Code')}"
    if isinstance(error, Retry):
        return error.reason
    return type(error).__name__


def _system() -> str:
    """This function as evidence names it."""
    return f"system:{logger.service}"


def batch_entry(
    handle: Callable[[Sequence[tuple[str, str]], Callable[[], int]], Collection[str]],
) -> Callable[[LambdaEvent, Any], dict[str, Any]]:
    """Lambda handler of a queue whose messages are worth handling together.

    `handle` gets (message id, body) pairs and a function that tells the milliseconds left; it returns the ids of the
    messages to give back. If it raises, all are given back.
    """

    def handler(event: LambdaEvent, context: Any) -> dict[str, Any]:
        _begin(context)
        started = time.perf_counter()
        records = event.get("Records") if isinstance(event, dict) else None
        if not isinstance(records, list) or not all("messageId" in record for record in records):
            logger.error("unsupported event", extra={"code": "ERR_UNSUPPORTED_EVENT"})
            return {"batchItemFailures": [], "error": "ERR_UNSUPPORTED_EVENT"}
        messages = [(record["messageId"], record["body"]) for record in records]
        known = [message_id for message_id, _ in messages]
        try:
            with acting(_system()):
                failed = set(handle(messages, context.get_remaining_time_in_millis))
        except (Retry, BotoCoreError, ClientError) as error:
            logger.warning("batch given back", extra={"error": _describe(error), "messages": len(messages)})
            failed = set(known)
        except Exception:
            logger.exception("batch failed", extra={"messages": len(messages)})
            failed = set(known)
        spent_ms = round((time.perf_counter() - started) * 1000, 1)
        figures = {"messages": len(messages), "failed": len(failed), "ms": spent_ms, **_noted}
        logger.info("batch done", extra=figures)
        return {"batchItemFailures": [{"itemIdentifier": one} for one in known if one in failed]}

    return handler


def each(
    messages: Sequence[tuple[str, str]], handle: Callable[[str], None], remaining_ms: Callable[[], int]
) -> set[str]:
    """Handle message bodies one at a time; returns the ids of those to give back.

    A message that fails, for whatever reason, is given back alone; after its last receive it is in the dead-letter
    queue. Messages for which no time is left are given back untouched.
    """
    failed = set()
    for message_id, body in messages:
        if remaining_ms() < MIN_REMAINING_MS:
            failed.add(message_id)
            continue
        try:
            handle(body)
        except (Retry, Refusal, BotoCoreError, ClientError) as error:
            if isinstance(error, Refusal) and error.code == "ERR_PROJECT_DELETED":
                logger.info("message of a deleted project dropped", extra={"message_id": message_id})
                continue
            failed.add(message_id)
            reason = error.code if isinstance(error, Refusal) else _describe(error)
            logger.warning("message given back", extra={"message_id": message_id, "error": reason})
        except Exception:
            failed.add(message_id)
            logger.exception("message failed", extra={"message_id": message_id})
    return failed


def queue_entry(
    handle: Callable[[dict[str, Any], Any], None],
) -> Callable[[LambdaEvent, Any], dict[str, Any]]:
    """Lambda handler of a queue of JSON commands and facts; `handle` gets one parsed body and the Lambda context."""

    def handler(event: LambdaEvent, context: Any) -> dict[str, Any]:
        def parsed(body: str) -> None:
            message = json.loads(body)
            if not isinstance(message, dict):
                raise Refusal("ERR_SCHEMA", "a message is a JSON object")
            handle(message, context)

        return batch_entry(lambda messages, remaining_ms: each(messages, parsed, remaining_ms))(event, context)

    return handler


def schedule_entry(
    handle: Callable[[LambdaEvent, Any], dict[str, Any]],
) -> Callable[[LambdaEvent, Any], dict[str, Any]]:
    """Lambda handler of a schedule or a direct call; what it returns is logged. Errors are logged, then raised."""

    def handler(event: LambdaEvent, context: Any) -> dict[str, Any]:
        _begin(context)
        try:
            with acting(_system()):
                outcome = handle(event, context)
        except Exception:
            logger.exception("scheduled run failed")
            raise
        logger.info("scheduled run done", extra=outcome)
        return outcome

    return handler
