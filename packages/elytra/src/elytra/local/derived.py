"""Sources that are computed when a plan runs: the results of Python functions, and cached rows."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from elytra.local.python_steps import SAMPLE_ROWS, PythonStep, Rows
from emsqrt.plan import DatasetRef, Limit, Plan, Scan
from sennit_core.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

    from elytra.tracing.function import Shape

Read: TypeAlias = "Callable[[Plan], Iterator[pa.RecordBatch]]"
"""Runs a plan and yields its batches."""

_number = itertools.count(1)


class Derivation:
    """How the rows of a derived source are made.

    Args:
        upstream: The plan whose rows it is made of.
        step: The function that is applied to them; None for rows that are only kept.
        schema: The columns of the rows.
        shape: The form in which later functions receive a row.
        keep: Whether the rows are computed once and kept until the session is closed.
    """

    def __init__(
        self,
        upstream: Plan,
        step: PythonStep | None,
        schema: Schema,
        shape: Shape,
        *,
        keep: bool = False,
    ) -> None:
        self.upstream = upstream
        self.step = step
        self.schema = schema
        self.shape = shape
        self.keep = keep
        self.kept: Path | None = None  # the rows of a kept source, once they were computed
        self.lock = Lock()  # held while they are: two runs at the same time compute them once

    def batches(self, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Apply the function to the rows of the upstream plan."""
        if self.step is None:
            yield from rows
            return
        at = 0
        for output in self.step.outputs(rows):
            batch = output.typed(self.schema, self.shape, self.step.label, at)
            at += batch.num_rows
            yield batch

    def keep_at(self, path: Path) -> None:
        """Record where the rows are; the file is deleted when no pipeline uses them any more."""
        self.kept = path
        weakref.finalize(self, path.unlink, missing_ok=True)

    def __str__(self) -> str:
        return "cached rows" if self.step is None else self.step.label


@dataclass(frozen=True, slots=True)
class DerivedSource(DatasetRef):
    """A source of a local plan; its rows are written to a file before the plan reads them."""

    derivation: Derivation | None = field(default=None, compare=False, repr=False)


def derived_scan(derivation: Derivation) -> Scan:
    """Return a scan of a new source."""
    # The number makes the names of two sources different, as plans are compared by their text.
    source = DerivedSource(f"{derivation} #{next(_number)}", derivation=derivation)
    return Scan(source, derivation.schema)


def sample_outputs(
    step: PythonStep, upstream: Plan, schema: Schema, read: Read
) -> tuple[Schema, Shape]:
    """Call a function with the first rows to find the columns and the form of its result.

    Raises:
        StepFailed: The function fails, or its values have no type.
        UsageError: It returns no rows.
    """
    if step.verb == "filter":
        return schema, step.shape
    outputs = step.outputs(_first_rows(upstream, read))
    found: list[Any] = []
    for output in outputs:
        if not isinstance(output, Rows):
            return output.infer(step.label)
        found += output.values
        if len(found) >= SAMPLE_ROWS:
            break
    return Rows(found[:SAMPLE_ROWS]).infer(step.label)


def _first_rows(upstream: Plan, read: Read) -> Iterable[pa.RecordBatch]:
    return read(Limit(upstream, SAMPLE_ROWS))
