"""Check what remote workers return, before it counts.

    bytes -> SHA-256 -> schema -> an executor validates every batch and writes the output file
          -> in the trust mode `sample`: the node runs some of the tasks too, and compares the rows

Nothing of it is parsed in this process but the schema. The output file is written by the node's own
engine, so it has the form that the node's results have.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from elytra.backends.remote.local_runs import TaskFailed
from elytra.backends.task_spec import NodeFiles, TaskInput, TaskSpec
from emsqrt.plan import Files, Scan
from sennit_core.errors import SennitError, UsageError
from sennit_core.private_files import make_private_folder
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from elytra.backends.remote.local_runs import LocalRuns

__all__ = ["Bad", "Checked", "Results"]

_READ_BYTES = 1 << 20
_CAPACITY = frozenset(
    ("cap-too-small", "memory-cap-exceeded", "storage-full", "cancelled", "closed", "internal",
     "deadline-exceeded", "worker-lost", "unavailable")
)  # fmt: skip
"""Codes of failures while a result is written that say nothing about it."""


class Bad(Exception):
    """A result is not what the task asks for."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of a check.

    Args:
        result: Of the attempt, as backends report it.
        mismatch: How the worker's rows differ from the node's; None if they were not compared, or are
            equal. The result is the node's then.
    """

    result: dict[str, Any]
    mismatch: str | None = None


class Results:
    """Checks and writes results.

    Args:
        folder: For files of its own.
        runs: The node's executors.
    """

    def __init__(self, folder: Path, runs: LocalRuns) -> None:
        self._folder = folder
        self._runs = runs

    def place(self, attempt: str) -> Path:
        """Return the file to which an attempt's stream is written."""
        return make_private_folder(self._folder) / f"{attempt}.arrow"

    def store(self, attempt: str, data: bytes) -> None:
        """Write the stream of a small result."""
        self.place(attempt).write_bytes(data)

    def drop(self, attempt: str) -> None:
        """Remove the files of an attempt."""
        for suffix in ("arrow", "parquet", "checked.arrow", "checked.parquet", "own.arrow",
                       "own.parquet"):  # fmt: skip
            with suppress(OSError):
                (self._folder / f"{attempt}.{suffix}").unlink(missing_ok=True)

    def check(
        self, task: TaskSpec, files: NodeFiles, schema: Schema, sha256: str, *, compare: bool
    ) -> Checked:
        """Check a stored result, and write it to the output file.

        Args:
            task: The task.
            files: Its files on this node.
            schema: The columns that the result must have.
            sha256: What the worker says of it.
            compare: Whether the node runs the task too.

        Raises:
            Bad: It is not a result of this task.
            TaskFailed: The node could not write it, or not run the task.
        """
        received = self.place(task.id)
        self._check_bytes(received, sha256, schema)
        checked = self._folder / f"{task.id}.checked.{task.output}"
        try:
            result = self._runs.run(*_writing(task, schema, received, checked))
        except TaskFailed as failure:
            if failure.code in _CAPACITY or failure.code == "too-large":
                raise
            raise Bad(str(failure)) from failure
        if not compare:
            return Checked(self._moved(result, checked, files.output))
        own = self._folder / f"{task.id}.own.{task.output}"
        mine = self._runs.run(replace(task, id=f"{task.id}-own"), replace(files, output=own))
        mismatch = _difference(schema, task.output, checked, own)
        if mismatch is None:
            return Checked(self._moved(result, checked, files.output))
        return Checked(self._moved(mine, own, files.output), mismatch)

    def run_here(self, task: TaskSpec, files: NodeFiles) -> dict[str, Any]:
        """Run a task on the node instead of a worker; return its result."""
        own = self._folder / f"{task.id}.own.{task.output}"
        make_private_folder(self._folder)
        result = self._runs.run(replace(task, id=f"{task.id}-own"), replace(files, output=own))
        return self._moved(result, own, files.output)

    def stop(self, attempt: str) -> None:
        """Stop what runs for an attempt."""
        for what in ("written", "own"):
            self._runs.stop(f"{attempt}-{what}")

    def _check_bytes(self, received: Path, sha256: str, schema: Schema) -> None:
        import pyarrow as pa

        from sennit_core.arrow_ipc import open_arrow

        digest = hashlib.sha256()
        try:
            with received.open("rb", buffering=0) as file:
                while piece := file.read(_READ_BYTES):
                    digest.update(piece)
        except FileNotFoundError:
            raise Bad("its stream was not uploaded") from None
        if digest.hexdigest() != sha256:
            raise Bad("its stream does not have the SHA-256 that the worker has sent")
        try:
            with (
                pa.OSFile(str(received)) as source,
                open_arrow(source, "the result of a worker") as reader,
            ):
                found = Schema.from_arrow(reader.schema)
        except SennitError as error:
            raise Bad(str(error)) from error
        if found != schema:
            raise Bad("its columns are not those of the task")

    def _moved(self, result: dict[str, Any], path: Path, final: Path) -> dict[str, Any]:
        make_private_folder(final.parent)
        path.replace(final)
        return {**result, "file": final.name}


def _writing(
    task: TaskSpec, schema: Schema, received: Path, output: Path
) -> tuple[TaskSpec, NodeFiles]:
    """Return the task that validates a stream, and writes it in the node's form."""
    name = "partial-0"
    try:
        source = TaskInput(name, "partial", received.name)
    except UsageError:
        raise AssertionError("attempt ids are file names") from None
    writing = replace(
        task, id=f"{task.id}-written", plan=Scan(Files((name,), "arrow"), schema), inputs=(source,)
    )
    return writing, NodeFiles({name: str(received)}, output)


def _difference(
    schema: Schema, form: Literal["arrow", "parquet"], one: Path, two: Path
) -> str | None:
    """Return how the rows of two files differ; None if they are equal."""
    from elytra.backends.remote.row_digest import row_digest

    found, expected = (row_digest(schema, _batches(form, path)) for path in (one, two))
    if found == expected:
        return None
    return f"its rows have the hash {found[:16]}…, those of the node {expected[:16]}…"


def _batches(form: str, path: Path) -> Iterator[pa.RecordBatch]:
    """Read a file that an executor of this node has written."""
    import pyarrow as pa

    if form == "parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            yield from file.iter_batches()
        return
    from sennit_core.arrow_ipc import open_arrow

    with pa.OSFile(str(path)) as source, open_arrow(source, "a result") as reader:
        yield from reader
