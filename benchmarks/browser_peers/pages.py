"""Pages in a real Chromium: a site with the compiled package, and what its renderer costs."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
HERE = Path(__file__).resolve().parent
_IMPORTS = """<!doctype html><title>kernels</title><script type="importmap">{"imports": {
  "apache-arrow": "/modules/apache-arrow/Arrow.dom.mjs",
  "flatbuffers": "/modules/flatbuffers/mjs/flatbuffers.js", "tslib": "/modules/tslib/tslib.es6.mjs"
}}</script>"""


@contextmanager
def site(dist: Path, data: Path, modules: Path | None) -> Iterator[str]:
    """Serve the compiled package, the data and installed modules; yields the address."""
    (data / "index.html").write_text(_IMPORTS)
    roots = {"dist": dist, "peers": HERE, "modules": modules or data, "data": data}
    if modules is not None:
        roots["wasm"] = modules / "@duckdb/duckdb-wasm/dist"

    class Handler(http.server.SimpleHTTPRequestHandler):
        extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
            ".mjs": "text/javascript", ".wasm": "application/wasm",
        }  # fmt: skip

        def translate_path(self, path: str) -> str:
            root, _, rest = path.lstrip("/").partition("/")
            return str(roots[root] / rest) if root in roots else str(data / "index.html")

        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Tab:
    """A page, and the renderers of its browser: one of them has it, another waits for the next."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._renderers = _renderers()

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the renderers so far."""
        times = [each.cpu_times() for each in self._renderers]
        return sum(each.user + each.system for each in times)

    def peak_bytes(self) -> int:
        """Return the most memory that was resident: libraries, code and arrays together."""
        found = 0
        for each in self._renderers:
            status = Path(f"/proc/{each.pid}/status").read_text()
            (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
            found = max(found, int(line.split()[1]) << 10)
        return found

    def measure(self, script: str, argument: object, rounds: int) -> tuple[list[float], Any]:
        """Evaluate a script several times; returns the CPU seconds of each, and the last value."""
        cpu = []
        value = None
        for _ in range(rounds):
            before = self.cpu_seconds()
            value = self.page.evaluate(script, argument)
            cpu.append(self.cpu_seconds() - before)
        return cpu, value


@contextmanager
def opened(address: str) -> Iterator[Tab]:
    """Open a page in a browser of its own."""
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        try:
            page = browser.new_context().new_page()
            page.goto(address)
            yield Tab(page)
        finally:
            browser.close()


def _renderers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "--type=renderer" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found
