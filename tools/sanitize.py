"""Build a copy of the C core with AddressSanitizer and UBSan, and run its tests.

    python tools/sanitize.py [pytest arguments]

The interpreter itself is not instrumented, so the sanitizer's runtime is preloaded and Python's own
allocator is turned off; leaks are not reported, because the interpreter keeps what it interned.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "packages" / "strand"
FLAGS = (
    "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
)
WITHOUT = (
    "test_race.py",  # brings a sanitizer of its own
    "test_injected.py",  # brings a build of its own
    "test_protocol_model.py",  # a model: no C
    "test_cli.py",  # looks at a clock
    "test_leaks.py",  # counts memory, of which the sanitizers take some
)
BUILD = "import hatch_build, pathlib; hatch_build._compile(pathlib.Path('src/strand'))"


def main(arguments: list[str]) -> int:
    """Build and test a copy, so that the tree's own extension stays; answer the tests' status."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "strand"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        build = {**os.environ, "STRAND_CFLAGS": FLAGS}
        subprocess.run([sys.executable, "-c", BUILD], cwd=copy, env=build, check=True)
        test = {
            **os.environ,
            "PYTHONPATH": str(copy / "src"),
            "LD_PRELOAD": runtime(),
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:handle_sigbus=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml")]
        command += ["--rootdir", str(copy), str(copy / "tests"), *arguments]
        command += ["--hypothesis-profile=ci"]  # minds no slowness
        command += [part for name in WITHOUT for part in ("--ignore", str(copy / "tests" / name))]
        return subprocess.run(command, cwd=copy, env=test, check=False).returncode


def runtime() -> str:
    """The sanitizers' shared libraries, as the compiler names them."""
    compiler = os.environ.get("CC", "cc")
    found = []
    for name in ("libasan.so", "libubsan.so"):
        done = subprocess.run(
            [compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
        )
        library = Path(done.stdout.strip())
        if not library.is_absolute():
            raise SystemExit(
                f"sanitize: the compiler has no {name}; install its sanitizer libraries"
            )
        found.append(str(library.resolve()))
    return " ".join(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
