"""Shards of other nodes' datasets that a task reads, and this node lacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from elytra.backends import NodeFiles

if TYPE_CHECKING:
    from lake import Lake

__all__ = ["foreign_shards"]


def foreign_shards(lake: Lake, files: NodeFiles) -> list[str]:
    """Return the objects that must be fetched before a task can run here; the job leases them."""
    found = {name: lake.catalog.find_known(id_) for name, id_ in files.datasets.items()}
    foreign = {name for name, info in found.items() if info is not None and info.node}
    names = [Path(each.path).name for each in files.shards if each.dataset in foreign]
    return names if lake.remote.lacks_any(names) else []
