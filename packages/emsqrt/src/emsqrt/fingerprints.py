"""Fingerprints that detect a changed input file: its length and samples of its content."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from emsqrt._kernel import xxh3_64
from emsqrt.io.file_facts import known_fact
from emsqrt.io.sources import ByteSource, LocalSource
from emsqrt.memory import BudgetGuard, MemoryBudget
from sennit_core.errors import BadInput, Unsupported

PIECES = 16
PIECE_BYTES = 64 << 10
"""A file of up to 1 MiB is hashed whole; of a longer one 16 pieces, its start and end among
them."""
_FEW = 64
_FILE_BYTES = 3 << 10
"""Memory held for each further input file: its location, its source, its line in the manifest."""


def fingerprint(source: ByteSource) -> str:
    """Return the hex XXH3 of a source's length and of samples of its stored content.

    Empty for a source that cannot be read twice: standard input, a pipe.
    """
    size = source.stored_bytes
    if size is None:
        return ""
    mark = xxh3_64(size.to_bytes(8, "little"))
    try:
        for start in _starts(size):
            mark = xxh3_64(source.read_at(start, min(PIECE_BYTES, size - start)), mark)
    except Unsupported:
        return ""
    return f"{mark:016x}"


def input_info(source: ByteSource) -> dict[str, Any]:
    """Return the JSON of an `InputInfo`."""
    changed = 0
    if isinstance(source, LocalSource):
        changed = Path(source.name).stat().st_mtime_ns // 1_000_000
    return {
        "path": source.name if source.can_reopen else "-",
        "bytes": source.stored_bytes or 0,
        "modifiedMs": changed,
        "fingerprint": known_fact(source, "fingerprint", lambda: fingerprint(source), len),
    }


class InputFingerprints:
    """The state of a run's input files when the run began; a context manager.

    Args:
        sources: all of them, opened as they are iterated over.
        count: their number; thousands of open sources may be more than the cap leaves.
        budget: reserves the memory for remembering many files.

    Raises:
        CapTooSmall: the budget is too small for that many files.
    """

    def __init__(self, sources: Iterable[ByteSource], count: int, budget: MemoryBudget) -> None:
        self._guard = remembered(count, budget)
        self.infos: list[dict[str, Any]] = []
        self._marks: list[tuple[str, int]] = []
        for source in sources:
            if isinstance(source, LocalSource):
                self._marks.append((source.name, _mark(source.name)))
            self.infos.append(input_info(source))

    @property
    def can_be_read_again(self) -> bool:
        """Return whether every input can be read again, unlike standard input."""
        return all(info["fingerprint"] for info in self.infos)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._guard.release()

    def check(self) -> None:
        """Check that no input file has changed since the run began.

        Raises:
            BadInput: a file was changed, truncated, replaced or removed.
        """
        for name, mark in self._marks:
            if _mark(name) != mark:
                raise BadInput(
                    name,
                    reason="it was changed, replaced or removed while it was read",
                    hint="run it again when no process writes to it, or read a copy",
                )


def remembered(files: int, budget: MemoryBudget) -> BudgetGuard:
    """Reserve the memory for remembering `files` input files.

    Raises:
        CapTooSmall: the budget is too small for that many files.
    """
    because = f"{files} input files are remembered"
    return budget.admit(remembered_bytes(files), "inputs", because)


def remembered_bytes(files: int) -> int:
    """Return the memory needed for remembering `files` input files."""
    return max(0, files - _FEW) * _FILE_BYTES


def _mark(name: str) -> int:
    """Return a hash of a file's metadata; 0 when it is gone."""
    try:
        found = Path(name).stat()
    except OSError:
        return 0
    return hash((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))


def _starts(size: int) -> list[int]:
    if size <= PIECES * PIECE_BYTES:
        return list(range(0, size, PIECE_BYTES))
    last = size - PIECE_BYTES
    return [last * piece // (PIECES - 1) for piece in range(PIECES)]
