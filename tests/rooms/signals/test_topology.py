"""Topology: what a document may say, who is near whom, and which service an event speaks of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.kernel.errors import Refusal
from tocsin.signals.topology import HUB_DEPENDENTS, MAX_SERVICES, Topology

SHOP = {
    "services": {
        "web": {"deps": ["cart", "auth"], "criticality": 0.9, "team": "shop"},
        "cart": {"deps": ["pay-db"], "nodes": ["n1", "n2"]},
        "auth": {},
        "pay-db": {"labels": {"tier": "data"}},
    }
}


def test_document_round_trip() -> None:
    document = Topology.from_document(SHOP).to_document()
    assert Topology.from_document(document).to_document() == document
    assert document["services"]["web"] == {"deps": ["cart", "auth"], "criticality": 0.9, "team": "shop"}
    assert document["services"]["cart"] == {"deps": ["pay-db"], "nodes": ["n1", "n2"]}


def test_neighbours_are_dependencies_and_dependents() -> None:
    topology = Topology.from_document(SHOP)
    assert topology.neighbours("cart") == ("pay-db", "web")
    assert topology.neighbours("unknown") == ()
    assert topology.criticality("web") == 0.9
    assert topology.criticality("cart") == topology.criticality(None) == 0.5


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefghxyz"), max_size=4), max_size=8))
def test_being_near_is_symmetric(edges: dict[str, list[str]]) -> None:
    topology = Topology.from_document(
        {"services": {name: {"deps": [d for d in deps if d != name]} for name, deps in edges.items()}}
    )
    everyone = "abcdefghxyz"
    for one in everyone:
        for other in everyone:
            assert (other in topology.neighbours(one)) == (one in topology.neighbours(other))


def test_reach_counts_who_leans_on_a_service_within_the_incident() -> None:
    topology = Topology.from_document(SHOP)
    assert topology.reach(["web", "cart", "pay-db"]) == {"web": 0, "cart": 1, "pay-db": 2}
    assert topology.reach(["web", "pay-db"]) == {"web": 0, "pay-db": 0}


def test_cycles_end() -> None:
    topology = Topology.from_document({"services": {"a": {"deps": ["b"]}, "b": {"deps": ["a"]}}})
    assert topology.reach(["a", "b"]) == {"a": 1, "b": 1}


def test_hub_is_what_too_many_depend_on() -> None:
    services = {f"s{k}": {"deps": ["dns"]} for k in range(HUB_DEPENDENTS + 1)}
    assert Topology.from_document({"services": services}).is_hub("dns")
    services.popitem()
    assert not Topology.from_document({"services": services}).is_hub("dns")


@pytest.mark.parametrize(
    ("entity", "tags", "service"),
    [
        (("service", "cart"), {}, "cart"),
        (("pod", "cart-2"), {}, "cart"),
        (("service", "cart-2"), {}, "cart"),
        (("pod", "cart-7d9f8b6c5-x2x9z"), {}, "cart"),
        (("pod", "ledger-7d9f8b6c5-x2x9z"), {}, "ledger"),
        (("host", "node-17"), {}, None),
        (("service", "ledger-2"), {}, "ledger-2"),
        (("host", "node-17"), {"service": "web"}, "web"),
        (("host", "node-17"), {"app": "web"}, "web"),
        (("pod", "cart-2"), {"app": "other"}, "cart"),
    ],
)
def test_service_of(entity: tuple[str, str], tags: dict[str, str], service: str | None) -> None:
    event = {"entity": {"type": entity[0], "id": entity[1]}, "tags": tags}
    assert Topology.from_document(SHOP).service_of(event) == service


@pytest.mark.parametrize(
    ("document", "field", "rule"),
    [
        ([], "services", "object"),
        ({}, "services", "object"),
        ({"services": {}, "more": 1}, "more", "unknown"),
        ({"services": {"a b": {}}}, "services.a b", "name"),
        ({"services": {"a": []}}, "services.a", "object"),
        ({"services": {"a": {"dependencies": []}}}, "services.a.dependencies", "unknown"),
        ({"services": {"a": {"deps": "b"}}}, "services.a.deps", "array"),
        ({"services": {"a": {"deps": [""]}}}, "services.a.deps[0]", "name"),
        ({"services": {"a": {"deps": ["a"]}}}, "services.a.deps", "self"),
        ({"services": {"a": {"deps": [f"d{k}" for k in range(51)]}}}, "services.a.deps", "max_items"),
        ({"services": {"a": {"criticality": 2}}}, "services.a.criticality", "range"),
        ({"services": {"a": {"criticality": True}}}, "services.a.criticality", "range"),
        ({"services": {"a": {"team": ""}}}, "services.a.team", "text"),
        ({"services": {"a": {"labels": {"k": 1}}}}, "services.a.labels", "labels"),
        ({"services": {f"s{k}": {} for k in range(MAX_SERVICES + 1)}}, "services", "max_items"),
    ],
)
def test_faults_are_named(document: Any, field: str, rule: str) -> None:
    with pytest.raises(Refusal) as caught:
        Topology.from_document(document)
    assert caught.value.code == "ERR_SCHEMA"
    assert [(one.field, one.rule) for one in caught.value.details] == [(field, rule)]
    assert caught.value.details[0].fix
