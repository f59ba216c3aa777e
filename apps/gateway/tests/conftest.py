"""Real nodes in this process for tests of the gateway."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from opened_node import OpenNode, OpenNodes, open_node


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenNodes]:
    """Open nodes with settings by dotted name: `opened({"storage.part_bytes": 4096})`."""
    with ExitStack() as owned:

        def open_one(settings: dict[str, Any] | None = None, data: Path | None = None) -> OpenNode:
            folder = data or tmp_path_factory.mktemp("node")
            return owned.enter_context(open_node(folder, settings or {}))

        yield open_one


@pytest.fixture(scope="session")
def plain(opened: OpenNodes) -> OpenNode:
    """A node with default settings, for tests that leave it as they found it."""
    return opened()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and addresses of the machine's user do not reach a test."""
    for name in [name for name in os.environ if name.startswith("SENNIT_")]:
        monkeypatch.delenv(name)
