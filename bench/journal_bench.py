"""How fast a copy of the journal is checked offline, by `tocsin journal verify` and by the standalone checker.

    PYTHONPATH=shared:. python -m bench journal

The log is made up: 100,000 entries of incidents that opened, sealed 250 at a time, with checkpoint and cosignature.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import report

from tocsin.journal.entries import Entry, content_digest
from tocsin.journal.notes import Checkpoint, VerifierKey
from tocsin.journal.signatures import Ed25519Key
from tocsin.journal.tree import Edge, grow
from tocsin.journal.verify import Directory, verify

ENTRIES = 100_000
SEALED = 250
START_MS = 1_795_176_005_000
ORIGIN = "bench.tocsin"
LOG, COSIGNER = Ed25519Key(b"1" * 32), Ed25519Key(b"2" * 32)
PINNED = [VerifierKey.of(ORIGIN, LOG), VerifierKey.of(f"{ORIGIN}/cosigner", COSIGNER, cosigner=True)]
CHECKER = Path(__file__).parents[1] / "tools" / "journal_checker.py"


def entry(number: int) -> bytes:
    """Canonical bytes of one entry."""
    return Entry(
        id=f"evd_{number:026d}",
        kind="incident.opened",
        at=START_MS + number,
        project="demo",
        actor="system:correlate",
        action="incident:open",
        resource=f"incident:inc_{number:026d}",
        trace_id=f"{number:032x}",
        outcome="done",
        digests={"incident": content_digest({"number": number})},
    ).leaf()


def write(folder: Path) -> float:
    """Fill a folder with the log; seconds that it took."""
    began, edge = time.perf_counter(), Edge()
    for start in range(0, ENTRIES, SEALED):
        edge, files = grow(edge, [entry(number) for number in range(start, start + SEALED)])
        for path, data in files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    made = Checkpoint(ORIGIN, edge.size, edge.root)
    cosigned = made.cosignature_line(f"{ORIGIN}/cosigner", COSIGNER, START_MS)
    (folder / "checkpoint").write_bytes(made.note([made.signature_line(ORIGIN, LOG), cosigned]))
    return time.perf_counter() - began


def run() -> dict[str, Any]:
    report.title(f"Journal: {ENTRIES:,} entries, sealed {SEALED} at a time")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grown = write(folder)
        began = time.perf_counter()
        verified = verify(Directory(folder), PINNED)
        own = time.perf_counter() - began
        began = time.perf_counter()
        command = [sys.executable, "-I", str(CHECKER), name, *map(str, PINNED)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        alone = time.perf_counter() - began
    report.table(
        ("", "s", "entries/s"),
        [
            (what, f"{seconds:.2f}", f"{ENTRIES / seconds:,.0f}")
            for what, seconds in (
                ("appended", grown),
                ("verified by the product", own),
                ("by the checker alone", alone),
            )
        ],
    )
    report.line(f"{verified.checkpoint.size:,} entries in {verified.files:,} files; the checker says: {told}")
    return {"append_s": grown, "verify_s": own, "checker_s": alone}
