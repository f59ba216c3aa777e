"""Two lakes of which each may hand a dataset to the other, with lost messages and crashes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from lake.peers.handovers.messages import HandOverRefusal, HandOverRequest
from lake.peers.handovers.rows import SETTLED
from lake.peers.transport.machine import Call, Failed, Replied
from sennit_core.errors import SennitError, Unavailable

from .peers_exchange import SharingNetwork, SharingNode


def state(node: SharingNode) -> str:
    return node.parts.handovers.get(dataset_of(node)).state


def dataset_of(node: SharingNode) -> str:
    return node.lake.catalog.get("trips").id


def writes(node: SharingNode) -> bool:
    return "trips" in node.names() and node.lake.catalog.get("trips").node is None


def rows(node: SharingNode) -> list[int]:
    return sorted(row[0] for row in node.lake.sql("SELECT id FROM trips").rows)


class Crash(Unavailable):
    """The process ends at a write: what was in memory is lost."""


class CrashingTree:
    """Ends a node at one of its writes of hand-overs, before or after it is on the disk."""

    def __init__(self, node: SharingNode, number: int, *, is_after: bool) -> None:
        self._left, self._is_after = number, is_after
        self.has_crashed = False
        tree = node.lake.tree
        for name in ("update", "set"):
            self._wrap(tree, name)

    def _wrap(self, tree: Any, name: str) -> None:
        write = getattr(tree, name)

        def wrapped(path: str, value: Any, **options: Any) -> Any:
            if self.has_crashed:
                raise Crash("nothing is written after a crash")
            paths = [path, *(value if name == "update" else ())]
            if any("peers/handovers/" in each for each in paths):
                self._left -= 1
                if self._left == 0:
                    self.has_crashed = True
                    if self._is_after:
                        write(path, value, **options)
                    raise Crash("it ends here")
            return write(path, value, **options)

        setattr(tree, name, wrapped)


class HandOverWorld:
    """Two nodes of which the first hands a dataset over while it commits, whatever happens."""

    def __init__(self, folder: Path, lose: Callable[[int], str] = lambda number: "") -> None:
        self.network = SharingNetwork(folder)
        self._stacks: dict[str, ExitStack] = {}
        self.nodes: dict[str, SharingNode] = {}
        self._lose = lose
        self._requests = 0
        self.acknowledged: set[int] = set()

    async def open(self, name: str) -> SharingNode:
        stack = self._stacks[name] = ExitStack()
        node = self.nodes[name] = stack.enter_context(self.network.node(name))
        call = node.call

        async def lossy(each: Call) -> Replied | Failed:
            if not isinstance(each.message, HandOverRequest | HandOverRefusal):
                return await call(each)
            self._requests += 1
            fate = self._lose(self._requests)
            if fate == "lost":
                return Failed(each.id, "unavailable", "it is lost")
            found = await call(each)
            if fate == "twice":
                await call(each)
            return Failed(each.id, "unavailable", "no answer") if fate == "unanswered" else found

        node.call = lossy  # type: ignore[method-assign,assignment]
        await node.exchange.start()
        return node

    async def close(self, name: str) -> None:
        with suppress(SennitError):
            await self.nodes[name].exchange.end()
        self._stacks.pop(name).close()

    def commit(self, row: int) -> None:
        """Commit at every node that does so; of one term it must be one."""
        done = 0
        for node in self.nodes.values():
            with suppress(SennitError):
                node.append("trips", row)
                done += 1
                self.acknowledged.add(row)
        assert done <= 1, "two nodes commit"

    async def ask(self) -> None:
        """Do what the users of both nodes do until it is done."""
        oslo, rome = self.nodes["oslo"], self.nodes["rome"]
        with suppress(SennitError):
            if writes(oslo) and state(oslo) == SETTLED:
                await oslo.exchange.giver.offer(dataset_of(oslo), rome.id)
        with suppress(SennitError):
            if not writes(rome) and state(rome) == SETTLED:
                await rome.exchange.taker.accept(dataset_of(rome), "anna")
