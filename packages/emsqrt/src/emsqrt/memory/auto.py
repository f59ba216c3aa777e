"""The cap that `mem_cap="auto"` stands for: the tightest limit of this machine, less headroom.

Looked at are the memory controllers of this process's control groups and of all above it (version 2
`memory.max`, version 1 `memory.limit_in_bytes`), RLIMIT_DATA and RLIMIT_AS, and the machine's memory.
An eighth of the tightest, at least 16 MiB and at most 1 GiB, is left to everything else: the caller,
page tables, the kernel's own share of the group.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sennit_core.units import parse_bytes

_MIB = 1 << 20
HEADROOM_BYTES_MIN = 16 * _MIB
HEADROOM_BYTES_MAX = 1 << 30
_UNLIMITED_BYTES = 1 << 60
"""Version 1 writes "no limit" as a number about this large."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """One limit on this process's memory and where it comes from."""

    limit_bytes: int
    source: str

    @property
    def cap_bytes(self) -> int:
        """What is left of it once the headroom is taken off."""
        headroom = min(max(self.limit_bytes // 8, HEADROOM_BYTES_MIN), HEADROOM_BYTES_MAX)
        return max(self.limit_bytes - headroom, 0)


def parse_cap(cap: str | int) -> int:
    """Return the bytes that a cap stands for: a size such as "64MiB", or "auto".

    No more than the machine has: a larger cap could not be used.

    Raises:
        UsageError: neither.
    """
    return auto_cap().cap_bytes if cap == "auto" else min(parse_bytes(cap), machine_bytes())


def machine_bytes() -> int:
    """Return how much memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def auto_cap(root: Path = Path("/")) -> MemoryLimit:
    """Return the tightest limit on this process.

    Args:
        root: where /proc and /sys are found; another place in tests.
    """
    return min(memory_limits(root), key=lambda limit: limit.limit_bytes)


def memory_limits(root: Path = Path("/")) -> list[MemoryLimit]:
    """Return every limit that holds here, the machine's memory first."""
    found = [MemoryLimit(machine_bytes(), "the machine's memory")]
    found += _group_limits(root)
    for name in ("RLIMIT_DATA", "RLIMIT_AS"):
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            found.append(MemoryLimit(soft, name))
    return found


def _group_limits(root: Path) -> Iterator[MemoryLimit]:
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        folder = mount / group.lstrip("/")
        for place in (folder, *folder.parents):
            text = _read(place / name).strip()
            if text.isdigit() and int(text) < _UNLIMITED_BYTES:
                yield MemoryLimit(int(text), f"{name} of {place.relative_to(root)}")
            if place == mount:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # this machine has no such thing
        return ""
