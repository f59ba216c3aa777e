"""Each package installs by its path alone, and what is built from it speaks of no folder."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("core", "strand", "emsqrt", "elkyn", "lake", "elytra")


def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def backend_call(folder: Path, call: str) -> str:
    """Call a package's build backend as a front end would: in its folder, by its declared path."""
    program = f"import sys; sys.path.insert(0, '.'); import _build_backend as b; print(b.{call})"
    return run(sys.executable, "-c", program, cwd=folder).splitlines()[-1]


@pytest.mark.parametrize("package", [*PACKAGES, "gateway"])
def test_prepared_metadata_names_siblings_by_folder_and_the_wheel_by_range(
    package: str, tmp_path: Path
) -> None:
    folder = ROOT / ("apps/gateway" if package == "gateway" else f"packages/{package}")
    prepared = backend_call(folder, f"prepare_metadata_for_build_wheel({str(tmp_path)!r})")
    wheel = tmp_path / backend_call(folder, f"build_wheel({str(tmp_path)!r})")

    ahead = email.message_from_bytes((tmp_path / prepared / "METADATA").read_bytes())
    built = metadata_of(wheel)

    assert (ahead["Name"], ahead["Version"]) == (built["Name"], built["Version"])
    for requirement in ahead.get_all("Requires-Dist", []):
        assert not requirement.startswith("sennit-") or " @ file://" in requirement
    for requirement in built.get_all("Requires-Dist", []):
        assert "file:" not in requirement
        assert not requirement.startswith("sennit-") or "<0.2,>=0.1" in requirement


def test_an_unpacked_sdist_needs_no_tree(tmp_path: Path) -> None:
    import tarfile

    name = backend_call(ROOT / "packages/emsqrt", f"build_sdist({str(tmp_path)!r})")
    with tarfile.open(tmp_path / name) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / name.removesuffix(".tar.gz")

    prepared = backend_call(unpacked, f"prepare_metadata_for_build_wheel({str(tmp_path)!r})")

    assert "file:" not in (tmp_path / prepared / "METADATA").read_text()


def test_strand_alone_brings_its_sibling(tmp_path: Path) -> None:
    """What a stranger types, with pip as it comes with Python, into an empty environment."""
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    python = str(tmp_path / "venv" / "bin" / "python")
    run(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "./packages/strand",
    )

    listed = run(python, "-m", "pip", "list", "--format=freeze")
    assert "sennit-core" in listed
    assert run(python, "-c", "import strand; print(strand.open_ring.__module__)").startswith(
        "strand"
    )
    run(python, "-m", "pip", "check")
    requires = run(
        python, "-c", "from importlib.metadata import requires; print(requires('sennit-strand'))"
    )
    assert "file:" not in requires
