"""An entry point whose module loads until its file is removed, as one with large libraries does."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from emsqrt.executor import EntryContext

_BARRIER = Path(os.environ["EXECUTOR_TEST_BARRIER"])

while _BARRIER.exists():
    time.sleep(0.01)


def answer(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    del request, context
    return {"pid": os.getpid()}
