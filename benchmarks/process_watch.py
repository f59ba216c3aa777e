"""CPU seconds and peak memory of a process tree, measured from outside."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil

_SAMPLE_SECONDS = 0.01


class ProcessWatch:
    """Samples a process and its children until `stop`.

    Args:
        pid: The root of the tree.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self.peaks: dict[int, int] = {}
        self.cpu: dict[int, float] = {}  # of every process seen: executors may end meanwhile
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def cpu_seconds(self) -> dict[int, float]:
        """Return the CPU seconds of each process so far."""
        self._look()
        return dict(self.cpu)

    def stop(self) -> None:
        """End the sampling."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self.cpu[process.pid] = times.user + times.system
            peak = self.peaks.get(process.pid, 0)
            self.peaks[process.pid] = max(peak, charged_bytes(process.pid))


def charged_bytes(pid: int) -> int:
    """Return RssAnon + RssShmem of a process, 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(
        int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon", "RssShmem"))
    )
