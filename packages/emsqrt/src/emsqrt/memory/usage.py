"""What the kernel charges this process: RssAnon + RssShmem of /proc/self/status (proc(5)).

That is what a memory cgroup counts, less the page cache, which the kernel can take back.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
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
"""The kernel counts pages by the dozen for each core, so that its peak is right but for this."""
_FORGET_MOST = b"5"  # proc(5), clear_refs


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """One look: bytes charged to the process, and bytes of private address space it reserved."""

    anon_bytes: int
    shmem_bytes: int
    data_bytes: int
    file_bytes: int = 0
    resident_most_bytes: int = 0
    """The most that ever was in memory, files' pages with it."""

    @property
    def charged_bytes(self) -> int:
        """What counts against the cap."""
        return self.anon_bytes + self.shmem_bytes

    @property
    def charged_most_bytes(self) -> int:
        """The most that was ever charged, in a process that has lost no file's page since."""
        return max(self.resident_most_bytes - self.file_bytes, self.charged_bytes)


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
        self._clear_refs = -1  # opened when first asked for

    def read(self) -> MemoryUse:
        """Return what is charged now; zeros for a process that has ended."""
        try:
            found = _FIELDS.search(os.pread(self._file, _STATUS_BYTES, 0))
        except ProcessLookupError:
            found = None
        if found is None:
            return MemoryUse(0, 0, 0)
        most, anon, files, shmem, data = (int(field) << 10 for field in found.groups())
        return MemoryUse(anon, shmem, data, files, most)

    def watch(self, limits: Limits, wake: int, peak: Buffer) -> MemoryUse:
        """Look again and again, without the interpreter's lock, while use stays within limits.

        Args:
            limits: these.
            wake: a descriptor that ends it once it can be read.
            peak: three "Q" for all looks at one process, zero before the first. The first rises to
                the most bytes that were charged, between looks as well as the kernel tells it.

        Returns:
            The last look.
        """
        from emsqrt._kernel import watch_usage  # whoever only looks does without the kernel

        most, anon, files, shmem, data = watch_usage(self._file, wake, peak, *limits)
        return MemoryUse(anon, shmem, data, files, most)

    def forget_most(self) -> None:
        """Count `resident_most_bytes` from now on, where the kernel lets us."""
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
