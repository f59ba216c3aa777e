"""A step of a distributed query: the order of its results, and errors of the node that coordinates it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lake.deadline import Deadline
from lake.peers.distributed_query import DistributedQuery, DistributedTable
from lake.peers.fragments import FragmentRequest
from lake.peers.sql import Fragment, Unit
from lake.peers.step_dispatch import Coordinator, StepDispatch, StepResult
from lake.peers.stop import Stop

UNITS = [f"s{number:03}" for number in range(300)]
"""More than an attempt has, so that there are two."""
FIRST = "s000"


class Here:
    """A network of one node, which holds all shards."""

    def holders(self, name: str) -> list[str]:
        return ["here"]

    def known_holders(self, name: str) -> tuple[str, ...]:
        return ("here",)

    def alive(self) -> list[str]:
        return []

    def name(self, node: str) -> str:
        return node

    async def session(self, node: str) -> Any:
        raise AssertionError("there is no other node")


class LastFirst:
    """Runs fragments; the one with the first unit ends last. A result is the name of its first shard."""

    def __init__(self) -> None:
        self._is_other_done = threading.Event()

    def run(self, request: FragmentRequest, stop: Stop) -> Iterator[bytes]:
        first = request.tables[0].objects[0]
        if first == FIRST:
            assert self._is_other_done.wait(30)
        yield first.encode()
        if first != FIRST:
            self._is_other_done.set()


def run(folder: Path) -> StepResult:
    shards: Any = SimpleNamespace(
        dataset="d", id="1", shards=[SimpleNamespace(object=name, bytes=1) for name in UNITS]
    )
    units = tuple(Unit(name, {"t": (name,)}) for name in UNITS)
    step = Fragment("r", "SELECT 1", "shard", ("t",), (), (), units, 1, 1, len(units))
    query = DistributedQuery("SELECT 1", [DistributedTable("t", shards)], "ann", 60)
    coordinator = Coordinator("here", LastFirst(), Here(), SimpleNamespace())  # type: ignore[arg-type]

    async def work() -> StepResult:
        return await StepDispatch(coordinator, step, query, folder, Deadline(60), Stop()).run()

    return asyncio.run(work())


def test_results_are_in_the_order_of_their_units(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert [Path(file).read_text() for file in found.files] == [FIRST, "s256"]
    assert found.run.units == {"here": 300}


def test_a_result_that_cannot_be_written_ends_the_query(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "gone")
