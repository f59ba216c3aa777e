import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import strand

PEER = Path(__file__).with_name("peer.py")

Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start `peer.py` with the ring's descriptor; those that still run at the end are killed."""
    started: list[subprocess.Popen[str]] = []

    def start(role: str, ring: strand.Ring, *arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(PEER), role, str(ring.fileno()), *map(str, arguments)],
            pass_fds=[ring.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def peer() -> ModuleType:
    """The peer's module, for the payloads it writes."""
    spec = importlib.util.spec_from_file_location("strand_test_peer", PEER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ring() -> Iterator[strand.Ring]:
    """A small block ring."""
    with strand.open_ring(strand.BLOCKS, records=8, heap=4096) as made:
        yield made
