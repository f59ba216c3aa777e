"""What every format's ingest gets and returns: the job, and its shards with what was found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.catalog.layouts import Layout
from lake.encryption.files import EncryptedFile, Source, source_from_json
from lake.encryption.sealed import KEY_BYTES, Seal
from lake.ingest.background_writer import BACKGROUND_BYTES, BackgroundWriter, Writer
from lake.ingest.column_match import ColumnMatch, Defaults
from lake.ingest.encode import Report
from lake.ingest.rejects import Rejects
from lake.ingest.shards import Limits, Shard, ShardWriter
from lake.ingest.sniff import SAMPLE_BYTES
from lake.ingest.source import PartsFile
from lake.ingest.source_hash import SourceHash
from lake.objects.disk_space import WriteBudget, WriteLimit
from lake.statements.foreground import Background
from sennit_core.errors import BadInput
from sennit_core.file_kinds import unpacked_name
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["Ingested", "Job"]

_BACKGROUND_BYTES_MIN = 4 << 20
"""Size of a file from which on a second thread is worth its start."""

Ingested = tuple[list[Shard], pa.Schema, Report, dict[str, Any]]
"""The shards, their schema, the findings, and the detected properties of the file."""


class Job:
    """An ingest request, with the first bytes of the file."""

    def __init__(
        self, request: dict[str, Any], options: dict[str, Any], context: EntryContext
    ) -> None:
        self.paths = [source_from_json(path) for path in request["paths"]]
        self.name: str = request["name"]
        self.inner_name = unpacked_name(self.name)
        self.bytes_max: int | None = request.get("bytesMax")
        seal = request.get("seal")
        self.seal = None if seal is None else Seal.from_json(seal)
        self.space = WriteLimit.from_json(request.get("space"))
        self.folder = Path(request["folder"])
        self.options = options
        self.schema = Schema.from_json(request["schema"]) if request.get("schema") else None
        self.columns: list[int] | None = request.get("columns")
        self._defaults = Defaults.from_json(request.get("defaults"))
        # Of an upsert: a column that the file does not have would overwrite values with NULL.
        self._needs_all_columns: bool = request.get("allColumns", False)
        self.layout = Layout.from_json(request.get("layout"))
        self.context = context
        self._file_key = os.urandom(KEY_BYTES)
        self._uploaded = self.paths
        self.rejects: Rejects | None = None  # the rows that were left out, if there are any
        self._background = Background(request.get("statements"), waits=request.get("waits", False))
        self._bytes_done = 0
        self._rows = 0
        # 1 during the first reading; more while the beginning is encoded again after a widening.
        # Rows count only in the first, and the bytes of later ones are limited to the file's size.
        self._passes = 0
        self.read_from(self.paths)

    def match(self, names: Sequence[str], report: Report, line: int | None = None) -> ColumnMatch:
        """Return which columns of the file are those of the dataset that it is appended to.

        Raises:
            BadInput: They do not match.
        """
        assert self.schema is not None, "an append"
        found = ColumnMatch.of(
            self.schema,
            names,
            what=self.name,
            needs_all=self._needs_all_columns,
            line=line,
            defaults=self._defaults,
        )
        report.note_missing(found.missing, self._defaults.values)
        return found

    @property
    def is_unpacked(self) -> bool:
        """Whether another file is read than the one that was uploaded."""
        return self.paths != self._uploaded

    def new_file(self, name: str) -> Source:
        """Return a file that does not exist yet in the request's folder.

        It is encrypted if the dataset is, with a key that only this process has.
        """
        path = self.folder / name
        return path if self.seal is None else EncryptedFile(path, name, self._file_key)

    def read_from(self, paths: list[Source]) -> None:
        """Set the files to read, as one joined file."""
        self.paths = paths
        with PartsFile(paths) as file:
            self.size = file.size
            self.head = _read_head(file, SAMPLE_BYTES)
        if not self.size:
            raise BadInput(what=self.name, byte_offset=0, reason="the file is empty")

    def new_shard_writer(self, limits: Limits, columns: Sequence[int] | None = None) -> ShardWriter:
        """Return the writer of another pass over the file, into the request's folder.

        Args:
            limits: Of its shards.
            columns: The ids of the columns; None for those of the dataset.
        """
        self._passes += 1
        # Each pass anew: a later one replaces the shards of an earlier one.
        budget = self.new_budget()
        return ShardWriter(
            self.folder,
            limits,
            f"pass{self._passes}",
            columns or self.columns,
            budget=budget,
            seal=self.seal,
        )

    def new_writer(self, limits: Limits) -> Writer:
        """Return such a writer that works on a second thread.

        It does so if the file is large, and there is memory for what waits in between.
        """
        writer = self.new_shard_writer(limits)
        if self.size < _BACKGROUND_BYTES_MIN:
            return writer
        guard = self.context.budget.try_acquire(BACKGROUND_BYTES, "rows to write")
        if guard is None:
            return writer
        return BackgroundWriter(writer, guard, self._background.statements_run)

    def source_hash(self) -> SourceHash:
        """Return what hashes the uploaded file while it is read."""
        return SourceHash(self._uploaded, self._background.statements_run)

    def new_budget(self) -> WriteBudget:
        """Return the room for the shards of a pass."""
        return WriteBudget(self.space, self.folder, f"the ingest of {self.name!r}")

    def tick(self, bytes_read: int, rows: int) -> None:
        """Report progress; raise if the job was cancelled."""
        self._bytes_done += bytes_read
        if self._passes == 1:
            self._rows += rows
        self.context.check()
        self._background.wait(self.context.check)
        self.context.progress(
            bytes_done=min(self._bytes_done, self.size),
            bytes_total=self.size,
            rows=self._rows,
            phase="reading" if self._passes == 1 else "widening",
        )


def _read_head(file: PartsFile, count: int) -> bytes:
    """Read up to `count` bytes from the file's start, across parts."""
    pieces = []
    while count > 0 and (piece := file.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
