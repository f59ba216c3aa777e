from pathlib import Path

from sennit_core.testing import run_markdown


def test_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_markdown(Path(__file__).parents[1] / "README.md")
