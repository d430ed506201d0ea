"""Equal inputs, equal bytes: over hash seeds, orders of registration and Python versions."""

from __future__ import annotations

import pytest
from tools.mathematics import determinism, evidence

from tests.rooms.decisions.digest_main import digest_of_decisions


def test_decisions_are_those_that_were_promoted_on_every_python_and_hash_seed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On every supported Python there is here; the promoted digest was found equal on at least two.

    Another digest means that receipts kept before can no longer be derived: raise `v` of what changed, then promote it.
    """
    promoted, found = evidence.promoted()["determinism"], determinism.digests(determinism.pythons())
    with capsys.disabled():
        print(f"\nsame decisions on Python {', '.join(found)}; hash seeds {', '.join(determinism.SEEDS)}")
    assert found
    assert {digest for of in found.values() for digest in of.values()} == {promoted["digest"]}
    assert len(promoted["pythons"]) >= determinism.REQUIRED
    assert promoted["hash_seeds"] == list(determinism.SEEDS)
    assert len(determinism.SEEDS) >= 3


def test_decisions_do_not_depend_on_the_order_of_registration() -> None:
    assert len({digest_of_decisions(order) for order in range(5)}) == 1
