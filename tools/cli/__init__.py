"""The command line `tocsin`: talks to a running Tocsin by its HTTP API, and looks after its dead letters."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("tocsin") is None:  # a clone is not installed: its shared/ is what functions get as a layer
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
