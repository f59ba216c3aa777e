"""What parts of queries are called, by the executor that reads them and by the node that asks others for them."""

from __future__ import annotations

__all__ = ["part_of_query"]


def part_of_query(name: str) -> str:
    """Return what a part of a query's result from another node is called in errors.

    Args:
        name: The name of its file without suffix, which the query has once.
    """
    return f"part {name} of the query's result from another node"
