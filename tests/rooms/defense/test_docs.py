"""The examples of docs/defense.md are run, and its tables say what the files say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from tocsin.defense import plans, quarantine
from tocsin.defense.healing import REPLAYED, Policy
from tocsin.defense.mitigations import LEASE_MS

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "defense.md").read_text("utf-8")


def test_examples() -> None:
    blocks = re.findall(r"^```pycon\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert blocks
    for number, block in enumerate(blocks):
        example = doctest.DocTestParser().get_doctest(block, {}, f"block {number}", "docs/defense.md", 0)
        runner = doctest.DocTestRunner(verbose=False)
        runner.run(example)
        assert runner.summarize(verbose=False).failed == 0, block


def test_every_responder_is_described_with_its_tier() -> None:
    for name, one in plans.responders().items():
        (row,) = [line for line in TEXT.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1]]
        lowest = min(plans.TIERS.index(tag[5:]) for tag in one.contract["data_class"]["tags"])
        assert row.split("|")[4].strip() == plans.TIERS[lowest], name


def test_figures_are_those_of_the_code() -> None:
    assert f"**every {quarantine.FRESH_MS // 1000} s**" in TEXT
    assert f"({quarantine.MAX_ACTIVE} quarantines)" in TEXT
    assert f"after {LEASE_MS // 1000} s whoever asks" in TEXT
    assert f"{REPLAYED} a run, three runs in ten minutes" in TEXT
    assert f"{Policy().lease_grace_ms // 1000} s after its end" in TEXT
    assert Policy().repairs == 3
