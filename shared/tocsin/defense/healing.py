"""The supervisor: looks at everything that can stop quietly, repairs what it safely can, and asks people for
the rest.

An explicit state (a mapping says Disabled, a dead-letter queue holds something) is acted on at first sight. What is
judged from measurements must be bad in 3 of the last 5 looks. Who helps is a decision with a certificate
(tocsin.defense.repairing). Each target gets at most 3 repairs in 10 minutes, then people are told instead; dead letters
are sent back once, and what comes back stays. A look that fails says nothing about its target: it is never a reason to
repair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from tocsin.defense.ports import (
    EventSink,
    HealingLog,
    Json,
    Memory,
    MemoryStore,
    Repairs,
    Surroundings,
)
from tocsin.defense.repairing import PAGE, Choice, choose, healers
from tocsin.kernel import clock
from tocsin.kernel.errors import Retry
from tocsin.kernel.ids import new_id

SOURCE: Final = "tocsin.supervisor"
#: Depths of a dead-letter queue at which people are told, and told again.
PARKED_LEVELS: Final = (1, 100, 10_000)
#: A tick that waited longer than this (its queue's mapping was off) is dropped: the ticks behind it do the
#: same work.
STALE_TICK_MS: Final = 30 * clock.SECOND
#: Queues that get ticks all the time.
TICKED: Final = ("relay", "supervise")
#: Workers that are woken by a tick when they are silent.
WOKEN: Final = ("relay", "seal")
_FORGET_MS: Final = clock.DAY
#: Dead letters of one queue that one run sends back.
REPLAYED: Final = 100


def is_stale(message: Mapping[str, Any], now: int) -> bool:
    """Whether a queue message is a tick that is too old to matter."""
    tick = message.get("tick")
    return isinstance(tick, Mapping) and isinstance(tick.get("at"), int) and now - tick["at"] > STALE_TICK_MS


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of the supervisor; times in ms. `tick_seconds` 0 leaves only the one-minute schedule.

    `silence_ms` is how old the last run of a periodic worker may be, by name.
    """

    tick_seconds: int = 5
    repairs: int = 3
    window_ms: int = 10 * clock.MINUTE
    looks: int = 5
    bad_looks: int = 3
    depth_every_ms: int = 15 * clock.SECOND
    lag_ms: int = 10 * clock.SECOND
    stall_ms: int = 30 * clock.SECOND
    lease_grace_ms: int = 3 * clock.SECOND
    projects: int = 200
    silence_ms: Mapping[str, int] = field(
        default_factory=lambda: {
            "relay": 3 * clock.MINUTE,
            "seal": 3 * clock.MINUTE,
            "digest": 130 * clock.MINUTE,
        }
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a target now. Without a `repair` (and its name, `action`) only people can
    help.

    `since` is when it began, as far as known. `settle_ms` is how long a repair is given before the next one.
    A higher `level` of the same finding is told again.
    """

    target: str
    finding: str
    text: str
    severity: str
    since: int | None = None
    action: str = "page"
    repair: Callable[[], object] | None = None
    settle_ms: int = 0
    level: int = 1


@dataclass(slots=True)
class Look:
    """One probe's answer: the targets it could judge, and what is wrong with some of them."""

    seen: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What one run did. `busy`: another run was under way, so nothing was looked at."""

    busy: bool = False
    findings: int = 0
    repaired: int = 0
    paged: int = 0
    healed: int = 0
    ticks: int = 0
    unheard: int = 0

    def as_json(self) -> dict[str, int | bool]:
        """For the log line of a run."""
        return {name: getattr(self, name) for name in self.__slots__}


class Supervisor:
    """Runs every few seconds; what it must remember between runs is in the memory store."""

    def __init__(
        self,
        surroundings: Surroundings,
        repairs: Repairs,
        store: MemoryStore,
        log: HealingLog,
        events: EventSink,
        policy: Policy,
    ) -> None:
        self._around = surroundings
        self._repairs = repairs
        self._store = store
        self._log = log
        self._events = events
        self._policy = policy

    def run(self, now: int, *, scheduled: bool = False) -> Report:
        """Look once, act, and remember. A `scheduled` run (the one-minute one) also enqueues the minute's
        ticks.
        """
        memory = self._store.take(now)
        if memory is None:
            # Ticks that come twice do no harm; ticks that do not come would leave a minute without eyes.
            return Report(busy=True, ticks=self._tick(Memory(), now) if scheduled else 0)
        report = Report()
        try:
            if scheduled:
                report.ticks = self._tick(memory, now)
            look = self._look(memory, now)
            report.findings = len(look.findings)
            for finding in look.findings:
                self._act(memory, finding, now, report)
            self._close(memory, look, now, report)
            self._tidy(memory, now)
        finally:
            self._store.give_back(memory)
        return report

    # ticks
    def _tick(self, memory: Memory, now: int) -> int:
        end = now + clock.MINUTE
        step = self._policy.tick_seconds * clock.SECOND
        first = memory.ticked_until if now < memory.ticked_until <= end else now
        times = list(range(first, end, step)) if step else [now]
        delays = [(at - now) // clock.SECOND for at in times]
        if delays:
            for queue in TICKED if step else ("relay",):
                self._repairs.tick(queue, delays, now)
            memory.ticked_until = times[-1] + (step or clock.MINUTE)
        return len(delays)

    # looking
    def _look(self, memory: Memory, now: int) -> Look:
        probes: dict[str, Callable[[], Look]] = {
            "mappings": self._mappings,
            "schedules": self._schedules,
            "workers": partial(self._workers, now),
            "projects": partial(self._projects, memory, now),
            "leases": partial(self._leases, memory, now),
            "dead letters": partial(self._dead_letters, memory, now),
        }
        if now - memory.depth_at >= self._policy.depth_every_ms:
            memory.depth_at = now
            probes["queues"] = partial(self._queues, memory, now)
        whole = Look()
        for name, probe in probes.items():
            target = f"probe {name}"
            whole.seen.add(target)
            reason = ""
            try:
                found = probe()
                whole.seen |= found.seen
                whole.findings += found.findings
            except Retry as error:
                reason = error.reason
            if self._bad(memory, target, bool(reason)):
                text = f"the supervisor cannot see {name}: {reason or 'no answer in most of the last looks'}"
                whole.findings.append(Finding(target, "unreadable", text, "warning"))
        return whole

    def _bad(self, memory: Memory, target: str, sample: bool) -> bool:
        """Add a judgement of a target; whether enough of the last ones are bad."""
        samples = [*memory.samples.get(target, ()), sample][-self._policy.looks :]
        memory.samples[target] = samples
        return samples.count(True) >= self._policy.bad_looks

    def _mappings(self) -> Look:
        look = Look()
        for mapping in self._around.mappings():
            target = f"mapping {mapping.name}"
            look.seen.add(target)
            if mapping.state == "Disabled":
                text = f"the event source mapping of {mapping.name} is disabled: its queue is not read"
                enable = partial(self._repairs.enable_mapping, mapping)
                found = Finding(target, "disabled", text, "error", mapping.changed_at, "enable", enable)
                look.findings.append(found)
            elif mapping.state == "Missing":
                text = f"{mapping.name} has no event source mapping: deploy the stack again"
                look.findings.append(Finding(target, "missing", text, "error"))
        return look

    def _schedules(self) -> Look:
        look = Look()
        for rule in self._around.schedules():
            target = f"schedule {rule.name}"
            look.seen.add(target)
            if rule.state == "DISABLED":
                text = f"the rule {rule.name} is disabled: nothing comes from it"
                enable = partial(self._repairs.enable_schedule, rule)
                look.findings.append(Finding(target, "disabled", text, "error", action="enable", repair=enable))
            elif rule.state == "MISSING":
                text = f"there is no rule {rule.name}: deploy the stack again"
                look.findings.append(Finding(target, "missing", text, "error"))
        return look

    def _workers(self, now: int) -> Look:
        look = Look()
        beats = self._around.beats()
        for name, limit in self._policy.silence_ms.items():
            if name not in beats:
                continue
            target = f"worker {name}"
            look.seen.add(target)
            age = now - beats[name]
            if age <= limit:
                continue
            can_tick = name in WOKEN
            look.findings.append(
                Finding(
                    target,
                    "silent",
                    f"{name} has not finished a run for {age // clock.SECOND} s",
                    "warning",
                    since=beats[name] + limit,
                    action="tick" if can_tick else "page",
                    repair=partial(self._repairs.tick, name, [0], now) if can_tick else None,
                    settle_ms=30 * clock.SECOND,
                )
            )
        return look

    def _projects(self, memory: Memory, now: int) -> Look:
        look = Look()
        lags, memory.position = self._around.lags(memory.position, self._policy.projects)
        for lag in lags:
            target = f"project {lag.project}"
            look.seen.add(target)
            behind = lag.head - lag.next + 1
            if behind <= 0:
                memory.since.pop(target, None)
                memory.numbers.pop(target, None)
                continue
            if memory.numbers.get(target) != lag.next:  # it moved since the last look: it is busy, not stuck
                memory.numbers[target] = lag.next
                memory.since[target] = now
            since = memory.since[target]
            if now - since > self._policy.lag_ms:
                look.findings.append(
                    Finding(
                        target,
                        "behind",
                        f"correlation of {lag.project} is {behind} commits behind its log and does not move",
                        "notice",
                        since=since,
                        action="wake",
                        repair=partial(self._repairs.wake, lag.project),
                        settle_ms=20 * clock.SECOND,
                    )
                )
        return look

    def _leases(self, memory: Memory, now: int) -> Look:
        # A lease that is not there any more was let go.
        look = Look(seen={target for target in memory.open if target.startswith("lease ")})
        for lease in self._around.leases():
            target = f"lease {lease.name}"
            look.seen.add(target)
            if now - lease.until > self._policy.lease_grace_ms:
                look.findings.append(
                    Finding(
                        target,
                        "stuck",
                        f"{lease.holder} holds {lease.name} past its end and is gone",
                        "warning",
                        since=lease.until,
                        action="release",
                        repair=partial(self._repairs.release, lease),
                    )
                )
        return look

    def _queues(self, memory: Memory, now: int) -> Look:
        look = Look()
        for name, depth in self._around.queues().items():
            target = f"queue {name}"
            look.seen.add(target)
            before = memory.numbers.get(target, 0)
            memory.numbers[target] = depth.visible
            if depth.visible == 0:
                memory.since.pop(target, None)
            since = memory.since.setdefault(target, now) if depth.visible else now
            # Nobody has a message in hand and none left since the last look.
            stands_still = depth.visible >= before > 0 and depth.in_flight == 0
            if self._bad(memory, target, stands_still) and now - since >= self._policy.stall_ms:
                waited = (now - since) // clock.SECOND
                text = f"{depth.visible} messages wait in {name} and none was taken for about {waited} s"
                look.findings.append(Finding(target, "stalled", text, "error", since=since))
        return look

    def _dead_letters(self, memory: Memory, now: int) -> Look:
        look = Look()
        for name, depth in self._around.dead_letters().items():
            target = f"dead-letters {name}"
            look.seen.add(target)
            held = depth.visible + depth.in_flight
            if held:
                level = sum(held >= one for one in PARKED_LEVELS)
                text = f"{name} gave up {held} messages; see tocsin dead-letters list {name}"
                # What was given up after the first replay began is what that replay sent, or as bad.
                before = memory.replayed.get(target, now)
                replay = partial(self._repairs.replay, name, REPLAYED, before)
                look.findings.append(Finding(target, "parked", text, "error", None, "replay", replay, level=level))
        return look

    # acting
    def _act(self, memory: Memory, finding: Finding, now: int, report: Report) -> None:
        episode = memory.open.get(finding.target)
        if episode is None or episode["finding"] != finding.finding:
            episode = memory.open[finding.target] = _episode(finding, now)
        episode["seen_at"] = now
        recent = memory.repairs.get(finding.target, [])
        spent = len(recent) >= self._policy.repairs or finding.target in memory.spent
        episode["down"] = {} if finding.action == PAGE or not spent else {finding.action: "spent"}
        episode["hand"] = PAGE if finding.repair is None else finding.action
        healer = _choice(episode).healer
        if healer == PAGE:
            self._page(memory, episode, finding, now, report)
        elif not recent or now - recent[-1] >= finding.settle_ms:
            memory.repairs[finding.target] = [*recent, now]
            self._repair(memory, episode, finding, now, report)
        self._tell(episode, finding, now, report)

    def _record(self, episode: Json) -> None:
        """Keep the episode's record with the certificate of its last decision, which memory need not hold."""
        self._log.record({**episode["record"], "decision": _choice(episode).proof()})

    def _repair(self, memory: Memory, episode: Json, finding: Finding, now: int, report: Report) -> None:
        record = episode["record"]
        record["attempts"] += 1
        try:
            assert finding.repair is not None
            done = finding.repair()
        except Retry as error:
            record["outcome"], record["reason"] = "failed", error.reason
        else:
            record["outcome"] = "repaired"
            record.pop("reason", None)
            report.repaired += 1
            if finding.action == "replay":
                memory.replayed.setdefault(finding.target, now)
                record["text"] = f"{finding.text}; {done} were sent back, once"
                if not done:
                    memory.spent[finding.target] = now
        self._record(episode)

    def _page(self, memory: Memory, episode: Json, finding: Finding, now: int, report: Report) -> None:
        """Tell people, once per episode and level; a target that flaps is told of once per window."""
        told_at = memory.paged.get(finding.target)
        if finding.level <= episode["paged"]:
            return
        episode["paged"] = finding.level
        record = episode["record"]
        record["text"] = finding.text
        if record["outcome"] != "found":
            record["text"] += f"; {record['attempts']} repairs did not last"
        elif finding.repair is not None:
            record["text"] += "; it was repaired too often lately"
        record["outcome"], record["action"] = "paged", PAGE
        self._record(episode)
        if finding.level == 1 and told_at is not None and now - told_at < self._policy.window_ms:
            episode["told"] = finding.level
            return
        memory.paged[finding.target] = now
        episode["told"] = 0
        report.paged += 1

    def _tell(self, episode: Json, finding: Finding, now: int, report: Report) -> None:
        """Raise an event for what was done or could not be done. What was not taken is tried again by the
        next run.
        """
        level = max(episode["paged"], 1)
        record = episode["record"]
        if episode["told"] >= level or record["outcome"] == "found":
            return
        severity = "critical" if record["outcome"] == "paged" and finding.severity == "error" else finding.severity
        try:
            self._events.send(_event(record, finding.text, severity, "firing", level), now)
        except Retry:
            report.unheard += 1
            return
        episode["told"], episode["severity"] = level, severity

    def _close(self, memory: Memory, look: Look, now: int, report: Report) -> None:
        """End the episodes of targets that were seen and have nothing wrong any more."""
        wrong = {finding.target for finding in look.findings}
        for target in [one for one in memory.open if one in look.seen and one not in wrong]:
            episode = memory.open.pop(target)
            record = episode["record"]
            record["healed_at"] = clock.rfc3339(now)
            record["outcome"] = "healed" if record["outcome"] in ("repaired", "failed") else "cleared"
            record["healed_after_ms"] = now - episode["at"]
            self._record(episode)
            report.healed += 1
            if episode["told"]:
                text = f"{target} is well again"
                try:
                    self._events.send(_event(record, text, episode["severity"], "resolved", 1), now)
                except Retry:
                    report.unheard += 1

    def _tidy(self, memory: Memory, now: int) -> None:
        """Keep the memory as small as what is wrong."""
        first = now - self._policy.window_ms
        memory.samples = {name: samples for name, samples in memory.samples.items() if any(samples)}
        memory.repairs = _kept({name: [at for at in times if at > first] for name, times in memory.repairs.items()})
        memory.paged = {name: at for name, at in memory.paged.items() if at > first}
        memory.replayed = {name: at for name, at in memory.replayed.items() if now - at < _FORGET_MS}
        memory.spent = {name: at for name, at in memory.spent.items() if now - at < _FORGET_MS}
        memory.numbers = {name: n for name, n in memory.numbers.items() if n}
        memory.open = {name: one for name, one in memory.open.items() if now - one["seen_at"] < _FORGET_MS}


def _choice(episode: Json) -> Choice:
    """Who helps: of all healers only the one that has a hand on this target, while it is not spent, and people."""
    record = episode["record"]
    hand, down = episode.get("hand", PAGE), episode.get("down", {})
    unable = {name: "unable" for name in healers() if name not in (hand, PAGE)}
    return choose(record["target"].partition(" ")[0], record["finding"], {**unable, **down})


def _kept(lists: Mapping[str, list[int]]) -> dict[str, list[int]]:
    return {name: items for name, items in lists.items() if items}


def _episode(finding: Finding, now: int) -> Json:
    record: Json = {
        "id": new_id("heal", now),
        "at": clock.rfc3339(now),
        "target": finding.target,
        "finding": finding.finding,
        "action": finding.action,
        "outcome": "found",
        "attempts": 0,
        "text": finding.text,
    }
    if finding.since is not None:
        record["detected_after_ms"] = max(0, now - finding.since)
    return {
        "finding": finding.finding,
        "at": now,
        "seen_at": now,
        "paged": 0,
        "told": 0,
        "severity": finding.severity,
        "hand": PAGE,
        "down": {},
        "record": record,
    }


def _event(record: Mapping[str, Any], text: str, severity: str, status: str, level: int) -> Json:
    """A CES event without what the pipeline sets. Its id names the step of the episode: a repeat is a
    duplicate.
    """
    kind, _, name = str(record["target"]).partition(" ")
    title = f"{record['target']}: {record['finding']}"
    return {
        "id": f"{record['id']}.{record['outcome']}{level}",
        "source": SOURCE,
        "type": f"tocsin.{kind}.{record['finding']}",
        "title": f"{title}, {record['outcome']}",
        "body": text,
        "entity": {"type": kind, "id": name or kind},
        "tags": {"service": "tocsin", "action": str(record["action"]), "outcome": str(record["outcome"])},
        "metrics": {"attempts": record["attempts"]},
        "severity_raw": severity,
        "status": status,
        "dedup_key": f"{SOURCE}|{record['target']}|{record['finding']}"[:128],
    }
