"""Which views read which: limits of depth and size, and no cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sennit_core.errors import SqlError

__all__ = ["check_view_graph"]

_DEPTH_MAX = 16
_REFERENCES_MAX = 256
"""Tables that DuckDB puts in the place of one view: two references in each of 16 views of views would
be 65,536 scans."""


def check_view_graph(name: str, reads: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the views that a view reads, itself last, each after those that it reads.

    Args:
        name: The view.
        reads: What each view reads, once for each occurrence, by its casefolded name.

    Raises:
        SqlError: It reads itself, views of views of too many levels, or too many tables.
    """
    sizes: dict[str, int] = {}  # finished views, in the order of their end
    path: list[str] = []

    def visit(view: str) -> int:
        folded = view.casefold()
        if folded not in reads:
            return 1
        if folded in sizes:
            return sizes[folded]
        if folded in path:
            shown = " → ".join([*path[path.index(folded) :], folded])
            raise SqlError(f"view {view!r} reads itself: {shown}", hint="name a dataset instead")
        if len(path) == _DEPTH_MAX:
            raise SqlError(
                f"view {name!r} has more than {_DEPTH_MAX} levels of views",
                hint="create a dataset of an inner one: CREATE TABLE … AS SELECT …",
            )
        path.append(folded)
        size = sum(visit(each) for each in reads[folded])
        path.pop()
        if size > _REFERENCES_MAX:
            raise SqlError(
                f"view {view!r} reads {size} tables with those of its views; {_REFERENCES_MAX} "
                "are allowed",
                hint="create a dataset of an inner view: CREATE TABLE … AS SELECT …",
            )
        sizes[folded] = size
        return size

    visit(name)
    return list(sizes)
