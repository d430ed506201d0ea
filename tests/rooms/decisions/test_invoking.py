"""Calls through the engine: what is reserved, judged, retried and remembered, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.rooms.decisions.memory import CallRows, Cell, Control, Log, Objects
from tocsin.decisions import contracts, policies, snapshots
from tocsin.decisions.control import Budget, Retries, Watch, Window
from tocsin.decisions.deciding import Decider
from tocsin.decisions.invoking import Invoker, Wanted
from tocsin.decisions.ports import Dialled
from tocsin.decisions.routing import health_of, request_of
from tocsin.decisions.types import holds, normalise
from tocsin.kernel.errors import Refusal

NOW = 1_800_000_000_000
SENT: dict[str, Any] = {
    "name": "a",
    "version": 1,
    "capabilities": ["mail.send"],
    "input": {"type": "object", "required": ["to"]},
    "output": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
    "scopes": [],
    "data_class": {"level": "internal", "tags": []},
    "trust": 50,
    "cost_pusd": 100,
    "latency_us": 1_000,
    "error_ppb": 1_000_000,
    "deterministic": False,
    "lease_ms": 60_000,
    "endpoint": "https://a.example.com/",
}
REQUEST = request_of(
    {
        "principal": "key_a",
        "capabilities": ["mail.send"],
        "input": {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]},
        "scopes": [],
        "data_class": {"level": "internal", "tags": []},
    }
)
GOOD = Dialled(200, {"id": "m-1"}, 900)


@dataclass
class World:
    """Services a (cheapest), b and c, and what each answers; the last answer of a list is given again."""

    answers: dict[str, list[Dialled]] = field(default_factory=dict)
    now: int = NOW
    asked: list[tuple[str, Mapping[str, str], int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.control = Control()
        self.calls = CallRows(self.control, Budget(1_000_000))
        registry = snapshots.Registry(Objects(), Cell(), lambda: self.now)
        self.decider = Decider(registry, self.control, Log(), lambda: self.now)
        self.invoker = Invoker(self.decider, self.calls, self._dial, lambda: self.now)
        rules = [{"id": "all", "effect": "permit", "when": ["value", True]}]
        policy = policies.validate({"version": 2, "rules": rules, "profiles": dict(policies.PROFILES)})
        self.put(
            *(self.contract(name, cost) for name, cost in (("a", 100), ("b", 200_000), ("c", 300_000))), policy=policy
        )

    def contract(self, name: str, cost: int, **fields: Any) -> contracts.Contract:
        sent = {**SENT, "name": name, "cost_pusd": cost, "endpoint": f"https://{name}.example.com/", **fields}
        sent = {key: value for key, value in sent.items() if value is not None}
        return contracts.moved(contracts.validate(sent, self.now), "active", self.now, 30_000)

    def put(self, *put: contracts.Contract, policy: policies.Policy | None = None) -> None:
        self.decider.registry.publish(lambda _: snapshots.Edit(put=put, policy=policy))

    def _dial(self, url: str, payload: Any, headers: Mapping[str, str], within_ms: int) -> Dialled:
        self.asked.append((url[8], headers, within_ms))
        answers = self.answers.get(url[8], [GOOD])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def call(self, call_id: str = "c-1", retries: int = 0, payload: Any = None) -> Mapping[str, Any]:
        return self.invoker.call(Wanted(call_id, REQUEST, payload or {"to": "x"}, retries), "trace-1")

    def outcomes(self, made: Mapping[str, Any]) -> list[tuple[str, str]]:
        return [(one["service"], one["outcome"]) for one in made["attempts"]]

    def watch(self, name: str) -> Watch:
        return self.control.kept[name]


def test_a_call_is_decided_made_paid_and_answered_once() -> None:
    world = World()
    made = world.call()
    assert (made["status"], made["service"], made["output"], made["repeated"]) == ("done", "a@1", {"id": "m-1"}, False)
    ((_, headers, within_ms),) = world.asked
    assert headers["Idempotency-Key"] == "c-1"
    assert headers["X-Trace-Id"] == "trace-1"
    assert within_ms <= 22_000
    assert world.decider.log.get(made["attempts"][0]["decision_id"])
    assert world.calls.money == Budget(1_000_000, 100)
    assert world.calls.used == {"calls": 1, "call_cost_pusd": 100}
    assert dict(world.watch("a@1").running) == {}
    again = world.call()
    assert again == {**made, "repeated": True}
    assert len(world.asked) == 1
    with pytest.raises(Refusal) as refused:
        world.call(payload={"to": "y"})
    assert refused.value.code == "ERR_IDEMPOTENCY_MISMATCH"


@pytest.mark.parametrize(
    ("answer", "word", "status"),
    [
        (Dialled(200, {"id": "m"}, 1_001), "late", "done"),
        (Dialled(200, {"id": 7}, 10), "type", "failed"),
        (Dialled(500, {"id": "m"}, 10), "failed", "failed"),
        (Dialled(302, None, 10), "failed", "failed"),
        (Dialled(0, None, 10, "timeout"), "timeout", "failed"),
        (Dialled(0, None, 10, "unreached"), "unreached", "failed"),
    ],
)
def test_what_came_back_is_judged_by_the_contract(answer: Dialled, word: str, status: str) -> None:
    world = World({"a": [answer]})
    made = world.call()
    assert (made["status"], world.outcomes(made)) == (status, [("a@1", word)])
    monitor = world.watch("a@1").monitor
    assert monitor is not None
    assert monitor.calls == 1
    assert world.watch("a@1").breaker.failures == (0 if word == "late" else 1)
    assert world.calls.money.spent == (0 if word == "unreached" else 100)
    assert world.calls.money.held == 0


def test_a_service_is_believed_what_it_cost_up_to_its_promise() -> None:
    for stated, spent in ((40, 40), (1_000, 100), (None, 100)):
        world = World({"a": [Dialled(200, {"id": "m"}, 1, "", stated)]})
        world.call()
        assert world.calls.money.spent == spent


def test_a_retry_goes_elsewhere_by_a_decision_that_proves_why() -> None:
    world = World({"a": [Dialled(500)]})
    assert world.call()["status"] == "failed", "nobody asked for a retry"
    made = world.call("c-2", retries=2)
    assert (made["status"], world.outcomes(made)) == ("done", [("a@1", "failed"), ("b@1", "kept")])
    second = world.decider.log.get(made["attempts"][1]["decision_id"])
    assert second is not None
    held = world.decider.log.health(second.receipt["health"])
    assert held is not None
    assert health_of(held).down == {"a@1": "failed"}
    world.answers = {name: [Dialled(500)] for name in "abc"}
    made = world.call("c-3", retries=1)
    assert world.outcomes(made) == [("a@1", "failed"), ("b@1", "failed")], "one retry, and no third"


def test_retries_end_with_the_services_budget_of_retries() -> None:
    world = World({name: [Dialled(500)] for name in "abc"})
    world.control.kept["a@1"] = Watch(NOW, retries=Retries(per_mille=0, milli_tokens=0))
    assert world.outcomes(world.call(retries=2)) == [("a@1", "failed")]


def test_a_service_without_room_or_address_is_passed_over_without_a_retry() -> None:
    world = World()
    world.control.kept["a@1"] = Watch(NOW, window=Window(size=1), running={"other": NOW + 5})
    world.put(world.contract("b", 200_000, version=2, endpoint=None), world.contract("b", 200_000, trust=49))
    made = world.call()
    assert world.outcomes(made)[0] == ("a@1", "busy")
    assert made["status"] == "done"
    world.now += 10  # the slot of the other call has run out
    assert world.outcomes(world.call("c-2"))[-1][1] == "kept"


def test_money_that_is_not_there_is_not_spent() -> None:
    world = World()
    world.calls.money = Budget(99)
    made = world.call()
    assert (made["status"], world.outcomes(made)) == ("refused", [("a@1", "budget")])
    assert world.asked == []


def test_nobody_admissible_is_an_answer_with_its_decision() -> None:
    world = World()
    wanted = Wanted("c-1", request_of({**REQUEST.document, "trust": 90}), {"to": "x"})
    made = world.invoker.call(wanted, "t")
    assert (made["status"], world.outcomes(made)) == ("refused", [("", "no_service")])
    assert world.decider.log.get(made["attempts"][0]["decision_id"])


def test_a_payload_of_another_type_is_refused_before_anything() -> None:
    with pytest.raises(Refusal) as refused:
        Wanted("c-1", REQUEST, {"to": 7})
    assert [(one.field, one.rule) for one in refused.value.details] == [("payload", "type")]


def test_a_breaker_opens_after_failures_and_one_probe_closes_it() -> None:
    world = World({"a": [Dialled(500)]})
    services = (("a", 100), ("b", 200_000), ("c", 300_000))
    world.put(*(world.contract(name, cost, error_ppb=300_000_000) for name, cost in services))
    for n in range(5):
        assert world.outcomes(world.call(f"c-{n}")) == [("a@1", "failed")]
    world.now += 1_000  # what is known of services may be a second old
    assert world.outcomes(world.call("c-5")) == [("b@1", "kept")]
    assert world.control.health().down == {"a@1": "breaker"}
    world.answers["a"] = [GOOD]
    world.calls.lanes.clear()
    world.now += 30_000
    assert world.outcomes(world.call("c-6")) == [("a@1", "kept")]
    assert world.watch("a@1").breaker.state == "closed"


def test_a_little_better_is_no_reason_to_leave_the_incumbent() -> None:
    world = World()
    world.put(world.contract("a", 100), world.contract("d", 99, error_ppb=999_999))
    world.calls.lanes = dict.fromkeys(world.calls.lanes)  # type: ignore[arg-type]
    first = world.call()
    assert first["service"] == "d@1", "nobody is incumbent yet"
    world.put(world.contract("e", 98, error_ppb=999_998))
    world.now += 1_000
    assert world.call("c-2")["service"] == "d@1"
    world.put(world.contract("f", 1, error_ppb=1))
    world.now += 1_000
    assert world.call("c-3")["service"] == "f@1"


def test_who_breaks_the_promise_is_quarantined() -> None:
    world = World({"a": [Dialled(200, {"id": "m"}, 5_000)]})
    n = 0
    while world.control.kept.get("a@1", Watch(0)).monitor is None or world.watch("a@1").monitor.verdict == "declared":  # type: ignore[union-attr]
        world.call(f"c-{n}")
        n += 1
        assert n < 200
    world.now += 1_000
    assert world.outcomes(world.call("last")) == [("b@1", "kept")]
    assert world.control.health().down["a@1"] == "quarantined"


Case = tuple[Any, Any, bool]
CASES: list[Case] = [
    (True, {"a": 1}, True),
    (False, None, False),
    ({"type": "integer"}, 3, True),
    ({"type": "integer"}, True, False),
    ({"type": "integer", "minimum": 4}, 3, False),
    ({"type": "integer"}, 3.0, True),
    ({"type": "integer"}, 3.5, False),
    ({"type": "number", "maximum": 3}, 3.5, False),
    ({"type": "string", "maxLength": 2}, "abc", False),
    ({"enum": ["a", 1]}, 1, True),
    ({"enum": ["a", 1]}, True, False),
    ({"type": "null"}, None, True),
    ({"type": "array", "items": {"type": "string"}, "minItems": 1}, ["a"], True),
    ({"type": "array", "items": {"type": "string"}, "minItems": 1}, [], False),
    ({"type": "array", "items": {"type": "string"}}, [1], False),
    ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, {}, False),
    ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}, {"b": 1}, False),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None, True),
]


@pytest.mark.parametrize(("schema", "value", "wanted"), CASES)
def test_a_value_is_of_a_type_when_a_validator_says_so(schema: Any, value: Any, wanted: bool) -> None:
    from jsonschema import Draft202012Validator

    check: Callable[[Any], bool] = Draft202012Validator(schema).is_valid
    assert holds(normalise(schema), value) is wanted
    assert check(value) is wanted
