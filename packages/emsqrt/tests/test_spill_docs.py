"""The page on spilling runs, and names every option and error there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emsqrt.spill import clients, errors
from sennit_core.testing import run_markdown

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "spill.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_markdown(PAGE)


@pytest.mark.parametrize("options", ["_S3_OPTIONS", "_GCS_OPTIONS", "_AZURE_OPTIONS"])
def test_every_option_is_named(options: str) -> None:
    text = PAGE.read_text("utf-8")
    for name, variables in getattr(clients, options).items():
        for word in (name, *variables):
            assert f"`{word}`" in text


def test_every_error_is_named() -> None:
    text = PAGE.read_text("utf-8")
    for error in errors.SpillError.__subclasses__():
        assert f"`{error.__name__}`" in text


def test_spilling_to_a_disk_loads_nothing_third_party() -> None:
    code = (
        "import sys\nbefore = {*sys.modules}\n"
        "from emsqrt.spill import SpillManager, default_spill_dir\n"
        "with SpillManager(default_spill_dir(), codec='lz4') as spill:\n"
        "    with spill.create('a') as writer:\n"
        "        writer.append(bytes(100_000), 1)\n"
        "        spill.open(writer.finish()).read_into(bytearray(100_000))\n"
        "loaded = {name.partition('.')[0] for name in {*sys.modules} - before}\n"
        "print(sorted(loaded - {*sys.stdlib_module_names}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['emsqrt', 'sennit_core']"


@pytest.mark.nightly
def test_the_fuzz_target_bears_mutated_seeds(tmp_path: Path) -> None:
    for name in ("cc", "ld", "as"):
        found = Path("/usr/bin") / name
        if not found.exists():
            pytest.skip(f"there is no {found}")
        (tmp_path / name).symlink_to(found)
    command = [sys.executable, str(ROOT / "tools" / "fuzz.py"), "spill"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3004 inputs" in done.stdout
