"""The results that the tasks of a job have, on disk: what a restarted node need not compute again.

`partials.jsonl` in the job's folder: a line with the fingerprint of the job's tasks, then one for each
result. A result's file is durable before its task is reported as done, and its line is appended after that,
without a sync: a crash of the process loses nothing, and one of the machine at most the newest lines,
whose tasks then run again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elytra.service.messages import JsonObject
from sennit_core.logs import get_logger
from sennit_core.private_files import FILE_MODE, make_private_folder

__all__ = ["PartialJournal"]

_NAME = "partials.jsonl"
_log = get_logger(__name__)


class PartialJournal:
    """The journal of one job.

    Args:
        folder: The job's folder.
        fingerprint: Of its tasks: results of a job that was split in another way do not count.
        outputs: The folder of the results' files.
    """

    def __init__(self, folder: Path, fingerprint: str, outputs: Path) -> None:
        self._path = folder / _NAME
        self._fingerprint = fingerprint
        self._outputs = outputs
        # The tasks that have a line, and the newest one's file.
        self._files: dict[str, object] = {}

    def read(self) -> dict[str, JsonObject]:
        """Return the results by task whose files are there in full; discard a journal of other tasks."""
        try:
            head, *lines = self._path.read_bytes().splitlines()
        except (FileNotFoundError, ValueError):
            return {}
        if _parsed(head) != {"tasks": self._fingerprint}:
            self._path.unlink()
            return {}
        found: dict[str, JsonObject] = {}
        for line in lines:
            entry = _parsed(line)
            # The last line may be torn, and a file may have been removed by a merge that ended.
            if entry is not None and self._is_whole(entry.get("partial")):
                found[str(entry.get("task"))] = entry["partial"]
        # Written anew by `append`, so that a torn line never precedes others.
        self._path.unlink()
        return found

    def append(self, task: str, partial: Mapping[str, Any]) -> None:
        """Add a task's result; a failure costs the resumption only, not the job.

        A result that was computed again has another file, and a line after that of the first.
        """
        if self._files.get(task) == partial.get("file"):
            return
        head = b"" if self._files else _line({"tasks": self._fingerprint})
        try:
            make_private_folder(self._path.parent)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            file = os.open(self._path, flags, FILE_MODE)
            try:
                os.write(file, head + _line({"task": task, "partial": dict(partial)}))
            finally:
                os.close(file)
        except OSError as problem:
            _log.warning("cannot note a result of job %s: %s", self._path.parent.name, problem)
            return
        self._files[task] = partial.get("file")

    def remove(self) -> None:
        """Delete the journal, when the job has ended."""
        self._path.unlink(missing_ok=True)

    def _is_whole(self, partial: object) -> bool:
        if not isinstance(partial, dict) or not isinstance(partial.get("manifest"), dict):
            return False
        name, size = partial.get("file"), partial.get("bytes")
        if not isinstance(name, str) or "/" in name:
            return False
        try:
            return (self._outputs / name).stat().st_size == size
        except OSError:
            return False


def _line(entry: JsonObject) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> JsonObject | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
