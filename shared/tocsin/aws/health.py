"""How the parts of the deployment are, for the API; implements tocsin.api.ports.HealthReader."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tocsin.aws.watch import StackWatch
from tocsin.kernel import clock

Json = dict[str, Any]

#: A queue with more waiting messages than this is behind.
_BEHIND: Final = 1_000
#: Oldest good run of each periodic worker, in ms.
_SILENCE: Final = {"relay": 3 * clock.MINUTE, "seal": 3 * clock.MINUTE, "digest": 130 * clock.MINUTE}


class StackHealth:
    """Looks when asked; what the supervisor did about it is in the healing records."""

    def __init__(self, watch: StackWatch) -> None:
        self._watch = watch

    def parts(self) -> Sequence[Json]:
        now = clock.now_ms()
        started = time.perf_counter()
        beats = self._watch.beats()
        table_ms = (time.perf_counter() - started) * 1000
        rows = [_part("table", "store", "up", f"answered in {table_ms:.0f} ms", now)]
        dead = self._watch.dead_letters()
        for name, depth in self._watch.queues().items():
            given_up = dead[name].visible
            status = "degraded" if given_up or depth.visible > _BEHIND else "up"
            detail = f"{depth.visible} waiting, {depth.in_flight} in flight, {given_up} dead letters"
            rows.append(_part(name, "queue", status, detail, now))
        for name, silence in _SILENCE.items():
            at = beats.get(name)
            if at is None:
                rows.append(_part(name, "worker", "up", "has not run yet", now))
            else:
                status = "up" if now - at <= silence else "degraded"
                rows.append(_part(name, "worker", status, f"last ran {(now - at) // 1000} s ago", now))
        return rows

    def metrics(self) -> Sequence[tuple[str, str, str, Mapping[str, str], float]]:
        queues, dead = self._watch.queues(), self._watch.dead_letters()
        now = clock.now_ms()
        waiting, given_up = "Messages in a work queue, by state.", "Messages in a dead-letter queue."
        ran = "Seconds since a periodic worker last ran."
        return [
            ("tocsin_up", "gauge", "1 when the API answers.", {}, 1),
            *(
                ("tocsin_queue_messages", "gauge", waiting, {"queue": name, "state": state}, count)
                for name, depth in queues.items()
                for state, count in (("visible", depth.visible), ("in_flight", depth.in_flight))
            ),
            *(
                ("tocsin_dead_letters", "gauge", given_up, {"queue": name}, depth.visible)
                for name, depth in dead.items()
            ),
            *(
                ("tocsin_heartbeat_age_seconds", "gauge", ran, {"worker": name}, (now - at) / 1000)
                for name, at in self._watch.beats().items()
            ),
        ]


def _part(name: str, kind: str, status: str, detail: str, now: int) -> Json:
    return {"part": name, "kind": kind, "status": status, "detail": detail, "measured_at": clock.rfc3339(now)}
