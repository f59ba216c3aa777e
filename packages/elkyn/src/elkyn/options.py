"""How a store keeps what it is given: the options of `ElkynStore`, and the disk they make."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import TypedDict

from elkyn._lmdb.environment import MAP_BYTES
from elkyn.disk import Disk, Retention
from sennit_core.clock import Clock
from sennit_core.units import MIB, parse_bytes

__all__ = ["Options", "open_disk"]


class Options(TypedDict, total=False):
    """What `ElkynStore` takes beside its path.

    Args:
        map_size: first size of the memory map (bytes or `64MiB`); it grows by itself.
        oplog_bytes_max: how much room the log of writes may take (bytes or `64MiB`).
        oplog_seconds_max: drop entries of the log that are older; None keeps them.
    """

    map_size: int | str
    oplog_bytes_max: int | str
    oplog_seconds_max: float | None


def open_disk(folder: FilePath | None, clock: Clock, options: Options) -> Disk:
    """Open the folder of a store, or memory when there is none."""
    retention = Retention(
        bytes=parse_bytes(options.get("oplog_bytes_max", 64 * MIB)),
        seconds=options.get("oplog_seconds_max"),
        clock=clock,
    )
    map_bytes = parse_bytes(options.get("map_size", MAP_BYTES))
    return Disk(folder, map_bytes=map_bytes, retention=retention)
