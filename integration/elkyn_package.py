"""`@sennit/elkyn` as npm publishes it, and a site whose pages use it."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from npm_packages import ROOT, folder_of, pack

__all__ = ["PACKAGE", "ROOT", "packed", "site_of"]

PACKAGE = folder_of("elkyn")


def packed(folder: Path) -> Path:
    """Build and pack the package, and unpack it in `folder`; returns what others would install."""
    with tarfile.open(pack("elkyn", folder)) as files:
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
