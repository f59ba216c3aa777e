"""What a lake opens itself if its owner does not pass it: the tree and the executors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sennit_core.units import parse_bytes

if TYPE_CHECKING:
    from elkyn import ElkynStore
    from emsqrt.executor import ExecutorPool

__all__ = ["open_pool", "open_tree"]


def open_tree(folder: Path) -> ElkynStore:
    """Open the namespace `sys` of a data folder."""
    from elkyn import ElkynStore

    return ElkynStore(folder / "elkyn" / "sys", namespace="sys")


def open_pool(folder: Path, memory_bytes: int | str) -> ExecutorPool:
    """Open a pool of one executor, which starts at its first use."""
    from emsqrt.executor import ExecutorPool

    return ExecutorPool(1, memory_bytes=parse_bytes(memory_bytes), spill_dir=folder / "spill")
