"""An entry point that keeps its executor busy for as long as a test likes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from emsqrt.executor import EntryContext


def hold(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    while not Path(request["until"]).exists():
        context.check()
        time.sleep(0.01)
    return {}
