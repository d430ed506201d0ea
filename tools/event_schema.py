"""Writes docs/EVENT_SCHEMA.json (2020-12) and docs/EVENT_SCHEMA.draft-07.json from the event model.

python -m tools.event_schema            write both
python -m tools.event_schema --check    fail, with the difference, when one is not up to date
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "shared"))

from tocsin.signals import events  # noqa: E402  (the product is found by the line above)

DRAFT_2020: Final = "https://json-schema.org/draft/2020-12/schema"
DRAFT_07: Final = "http://json-schema.org/draft-07/schema#"


def _as_draft_07(node: Any) -> Any:
    """The schema in draft-07 words: $defs → definitions, and no keyword beside $ref (it would be ignored)."""
    if isinstance(node, list):
        return [_as_draft_07(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {("definitions" if key == "$defs" else key): _as_draft_07(value) for key, value in node.items()}
    if "$ref" in made:
        reference = {"$ref": str(made.pop("$ref")).replace("#/$defs/", "#/definitions/")}
        return {"allOf": [reference], **made} if made else reference
    return made


def documents() -> dict[Path, str]:
    """Path → text of both documents."""
    head = {
        "title": "Tocsin event",
        "description": "Fields marked readOnly are set by Tocsin and refused when sent.",
    }
    schema = {**events.json_schema(), **head}
    made = {
        "EVENT_SCHEMA.json": {"$schema": DRAFT_2020, **schema},
        "EVENT_SCHEMA.draft-07.json": {"$schema": DRAFT_07, **_as_draft_07(schema)},
    }
    return {
        ROOT / "docs" / name: json.dumps(document, indent=2, ensure_ascii=True) + "\n"
        for name, document in made.items()
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Generate the JSON Schemas of an event.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    check = parser.parse_args(arguments).check
    stale = False
    for path, text in documents().items():
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if found == text:
            continue
        if check:
            stale = True
            name = str(path.relative_to(ROOT))
            sys.stdout.writelines(
                difflib.unified_diff(found.splitlines(True), text.splitlines(True), name, f"{name} (generated)")
            )
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print("Run `python -m tools.event_schema`.", file=sys.stderr)
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
