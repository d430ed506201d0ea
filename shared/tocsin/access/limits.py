"""Limits: how often a key may ask, how many events a project may send, and how often a source may fail.

The rate limits are the generic cell rate algorithm (GCRA; ITU-T I.371, "virtual scheduling") in integer
microseconds. A bucket keeps one number, the theoretical arrival time `tat`, at which the next free cell starts;
cells start `interval_us` apart. A process leases several cells with one write and spends them from memory.
A cell that starts at s may be spent at any time t with

    s - reach <= t <= s + hold,   reach + hold = (burst - 1) * interval

so the cells spent within any time of length d have starts within d + reach + hold: at most burst + d / interval
of them, however many processes hold leases. Clocks that differ by at most e widen that window by e, which is
the whole price of skew: at most e / interval cells more. Leases that are not spent in time are lost, never saved up.
"""

from __future__ import annotations

import hashlib
import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tocsin.access.ports import Advance, FailureStore, LimitStore
from tocsin.access.principals import Principal
from tocsin.access.projects import Project, Quota
from tocsin.kernel.errors import Detail, Refusal, Retry
from tocsin.kernel.http import Request

SECOND_US: Final = 1_000_000
#: Buckets that a process remembers; the least recently used is forgotten, which loses its unspent lease.
MAX_BUCKETS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` cells in the long run, at most `burst` at once: half of it from a standing start, the rest
    covers what processes hold in leases.
    """

    per_second: int
    burst: int

    def __post_init__(self) -> None:
        if not 1 <= self.per_second <= SECOND_US or not 1 <= self.burst <= SECOND_US:
            raise ValueError("per_second and burst must be 1 to 1,000,000")

    @property
    def interval_us(self) -> int:
        """Emission interval, rounded up, so that the rate is never exceeded."""
        return -(-SECOND_US // self.per_second)

    @property
    def hold_us(self) -> int:
        """How long after its start a leased cell stays good."""
        return (self.burst - 1) * self.interval_us // 2

    @property
    def reach_us(self) -> int:
        """How far ahead of now a cell may start."""
        return (self.burst - 1) * self.interval_us - self.hold_us

    @property
    def largest_lease(self) -> int:
        return max(1, self.reach_us // (2 * self.interval_us))

    @property
    def step(self) -> int:
        """Cells that must be free again before a refused caller is let in: about a second's worth, so that a
        saturated bucket is written once per step and not once per cell."""
        return max(1, min(self.largest_lease // 4, self.per_second))


@dataclass(frozen=True, slots=True)
class Grant:
    """What was granted of each class, and the wait in µs until a refused cell may be there (0: none refused)."""

    urgent: int
    ordinary: int
    wait_us: int
    writes: int = 0


def advance(tat_us: int, by_us: int, now_us: int, latest_us: int) -> tuple[bool, int]:
    """The bucket's arithmetic, for stores in memory: (taken, tat after it or as it is)."""
    start = max(tat_us, now_us)
    return (True, start + by_us) if start <= latest_us else (False, tat_us)


@dataclass(slots=True)
class _Bucket:
    """What one process knows of one bucket. `start` is where the first unspent leased cell starts."""

    start: int = 0
    cells: int = 0
    size: int = 1
    leased: int = 0
    spoiled: int = 0
    tat: int = 0
    urgent_shut: int = 0
    ordinary_shut: int = 0
    saturated: bool = False

    def expire(self, rate: Rate, now: int) -> None:
        """Give up leased cells whose time is over."""
        late = now - rate.hold_us - self.start
        if self.cells and late > 0:
            gone = min(self.cells, -(-late // rate.interval_us))
            self.start += gone * rate.interval_us
            self.cells -= gone
            self.spoiled += gone

    def spend(self, rate: Rate, wanted: int) -> int:
        taken = min(self.cells, wanted)
        self.start += taken * rate.interval_us
        self.cells -= taken
        return taken

    def resize(self, rate: Rate) -> None:
        """Lease twice as much after a lease that was spent whole, what was spent after one that was not."""
        if self.spoiled:
            self.size = max(1, self.leased - self.spoiled)
        elif self.leased:
            self.size = min(rate.largest_lease, max(self.size, self.leased) * 2)
        self.leased = self.spoiled = 0


class Limiter:
    """GCRA with leases over a shared store. Safe for threads; `now_us` is Unix time in µs.

    When the store cannot answer, the process goes on with the last `tat` it knew: the limit then holds per
    process instead of overall, and nobody is turned away because a counter is.
    """

    def __init__(self, store: LimitStore, now_us: Callable[[], int], size: int = MAX_BUCKETS) -> None:
        self._store, self._now_us, self._size = store, now_us, size
        self._buckets: OrderedDict[tuple[str, str, Rate], _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def take(
        self, project: str, name: str, rate: Rate, *, urgent: int = 0, ordinary: int = 0, reserved: int = 0
    ) -> Grant:
        """As many of the cells asked for as the limit allows now, urgent ones first.

        `reserved` percent of the reach is for urgent cells alone: ordinary ones are refused while the bucket
        is that close to full, so that under any load urgent ones are refused last.
        """
        with self._lock:
            now = self._now_us()
            bucket = self._bucket(project, name, rate)
            bucket.expire(rate, now)
            writes, near = 0, rate.reach_us * (100 - reserved) // 100
            granted_urgent = bucket.spend(rate, urgent)
            if granted_urgent < urgent and now >= bucket.urgent_shut:
                reaches = (near, rate.reach_us)
                left = urgent - granted_urgent
                writes += self._lease(project, name, rate, bucket, left, left + ordinary, reaches, now)
                granted_urgent += bucket.spend(rate, left)
                if granted_urgent < urgent:
                    bucket.urgent_shut = self._free_at(rate, bucket, rate.reach_us, now)
            granted = bucket.spend(rate, ordinary)
            if granted < ordinary and now >= bucket.ordinary_shut:
                left = ordinary - granted
                writes += self._lease(project, name, rate, bucket, left, left, (near, near), now)
                granted += bucket.spend(rate, left)
                if granted < ordinary:
                    bucket.ordinary_shut = self._free_at(rate, bucket, near, now)
            wait = 0
            if granted_urgent < urgent:
                wait = max(bucket.urgent_shut - now, 1)
            elif granted < ordinary:
                wait = max(bucket.ordinary_shut - now, 1)
            return Grant(granted_urgent, granted, wait, writes)

    def _bucket(self, project: str, name: str, rate: Rate) -> _Bucket:
        key = (project, name, rate)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket()
            if len(self._buckets) > self._size:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket

    def _lease(
        self,
        project: str,
        name: str,
        rate: Rate,
        bucket: _Bucket,
        needed: int,
        wished: int,
        reaches: tuple[int, int],
        now: int,
    ) -> int:
        """Lease cells into an empty bucket; returns the writes tried. What is wished for and some ahead within
        the near reach; what is needed within the far one when that is more.
        """
        bucket.resize(rate)
        near, far = reaches
        writes = 0
        for _ in range(2):
            # tat only ever grows, so what is known of it tells the most that can be had; a failed try tells it anew
            room, wish = self._room(rate, bucket, near, now), max(wished, bucket.size)
            ahead = 0 if bucket.saturated and room < rate.step else min(wish, room)
            least = min(needed, self._room(rate, bucket, far, now)) if far > near else 0
            cells, reach = (ahead, near) if ahead >= least else (least, far)
            if cells < 1:
                break
            answer = self._ask(project, name, rate, bucket, cells, now, reach)
            writes += answer.writes
            if answer.taken:
                bucket.saturated = bucket.saturated and cells < wish
                break
        return writes

    @staticmethod
    def _room(rate: Rate, bucket: _Bucket, reach: int, now: int) -> int:
        """Cells that fit now as far as is known; never fewer than there are."""
        return max(0, (now + reach - max(bucket.tat, now)) // rate.interval_us + 1)

    def _ask(self, project: str, name: str, rate: Rate, bucket: _Bucket, cells: int, now: int, reach: int) -> Advance:
        by, latest = cells * rate.interval_us, now + reach - (cells - 1) * rate.interval_us
        try:
            answer = self._store.advance(project, name, by, now, latest, bucket.tat)
        except Retry:
            answer = Advance(*advance(bucket.tat, by, now, latest))
        bucket.tat = answer.tat_us
        if answer.taken:
            bucket.start, bucket.cells, bucket.leased = answer.tat_us - by, cells, cells
        return answer

    @staticmethod
    def _free_at(rate: Rate, bucket: _Bucket, reach: int, now: int) -> int:
        """When `step` cells fit again; until a lease is had in full, fewer are not worth a write."""
        bucket.saturated = True
        step = min(rate.step, reach // rate.interval_us + 1)
        return max(now, bucket.tat + (step - 1) * rate.interval_us - reach)


def retry_after(wait_us: int) -> str:
    """Retry-After header: whole seconds, at least 1."""
    return str(max(1, -(-wait_us // SECOND_US)))


def _limited(message: str, wait_us: int, rule: str) -> Refusal:
    after = retry_after(wait_us)
    detail = Detail("(request)", rule, f"wait {after} s and send it again, with backoff")
    return Refusal("ERR_RATE_LIMITED", message, [detail], {"Retry-After": after})


class RequestLimit:
    """Requests per second of one key, checked before anything of the request but its credential is read."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def check(self, principal: Principal, quota: Quota) -> None:
        """Refuse 429 ERR_RATE_LIMITED with Retry-After when the key asks too often."""
        rate = Rate(quota.requests_per_second, quota.requests_burst)
        grant = self._limiter.take(principal.project, f"requests#{principal.key_id}", rate, ordinary=1)
        if not grant.ordinary:
            raise _limited("The key sends more requests than it may.", grant.wait_us, "request-rate")


class EventQuota:
    """Events per second of one project. Over the quota single items of a batch are refused, firing ones last."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def decide(self, project: str, urgent: Sequence[bool], quota: Quota) -> list[Refusal | None]:
        """One entry per event, in order: None when it may pass, else its refusal (429 ERR_RATE_LIMITED).

        `urgent` tells for each event whether it may draw on the share that is kept for firing ones.
        """
        rate = Rate(quota.events_per_second, quota.events_burst)
        grant = self._limiter.take(
            project,
            "events",
            rate,
            urgent=sum(urgent),
            ordinary=len(urgent) - sum(urgent),
            reserved=quota.firing_share_percent,
        )
        over = _limited("The project's event quota is used up.", grant.wait_us, "event-quota")
        left = {True: grant.urgent, False: grant.ordinary}
        decided: list[Refusal | None] = []
        for kind in urgent:
            decided.append(None if left[kind] else over)
            left[kind] = max(0, left[kind] - 1)
        return decided


@dataclass(slots=True)
class _Source:
    since: float
    failures: int = 0
    unsent: int = 0
    shut_until: float = 0.0


#: Refusals that count as a failed try. Whoever is told that a key has ended or a request was sent before has proved the
#: secret, and a forgotten job with an old key must not shut out its neighbours; the others are judged without a guess.
FAILURES: Final = frozenset({"ERR_AUTH_INVALID", "ERR_SIG_INVALID"})


class Brake:
    """Brute-force brake: after `most` failed tries within 60 s a source is refused for 60 s, unread.

    A source is an IPv4 address or an IPv6 /64, as the front saw it; what a request says of itself does not
    count. Every `batch`-th failure of a source is written, so that other processes learn of it: at most one
    write per `batch` failures, none while the source is shut, and with n processes at most
    most + n * (batch - 1) tries. Memory is bounded on both sides: `size` sources and `size` proven credentials.
    A credential that this process saw proven within ten minutes still passes from a shut source, so that
    somebody behind the same address translator cannot lock its owner out.
    """

    WINDOW_S: Final = 60.0
    PROVEN_S: Final = 600.0

    def __init__(
        self, store: FailureStore, now_s: Callable[[], float], most: int = 20, batch: int = 5, size: int = 4_096
    ) -> None:
        if not 1 <= batch <= most:
            raise ValueError("batch must be 1 to most")
        self._store, self._now_s, self._most, self._batch, self._size = store, now_s, most, batch, size
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._proven: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, address: str, credential: str) -> None:
        """Refuse 429 ERR_RATE_LIMITED while the source is shut, without reading anything."""
        with self._lock:
            now, source = self._now_s(), self._sources.get(source_of(address))
            if source is None or now >= source.shut_until:
                return
            if now - self._proven.get(_fold(credential), -self.PROVEN_S) < self.PROVEN_S:
                return
            wait = int((source.shut_until - now) * SECOND_US)
        raise _limited("Too many failed tries from this address.", wait, "failed-tries")

    def failed(self, address: str) -> None:
        """Note a failed try."""
        with self._lock:
            now, name = self._now_s(), source_of(address)
            source = self._sources.get(name)
            if source is None or now - source.since >= self.WINDOW_S:
                source = self._sources[name] = _Source(now)
                if len(self._sources) > self._size:
                    self._sources.popitem(last=False)
            self._sources.move_to_end(name)
            source.failures += 1
            source.unsent += 1
            if source.unsent >= self._batch:
                count, source.unsent = source.unsent, 0
                try:
                    total = self._store.add(name, int(now // self.WINDOW_S), count)
                except Retry:
                    total = 0  # this process's own count still holds
                source.failures = max(source.failures, total)
            if source.failures >= self._most:
                source.shut_until = now + self.WINDOW_S

    def proved(self, credential: str) -> None:
        """Note a credential that was good."""
        with self._lock:
            key = _fold(credential)
            self._proven[key] = self._now_s()
            self._proven.move_to_end(key)
            if len(self._proven) > self._size:
                self._proven.popitem(last=False)


def _fold(credential: str) -> bytes:
    """What is remembered of a credential; never the text."""
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()


def source_of(address: str) -> str:
    """The source an address stands for: itself for IPv4, its /64 for IPv6, "?" for what is no address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "?"
    if parsed.version == 6:
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False).network_address) + "/64"
    return str(parsed)


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to prove who calls: whether a request uses it, what stands for the credential, and the proof."""

    used_by: Callable[[Request], bool]
    credential: Callable[[Request], str]
    authenticate: Callable[[Request], Principal]


class Gate:
    """The way in, the same for every keyed route: brake, credential, project, request limit, quarantine; in this order.

    `schemes` are tried for use in their order; exactly one may be used by a request, else 400
    ERR_AUTH_AMBIGUOUS. The last one is the default, for requests that use none. `narrow` returns the principal
    with what its person may do now, `admit` refuses who is kept out for a while. `used` notes that a key was used.
    """

    def __init__(
        self,
        schemes: Sequence[Scheme],
        brake: Brake,
        requests: RequestLimit,
        project_of: Callable[[str], Project],
        narrow: Callable[[Principal], Principal],
        used: Callable[[Principal], None],
        admit: Callable[[Principal], None] = lambda _: None,
    ) -> None:
        self._schemes, self._brake, self._requests = schemes, brake, requests
        self._project_of, self._narrow, self._used, self._admit = project_of, narrow, used, admit

    def principal_of(self, request: Request) -> Principal:
        """The caller. Raises Refusal: 400 ERR_AUTH_AMBIGUOUS, 401 ERR_AUTH_* or ERR_SIG_*, 403 and 410 for the
        project's state, 403 for a key in quarantine, 429 ERR_RATE_LIMITED.
        """
        using = [scheme for scheme in self._schemes if scheme.used_by(request)]
        if len(using) > 1:
            raise Refusal("ERR_AUTH_AMBIGUOUS", "The request carries credentials of several kinds; send one.")
        scheme = using[0] if using else self._schemes[-1]
        credential = scheme.credential(request)
        self._brake.check(request.source_ip, credential)
        try:
            principal = scheme.authenticate(request)
        except Refusal as refusal:
            if refusal.code in FAILURES:
                self._brake.failed(request.source_ip)
            raise
        self._brake.proved(credential)
        project = self._project_of(principal.project)
        self._requests.check(principal, project.quota)
        self._admit(principal)
        principal = self._narrow(principal)
        self._used(principal)
        return principal


def trickle(limiter: Limiter, project: str, name: str, per_second: int) -> Refusal | None:
    """One event of something that is let through slowly: None when it may pass, else 429 ERR_RATE_LIMITED."""
    grant = limiter.take(project, name, Rate(per_second, 2 * per_second), ordinary=1)
    return None if grant.ordinary else _limited("This is let through slowly for now.", grant.wait_us, "quarantine-rate")
