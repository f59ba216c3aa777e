"""`@sennit/elkyn` as npm publishes it, and a site whose pages use it."""

from __future__ import annotations

import fcntl
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "packages/elkyn/js"


def packed(folder: Path) -> Path:
    """Build and pack the package, and unpack it in `folder`; returns what others would install."""
    state = ROOT / ".platform"
    state.mkdir(exist_ok=True)
    with (state / "elkyn-js.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder)]
        subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True, timeout=120)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder / "package"


class _Pages(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextmanager
def site_of(package: Path) -> Iterator[str]:
    """Serve the package and an empty page to browsers for a block; yields the address."""
    (package / "blank.html").write_text("<!doctype html><title>blank</title>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Pages, directory=package)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
