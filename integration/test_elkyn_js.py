"""`@sennit/elkyn` in Node: as it is published, and against a server that is stopped under it."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from elkyn_package import PACKAGE, ROOT, packed
from elkyn_server import Served

COMPILED = ROOT / "node_modules/.cache/sennit-tests/elkyn-js/served"
TSC = ROOT / "node_modules/.bin/tsc"
GZIP_BYTES_MAX = 16_500
STRICT = (
    "--strict --noUncheckedIndexedAccess --exactOptionalPropertyTypes --skipLibCheck "
    "--target es2022 --module nodenext --lib es2024,dom,dom.iterable --types node "
    f"--typeRoots {ROOT / 'node_modules/@types'}"
).split()

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path / "data")
    yield server
    if server.process.returncode is None:
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in whose `node_modules` the package is, as npm would put it there."""
    folder = tmp_path_factory.mktemp("elkyn-js")
    package = packed(folder)
    (folder / "node_modules/@sennit").mkdir(parents=True)
    package.rename(folder / "node_modules/@sennit/elkyn")
    return folder


@pytest.fixture(scope="module")
def compiled() -> Path:
    """The folder of the package's compiled tests."""
    subprocess.run([TSC, "-p", "tsconfig.test.json"], cwd=PACKAGE, check=True, timeout=100)
    return COMPILED


def run_served(served: Served, control: str, files: list[Path], *options: str) -> None:
    """Run tests in Node against a server that they may stop and start."""
    environment = {
        **os.environ,
        "ELKYN_URL": served.url,
        "ELKYN_TOKEN": served.token,
        "ELKYN_CONTROL": control,
    }
    always = ["--expose-gc", "--test-concurrency=1", "--test-timeout=60000"]
    run = subprocess.run(
        ["node", *always, *options, "--test", *map(str, files)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


def test_the_client_and_the_replica_work_against_a_server(
    served: Served, control: str, compiled: Path
) -> None:
    run_served(served, control, [compiled / "client.test.js", compiled / "attack.test.js"])


@pytest.mark.nightly
def test_sockets_resume_where_they_were_lost(served: Served, control: str, compiled: Path) -> None:
    run_served(served, control, [compiled / "socket.test.js"], "--experimental-websocket")


def test_browser_bundles_need_nothing_of_node_and_are_small(installed: Path) -> None:
    package = installed / "node_modules/@sennit/elkyn"
    exports = json.loads((package / "package.json").read_text())["exports"]["."]
    for target in (*exports["browser"].values(), exports["types"], exports["default"]):
        assert (package / target).is_file(), target
    bundle = (package / exports["browser"]["default"]).read_text(encoding="utf-8")
    for text in (bundle, (package / "dist/worker.js").read_text(encoding="utf-8")):
        assert re.findall(r"node:|\bprocess\b|\bBuffer\b|\brequire\b", text) == []
    assert re.findall(r"^import .*", bundle, re.MULTILINE) == []
    size = len(gzip.compress(bundle.encode(), 9))
    assert size <= GZIP_BYTES_MAX
    assert f"{round(size / 1000)} kB as gzip" in (package / "README.md").read_text()


@pytest.mark.nightly
def test_the_readmes_programs_do_what_it_says(installed: Path, served: Served) -> None:
    readme = (PACKAGE / "README.md").read_text(encoding="utf-8")
    for name, code in re.findall(r"```ts\n// (\w+)\.ts\n(.*?)```", readme, re.DOTALL):
        (installed / f"{name}.mts").write_text(code)
    sources = [f"{name}.mts" for name in ("client", "tabs", "live", "store", "replica")]
    for condition in ("browser", "node"):
        options = [*STRICT, "--customConditions", condition]
        subprocess.run([TSC, *sources, *options], cwd=installed, check=True, timeout=100)
    (installed / "main.mjs").write_text(
        """
        import { visit } from './client.mjs'
        import { remember } from './store.mjs'
        import { follow } from './replica.mjs'
        import { watch } from './live.mjs'
        const [url, token] = process.argv.slice(2)
        const visited = await visit(url, token)
        const replica = follow(url, token)
        const bob = await new Promise((done) => {
          replica.on('/users/bob', 'value', (user) => user && done(user))
        })
        await replica.close()
        const watched = await new Promise((done) => {
          const stop = watch(url, token, (users) => done([stop, users.bob]))
        })
        watched[0]()
        const remembered = [await remember('tree'), await remember('tree')]
        console.log(JSON.stringify([visited, ...remembered, bob, watched[1]]))
        """
    )
    bob = {"age": 7, "name": "Bob"}
    assert node(installed, "main.mjs", served.url, served.token) == [
        [["ann", "bob"], ["ann"]],
        [["123", "456"], "Alice"],
        [["123", "456"], "Alice"],
        bob,
        bob,
    ]


def node(folder: Path, *arguments: str) -> Any:
    """Run a script and return the JSON that it prints."""
    done = subprocess.run(
        ["node", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
