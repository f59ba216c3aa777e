"""Named failpoints where a test may kill the process; costs one comparison otherwise."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["POINTS", "reached"]

POINTS = (
    "applied",
    "between-environments",
    "committed",
    "grown",
    "rebuilt",
    "compacted",
    "copied",
)

hook: Callable[[str], None] | None = None


def reached(point: str) -> None:
    """Call the hook, if a test has set one, with the name of the reached `point`."""
    if hook is not None:
        hook(point)
