"""Writes docs/openapi.json, docs/api.md and the sample events of these functions, all from the route table.

    python tools/openapi.py           write them
    python tools/openapi.py --check   exit 1 and name the files that differ

Every example of the table is run through the real router over the tests' sample world; its answer is what the
document shows. Nothing here is hand-written, so nothing can be out of date.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "shared"), str(ROOT)]

from tests.support import api_fakes  # noqa: E402
from tests.support.defense_fakes import sample_defense  # noqa: E402

from tocsin.api import decisions, defense, governing, openapi, public, router  # noqa: E402
from tocsin.kernel.http import Answer  # noqa: E402
from tocsin.routes import ROUTES, Example, Route  # noqa: E402

#: Functions whose examples are run; the others have sample events of their own.
_SHOWN = frozenset({"api", "route", "govern", "defend", "public"})
_DECIDING = {"route": decisions.dispatch, "govern": governing.dispatch}
#: Answers that are shown as what they are rather than repeated in the document.
_NOT_SHOWN = frozenset({"get_docs", "get_docs_script", "get_openapi"})


def run(route: Route, example: Example) -> Answer:
    """The answer of an example in a fresh sample world."""
    request = api_fakes.example_request(route, example)
    if route.function == "public":
        return public.answer(request, ROOT / "docs", lambda: True)
    if route.function in _DECIDING:
        return _DECIDING[route.function](request, lambda _: api_fakes.caller(), api_fakes.sample_decisions())
    if route.function == "defend":
        return defense.dispatch(request, lambda _: api_fakes.caller(), sample_defense((route.flag,)))
    return router.dispatch(request, lambda _: api_fakes.caller(), api_fakes.sample_world().rooms)


def _body(answer: Answer) -> Any:
    if answer.raw is not None:
        media = answer.raw[1].partition(";")[0]
        return json.loads(answer.raw[0]) if media.endswith("json") else answer.raw[0]
    return api_fakes.settled({"data": answer.data, "meta": {"trace_id": api_fakes.TRACE, **(answer.meta or {})}})


def answers() -> dict[tuple[str, str], Any]:
    """What every example of these functions is answered with."""
    return {
        (route.operation_id, example.name): _body(run(route, example))
        for route in ROUTES
        if route.function in _SHOWN and route.operation_id not in _NOT_SHOWN
        for example in route.examples
    }


def proxy_event(route: Route, example: Example) -> dict[str, Any]:
    """The example as the API Gateway REST proxy event that the function gets."""
    request = api_fakes.example_request(route, example)
    headers = {name: list(values) for name, values in request.headers.items()}
    if route.scope is not None:
        headers["x-api-key"] = ["{project_key}"]
    if route.admin_token:
        headers["x-admin-token"] = ["{admin_token}"]
    return {
        "resource": "/{proxy+}" if route.function == "api" else route.path,
        "path": request.path,
        "httpMethod": request.method,
        "headers": {name: values[0] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in request.query.items()} or None,
        "multiValueQueryStringParameters": {name: list(values) for name, values in request.query.items()} or None,
        "pathParameters": None,
        "requestContext": {
            "requestId": f"sample-{route.operation_id}",
            "identity": {"sourceIp": "203.0.113.9"},
        },
        "body": request.body.decode() or None,
        "isBase64Encoded": False,
    }


def files() -> dict[Path, str]:
    """Every generated file and what it must hold."""
    made = {
        ROOT / "docs/openapi.json": openapi.document(answers()),
    }
    for route in ROUTES:
        if route.function in _SHOWN:
            for example in route.examples:
                name = "_".join(f"{route.operation_id} {example.name}".replace("-", " ").split())
                made[ROOT / "events" / route.function / f"{name}.json"] = proxy_event(route, example)
    texts = {path: json.dumps(value, indent=1, ensure_ascii=False) + "\n" for path, value in made.items()}
    return {**texts, ROOT / "docs/api.md": openapi.markdown()}


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    check = parser.parse_args().check
    wanted = files()
    stale = [path for folder in _SHOWN for path in (ROOT / "events" / folder).glob("*.json") if path not in wanted]
    differing = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text] + stale
    for path in differing:
        print(("differs: " if check else "written: ") + str(path.relative_to(ROOT)))
        if not check:
            if path in stale:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], "utf-8")
    if check and differing:
        print("run: python tools/openapi.py")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
