"""The README's example runs unchanged."""

from pathlib import Path
from typing import Any

import pytest

from sennit_core.testing import run_markdown


@pytest.mark.slow
def test_the_readme_runs(node: Any) -> None:
    run_markdown(Path(__file__).parents[1] / "README.md", url=node.url)
