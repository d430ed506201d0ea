"""`make bench`: every measurement of the issue on one machine in one run, or those that are named.

    python -m bench                      the measures: end_to_end chain cold_start cost growth
    python -m bench scoring redaction limits journal    parts looked at more closely
    make bench-decisions                 decisions, in an environment of their own
    python -m bench cost --json FILE     also write the figures as JSON

Figures mean something beside the load that is printed with them, and as ratios within one run; nothing here passes
or fails by time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from pathlib import Path

from bench import report

MEASURES = ("end_to_end", "chain", "cold_start", "growth", "cost")
PARTS = ("scoring", "redaction", "limits", "journal", "decisions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join((*MEASURES, *PARTS)))
    parser.add_argument("--json", type=Path, help="file that takes the figures")
    options = parser.parse_args()
    unknown = set(options.names) - {*MEASURES, *PARTS}
    if unknown:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    began = time.monotonic()
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, {report.machine()}, {report.load()}")
    figures = {name: importlib.import_module(f"bench.{name}_bench").run() for name in options.names or MEASURES}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nall in {time.monotonic() - began:.0f} s, {report.load()}")


if __name__ == "__main__":
    main()
