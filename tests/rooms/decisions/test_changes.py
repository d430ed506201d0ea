"""Changes while decisions run: what is refused, and that no decision ever names a service that is gone."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tools import checker

from tests.rooms.decisions import samples
from tests.rooms.decisions.memory import Cell, Objects
from tests.rooms.decisions.test_contracts import SENT
from tests.rooms.decisions.test_routing import OPEN
from tests.rooms.decisions.test_snapshots import Time
from tocsin.decisions import certificates, changes, contracts
from tocsin.decisions.contracts import PUBLISH_MS
from tocsin.decisions.routing import Engine, Health, request_of
from tocsin.decisions.snapshots import Registry
from tocsin.kernel.errors import Refusal

REQUEST = request_of(
    {
        "principal": "key_a",
        "capabilities": ["mail.send"],
        "input": SENT["input"],
        "output": True,
        "scopes": ["mail:send"],
        "data_class": {"level": "public", "tags": []},
        "profile": "cheap",
    }
)


def contract(name: str, version: int, now: int, **more: Any) -> contracts.Contract:
    return contracts.validate({**SENT, "name": name, "version": version, "lease_ms": 5_000, **more}, now)


def started() -> tuple[Registry, Time]:
    time = Time()
    registry = Registry(Objects(), Cell(), time)
    registry.publish(changes.govern(OPEN))
    return registry, time


def refused(registry: Registry, edit: changes.EditOf) -> str:
    with pytest.raises(Refusal) as caught:
        registry.publish(edit)
    return f"{caught.value.code} {caught.value.details[0].rule}"


def test_what_is_refused() -> None:
    registry, time = started()
    registry.publish(changes.register(contract("a", 2, time.ms)))
    assert refused(registry, changes.register(contract("a", 2, time.ms))) == "ERR_CONFLICT greater"
    assert refused(registry, changes.move("a", 1, "active", time.ms, 30_000)) == "ERR_NOT_FOUND registered"
    assert refused(registry, changes.move("a", 2, "draining", time.ms, 30_000)) == "ERR_CONFLICT order"
    assert refused(registry, changes.govern(OPEN)) == "ERR_CONFLICT greater"
    assert registry.publish(changes.govern({**OPEN, "version": 2})).policy["version"] == 2


def test_sweeping_keeps_the_last_version_of_each_name() -> None:
    registry, time = started()
    for version in (1, 2, 3):
        registry.publish(changes.register(contract("a", version, time.ms)))
        registry.publish(changes.move("a", version, "retired", time.ms, 30_000))
        time.ms += 1_000
    registry.publish(changes.register(contract("b", 1, time.ms)))
    swept = registry.publish(changes.sweep(time.ms - 2_500))
    assert [contracts.identity(one) for one in swept.contracts] == [("a", 2), ("a", 3), ("b", 1)]
    swept = registry.publish(changes.sweep(time.ms + 1))
    assert [contracts.identity(one) for one in swept.contracts] == [("a", 3), ("b", 1)]
    assert refused(registry, changes.register(contract("a", 3, time.ms))) == "ERR_CONFLICT greater"


def test_who_retires_takes_along_what_retired_long_ago() -> None:
    registry, time = started()
    for version in (1, 2):
        registry.publish(changes.register(contract("a", version, time.ms)))
        registry.publish(changes.move("a", version, "retired", time.ms, 30_000), changes.deed_of("retire"))
        time.ms += changes.RETIRED_MS + 1
    now = registry.latest()
    assert [one["version"] for one in now.contracts] == [2]
    assert [one["version"] for one in registry.at(str(now.previous)).contracts] == [1, 2], "older snapshots keep it"


def test_a_thousand_decisions_while_services_come_drain_and_go() -> None:
    """Three routers that cannot always reach the pointer, one publisher; calls last as long as their lease allows.

    Every certificate verifies against its own snapshot, and no call is ever at a retired service.
    """
    rnd, time = random.Random(11), Time()
    store, cell = Objects(), Cell()
    publisher = Registry(store, cell, time)
    routers = [Registry(store, cell, time) for _ in range(3)]
    publisher.publish(changes.govern(OPEN))
    versions, retired_at, running, decided, named = 0, dict[tuple[str, int], int](), [], 0, set()
    while decided < 1_000:
        time.ms += rnd.randrange(2_000)
        running = [(service, ends) for service, ends in running if ends >= time.ms]
        assert not [service for service, _ in running if service in retired_at]
        if rnd.random() < 0.3:
            versions += 1
            name = f"s{versions % 4}"
            publisher.publish(changes.register(contract(name, versions, time.ms, cost_pusd=rnd.randrange(50))))
            publisher.publish(changes.move(name, versions, "active", time.ms, publisher.staleness_ms))
        for one in rnd.sample(publisher.current().contracts, min(3, len(publisher.current().contracts))):
            state = {"active": "draining", "draining": "retired"}.get(one["state"])
            if state:
                edit = changes.move(one["name"], one["version"], state, time.ms, publisher.staleness_ms)
                if state == "retired" and time.ms < contracts.retire_after_ms(one, publisher.staleness_ms):
                    assert refused(publisher, edit) == "ERR_CONFLICT drain-time"
                    continue
                publisher.publish(edit)
                if state == "retired":
                    retired_at[contracts.identity(one)] = time.ms
        if rnd.random() < 0.05:
            publisher.publish(changes.sweep(time.ms))
        for router in routers:
            cell.broken = rnd.random() < 0.5
            held = router._held
            if cell.broken and (held is None or time.ms - held[1] > router.staleness_ms):
                cell.broken = False
            engine = Engine(router.current())
            cell.broken = False
            receipt = engine.decide(REQUEST, Health())
            decided += 1
            if receipt.decision is None:
                continue
            named.add(receipt.decision)
            running.append((tuple(receipt.decision), time.ms + 5_000))
            past = Engine(publisher.at(receipt.snapshot)) if rnd.random() < 0.1 else engine
            data = certificates.derive(receipt, past, REQUEST, Health(), "short")
            document = json.loads(certificates.context(past, "short"))
            assert checker.verify(document, Health().document, data)
    assert len(retired_at) > 20
    assert len(named) > 20
    assert time.ms > PUBLISH_MS + samples.NOW
