"""The page on memory runs."""

from pathlib import Path

import pytest

from sennit_core.testing import run_markdown

PAGE = Path(__file__).resolve().parents[3] / "docs" / "memory.md"


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_markdown(PAGE)
