"""Compile a package's `_native` with the system's C compiler, or with the `ziglang` wheel.

The extension uses Python's stable ABI (3.11), so one wheel serves every later CPython. Flags come
from `NATIVE_CFLAGS` as well, which is how `nox -s sanitize` asks for the sanitizers. The hook's
`sources` in pyproject.toml says where the C files are. Every package that has some keeps this
same file, since each is built alone.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = "*.c"
TARGET = "_native.abi3.so"
FLAGS = (
    "-std=c11 -O3 -fPIC -fno-plt -shared -fvisibility=hidden -DPy_LIMITED_API=0x030B0000 "
    "-Wall -Wextra -Wconversion -Werror"
)


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the extension in place before hatchling collects the wheel's files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile when a source is newer than the extension; mark the wheel as one for CPython."""
        folder = Path(self.root, self.config["sources"])
        _compile(folder)
        build_data["pure_python"] = False
        build_data["tag"] = (
            f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        )


def _compile(folder: Path) -> None:
    target = folder / TARGET
    extra = os.environ.get("NATIVE_CFLAGS", "")
    if _is_current(target, extra, [*sorted(folder.glob(SOURCES)), *sorted(folder.glob("*.h"))]):
        return
    staged = target.with_suffix(f".{os.getpid()}.tmp")
    command = [
        *_compiler(),
        *shlex.split(FLAGS),
        *shlex.split(extra),
        f'-DNATIVE_CFLAGS="{extra}"',
        f"-I{sysconfig.get_path('include')}",
        *map(str, sorted(folder.glob(SOURCES))),
        "-o",
        str(staged),
    ]
    try:
        subprocess.run(command, check=True)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)


def _is_current(target: Path, extra: str, inputs: list[Path]) -> bool:
    """Whether the extension is newer than its sources and was built with the same extra flags."""
    if not target.exists():
        return False
    newest = max(source.stat().st_mtime_ns for source in inputs)
    marker = f"NATIVE_CFLAGS={extra}\0".encode()
    return target.stat().st_mtime_ns > newest and marker in target.read_bytes()


def _compiler() -> list[str]:
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise RuntimeError(
        "this package needs a C compiler: install gcc or clang, or `pip install ziglang`, and try again"
    )
