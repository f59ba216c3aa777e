"""Detection of fan-in producers that never claimed their member."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sennit_core.errors import Closed, DeadlineExceeded
from strand import layout
from strand.errors import ProducerDied, RoleTaken

if TYPE_CHECKING:
    from strand.ring import Ring

__all__ = ["JoinWatch"]


class JoinWatch:
    """Finds members that will get no producer, and ends their streams.

    Args:
        rings: the members.
        processes: of the producers: objects of `multiprocessing.Process` or `subprocess.Popen`.
        join_seconds: how long members may stay without a producer; None: no limit.
    """

    def __init__(
        self, rings: Sequence[Ring], processes: Sequence[Any], join_seconds: float | None
    ) -> None:
        self._rings = rings
        self._processes = tuple(processes)
        self._join_seconds = join_seconds
        self._began = time.monotonic()

    def find_failures(self) -> dict[int, ProducerDied | DeadlineExceeded]:
        """End the members that will get no producer; return why, by member."""
        # Processes before members: a process claims its member before it ends.
        ended = [process.pid for process in self._processes if _has_ended(process)]
        producers = [layout.holder_of(ring.memory, layout.PRODUCER_AT)[0] for ring in self._rings]
        vacant = [index for index, pid in enumerate(producers) if not pid]
        failures: dict[int, ProducerDied | DeadlineExceeded] = {}
        for pid in ended:
            if vacant and pid not in producers:
                what = "a producer of the fan-in that had not claimed a member"
                self._end(vacant.pop(), ProducerDied(what=what, pid=pid), failures)
                self._processes = tuple(p for p in self._processes if p.pid != pid)
        if self._join_seconds is not None and time.monotonic() > self._began + self._join_seconds:
            for index in vacant:
                what = f"waiting for a producer of member {index} of the fan-in"
                self._end(index, DeadlineExceeded(what, self._join_seconds), failures)
        return failures

    def _end(
        self,
        index: int,
        error: ProducerDied | DeadlineExceeded,
        failures: dict[int, ProducerDied | DeadlineExceeded],
    ) -> None:
        with suppress(RoleTaken, ProducerDied, Closed):  # a producer claimed it meanwhile
            writer = self._rings[index].producer()
            writer.abort(str(error))
            writer.close()
            failures[index] = error


def _has_ended(process: Any) -> bool:
    poll = getattr(process, "poll", None)
    code = process.exitcode if poll is None else poll()
    return code is not None
