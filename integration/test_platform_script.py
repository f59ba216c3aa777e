"""`./platform` on machines that lack something: it names it, and the command that installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
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
    """The files of a checkout that `platform` reads, without an environment."""
    root = tmp_path / "checkout"
    root.mkdir()
    shutil.copy(ROOT / "platform", root)
    shutil.copytree(ROOT / "lock", root / "lock")
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "tools").mkdir()
    shutil.copy(ROOT / "tools/workspace.py", root / "tools")
    for project in [*ROOT.glob("packages/*/pyproject.toml"), ROOT / "apps/gateway/pyproject.toml"]:
        target = root / project.relative_to(ROOT)
        target.parent.mkdir(parents=True)
        shutil.copy(project, target)
    for package in ("strand", "emsqrt"):
        shutil.copy(ROOT / f"packages/{package}/hatch_build.py", root / f"packages/{package}")
    return root


def run_platform(root: Path, path: Path, *arguments: str, **environment: Any) -> Any:
    return subprocess.run(
        [str(root / "platform"), *arguments], capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": str(path), "HOME": str(root), **environment},
    )  # fmt: skip


def start_platform(root: Path, path: Path, *arguments: str) -> Any:
    return subprocess.Popen(
        [str(root / "platform"), *arguments], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PATH": str(path), "HOME": str(root)},
    )  # fmt: skip


def fake(folder: Path, name: str, text: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


ENOUGH_DISK = """\
import collections, shutil
Usage = collections.namedtuple('Usage', 'total used free')
shutil.disk_usage = lambda path: Usage(10**12, 0, 10**12)
"""


def python_here(folder: Path, prelude: str = "") -> None:
    """A `python3` that is this interpreter, after running some Python that removes a feature.

    What it misses is the first thing that `platform` finds: such a Python sees enough free disk.
    """
    if not prelude:
        fake(folder, "python3", f'exec {Path(sys.executable).resolve()} "$@"')
        return
    (folder / "sitecustomize.py").write_text(ENOUGH_DISK + prelude)
    fake(folder, "python3", f'PYTHONPATH={folder} exec {Path(sys.executable).resolve()} "$@"')


def test_a_missing_python_is_reported_with_the_fix(checkout: Path, bare_path: Path) -> None:
    done = run_platform(checkout, bare_path, "up")
    assert done.returncode == 1
    assert "no Python 3.11" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_an_old_python_does_not_count(checkout: Path, bare_path: Path) -> None:
    fake(bare_path, "python3", "exit 1")
    assert "no Python 3.11" in run_platform(checkout, bare_path, "up").stderr


def test_a_python_without_venv_names_the_package(checkout: Path, bare_path: Path) -> None:
    python_here(bare_path, "import sys; sys.modules['ensurepip'] = None")
    done = run_platform(checkout, bare_path, "up")
    assert done.returncode == 1
    assert "-venv" in done.stderr


def test_missing_headers_name_the_package(checkout: Path, bare_path: Path) -> None:
    python_here(bare_path, "import sysconfig; sysconfig.get_path = lambda name: '/nowhere'")
    done = run_platform(checkout, bare_path, "up")
    assert done.returncode == 1
    assert "-dev" in done.stderr
    assert not (checkout / ".venv").exists()


def test_windows_is_sent_to_wsl(checkout: Path, bare_path: Path) -> None:
    python_here(bare_path, "import platform; platform.system = lambda: 'Windows'")
    done = run_platform(checkout, bare_path, "up")
    assert done.returncode == 1
    assert "WSL2" in done.stderr


def test_too_little_disk_is_reported_before_anything_is_created(
    checkout: Path, bare_path: Path
) -> None:
    python_here(
        bare_path,
        "shutil.disk_usage = lambda path: Usage(1, 1, 10**6)",
    )
    done = run_platform(checkout, bare_path, "up")
    assert done.returncode == 1
    assert "GB free" in done.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.nightly
def test_a_missing_network_is_reported(checkout: Path, bare_path: Path) -> None:
    python_here(bare_path)
    fake(bare_path, "uv", 'echo "error: Failed to fetch: could not connect" >&2; exit 2')
    environment = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    done = run_platform(checkout, bare_path, "up", **environment)
    assert done.returncode == 1
    assert "network" in done.stderr
    assert not (checkout / ".venv" / ".sennit-runtime-lock").exists()


EXTENSION = "packages/strand/src/strand/_native.abi3.so"
KERNEL = "packages/emsqrt/src/emsqrt/_kernel/_native.abi3.so"


@pytest.fixture
def installing(checkout: Path, bare_path: Path) -> Any:
    """A checkout whose `uv` notes its calls and makes what the command line needs."""
    python_here(bare_path)
    for extension in (EXTENSION, KERNEL):
        (checkout / extension).parent.mkdir(parents=True)
    program = "$PWD/.venv/bin/platform"
    fake(bare_path, "cc", "exit 0")
    fake(
        bare_path,
        "uv",
        'echo "$*" >> "$PWD/calls"\n'
        '[ ! -e "$PWD/slow" ] || sleep 1\n'
        f'printf "#!/bin/sh\\necho sennit 0 \\$*\\n" > "{program}"; chmod 755 "{program}"\n'
        f': > "$PWD/{EXTENSION}"; : > "$PWD/{KERNEL}"',
    )
    for name in ("chmod", "sleep", "readlink"):
        (bare_path / name).symlink_to(shutil.which(name) or "")
    return checkout


def calls(root: Path) -> list[str]:
    log = root / "calls"
    found = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return ["workspace" if " -e " in call else Path(call.split()[-1]).name for call in found]


@pytest.mark.nightly
def test_a_first_run_installs_and_a_second_only_runs(installing: Path, bare_path: Path) -> None:
    first = run_platform(installing, bare_path, "version")
    assert first.stdout == "sennit 0 version\n", first.stderr
    assert calls(installing) == ["runtime.txt", "workspace"]

    second = run_platform(installing, bare_path, "version")
    assert (second.stdout, second.stderr) == ("sennit 0 version\n", "")
    assert calls(installing) == []


@pytest.mark.nightly
def test_only_changed_steps_run_again(installing: Path, bare_path: Path) -> None:
    run_platform(installing, bare_path, "version")
    calls(installing)

    (installing / EXTENSION).with_name("_ring.c").write_text("int changed;")
    run_platform(installing, bare_path, "version")
    assert calls(installing) == ["workspace"]

    with (installing / "lock/runtime.txt").open("a") as lock:
        lock.write("# changed\n")
    run_platform(installing, bare_path, "version")
    assert calls(installing) == ["runtime.txt"]

    (installing / EXTENSION).unlink()
    run_platform(installing, bare_path, "version")
    assert calls(installing) == ["workspace"]


@pytest.mark.nightly
def test_a_tree_that_was_moved_gets_a_new_environment(installing: Path, bare_path: Path) -> None:
    run_platform(installing, bare_path, "version")
    moved = installing.rename(installing.with_name("moved täst"))
    calls(moved)

    done = run_platform(moved, bare_path, "version")

    assert done.stdout == "sennit 0 version\n", done.stderr
    assert calls(moved) == ["runtime.txt", "workspace"]


@pytest.mark.nightly
def test_it_is_found_through_a_link_from_anywhere(installing: Path, bare_path: Path) -> None:
    linked = installing.with_name("linked")
    linked.mkdir()
    (linked / "platform").symlink_to(installing / "platform")
    for _ in range(2):
        assert run_platform(linked, bare_path, "version").stdout == "sennit 0 version\n"
    assert (installing / ".venv").is_dir()


@pytest.mark.nightly
def test_two_first_runs_at_once_install_once(installing: Path, bare_path: Path) -> None:
    (installing / "slow").touch()
    both = [start_platform(installing, bare_path, "version") for _ in range(2)]
    answers = [one.communicate(timeout=60) for one in both]
    assert [out for out, _ in answers] == ["sennit 0 version\n"] * 2
    assert "waiting for it" in "".join(err for _, err in answers)
    assert calls(installing) == ["runtime.txt", "workspace"]


@pytest.mark.nightly
def test_a_killed_first_run_is_made_good_by_the_next(installing: Path, bare_path: Path) -> None:
    (installing / "slow").touch()
    killed = start_platform(installing, bare_path, "version")
    deadline = time.monotonic() + 90
    while not (installing / "calls").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()

    done = run_platform(installing, bare_path, "version")

    assert "waiting for it" in done.stderr  # for the installer that outlived its parent
    assert "making .venv" in done.stderr
    assert done.stdout == "sennit 0 version\n"
    assert calls(installing) == ["runtime.txt", "runtime.txt", "workspace"]


def test_a_folder_that_cannot_be_written_is_named(checkout: Path, bare_path: Path) -> None:
    python_here(
        bare_path,
        "import errno, pathlib\n"
        "def refuse(self, *a, **k): raise PermissionError(errno.EACCES, 'Permission denied', str(self))\n"
        "pathlib.Path.mkdir = refuse",
    )
    done = run_platform(checkout, bare_path, "up")
    assert done.returncode == 1
    assert str(checkout) in done.stderr
    assert "writable" in done.stderr
    assert "Traceback" not in done.stderr


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
