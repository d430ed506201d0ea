"""One line per step: how long it took and what it did."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Step:
    """A running step; `said` may be replaced while it runs, when only then it is known what happened."""

    def __init__(self, said: str) -> None:
        self.said = said


@contextmanager
def step(said: str) -> Iterator[Step]:
    """Print "<seconds>  <said>" when the block has ended well."""
    began = time.monotonic()
    current = Step(said)
    yield current
    print(f"  {time.monotonic() - began:6.1f} s  {current.said}", flush=True)
