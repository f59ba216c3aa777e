"""Whole runs that are treated badly: in this process in either tier, or as a command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_runs import NullStream

from emsqrt.executor.context import EntryContext
from emsqrt.memory import MemoryBudget
from emsqrt.pipeline import Pipeline
from emsqrt.plan import plan_to_json
from emsqrt.session import run_plan
from emsqrt.text_engine.compile import compile_text
from emsqrt.text_engine.session import run_text

MEMORY_BYTES = 64 << 20
COMMAND_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Ended:
    """The result of a command: its status, stdout and stderr."""

    status: int
    out: bytes
    err: str


def carry_out(
    pipeline: Pipeline,
    tier: str,
    target: Path,
    *,
    memory_bytes: int = MEMORY_BYTES,
    on_news: Callable[[dict[str, Any]], None] = lambda _: None,
) -> bytes:
    """Run a pipeline here in a tier, and return what it wrote.

    Args:
        pipeline: without its sink.
        tier: "text" or "arrow".
        target: the output; spill files are in `spill` next to it.
        memory_bytes: what operators may reserve.
        on_news: called with the progress, on the worker thread.
    """
    plan = pipeline.sink(target).plan
    spill, budget = target.parent / "spill", MemoryBudget(memory_bytes)
    with closing(
        EntryContext("the test", memory_bytes, NullStream(), on_news, spill, None, budget)
    ) as here:
        if tier == "arrow":
            run_plan(plan_to_json(plan), here, target.parent)
        else:
            run_text(compile_text(plan, target.parent), here)
    return target.read_bytes()


def command(
    *words: object,
    folder: Path,
    before: str = "",
    environment: Mapping[str, str] | None = None,
    wrapped: str = "",
) -> Ended:
    """Run `emsqrt` with these words.

    Args:
        folder: where it works; it spills into `spill` there.
        before: Python that the process runs before it becomes the command. Not a function for
            `preexec_fn`: libraries with threads, as gRPC, abort in a forked copy of this process.
        environment: all of it; this process's when None.
        wrapped: a line of shell in which `"$@"` is the command.
    """
    line = [sys.executable, "-m", "emsqrt.cli", *map(str, words)]
    if before:
        become = f"{before}; import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
        line = [sys.executable, "-c", become, *line]
    done = subprocess.run(
        ["sh", "-c", wrapped, "sh", *line] if wrapped else line,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


def remaining_files(folder: Path) -> list[str]:
    """Return temporary outputs and spilled files at or below a folder."""
    outputs = [path.name for path in folder.rglob(".*.tmp")]
    spilled = [
        os.fspath(path.relative_to(folder))
        for path in folder.glob("spill/**/*")
        if path.name != ".sweep" and path.is_file()
    ]
    return sorted(outputs + spilled)
