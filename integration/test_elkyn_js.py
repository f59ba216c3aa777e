"""The JavaScript client and store against a real server that is stopped and started under them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "packages/elkyn/js"
COMPILED = ROOT / "node_modules/.cache/sennit-tests/elkyn-js/served"


class Served:
    """`elkyn serve` on a port of its own, to stop and start again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "elkyn.cli", "serve", "--data", str(self.data)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("serving"):
                self.port = int(line.rsplit(":", 1)[1])
            if line.startswith("admin token"):
                return
        raise AssertionError("the server did not start")

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def control(served: Served) -> Iterator[str]:
    class Control(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            {"/stop": served.stop, "/start": served.start}[self.path]()
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Control) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.timeout(180)
def test_the_client_and_the_replica_work_against_a_server(served: Served, control: str) -> None:
    environment = {
        **os.environ,
        "ELKYN_URL": served.url,
        "ELKYN_TOKEN": (served.data / "admin.token").read_text().strip(),
        "ELKYN_CONTROL": control,
    }
    compiler = ["npx", "--no-install", "tsc", "-p", "tsconfig.test.json"]
    subprocess.run(compiler, cwd=PACKAGE, check=True, env=environment)
    run = subprocess.run(
        ["node", "--test", str(COMPILED / "client.test.js")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
