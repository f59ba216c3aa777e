"""The verbs that run a pipeline's plan and return, print or write its rows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from elytra.client.job_choices import JobChoices, request_members
from elytra.client.job_handle import Job
from elytra.client.result import Result
from elytra.pipelines.failing_step import naming_step
from elytra.pipelines.origin import Origin
from elytra.pipelines.writing import write_file
from elytra.splitter import split
from emsqrt.plan import Limit, Plan
from sennit_core.errors import Unsupported, UsageError
from sennit_core.optional import import_optional
from sennit_core.records import DatasetInfo

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


class Runnable:
    """A plan and where it runs; `Pipeline` adds the verbs that extend the plan."""

    __slots__ = ()

    if TYPE_CHECKING:  # the fields of `Pipeline`
        plan: Plan
        _origin: Origin

    def submit(
        self,
        engine: str = "auto",
        mem_cap: str | int | None = None,
        **choices: Unpack[JobChoices],
    ) -> Job:
        """Start the job and return immediately.

        Args:
            engine: The backend; "auto" lets the node choose.
            mem_cap: Memory limit of each task, such as "64MiB".
            choices: How the job runs, such as its priority.
        """
        options = request_members(choices) | ({} if mem_cap is None else {"memCap": mem_cap})
        with naming_step(self.plan, self._origin.schema):
            return self._origin.runner.submit(self.plan, engine=engine, **options)

    def distribute(
        self,
        engine: str = "auto",
        mem_cap: str | int | None = None,
        timeout_seconds: float | None = None,
        **choices: Unpack[JobChoices],
    ) -> Result:
        """Run on the node and wait for the result; a timeout or Ctrl-C cancels the job.

        Raises:
            SennitError: The job's error.
            DeadlineExceeded: The job ran longer than the timeout.
        """
        options = request_members(choices) | ({} if mem_cap is None else {"memCap": mem_cap})
        runner = self._origin.runner
        with naming_step(self.plan, self._origin.schema):
            return runner.run(self.plan, timeout_seconds=timeout_seconds, engine=engine, **options)

    def collect(self) -> Result:
        """Run and return the result."""
        return self.distribute()

    def to_arrow(self) -> pa.Table:
        """Run and return the result as a pyarrow Table."""
        return self.collect().to_arrow()

    def df(self) -> pd.DataFrame:
        """Run and return the result as a pandas DataFrame."""
        import_optional("pandas", ".df()")  # fail before the job runs, not after
        return self.collect().df()

    def pl(self) -> pl.DataFrame:
        """Run and return the result as a polars DataFrame."""
        import_optional("polars", ".pl()")
        return self.collect().pl()

    to_pandas = df
    to_polars = pl

    def write_csv(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the result to a local CSV file, batch by batch; return its path."""
        return self._write("csv", path)

    def write_json(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the result to a local JSON Lines file: one object per line."""
        return self._write("json", path)

    def write_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the result to a local Parquet file."""
        return self._write("parquet", path)

    def save_as(
        self,
        name: str,
        mode: str = "create",
        engine: str = "auto",
        mem_cap: str | int | None = None,
    ) -> DatasetInfo:
        """Run on the node and save the rows there as a dataset; return its record.

        Args:
            name: The dataset's name.
            mode: "create", "append" or "replace".
            engine: The backend; "auto" lets the node choose.
            mem_cap: Memory limit of each task.

        Raises:
            Conflict: The mode is "create" and there is such a dataset.
            Unsupported: The pipeline belongs to `Elytra.local()`, or reads an encrypted dataset.
        """
        if self._origin.local is not None:
            raise Unsupported(
                "save_as stores a dataset on a node, and Elytra.local() has none",
                hint="write_parquet(path), or cache()",
            )
        return self.submit(engine, mem_cap).save_as(name, mode)

    def _write(self, form: str, path: str | os.PathLike[str]) -> Path:
        if self._origin.local is not None:
            return self._origin.local.write(form, path, self.plan)
        schema = split(self.plan, self._origin.schema).schema
        return write_file(form, path, schema.to_arrow(), self.iter_results())

    def iter_results(self) -> Iterator[pa.RecordBatch]:
        """Run and yield the result batch by batch; it may be larger than memory."""
        if self._origin.local is not None:
            return self._origin.local.batches(self.plan)
        return self.submit().iter_results()

    def show(self, count: int = 20) -> None:
        """Run and print the first rows."""
        if count < 0:
            raise UsageError(f"show({count}): it cannot be negative")
        first = self._origin.runner.run(Limit(self.plan, count), engine="auto")
        sys.stdout.write(f"{first}\n")
