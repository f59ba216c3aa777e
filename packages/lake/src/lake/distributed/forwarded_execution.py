"""A running change of a dataset that another node writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError as FutureCancelled
from typing import TYPE_CHECKING, Any, Self

from sennit_core.errors import Cancelled
from sennit_core.records import Progress

if TYPE_CHECKING:
    from concurrent.futures import Future

    import pyarrow as pa

    from emsqrt.executor import Execution
    from lake.distributed.remote_shards import Changed

__all__ = ["ForwardedChange"]


class ForwardedChange:
    """A change that another node makes, with the methods of `WriteExecution`.

    Args:
        change: How it ends.
        send: Starts what sends its result.
        end: Removes what it has used here.
    """

    engine = "duckdb"
    pid = 0  # no process of this node runs it
    progress = Progress()

    def __init__(
        self,
        change: Future[Changed],
        send: Callable[[Changed], Execution],
        end: Callable[[], object],
    ) -> None:
        self._change = change
        self._send = send
        self._end = end
        self._execution: Execution | None = None

    @property
    def done(self) -> bool:
        """Whether the change is made, or refused."""
        return self._change.done()

    @property
    def awaited_version(self) -> int | None:
        """The version with the change, if it has not reached this node in time; None if it has."""
        made = self._made()
        return None if made.is_here else made.version

    @property
    def queued(self) -> str | None:
        """The id of the change if it waits for the other node; None if it is made."""
        return self._made().queued or None

    def payloads(self) -> Iterator[memoryview]:
        """Wait for the change, then yield the result's bytes."""
        return self._sent().payloads()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Wait for the change, then yield the result (format `arrow` only)."""
        return self._sent().batches()

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Return `count`, `version`, `isHere`, `columns`, `engine` and `inputs`, and `queued` if it waits; blocks.

        Args:
            timeout: Has no effect, as in `WriteExecution`.
        """
        del timeout
        made = self._made()
        answer = self._sent().result()
        return {
            "rows": answer["rows"],
            "count": made.count,
            "version": made.version,
            "isHere": made.is_here,
            **({"queued": made.queued} if made.queued else {}),
            "columns": answer["columns"],
            "truncated": answer["truncated"],
            "engine": self.engine,
            "inputs": [],
        }

    def _sent(self) -> Execution:
        if self._execution is None:
            self._execution = self._send(self._made())
        return self._execution

    def _made(self) -> Changed:
        try:
            return self._change.result()
        except FutureCancelled:
            raise Cancelled("the statement") from None

    def cancel(self) -> None:
        """Request cancellation; a change that is committed stays."""
        self._change.cancel()
        if self._execution is not None:
            self._execution.cancel()

    def close(self) -> None:
        """Cancel it if it is not made yet; may be called twice."""
        self._change.cancel()
        if self._execution is not None:
            self._execution.close()
        # If rows are still written to its folder, that ends with an error of the future.
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
