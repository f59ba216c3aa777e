"""Each package installs by its path alone, and what is built from it speaks of no folder."""

from __future__ import annotations

import email
import html
import json
import os
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import httpx
import pytest

from nodes import quiet_environment
from sennit import playground
from workspace import Package, packages

ROOT = Path(__file__).resolve().parents[1]


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


@pytest.mark.sample(2)
@pytest.mark.parametrize("package", packages(), ids=lambda package: package.name)
def test_prepared_metadata_names_siblings_by_folder_and_the_wheel_by_range(
    package: Package, tmp_path: Path
) -> None:
    folder = ROOT / package.folder
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


@pytest.mark.nightly
def test_strand_alone_brings_its_sibling(tmp_path: Path) -> None:
    """The commands of a new user, with Python's own pip, in an empty environment."""
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


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The gateway's folder, next to an exported playground."""
    gateway, app = tmp_path / "apps/gateway", tmp_path / "apps/playground"
    unbuilt = shutil.ignore_patterns("_playground", "__pycache__", "tests")
    shutil.copytree(ROOT / "apps/gateway", gateway, ignore=unbuilt)
    (app / "out").mkdir(parents=True)
    (app / "package.json").write_text("{}")
    (app / "next.config.ts").write_text("")
    (app / "out/index.html").write_text("<title>Sennit</title>")
    return tmp_path


def files_of_gateway_wheel(checkout: Path, scratch: Path) -> list[str]:
    scratch.mkdir()
    wheel = scratch / backend_call(checkout / "apps/gateway", f"build_wheel({str(scratch)!r})")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_a_gateway_installed_by_its_path_brings_the_exported_playground(checkout: Path) -> None:
    site = "sennit/_playground/index.html"
    assert site in files_of_gateway_wheel(checkout, checkout / "current")

    page = checkout / "apps/playground/next.config.ts"
    index = (checkout / "apps/playground/out/index.html").stat()
    os.utime(page, (index.st_mtime + 10, index.st_mtime + 10))
    assert site not in files_of_gateway_wheel(checkout, checkout / "outdated")

    shutil.rmtree(checkout / "apps/playground")
    assert "sennit/__init__.py" in (without := files_of_gateway_wheel(checkout, checkout / "none"))
    assert site not in without


@pytest.mark.nightly
def test_an_install_without_the_playground_names_the_command_that_adds_it(tmp_path: Path) -> None:
    """Run the package from a folder that is in no checkout, as an installed one is."""
    unbuilt = shutil.ignore_patterns("_playground", "__pycache__")
    shutil.copytree(ROOT / "apps/gateway/src/sennit", tmp_path / "site/sennit", ignore=unbuilt)
    environment = quiet_environment() | {"PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "sennit.cli", "up", "--port", "0", "--json"]
    with (
        (tmp_path / "stderr").open("w+") as errors,
        subprocess.Popen(
            [*command, "--data", str(tmp_path / "node")],
            stdout=subprocess.PIPE, stderr=errors, env=environment, text=True, cwd=tmp_path,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        up = json.loads(process.stdout.readline())
        page = httpx.get(up["loginUrl"], follow_redirects=True)
        process.terminate()
        process.wait()
        errors.seek(0)
        output = errors.read()
    remedy = "npm ci && npm run build && pip install --force-reinstall --no-deps ./apps/gateway"
    assert page.status_code == 503
    assert remedy in html.unescape(page.text)
    assert f"note: {playground.MISSING}" in output
    assert remedy in playground.MISSING
