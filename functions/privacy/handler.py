"""Privacy: carries out exports, deletions, erasures and the daily retention. Fed by the privacy queue."""

from typing import Any

from tocsin import wiring
from tocsin.entry import logger, queue_entry


@queue_entry
def handler(message: dict[str, Any], context: Any) -> None:
    if "job" not in message:
        logger.info("daily round", extra=wiring.daily_privacy_round())
        return
    job = wiring.privacy_worker().run(message["project"], message["job"], context.get_remaining_time_in_millis)
    if job is None:
        logger.warning("there is no such job", extra={"job": message["job"]})
        return
    figures = {"job": job.id, "kind": job.kind, "status": job.status, "removed": job.removed, "remains": job.remains}
    logger.info("job", extra=figures)
