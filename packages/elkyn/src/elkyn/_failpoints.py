"""Named points where a test may stop the process for good; costs one comparison otherwise."""

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
    """Tell the hook, if a test has set one, that `point` is reached."""
    if hook is not None:
        hook(point)
