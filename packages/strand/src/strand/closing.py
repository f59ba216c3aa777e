"""Base classes: context managers that close, and owners of a mapped segment."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from strand.segment import Segment

__all__ = ["AsyncClosing", "Closing", "Mapped"]


class Closing:
    """Closes at the end of its `with`."""

    if TYPE_CHECKING:

        def close(self) -> None:
            """Release everything that is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClosing:
    """Closes at the end of its `async with`."""

    if TYPE_CHECKING:

        def close(self) -> None:
            """Release everything that is held."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Mapped(Closing):
    """Owns a mapped segment, and can be passed to a process that multiprocessing starts."""

    segment: Segment

    if TYPE_CHECKING:

        def _attacher(self) -> Callable[[int], Any]:
            """Return the function that attaches to a segment of this kind by descriptor."""

    def fileno(self) -> int:
        """The descriptor to pass to another process (`subprocess.Popen(pass_fds=...)`)."""
        return self.segment.fileno()

    def __del__(self) -> None:
        segment = getattr(self, "segment", None)  # None when __init__ failed
        if segment is not None and not segment.closed:
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pass the descriptor to a process that multiprocessing is starting."""
        from multiprocessing import context, reduction

        if context.get_spawning_popen() is None:
            raise TypeError(
                f"cannot pickle a {type(self).__name__} except to start a process: pass it as an "
                "argument of multiprocessing.Process, or pass its fileno()"
            )
        # the descriptor, not the name: it also passes anonymous memory, and the same file
        return _attach_handed, (self._attacher(), reduction.DupFd(self.fileno()))


def _attach_handed(attach: Callable[[int], Any], handed: Any) -> Any:
    fd = handed.detach()
    try:
        return attach(fd)
    finally:
        os.close(fd)  # the segment has opened the file for itself
