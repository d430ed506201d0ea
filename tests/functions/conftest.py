"""What every function's tests share."""

from __future__ import annotations

import pytest

from tocsin import wiring
from tocsin.access.principals import Principal


class DenialsFake:
    """Denials in memory: (code, operation, credential or address)."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str, str]] = []

    def note(self, code: str, operation: str, caller: Principal | None, address: str, trace_id: str, now: int) -> bool:
        self.noted.append((code, operation, caller.credential if caller else address))
        return True


@pytest.fixture(autouse=True)
def denials(monkeypatch: pytest.MonkeyPatch) -> DenialsFake:
    made = DenialsFake()
    monkeypatch.setattr(wiring, "denials", lambda: made)
    return made
