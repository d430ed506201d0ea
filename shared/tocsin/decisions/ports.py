"""What decisions need from storage. Implemented by tocsin.aws and, in tests, in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from tocsin.decisions.control import Budget, Watch
    from tocsin.decisions.routing import Health


@dataclass(frozen=True, slots=True)
class Deed:
    """What a publication does, for the record that is written with it: such as `register` of a `contract` named
    `mailer-v1`, and what that says. A policy is also kept under its version.
    """

    verb: str
    sort: str
    name: str
    content: Any


class Decided(NamedTuple):
    """A decision as it is kept: its receipt and its request, both as documents."""

    receipt: Mapping[str, Any]
    request: Mapping[str, Any]


def decision_ids(batch_id: str, count: int) -> list[str]:
    """What decisions that were made together are called: `dec_<uuid>` one alone, `dec_<uuid>-n<n>` the n-th of several,
    from 0.
    """
    return [batch_id] if count == 1 else [f"{batch_id}-n{n}" for n in range(count)]


class SnapshotStore(Protocol):
    """Documents that are never changed, by the SHA-256 of what they say."""

    def get(self, name: str) -> bytes | None: ...

    def create(self, name: str, data: bytes) -> None:
        """Store a document; again with the same bytes is harmless."""
        ...


class Pointer(Protocol):
    """The one thing that changes: which snapshot is current."""

    def read(self) -> tuple[bytes | None, str]:
        """What was last swapped in, never anything older, and a token that changes with it."""
        ...

    def swap(self, data: bytes, token: str, deed: Deed | None = None) -> bool:
        """Replace it if the token still holds; False when it does not. Takes effect within
        `snapshots.PUBLISH_MS` of the call, or never. The deed is recorded with it, or neither happens.
        """
        ...


class DecisionLog(Protocol):
    """Receipts of one project with the requests and health they were made of, for as long as certificates may be asked
    for. Decisions that were asked for together are kept together; `decision_ids` names each.
    """

    def append(self, batch_id: str, decided: Sequence[Decided]) -> None:
        """Keep decisions, with their evidence. Refuses ERR_BATCH_TOO_LARGE more than can be kept together."""
        ...

    def get(self, decision_id: str) -> Decided | None: ...

    def together(self, batch_id: str) -> Mapping[str, Decided]:
        """Decisions that were made together, by name; nothing when there is no such batch."""
        ...

    def put_health(self, digest: str, health: Mapping[str, Any]) -> None:
        """Keep a health document under its digest, at least as long as decisions by it; again is harmless."""
        ...

    def health(self, digest: str) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class Dialled:
    """What came back from a service. `failure` is "" when an answer did, "unreached" when nothing was sent, "timeout"
    otherwise; `cost_pusd` is what the service says that it cost, None when it says nothing.
    """

    status: int = 0
    output: Any = None
    took_us: int = 0
    failure: str = ""
    cost_pusd: int | None = None


class Dial(Protocol):
    """Calls a service."""

    def __call__(self, url: str, payload: Any, headers: Mapping[str, str], within_ms: int) -> Dialled: ...


@dataclass(frozen=True, slots=True)
class Taken:
    """A step over a service's watch and the project's budget: what it refuses, or both as they are after it."""

    refused: str | None = None
    watch: Watch | None = None
    budget: Budget | None = None


#: Made of the watch and the budget as they are; may be asked again, and changes nothing else.
Step = Callable[["Watch", "Budget"], Taken]


class Calls(Protocol):
    """Calls of one project: each id once, and what they share."""

    def claim(self, call_id: str, digest: str, until_ms: int) -> Mapping[str, Any] | None:
        """Begin a call: None, or the answer of the same call before. Refuses ERR_IDEMPOTENCY_MISMATCH and
        ERR_CONFLICT (it runs; after `until_ms` without an answer it may be begun again).
        """
        ...

    def answer(self, call_id: str, answer: Mapping[str, Any], spent_pusd: int) -> None:
        """Keep what became of a call, with its evidence, and count it."""
        ...

    def take(self, service: str, step: Step) -> Taken:
        """Take a step, unless it is refused. Raises Retry when others keep getting in the way."""
        ...

    def incumbent(self, lane: str) -> str | None:
        """The service (name@version) that requests of a kind went to last."""
        ...

    def set_incumbent(self, lane: str, service: str) -> None: ...

    def budget(self) -> Budget:
        """What the project may spend on calls in the current month."""
        ...

    def set_limit(self, limit_pusd: int) -> Budget: ...


class ControlStore(Protocol):
    """What is known of a project's services between decisions, by name@version."""

    def watches(self) -> Mapping[str, Watch]: ...

    def beat(self, service: str, at_ms: int) -> None:
        """Its owner called in at this time. Never moves backwards."""
        ...

    def health(self) -> Health:
        """The latest health document; that of epoch 0 when there is none."""
        ...

    def advance(self, health: Health) -> bool:
        """Make a health document the latest; False unless the latest is of the epoch before."""
        ...
