"""Check a machine's requirements for a node, each with a fix."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sennit import run_file
from sennit_core.units import GIB, MIB, format_bytes

_DISK_MIN_BYTES = 2 * GIB
_SHM_MIN_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, with a remedy if it failed."""

    subject: str
    ok: bool
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON."""
        return {"subject": self.subject, "ok": self.ok, "found": self.found, "remedy": self.remedy}


def examine(data: Path) -> list[Finding]:
    """Run all checks, in the order in which a first start needs them."""
    checks: tuple[Callable[[Path], Finding], ...] = (
        _system, _python, _native, _disk, _shared_memory, _memory_limit, _folder, _node_state,
    )  # fmt: skip
    return [check(data) for check in checks]


def _system(_data: Path) -> Finding:
    found = f"{platform.system()} {platform.machine()}"
    ok = platform.system() == "Linux" and platform.machine() in {"x86_64", "aarch64"}
    return Finding("system", ok, found, "" if ok else "memory caps need Linux on x86-64 or aarch64")


def _python(_data: Path) -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, platform.python_version(), "" if ok else "install Python 3.11+")


def _native(_data: Path) -> Finding:
    try:
        import emsqrt._kernel  # noqa: F401 - checks the import
        from strand import _native  # noqa: F401 - found or not

        return Finding("C cores", True, "strand, emsqrt")
    except ImportError as problem:
        return Finding("C cores", False, str(problem), "reinstall: ./platform up")


def _disk(data: Path) -> Finding:
    folder = next(parent for parent in (data, *data.parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    ok = free >= _DISK_MIN_BYTES
    remedy = (
        "" if ok else f"free some space: {format_bytes(_DISK_MIN_BYTES)} or more is recommended"
    )
    return Finding("disk", ok, f"{format_bytes(free)} free", remedy)


def _shared_memory(_data: Path) -> Finding:
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return Finding("shared memory", False, "no /dev/shm", "mount a tmpfs at /dev/shm")
    ok = free >= _SHM_MIN_BYTES
    return Finding(
        "shared memory", ok, f"{format_bytes(free)} free", "" if ok else "enlarge /dev/shm"
    )


def _memory_limit(_data: Path) -> Finding:
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = ram
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        limit = min(limit, int(text)) if text.isdigit() else limit
    ok = limit >= GIB
    return Finding(
        "memory", ok, format_bytes(limit), "" if ok else "raise the memory limit to 1 GiB or more"
    )


def _folder(data: Path) -> Finding:
    folder = next(parent for parent in (data, *data.parents) if parent.exists())
    ok = os.access(folder, os.W_OK)
    return Finding(
        "data folder", ok, str(data), "" if ok else f"make {folder} writable or use --data"
    )


def _node_state(data: Path) -> Finding:
    running = run_file.read(data)
    if running is not None:
        return Finding("node", True, f"running at {running.url} (pid {running.pid})")
    if (data / "run.json").exists():
        return Finding("node", True, "crashed or was killed; the next start cleans up")
    return Finding("node", True, "not running")
