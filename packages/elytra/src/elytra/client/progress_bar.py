"""Progress of jobs as text for terminals and as HTML for notebooks."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from html import escape
from importlib import import_module
from typing import Any, TextIO

from sennit_core.records import JobInfo, is_terminal
from sennit_core.units import format_bytes

_WIDTH = 24


def fraction_done(info: JobInfo) -> float:
    """Return how much of a job's input was read, from 0 to 1; 1 only if the job is done."""
    if info.state == "done":
        return 1.0
    progress = info.progress
    if progress is None:
        return 0.0
    if progress.bytes_total:
        return min(progress.bytes_done / progress.bytes_total, 0.99)
    return min(progress.done / progress.total, 0.99) if progress.total else 0.0


def bar_text(info: JobInfo) -> str:
    """Return a job's state, a bar and what it has done, in one line."""
    done = fraction_done(info)
    filled = int(done * _WIDTH)
    return f"{info.state:9} [{'#' * filled}{'.' * (_WIDTH - filled)}] {done:4.0%}  {_figures(info)}"


def bar_html(info: JobInfo) -> str:
    """Return the same as HTML, without scripts and styles of others."""
    done = fraction_done(info)
    return (
        f'<div><progress value="{done:.3f}" max="1"></progress> '
        f"{escape(info.state)} {done:.0%} &middot; {escape(_figures(info))}</div>"
    )


def follow(infos: Iterable[JobInfo], stream: TextIO | None = None) -> JobInfo:
    """Show a job's progress until it has ended: one line that changes, or a cell of a notebook.

    Args:
        infos: The job's record after each change; the last one has ended.
        stream: Where the line is written; standard error by default.
    """
    target = stream or sys.stderr
    handle = None if stream is not None else _notebook_cell()
    last: JobInfo | None = None
    for info in infos:
        last = info
        if handle is not None:
            handle.update({"text/html": bar_html(info), "text/plain": bar_text(info)}, raw=True)
        elif target.isatty() or is_terminal("job", info.state):
            # A file or a pipe gets the last line only: it cannot be overwritten there.
            end = "\n" if is_terminal("job", info.state) else ""
            target.write(
                f"\r\x1b[K{bar_text(info)}{end}" if target.isatty() else bar_text(info) + end
            )
            target.flush()
    assert last is not None, "a job has a record"
    return last


def _figures(info: JobInfo) -> str:
    progress = info.progress
    if progress is None:
        return ""
    parts = []
    if progress.bytes_total:
        parts.append(f"{format_bytes(progress.bytes_done)} of {format_bytes(progress.bytes_total)}")
    elif progress.bytes_done:
        parts.append(format_bytes(progress.bytes_done))
    if progress.total:
        parts.append(f"{progress.done} of {progress.total} tasks")
    if progress.spilled_bytes:
        parts.append(f"{format_bytes(progress.spilled_bytes)} spilled")
    return ", ".join(parts)


def _notebook_cell() -> Any:
    """Return a display handle of IPython's where a notebook runs this process, else None."""
    shell = sys.modules.get("IPython")
    if shell is None or (running := shell.get_ipython()) is None:
        return None
    if type(running).__name__ != "ZMQInteractiveShell":  # a terminal shows text
        return None
    display = import_module("IPython.display").display

    return display({"text/plain": ""}, raw=True, display_id=True)
