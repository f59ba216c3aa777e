"""`elkyn serve --emulator` in a process of its own, and the third-party SDKs that talk to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

JS = Path(__file__).with_name("js")


@contextmanager
def running_emulator(data: Path, *options: str) -> Iterator[str]:
    """Serve `data`; yields the URL."""
    command = [sys.executable, "-m", "elkyn.cli", "serve", "--data", str(data), "--port", "0"]
    with subprocess.Popen(
        [*command, "--emulator", *options], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            assert process.wait(timeout=20) == 0


def install_sdks() -> None:
    """Install the SDKs as their lock file says, when they are not there yet."""
    if not (JS / "node_modules").exists():
        subprocess.run(["npm", "ci", "--prefix", str(JS)], check=True, capture_output=True)


def run_script(name: str, *arguments: str, **environment: str) -> Any:
    """Run a script of `integration/js` and return the JSON that it prints last."""
    done = subprocess.run(
        ["node", str(JS / name), *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
