"""The cap of `mem_cap="auto"`: the lowest memory limit of this process, less headroom.

The limits are: the memory controllers of this process's control group and of all its parents
(version 2 `memory.max`, version 1 `memory.limit_in_bytes`), RLIMIT_DATA, RLIMIT_AS and the
machine's memory. An eighth of the lowest limit, at least 16 MiB and at most 1 GiB, is headroom for
everything else: the calling process, page tables, kernel memory that is charged to the group.
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
"""Limits from this on mean "no limit": version 1 reports that as a number near 2**63."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """One limit on this process's memory and where it comes from."""

    limit_bytes: int
    source: str

    @property
    def cap_bytes(self) -> int:
        """The limit less the headroom."""
        headroom = min(max(self.limit_bytes // 8, HEADROOM_BYTES_MIN), HEADROOM_BYTES_MAX)
        return max(self.limit_bytes - headroom, 0)


def parse_cap(cap: str | int) -> int:
    """Return the bytes of a cap, which is a size such as "64MiB" or "auto".

    The result is at most the machine's memory: a larger cap could not be used.

    Raises:
        UsageError: the cap is neither a size nor "auto".
    """
    return auto_cap().cap_bytes if cap == "auto" else min(parse_bytes(cap), machine_bytes())


def machine_bytes() -> int:
    """Return how much memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def auto_cap(root: Path = Path("/")) -> MemoryLimit:
    """Return the tightest limit on this process.

    Args:
        root: the folder with proc/ and sys/; tests use another one.
    """
    return min(memory_limits(root), key=lambda limit: limit.limit_bytes)


def memory_limits(root: Path = Path("/")) -> list[MemoryLimit]:
    """Return every limit on this process, the machine's memory first."""
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
        # Version 2 has one line, `0::/group`; version 1 has one for each hierarchy of controllers.
        if not controllers:
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        folder = mount / group.lstrip("/")
        # A limit of any parent group applies too.
        for place in (folder, *folder.parents):
            text = _read(place / name).strip()
            if text.isdigit() and int(text) < _UNLIMITED_BYTES:
                yield MemoryLimit(int(text), f"{name} of {place.relative_to(root)}")
            if place == mount:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # no such control group or controller on this machine
        return ""
