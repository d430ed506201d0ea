"""The composition root: the only place that knows which adapter stands behind which port.

Everything is built on first use and kept for the life of the process; a function pays only for what its handler asks
for, which is why imports that only some functions need stand inside the functions here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from tocsin.access.admin import KEY_ID
from tocsin.aws.bucket import Bucket
from tocsin.aws.clients import client
from tocsin.aws.queues import Queue, SealedQueue, open_message
from tocsin.aws.secrets import secret
from tocsin.aws.table import Table
from tocsin.entry import logger, note
from tocsin.kernel import clock, strict_json
from tocsin.kernel.canonical import canonical_json
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.sealing import Sealer
from tocsin.settings import settings
from tocsin.signals.ports import Message, Sealed

if TYPE_CHECKING:
    from tocsin.access.limits import Gate, Limiter, Scheme
    from tocsin.access.principals import KeyStore, Principal
    from tocsin.access.projects import CachedProjects
    from tocsin.access.signatures import Signatures
    from tocsin.access.tokens import Tokens
    from tocsin.api.ports import AccessRooms, ApiRooms, DecisionRooms, DefenseRooms, PrivacyRooms, Probing
    from tocsin.aws.bus import EventBus
    from tocsin.aws.connector_store import DynamoAlerts, DynamoLeased, DynamoSilences
    from tocsin.aws.data_keys import KmsKeyRing
    from tocsin.aws.defense_store import DynamoQuarantines
    from tocsin.aws.delivery_store import DynamoChannels, DynamoNotifications, DynamoRouting
    from tocsin.aws.denials import Denials
    from tocsin.aws.documents import CalibrationDocuments, Documents, TopologyDocuments
    from tocsin.aws.event_reader import DynamoEventReader
    from tocsin.aws.incident_reader import DynamoIncidentReader
    from tocsin.aws.incident_store import DynamoIncidentStore
    from tocsin.aws.journal_store import JournalFiles
    from tocsin.aws.ledger import DynamoLedger
    from tocsin.aws.outbox import DynamoOutbox
    from tocsin.aws.watch import Heartbeats, Leases, StackWatch
    from tocsin.connectors.alertmanager import Alertmanager
    from tocsin.connectors.reception import Reception
    from tocsin.connectors.sns import SnsMessages
    from tocsin.decisions.deciding import Decider
    from tocsin.decisions.invoking import Invoker
    from tocsin.decisions.ports import Decided, Dialled
    from tocsin.decisions.routing import Engine, Health
    from tocsin.decisions.snapshots import Registry
    from tocsin.defense.healing import Supervisor
    from tocsin.defense.plans import Conditions
    from tocsin.defense.quarantine import Cordon
    from tocsin.delivery.digest import Digester
    from tocsin.delivery.dispatch import Dispatcher
    from tocsin.delivery.model import Transition
    from tocsin.delivery.ports import MailSender
    from tocsin.delivery.webhook import SignedWebhooks
    from tocsin.journal.sequencer import Sequencer
    from tocsin.kernel.http import Request
    from tocsin.kernel.pseudonyms import Pseudonyms
    from tocsin.kernel.redaction import Profile, Redactor
    from tocsin.privacy.jobs import Worker
    from tocsin.signals.correlation import Policy
    from tocsin.signals.correlator import CorrelateWorker
    from tocsin.signals.events import Event
    from tocsin.signals.intake import Intake
    from tocsin.signals.scorer import ScoreWorker

#: Members of an incident that are looked at for silences; a larger incident is told.
MAX_SILENCED = 200


#: Functions that are fed by a queue of their own.
WORKED: Final = ("score", "correlate", "notify", "relay", "digest", "seal", "supervise", "privacy", "connect")


@lru_cache(maxsize=1)
def table() -> Table:
    return Table(client("dynamodb"), settings().require("table"))


@lru_cache(maxsize=1)
def bucket() -> Bucket:
    return Bucket(client("s3"), settings().require("bucket"))


@lru_cache(maxsize=1)
def key_ring() -> KmsKeyRing:
    from tocsin.aws.data_keys import KmsKeyRing

    rows = Table(client("dynamodb"), settings().require("data_keys"))
    return KmsKeyRing(rows, lambda: client("kms"), settings().require("master_key"))


@lru_cache(maxsize=1)
def sealer() -> Sealer:
    return Sealer(key_ring())


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

    return DynamoLedger(table(), bucket(), sealer(), retention_days=settings().retention_days)


@lru_cache(maxsize=1)
def documents() -> Documents:
    from tocsin.aws.documents import Documents

    return Documents(table(), sealer())


@lru_cache(maxsize=1)
def topologies() -> TopologyDocuments:
    from tocsin.aws.documents import TopologyDocuments

    return TopologyDocuments(documents())


@lru_cache(maxsize=1)
def calibrations() -> CalibrationDocuments:
    from tocsin.aws.documents import CalibrationDocuments

    return CalibrationDocuments(documents())


def envelope_key() -> bytes:
    return secret(settings().require("secret_envelope"))


def sealed_messages(messages: Sequence[tuple[str, str]]) -> list[Sealed]:
    """Queue messages (id, body) that their worker opens when it gets to them."""
    return [Sealed(message_id, partial(_opened, message_id, body)) for message_id, body in messages]


def _opened(message_id: str, body: str) -> Message:
    try:
        envelope = open_message(body, envelope_key(), bucket(), sealer())
    except (Refusal, Retry, BotoCoreError, ClientError) as error:
        logger.error("message is not readable", extra={"message_id": message_id, "error": str(error)[:200]})
        if isinstance(error, Refusal | Retry):
            raise
        raise Retry(f"content is out of reach: {type(error).__name__}") from error
    return Message(message_id, envelope.project, envelope.trace_id, envelope.payload, envelope.size)


@lru_cache(maxsize=1)
def scorer() -> ScoreWorker:
    from tocsin.signals.scorer import ScoreWorker

    return ScoreWorker(ledger(), bus(), topologies(), calibrations())


@lru_cache(maxsize=1)
def incidents() -> DynamoIncidentStore:
    from tocsin.aws.incident_store import DynamoIncidentStore

    return DynamoIncidentStore(table(), sealer(), retention_days=settings().retention_days)


@lru_cache(maxsize=1)
def outbox() -> DynamoOutbox:
    from tocsin.aws.outbox import DynamoOutbox

    return DynamoOutbox(table(), bus(), queue("notify_queue"), queue("correlate_queue"), sealer())


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
    from tocsin.aws.key_store import DynamoKeys

    return CachedKeyStore(DynamoKeys(table()), time.monotonic)


def _env() -> str:
    """The kind of key that this stage takes."""
    return "live" if settings().stage != "test" else "test"


def _pepper() -> bytes:
    return secret(settings().require("secret_pepper"))


def _token_secret() -> bytes:
    return secret(settings().require("secret_token"))


@lru_cache(maxsize=1)
def projects() -> CachedProjects:
    from tocsin.access.projects import CachedProjects, Projects
    from tocsin.aws.key_store import DynamoProjects

    store = DynamoProjects(table())
    return CachedProjects(Projects(store, store.is_operator).of, time.monotonic)


@lru_cache(maxsize=1)
def tokens() -> Tokens:
    """Imports cryptography, so nobody asks for it before a token is presented or wanted."""
    return _tokens_at(clock.now_ms)


def _tokens_as_of(at: int) -> Tokens:
    """Tokens as they would be made at a time (Unix ms)."""
    return _tokens_at(lambda: at)


def _tokens_at(now: Callable[[], int]) -> Tokens:
    from tocsin.access.tokens import TokenKeys, Tokens
    from tocsin.aws.access_store import DynamoKeySet, DynamoOnce

    trusted = TokenKeys(_token_secret(), DynamoKeySet(table()), now)
    issuer = f"tocsin:{settings().stack}:{settings().stage}"
    return Tokens(trusted, _key_store(), DynamoOnce(table()), issuer, now)


@lru_cache(maxsize=1)
def _signatures() -> Signatures:
    from tocsin.access.signatures import Signatures
    from tocsin.aws.access_store import DynamoOnce

    prefixes = ("", f"/{settings().stage}")
    return Signatures(_key_store(), DynamoOnce(table()), _token_secret(), _env(), clock.now_ms, prefixes)


@lru_cache(maxsize=1)
def limiter() -> Limiter:
    from tocsin.access.limits import Limiter
    from tocsin.aws.limit_store import DynamoLimits

    return Limiter(DynamoLimits(client("dynamodb"), settings().require("table")), lambda: time.time_ns() // 1000)


@lru_cache(maxsize=1)
def _gate() -> Gate:
    from tocsin.access import limits, principals

    def by_key(request: Request) -> Principal:
        return principals.authenticate(request, _key_store(), _pepper(), clock.now_ms(), _env())

    def by_token(request: Request) -> Principal:
        return tokens().authenticate(principals.credential(request))

    def by_signature(request: Request) -> Principal:
        return _signatures().authenticate(request)

    return _gate_of(
        limits.Scheme(principals.carries_signature, principals.shown_signature, by_signature),
        limits.Scheme(principals.carries_token, principals.credential, by_token),
        limits.Scheme(principals.carries_key, principals.credential, by_key),
    )


def _gate_of(*schemes: Scheme) -> Gate:
    from tocsin.access import limits
    from tocsin.access.admin import LastUsed, Narrower
    from tocsin.aws.key_store import DynamoKeys, DynamoPeople
    from tocsin.aws.limit_store import DynamoFailures

    return limits.Gate(
        schemes,
        limits.Brake(DynamoFailures(client("dynamodb"), settings().require("table")), time.time),
        limits.RequestLimit(limiter()),
        projects().require_active,
        Narrower(DynamoPeople(table()), time.monotonic).narrow,
        LastUsed(DynamoKeys(table()), clock.now_ms).used,
        cordon().admit,
    )


_caller: ContextVar[Principal | None] = ContextVar("caller", default=None)


def principal_of(request: Request) -> Principal:
    """The caller of a request, counted against its limit. Refuses as tocsin.access.limits.Gate says."""
    principal = _gate().principal_of(request)
    _caller.set(principal)
    note(project_id=principal.project)
    return principal


def admit(request: Request, scope: str) -> Principal:
    """The caller of a request, who must hold `scope`."""
    from tocsin.access.principals import require

    with denials_noted(request):
        principal = principal_of(request)
        require(principal, scope)
    return principal


@lru_cache(maxsize=1)
def denials() -> Denials:
    from tocsin.aws.denials import Denials

    return Denials(table(), _pepper)


@contextmanager
def denials_noted(request: Request) -> Iterator[None]:
    """Whoever is turned away inside leaves evidence of it. A table that does not answer changes no answer."""
    from tocsin.api.matching import operation_of

    _caller.set(None)
    try:
        yield
    except Refusal as refusal:
        operation = operation_of(request.method, request.path)
        try:
            denials().note(refusal.code, operation, _caller.get(), request.source_ip, request.trace_id, clock.now_ms())
        except (Retry, BotoCoreError, ClientError) as error:
            logger.warning("a denial is in the log only", extra={"error": type(error).__name__, "code": refusal.code})
        raise


class SenderDoor:
    """Implements connectors.reception.Door: senders need the scope ingest:write."""

    def by_key(self, request: Request) -> Principal:
        with denials_noted(request):
            return self._sender(principal_of(request))

    def by_signature(self, key_id: str, request: Request) -> Principal:
        from tocsin.access import limits

        def shown(request: Request) -> str:
            return request.header("sentry-hook-signature") or ""

        def signed(request: Request) -> Principal:
            return _signatures().authenticate_hook(key_id, request.body, shown(request))

        with denials_noted(request):
            principal = _gate_of(limits.Scheme(lambda _: True, shown, signed)).principal_of(request)
            _caller.set(principal)
            return self._sender(principal)

    def _sender(self, principal: Principal) -> Principal:
        from tocsin.access.principals import require

        require(principal, "ingest:write")
        note(project_id=principal.project)
        return principal


def origin() -> str | None:
    """The origin that browsers may call from, if any."""
    return settings().cors_origin or None


@lru_cache(maxsize=1)
def sealed_queue() -> SealedQueue:
    return SealedQueue(queue("score_queue"), envelope_key(), bucket(), sealer())


@lru_cache(maxsize=256)
def _pseudonyms(project: str) -> Pseudonyms:
    from tocsin.kernel.pseudonyms import Pseudonyms, project_key

    return Pseudonyms(project_key(secret(settings().require("secret_pseudonym")), project))


@lru_cache(maxsize=1)
def events() -> DynamoEventReader:
    from tocsin.aws.event_reader import DynamoEventReader

    return DynamoEventReader(table(), ledger(), incidents())


@lru_cache(maxsize=64)
def _redactor(keys: tuple[str, ...], profile: Profile) -> Redactor:
    from tocsin.kernel.redaction import REDACT_KEYS, Redactor

    return Redactor({*REDACT_KEYS, *keys}, profile)


def _protect(project: str, event: Event) -> Event:
    """An event as the project's settings let it be stored. Users become pseudonyms whatever the settings say."""
    from tocsin.kernel.pseudonyms import protect

    chosen = projects().of(project).settings
    if chosen.redaction == "off":
        return _pseudonyms(project).event(event)
    return protect(event, _redactor(chosen.redact_keys, chosen.redaction_profile), _pseudonyms(project))


@lru_cache(maxsize=1)
def quarantine_rows() -> DynamoQuarantines:
    from tocsin.aws.defense_store import DynamoQuarantines

    return DynamoQuarantines(table(), sealer())


@lru_cache(maxsize=1)
def cordon() -> Cordon:
    from tocsin.access.limits import trickle
    from tocsin.defense.quarantine import Cordon

    return Cordon(quarantine_rows(), clock.now_ms, _stored_entity, partial(trickle, limiter()))


def _stored_entity(project: str, event: Mapping[str, Any]) -> str | None:
    """An event's entity as it would be stored: users are pseudonyms there, secrets are not."""
    entity = _protect(project, dict(event)).get("entity")
    return f"{entity['type']}:{entity['id']}" if entity else None


@lru_cache(maxsize=1)
def intake() -> Intake:
    from tocsin.access.limits import EventQuota
    from tocsin.signals.intake import Intake

    events = EventQuota(limiter())
    return Intake(
        sealed_queue(),
        marks=ledger(),
        protect=_protect,
        quota=lambda project, urgent: events.decide(project, urgent, projects().of(project).quota),
        blocked=cordon().judge,
    )


@lru_cache(maxsize=1)
def _alerts() -> DynamoAlerts:
    from tocsin.aws.connector_store import DynamoAlerts

    return DynamoAlerts(table(), sealer())


@lru_cache(maxsize=1)
def reception() -> Reception:
    from tocsin.aws.connector_store import DynamoNames
    from tocsin.connectors.reception import Reception

    names = DynamoNames(table(), sealer(), retention_days=settings().retention_days)
    return Reception(intake(), SenderDoor(), names=names, alerts=_alerts(), sns=_sns)


@lru_cache(maxsize=1)
def _sns() -> SnsMessages:
    """Made for the first message of SNS: reading certificates takes a cold start's time to load."""
    from tocsin.connectors.sns import SnsMessages
    from tocsin.delivery import egress

    return SnsMessages(egress.parse_allow(settings().egress_allow))


def operators_project() -> str:
    """The project that hears of the deployment itself, or "" before the bootstrap."""
    from tocsin.aws.watch import ops_project

    return ops_project(table())


@lru_cache(maxsize=1)
def leased() -> DynamoLeased:
    from tocsin.aws.connector_store import DynamoLeased

    return DynamoLeased(table())


@lru_cache(maxsize=1)
def silences() -> DynamoSilences:
    from tocsin.aws.connector_store import DynamoSilences

    return DynamoSilences(table(), sealer())


@lru_cache(maxsize=1)
def alertmanager() -> Alertmanager:
    from tocsin.connectors.alertmanager import Alertmanager

    return Alertmanager(_alerts(), silences(), started_at=clock.now_ms())


@lru_cache(maxsize=1)
def _webhooks() -> SignedWebhooks:
    from tocsin.delivery import egress, signing
    from tocsin.delivery.webhook import SignedWebhooks

    master = secret(settings().require("secret_webhook"))
    return SignedWebhooks(
        lambda channel_id, version: signing.channel_secret(master, channel_id, version),
        egress.parse_allow(settings().egress_allow),
    )


def _mails() -> MailSender:
    from tocsin.aws.mail import NoMail, SesMail, SmtpMail

    if not settings().mail_from:
        return NoMail()
    if settings().smtp_host:
        return SmtpMail(settings().smtp_host, settings().mail_from)
    return SesMail(client("ses"), settings().mail_from)


@lru_cache(maxsize=1)
def channels() -> DynamoChannels:
    from tocsin.aws.delivery_store import DynamoChannels

    return DynamoChannels(table(), sealer())


@lru_cache(maxsize=1)
def notifications() -> DynamoNotifications:
    from tocsin.aws.delivery_store import DynamoNotifications

    return DynamoNotifications(table(), sealer(), retention_days=settings().retention_days)


@lru_cache(maxsize=1)
def routing() -> DynamoRouting:
    from tocsin.aws.delivery_store import DynamoRouting

    return DynamoRouting(documents())


@lru_cache(maxsize=1)
def dispatcher() -> Dispatcher:
    from tocsin.aws.delivery_store import DynamoBudgets, DynamoSlots
    from tocsin.delivery.dispatch import Dispatcher, Policy, Ports

    return Dispatcher(
        Ports(
            notifications=notifications(),
            channels=channels(),
            routing=routing(),
            budgets=DynamoBudgets(table()),
            slots=DynamoSlots(table()),
            webhooks=_webhooks(),
            mails=_mails(),
            silenced=_silenced,
        ),
        Policy(api_url=settings().api_url),
    )


def _silenced(transition: Transition) -> str | None:
    """Implements delivery's `silenced`. Members are read only while a silence is active."""
    from tocsin.connectors import silences as rules

    now = clock.now_ms()
    active = [one for one in silences().all(transition.project) if one.state(now) == "active"]
    if not active:
        return None
    page = _incident_reader().members(transition.project, transition.incident_id, None, MAX_SILENCED)
    reason = None if page.next_position else rules.silencing(active, page.items, now)
    return str(reason) if reason else None


@lru_cache(maxsize=1)
def _incident_reader() -> DynamoIncidentReader:
    from tocsin.aws.incident_reader import DynamoIncidentReader

    return DynamoIncidentReader(incidents(), events(), retention_days=settings().retention_days)


@lru_cache(maxsize=1)
def digester() -> Digester:
    from tocsin.aws.delivery_store import DynamoDigests
    from tocsin.delivery.digest import Digester

    return Digester(
        channels=channels(),
        store=DynamoDigests(table(), sealer(), retention_days=settings().retention_days),
        dispatcher=dispatcher(),
        open_incidents=incidents().open_summaries,
        projects=ledger().projects,
    )


@lru_cache(maxsize=1)
def leases() -> Leases:
    from tocsin.aws.watch import Leases

    return Leases(table())


@lru_cache(maxsize=1)
def heartbeats() -> Heartbeats:
    from tocsin.aws.watch import Heartbeats

    return Heartbeats(table())


@lru_cache(maxsize=1)
def sequencer() -> Sequencer:
    from tocsin.aws.journal_store import DynamoJournal, KmsSigner
    from tocsin.journal.sequencer import Sequencer, origin_of

    chosen = settings()
    store = DynamoJournal(table(), client("s3"), chosen.require("journal_bucket"))
    log, cosigner = (KmsSigner(client("kms"), chosen.require(name)) for name in ("journal_key", "cosigner_key"))
    return Sequencer(store, origin_of(chosen.stack), log, cosigner)


def _journal_files() -> JournalFiles:
    from tocsin.aws.journal_store import JournalFiles

    return JournalFiles(client("s3"), settings().require("journal_bucket"))


@lru_cache(maxsize=1)
def watch() -> StackWatch:
    from tocsin.aws.watch import StackWatch

    stack = settings().stack
    clocked = ("supervise", "digest", "seal", "retention")
    return StackWatch(
        stack,
        {name: queue(f"{name}_queue") for name in WORKED},
        {f"{stack}-{name}": None for name in clocked} | {f"{stack}-scored": stack, f"{stack}-facts": stack},
        table(),
        client,
    )


@lru_cache(maxsize=1)
def supervisor() -> Supervisor:
    from tocsin.aws.dead_letters import DeadLetters
    from tocsin.aws.watch import Healings, OwnEvents, StackRepairs, TableMemory, ops_project
    from tocsin.defense.healing import Policy, Supervisor

    def letters(name: str) -> DeadLetters:
        return DeadLetters(client("sqs"), queue(f"{name}_queue").url)

    ticked = {name: queue(f"{name}_queue") for name in ("relay", "seal", "supervise")}
    return Supervisor(
        watch(),
        StackRepairs(ticked, queue("correlate_queue"), leases(), client, letters),
        TableMemory(table()),
        Healings(table()),
        OwnEvents(sealed_queue, lambda: ops_project(table())),
        Policy(tick_seconds=settings().tick_seconds),
    )


@lru_cache(maxsize=1)
def access() -> AccessRooms:
    from tocsin.access.admin import Directory, Keys, People
    from tocsin.access.approvals import Approvals
    from tocsin.access.projects import Projects
    from tocsin.api.ports import AccessRooms
    from tocsin.aws.access_store import DynamoApprovals, DynamoUsage
    from tocsin.aws.key_store import DynamoKeys, DynamoPeople, DynamoProjects

    records, keys, people = DynamoProjects(table()), DynamoKeys(table()), DynamoPeople(table())
    directory = Directory(keys, people, clock.now_ms)
    return AccessRooms(
        projects=Projects(records, records.is_operator, settings().retention_days),
        keys=Keys(keys, people, _pepper(), _token_secret(), _env()),
        people=People(people),
        directory=directory,
        approvals=Approvals(DynamoApprovals(table(), sealer()), directory),
        usage=DynamoUsage(table()),
        tokens=tokens,
    )


def enqueue_job(project: str, job_id: str, delay_s: int = 0) -> None:
    """Have the privacy function go on with a job."""
    queue("privacy_queue").send({"project": project, "job": job_id}, delay_s)


@lru_cache(maxsize=1)
def privacy_worker() -> Worker:
    from tocsin.aws.key_store import DynamoKeys, DynamoPeople, DynamoProjects
    from tocsin.aws.privacy_export import ProjectExports
    from tocsin.aws.privacy_store import DynamoJobs, ProjectStores
    from tocsin.privacy.jobs import Worker

    days = settings().retention_days
    urls = [queue(f"{name}_queue").url for name in WORKED]
    return Worker(
        DynamoJobs(table(), sealer()),
        ProjectStores(table(), bucket(), key_ring(), sealer(), client("sqs"), urls, retention_days=days),
        ProjectExports(
            table(),
            bucket(),
            ledger(),
            incidents(),
            notifications(),
            channels(),
            documents(),
            DynamoProjects(table()),
            DynamoKeys(table()),
            DynamoPeople(table()),
            retention_days=days,
        ),
        enqueue_job,
        clock.now_ms,
    )


def daily_privacy_round() -> dict[str, int]:
    """Begin the day's retention jobs, and take up jobs that were lost on the way."""
    from tocsin.aws.key_store import DynamoProjects
    from tocsin.aws.privacy_store import DynamoJobs
    from tocsin.privacy.jobs import begin_retention

    kept = {one.id: one.settings.retention_days for one in DynamoProjects(table()).all() if one.status != "deleted"}
    jobs, longest = DynamoJobs(table(), sealer()), settings().retention_days
    begun = begin_retention(jobs, enqueue_job, kept, longest, clock.now_ms())
    return {"begun": begun, "resumed": privacy_worker().resume()}


@lru_cache(maxsize=1)
def privacy() -> PrivacyRooms:
    from tocsin.api.ports import PrivacyRooms
    from tocsin.aws.clients import signer
    from tocsin.aws.privacy_store import DynamoJobs

    def link(key: str, seconds: int) -> str:
        where = {"Bucket": bucket().name, "Key": key}
        address: str = signer().generate_presigned_url("get_object", Params=where, ExpiresIn=seconds)
        return address

    return PrivacyRooms(
        DynamoJobs(table(), sealer()), enqueue_job, lambda project, value: _pseudonyms(project).of(value), link
    )


def _preview(project: str, events: Sequence[Event]) -> Sequence[Event]:
    """Events with the scores that a commit would give them now."""
    from tocsin.signals import scorer

    return scorer.preview(project, events, ledger(), topologies(), calibrations())


def _conditions(project: str, spoken: frozenset[str], own: str) -> Conditions:
    """What responders can count on in a project; `spoken` are keys that events accuse, `own` is the caller's."""
    from tocsin.aws.key_store import DynamoKeys
    from tocsin.defense.plans import Conditions
    from tocsin.defense.quarantine import has_room

    now, rows = clock.now_ms(), DynamoKeys(table())
    working = [one for one in channels().get_all(project) if one.enabled and one.failing_since is None]
    records = {name: rows.get(name.removeprefix("key_")) for name in spoken if KEY_ID.fullmatch(name)}
    return Conditions(
        room=has_room(quarantine_rows().get(project)[1], now),
        channel=bool(working),
        webhook=any(one.kind == "webhook" for one in working),
        keys=frozenset(
            name for name, one in records.items() if one and one.project == project and not one.refusal_code(now)
        ),
        own_key=own,
    )


def _probing() -> Probing:
    """What probes stand on. Raises Retry while the bootstrap has not said where the API is."""
    from tocsin.api.ports import Probing
    from tocsin.aws import keys
    from tocsin.aws.defense_store import ProbeLog
    from tocsin.aws.own_api import OwnApi

    row = table().get(keys.own_address())
    if row is None:
        raise Retry("the bootstrap has not run: nobody knows the API's address")
    own = OwnApi(row["url"])
    return Probing(own, own.front, _tokens_as_of, _env(), ProbeLog(table(), clock.now_ms).keep)


@lru_cache(maxsize=1)
def defense() -> DefenseRooms:
    from tocsin.api.ports import DefenseRooms
    from tocsin.aws.decision_store import DynamoDecisionLog, RegistryObjects
    from tocsin.aws.defense_store import DynamoMitigations, keep_snapshot
    from tocsin.aws.delivery_store import DynamoBudgets
    from tocsin.defense.mitigations import Mitigations
    from tocsin.defense.notices import MitigationHerald, Notices
    from tocsin.defense.quarantine import Quarantines
    from tocsin.delivery.dispatch import Poster

    def keep_decisions(project: str, batch_id: str, engine: Engine, decided: Sequence[Decided], health: Health) -> None:
        log = DynamoDecisionLog(table(), sealer(), project, retention_days=settings().retention_days)
        keep_snapshot(RegistryObjects(bucket(), project), engine.snapshot)
        log.put_health(health.digest, health.document)
        log.append(batch_id, decided)

    notices = Notices(channels(), Poster(notifications(), routing(), DynamoBudgets(table())).post, keep_decisions)
    store = DynamoMitigations(
        table(),
        sealer(),
        lambda project: RegistryObjects(bucket(), project),
        retention_days=settings().retention_days,
    )
    return DefenseRooms(
        intake=intake(),
        events=events(),
        incidents=_incident_reader(),
        preview=_preview,
        mitigations=Mitigations(store, MitigationHerald(notices), _conditions),
        notices=notices,
        probing=_probing,
        quarantines=Quarantines(quarantine_rows()),
        access=access,
        cursor_key=secret(settings().require("secret_cursor")),
        now=clock.now_ms,
        origin=origin(),
        flags=frozenset({"ENABLE_SENTINELRED"} if settings().enable_sentinelred == "true" else ()),
    )


@lru_cache(maxsize=1)
def api() -> ApiRooms:
    from tocsin.api.ports import ApiRooms
    from tocsin.api.writer import IncidentOperations
    from tocsin.aws.health import StackHealth
    from tocsin.aws.journal_store import DynamoJournalIndex
    from tocsin.aws.watch import Healings
    from tocsin.delivery.channels import Channels
    from tocsin.journal.audit import Audit

    reader = _incident_reader()
    return ApiRooms(
        events=events(),
        incidents=reader,
        writer=IncidentOperations(correlator(), reader, topologies(), policy()),
        documents=documents(),
        channels=Channels(channels(), _webhooks().secret_of, _webhooks().check_url),
        routing=routing(),
        dispatcher=dispatcher(),
        notifications=notifications(),
        healings=Healings(table()),
        journal=DynamoJournalIndex(table()),
        audit=Audit(_journal_files()),
        health=StackHealth(watch()),
        access=access,
        privacy=privacy,
        cursor_key=secret(settings().require("secret_cursor")),
        now=clock.now_ms,
        origin=origin(),
    )


#: Projects whose registries a process remembers.
_DECIDERS: Final = 64


@lru_cache(maxsize=_DECIDERS)
def _registry(project: str) -> Registry:
    from tocsin.aws.clients import prompt
    from tocsin.aws.decision_store import DynamoPointer, RegistryObjects
    from tocsin.decisions.snapshots import Registry

    pointer = DynamoPointer(Table(prompt("dynamodb"), table().name), project)
    return Registry(RegistryObjects(bucket(), project), pointer, clock.now_ms)


@lru_cache(maxsize=_DECIDERS)
def _decider(project: str) -> Decider:
    from tocsin.aws.decision_store import DynamoControl, DynamoDecisionLog
    from tocsin.decisions.deciding import Decider

    return Decider(
        _registry(project),
        DynamoControl(table(), project),
        DynamoDecisionLog(table(), sealer(), project, retention_days=settings().retention_days),
        clock.now_ms,
    )


def _dial(url: str, payload: object, headers: Mapping[str, str], within_ms: int) -> Dialled:
    """Implements Dial by the guard of outbound requests."""
    from tocsin.decisions.ports import Dialled
    from tocsin.delivery import egress

    sent = {**headers, "Content-Type": "application/json", "User-Agent": "tocsin"}
    started = time.perf_counter_ns()

    def took() -> int:
        return (time.perf_counter_ns() - started) // 1000

    try:
        target = egress.check(url, egress.resolve_dns, egress.parse_allow(settings().egress_allow))
    except (Refusal, Retry):
        return Dialled(failure="unreached", took_us=took())
    try:
        timeouts = egress.Timeouts(min(2.0, within_ms / 1000), within_ms / 1000)
        answer = egress.post(target, canonical_json(payload), sent, timeouts)
        output = strict_json.read(answer.body) if answer.body else None
    except Retry:
        return Dialled(failure="timeout", took_us=took())
    except Refusal:  # not JSON
        return Dialled(answer.status, None, took(), "" if answer.status >= 300 else "type")
    stated = answer.headers.get("x-cost-pusd", "")
    cost = int(stated) if stated.isascii() and stated.isdigit() and len(stated) <= 15 else None
    return Dialled(answer.status, output, took(), "", cost)


@lru_cache(maxsize=_DECIDERS)
def _invoker(project: str) -> Invoker:
    from tocsin.aws.decision_store import DynamoCalls
    from tocsin.decisions.invoking import Invoker

    return Invoker(_decider(project), DynamoCalls(table(), sealer(), project), _dial, clock.now_ms)


@lru_cache(maxsize=1)
def decisions() -> DecisionRooms:
    from tocsin.api.ports import DecisionRooms
    from tocsin.aws.decision_store import DynamoPointer
    from tocsin.delivery import egress
    from tocsin.journal.signatures import verify_ed25519

    allow = egress.parse_allow(settings().egress_allow)

    def check_url(url: str) -> None:
        egress.check(url, egress.resolve_dns, allow)

    return DecisionRooms(
        registry=_registry,
        decider=_decider,
        invoker=_invoker,
        history=lambda project: DynamoPointer(table(), project),
        check_url=check_url,
        verify=verify_ed25519,
        access=access,
        cursor_key=secret(settings().require("secret_cursor")),
        now=clock.now_ms,
        origin=origin(),
    )


def ready() -> bool:
    """Whether table and queue answer, for the readiness probe; trouble is for the log, not for the caller."""
    from botocore.exceptions import BotoCoreError, ClientError

    from tocsin.aws import keys

    try:
        table().get(keys.relay_watermark(), consistent=False)
        queue("score_queue").attributes()
    except (BotoCoreError, ClientError) as error:
        logger.warning("not ready", extra={"error": type(error).__name__})
        return False
    return True
