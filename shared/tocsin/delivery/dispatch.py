"""From a transition to delivered notifications: at least once, one id each, every decision on record.

The life of a record (docs/notifications.md draws it):

    claim    put-if-absent, in one transaction with the budget it uses, its digest note when it is withheld,
             and an outbox row due when the worker's lease ends
    attempt  one signed post or mail, under the endpoint's in-flight cap
    settle   conditional on the version read: delivered (2xx only), retrying (outbox row at the next due
             time), or failed

A record that is not finished always has an outbox row. A worker that dies anywhere is therefore repeated by
that row, with the same webhook-id, fresh timestamp and signature; a second worker that arrives meanwhile
meets the lease and leaves the record alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tocsin.delivery import budget as budgets
from tocsin.delivery import render
from tocsin.delivery.model import (
    CHANNEL_FAILED,
    KINDS,
    TEST,
    Attempt,
    Channel,
    NotificationRecord,
    PushBudget,
    Transition,
)
from tocsin.delivery.ports import (
    BudgetStore,
    ChannelStore,
    Claim,
    MailSender,
    NotificationStore,
    RoutingStore,
    SendResult,
    SlotStore,
    WebhookSender,
    Withheld,
)
from tocsin.delivery.routing import Routing, Verdict, dry_run, plan
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal, Retry

#: Delays after the 1st, 2nd … failed attempt, in ms (Standard Webhooks' recommended schedule); then it failed
#: for good.
SCHEDULE: Final = tuple(
    clock.SECOND * seconds for seconds in (5, 30, 120, 600, 3_600, 4 * 3_600, 12 * 3_600, 24 * 3_600)
)
#: A worker owns an attempt for this long; longer than any sender's own deadline.
LEASE_MS: Final = 60 * clock.SECOND
#: Attempts under way towards one webhook endpoint, over all workers.
IN_FLIGHT: Final = 2
#: An endpoint that has not answered well for this long is disabled.
DISABLE_AFTER_MS: Final = 5 * clock.DAY
#: A receiver may ask for at most this much patience.
MAX_RETRY_AFTER_S: Final = 24 * 3_600
#: What a project's channels may be told together, while its rules say nothing else.
PROJECT_BUDGET: Final = PushBudget(600, 100)
_DEFERRAL_MS: Final = 2 * clock.SECOND
_CLAIM_TRIES: Final = 8
_CHANNEL_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything the dispatcher talks to."""

    notifications: NotificationStore
    channels: ChannelStore
    routing: RoutingStore
    budgets: BudgetStore
    slots: SlotStore
    webhooks: WebhookSender
    mails: MailSender
    #: Why nobody is to hear of a transition's incident now, in one sentence, or None.
    silenced: Callable[[Transition], str | None] = lambda _: None
    clock: Callable[[], int] = clock.now_ms
    #: Uniform in [0, 1); spreads retries, nothing depends on its quality.
    chance: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers, so that tests and small deployments can compress them."""

    api_url: str = ""
    project_budget: PushBudget = PROJECT_BUDGET
    schedule: tuple[int, ...] = SCHEDULE
    lease_ms: int = LEASE_MS
    in_flight: int = IN_FLIGHT
    disable_after_ms: int = DISABLE_AFTER_MS


class Poster:
    """Puts records within the push budgets of their project and channel."""

    def __init__(
        self,
        notifications: NotificationStore,
        routing: RoutingStore,
        budgets: BudgetStore,
        project_budget: PushBudget = PROJECT_BUDGET,
        now: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._notifications, self._routing, self._budgets = notifications, routing, budgets
        self._project_budget, self._now = project_budget, now

    def post(self, record: NotificationRecord, channel: Channel) -> NotificationRecord:
        """Claims a record that is outside rules, and leaves its first attempt to the outbox; what the budget withholds
        is on record too. Posting it again answers the record as it stands.
        """
        for _ in range(_CLAIM_TRIES):
            now = self._now()
            change, due = self.admitted(replace(record, wake_at=now), channel, now)
            claim = self._notifications.claim(due, budget=change)
            if claim is Claim.WON:
                return due
            if claim is Claim.EXISTS:
                stored = self._notifications.get(due.project, due.incident_id, due.seq, due.channel_id)
                if stored is None:
                    raise Retry("a notification record disappeared")
                return stored
        raise Retry("the project's push budget is contended")

    def admitted(
        self, record: NotificationRecord, channel: Channel, now: int
    ) -> tuple[tuple[budgets.BudgetState, budgets.BudgetState] | None, NotificationRecord]:
        """The change of the budget that a pending record takes; without room, none, and the record withheld."""
        routing, state = self._routing.get(record.project) or Routing(), self._budgets.load(record.project)
        limits = {channel.id: channel.budget, budgets.PROJECT_BUCKET: routing.budget or self._project_budget}
        grant = budgets.take(state, limits, now, critical=record.tier == "critical")
        if not grant.wait_ms:
            return (state, grant.state), record
        owner = "project" if grant.bucket == budgets.PROJECT_BUCKET else "channel"
        told = f"the {owner}'s push budget has room again in {-(-grant.wait_ms // 1000)} s"
        return None, replace(record, decision="withheld", reason="budget", detail=told, wake_at=None)


class Dispatcher:
    """Notifies the channels of a project; one instance serves all projects."""

    def __init__(self, ports: Ports, policy: Policy | None = None) -> None:
        self._ports = ports
        self._policy = policy or Policy()
        self._poster = Poster(
            ports.notifications, ports.routing, ports.budgets, self._policy.project_budget, ports.clock
        )

    # the three ways in
    def handle(self, fact: Mapping[str, Any]) -> list[NotificationRecord]:
        """Notifies everybody concerned by the detail of one bus message; returns the records, new or met.

        Handling a fact again, at the same time or later, adds nothing. Kinds that cannot be notified give no
        record.
        """
        if fact.get("kind") not in KINDS:
            return []
        transition = Transition.from_fact(fact)
        routing = self._routing(transition.project)
        channels = self._ports.channels.get_all(transition.project)
        verdicts = plan(routing, channels, transition)
        if any(verdict.withheld is None for verdict in verdicts):
            silence = self._ports.silenced(transition)
            if silence:
                verdicts = [one if one.withheld else one.silenced(silence) for one in verdicts]
        return [self._notify(transition, verdict) for verdict in verdicts]

    def deliver(self, reference: Mapping[str, Any]) -> NotificationRecord | None:
        """The next attempt of a record whose outbox row was sent; None if there is no such record.

        `reference` is {project, incident_id, seq, channel_id, wake_at}. `wake_at` tells this row from earlier
        ones of the record: it is what makes an early clock here harmless, and an outdated message too.
        """
        try:
            project, incident_id = str(reference["project"]), str(reference["incident_id"])
            seq, channel_id = int(reference["seq"]), str(reference["channel_id"])
            wake_at = reference.get("wake_at")
        except (KeyError, TypeError, ValueError) as error:
            raise Refusal("ERR_SCHEMA", f"not a reference to a notification: {type(error).__name__}") from error
        record = self._ports.notifications.get(project, incident_id, seq, channel_id)
        return None if record is None else self.resume(record, called=wake_at is not None and wake_at == record.wake_at)

    def send_test(self, channel: Channel, trace_id: str) -> NotificationRecord:
        """One attempt of a test message, outside rules and budgets; the record tells what came of it."""
        now = self._ports.clock()
        record = NotificationRecord(
            project=channel.project,
            incident_id=f"test_{clock.rfc3339(now)[:10].replace('-', '')}",
            seq=now,
            kind=TEST,
            channel_id=channel.id,
            decision="pending",
            created_at=now,
            trace_id=trace_id,
            payload={
                "at": now,
                "data": {
                    "project": channel.project,
                    "channel_id": channel.id,
                    "links": self._links("channels", channel.id),
                },
            },
        )
        return self.announce(record, channel)

    def dry_run(self, project: str, fact: Mapping[str, Any], routing: Routing | None = None) -> dict[str, Any]:
        """What `handle` would decide and why, by the stored document or by a candidate; budgets are not
        consulted.
        """
        transition = Transition.from_fact({**fact, "project": project})
        return dry_run(routing or self._routing(project), self._ports.channels.get_all(project), transition)

    def announce(self, record: NotificationRecord, channel: Channel) -> NotificationRecord:
        """Claims and attempts a record that is outside rules and budgets: a digest, a test, a notice about a
        channel.
        """
        claimed = replace(record, wake_at=self._ports.clock() + self._policy.lease_ms)
        if self._ports.notifications.claim(claimed) is Claim.WON:
            return self._attempt(claimed, channel)
        return self.resume(self._stored(claimed))

    # claiming
    def _routing(self, project: str) -> Routing:
        return self._ports.routing.get(project) or Routing()

    def _notify(self, transition: Transition, verdict: Verdict) -> NotificationRecord:
        claim, record = self._claim(transition, verdict)
        if claim is Claim.EXISTS:
            return self.resume(self._stored(record))
        return record if record.finished else self._attempt(record, verdict.channel)

    def _claim(self, transition: Transition, verdict: Verdict) -> tuple[Claim, NotificationRecord]:
        channel = verdict.channel
        for attempt in range(_CLAIM_TRIES):
            now = self._ports.clock()
            record = NotificationRecord(
                project=transition.project,
                incident_id=transition.incident_id,
                seq=transition.seq,
                kind=transition.kind,
                channel_id=channel.id,
                decision="withheld",
                created_at=now,
                reason=verdict.withheld,
                detail=verdict.account,
                tier=transition.tier,
                trace_id=transition.trace_id,
                payload=self._payload(transition),
            )
            change = None
            if verdict.withheld is None:
                pending = replace(record, decision="pending", wake_at=now + self._policy.lease_ms)
                change, record = self._poster.admitted(pending, channel, now)
            claim = self._ports.notifications.claim(
                record, budget=change, note=self._note(record, transition, channel, attempt)
            )
            if claim is not Claim.RACED:
                return claim, record
        raise Retry("the project's push budget is contended")

    def _note(
        self, record: NotificationRecord, transition: Transition, channel: Channel, attempt: int
    ) -> Withheld | None:
        """The digest note of a withheld record.

        A note must be later than the end of the last digest, which another worker's clock may have put ahead
        of this one's; each lost claim therefore reaches ten times further ahead.
        """
        if record.decision != "withheld" or channel.digest == "off":
            return None
        return Withheld(
            project=record.project,
            channel_id=channel.id,
            incident_id=record.incident_id,
            seq=record.seq,
            kind=record.kind,
            tier=record.tier,
            score=float(transition.summary.get("score") or 0.0),
            title=str(transition.summary.get("title") or "")[:200],
            reason=str(record.reason),
            at=record.created_at + 10**attempt - 1,
        )

    def _payload(self, transition: Transition) -> dict[str, Any]:
        summary = dict(transition.summary)
        explanation = summary.pop("reasons", None) or (summary.get("root") or {}).get("why") or []
        return {
            "at": transition.at,
            "data": {
                "incident": {"id": transition.incident_id, "seq": transition.seq, **summary},
                "explanation": explanation,
                "links": self._links("incidents", transition.incident_id),
            },
        }

    def _links(self, family: str, name: str) -> dict[str, str]:
        base = self._policy.api_url.rstrip("/")
        return {"api": f"{base}/v1/{family}/{name}"} if base else {}

    # attempting
    def resume(self, record: NotificationRecord, *, called: bool = False) -> NotificationRecord:
        """The next attempt of a record if it is due and nobody else is at it; otherwise the record as it is.

        `called` says that its own outbox row brought it here, which makes it due whatever this clock says.
        """
        now = self._ports.clock()
        if record.finished or (not called and record.wake_at is not None and record.wake_at > now):
            return record
        channel = self._ports.channels.get(record.project, record.channel_id)
        if channel is None or not channel.enabled:
            gone = "the channel was deleted" if channel is None else "the channel is disabled"
            return self._save(record, record.step(decision="failed", reason=gone, next_at=None, wake_at=None))
        leased = record.step(wake_at=now + self._policy.lease_ms)
        if not self._ports.notifications.save(record, leased):
            return self._stored(record)
        return self._attempt(leased, channel)

    def _attempt(self, record: NotificationRecord, channel: Channel) -> NotificationRecord:
        started = self._ports.clock()
        owner = f"{record.webhook_id}#{record.version}"
        capped = channel.kind == "webhook"
        if capped and not self._ports.slots.enter(
            record.project,
            channel.id,
            owner,
            started,
            started + self._policy.lease_ms,
            self._policy.in_flight,
        ):
            due = started + self._spread(_DEFERRAL_MS << min(record.deferrals, 5))
            return self._save(
                record,
                record.step(
                    decision="retrying",
                    reason="the endpoint has its share of attempts under way",
                    deferrals=record.deferrals + 1,
                    next_at=due,
                    wake_at=due,
                ),
            )
        try:
            result = self._send(record, channel, started)
            attempt = Attempt(started, result.status, result.error, result.ms)
            return self._settle(record, channel, attempt, result)
        finally:
            if capped:
                self._ports.slots.leave(record.project, channel.id, owner)

    def _send(self, record: NotificationRecord, channel: Channel, now: int) -> SendResult:
        if channel.kind == "email":
            message = render.mail(record, channel, self._ports.mails.sender, now)
            return self._ports.mails.send(message, channel.to)
        return self._ports.webhooks.send(channel, record.webhook_id, render.webhook_body(record), now)

    def _settle(
        self, record: NotificationRecord, channel: Channel, attempt: Attempt, result: SendResult
    ) -> NotificationRecord:
        attempts = (*record.attempts, attempt)
        now = self._ports.clock()
        if result.ok:
            if channel.failing_since is not None:
                self._change_channel(channel, lambda it: replace(it, failing_since=None))
            return self._save(
                record,
                record.step(decision="delivered", reason=None, attempts=attempts, next_at=None, wake_at=None),
            )
        error = result.error or f"status {result.status}"
        delays = () if record.kind == TEST else self._policy.schedule
        since = channel.failing_since or attempt.at
        gone = result.status == 410
        exhausted = len(attempts) > len(delays)
        if gone or (record.kind != TEST and now - since >= self._policy.disable_after_ms):
            reason = (
                "the endpoint answered 410 Gone" if gone else f"no successful delivery since {clock.rfc3339(since)}"
            )
            self._change_channel(channel, lambda it: replace(it, enabled=False, disabled_reason=reason))
            self._tell_others(record, channel, reason)
            exhausted = True
        elif record.kind != TEST:
            if channel.failing_since is None:
                self._change_channel(channel, lambda it: replace(it, failing_since=it.failing_since or since))
            if exhausted:
                self._tell_others(record, channel, f"{len(attempts)} attempts failed, the last with {error}")
        if exhausted:
            ended = record.step(decision="failed", reason=error, attempts=attempts, next_at=None, wake_at=None)
            return self._save(record, ended)
        delay = self._spread(delays[len(attempts) - 1])
        asked = min(result.retry_after_s or 0, MAX_RETRY_AFTER_S) * clock.SECOND
        due = now + max(delay, asked)
        return self._save(
            record,
            record.step(decision="retrying", reason=error, attempts=attempts, next_at=due, wake_at=due),
        )

    def _spread(self, delay_ms: int) -> int:
        """The delay plus up to a fifth, so that what failed together does not return together."""
        return delay_ms + int(delay_ms * self._ports.chance() / 5)

    def _save(self, old: NotificationRecord, new: NotificationRecord) -> NotificationRecord:
        """The new record, or what another worker made of it after this one's lease ran out."""
        return new if self._ports.notifications.save(old, new) else self._stored(old)

    def _stored(self, record: NotificationRecord) -> NotificationRecord:
        stored = self._ports.notifications.get(record.project, record.incident_id, record.seq, record.channel_id)
        if stored is None:
            raise Retry("a notification record disappeared")
        return stored

    # channels that fail
    def _change_channel(self, channel: Channel, change: Callable[[Channel], Channel]) -> None:
        for _ in range(_CHANNEL_TRIES):
            current = self._ports.channels.get(channel.project, channel.id)
            if current is None:
                return
            changed = change(current)
            if changed == current:
                return
            if self._ports.channels.put(replace(changed, version=current.version + 1), current.version):
                return
        raise Retry("the channel's row is contended")

    def _tell_others(self, record: NotificationRecord, failed: Channel, reason: str) -> None:
        """One notice a day about a failing channel, through the first other channel that takes it; mail
        before webhooks. Notices fail too, but each failure takes a channel out of the list, so this ends.
        """
        now = self._ports.clock()
        for channel in _in_order(self._ports.channels.get_all(record.project)):
            if channel.id == failed.id or not channel.enabled or channel.failing_since is not None:
                continue
            notice = NotificationRecord(
                project=record.project,
                incident_id=failed.id,
                seq=int(clock.rfc3339(now)[:10].replace("-", "")),
                kind=CHANNEL_FAILED,
                channel_id=channel.id,
                decision="pending",
                created_at=now,
                tier="high",
                trace_id=record.trace_id,
                payload={
                    "at": now,
                    "data": {
                        "channel_id": failed.id,
                        "name": failed.name,
                        "reason": reason,
                        "links": self._links("channels", failed.id),
                    },
                },
            )
            if self.announce(notice, channel).decision != "failed":
                return


def _in_order(channels: Sequence[Channel]) -> list[Channel]:
    return sorted(channels, key=lambda channel: (channel.kind != "email", channel.created_at, channel.id))
