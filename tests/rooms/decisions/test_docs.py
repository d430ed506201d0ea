"""The examples of the pages are run; what they print is what they say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("page", ["routing.md", "math/published_calculus.md"])
def test_examples(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    blocks = re.findall(r"^```pycon\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 4
    shared: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        example = doctest.DocTestParser().get_doctest(block, shared, f"block {number}", page, 0)
        runner = doctest.DocTestRunner(verbose=False)
        runner.run(example, clear_globs=False)
        shared |= example.globs
        assert runner.summarize(verbose=False).failed == 0, block


def test_every_gate_is_explained() -> None:
    from tocsin.decisions.routing import GATES

    text = (ROOT / "docs" / "routing.md").read_text("utf-8")
    assert all(f"`{gate}`" in text for gate in GATES)
