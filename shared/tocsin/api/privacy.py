"""Export, deletion and erasure over HTTP, and what is said about them afterwards. The rules are those of
tocsin.privacy; the work is done by the privacy function.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from tocsin.api import models
from tocsin.api.access import hash_of
from tocsin.api.call import Call
from tocsin.api.matching import not_found
from tocsin.api.ports import ApiRooms, Json
from tocsin.kernel import clock
from tocsin.kernel.http import Answer
from tocsin.kernel.ids import new_id
from tocsin.privacy.jobs import Job, Kind, begin
from tocsin.privacy.receipts import EXPORT_DAYS, receipt

#: How long a link to a file of an export works, in seconds.
LINK_S: Final = 300


def _begun(call: Call, rooms: ApiRooms, kind: Kind, where: str, **rest: Any) -> Answer:
    """202 with a job that a second person has approved; the approval is used up by it."""
    privacy, now = rooms.privacy(), rooms.now()
    approval = rooms.access().approvals.use(
        call.principal, call.request.header("x-approval"), hash_of(call.principal, call.request, call.document), now
    )
    if kind == "deletion":
        projects = rooms.access().projects
        projects.delete(projects.deletable(call.principal, call.id))
    job = begin(
        privacy.jobs,
        privacy.enqueue,
        new_id("job", now),
        call.id,
        kind,
        call.principal.credential,
        now,
        approval=approval.id,
        **rest,
    )
    return Answer(data=job.as_json(), status=202, headers={"Location": f"/v1/projects/{call.id}/{where}/{job.id}"})


def create_export(call: Call, rooms: ApiRooms) -> Answer:
    """Begin an export of everything the project holds."""
    rooms.access().projects.own(call.principal, call.id)
    return _begun(call, rooms, "export", "exports")


def delete_project(call: Call, rooms: ApiRooms) -> Answer:
    """Stop the project at once, and begin to remove what it holds."""
    rooms.access().projects.deletable(call.principal, call.id)
    return _begun(call, rooms, "deletion", "receipts")


def erase_subject(call: Call, rooms: ApiRooms) -> Answer:
    """Begin to put the same word in the place of one person's pseudonym, everywhere."""
    rooms.access().projects.own(call.principal, call.id)
    digest = hashlib.sha256(call.part.encode("ascii")).hexdigest()
    return _begun(call, rooms, "erasure", "receipts", subject=call.part, subject_hash=digest)


def find_subject(call: Call, rooms: ApiRooms) -> Answer:
    """The pseudonym that stands for a user identifier in this project."""
    rooms.access().projects.own(call.principal, call.id)
    return Answer(data={"pseudonym": rooms.privacy().pseudonym_of(call.id, call.taken(models.SubjectInput).value)})


def _job(call: Call, rooms: ApiRooms) -> Job:
    found = rooms.privacy().jobs.get(call.id, call.part)
    return found if found is not None else not_found()


def get_export(call: Call, rooms: ApiRooms) -> Answer:
    """How far an export is, and links to its files once it is done."""
    rooms.access().projects.own(call.principal, call.id)
    job, privacy = _job(call, rooms), rooms.privacy()
    if job.kind != "export":
        not_found()
    data: Json = {**job.as_json(), "expires_at": None, "manifest": None, "files": []}
    if job.finished_at is not None:
        ends = job.finished_at + EXPORT_DAYS * clock.DAY
        data["expires_at"] = clock.rfc3339(ends)
        if rooms.now() < ends:

            def link(name: str) -> str:
                return privacy.link(f"exports/{job.project}/{job.id}/{name}", LINK_S)

            data["manifest"] = link("manifest.json")
            data["files"] = [{**one, "url": link(one["name"])} for one in job.files]
    return Answer(data=data)


def get_receipt(call: Call, rooms: ApiRooms) -> Answer:
    """What a job removed and what is left, as JSON and as a signed document."""
    access = rooms.access()
    access.projects.get(call.principal, call.id)
    document = receipt(_job(call, rooms))
    return Answer(data={"receipt": document, "jws": access.tokens().attest(document)})
