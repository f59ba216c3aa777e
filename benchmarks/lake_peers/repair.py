"""How long a network needs until a dataset has all its copies again, after one of its nodes was lost.

Four nodes, each a process of its own; one writes a dataset with two copies of each shard, so each other
node has a third of it. When one of these is killed, the two that are left fetch its third from the writer,
which sends at most so many bytes in a second: no less time is possible.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .nodes import Nodes, wait_until

__all__ = ["run"]

_WRITER, _LOST = "oslo", "pune"
_HOLDERS = ("rome", "lima", _LOST)
_SHARDS = 64


def run(megabytes: int, rate_bytes: int) -> None:
    """Print how long the repair takes, and how long at least.

    Args:
        megabytes: The size of the dataset.
        rate_bytes: As the setting `network.copy_rate_bytes` of each node.
    """
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with Nodes(folder, [_WRITER, *_HOLDERS], rate_bytes) as nodes:
            _fill(nodes, folder, megabytes)
            wait_until(lambda: _copies(nodes) == 2 * _SHARDS)
            lost = [(size, here) for _, size, here in nodes[_LOST].call("shards", dataset="big")]
            size = sum(size for size, is_here in lost if is_here)
            nodes.kill(_LOST)
            started = time.perf_counter()
            nodes[_WRITER].call("repair")
            wait_until(lambda: _copies(nodes) == 2 * _SHARDS)
            took = time.perf_counter() - started
    least = size / rate_bytes
    print(f"\nrepair: one of 4 nodes lost, with {size / 1e6:.0f} MB of {megabytes} MB in 2 copies")
    print(f"at {rate_bytes / 1e6:.1f} MB/s: {took:.1f} s, {took / least:.2f} x the {least:.1f} s "
          "that the limit allows")  # fmt: skip


def _fill(nodes: Nodes, folder: Path, megabytes: int) -> None:
    writer = nodes[_WRITER]
    for _ in range(_SHARDS):
        rows = megabytes * 1_000_000 // _SHARDS // 8
        values = pa.array(memoryview(os.urandom(rows * 8)).cast("q"))
        file = folder / "part.parquet"
        pq.write_table(pa.table({"value": values}), file)
        writer.call("append", dataset="big", file=str(file))
    writer.call("share", dataset="big", copies=2)


def _copies(nodes: Nodes) -> int:
    """Return how many shards are at the nodes together."""
    return sum(here for node in nodes for *_, here in node.call("shards", dataset="big"))
