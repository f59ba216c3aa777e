"""Build copies of the C cores with AddressSanitizer and UBSan, and run their tests.

    python tools/sanitize.py [strand | emsqrt] [pytest arguments]

The interpreter itself is not instrumented, so the sanitizer's runtime is preloaded and Python's own
allocator is turned off; leaks are not reported, because the interpreter keeps what it interned.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLAGS = (
    "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
    " -DSTRAND_DEBUG"  # checks the invariants of the ring
)


@dataclass(frozen=True, slots=True)
class Core:
    """One package's C code.

    Args:
        sources: its folder below `src`, which the build hook compiles.
        tests: patterns of the test files that reach the code.
        without: test files among those that the sanitizers are in the way of.
    """

    sources: str
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()


CORES = {
    "strand": Core(
        "strand",
        ("test_*.py",),
        (
            "test_race.py",  # uses its own sanitizer
            "test_fault_injection.py",  # uses its own build
            "test_protocol_model.py",  # a model: no C
            "test_cli.py",  # depends on timing
            "test_leaks.py",  # measures memory, which sanitizers use too
        ),
    ),
    "emsqrt": Core(
        "emsqrt/_kernel",
        (
            "test_kernel_*.py",
            "test_external_*.py",
            "test_spill_segment*.py",
            "test_floats_*.py",
            "test_io_joining.py",
            "test_io_kernel_rows.py",
            "test_operators_coded_key.py",  # the others run under caps, too small for sanitizers
            "test_null_slots.py",
        ),
    ),
}


def main(arguments: list[str]) -> int:
    """Test the named cores, or all; return the first status that is not 0."""
    named = [name for name in CORES if name in arguments]
    rest = [argument for argument in arguments if argument not in CORES]
    return next(filter(None, (sanitize(name, rest) for name in named or CORES)), 0)


def sanitize(name: str, arguments: list[str]) -> int:
    """Build and test a copy, to keep the tree's extension; return the tests' status."""
    core = CORES[name]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "packages" / name
        (Path(scratch) / "spec").symlink_to(ROOT / "spec")  # tests look for vectors there
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / "packages" / name, copy, ignore=ignored)
        code = (
            f"import hatch_build, pathlib; hatch_build._compile(pathlib.Path('src/{core.sources}'))"
        )
        build = {**os.environ, "NATIVE_CFLAGS": FLAGS}
        subprocess.run([sys.executable, "-c", code], cwd=copy, env=build, check=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(copy / "src"),
            "LD_PRELOAD": runtime(),
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:handle_sigbus=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        found = {file for each in core.tests for file in (copy / "tests").glob(each)}
        files = sorted(str(file) for file in found if file.name not in core.without)
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml")]
        command += ["--rootdir", str(copy), *files, *arguments]
        command += ["--hypothesis-profile=ci"]  # no deadlines
        return subprocess.run(command, cwd=copy, env=environment, check=False).returncode


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
