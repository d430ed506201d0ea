"""Where the data sets and the reference tools are: a folder beside the project, which no clone brings along.

shared/data/nab, loghub, ait-ads      labelled data (shared/data/README.md says whence, and under which licence)
shared/bench                          storm_gen.py, corr_metrics.py, nabfast.py
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
#: What must be there, relative to the shared folder.
PARTS: Final = (
    "data/nab/labels/combined_windows.json",
    "data/loghub",
    "data/ait-ads/ait_ads_half.zip",
    "bench/storm_gen.py",
    "bench/corr_metrics.py",
    "bench/nabfast.py",
)


class MissingError(Exception):
    """The shared folder, or a part of it, is not there."""


def folder() -> Path:
    """../shared beside the project, or TOCSIN_SHARED. Raises MissingError naming what is not there."""
    place = Path(os.environ.get("TOCSIN_SHARED") or ROOT.parent / "shared")
    lacking = [part for part in PARTS if not (place / part).exists()]
    if not place.is_dir():
        raise MissingError(f"{place} is not there")
    if lacking:
        raise MissingError(f"{place} lacks {', '.join(lacking)}")
    return place


def tool(name: str) -> ModuleType:
    """A reference tool of the shared folder."""
    place = str(folder() / "bench")
    if place not in sys.path:
        sys.path.append(place)
    return importlib.import_module(name)
