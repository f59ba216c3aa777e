"""Firebase's SDKs for Node.js, as `integration/js` installs and runs them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

JS = Path(__file__).with_name("js")


def install_sdks() -> None:
    """Install the SDKs as their lock file says, when they are not there yet."""
    needed = json.loads((JS / "package.json").read_text())["dependencies"]
    if not all((JS / "node_modules" / name).is_dir() for name in needed):
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
