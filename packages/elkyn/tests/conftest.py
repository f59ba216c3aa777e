"""Real servers for tests: `elkyn serve` as users start it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elkyn_server import Served, running


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start servers for one test."""
    started: list[Served] = []

    def start(*options: str, data: Path = tmp_path / "data") -> Served:
        started.append(Served(data, *options))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.stop()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One emulator for the tests of a module, each with a namespace of its own."""
    with running(tmp_path_factory.mktemp("emulator"), "--emulator", "--keep-alive", "1") as served:
        yield served
