"""SIGINT while the command line starts: the status of an interrupt, and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} and {when}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Children of a job in the background ignore SIGINT, unless this process heeds it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("module", "when"),
    [
        ("emsqrt.cli.arguments", "True"),
        ("emsqrt.cli.verbs", "True"),
        ("emsqrt.lazy_import", "'--standalone' not in sys.orig_argv"),
        ("emsqrt.lazy_import", "'--standalone' in sys.orig_argv"),
        ("emsqrt.cli.console", "'--standalone' in sys.orig_argv"),
    ],
)
def test_an_interrupt_at_the_start_prints_nothing(module: str, when: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("k\n2\n1\n")
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED.format(module=module, when=when))
    words = ["sort", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), "--by", "k", "--quiet"]
    done = subprocess.run(
        [Path(sys.executable).with_name("emsqrt"), *words],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert not (tmp_path / "out.csv").exists()
