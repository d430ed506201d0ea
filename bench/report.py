"""How figures are printed: under the machine they were measured on and its load at that moment."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path


def machine() -> str:
    """Cores, processor and interpreter; nothing that names the machine."""
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].strip() if names else model
    return f"{os.cpu_count()} cores ({model}), Python {sys.version.split()[0]}"


def load() -> str:
    return "load " + " ".join(f"{one:.2f}" for one in os.getloadavg())


def title(text: str) -> None:
    """Heading of one measurement, with the time and the machine's load (1, 5 and 15 minutes) as it starts."""
    print(f"\n{text}   [{time.strftime('%H:%M:%S', time.gmtime())} UTC, {load()}]", flush=True)


def line(text: str) -> None:
    print(f"  {text}", flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; the first is aligned left, the others right."""
    cells = [tuple(map(str, header)), *(tuple(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        line("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]
