"""`@firebase/rules-unit-testing`, unmodified, against an emulator."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from elkyn_sdks import install_sdks, run_script
from elkyn_server import running_emulator


def test_rules_are_tested_with_the_vendors_library(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("no Node.js")
    install_sdks()
    with running_emulator(tmp_path / "data") as url:
        host, _colon, port = url.removeprefix("http://").partition(":")
        found = run_script("rules_testing.mjs", host, port)
    assert len(found) == 8
    assert {name: result for name, result in found.items() if result != "ok"} == {}
