"""Jobs over everything that a project holds: exporting it, deleting it, erasing one person, removing what is old.

    export     events ─ incidents ─ settings ─ manifest
    deletion   stop ─ keys ─ rows ─ objects ─ dead letters ─ count everything again ─ once more when caches are gone
    erasure    occurrences ─ exports ─ dead letters ─ count again ─ once more when caches are gone
    retention  rows ─ count again

A job is a row and a list of phases. A worker carries out one bounded step after another and keeps where it is after
each; what is killed or runs out of time goes on at the last step that was kept. Each step may be repeated. When
counting finds something left, the removing phases are run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol

from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.ids import derived_id
from tocsin.privacy.ports import Exports, JobStore, Step, Stores

Json = dict[str, Any]
Kind = Literal["export", "deletion", "erasure", "retention"]

#: What stands in the place of an erased pseudonym: of the same form, and the same for everybody.
ERASED: Final = "usr_erased" + "x" * 20
#: Objects of a project by what the phase is called.
PREFIXES: Final[Mapping[str, str]] = {
    "segments": "segments",
    "claims": "claim",
    "exports": "exports",
    "registry": "registry",
}
_COUNT: Final = "count:"
_REMOVING: Final[Mapping[str, tuple[str, ...]]] = {
    "deletion": ("data_keys", "rows", *PREFIXES, "dead_letters"),
    "erasure": ("occurrences", "exports", "dead_letters"),
    "retention": ("rows",),
}
PHASES: Final[Mapping[str, tuple[str, ...]]] = {
    "export": ("events", "incidents", "settings", "manifest"),
    **{
        kind: (*(("stop",) if kind == "deletion" else ()), *removing, *(_COUNT + name for name in removing))
        for kind, removing in _REMOVING.items()
    },
}
#: A step is begun only with this much time left, in ms.
MARGIN_MS: Final = 30_000
#: Functions work with a key or an object they have read for at most so long, in ms.
CACHES_MS: Final = 5 * clock.MINUTE
#: Removing is repeated at most so often while something is left.
MAX_PASSES: Final = 10
#: A job that nobody has touched for so long, in ms, was lost by its queue.
STALLED_MS: Final = clock.HOUR


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Times are Unix ms. `position` is where the phase goes on. `removed` and `remains` count by store.

    `subject` is the pseudonym to erase, "" once it is done. `recheck_at` is when a deletion or erasure is gone through
    once more, after functions have dropped what they had read.
    """

    id: str
    project: str
    kind: Kind
    requested_by: str
    requested_at: int
    phase: str
    approval: str = ""
    subject: str = ""
    subject_hash: str = ""
    keep_days: int = 0
    status: Literal["running", "done", "incomplete"] = "running"
    position: Any = None
    removed: Mapping[str, int] = field(default_factory=dict)
    remains: Mapping[str, int] = field(default_factory=dict)
    passes: int = 1
    files: Sequence[Mapping[str, Any]] = ()
    touched_at: int = 0
    stopped_at: int | None = None
    finished_at: int | None = None
    recheck_at: int | None = None
    rechecked_at: int | None = None
    version: int = 1

    @property
    def over(self) -> bool:
        """Whether it was gone through at least once."""
        return self.finished_at is not None

    def as_json(self) -> Json:
        """Public form."""
        return {
            "id": self.id,
            "project_id": self.project,
            "kind": self.kind,
            "status": self.status,
            "phase": None if self.status != "running" else self.phase,
            "requested_by": self.requested_by,
            "requested_at": clock.rfc3339(self.requested_at),
            "finished_at": clock.rfc3339(self.finished_at) if self.finished_at else None,
        }


class Enqueue(Protocol):
    def __call__(self, project: str, job_id: str, delay_s: int = 0) -> None:
        """Have a worker go on with a job."""


def begin(
    jobs: JobStore,
    enqueue: Enqueue,
    job_id: str,
    project: str,
    kind: Kind,
    requested_by: str,
    now: int,
    **rest: Any,
) -> Job:
    """A new job, put to work. Its row is there first: what the queue loses is found by the daily round."""
    job = Job(job_id, project, kind, requested_by, now, PHASES[kind][0], touched_at=now, **rest)
    if not jobs.put(job, 0):
        raise Refusal("ERR_CONFLICT", "The job could not be made; send the request again.")
    enqueue(project, job.id)
    return job


def begin_retention(jobs: JobStore, enqueue: Enqueue, keep_days: Mapping[str, int], longest_days: int, now: int) -> int:
    """Begin the day's job of every project that keeps less than the deployment does; returns how many are new.

    `keep_days` is what projects chose. What a project keeps as long as the deployment leaves by expiry alone.
    """
    begun, today = 0, now - now % clock.DAY
    for project, days in keep_days.items():
        if days < longest_days:
            job_id = derived_id("job", today, "retention", project)
            try:
                begin(jobs, enqueue, job_id, project, "retention", "schedule", now, keep_days=days)
            except Refusal:
                continue  # the day's job is there already
            begun += 1
    return begun


class Worker:
    """Carries jobs out. One job is in the hands of one worker at a time; a second one loses at its first write."""

    def __init__(
        self, jobs: JobStore, stores: Stores, exports: Exports, enqueue: Enqueue, now: Callable[[], int]
    ) -> None:
        self._jobs, self._stores, self._exports, self._enqueue, self._now = jobs, stores, exports, enqueue, now

    def run(self, project: str, job_id: str, remaining_ms: Callable[[], int]) -> Job | None:
        """Go on with a job while there is time, then hand it on. None for a job there is not."""
        job = self._jobs.get(project, job_id)
        if job is None:
            return None
        if job.status != "running":
            if job.recheck_at is None or self._now() < job.recheck_at:
                return job
            first = PHASES[job.kind][0]
            job = self._keep(replace(job, status="running", phase=first, position=None, passes=1, remains={}))
        while job.status == "running":
            if remaining_ms() < MARGIN_MS:
                self._enqueue(project, job_id)
                return job
            job = self._keep(self._after(job, self._step(job)))
        if job.recheck_at is not None:
            self._enqueue(project, job_id, max(0, job.recheck_at - self._now()) // 1000 + 1)
        return job

    def _keep(self, job: Job) -> Job:
        kept = replace(job, version=job.version + 1, touched_at=self._now())
        if not self._jobs.put(kept, job.version):
            raise Retry("another worker has the job")
        return kept

    def _step(self, job: Job) -> Step:
        name, remove = job.phase.removeprefix(_COUNT), not job.phase.startswith(_COUNT)
        stores, project, at = self._stores, job.project, job.position
        match name:
            case "events":
                return self._exports.events(job)
            case "incidents":
                return self._exports.incidents(job)
            case "settings":
                return self._exports.settings(job)
            case "manifest":
                return self._exports.manifest(job)
            case "stop":
                return stores.stop(project)
            case "data_keys":
                return stores.data_keys(project, remove=remove)
            case "rows":
                return stores.rows(project, at, remove=remove, keep_days=job.keep_days or None)
            case "occurrences":
                return stores.occurrences(project, job.subject, at, remove=remove)
            case "dead_letters":
                return stores.letters(project, remove=remove, needle=job.subject)
            case _:
                return stores.objects(project, PREFIXES[name], at, remove=remove)

    def _after(self, job: Job, step: Step) -> Job:
        """The job after one step of its phase."""
        counting = job.phase.startswith(_COUNT)
        counts = dict(job.remains if counting else job.removed)
        for name, count in step.counts.items():
            counts[name] = counts.get(name, 0) + count
        job = replace(job, position=step.position, files=[*job.files, *step.files])
        job = replace(job, remains=counts) if counting else replace(job, removed=counts)
        if step.position is not None:
            return job
        if job.phase == "data_keys" and job.stopped_at is None:
            job = replace(job, stopped_at=self._now())
        phases = PHASES[job.kind]
        following = phases.index(job.phase) + 1
        if following < len(phases):
            return replace(job, phase=phases[following])
        if any(job.remains.values()) and job.passes < MAX_PASSES:
            return replace(job, phase=_REMOVING[job.kind][0], passes=job.passes + 1, remains={})
        return self._finished(job)

    def _finished(self, job: Job) -> Job:
        now = self._now()
        status: Literal["done", "incomplete"] = "incomplete" if any(job.remains.values()) else "done"
        if job.over or job.kind in ("export", "retention"):
            checked = now if job.over else None
            finished = job.finished_at or now
            return replace(job, status=status, finished_at=finished, rechecked_at=checked, recheck_at=None, subject="")
        return replace(job, status=status, finished_at=now, recheck_at=now + CACHES_MS + clock.MINUTE)

    def resume(self) -> int:
        """Enqueue jobs that were lost on the way, for the daily round. Returns how many."""
        found = 0
        for project, job_id in self._jobs.unfinished():
            try:
                job = self._jobs.get(project, job_id)
            except Refusal:
                continue  # its project was deleted meanwhile, and with it what it was about
            if job is not None and self._now() - max(job.touched_at, job.recheck_at or 0) > STALLED_MS:
                self._enqueue(project, job_id)
                found += 1
        return found
