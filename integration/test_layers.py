"""The import contracts catch what they are for: a planted violation breaks the one that forbids it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workspace import packages

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {package.module: package.folder for package in packages()}
VIOLATIONS = {
    "upward": ("strand", "import elytra", "Packages import only downwards"),
    "elkyn leaves core": ("elkyn", "import strand", "Elkyn imports core alone"),
    "duckdb in another package": ("elytra", "import duckdb", "DuckDB only in lake.sql"),
    "lmdb in another package": ("lake", "import lmdb", "LMDB only in elkyn"),
    "websockets outside peers": (
        "elytra",
        "import websockets",
        "websockets only in lake.peers, elkyn and elytra.testing",
    ),
    "fastapi in a library": ("emsqrt", "import fastapi", "FastAPI only in routes and the gateway"),
}


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    folders = ":".join(str(tree / path / "src") for path in PACKAGES.values())
    linter = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [str(linter), "--config", str(tree / "pyproject.toml"), "--no-cache"],
        cwd=tree, env={"PYTHONPATH": folders, "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.sample(2)
@pytest.mark.parametrize("violation", VIOLATIONS)
def test_a_planted_violation_is_caught(violation: str, tmp_path: Path) -> None:
    package, line, contract = VIOLATIONS[violation]
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, path in PACKAGES.items():
        source = Path(path) / "src" / name
        shutil.copytree(
            ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("*.so", "_playground")
        )
    planted = tmp_path / PACKAGES[package] / "src" / package / "planted.py"
    planted.write_text(f"{line}\n")

    done = lint(tmp_path)

    assert done.returncode == 1, done.stdout
    broken = done.stdout.partition("Broken contracts")[2]
    assert contract in broken
