"""A run that kills itself with signal 9 at a named point; started by the tests of resuming."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Arguments: request file (`program` or `plan`, `cap`, `spill`), point, which time there."""
    request = json.loads(Path(sys.argv[1]).read_text())
    point, left = sys.argv[2], int(sys.argv[3])

    def pass_by(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    _watch(pass_by)
    from emsqrt.local_runner import run_plan_locally, run_text_locally

    spill = Path(request["spill"])
    if "program" in request:
        sys.stdout.write(json.dumps(run_text_locally(request["program"], request["cap"], spill)))
        return
    manifest = run_plan_locally(request["plan"], request["cap"], spill, resume=request["resume"])
    sys.stdout.write(json.dumps(manifest.to_json()))


def _watch(pass_by: Any) -> None:
    from emsqrt import checkpoint
    from emsqrt.external import runs
    from emsqrt.spill.spilling import SpillManager

    around(checkpoint.Checkpoint, "write", "journal", pass_by)
    around(runs.Runs, "_write_merged", "merge", pass_by)
    around(SpillManager, "open", "open", pass_by)
    around(SpillManager, "create", "run", pass_by)


def around(owner: Any, method: str, name: str, pass_by: Any) -> None:
    """Let a method pass by its point before and after."""
    inner = getattr(owner, method)

    def outer(*words: Any, **named: Any) -> Any:
        pass_by(f"before {name}")
        answer = inner(*words, **named)
        pass_by(f"after {name}")
        return answer

    setattr(owner, method, outer)


if __name__ == "__main__":
    main()
