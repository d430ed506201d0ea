"""Notices: which channel is told is a decision, and from there on a notification like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.delivery_fakes import Bench, ChannelRows, mailbox, webhook
from tocsin.defense.notices import Notice, Notices
from tocsin.delivery.dispatch import Poster
from tocsin.delivery.model import PushBudget

ROOT = Path(__file__).resolve().parents[3]


class Desk:
    """Notices over delivery in memory."""

    def __init__(self) -> None:
        self.bench = Bench()
        ports = self.bench.ports()
        self.poster = Poster(ports.notifications, ports.routing, ports.budgets, now=self.bench.world.clock)
        self.room = Notices(ChannelRows(self.bench.world), self.poster.post)

    def send(self, *by: str, tier: str = "medium", about: str = "not_1", seq: int = 0) -> Any:
        notice = Notice("p1", about, seq, "Deploy begins", "Until eleven.", tier, "trace-of-test", by)
        return self.room.send(notice, self.bench.world.now)

    def chosen(self, *by: str, tier: str = "medium") -> list[str | None]:
        return [one.record.channel_id if one.record else None for one in self.send(*by, tier=tier)]


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    for channel in (webhook("hook", project="p1"), mailbox("mail", project="p1")):
        made.bench.add(channel)
    return made


def named(desk: Desk, name: str) -> str:
    return next(one.id for one in desk.bench.world.channels.values() if one.name == name)


def test_without_a_wish_the_cheapest_channel_is_told_and_the_surest_when_it_matters(desk: Desk) -> None:
    assert desk.chosen() == [named(desk, "hook")]
    assert desk.send(about="not_2", tier="critical")[0].record.channel_id in (named(desk, "hook"), named(desk, "mail"))


def test_each_kind_that_is_asked_for_is_told(desk: Desk) -> None:
    assert desk.chosen("email", "webhook") == [named(desk, "mail"), named(desk, "hook")]


def test_a_channel_that_is_off_or_failing_is_not_chosen(desk: Desk) -> None:
    desk.bench.add(webhook("broken", project="p1", failing_since=1))
    desk.bench.add(webhook("off", project="p1", enabled=False))
    assert desk.chosen("webhook") == [named(desk, "hook")]
    desk.bench.world.channels.pop(("p1", named(desk, "hook")))
    assert desk.chosen("webhook") == [None]


def test_the_decision_is_proved(desk: Desk, tmp_path: Path) -> None:
    (told,) = desk.send("email")
    files = []
    for name in ("snapshot", "health", "certificate"):
        (tmp_path / name).write_text(told.proof[name], "utf-8")
        files.append(str(tmp_path / name))
    for checker in ([sys.executable, "tools/checker.py"], ["node", "tools/checker.mjs"]):
        run = subprocess.run([*checker, *files], cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout
    assert json.loads(told.proof["certificate"])["receipt"]["decision"]["name"] == named(desk, "mail")


def test_it_is_delivered_behind_the_outbox_once_however_often_it_is_sent(desk: Desk) -> None:
    first, again = desk.send("webhook")[0].record, desk.send("webhook")[0].record
    assert first == again
    assert first.decision == "pending"
    desk.bench.relay(desk.bench.world.now)
    assert len(desk.bench.receiver.got) == 1
    assert desk.send("webhook")[0].record.decision == "delivered"


def test_the_push_budget_holds(desk: Desk) -> None:
    desk.bench.add(webhook("hook", project="p1", id=named(desk, "hook"), budget=PushBudget(1, 1)))
    assert desk.send("webhook", seq=1)[0].record.decision == "pending"
    withheld = desk.send("webhook", seq=2)[0].record
    assert (withheld.decision, withheld.reason) == ("withheld", "budget")
    assert "room again" in str(desk.send("webhook", seq=2)[0].as_json()["notification"]["reason"])
