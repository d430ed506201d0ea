"""Jobs, stores and exports in memory, which can die at any step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tocsin.privacy.jobs import Job
from tocsin.privacy.ports import Step


class JobRows:
    """Implements JobStore and Enqueue."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Job] = {}
        self.queued: list[tuple[str, str, int]] = []

    def get(self, project: str, job_id: str) -> Job | None:
        return self.rows.get((project, job_id))

    def put(self, job: Job, expected_version: int) -> bool:
        found = self.rows.get((job.project, job.id))
        if (found.version if found else 0) != expected_version:
            return False
        self.rows[job.project, job.id] = job
        return True

    def unfinished(self) -> Sequence[tuple[str, str]]:
        return [
            (job.project, job.id) for job in self.rows.values() if job.status == "running" or job.recheck_at is not None
        ]

    def enqueue(self, project: str, job_id: str, delay_s: int = 0) -> None:
        self.queued.append((project, job_id, delay_s))


class Killed(BaseException):
    """The process is gone: nothing after it runs."""


@dataclass
class World:
    """What every store holds, by project: lists of things, two to a page. `before` runs ahead of each step."""

    held: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    before: Callable[[str], None] = lambda _: None
    late: dict[str, list[str]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def _page(self, store: str, project: str, remove: bool, wanted: Callable[[str], bool] = lambda _: True) -> Step:
        self.before(store)
        self.log.append(("" if remove else "count:") + store)
        mine = self.held.get(project, {}).get(store, [])
        found = [one for one in mine if wanted(one)]
        page = found[:2] if remove else found
        if remove:
            self.held[project][store] = [one for one in mine if one not in page]
            if not found[2:] and store in self.late:  # a slow worker writes after the sweep
                self.held[project].setdefault(store, []).extend(self.late.pop(store))
        self.before(f"after {store}")
        return Step({store: len(page)}, "more" if remove and found[2:] else None)

    def stop(self, project: str) -> Step:
        self.before("stop")
        self.log.append("stop")
        return Step()

    def data_keys(self, project: str, *, remove: bool) -> Step:
        return self._page("data_keys", project, remove)

    def rows(self, project: str, position: Any, *, remove: bool, keep_days: int | None = None) -> Step:
        return self._page("rows", project, remove, lambda one: keep_days is None or one.startswith("old"))

    def objects(self, project: str, prefix: str, position: Any, *, remove: bool) -> Step:
        return self._page({"claim": "claims"}.get(prefix, prefix), project, remove)

    def letters(self, project: str, *, remove: bool, needle: str = "") -> Step:
        return self._page("dead_letters", project, remove, lambda one: needle in one)

    def occurrences(self, project: str, pseudonym: str, position: Any, *, remove: bool) -> Step:
        return self._page("occurrences", project, remove, lambda one: pseudonym in one)

    # Exports
    def events(self, job: Job) -> Step:
        self.before("events")
        part = (job.position or 0) + 1
        return Step({"events": 2}, part if part < 3 else None, [{"name": f"events-{part}", "rows": 2}])

    def incidents(self, job: Job) -> Step:
        self.before("incidents")
        return Step({"incidents": 1}, None, [{"name": "incidents-1", "rows": 1}])

    def settings(self, job: Job) -> Step:
        return Step({"project": 1}, None, [{"name": "project", "rows": 1}])

    def manifest(self, job: Job) -> Step:
        self.log.append(f"manifest of {len(job.files)}")
        return Step()
