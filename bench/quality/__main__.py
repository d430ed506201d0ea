"""`make bench-quality`: how good the judgement is, on data with known answers, beside baselines and published figures.

    python -m bench.quality                       everything
    python -m bench.quality nab loghub            those that are named
    python -m bench.quality --json FILE           also write the figures as JSON

The data lie in ../shared (or TOCSIN_SHARED) and are never part of this repository; without them this says so and exits
with 2. "Ours" is what the product's own functions give, with the settings they are deployed with. A published figure is
quoted from its source and was measured on the whole data set; ours and the baselines are measured here, on the half
that is kept for development.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench import report
from bench.quality import shared
from bench.quality.result import Row

SETS: Final = ("nab", "loghub", "storms", "ait")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(SETS))
    parser.add_argument("--json", type=Path, help="file that takes the figures")
    options = parser.parse_args()
    unknown = set(options.names) - set(SETS)
    if unknown:
        parser.error(f"no such data set: {', '.join(sorted(unknown))}")
    try:
        shared.folder()
    except shared.MissingError as missing:
        print(
            f"bench-quality: {missing}.\nPut the folder with the data and the reference tools beside the project, "
            "or name it in TOCSIN_SHARED. Nothing was measured.",
            file=sys.stderr,
        )
        return 2
    began = time.monotonic()
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, {report.machine()}, {report.load()}", flush=True)
    rows: list[Row] = []
    for name in options.names or SETS:
        rows += importlib.import_module(f"bench.quality.{name}").run()
    report.title("Quality")
    report.table(("data", "what", "measure", "ours", "baselines", "published", "aim"), [row.cells() for row in rows])
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    print(f"\nall in {time.monotonic() - began:.0f} s, {report.load()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
