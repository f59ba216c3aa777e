"""Build the C core with AddressSanitizer and UBSan, run its tests, and put the normal build back.

    python tools/sanitize.py [pytest arguments]

The interpreter itself is not instrumented, so the sanitizer's runtime is preloaded and Python's own
allocator is turned off; leaks are not reported, because the interpreter keeps what it interned.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "packages" / "strand"
EXTENSION = PACKAGE / "src" / "strand" / "_native.abi3.so"
FLAGS = (
    "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
)
BUILD = "import hatch_build, pathlib; hatch_build._compile(pathlib.Path('src/strand'))"


def main(arguments: list[str]) -> int:
    """Build, test, restore; answer the tests' exit status."""
    try:
        build(FLAGS)
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "packages/strand/tests",
                *arguments,
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "LD_PRELOAD": runtime(),
                "PYTHONMALLOC": "malloc",
                "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
                "UBSAN_OPTIONS": "print_stacktrace=1",
            },
            check=False,
        ).returncode
    finally:
        EXTENSION.unlink(missing_ok=True)
        build("")


def build(flags: str) -> None:
    """Compile the extension in place with more flags."""
    environment = {**os.environ, "STRAND_CFLAGS": flags}
    subprocess.run([sys.executable, "-c", BUILD], cwd=PACKAGE, env=environment, check=True)


def runtime() -> str:
    """The sanitizer's shared library, as the compiler names it."""
    compiler = os.environ.get("CC", "cc")
    done = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    )
    library = Path(done.stdout.strip())
    if not library.is_absolute():
        raise SystemExit("sanitize: the compiler has no libasan; install gcc's sanitizer libraries")
    return str(library.resolve())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
