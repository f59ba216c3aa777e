"""`Elytra.local()`: the entry point of pipelines on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from elytra.local.inputs import source_of
from elytra.local.runner import LocalRunner
from elytra.pipelines.pipeline import Pipeline
from emsqrt.config import EngineConfig
from emsqrt.engine import Engine
from emsqrt.memory.auto import parse_cap
from emsqrt.plan import FileTarget, Plan
from emsqrt.process_setup import require_arrow
from sennit_core.schema import Schema

Data: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Iterable[Any]
"""What `LocalElytra.dataset` accepts; Arrow data and DataFrames are iterables, too."""


class LocalElytra:
    """A session of pipelines on this machine; close it, or use it as a context manager.

    Args:
        mem_cap: The most memory that the process of one run may use, such as "256MiB"; by default
            as `EMSQRT_MEM_CAP_BYTES` says, else 512 MiB. Python functions run in the caller's
            process, and results are read into it: both are outside of the cap.
        spill_dir: The folder of temporary files; by default as `EMSQRT_SPILL_DIR` says.
    """

    def __init__(
        self,
        mem_cap: str | int | None = None,
        spill_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        require_arrow("a local session")
        config = EngineConfig.from_environment()
        if mem_cap is not None:
            config = replace(config, mem_cap_bytes=parse_cap(mem_cap))
        if spill_dir is not None:
            config = replace(config, spill_dir=Path(spill_dir))
        self._runner = LocalRunner(Engine(config))

    def dataset(
        self, data: Data, *, schema: Mapping[str, str] | Schema | str | None = None, **options: Any
    ) -> Pipeline:
        """Begin a pipeline over data of this machine.

        Args:
            data: A path or pattern (`"logs/*.csv"`), or a list of `Path`: CSV, JSON Lines, Parquet
                or Arrow files, read where they are. Or values in memory, which are written to the
                session's folder at once: Arrow data, a pandas or polars DataFrame, a dict of
                columns, or rows (dicts, tuples, or single values).
            schema: The columns, `{"id": "Int64"}`; found in the data when None.
            options: For the reader of files, such as `delimiter` or `format`.

        Raises:
            NotFound: There is no such file.
            UsageError: The data is none of these.
            Unsupported: A column has a type that plans do not have.
        """
        rows, shape = source_of(data, self._runner.new_file(), schema, options)
        return Pipeline.over_rows(self._runner, rows, shape)

    @property
    def folder(self) -> Path:
        """The folder of the session's files: values in memory, and rows of Python functions."""
        return self._runner.folder

    def pipeline(self, plan: Plan) -> Pipeline:
        """Continue a plan over files, such as one of a document.

        Raises:
            NotFound: A file does not exist.
        """
        from emsqrt.planner import find_schema

        return Pipeline.over_rows(self._runner, find_schema(plan, Path.cwd()), "row")

    def write(self, pipeline: Pipeline, target: FileTarget) -> Path:
        """Run a pipeline of this session and write its rows as the sink of a document says."""
        return self._runner.write_to(target, pipeline.plan)

    def close(self) -> None:
        """Stop running jobs, end the executors and delete the session's files."""
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
