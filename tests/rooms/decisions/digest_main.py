"""Prints the digest of a fixed set of decisions, certificates and plans. Argument: order of registration."""

from __future__ import annotations

import hashlib
import random
import sys

from tests.rooms.decisions import samples
from tocsin.decisions import certificates
from tocsin.decisions.contracts import identity
from tocsin.decisions.plans import goal_of, plan
from tocsin.decisions.routing import Engine, health_of, request_of
from tocsin.decisions.snapshots import EMPTY, Edit, edited
from tocsin.kernel.canonical import canonical_json

WORLDS = 60


def digest_of_decisions(order: int) -> str:
    """One digest over everything that comes out; `order` shuffles how services, tags and fields come in."""
    made, shuffle = hashlib.sha256(), random.Random(order)
    for seed in range(WORLDS):
        rnd = random.Random(seed)
        held, policy = samples.registry(rnd, 12), samples.policy(rnd)
        sent, sick = samples.request(rnd), samples.health(rnd, held)
        sent["scopes"] = shuffle.sample(sent["scopes"], len(sent["scopes"]))
        sick["down"] = dict(shuffle.sample(sorted(sick["down"].items()), len(sick["down"])))
        sick["attested"] = shuffle.sample(sick["attested"], len(sick["attested"]))
        snapshot = edited(EMPTY, Edit(put=shuffle.sample(held, len(held)), policy=policy))
        engine, request, health = (
            Engine(snapshot),
            request_of(shuffled(shuffle, sent)),
            health_of(shuffled(shuffle, sick)),
        )
        receipt = engine.decide(request, health)
        made.update(canonical_json(receipt.document()))
        for form in certificates.FORMS:
            made.update(certificates.derive(receipt, engine, request, health, form))
            made.update(certificates.context(engine, form))
        goal = {name: value for name, value in sent.items() if name not in ("input", "output")}
        goal |= {"capabilities": list(samples.CAPABILITIES), "have": {"a": sent["input"]}, "want": sent["output"]}
        made.update(canonical_json(plan(goal_of(shuffled(shuffle, goal)), snapshot, health).certificate))
        assert [identity(contract) for contract in snapshot.contracts] == sorted(map(identity, held))
    return made.hexdigest()


def shuffled(shuffle: random.Random, document: dict[str, object]) -> dict[str, object]:
    return dict(shuffle.sample(sorted(document.items()), len(document)))


if __name__ == "__main__":
    print(digest_of_decisions(int(sys.argv[1])))
