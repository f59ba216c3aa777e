"""Memory that the kernel charges to a process: RssAnon + RssShmem of /proc/PID/status (proc(5)).

A memory cgroup counts the same, plus the page cache, which the kernel can reclaim.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from typing_extensions import Buffer

# The order of the lines is that of the kernel's `task_mem`. VmData is the sum that RLIMIT_DATA
# limits.
_FIELDS = re.compile(
    rb"VmHWM:\s*(\d+) kB\s+VmRSS:\s*\d+ kB\s+RssAnon:\s*(\d+) kB\s+RssFile:\s*(\d+) kB\s+"
    rb"RssShmem:\s*(\d+) kB\s+VmData:\s*(\d+) kB"
)
# More than the file has: one read returns all of it.
_STATUS_BYTES = 8192
PEAK_UNSURE_BYTES = 256 << 10
"""Error of the kernel's peak: it adds up pages per CPU and merges these counters in batches."""
_FORGET_MOST = b"5"  # proc(5), clear_refs


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """One measurement: memory charged to a process, and private address space it reserved."""

    anon_bytes: int
    shmem_bytes: int
    data_bytes: int
    file_bytes: int = 0
    resident_most_bytes: int = 0
    """Peak resident memory, pages of files included (VmHWM)."""

    @property
    def charged_bytes(self) -> int:
        """The bytes that count against the cap."""
        return self.anon_bytes + self.shmem_bytes

    @property
    def charged_most_bytes(self) -> int:
        """Peak charged bytes, correct if no page of a file was evicted since the peak."""
        return max(self.resident_most_bytes - self.file_bytes, self.charged_bytes)


class Limits(NamedTuple):
    """Limits within which measurements need not be reported; sizes are in bytes.

    Args:
        charged_max: the most charged memory.
        shmem_max: the most shared memory.
        idle_min: the least address space that is reserved and untouched.
        near_bytes: charged memory from which on measurements are more frequent.
        far_ms: the interval between two measurements below `near_bytes`.
        near_ms: the interval from there on.
        report_ms: report after this time in any case.
    """

    charged_max: int
    shmem_max: int
    idle_min: int
    near_bytes: int
    far_ms: int
    near_ms: int
    report_ms: int


class UsageReader:
    """Reads the memory use of one process repeatedly through one open file.

    Args:
        pid: the process; None for this process.

    Raises:
        OSError: there is no such process, or no /proc (the cap needs Linux).
    """

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid or "self"
        # Kept open: each `pread` from the start is a new measurement.
        self._file = os.open(f"/proc/{self._pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        self._clear_refs = -1  # opened when first asked for

    def read(self) -> MemoryUse:
        """Return the memory use now; zeros for a process that has ended."""
        try:
            found = _FIELDS.search(os.pread(self._file, _STATUS_BYTES, 0))
        except ProcessLookupError:
            found = None
        if found is None:
            return MemoryUse(0, 0, 0)
        # The kernel prints kB and means KiB.
        most, anon, files, shmem, data = (int(field) << 10 for field in found.groups())
        return MemoryUse(anon, shmem, data, files, most)

    def watch(self, limits: Limits, wake: int, peak: Buffer) -> MemoryUse:
        """Measure repeatedly, without the interpreter's lock, while use stays within limits.

        Args:
            limits: when to return.
            wake: a file descriptor; the call returns once it is readable.
            peak: four "Q", zero before the first measurement of a process. The first rises to the
                peak of charged bytes, between measurements as far as the kernel reports it. When
                another thread has set the last, the call returns instead of measuring again.

        Returns:
            The last measurement.
        """
        from emsqrt._kernel import watch_usage  # `read` alone needs no kernel module

        most, anon, files, shmem, data = watch_usage(self._file, wake, peak, *limits)
        return MemoryUse(anon, shmem, data, files, most)

    def forget_most(self) -> None:
        """Reset the kernel's peak (`resident_most_bytes`), if the kernel permits it."""
        with suppress(OSError):
            if self._clear_refs < 0:
                self._clear_refs = os.open(
                    f"/proc/{self._pid}/clear_refs", os.O_WRONLY | os.O_CLOEXEC
                )
            os.write(self._clear_refs, _FORGET_MOST)

    def close(self) -> None:
        """Close the files; closing twice does nothing."""
        for file in (self._file, self._clear_refs):
            if file >= 0:
                os.close(file)
        self._file = self._clear_refs = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
