"""The page on files runs, and names every option there is."""

from pathlib import Path

import pytest

from emsqrt.io import csv_options, json_lines, sinks
from sennit_core.testing import run_markdown

PAGE = Path(__file__).resolve().parents[3] / "docs" / "io.md"
OPTIONS = {
    *csv_options._NAMES,
    *json_lines._NAMES,
    *(name for names in sinks._OPTIONS.values() for name in names),
}


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_markdown(PAGE)


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_every_option_is_described(option: str) -> None:
    assert f"`{option}`" in PAGE.read_text("utf-8")
