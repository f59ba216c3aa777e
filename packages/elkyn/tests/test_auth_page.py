"""What `docs/auth.md` shows is run."""

from pathlib import Path

from sennit_core.testing import run_markdown


def test_the_page_about_auth_runs() -> None:
    names = run_markdown(Path(__file__).parents[3] / "docs" / "auth.md")
    assert names["ann"].email == "ann@example.com"
