from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from emsqrt.executor import ExecutorPool

ENTRIES = Path(__file__).parent / "entries"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _entries_are_importable_in_executors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ENTRIES))


@pytest.fixture
def open_pool(tmp_path: Path) -> Iterator[Callable[..., ExecutorPool]]:
    """Open pools that run the entries of `executor_entries`, and close them."""
    pools: list[ExecutorPool] = []

    def opened(size: int = 1, memory_bytes: int = 256 * MIB, **options: Any) -> ExecutorPool:
        options.setdefault("spill_dir", tmp_path / "spill")
        pool = ExecutorPool(size, memory_bytes=memory_bytes, allow_module_entries=True, **options)
        pools.append(pool)
        return pool

    yield opened
    for pool in pools:
        pool.close()


@pytest.fixture
def pool(open_pool: Callable[..., ExecutorPool]) -> ExecutorPool:
    return open_pool()


class Oracle:
    """DuckDB as the reference for SQL semantics; no test holds an object of it past the session."""

    def __init__(self) -> None:
        self._connection: Any = duckdb.connect(config={"threads": 1})

    def ask(self, query: str, table: pa.Table) -> list[list[Any]]:
        """Return the columns of the answer to a query over the table `t`."""
        self._connection.register("t", table)
        answer = self._connection.execute(query)
        rows = answer.fetchall()
        return [[row[index] for row in rows] for index in range(len(answer.description))]

    def close(self) -> None:
        self._connection.close()
        self._connection = None


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    connection = Oracle()
    yield connection
    connection.close()
