"""A query on its way: an execution that keeps the shards it reads, and its answer as a value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from sennit_core.errors import UsageError

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow as pa

    from emsqrt.executor import Execution
    from sennit_core.records import Progress

__all__ = ["QueryExecution", "Result", "check_parameters"]


class QueryExecution:
    """An `Execution` whose shards stay until it is closed, even when their dataset is deleted.

    A context manager; leaving it cancels what still runs.
    """

    def __init__(self, execution: Execution, release: Callable[[], None]) -> None:
        self._execution = execution
        self._release: Callable[[], None] | None = release

    @property
    def pid(self) -> int:
        """The process that works on it."""
        return self._execution.pid

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._execution.progress

    @property
    def done(self) -> bool:
        """Whether it has ended; payloads may still be waiting."""
        return self._execution.done

    def payloads(self) -> Iterator[memoryview]:
        """The answer's bytes; each view is valid until the next is asked for."""
        return self._execution.payloads()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The answer as Arrow batches (format `arrow` only)."""
        return self._execution.batches()

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """`rows`, `bytes`, `truncated`, `columns`; raises the query's error."""
        return self._execution.result(timeout)

    def cancel(self) -> None:
        """Ask it to stop."""
        self._execution.cancel()

    def close(self) -> None:
        """Cancel what still runs and give the shards back; closing twice is fine."""
        release, self._release = self._release, None
        if release is not None:
            try:
                self._execution.close()
            finally:
                release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Result:
    """A query's whole answer, held in memory.

    Args:
        table: The rows.
        manifest: What the query's execution told: rows, bytes, columns, snapshots read.
    """

    def __init__(self, table: pa.Table, manifest: dict[str, Any]) -> None:
        self._table = table
        self.manifest = manifest

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._table.column_names)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The rows as tuples of Python values."""
        columns = [column.to_pylist() for column in self._table.columns]
        return list(zip(*columns, strict=True))

    @property
    def value(self) -> Any:
        """The only value of an answer of one row and one column."""
        if (self._table.num_rows, self._table.num_columns) != (1, 1):
            shape = f"{self._table.num_rows} rows and {self._table.num_columns} columns"
            raise ValueError(f"the answer has {shape}, not one value")
        return self._table.column(0)[0].as_py()

    def to_arrow(self) -> pa.Table:
        """The rows as a `pyarrow.Table`."""
        return self._table

    def df(self) -> pandas.DataFrame:
        """The rows as a `pandas.DataFrame`; needs pandas."""
        frame: pandas.DataFrame = self._table.to_pandas()
        return frame

    def pl(self) -> polars.DataFrame:
        """The rows as a `polars.DataFrame`; needs polars."""
        import polars

        frame = polars.from_arrow(self._table)
        assert isinstance(frame, polars.DataFrame)
        return frame

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return f"Result({len(self)} rows: {', '.join(self.columns)})"


def check_parameters(value: Any, place: str = "params") -> None:
    """Refuse parameters that no executor can be sent.

    Raises:
        UsageError: An integer is beyond 64 bits, or a text holds half a surrogate pair.
    """
    match value:
        case bool():
            return
        case int() if not -(1 << 63) <= value < 1 << 64:
            raise UsageError(
                f"{place}: an integer beyond 64 bits", hint="send it as text, and CAST it in SQL"
            )
        case str() if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UsageError(f"{place}: text holds half a surrogate pair")
        case list():
            for index, each in enumerate(value):
                check_parameters(each, f"{place}[{index}]")
        case dict():
            for name, each in value.items():
                check_parameters(name, f"a name in {place}")
                check_parameters(each, f"{place}.{name}")
