"""Score: claims the events of a batch, scores them, and commits them once. Fed by the score queue."""

from collections.abc import Callable, Collection, Sequence

from tocsin import wiring
from tocsin.entry import batch_entry, note


@batch_entry
def handler(messages: Sequence[tuple[str, str]], remaining_ms: Callable[[], int]) -> Collection[str]:
    outcome = wiring.scorer().handle(wiring.sealed_messages(messages), remaining_ms)
    note(
        stored=outcome.stored,
        duplicates=outcome.duplicates,
        refused=outcome.refused,
        unreadable=outcome.unreadable,
        announced=outcome.announced,
        reasons=outcome.reasons[:5],
    )
    return outcome.failed
