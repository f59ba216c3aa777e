"""Firebase's SDKs for Node.js, as `integration/js` installs and runs them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

JS = Path(__file__).with_name("js")


def install_sdks() -> None:
    """Install the SDKs as their lock file says, when they are not there yet."""
    wanted = hashlib.sha256((JS / "package-lock.json").read_bytes()).hexdigest()
    installed = JS / "node_modules" / ".sennit-lock"
    state = JS.parents[1] / ".platform"
    state.mkdir(exist_ok=True)
    # Several processes run tests, and each would remove what another is installing.
    with (state / "integration-js.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.is_file() or installed.read_text() != wanted:
            subprocess.run(["npm", "ci", "--prefix", str(JS)], check=True, capture_output=True)
            installed.write_text(wanted)


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
