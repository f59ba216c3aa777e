"""For tests of whoever holds a memory cap: a look at a process from outside."""

from __future__ import annotations

import subprocess
import sys
from typing import Self

_CODE = """
import sys, time
from emsqrt.memory import UsageReader
peak = 0
with UsageReader(int(sys.argv[1])) as reader:
    print("ready", flush=True)
    while (use := reader.read()).data_bytes:
        peak = max(peak, use.charged_bytes)
        time.sleep(0.0005)
print(peak)
"""


class PeakPoller:
    """Polls RssAnon + RssShmem of a process every half millisecond, from a process of its own.

    That is what a memory cgroup would charge it, less page cache. A context manager.
    """

    def __init__(self, pid: int) -> None:
        """Start looking at process `pid`; returns once the first look is about to be taken."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(pid)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def peak(self) -> int:
        """Return the most bytes that were seen, once the process has ended."""
        out, _ = self._process.communicate(timeout=60)
        return int(out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
