"""Digests: once per slot, everything withheld in exactly one of them, missed slots caught up once and
marked late.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.delivery_fakes import Bench, ChannelRows, Killed, fact, mailbox, webhook
from tocsin.delivery.digest import MAX_LISTED, Digester, account, slot_of
from tocsin.delivery.model import PushBudget
from tocsin.delivery.ports import SendResult, Withheld
from tocsin.kernel import clock

TEN = 1_800_000_000_000 - 1_800_000_000_000 % clock.DAY + 10 * clock.HOUR


def _bench(digest: str = "hourly", **changes: Any) -> Bench:
    bench = Bench()
    bench.world.now = TEN - 30 * clock.MINUTE
    bench.add(webhook(budget=PushBudget(60, 1), digest=digest, created_at=TEN - clock.DAY, **changes))
    return bench


def _digester(bench: Bench) -> Digester:
    return Digester(
        channels=ChannelRows(bench.world),
        store=bench.world,
        dispatcher=bench.dispatcher(),
        open_incidents=lambda project, limit: [{"id": "inc_open", "tier": "high", "title": "still open"}],
        projects=lambda: ["acme"],
        clock=bench.world.clock,
    )


def _withhold(bench: Bench, *incidents: str) -> None:
    """One transition per incident; the first takes the budget of its minute, so use after `_spend`."""
    for incident in incidents:
        (record,) = bench.dispatcher().handle(fact(incident=incident))
        assert record.decision == "withheld"


def _spend(bench: Bench) -> None:
    bench.dispatcher().handle(fact(incident=f"inc_spent_{bench.world.now}"))
    bench.receiver.got.clear()


def _tick(bench: Bench, at: int) -> list[dict[str, Any]]:
    bench.world.now = max(bench.world.now, at + 2_000)
    before = len(bench.receiver.got)
    _digester(bench).tick(at)
    return [json.loads(body)["data"] for _, _, body, _ in bench.receiver.got[before:]]


@pytest.mark.parametrize(
    ("mode", "at", "slot"),
    [
        ("hourly", TEN, TEN),
        ("hourly", TEN + clock.HOUR - 1, TEN),
        ("daily", TEN, TEN - 2 * clock.HOUR),
        ("daily", TEN - 3 * clock.HOUR, TEN - 26 * clock.HOUR),
    ],
)
def test_slots(mode: str, at: int, slot: int) -> None:
    assert slot_of(mode, at) == slot


def test_a_digest_carries_what_was_withheld_and_why() -> None:
    bench = _bench()
    _spend(bench)
    _withhold(bench, "inc_a", "inc_b")
    bench.world.now += 1
    bench.dispatcher().handle(fact(2, "escalated", incident="inc_a"))
    (digest,) = _tick(bench, TEN)
    assert digest["withheld"]["total"] == 3
    assert digest["withheld"]["by_reason"] == {"budget": 3}
    assert [(row["incident_id"], row["count"], row["kind"]) for row in digest["withheld"]["incidents"]] == [
        ("inc_a", 2, "escalated"),
        ("inc_b", 1, "opened"),
    ]
    assert digest["open_incidents"] == [{"id": "inc_open", "tier": "high", "title": "still open"}]
    assert digest["late"] is False
    assert digest["withheld"]["by_tier"] == {"high": 3}


def test_the_same_slot_twice_is_sent_once() -> None:
    bench = _bench()
    _spend(bench)
    _withhold(bench, "inc_a")
    assert len(_tick(bench, TEN)) == 1
    assert _tick(bench, TEN) == []
    assert _tick(bench, TEN + 59 * clock.MINUTE) == []


def test_hourly_digests_with_nothing_to_say_are_not_sent_but_daily_ones_are() -> None:
    assert _tick(_bench("hourly"), TEN) == []
    (digest,) = _tick(_bench("daily"), TEN)
    assert digest["withheld"]["total"] == 0


def test_a_channel_without_digests_or_disabled_gets_none() -> None:
    assert _tick(_bench("off"), TEN) == []
    assert _tick(_bench("daily", enabled=False), TEN) == []


def test_missed_slots_are_caught_up_once_and_marked_late() -> None:
    bench = _bench()
    _tick(bench, TEN)
    bench.world.now = TEN + 10 * clock.MINUTE
    _spend(bench)
    _withhold(bench, "inc_missed")
    bench.world.now = TEN + 190 * clock.MINUTE
    _spend(bench)
    _withhold(bench, "inc_fresh")
    late, current = _tick(bench, TEN + 4 * clock.HOUR)
    assert (late["late"], late["slot"]) == (True, clock.rfc3339(TEN + 3 * clock.HOUR))
    assert [row["incident_id"] for row in late["withheld"]["incidents"]] == ["inc_missed"]
    assert (current["late"], current["slot"]) == (False, clock.rfc3339(TEN + 4 * clock.HOUR))
    assert [row["incident_id"] for row in current["withheld"]["incidents"]] == ["inc_fresh"]
    assert _tick(bench, TEN + 4 * clock.HOUR) == []


def test_a_worker_that_dies_before_the_digest_is_recorded_is_repeated_with_the_same_lines() -> None:
    bench = _bench()
    _spend(bench)
    _withhold(bench, "inc_a")
    claim, bench.world.claim = bench.world.claim, _killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        _tick(bench, TEN)
    bench.world.claim = claim  # type: ignore[method-assign]
    bench.world.now += clock.MINUTE
    _spend(bench)
    _withhold(bench, "inc_later")
    (digest,) = _tick(bench, TEN)
    assert [row["incident_id"] for row in digest["withheld"]["incidents"]] == ["inc_a"]
    (following,) = _tick(bench, TEN + clock.HOUR)
    assert [row["incident_id"] for row in following["withheld"]["incidents"]] == ["inc_later"]


def test_a_digest_that_fails_is_retried_like_everything_else() -> None:
    bench = _bench()
    _spend(bench)
    _withhold(bench, "inc_a")
    bench.receiver.script.append(SendResult(500))
    _tick(bench, TEN)
    bench.relay(bench.world.now + clock.MINUTE)
    assert len({message_id for _, message_id, _, _ in bench.receiver.got}) == 1
    assert len(bench.receiver.got) == 2


def test_a_note_cannot_slip_behind_a_digest_that_was_begun() -> None:
    bench = _bench()
    _spend(bench)
    _tick(bench, TEN)
    bench.world.now -= 1_000
    claims: list[int] = []
    claim = bench.world.claim

    def slow(record: Any, **rest: Any) -> Any:
        claims.append(record.created_at)
        bench.world.now += 600
        return claim(record, **rest)

    bench.world.claim = slow  # type: ignore[method-assign]
    bench.world.budgets["acme"] = bench.world.budgets["acme"].__class__(
        1, {"chn_ops": (bench.world.now + clock.HOUR) * 1000}
    )
    (record,) = bench.dispatcher().handle(fact(incident="inc_late"))
    assert len(claims) > 1
    assert record.decision == "withheld"
    assert bench.world.notes[-1].at > bench.world.ledgers[("acme", "chn_ops")].end
    bench.world.claim = claim  # type: ignore[method-assign]
    (digest,) = _tick(bench, TEN + clock.HOUR)
    assert digest["withheld"]["total"] == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 70)), max_size=12))
def test_everything_withheld_is_in_exactly_one_digest(steps: list[tuple[bool, int, int]]) -> None:
    bench = _bench()
    withheld: list[str] = []
    for skip, count, minutes in steps:
        for _ in range(count):
            (record,) = bench.dispatcher().handle(fact(incident=f"inc_{len(bench.world.records)}"))
            if record.decision == "withheld":
                withheld.append(record.incident_id)
        bench.world.now += minutes * clock.MINUTE
        if not skip:
            _digester(bench).tick(bench.world.now)
    bench.world.now += 2 * clock.HOUR
    _digester(bench).tick(bench.world.now)
    carried = [
        row["incident_id"]
        for _, _, body, _ in bench.receiver.got
        if (event := json.loads(body))["type"] == "dev.tocsin.digest"
        for row in event["data"]["withheld"]["incidents"]
    ]
    assert sorted(carried) == sorted(withheld)


def test_mail_digests_name_incidents_and_escape_their_titles() -> None:
    bench = Bench()
    bench.world.now = TEN - 30 * clock.MINUTE
    bench.add(mailbox(budget=PushBudget(60, 1), created_at=TEN - clock.DAY))
    bench.dispatcher().handle(fact(incident="inc_0"))
    bench.dispatcher().handle(fact(incident="inc_1", title="![x](https://evil.example/)"))
    bench.world.now = TEN
    _digester(bench).tick(TEN)
    message, _ = bench.postbox.got[-1]
    body = message.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    assert message["Subject"] == "[Tocsin] hourly digest: 1 withheld"
    assert "withheld because of budget: 1" in text
    assert "!\\[x\\](https://evil.example/)" in text.replace("\\!", "!")
    assert "still open" in text


def test_long_accounts_are_cut_and_say_so() -> None:
    notes = [
        Withheld(
            "acme",
            "chn_ops",
            f"inc_{i}",
            1,
            "opened",
            "critical" if i == 70 else "medium",
            0.5,
            "t",
            "muted",
            i,
        )
        for i in range(80)
    ]
    short = account(notes)
    assert (short["total"], len(short["incidents"]), short["more"]) == (80, MAX_LISTED, 30)
    assert short["incidents"][0]["incident_id"] == "inc_70"
    assert short["by_tier"] == {"critical": 1, "medium": 79}


def _killed(*_: Any, **__: Any) -> Any:
    raise Killed
