from __future__ import annotations

from pathlib import Path

from sennit_core.testing import run_markdown


def test_readme_runs() -> None:
    names = run_markdown(Path(__file__).parents[1] / "README.md")

    assert names["rows"] == 2
