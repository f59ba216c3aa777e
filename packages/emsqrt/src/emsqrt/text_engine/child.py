"""The parent's side of the small child: start it, read its answer, return its manifest or error."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import emsqrt.errors  # noqa: F401 - errors arrive as the classes that they were
from emsqrt.environment import LEAN_ENVIRONMENT
from emsqrt.requirement import MemoryRequirement
from emsqrt.termination import EXIT_CAP
from sennit_core.errors import (
    DeadlineExceeded,
    MemoryCapExceeded,
    SennitError,
    WorkerLost,
    error_from_json,
)
from sennit_core.records import Progress

_GRACE_SECONDS = 2.0
"""A child ends by itself at its deadline; it is killed this much later."""
_WAIT_SECONDS_MAX = 3600.0


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
        program: the result of `emsqrt.text_engine.compile.compile_text`.
        cap_bytes: the most that the kernel may charge the child.
        spill_dir: where it may spill; a folder of this user's when None.
        spilling: as returned by `EngineConfig.spilling`.
        deadline_seconds: cancel after this.
        on_progress: called with each progress report.
        on_start: called with the child's pid.

    Returns:
        The JSON of the run's `Manifest`, without the plan's hash.

    Raises:
        SennitError: reported by the child, of its original class.
        WorkerLost: the child ended without an answer.
    """
    request = {
        "program": program,
        "capBytes": cap_bytes,
        "spillDir": None if spill_dir is None else str(spill_dir),
        "spilling": spilling or {},
        "deadlineSeconds": deadline_seconds,
    }
    return _ask(request, on_progress or (lambda _: None), on_start)


def estimate_in_child(  # noqa: PLR0913 - a program and its world
    program: Mapping[str, Any],
    cap_bytes: int,
    spilling: Mapping[str, Any],
    spill_dir: Path | None,
    room_bytes: int | None = None,
    deadline_seconds: float | None = None,
    *,
    find_longest: bool = False,
) -> MemoryRequirement:
    """Return a text program's memory requirement and shares, from a process like its own.

    Args:
        program: as for `run_in_child`.
        cap_bytes: the cap whose shares are reported.
        spilling: as returned by `EngineConfig.spilling`.
        spill_dir: where it would spill; a folder of this user's when None.
        room_bytes: the most that the kernel may charge the child.
        deadline_seconds: cancel after this.
        find_longest: whether to search the input for its longest row.

    Raises:
        MemoryCapExceeded: examining the program needs more than `room_bytes`.
    """
    request = {
        "program": program,
        "capBytes": cap_bytes,
        "spillDir": None if spill_dir is None else str(spill_dir),
        "spilling": spilling,
        "deadlineSeconds": deadline_seconds,
        "roomBytes": room_bytes,
        "estimate": True,
        "findLongest": find_longest,
    }
    return MemoryRequirement.from_json(_ask(request, lambda _: None))


def _ask(
    request: Mapping[str, Any],
    on_progress: Callable[[Progress], object],
    on_start: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    with _child() as (process, answers):
        if on_start is not None:
            on_start(process.pid)
        assert process.stdin is not None
        # The pipe stays open: its end means to the child that the caller is gone.
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        news: dict[str, Any] = {}
        for line in _lines(answers, request.get("deadlineSeconds")):
            answer = json.loads(line)
            if "report" in answer:
                return cast("dict[str, Any]", answer["report"])
            if "error" in answer:
                raise error_from_json(answer["error"])
            # A report has only the fields that changed.
            news.update(answer["progress"])
            on_progress(Progress.from_json(news))
        raise _lost(process, request.get("roomBytes") or request["capBytes"])


@contextmanager
def _child() -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    read, write = os.pipe()
    try:
        # -P: no module in the current folder can shadow one of the standard library.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "emsqrt.text_engine.process", str(write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[write],
            env={**os.environ, **LEAN_ENVIRONMENT},
            process_group=0,  # the parent handles a terminal's Ctrl-C
        )
    except BaseException:
        os.close(read)
        raise
    finally:
        # In the parent, so that reading ends when the child's copy is closed.
        os.close(write)
    with process, os.fdopen(read, "rb", buffering=0) as answers:
        try:
            yield process, answers
        finally:
            # Also after the answer: the child has nothing left to do. Killing a process that has
            # ended is harmless.
            process.kill()


def _lines(answers: io.FileIO, deadline_seconds: float | None) -> Iterator[bytes]:
    """Yield the child's answers; kill a child that is stopped or does not react to its deadline."""
    # The child ends itself at its deadline; this is for one that is stopped or stuck.
    end = None if deadline_seconds is None else time.monotonic() + deadline_seconds + _GRACE_SECONDS
    look = select.poll()
    look.register(answers, select.POLLIN)
    held = b""
    while True:
        left = None if end is None else min(max(0.0, end - time.monotonic()), _WAIT_SECONDS_MAX)
        if not look.poll(None if left is None else left * 1000):
            if end is not None and time.monotonic() >= end:
                raise DeadlineExceeded("the plan", deadline_seconds)
            continue
        got = answers.read(1 << 16)
        if not got:
            return
        # The last element has no line end yet.
        *lines, held = (held + got).split(b"\n")
        yield from lines


def _lost(process: subprocess.Popen[bytes], cap_bytes: int) -> SennitError:
    status = process.wait()
    if status == EXIT_CAP:
        return MemoryCapExceeded(cap_bytes=cap_bytes, what="the plan")
    return WorkerLost(
        what="the engine's process",
        worker=str(process.pid),
        reason=f"it ended with status {status} and without an answer",
    )
