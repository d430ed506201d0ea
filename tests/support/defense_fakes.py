"""Defense's stores in memory, with the same conditions as the table, and the sample world of the defend function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support import api_fakes
from tests.support.ingest_fakes import MemoryOutbound
from tocsin.api.ports import DefenseRooms, Probing
from tocsin.defense.mitigations import Effect, Mitigation, Mitigations
from tocsin.defense.notices import MitigationHerald, Notices
from tocsin.defense.plans import Conditions, Planned, facts_of
from tocsin.defense.probes import Reply
from tocsin.defense.quarantine import Quarantine, Quarantines, opened, released
from tocsin.delivery.dispatch import Poster
from tocsin.kernel import clock
from tocsin.kernel.errors import Refusal, Retry
from tocsin.routes import EXAMPLE_MITIGATION, EXAMPLE_QUARANTINE
from tocsin.signals import scoring
from tocsin.signals.intake import Intake
from tocsin.signals.topology import Topology

ALL_WELL = Conditions(True, True, True, frozenset({"key_ofSomebody0"}), "key_ofTheCaller")


@dataclass
class QuarantineRows:
    """Implements QuarantineStore; `reads` counts, `broken` refuses."""

    lists: dict[str, tuple[int, list[Quarantine]]] = field(default_factory=dict)
    changes: list[tuple[str, str]] = field(default_factory=list)
    reads: int = 0
    broken: bool = False

    def get(self, project: str) -> tuple[int, Sequence[Quarantine]]:
        self.reads += 1
        if self.broken:
            raise Retry("the table is away")
        return self.lists.get(project, (0, []))

    def put(
        self, project: str, entries: Sequence[Quarantine], expected: int, change: tuple[str, Quarantine], now: int
    ) -> bool:
        if self.lists.get(project, (0, []))[0] != expected:
            return False
        self.lists[project] = expected + 1, list(entries)
        self.changes.append((change[0], change[1].id))
        return True


class Killed(BaseException):
    """The worker dies here."""


@dataclass
class MitigationRows:
    """Implements MitigationStore. `deaths` are numbers of saves (from 1) before which the worker dies, `before` is
    called ahead of every save.
    """

    quarantines: QuarantineRows = field(default_factory=QuarantineRows)
    rows: dict[tuple[str, str], Mitigation] = field(default_factory=dict)
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    saves: int = 0
    deaths: set[int] = field(default_factory=set)
    before: Any = None

    def get(self, project: str, mitigation_id: str) -> Mitigation | None:
        return self.rows.get((project, mitigation_id))

    def page(self, project: str, position: str | None, limit: int) -> tuple[Sequence[Mitigation], str | None]:
        found = sorted((one for (of, _), one in self.rows.items() if of == project), key=lambda one: one.id)[::-1]
        found = [one for one in found if position is None or one.id < position]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def named(self, project: str, name: str) -> Mitigation | None:
        known = self.names.get((project, name))
        return self.rows[project, known] if known else None

    def create(self, made: Mitigation, planned: Planned, instead_of: str, now: int) -> bool:
        if self.names.get((made.project, made.name), "") != instead_of:
            return False
        self.names[made.project, made.name] = made.id
        self.rows[made.project, made.id] = made
        return True

    def save(self, after: Mitigation, expected: int, effect: Effect | None, now: int) -> str:
        if self.before:
            self.before()
        self.saves += 1
        if self.saves in self.deaths:
            raise Killed
        if self.rows[after.project, after.id].version != expected:
            return "moved"
        if effect:
            try:
                self._carry_out(after, effect, now)
            except Refusal as refusal:
                return refusal.message
        self.rows[after.project, after.id] = after
        return "done"

    def _carry_out(self, made: Mitigation, effect: Effect, now: int) -> None:
        if effect.kind == "revoke":
            if effect.name in self.revoked:
                raise Refusal("ERR_NOT_FOUND", "The project has no such key, or it has ended.")
            self.revoked.append(effect.name)
        else:
            version, entries = self.quarantines.get(made.project)
            if effect.quarantine:
                after, held = opened(entries, effect.quarantine, now), effect.quarantine
            else:
                after = released(entries, effect.name, "key_x", now)
                held = next(one for one in after if one.id == effect.name)
            self.quarantines.put(made.project, after, version, (effect.kind, held), now)
        self.effects.append(effect.kind)


@dataclass
class Ears:
    """Implements Herald: remembers what was told, once each."""

    told: list[tuple[str, int, bool]] = field(default_factory=list)

    def tell(self, made: Mitigation, n: int, undo: bool, now: int) -> str:
        if (made.id, n, undo) not in self.told:
            self.told.append((made.id, n, undo))
        return "told"


def preview(project: str, events: Sequence[Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
    """Scores by the real scorer, on no history."""
    return scoring.score([scoring.prepare(dict(event), Topology.empty()) for event in events], {}, {}).events


def sample_defense(flags: Sequence[str] = ()) -> DefenseRooms:
    """The rooms of the defend function over the sample world: one quarantine, one mitigation that was applied."""
    world, now = api_fakes.sample_world(), api_fakes.NOW
    rows = MitigationRows()
    store = api_fakes.ChannelRows(world.bench.world)
    bench = world.bench.ports()
    notices = Notices(store, Poster(bench.notifications, bench.routing, bench.budgets, now=lambda: now).post)
    mitigations = Mitigations(rows, MitigationHerald(notices), lambda project, spoken, own: ALL_WELL)
    held = Quarantine(
        EXAMPLE_QUARANTINE,
        "source",
        "scanner-3",
        "floods with made-up alerts",
        now - 600_000,
        now + 1_200_000,
        f"key_{api_fakes.ASKING_KEY}",
    )
    rows.quarantines.lists[api_fakes.PROJECT] = 1, [held]
    bot = {"type": "bot", "id": "crawler-9"}
    event = api_fakes.scored(
        "ids-7",
        source="ids",
        at=clock.rfc3339(now - 300_000),
        type="attack.scan",
        title="Scan of checkout",
        entity=bot,
        severity_raw="critical",
    )
    facts = facts_of({"event_ids": [event["event_id"]]}, [event])
    made, _ = mitigations.plan(api_fakes.PROJECT, facts, f"key_{api_fakes.ASKING_KEY}", api_fakes.TRACE, now - 240_000)
    rows.rows = {(made.project, EXAMPLE_MITIGATION): replace(made, id=EXAMPLE_MITIGATION)}
    rows.names = {(made.project, made.name): EXAMPLE_MITIGATION}
    mitigations.apply(rows.rows[made.project, EXAMPLE_MITIGATION], now - 240_000)
    return DefenseRooms(
        intake=Intake(MemoryOutbound(), marks=None, protect=lambda project, one: dict(one), now=lambda: now),
        events=world.rooms.events,
        incidents=world.rooms.incidents,
        preview=preview,
        mitigations=mitigations,
        notices=notices,
        probing=lambda: Probing(
            lambda method, path, headers, body: Reply(401, "ERR_AUTH_INVALID"),
            "https://api.example/live",
            lambda at: world.access.tokens(),
            "live",
            lambda project, run_id, probe: None,
        ),
        quarantines=Quarantines(rows.quarantines),
        access=lambda: world.access,
        cursor_key=b"c" * 32,
        now=lambda: now,
        flags=flags,
    )
