"""How a store keeps what it is given: the options of `ElkynStore`, and the disk they make."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import TypedDict, get_args

from elkyn._lmdb.environment import MAP_BYTES
from elkyn.disk import SYNC_SECONDS, Disk, Retention
from elkyn.durability import Durability
from sennit_core.clock import Clock
from sennit_core.errors import UsageError
from sennit_core.units import MIB, parse_bytes

__all__ = ["Following", "Options", "open_disk"]


class Options(TypedDict, total=False):
    """What `ElkynStore` takes beside its path.

    Args:
        durability: `always`: a write is on the disk when it returns. `interval`: at most
            `sync_interval_ms` later. `none`: when the system likes, and at `close`. With the last
            two an end of the process loses nothing; an end of the machine loses what was not
            synced, and may tear the file: the store is verified when it opens after one.
        sync_interval_ms: for durability `interval` (100).
        map_size: first size of the memory map (bytes or `64MiB`); it grows by itself.
        oplog_bytes_max: how much room the log of writes may take (bytes or `64MiB`).
        oplog_seconds_max: drop entries of the log that are older; None keeps them.
    """

    durability: Durability
    sync_interval_ms: float
    map_size: int | str
    oplog_bytes_max: int | str
    oplog_seconds_max: float | None


class Following(Options, total=False):
    """What `ElkynStore` takes in mode `replica` too.

    Args:
        cluster_url: of the server whose namespace is followed, as `https://host:9000`.
        token: an admin's credential there; `paths` and reading the log need one.
        paths: the subtrees to hold; all of the tree when left out.
    """

    cluster_url: str
    token: str | None
    paths: Iterable[str] | None


def open_disk(folder: FilePath | None, clock: Clock, options: Options | Following) -> Disk:
    """Open the folder of a store, or memory when there is none."""
    retention = Retention(
        bytes=parse_bytes(options.get("oplog_bytes_max", 64 * MIB)),
        seconds=options.get("oplog_seconds_max"),
        clock=clock,
    )
    durability = options.get("durability", "always")
    if durability not in get_args(Durability):
        raise UsageError(
            f"durability {durability!r} is not known",
            hint=f"there are {', '.join(get_args(Durability))}",
        )
    return Disk(
        folder,
        map_bytes=parse_bytes(options.get("map_size", MAP_BYTES)),
        durability=durability,
        sync_seconds=options.get("sync_interval_ms", SYNC_SECONDS * 1000) / 1000,
        retention=retention,
    )
