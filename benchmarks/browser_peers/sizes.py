"""The bytes that a page loads: parts of the package, bundled, minimized and compressed."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "SDK": "export * from 'ROOT/index.js'",
    "runtime without the Arrow chunk": (
        "export * from 'ROOT/engine/planRun.js'; export * from 'ROOT/engine/csv.js';"
        "export * from 'ROOT/engine/csvSchema.js'"
    ),
    "Arrow reader and writer": (
        "export * from 'ROOT/arrow/read.js'; export * from 'ROOT/arrow/write.js'"
    ),
}
# The webpack and the minimizer that Next carries: the lock has no other bundler.
_BUNDLE = """
const next = process.argv[1] + '/node_modules/next/dist/compiled/'
const { webpack } = require(next + 'webpack/bundle5.js')()
const { minify } = require(next + 'terser/bundle.min.js')
const fs = require('fs')
const [, root, folder] = process.argv
webpack({
  mode: 'production', context: root, entry: folder + '/entry.js', devtool: false,
  optimization: { minimize: false }, performance: false,
  output: { path: folder, filename: 'bundle.js', library: { type: 'module' } },
  experiments: { outputModule: true },
}, async (error, stats) => {
  if (error || stats.hasErrors()) throw error ?? stats.toString()
  const code = fs.readFileSync(folder + '/bundle.js', 'utf8')
  fs.writeFileSync(folder + '/bundle.js', (await minify(code, { module: true })).code)
})
"""


def compressed_bytes(dist: Path, folder: Path) -> dict[str, int]:
    """Return the size of each part, after gzip.

    Raises:
        subprocess.CalledProcessError: A part cannot be bundled.
    """
    sizes = {}
    for name, code in PARTS.items():
        (folder / "entry.js").write_text(code.replace("ROOT", json.dumps(str(dist))[1:-1]))
        subprocess.run(
            ["node", "-e", _BUNDLE, str(ROOT), str(folder)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        sizes[name] = len(gzip.compress((folder / "bundle.js").read_bytes(), 9))
    return sizes
