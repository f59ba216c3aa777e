"""The nodes that integration tests talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from elkyn_sdks import JS, install_sdks

from nodes import RunningNode, running_node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """One node for all tests that leave it as they found it."""
    with running_node(tmp_path_factory.mktemp("node"), "--api-only", "--memory", "1GiB") as started:
        yield started


@pytest.fixture
def own_node(tmp_path: Path) -> Iterator[RunningNode]:
    """A node for one test alone."""
    with running_node(tmp_path / "node", "--api-only", "--memory", "1GiB") as started:
        yield started


@pytest.fixture(scope="session")
def sdk_folder() -> Path:
    """The folder of Node scripts, with the client SDKs that they use installed."""
    install_sdks()
    return JS
