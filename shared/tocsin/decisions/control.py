"""Control: what happens between decisions. Pure steps from one state to the next; all numbers are integers.

Decisions depend on none of this directly: what control concludes goes into the health document, which is an input of
the decision and hashed with it. Each step keeps an invariant that is proved for all integers in configs/math.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tocsin.decisions.contracts import PPB, Contract, service_id
from tocsin.decisions.routing import Health

# Hysteresis


def switches(challenger: int, incumbent: int | None, margin: int) -> bool:
    """Whether to leave the incumbent of weight J for a challenger that is better by at least `margin` > 0.

    None: the incumbent is no longer admissible. While the weights' total variation is V, there are at most
    (J at the start + V) / margin switches between admissible services.
    """
    return incumbent is None or challenger + margin <= incumbent


# Circuit breaker


@dataclass(frozen=True, slots=True)
class Breaker:
    """Circuit breaker of one service (Nygard, Release It!): closed, open, or half-open with at most one probe.

    `threshold` failures in a row open it; after `cooldown_ms` one call may probe. A probe that never answers stops
    counting after `cooldown_ms` too.
    """

    threshold: int = 5
    cooldown_ms: int = 30_000
    state: str = "closed"
    failures: int = 0
    since_ms: int = 0

    def admit(self, now_ms: int) -> tuple[bool, Breaker]:
        """Whether a call may go now, and the state after."""
        if self.state == "closed":
            return True, self
        if now_ms - self.since_ms < self.cooldown_ms:
            return False, self
        return True, replace(self, state="half-open", since_ms=now_ms)

    def succeeded(self) -> Breaker:
        return replace(self, state="closed", failures=0)

    def failed(self, now_ms: int) -> Breaker:
        failures = min(self.failures + 1, self.threshold)
        if self.state == "half-open" or failures >= self.threshold:
            return replace(self, state="open", failures=failures, since_ms=now_ms)
        return replace(self, failures=failures)


# Additive increase, multiplicative decrease (Chiu and Jain 1989)


@dataclass(frozen=True, slots=True)
class Window:
    """How many calls may run at a service at once: between `least` and `most`, up by `step` after a success, down to
    `kept`/65,536 of itself after a refusal or a timeout.
    """

    least: int = 1
    most: int = 1_024
    step: int = 1
    kept: int = 32_768
    size: int = 1

    def grown(self) -> Window:
        return replace(self, size=min(self.size + self.step, self.most))

    def shrunk(self) -> Window:
        return replace(self, size=max(self.least, self.size * self.kept >> 16))


# Retry budget


@dataclass(frozen=True, slots=True)
class Retries:
    """Retry budget (as in Finagle): `per_mille` of the requests may be retried, and `burst` beyond that. So attempts
    never exceed requests * (1 + per_mille/1000) + burst, however much fails.
    """

    per_mille: int = 100
    burst: int = 10
    milli_tokens: int = 10_000

    def requested(self) -> Retries:
        return replace(self, milli_tokens=min(self.milli_tokens + self.per_mille, self.burst * 1_000))

    def retry(self) -> Retries | None:
        """The budget after a retry, or None when there is nothing left for one."""
        return replace(self, milli_tokens=self.milli_tokens - 1_000) if self.milli_tokens >= 1_000 else None


# Spending


@dataclass(frozen=True, slots=True)
class Hold:
    """Pico-USD kept for a call until it is committed, released, or `until_ms` has passed."""

    amount: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Budget:
    """Pico-USD of a project and period. Spent and held together never exceed the limit, whatever runs at once."""

    limit: int
    spent: int = 0
    holds: Mapping[str, Hold] = field(default_factory=dict)

    @property
    def held(self) -> int:
        return sum(hold.amount for hold in self.holds.values())

    def reserve(self, call: str, amount: int, until_ms: int) -> Budget | None:
        """Hold the most that a call may cost; None when it does not fit. Asking again for a call changes nothing."""
        if call in self.holds:
            return self
        if amount < 0 or self.spent + self.held + amount > self.limit:
            return None
        return replace(self, holds={**self.holds, call: Hold(amount, until_ms)})

    def commit(self, call: str, cost: int) -> Budget:
        """Spend what a call cost. More than was held counts as what was held: the contract said at most that much,
        and the difference is the owner's. A call without a hold costs nothing: it was released, expired or done.
        """
        hold = self.holds.get(call)
        if hold is None:
            return self
        return replace(self.release(call), spent=self.spent + max(0, min(cost, hold.amount)))

    def release(self, call: str) -> Budget:
        """Give back what was held for a call that did not happen."""
        return replace(self, holds={name: hold for name, hold in self.holds.items() if name != call})

    def expire(self, now_ms: int) -> Budget:
        """Spend the holds of calls that never answered: they may have happened."""
        late = [name for name, hold in self.holds.items() if hold.until_ms <= now_ms]
        budget = self
        for name in late:
            budget = budget.commit(name, self.holds[name].amount)
        return budget


# Service level monitor


#: What a monitor starts with; its capital is counted in this unit.
UNIT: Final = 10**18
#: Calls between two stakes of fresh capital.
_STAKE_EVERY: Final = 64


@dataclass(frozen=True, slots=True)
class Monitor:
    """Watches the promise "at most `error_ppb` of the calls fail or are late" by betting (e-process, Ville 1939;
    Ramdas et al. 2023), so that one may look after every call.

    `against` is the capital of somebody who bets that more calls break the promise. While the promise holds, each
    step multiplies it by something of mean at most 1, and fresh stakes add up to at most UNIT; so it ever reaches
    UNIT / α with probability at most α = `alarm_ppb`: that is the bound on quarantining an honest service, over its
    whole life. `stakes` spread the start of the bet, so that a service that turns bad late is caught as well.
    `favour` bets that fewer do; reaching UNIT / α turns the declared promise into an attested one.
    """

    error_ppb: int
    alarm_ppb: int = 10_000_000
    calls: int = 0
    against: int = UNIT // 2
    favour: int = UNIT
    verdict: str = "declared"

    @property
    def _bounds(self) -> tuple[int, int, int]:
        """Promised share, and the shares bet on from above and from below, in ppb; 0 < below < promised < above < 1."""
        promised = min(max(self.error_ppb, 10), PPB * 9 // 10)
        return promised, min(3 * promised, (PPB + promised) // 2), promised // 10

    def called(self, kept: bool) -> Monitor:
        """After one more call that kept the promise, or did not. A quarantine is for good."""
        if self.verdict == "quarantined":
            return self
        promised, above, below = self._bounds
        calls, goal = self.calls + 1, UNIT * PPB // self.alarm_ppb
        against, favour = (
            capital * (PPB - bet) // (PPB - promised) if kept else capital * bet // promised
            for capital, bet in ((self.against, above), (self.favour, below))
        )
        block, rest = divmod(calls, _STAKE_EVERY)
        if not rest:  # 1/2 + 1/2 * (1/2 + 1/6 + 1/12 + …) = 1
            against += UNIT // (2 * block * (block + 1))
        verdict = "quarantined" if against >= goal else "attested" if favour >= goal else self.verdict
        return replace(self, calls=calls, against=against, favour=min(favour, goal), verdict=verdict)


# Health


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of one service now: when its owner last called in (Unix ms), its breaker, its monitor, and of calls
    to it: how many may run, which do and until when (Unix ms), and what is left for retries.
    """

    beat_ms: int
    breaker: Breaker = Breaker()
    monitor: Monitor | None = None
    window: Window = Window(size=8)
    retries: Retries = Retries()
    running: Mapping[str, int] = field(default_factory=dict)


def health(before: Health, contracts: Iterable[Contract], watches: Mapping[str, Watch], now_ms: int) -> Health:
    """The health document now: the one before when nothing changed, else with the next epoch.

    A service is down when it is quarantined, when its breaker does not admit calls, or when it has not called in for
    longer than its lease; one without a watch has never called in.
    """
    down: dict[str, str] = {}
    attested = frozenset[str]()
    for contract in contracts:
        name = service_id(contract)
        watch = watches.get(name)
        if watch is None or now_ms - watch.beat_ms > contract["lease_ms"]:
            down[name] = "lease"
        elif watch.monitor and watch.monitor.verdict == "quarantined":
            down[name] = "quarantined"
        elif not watch.breaker.admit(now_ms)[0]:
            down[name] = "breaker"
        elif watch.monitor and watch.monitor.verdict == "attested":
            attested |= {name}
    if down == before.down and attested == before.attested:
        return before
    return Health(before.epoch + 1, down, attested)
