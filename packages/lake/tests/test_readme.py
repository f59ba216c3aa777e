from __future__ import annotations

from pathlib import Path

import pytest

from sennit_core.testing import run_markdown


@pytest.mark.slow
def test_readme_runs() -> None:
    names = run_markdown(Path(__file__).parents[1] / "README.md")

    assert names["rows"] == 2
