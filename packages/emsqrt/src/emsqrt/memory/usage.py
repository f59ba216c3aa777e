"""What the kernel charges this process: RssAnon + RssShmem of /proc/self/status (proc(5)).

That is what a memory cgroup counts, less the page cache, which the kernel can take back.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from typing_extensions import Buffer

_FIELDS = re.compile(
    rb"VmHWM:\s*(\d+) kB\s+VmRSS:\s*\d+ kB\s+RssAnon:\s*(\d+) kB\s+RssFile:\s*(\d+) kB\s+"
    rb"RssShmem:\s*(\d+) kB\s+VmData:\s*(\d+) kB"
)
_STATUS_BYTES = 8192
PEAK_UNSURE_BYTES = 256 << 10
"""The kernel counts pages by the dozen for each core, so that a peak is right but for this."""
_FORGET_MOST = b"5"  # proc(5), clear_refs


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """One look: bytes charged to the process, and bytes of private address space it reserved."""

    anon_bytes: int
    shmem_bytes: int
    data_bytes: int
    charged_most_bytes: int = 0
    """The most that was ever charged, or a little less: files' pages counted as they are now."""

    @property
    def charged_bytes(self) -> int:
        """What counts against the cap."""
        return self.anon_bytes + self.shmem_bytes


class Limits(NamedTuple):
    """Within which use nobody needs to hear of a look.

    Args:
        charged_max: in bytes.
        shmem_max: what of it may be shared.
        idle_min: what is reserved and untouched.
        near_bytes: charged bytes from which on there are more looks.
        far_ms: between two looks below that.
        near_ms: and above.
        judge_ms: somebody hears of a look after so long in any case.
    """

    charged_max: int
    shmem_max: int
    idle_min: int
    near_bytes: int
    far_ms: int
    near_ms: int
    judge_ms: int


class UsageReader:
    """Reads memory use of one process again and again through one open file.

    Args:
        pid: whose; this process when None.

    Raises:
        OSError: there is no such process, or no /proc (only Linux holds a cap).
    """

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid or "self"
        self._file = os.open(f"/proc/{self._pid}/status", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> MemoryUse:
        """Return what is charged now; zeros for a process that has ended."""
        try:
            found = _FIELDS.search(os.pread(self._file, _STATUS_BYTES, 0))
        except ProcessLookupError:
            found = None
        if found is None:
            return MemoryUse(0, 0, 0)
        most, anon, files, shmem, data = (int(field) << 10 for field in found.groups())
        return MemoryUse(anon, shmem, data, max(most - files, anon + shmem))

    def watch(self, limits: Limits, wake: int, charged_most: Buffer) -> MemoryUse:
        """Look again and again, without the interpreter's lock, while use stays within limits.

        Args:
            limits: these.
            wake: a descriptor that ends it once it can be read.
            charged_most: one "Q", which rises to the most bytes that were charged at any look.

        Returns:
            The last look.
        """
        from emsqrt._kernel import watch_usage  # whoever only looks does without the kernel

        most, anon, files, shmem, data = watch_usage(self._file, wake, charged_most, *limits)
        return MemoryUse(anon, shmem, data, max(most - files, anon + shmem))

    def forget_most(self) -> bool:
        """Count `charged_most_bytes` from now on; return False where the kernel does not let us."""
        try:
            file = os.open(f"/proc/{self._pid}/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, _FORGET_MOST)
            finally:
                os.close(file)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
