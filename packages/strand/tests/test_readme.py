from pathlib import Path

import pytest

from sennit_core.testing import run_markdown


@pytest.mark.slow
def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_markdown(Path(__file__).parents[1] / "README.md")
