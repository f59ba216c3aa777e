"""Watch a process tree from outside, and kill it when it exceeds a cap.

The measure is RssAnon + RssShmem of /proc/PID/status (proc(5)), summed over the tree: what a memory
cgroup charges, less page cache, which the kernel can reclaim. Pages that two processes of the tree
share count twice. A spike between two readings is missed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from emsqrt.memory.usage import UsageReader
from emsqrt.race.trace import Trace

LOOK_SECONDS = 0.005
_FOLDER_SECONDS = 0.1
_WORDS_BYTES = 1 << 16


class TreeReader:
    """Read the memory of a process and its descendants. A context manager.

    Args:
        pid: the root of the tree.
    """

    def __init__(self, pid: int) -> None:
        self._root = pid
        self._readers: dict[int, UsageReader] = {}

    def charged_bytes(self) -> int:
        """Return the current RssAnon + RssShmem of the whole tree; 0 when it has ended."""
        alive = self.pids()
        for gone in self._readers.keys() - alive:
            self._readers.pop(gone).close()
        total = 0
        for pid in alive:
            with suppress(OSError):
                reader = self._readers.get(pid) or self._readers.setdefault(pid, UsageReader(pid))
                total += reader.read().charged_bytes
        return total

    def pids(self) -> list[int]:
        """Return the processes of the tree, the root first."""
        pids = [self._root]
        for pid in pids:
            with suppress(OSError):
                for task in os.scandir(f"/proc/{pid}/task"):
                    with suppress(OSError):  # the thread has ended; count the others
                        pids += map(int, Path(task.path, "children").read_bytes().split())
        return pids

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


@dataclass(frozen=True, slots=True)
class MemorySample:
    """One reading of a running command."""

    seconds: float
    held_bytes: int
    spilled_bytes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a watched command ended.

    Args:
        status: its exit status, negative for a signal.
        killed_at_bytes: its memory when it was killed for exceeding the cap; None when it was not.
        timed_out: whether it was killed at its timeout.
        peak_bytes: the highest reading.
        wall_seconds: from start to end.
        cpu_seconds: user and system time of the tree.
        spilled_bytes: the largest size of the spill folder.
        words: its last output, on both streams.
        trace: memory over time.
    """

    status: int
    killed_at_bytes: int | None
    timed_out: bool
    peak_bytes: int
    wall_seconds: float
    cpu_seconds: float
    spilled_bytes: int
    words: str
    trace: Trace

    @property
    def well(self) -> bool:
        """Whether it ended by itself with exit status 0."""
        return self.status == 0 and self.killed_at_bytes is None and not self.timed_out


def watch(
    command: Sequence[str],
    *,
    cap_bytes: int | None = None,
    timeout_seconds: float | None = None,
    environment: Mapping[str, str] | None = None,
    spill_dir: Path | None = None,
    on_sample: Callable[[MemorySample], object] = lambda _: None,
) -> Ended:
    """Run a command to its end, polling its process tree every 5 ms.

    Args:
        command: words; the first names the program.
        cap_bytes: the tree is killed once it exceeds this; None only watches.
        timeout_seconds: time until it is killed.
        environment: its variables in addition to this process's own.
        spill_dir: a folder whose size is measured meanwhile.
        on_sample: called with each reading; must return quickly.
    """
    with tempfile.TemporaryFile() as words:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env={**os.environ, **(environment or {})},
            process_group=0,  # so that the whole group can be killed, and no other process
        )
        watched = _Watched(process, cap_bytes, timeout_seconds, spill_dir, start)
        try:
            usage = watched.until_it_ends(on_sample)
        except BaseException:
            watched.kill()
            process.wait()
            raise
        return Ended(
            status=process.returncode,
            killed_at_bytes=watched.killed_at_bytes,
            timed_out=watched.timed_out,
            peak_bytes=watched.peak_bytes,
            wall_seconds=time.perf_counter() - start,
            cpu_seconds=usage,
            spilled_bytes=watched.spilled_bytes,
            words=_last_words(words.fileno()),
            trace=watched.trace,
        )


class _Watched:
    def __init__(
        self,
        process: subprocess.Popen[bytes],
        cap_bytes: int | None,
        timeout_seconds: float | None,
        spill_dir: Path | None,
        start: float,
    ) -> None:
        self._process = process
        self._cap_bytes = cap_bytes
        self._timeout_seconds = timeout_seconds
        self._spill_dir = spill_dir
        self._start = start
        self._folder_due = 0.0
        self.killed_at_bytes: int | None = None
        self.timed_out = False
        self.peak_bytes = 0
        self.spilled_bytes = 0
        self.trace = Trace()

    def until_it_ends(self, on_sample: Callable[[MemorySample], object]) -> float:
        """Poll until the command has ended; return its CPU seconds."""
        with TreeReader(self._process.pid) as tree:
            while True:
                pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
                if pid:
                    self._process.returncode = os.waitstatus_to_exitcode(status)
                    return usage.ru_utime + usage.ru_stime
                self._look(tree, on_sample)
                time.sleep(LOOK_SECONDS)

    def kill(self) -> None:
        """Kill the command and its descendants; it must not have been waited for."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _look(self, tree: TreeReader, on_sample: Callable[[MemorySample], object]) -> None:
        held = tree.charged_bytes()
        seconds = time.perf_counter() - self._start
        self.peak_bytes = max(self.peak_bytes, held)
        self.trace.add(seconds, held)
        if not self.timed_out and self.killed_at_bytes is None:
            if self._cap_bytes is not None and held > self._cap_bytes:
                self.killed_at_bytes = held
                self.kill()
            elif self._timeout_seconds is not None and seconds > self._timeout_seconds:
                self.timed_out = True
                self.kill()
        if self._spill_dir is not None and seconds >= self._folder_due:
            self.spilled_bytes = max(self.spilled_bytes, folder_bytes(self._spill_dir))
            self._folder_due = seconds + _FOLDER_SECONDS
        on_sample(MemorySample(seconds, held, self.spilled_bytes))


def folder_bytes(folder: Path) -> int:
    """Return the disk usage of a folder, whose files may be created and removed meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(place, name).lstat().st_blocks * 512
    return total


def _last_words(file: int) -> str:
    size = os.fstat(file).st_size
    return os.pread(file, _WORDS_BYTES, max(size - _WORDS_BYTES, 0)).decode(errors="replace")
