"""Random histories of two real lakes that hand one dataset to each other: `--histories` of them, each from a seed.

    FUZZ_SEED=7 pytest packages/lake/tests/test_peers_random_hand_overs.py -m nightly

replays seed 7. `test_simulated_networks.py` has hand-overs in larger networks, without the catalog and its disk.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from lake.peers.handovers.rows import OFFERED, SETTLED, SIGNED
from sennit_core.errors import SennitError

from .hand_over_world import (
    Crash,
    CrashingTree,
    HandOverWorld,
    dataset_of,
    rows,
    state,
    writes,
)

NAMES = ("oslo", "rome")
STEPS, HEAL_ROUNDS = 40, 60
FIRST = int(os.environ.get("FUZZ_SEED", "0"))
COUNT = 10


class RandomHistory:
    """One history; a seed decides it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = Random(seed)
        self.is_healed = False
        self.world = HandOverWorld(folder, self._fate)
        self.crashing: dict[str, CrashingTree] = {}
        self.hand_overs = 0
        self._row = 0

    def _fate(self, _number: int) -> str:
        is_faulty = not self.is_healed and self.random.random() < 0.4
        return self.random.choice(["lost", "twice", "unanswered"]) if is_faulty else ""

    async def run(self) -> None:
        oslo, rome = await self.world.open("oslo"), await self.world.open("rome")
        oslo.append("trips", 0)
        self.world.acknowledged.add(0)
        oslo.share("trips", rome)
        await self.world.network.until(lambda: "trips" in rome.names())
        for _ in range(STEPS):
            await self._step()
            await self._reopen()
            self._check_writers()
        await self._heal()

    async def _step(self) -> None:
        network, name = self.world.network, self.random.choice(NAMES)
        node, other = (self.world.nodes[n] for n in (name, NAMES[1 - NAMES.index(name)]))
        choice = self.random.random()
        with suppress(SennitError):
            if choice < 0.2:
                self._commit()
            elif choice < 0.35 and writes(node):
                await node.exchange.giver.offer(dataset_of(node), other.id)
            elif choice < 0.5 and not writes(node):
                await node.exchange.taker.accept(dataset_of(node), "anna")
            elif choice < 0.56 and not await node.exchange.taker.undo(dataset_of(node)):
                await node.exchange.giver.undo(dataset_of(node))
            elif choice < 0.6:
                network.away ^= {node.id}
            elif choice < 0.65:
                number, is_after = self.random.randrange(1, 4), self.random.random() < 0.5
                self.crashing[name] = CrashingTree(node, number, is_after=is_after)
            else:
                await network.run()

    def _commit(self) -> None:
        self._row += 1
        self.world.commit(self._row)

    async def _reopen(self) -> None:
        for name, tree in list(self.crashing.items()):
            if tree.has_crashed:
                del self.crashing[name]
                await self.world.close(name)
                await self.world.open(name)

    def _check_writers(self) -> None:
        writing = [name for name in NAMES if writes(self.world.nodes[name])]
        assert len(writing) <= 1, "two nodes write"

    async def _heal(self) -> None:
        """End all faults, and what is under way; the writer has every row that was acknowledged."""
        self.is_healed = True
        self.world.network.away.clear()
        for name in list(self.crashing):
            await self.world.close(name)
            await self.world.open(name)
        for _ in range(HEAL_ROUNDS):
            nodes = list(self.world.nodes.values())
            for node, other in zip(nodes, reversed(nodes), strict=True):
                if state(node) == SIGNED:
                    with suppress(SennitError):
                        await other.exchange.taker.accept(dataset_of(other), "anna")
            with suppress(Crash):
                await self.world.network.run()
            is_done = all(state(node) in (SETTLED, OFFERED) for node in nodes)
            if is_done and any(map(writes, nodes)):
                break
        else:
            raise AssertionError(
                f"it does not end: {[state(n) for n in self.world.nodes.values()]}"
            )
        self._check_writers()
        writer = next(node for node in self.world.nodes.values() if writes(node))
        self._commit()
        assert self._row in self.world.acknowledged
        assert set(rows(writer)) == self.world.acknowledged
        self.hand_overs = len(writer.parts.handovers.get(dataset_of(writer)).chain)

    async def close(self) -> None:
        for name in list(self.world.nodes):
            await self.world.close(name)


async def history(folder: Path, seed: int) -> int:
    found = RandomHistory(folder, seed)
    try:
        await found.run()
    finally:
        await found.close()
    return found.hand_overs


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_random_histories(tmp_path: Path) -> None:
    done = 0
    for seed in range(FIRST, FIRST + COUNT):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            done += asyncio.run(history(folder, seed))
        except AssertionError as error:
            raise AssertionError(f"FUZZ_SEED={seed}: {error}") from error
    assert done
