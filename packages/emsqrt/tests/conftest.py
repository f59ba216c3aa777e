from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emsqrt.executor import ExecutorPool

ENTRIES = Path(__file__).parent / "entries"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _entries_are_importable_in_executors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ENTRIES))
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)  # its allocators fill what they reserve


@pytest.fixture
def open_pool(tmp_path: Path) -> Iterator[Callable[..., ExecutorPool]]:
    """Opens pools that take the entries of `executor_entries`, and closes them."""
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
