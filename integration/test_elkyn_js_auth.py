"""The vendor's auth SDK for JavaScript, in Node, against a real `elkyn serve --emulator`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "elkyn.cli", "serve", "--emulator", "--port", "0"]
    with subprocess.Popen(
        [*command, "--data", str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.terminate()


def test_the_javascript_sdk_signs_people_in(sdk_folder: Path, url: str) -> None:
    done = subprocess.run(
        ["node", "auth.mjs", url], cwd=sdk_folder, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
