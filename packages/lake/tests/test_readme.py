from __future__ import annotations

from pathlib import Path

import pytest

from sennit_core.testing import run_markdown


def test_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)  # its allocators fill what they reserve
    names = run_markdown(Path(__file__).parents[1] / "README.md")

    assert names["rows"] == 2
