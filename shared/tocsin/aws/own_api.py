"""The stack's own API as somebody outside sees it; implements tocsin.defense.probes.Http."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from tocsin.defense.probes import Reply
from tocsin.kernel.errors import Retry

_SECONDS: Final = 8.0
_MAX_ANSWER: Final = 65_536


class OwnApi:
    """Speaks to one address and nobody else; `front` is the address that callers are given."""

    def __init__(self, front: str) -> None:
        self.front = front
        self._parts = urlsplit(front)

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=_SECONDS)
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, body or None, dict(headers))
            answer = connection.getresponse()
            raw = answer.read(_MAX_ANSWER)
        except (OSError, HTTPException) as error:
            raise Retry(f"own API: {type(error).__name__}") from error
        finally:
            connection.close()
        try:
            told = json.loads(raw)
        except ValueError:
            return Reply(answer.status)
        said = told if isinstance(told, dict) else {}
        items = (said.get("data") or {}).get("items") or ()
        return Reply(answer.status, str((said.get("error") or {}).get("code") or ""), items)
