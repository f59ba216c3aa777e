"""The npm packages as npm publishes them: packed, and installed into folders outside the tree."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("strand", "elytra", "elkyn")
TSC = ROOT / "node_modules/.bin/tsc"
# The webpack that Next carries is the one bundler of the lock that is not tied to a framework.
_WEBPACK = ROOT / "node_modules/next/dist/compiled/webpack/bundle5.js"
_MINIFY = """
const { minify } = require(%s)
const fs = require('fs')
const path = process.argv[2]
minify(fs.readFileSync(path, 'utf8'), { module: true, compress: { passes: 2 } })
  .then(({ code }) => fs.writeFileSync(path, code))
"""
_BUNDLE = """
const { webpack } = require(%s)()
const [folder, entry] = process.argv.slice(2)
webpack({
  mode: 'production', context: folder, entry, devtool: false, optimization: { minimize: false },
  performance: false,  // its limits are for minimized code
  output: { path: folder + '/bundle', filename: 'main.js', publicPath: 'auto' },
}, (error, stats) => {
  if (error || stats.hasErrors() || stats.hasWarnings()) {
    console.error(String(error ?? stats.toString({ all: false, errors: true, warnings: true })))
    process.exit(1)
  }
})
"""


def folder_of(name: str) -> Path:
    """The folder of `@sennit/<name>` in the tree."""
    return ROOT / "packages" / name / "js"


def pack(name: str, folder: Path) -> Path:
    """Copy the archive of the sources as they are to `folder`; only the first caller builds it."""
    with _build_lock(name) as state:
        kept = state / f"{name}-js-{_digest(name)}.tgz"
        if not kept.exists():
            for outdated in state.glob(f"{name}-js-*.tgz"):
                outdated.unlink()
            shutil.move(_build(name, folder), kept)
        return Path(shutil.copy(kept, folder / f"sennit-{name}.tgz"))


def build_archive(name: str, folder: Path) -> Path:
    """Run `npm pack` in the package's folder, which builds it; returns the archive in `folder`."""
    with _build_lock(name):
        return _build(name, folder)


@contextmanager
def _build_lock(name: str) -> Iterator[Path]:
    """Keep others from building the package; yields the folder of built archives."""
    state = ROOT / ".platform"
    state.mkdir(exist_ok=True)
    with (state / f"{name}-js.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield state


def _build(name: str, folder: Path) -> Path:
    run("npm", "pack", "--silent", "--pack-destination", str(folder), cwd=folder_of(name))
    (archive,) = folder.glob(f"sennit-{name}-*.tgz")
    return archive


def _digest(name: str) -> str:
    """Return the SHA-256 over names and contents of what a build reads."""
    root = folder_of(name)
    built = {root / "dist", root / "tests", root / "node_modules"}
    sources = [
        path for path in root.rglob("*") if path.is_file() and built.isdisjoint(path.parents)
    ]
    digest = hashlib.sha256()
    for path in (
        *sorted(sources),
        ROOT / "package-lock.json",
        *sorted(ROOT.glob("tsconfig*.json")),
    ):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def install(archives: Iterable[Path], folder: Path) -> Path:
    """Install archives into an empty project in the folder; nothing is downloaded."""
    (folder / "package.json").write_text('{"name": "consumer", "private": true, "type": "module"}')
    run("npm", "install", "--offline", "--no-audit", "--no-fund", *map(str, archives), cwd=folder)
    return folder


def run(*command: str, cwd: Path, timeout: float = 120) -> str:
    """Run a tool; a failure shows what it printed."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "npm_config_update_notifier": "false"},
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def run_module(folder: Path, code: str, *arguments: str) -> Any:
    """Run an ES module in Node, in the folder; returns the JSON on its last line."""
    (folder / "main.mjs").write_text(code, encoding="utf-8")
    return json.loads(run("node", "main.mjs", *arguments, cwd=folder).splitlines()[-1])


def bundle(folder: Path, code: str) -> Path:
    """Bundle an ES module with webpack for browsers; returns the folder with `main.js`."""
    (folder / "entry.js").write_text(code, encoding="utf-8")
    script = folder / "bundle.cjs"
    script.write_text(_BUNDLE % json.dumps(str(_WEBPACK)), encoding="utf-8")
    run("node", str(script), str(folder), "./entry.js", cwd=folder)
    return folder / "bundle"


def gzipped_bytes(folder: Path, code: str) -> int:
    """Bundle and minify an ES module; returns the gzip bytes of what a page loads first."""
    main = bundle(folder, code) / "main.js"
    script = folder / "minify.cjs"
    terser = ROOT / "node_modules/next/dist/compiled/terser"
    script.write_text(_MINIFY % json.dumps(str(terser)), encoding="utf-8")
    run("node", str(script), str(main), cwd=folder)
    return len(gzip.compress(main.read_bytes(), 9))
