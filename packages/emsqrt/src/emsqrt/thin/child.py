"""The parent's side of the lean child: start it, hear it, make its answer a manifest or an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import emsqrt.errors  # noqa: F401 - errors arrive as the classes that they were
from emsqrt.lean import LEAN_ENVIRONMENT
from emsqrt.solo import EXIT_CAP
from sennit_core.errors import (
    MemoryCapExceeded,
    SennitError,
    WorkerLost,
    error_from_json,
)
from sennit_core.records import Progress


def run_in_child(  # noqa: PLR0913 - settings, all by keyword
    program: Mapping[str, Any],
    *,
    cap_bytes: int,
    spill_dir: Path | None,
    spilling: Mapping[str, Any] | None = None,
    deadline_seconds: float | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    on_start: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Run a text program in a process of its own and wait.

    Args:
        program: as `emsqrt.thin.compile.compile_text` makes it.
        cap_bytes: what the kernel may charge the child at most.
        spill_dir: where it may spill; a folder of this user's when None.
        spilling: as `EngineConfig.spilling` has it.
        deadline_seconds: give up after this.
        on_progress: told about progress.
        on_start: told the child's pid.

    Returns:
        The JSON of the run's `Manifest`, without the plan's hash.

    Raises:
        SennitError: whatever the child reports, as the class it was.
        WorkerLost: the child ended without an answer.
    """
    request = {
        "program": program,
        "capBytes": cap_bytes,
        "spillDir": None if spill_dir is None else str(spill_dir),
        "spilling": spilling or {},
        "deadlineSeconds": deadline_seconds,
    }
    with _child() as (process, answers):
        if on_start is not None:
            on_start(process.pid)
        assert process.stdin is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        news: dict[str, Any] = {}
        for line in answers:
            answer = json.loads(line)
            if "report" in answer:
                return cast("dict[str, Any]", answer["report"])
            if "error" in answer:
                raise error_from_json(answer["error"])
            if on_progress is not None:
                news.update(answer["progress"])
                on_progress(Progress.from_json(news))
        raise _lost(process, cap_bytes)


@contextmanager
def _child() -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    read, write = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "emsqrt.thin.process", str(write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[write],
            env={**os.environ, **LEAN_ENVIRONMENT},
            process_group=0,  # a terminal's Ctrl-C is for the parent
        )
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    with process, os.fdopen(read, "rb") as answers:
        try:
            yield process, answers
        finally:
            process.kill()


def _lost(process: subprocess.Popen[bytes], cap_bytes: int) -> SennitError:
    status = process.wait()
    if status == EXIT_CAP:
        return MemoryCapExceeded(cap_bytes=cap_bytes, what="the plan")
    return WorkerLost(
        what="the engine's process",
        worker=str(process.pid),
        reason=f"it ended with status {status} and said nothing",
    )
