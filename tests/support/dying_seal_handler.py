"""What replaces the deployed seal handler for one run: the real one, which kills its own process between two steps."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from seal_handler import handler as handler  # the deployed one, beside this file

from tocsin.aws.journal_store import DynamoJournal

PLAN = json.loads((Path(__file__).parent / "plan.json").read_text())
real_step = getattr(DynamoJournal, PLAN["after"])


def last_step(self: DynamoJournal, *arguments: Any) -> Any:
    """The step is carried out, and nothing after it: no handler, no finally, no answer."""
    real_step(self, *arguments)
    Path(PLAN["said"]).write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


setattr(DynamoJournal, PLAN["after"], last_step)
