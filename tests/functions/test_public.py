"""The open routes: few, small, and silent about everything else."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from functions.public import handler as function
from tests.support.api_fakes import request

from tocsin import wiring
from tocsin.api import public
from tocsin.api.headers import SECURITY_HEADERS
from tocsin.kernel.errors import Refusal
from tocsin.kernel.http import Answer
from tocsin.routes import OPEN_PATHS, ROUTES

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "events" / "public").glob("*.json"))


@pytest.fixture
def static(tmp_path: Path) -> Path:
    (tmp_path / "openapi.json").write_text('{"openapi": "3.1.0"}')
    (tmp_path / "redoc.js").write_text("var Redoc;")
    return tmp_path


def get(path: str, static: Path, up: bool = True, method: str = "GET") -> Answer:
    return public.answer(request(method, path), static, lambda: up)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_event_is_answered(path: Path, static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "ready", lambda: True, raising=False)
    monkeypatch.setattr(function, "_STATIC", static)
    result = function.handler(json.loads(path.read_text()), None)
    assert result["statusCode"] == 200
    assert not result["isBase64Encoded"]
    assert SECURITY_HEADERS.keys() <= result["headers"].keys()


def test_there_is_a_sample_for_every_open_route() -> None:
    operations = [route.operation_id for route in ROUTES if route.function == "public"]
    assert sorted(path.stem for path in SAMPLES) == sorted(f"{name}_read" for name in operations)


@pytest.mark.parametrize("path", ["/livez", "/health"])
def test_alive_whatever_is_behind_us(path: str, static: Path) -> None:
    answer = get(path, static, up=False)
    assert (answer.status, answer.data) == (200, {"status": "up"})


@pytest.mark.parametrize("path", ["/readyz", "/healthz", "/ready"])
@pytest.mark.parametrize(("up", "status"), [(True, 200), (False, 503)])
def test_ready_says_up_or_down_and_nothing_else(path: str, up: bool, status: int, static: Path) -> None:
    answer = get(path, static, up)
    assert (answer.status, answer.data) == (status, {"status": "up" if up else "down"})


def test_public_metrics_say_nothing_of_anybody(static: Path) -> None:
    assert get("/api/metrics.json", static).data == {"status": "up", "version": 1}


def test_the_docs_page_needs_no_other_host(static: Path) -> None:
    page = get("/docs", static)
    assert page.raw is not None
    text, media = page.raw
    assert media == "text/html; charset=utf-8"
    assert "http://" not in text
    assert "https://" not in text
    assert 'src="docs/redoc.js"' in text
    assert "'self'" in page.headers["Content-Security-Policy"]
    assert "unsafe-eval" not in page.headers["Content-Security-Policy"]
    script = get("/docs/redoc.js", static).raw
    assert script == ("var Redoc;", "text/javascript; charset=utf-8")
    assert get("/openapi.json", static).raw == ('{"openapi": "3.1.0"}', "application/json; charset=utf-8")


def test_documentation_that_was_not_built_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        get("/openapi.json", tmp_path)
    assert caught.value.code == "ERR_UNAVAILABLE"
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_open_routes_are_only_read(path: str, static: Path) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "HEAD"):
        with pytest.raises(Refusal) as caught:
            get(path, static, method=method)
        assert (caught.value.code, caught.value.headers["Allow"]) == ("ERR_METHOD", "GET, OPTIONS")
    assert get(path, static, method="OPTIONS").headers == {"Allow": "GET, OPTIONS"}


@pytest.mark.parametrize("route", [route for route in ROUTES if route.scope], ids=lambda route: route.operation_id)
def test_no_keyed_route_is_answered_here(route: Any, static: Path) -> None:
    with pytest.raises(Refusal) as caught:
        get(route.path.replace("{id}", "x"), static, method=route.method)
    assert caught.value.code == "ERR_NOT_FOUND"


def test_a_probe_that_hangs_counts_as_down_and_is_not_asked_twice() -> None:
    release, asked = threading.Event(), []

    def probe() -> bool:
        asked.append(1)
        return release.wait(10)

    readiness = public.Readiness(probe, timeout_s=0.01)
    assert readiness.ready() is False
    readiness._known = None
    assert readiness.ready() is False
    assert len(asked) == 1
    release.set()


def test_an_answer_of_the_probe_is_remembered() -> None:
    asked: list[int] = []
    readiness = public.Readiness(lambda: not asked.append(1))
    assert [readiness.ready() for _ in range(50)] == [True] * 50
    assert len(asked) == 1
