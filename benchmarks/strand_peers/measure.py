"""One measurement in a process group of its own: a clock, both sides' CPU time, a checksum.

A peer that hangs or dies costs its own line only: its group is killed, and nobody else's.
"""

from __future__ import annotations

import gc
import multiprocessing as mp
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

__all__ = [
    "FORK",
    "Clock",
    "Figure",
    "Job",
    "Transport",
    "guarded",
    "run_transport",
    "telling_failures",
]

FORK = mp.get_context("fork")

_answers: list[Any] = []  # where a run's processes answer; its guard is forked with none

Send = Callable[[Sequence[Any]], None]
Receive = Callable[[int], float]


class Transport(NamedTuple):
    """Two ends, opened before the fork and entered in the process they belong to.

    `sender` yields a function that sends a list of messages; `receiver` yields one that takes a
    number of units (records, or messages where they have no records) and returns their checksum.
    """

    sender: Callable[[], AbstractContextManager[Send]]
    receiver: Callable[[], AbstractContextManager[Receive]]


class Job(Protocol):
    """What is sent: built in the sender's process, before the clock starts."""

    @property
    def units(self) -> int: ...

    @property
    def weight(self) -> float:
        """What one unit counts in the table: 1 for a record, or its bytes."""

    @property
    def checksum(self) -> float: ...

    def messages(self) -> Sequence[Any]: ...

    def warm_up(self) -> tuple[int, int]:
        """Return how many of the first messages go before the clock, and their units."""


@dataclass(frozen=True)
class Figure:
    """One run's result in the table's unit, with the CPU seconds of both sides for `work` units."""

    value: float
    cpu_seconds: float
    work: float
    note: str = ""


class Clock:
    """Wall and CPU time of this process since it was made."""

    def __init__(self) -> None:
        self._began, self._used = time.perf_counter(), _cpu_seconds()

    def read(self) -> tuple[float, float, float]:
        """Return when it began, what time it is, and the CPU seconds between."""
        return self._began, time.perf_counter(), _cpu_seconds() - self._used


def run_transport(transport: Transport, job: Job) -> Figure:
    """Send a job from a forked process to this one, after a warm-up; return work a second."""
    gate = FORK.Barrier(2)
    sent = FORK.RawArray("d", 2)

    def produce() -> None:
        with telling_failures():
            messages = job.messages()
            gc.collect()
            gc.freeze()
            with transport.sender() as send:
                send(messages[: job.warm_up()[0]])
                gate.wait()
                clock = Clock()
                send(messages)
            sent[0], _, sent[1] = clock.read()

    child = FORK.Process(target=produce)
    child.start()
    with transport.receiver() as receive:
        receive(job.warm_up()[1])
        gate.wait()
        clock = Clock()
        total = receive(job.units)
        began, ended, used = clock.read()
    child.join()
    if total != job.checksum:
        raise ValueError(f"the checksum is {total}, not {job.checksum}: records were lost")
    work = job.units * job.weight
    return Figure(work / (ended - min(began, sent[0])), used + sent[1], work)


def guarded(run: Callable[[], Figure], limit_seconds: float) -> Figure | str:
    """Run in a process group of its own; the figure, or why there is none."""
    ours, theirs = FORK.Pipe(duplex=False)
    guard = FORK.Process(target=_report, args=(run, theirs))
    guard.start()
    assert guard.pid is not None
    os.setpgid(guard.pid, guard.pid)
    theirs.close()
    try:
        if not ours.poll(limit_seconds):
            return f"no answer in {limit_seconds:g} s"
        return ours.recv()
    except EOFError:
        return "its process died"
    finally:
        os.killpg(guard.pid, signal.SIGKILL)  # it has answered, or never will; not reaped yet
        guard.join()
        ours.close()


def _report(run: Callable[[], Figure], answer: Any) -> None:
    _answers.append(answer)
    with telling_failures():
        answer.send(run())


@contextmanager
def telling_failures() -> Iterator[None]:
    """Answer for the whole run with what went wrong here, in whichever of its processes."""
    try:
        yield
    except ImportError as error:
        _answers[0].send(f"not installed: {error.name}")
    except Exception as error:  # noqa: BLE001 - one peer's trouble is a line of the table
        if os.environ.get("BENCH_TRACE"):
            traceback.print_exc()
        _answers[0].send(f"{type(error).__name__}: {error}"[:110])


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
