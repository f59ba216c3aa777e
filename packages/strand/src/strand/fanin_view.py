"""The consuming end of a fan-in: reads the members round-robin, and sleeps once for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from sennit_core.errors import Corrupt, DeadlineExceeded
from strand import _native, layout
from strand.closing import Closing
from strand.consumer import Start
from strand.errors import ProducerDied, StrandAbortError
from strand.reading import (
    GROUP_RECORDS_MAX,
    ArrayReader,
    GroupReader,
    PayloadReader,
    Reader,
    RowReader,
    batch_reader,
)
from strand.role import NAP_NANOSECONDS, SPIN_NANOSECONDS
from strand.view import StrandView

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from strand.fanin_joins import JoinWatch
    from strand.ring import Ring

__all__ = ["FanInView"]

_POLLS = 8 if SPIN_NANOSECONDS else 0  # polls of all members before a sleep in the kernel

T = TypeVar("T")


class FanInView(Closing):
    """Reads the records of all producers of a fan-in, round-robin. Use it from one thread at a time.

    Records of one producer arrive in the order in which it wrote them; records of different
    producers arrive in any order. Iterating ends when every member's stream has ended. The death or
    abort of one producer does not stop the others: its published records are delivered, and its
    error is raised after all members have ended; `failures` has it earlier.
    """

    def __init__(
        self,
        rings: Sequence[Ring],
        doorbell: memoryview,
        start: Start = "oldest",
        categories: Sequence[str] | None = None,
    ) -> None:
        """Use `FanIn.consumer()`."""
        self.doorbell = doorbell  # the word that every wait sleeps on: four bytes
        self.members: tuple[StrandView, ...] = ()
        self._joins: JoinWatch | None = None
        self.failures: dict[int, Corrupt | ProducerDied | StrandAbortError | DeadlineExceeded] = {}
        try:
            for ring in rings:
                self.members += (ring.consumer(start, categories=categories),)
        except BaseException:
            self.close()
            raise
        self._live = dict(enumerate(self.members))
        self._looked = time.monotonic()

    members: tuple[StrandView, ...]
    """The view of each member, for reading them separately."""

    failures: dict[int, Corrupt | ProducerDied | StrandAbortError | DeadlineExceeded]
    """By member: why its stream failed."""

    @property
    def ended(self) -> bool:
        """Whether every member has ended and all records were read."""
        return not self._live

    def watch_joins(self, joins: JoinWatch) -> None:
        """Set the watch that drops members that will get no producer."""
        self._joins = joins

    # ---- iterating, which acknowledges automatically ----------------------------------------

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Iterate over typed records as tuples; each group is acknowledged after its last record."""
        return chain.from_iterable(self._read(RowReader, None))

    def row_groups(self, timeout_seconds: float | None = None) -> Iterator[list[tuple[Any, ...]]]:
        """Iterate over typed records as lists of tuples, each list of one producer.

        Args:
            timeout_seconds: how long to wait when there is no record to read; None: no limit.

        Raises:
            DeadlineExceeded: no record arrived in time.
            ProducerDied: at the end, if a producer died; likewise StrandAbortError.
        """
        return self._read(GroupReader, timeout_seconds)

    def payloads(self, timeout_seconds: float | None = None) -> Iterator[memoryview]:
        """Iterate over the payloads of a fan-in of block rings; see `StrandView.payloads`."""
        return self._read(PayloadReader, timeout_seconds)

    def batches(
        self, *, copy: bool = True, timeout_seconds: float | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Iterate over Arrow batches, each of one producer; see `StrandView.batches`."""
        return self._read(lambda view: batch_reader(view, copy=copy), timeout_seconds)

    def record_views(self, timeout_seconds: float | None = None) -> Iterator[np.ndarray[Any, Any]]:
        """Iterate over typed records as numpy structured arrays over the rings themselves."""
        return self._read(ArrayReader, timeout_seconds)

    # ---- waiting ----------------------------------------------------------------------------

    def wait(self, timeout_seconds: float | None = None) -> list[StrandView]:
        """Wait until members have unread records, and return those; empty at the timeout.

        Records read through a view must be acknowledged there (`acknowledge_read`). The list is also
        empty at the end: see `ended`.

        Raises:
            ProducerDied: every member has ended, and a producer died; likewise StrandAbortError.
        """
        self._wait([view.window_start for view in self.members], (), timeout_seconds)
        ready = [view for view in self.members if view.committed_count > view.window_start]
        if not ready and self.ended:
            self._raise_failures()
        return ready

    def signal_abort(self) -> None:
        """Ask every producer to stop; their next writes raise StrandAbortError."""
        for view in self.members:
            view.signal_abort()

    def close(self) -> None:
        """Release the role in every member."""
        for view in self.members:
            view.close()

    # ---- round-robin ------------------------------------------------------------------------

    def _read(
        self, make: Callable[[StrandView], Reader[T]], timeout_seconds: float | None
    ) -> Iterator[T]:
        """Read all members round-robin, at most GROUP_RECORDS_MAX records of each per round."""
        readers = [make(view) for view in self.members]
        return self._read_round_robin(readers, timeout_seconds)

    def _read_round_robin(
        self, readers: Sequence[Reader[T]], timeout_seconds: float | None
    ) -> Iterator[T]:
        positions = [view.window_start for view in self.members]
        while True:
            yield from self._sweep(readers, positions)
            if not self._wait(positions, readers, timeout_seconds):
                if self.ended:
                    self._raise_failures()
                    return
                raise DeadlineExceeded("waiting for the next record", timeout_seconds)

    def _sweep(self, readers: Sequence[Reader[T]], positions: list[int]) -> Iterator[T]:
        """Yield the available records of each member once, and advance the positions."""
        for index, view in list(self._live.items()):
            seq = positions[index]
            committed = view.committed_count
            if committed > seq:
                stop = min(committed, seq + GROUP_RECORDS_MAX)
                yield from readers[index].read_range(seq, stop)
                positions[index] = stop

    def _wait(
        self,
        positions: Sequence[int],
        readers: Sequence[Reader[Any]],
        timeout_seconds: float | None,
    ) -> bool:
        """Sleep until a member has a record beyond its position; False at the end or timeout."""
        for _ in range(_POLLS):
            if self._any_beyond(positions):
                return True
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while (bell := self._arm(positions, readers)) is not None:
            nap = NAP_NANOSECONDS
            if deadline is not None:
                nap = max(0, min(nap, int((deadline - time.monotonic()) * 1e9)))
                if nap == 0:
                    return False
            _native.nap_any([self.doorbell], [bell], nap)
        return not self.ended

    def _arm(self, positions: Sequence[int], readers: Sequence[Reader[Any]]) -> int | None:
        """Arm all members, then check them; return the bell to sleep on, or None not to sleep.

        None when a member has a record beyond its position, or when all have ended.
        """
        for reader in readers:
            reader.acknowledge_released()
        # The bell is read before the check: a record published after the check changes it.
        bells = [
            view._arm(positions[index] + 1)  # noqa: SLF001 - of one package
            for index, view in self._live.items()
        ]
        if self._any_beyond(positions) or self._any_left(positions) or self.ended:
            return None
        return bells[0]

    def _any_beyond(self, positions: Sequence[int]) -> bool:
        return any(view.committed_count > positions[index] for index, view in self._live.items())

    def _any_left(self, positions: Sequence[int]) -> bool:
        """Drop ended members; return whether one of them has unread records left.

        Status words are checked on every call. The locks that show which processes are alive need
        system calls, so they are checked once per nap.
        """
        now = time.monotonic()
        locks_too = (now - self._looked) * 1e9 >= NAP_NANOSECONDS
        if locks_too:
            self._looked = now
            self._drop_vacant()
        for index, view in list(self._live.items()):
            if not (locks_too or view._status() >= layout.EOS or view._aborted()):  # noqa: SLF001
                continue
            failure = view.find_failure()
            if failure is None and view._status() != layout.EOS:  # noqa: SLF001
                continue
            if (
                view.committed_count > positions[index]
            ):  # read after the status: once ended, the count is final
                return True
            del self._live[index]
            if failure is not None:
                self.failures[index] = failure
        return False

    def _drop_vacant(self) -> None:
        """Drop the members that will get no producer."""
        if self._joins is None:
            return
        for index, error in self._joins.find_failures().items():
            self._live.pop(index, None)
            self.failures[index] = error

    def _raise_failures(self) -> None:
        """Raise the first member's failure, which names the others."""
        if not self.failures:
            return
        first, *others = sorted(self.failures)
        error = self.failures[first]
        if not getattr(error, "__notes__", None):
            for index in others:
                error.add_note(f"member {index} too: {self.failures[index]}")
        raise error
