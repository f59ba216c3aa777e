"""What `docs/replicas.md` shows is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sennit_core.testing import run_markdown


@pytest.mark.slow
def test_the_page_about_replicas_runs(start_server: Callable[..., Any]) -> None:
    leader = start_server()
    token = (leader.data / "admin.token").read_text().strip()
    page = Path(__file__).parents[3] / "docs" / "replicas.md"
    names = run_markdown(page, url=leader.url, token=token)
    for name in ("replica", "some"):
        names[name].close()
