"""Writes docs/schemas/contract.json (JSON Schema 2020-12) from the contract's table of fields.

python -m tools.contract_schema            write it
python -m tools.contract_schema --check    fail, with the difference, when it is not up to date
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "shared"))

from tocsin.decisions import contracts  # noqa: E402  (the product is found by the line above)

PATH: Final = ROOT / "docs" / "schemas" / "contract.json"


def document() -> str:
    """Text of the document."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tocsin contract",
        "description": "Fields marked readOnly are set by Tocsin and refused when sent.",
    }
    return json.dumps({**head, **contracts.json_schema()}, indent=2, ensure_ascii=True) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Generate the JSON Schema of a contract.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    text, found = document(), PATH.read_text(encoding="utf-8") if PATH.exists() else ""
    if found == text:
        return 0
    if not parser.parse_args(arguments).check:
        PATH.parent.mkdir(exist_ok=True)
        PATH.write_text(text, encoding="utf-8")
        return 0
    name = str(PATH.relative_to(ROOT))
    sys.stdout.writelines(
        difflib.unified_diff(found.splitlines(True), text.splitlines(True), name, f"{name} (generated)")
    )
    print("Run `python -m tools.contract_schema`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
