"""Deciding for a project: what is remembered for how long, and that nothing is answered that was not kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.rooms.decisions.memory import Cell, Control, Log, Objects
from tests.rooms.decisions.test_invoking import NOW, REQUEST, SENT
from tocsin.decisions import contracts, policies, snapshots
from tocsin.decisions.deciding import Decider
from tocsin.decisions.ports import Decided
from tocsin.decisions.routing import Health, Service
from tocsin.kernel.errors import Retry


class World:
    def __init__(self) -> None:
        self.now = NOW
        self.control, self.log = Control(), Log()
        registry = snapshots.Registry(Objects(), Cell(), lambda: self.now)
        self.decider = Decider(registry, self.control, self.log, lambda: self.now)
        rules = [{"id": "all", "effect": "permit", "when": ["value", True]}]
        policy = policies.validate({"version": 2, "rules": rules, "profiles": dict(policies.PROFILES)})
        active = contracts.moved(contracts.validate(SENT, NOW), "active", NOW, 30_000)
        registry.publish(lambda _: snapshots.Edit(put=[active], policy=policy))

    def decided(self) -> Service | None:
        (outcome,) = self.decider.decide([REQUEST], *self.decider.world(), explain=True)
        assert self.log.get(outcome.decision_id)
        return outcome.receipt.decision


def test_a_lease_runs_out_and_comes_back_one_epoch_after_the_other() -> None:
    world = World()
    assert world.decided() == Service("a", 1)
    assert world.control.latest == Health()
    world.now += SENT["lease_ms"] + 1
    assert world.decided() is None
    assert world.control.latest == Health(1, {"a@1": "lease"})
    assert world.log.health(world.control.latest.digest) == world.control.latest.document
    world.control.beat("a@1", world.now)
    assert world.decided() is None, "what is known of services is remembered for a second"
    world.now += 1_000
    assert world.decided() == Service("a", 1)
    assert world.control.latest.epoch == 2


def test_who_loses_the_race_for_an_epoch_goes_by_the_winners() -> None:
    world, theirs = World(), Health(1, {"a@1": "lease"})
    advance = world.control.advance

    def raced(health: Health) -> bool:
        if world.control.latest.epoch == 0:
            advance(theirs)
        return advance(health)

    world.control.advance = raced  # type: ignore[method-assign]
    world.now += SENT["lease_ms"] + 1
    assert world.decided() is None
    assert world.control.latest == theirs


def test_health_that_never_stands_still_is_no_ground_to_decide_on() -> None:
    world = World()
    world.control.advance = lambda _: False  # type: ignore[method-assign]
    world.now += SENT["lease_ms"] + 1
    with pytest.raises(Retry):
        world.decided()


def test_what_cannot_be_kept_is_not_answered() -> None:
    world = World()

    def broken(batch_id: str, decided: Sequence[Decided]) -> Any:
        raise Retry("log")

    world.log.append = broken  # type: ignore[method-assign]
    with pytest.raises(Retry):
        world.decided()


def test_a_certificate_waits_for_what_it_is_made_of() -> None:
    world = World()
    (outcome,) = world.decider.decide([REQUEST], *world.decider.world(), explain=False)
    kept = world.log.together(outcome.decision_id)
    assert outcome.decision_id in world.decider.proof(kept, "short").certificates
    world.log.healths.clear()
    with pytest.raises(Retry):
        world.decider.proof(kept, "short")


def test_ones_own_change_is_in_the_latest_world() -> None:
    world = World()
    world.decided()
    other = snapshots.Registry(world.decider.registry.store, world.decider.registry.pointer, lambda: NOW)
    draft = contracts.validate({**SENT, "name": "z"}, NOW)
    other.publish(lambda _: snapshots.Edit(put=[draft]))
    assert len(world.decider.world()[0].snapshot.contracts) == 1
    assert len(world.decider.world(latest=True)[0].snapshot.contracts) == 2
