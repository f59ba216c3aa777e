"""The README's example runs as it stands."""

from pathlib import Path
from typing import Any

from sennit_core.testing import run_markdown


def test_the_readme_runs(node: Any) -> None:
    run_markdown(Path(__file__).parents[1] / "README.md", url=node.url)
