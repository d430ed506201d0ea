"""How Tocsin itself is doing, for its operators."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from tocsin.api.call import Call
from tocsin.api.ports import ApiRooms
from tocsin.kernel.http import Answer

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
_WORST: Final = ("up", "degraded", "down")


def list_healings(call: Call, rooms: ApiRooms) -> Answer:
    """What the supervisor found and repaired, newest first."""
    return call.listing(rooms, None, rooms.healings.page)


def get_parts(call: Call, rooms: ApiRooms) -> Answer:  # noqa: ARG001  every service has this signature
    """The table of parts, and the worst status among them."""
    parts = list(rooms.health.parts())
    worst = max((_WORST.index(part["status"]) for part in parts), default=0)
    return Answer(data={"status": _WORST[worst], "parts": parts})


def get_metrics(call: Call, rooms: ApiRooms) -> Answer:  # noqa: ARG001
    """Prometheus text exposition format 0.0.4."""
    return Answer(raw=(exposition(rooms.health.metrics()), PROMETHEUS))


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(value)


def exposition(samples: Iterable[tuple[str, str, str, Mapping[str, str], float]]) -> str:
    """Samples (name, type, help, labels, value) as text; samples of one family must be adjacent."""
    lines: list[str] = []
    family = None
    for name, kind, meaning, labels, value in samples:
        if name != family:
            flat = meaning.replace("\\", r"\\").replace("\n", r"\n")
            lines += [f"# HELP {name} {flat}", f"# TYPE {name} {kind}"]
            family = name
        inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}")
    return "\n".join(lines) + "\n"
