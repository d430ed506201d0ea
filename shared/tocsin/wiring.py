"""The composition root: the only place that knows which adapter stands behind which port.

Everything is built on first use and kept for the life of the process; a function pays only for what its handler asks
for, which is why imports that only some functions need stand inside the functions here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from tocsin.aws.bucket import Bucket
from tocsin.aws.clients import client
from tocsin.aws.queues import Queue, SealedQueue, open_message
from tocsin.aws.secrets import secret
from tocsin.aws.table import Table
from tocsin.entry import logger
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal
from tocsin.settings import settings
from tocsin.signals.ports import Message

if TYPE_CHECKING:
    from tocsin.access.principals import KeyStore, Principal
    from tocsin.aws.bus import EventBus
    from tocsin.aws.documents import Documents, TopologyDocuments
    from tocsin.aws.incident_store import DynamoIncidentStore
    from tocsin.aws.ledger import DynamoLedger
    from tocsin.aws.outbox import DynamoOutbox
    from tocsin.kernel.http import Request
    from tocsin.signals.correlation import Policy
    from tocsin.signals.correlator import CorrelateWorker
    from tocsin.signals.scorer import ScoreWorker


@lru_cache(maxsize=1)
def table() -> Table:
    return Table(client("dynamodb"), settings().require("table"))


@lru_cache(maxsize=1)
def bucket() -> Bucket:
    return Bucket(client("s3"), settings().require("bucket"))


@lru_cache(maxsize=8)
def queue(name: str) -> Queue:
    """A queue by its settings field, such as "score_queue"."""
    return Queue(client("sqs"), settings().require(name))


@lru_cache(maxsize=1)
def bus() -> EventBus:
    from tocsin.aws.bus import EventBus

    return EventBus(client("events"), settings().require("bus"))


@lru_cache(maxsize=1)
def ledger() -> DynamoLedger:
    from tocsin.aws.ledger import DynamoLedger

    return DynamoLedger(table(), bucket(), retention_days=settings().retention_days)


@lru_cache(maxsize=1)
def documents() -> Documents:
    from tocsin.aws.documents import Documents

    return Documents(table())


@lru_cache(maxsize=1)
def topologies() -> TopologyDocuments:
    from tocsin.aws.documents import TopologyDocuments

    return TopologyDocuments(documents())


def envelope_key() -> bytes:
    return secret(settings().require("secret_envelope"))


def open_messages(messages: Sequence[tuple[str, str]]) -> tuple[list[Message], set[str]]:
    """Opened envelopes, and the ids of messages that are not authentic or not readable."""
    opened, unreadable = [], set()
    for message_id, body in messages:
        try:
            envelope = open_message(body, envelope_key(), bucket())
        except Refusal as refusal:
            logger.error("message is not readable", extra={"message_id": message_id, "error": refusal.message})
            unreadable.add(message_id)
            continue
        opened.append(Message(message_id, envelope.project, envelope.trace_id, envelope.payload))
    return opened, unreadable


@lru_cache(maxsize=1)
def scorer() -> ScoreWorker:
    from tocsin.signals.scorer import ScoreWorker

    return ScoreWorker(ledger(), bus(), topologies())


@lru_cache(maxsize=1)
def incidents() -> DynamoIncidentStore:
    from tocsin.aws.incident_store import DynamoIncidentStore

    return DynamoIncidentStore(table(), retention_days=settings().retention_days)


@lru_cache(maxsize=1)
def outbox() -> DynamoOutbox:
    from tocsin.aws.outbox import DynamoOutbox

    return DynamoOutbox(table(), bus(), queue("notify_queue"), queue("correlate_queue"))


def policy() -> Policy:
    from tocsin.signals.correlation import Policy

    return Policy(quiet=settings().quiet_minutes * clock.MINUTE)


@lru_cache(maxsize=1)
def correlator() -> CorrelateWorker:
    from tocsin.signals.correlator import CorrelateWorker

    return CorrelateWorker(ledger(), incidents(), outbox(), topologies(), policy=policy())


@lru_cache(maxsize=1)
def _key_store() -> KeyStore:
    from tocsin.access.principals import CachedKeyStore
    from tocsin.aws.key_store import DynamoKeyStore

    return CachedKeyStore(DynamoKeyStore(table()), time.monotonic)


def principal_of(request: Request) -> Principal:
    """The caller of a request. Refuses with 401 or 400 as tocsin.access.principals.authenticate says."""
    from tocsin.access.principals import authenticate

    pepper = secret(settings().require("secret_pepper"))
    env = "live" if settings().stage != "test" else "test"
    return authenticate(request, _key_store(), pepper, clock.now_ms(), env)


def sealed_queue() -> SealedQueue:
    return SealedQueue(queue("score_queue"), envelope_key(), bucket())
