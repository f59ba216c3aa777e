"""`./platform` on machines that lack something: it says what, and the command that mends it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHELL_TOOLS = ("dirname", "find", "head", "sh", "cat", "uname", "env")


@pytest.fixture
def bare_path(tmp_path: Path) -> Any:
    """A PATH that holds a shell and its tools, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in SHELL_TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Any:
    """As much of a checkout as the front door looks at, without an environment."""
    root = tmp_path / "checkout"
    root.mkdir()
    shutil.copy(ROOT / "platform", root)
    shutil.copytree(ROOT / "lock", root / "lock")
    for project in [*ROOT.glob("packages/*/pyproject.toml"), ROOT / "apps/gateway/pyproject.toml"]:
        target = root / project.relative_to(ROOT)
        target.parent.mkdir(parents=True)
        shutil.copy(project, target)
    return root


def knock(root: Path, path: Path, *arguments: str, **environment: Any) -> Any:
    return subprocess.run(
        [str(root / "platform"), *arguments], capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": str(path), "HOME": str(root), **environment},
    )  # fmt: skip


def fake(folder: Path, name: str, text: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def python_here(folder: Path, prelude: str = "") -> None:
    """A `python3` that is this interpreter, after running some Python that takes something away."""
    if not prelude:
        fake(folder, "python3", f'exec {Path(sys.executable).resolve()} "$@"')
        return
    (folder / "sitecustomize.py").write_text(prelude)
    fake(folder, "python3", f'PYTHONPATH={folder} exec {Path(sys.executable).resolve()} "$@"')


def test_no_python_is_said_with_the_remedy(checkout: Path, bare_path: Path) -> None:
    done = knock(checkout, bare_path, "up")
    assert done.returncode == 1
    assert "no Python 3.11" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_an_old_python_does_not_count(checkout: Path, bare_path: Path) -> None:
    fake(bare_path, "python3", "exit 1")
    assert "no Python 3.11" in knock(checkout, bare_path, "up").stderr


def test_a_python_without_venv_names_the_package(checkout: Path, bare_path: Path) -> None:
    python_here(bare_path, "import sys; sys.modules['ensurepip'] = None")
    done = knock(checkout, bare_path, "up")
    assert done.returncode == 1
    assert "-venv" in done.stderr


def test_windows_is_sent_to_wsl(checkout: Path, bare_path: Path) -> None:
    python_here(bare_path, "import platform; platform.system = lambda: 'Windows'")
    done = knock(checkout, bare_path, "up")
    assert done.returncode == 1
    assert "WSL2" in done.stderr


def test_too_little_disk_is_said_before_anything_is_made(checkout: Path, bare_path: Path) -> None:
    python_here(
        bare_path,
        "import shutil, collections; U = collections.namedtuple('U', 'total used free')\n"
        "shutil.disk_usage = lambda p: U(1, 1, 10**6)",
    )
    done = knock(checkout, bare_path, "up")
    assert done.returncode == 1
    assert "GB free" in done.stderr
    assert not (checkout / ".venv").exists()


def test_no_network_is_said_plainly(checkout: Path, bare_path: Path) -> None:
    python_here(bare_path)
    fake(bare_path, "uv", 'echo "error: Failed to fetch: could not connect" >&2; exit 2')
    environment = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    done = knock(checkout, bare_path, "up", **environment)
    assert done.returncode == 1
    assert "network" in done.stderr
    assert not (checkout / ".venv" / ".sennit-runtime-lock").exists()


@pytest.mark.skipif(
    not (ROOT / ".venv" / ".sennit-runtime").exists(), reason="not set up by ./platform"
)
def test_a_second_run_goes_straight_to_the_command() -> None:
    done = subprocess.run(
        [str(ROOT / "platform"), "version"], capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")},
    )  # fmt: skip
    assert done.stdout.startswith("sennit ")
    assert done.stderr == ""
