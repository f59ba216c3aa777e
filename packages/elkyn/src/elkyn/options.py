"""The options of `ElkynStore`, and the opening of its files with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import TypedDict, get_args

from elkyn.storage.disk import SYNC_SECONDS, Disk, Retention
from elkyn.storage.durability import Durability
from elkyn.storage.environment import MAP_BYTES
from sennit_core.clock import Clock
from sennit_core.errors import UsageError
from sennit_core.units import MIB, parse_bytes

__all__ = ["Following", "Options", "open_disk"]


class Options(TypedDict, total=False):
    """Options of `ElkynStore`.

    Args:
        durability: when writes are synced to the disk. `always`: before the write returns.
            `interval`: at most `sync_interval_ms` later. `none`: when the operating system writes
            its page cache back, and at `close`. With `interval` and `none` a crash of the process
            loses nothing; a crash of the machine loses unsynced writes and may tear the file: the
            store is then verified when it opens.
        sync_interval_ms: for durability `interval` (100).
        map_size: initial size of the memory map (bytes or `64MiB`); it grows as needed.
        oplog_bytes_max: the maximum size of the log of writes (bytes or `64MiB`).
        oplog_seconds_max: drop log entries older than this; None keeps them.
    """

    durability: Durability
    sync_interval_ms: float
    map_size: int | str
    oplog_bytes_max: int | str
    oplog_seconds_max: float | None


class Following(Options, total=False):
    """Additional options of `ElkynStore` in mode `replica`.

    Args:
        cluster_url: the URL of the leader, for example `https://host:9000`.
        token: an admin credential of the leader; `paths` and reading the log need one.
        paths: the subtrees to replicate; without it, the whole tree.
    """

    cluster_url: str
    token: str | None
    paths: Iterable[str] | None


def open_disk(folder: FilePath | None, clock: Clock, options: Options | Following) -> Disk:
    """Open the folder of a store, or an in-memory store when `folder` is None."""
    retention = Retention(
        bytes=parse_bytes(options.get("oplog_bytes_max", 64 * MIB)),
        seconds=options.get("oplog_seconds_max"),
        clock=clock,
    )
    durability = options.get("durability", "always")
    if durability not in get_args(Durability):
        raise UsageError(
            f"unknown durability {durability!r}",
            hint=f"use one of {', '.join(get_args(Durability))}",
        )
    return Disk(
        folder,
        map_bytes=parse_bytes(options.get("map_size", MAP_BYTES)),
        durability=durability,
        sync_seconds=options.get("sync_interval_ms", SYNC_SECONDS * 1000) / 1000,
        retention=retention,
    )
