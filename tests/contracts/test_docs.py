"""What the documents say of tests is true: those they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = sorted(
    set(
        re.findall(
            r"`((?:contracts|functions|rooms|stack)/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/asvs.md").read_text()
        )
    )
)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    text = (ROOT / "tests" / path).read_text()
    assert not name or re.search(rf"^def {name}\(", text, re.MULTILINE)


def test_the_table_names_tests() -> None:
    assert len(NAMED) > 50


@pytest.mark.parametrize(
    "path", ["SECURITY.md", "README.md", *(f"docs/{one.name}" for one in (ROOT / "docs").glob("*.md"))]
)
def test_links_between_documents_lead_somewhere(path: str) -> None:
    file = ROOT / path
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", file.read_text()):
        assert (file.parent / target).exists(), target
