"""Checkpoints of named runs that were killed: a folder with segments and a journal.

`<spill dir>/checkpoints/<name>/` holds a lock, `journal` and the segments that it names. The
journal is JSON after a line with its SHA-256. It is replaced atomically before a segment that it
named is removed, so every segment that it names exists, whenever the process is killed. The next
named run removes folders that were not resumed within a day.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emsqrt.external.journal import SavedRuns, SavedState
from emsqrt.spill import Segment, SpillManager
from emsqrt.spill.area import try_lock
from emsqrt.spill.local import Disk, LocalStore
from sennit_core.errors import Conflict, UsageError
from sennit_core.hashing import sha256_hex

KEPT_SECONDS = 24 * 3600
"""A checkpoint that is not resumed within this time is removed."""
_NAME = re.compile("[a-z0-9_-]{1,63}")
_JOURNAL, _LOCK = "journal", "lock"
_VERSION = 4  # of the journal, and of the rows in the segments that it names

InputPosition = tuple[str, int, int]


def open_checkpoint(
    resume: Sequence[str] | None,
    hash_of_plan: str,
    inputs: Sequence[Mapping[str, Any]],
    tier: str,
    seed: int,
) -> Checkpoint | None:
    """Open the checkpoint of a named run; return None for a run without a name.

    Args:
        resume: (spill folder, name), None for a run without a name.
        hash_of_plan: of the plan as it was submitted.
        inputs: the JSON of an `InputInfo` for each file.
        tier: "text" or "arrow"; each has a row format of its own.
        seed: of the run.

    Raises:
        Conflict, UsageError: as `Checkpoint`; also when an input cannot be read twice.
    """
    if resume is None:
        return None
    if any(not info["fingerprint"] for info in inputs):
        raise UsageError("a run that reads standard input cannot be resumed")
    marks = [[info["path"], info["bytes"], info["fingerprint"]] for info in inputs]
    facts = {"plan": hash_of_plan, "inputs": marks, "tier": tier, "seed": seed}
    return Checkpoint(Path(resume[0]), resume[1], facts)


class Checkpoint:
    """The locked folder of one named run; created or reopened here, removed by `close`.

    Args:
        root: where runs spill.
        name: of the run: a-z, 0-9, - and _.
        facts: what must be equal when it is resumed: plan, inputs, tier, seed.

    Raises:
        Conflict: a run of that name is still active.
        UsageError: the checkpoint belongs to another plan, other inputs or another seed, or has
            the format of another version.
    """

    def __init__(self, root: Path, name: str, facts: Mapping[str, Any]) -> None:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f'"{name}" is no valid run name',
                hint="use a-z, 0-9, - and _, at most 63 characters",
            )
        self.folder = root / "checkpoints" / name
        self._name = name
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = try_lock(self.folder / _LOCK)
        if lock is None:
            raise Conflict(f"the run {name} is still active")
        self._lock: int | None = lock
        try:
            _sweep(self.folder.parent)
            self._facts = json.loads(json.dumps(facts))
            self._nodes: dict[str, Any] = self._read()
            self.is_resumed = bool(self._nodes)
            """Whether an earlier run left a checkpoint to continue from."""
            self._pages: dict[int, JournalPage] = {}
            self._remove_unnamed()
        except BaseException:
            self._unlock()
            raise

    def page(self, node: int) -> JournalPage:
        """Return one operator's page of the journal."""
        if node not in self._pages:
            self._pages[node] = JournalPage(self, str(node))
        return self._pages[node]

    def open_spill(self, **options: Any) -> SpillManager:
        """Open the spill whose segments are in this folder; options as of `SpillManager`."""
        return SpillManager(self.folder, store=_CheckpointStore(self), **options)

    def close(self) -> None:
        """Remove the folder; a killed process leaves it behind. Closing twice is fine."""
        if self._lock is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._unlock()

    # Called by `JournalPage`.

    def entry(self, node: str) -> dict[str, Any] | None:
        """Return an operator's journal entry, if all its segments exist."""
        entry = self._nodes.get(node)
        if entry is None:
            return None
        for segment in entry["segments"]:
            path = self.folder / segment["name"]
            if not path.is_file() or path.stat().st_size != segment["size_bytes"]:
                return None
        return dict(entry)

    def write(self, node: str, entry: Mapping[str, Any]) -> None:
        """Replace an operator's journal entry."""
        self._nodes[node] = entry
        document = {"v": _VERSION, "facts": self._facts, "nodes": self._nodes}
        new = self.folder / f"{_JOURNAL}.new"
        body = json.dumps(document).encode()
        new.write_bytes(sha256_hex(body).encode() + b"\n" + body)
        new.replace(self.folder / _JOURNAL)

    def _read(self) -> dict[str, Any]:
        path = self.folder / _JOURNAL
        if not path.is_file():
            return {}
        document = self._parsed(path)
        hint = f"run this under another name, or remove {self.folder}"
        # First: facts of another version may have other names, so comparing them says nothing.
        if (version := document.get("v")) != _VERSION:
            raise UsageError(
                f"the checkpoint of run {self._name} has the format {version}, which another "
                f"version of EM-√ wrote; this one continues from the format {_VERSION}",
                hint=hint,
            )
        found = document["facts"]
        other = [what for what in self._facts if found.get(what) != self._facts[what]]
        if not other:
            return dict(document["nodes"])
        raise UsageError(f"the checkpoint of run {self._name} has {_words(other)}", hint=hint)

    def _parsed(self, path: Path) -> dict[str, Any]:
        """Return the content of the journal.

        Raises:
            UsageError: it is damaged.
        """
        mark, _, body = path.read_bytes().partition(b"\n")
        if mark != sha256_hex(body).encode():
            raise UsageError(
                f"the journal of the run {self._name} is damaged: {path}",
                hint=f"run this under another name, or remove {self.folder}",
            )
        return dict(json.loads(body))

    def _remove_unnamed(self) -> None:
        entries = self._nodes.values()
        named = {segment["name"] for entry in entries for segment in entry["segments"]}
        for path in self.folder.iterdir():
            if path.name not in named and path.name not in (_JOURNAL, _LOCK):
                path.unlink()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class JournalPage:
    """The `emsqrt.external.journal.Journal` of one operator of a named run."""

    def __init__(self, checkpoint: Checkpoint, node: str) -> None:
        self._checkpoint = checkpoint
        self._node = node
        self._entry = checkpoint.entry(node)
        self._position = self._saved_position = self.found_position

    def found(self) -> SavedRuns | None:
        """Return the sorted runs that an earlier run left, or None."""
        if self._entry is None:
            return None
        segments, state = self.state()
        return SavedRuns(
            state["rows"],
            state["complete"],
            tuple(zip(segments, state["levels"], strict=True)),
            state["rowBytesMax"],
        )

    def state(self) -> SavedState:
        """Return the state that an earlier run left, in any form; empty when there is none."""
        if self._entry is None:
            return (), {}
        segments = tuple(Segment.from_json(segment) for segment in self._entry["segments"])
        return segments, self._entry["state"]

    @property
    def found_position(self) -> InputPosition | None:
        """(source, offset, rows before it) of the last batch in the sorted runs, if known."""
        position = None if self._entry is None else self._entry["state"].get("position")
        return None if position is None else (position[0], position[1], position[2])

    def mark(self, source: str, offset: int, rows: int) -> None:
        """Record that the current batch begins at `offset`, after `rows` rows.

        Args:
            source: a file's name.
            offset: position in it: bytes of text, row groups of Parquet.
            rows: rows that the operator consumed before.
        """
        self._position = source, offset, rows

    def save(
        self,
        rows: int,
        runs: Sequence[tuple[Segment, int]],
        *,
        complete: bool,
        row_bytes_max: int = 0,
    ) -> None:
        """Record the existing sorted runs.

        If `mark` is past the rows in them, its batch still waits for the background thread.
        """
        if self._position is not None and self._position[2] <= rows:
            self._saved_position = self._position
        state = {
            "rows": rows,
            "complete": complete,
            "levels": [level for _, level in runs],
            "rowBytesMax": row_bytes_max,
            "position": self._saved_position,
        }
        self.save_state([segment for segment, _ in runs], state)

    def save_state(self, segments: Sequence[Segment], state: Mapping[str, Any]) -> None:
        """Record segments, with plain values that describe them."""
        entry = {"segments": [segment.to_json() for segment in segments], "state": state}
        self._checkpoint.write(self._node, entry)


class _CheckpointStore(LocalStore):
    """The files of a checkpoint; closing it removes them with the folder."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.place = os.fspath(checkpoint.folder)
        self._disk = Disk()
        self._area = checkpoint  # type: ignore[assignment]  # has its folder and close()


def _sweep(root: Path) -> None:
    """Remove checkpoints that were not resumed in time."""
    for folder in root.iterdir():
        with contextlib.suppress(FileNotFoundError):
            newest = max(
                (path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime
            )
            if time.time() - newest < KEPT_SECONDS:
                continue
            lock = try_lock(folder / _LOCK)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _words(other: Sequence[str]) -> str:
    return " and ".join(
        f"other {what}" if what == "inputs" else f"another {what}" for what in other
    )


def scan_below(rows: Any) -> Any:
    """Return the scan whose batches map one to one (or to none) to the batches of `rows`, or None.

    Args:
        rows: an operator of either tier; its `passes_on` is its input if it preserves batches.
    """
    while not hasattr(rows, "start_at"):
        rows = getattr(rows, "passes_on", None)
        if rows is None:
            return None
    return rows
