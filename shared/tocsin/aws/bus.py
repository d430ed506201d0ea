"""EventBridge: past-tense facts for whoever listens; implements tocsin.signals.ports.Bus."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from tocsin.kernel.errors import Retry
from tocsin.signals.ports import Fact

SOURCE: Final = "tocsin"
_PER_CALL: Final = 10
#: PutEvents takes 256 KB in all; names and times of the entries count as well.
_BYTES_PER_CALL: Final = 200 * 1024
_ATTEMPTS: Final = 4


class EventBus:
    """One bus. A 200 answer may still list failed entries: only those are sent again."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def publish(self, facts: Sequence[Fact]) -> None:
        pending = [
            {
                "EventBusName": self._name,
                "Source": SOURCE,
                "DetailType": fact.kind,
                "Detail": json.dumps(fact.detail, separators=(",", ":"), ensure_ascii=False),
            }
            for fact in facts
        ]
        for _ in range(_ATTEMPTS):
            again = []
            for page in _pages(pending):
                try:
                    answer = self._client.put_events(Entries=page)
                except (BotoCoreError, ClientError) as error:
                    raise Retry(f"the bus did not answer: {type(error).__name__}") from error
                if answer.get("FailedEntryCount"):
                    again += [e for e, r in zip(page, answer["Entries"], strict=True) if r.get("ErrorCode")]
            pending = again
            if not pending:
                return
        raise Retry(f"{len(pending)} facts were not taken by the bus")


def _pages(entries: Sequence[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    page: list[dict[str, str]] = []
    size = 0
    for entry in entries:
        weight = len(entry["Detail"].encode("utf-8")) + 512
        if page and (len(page) == _PER_CALL or size + weight > _BYTES_PER_CALL):
            yield page
            page, size = [], 0
        page.append(entry)
        size += weight
    if page:
        yield page
