"""A node under work while its processes are killed at random: answers stay right, data stays whole."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from nodes import RunningNode, platform, running_node
from sennit_core.errors import SennitError

pytestmark = pytest.mark.nightly
SEED = int(os.environ.get("CHAOS_SEED", "1"))
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "6"))
ROWS = 50_000
SUM = ROWS * (ROWS - 1) // 2
T = TypeVar("T")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.csv"
    path.write_text("n,k\n" + "".join(f"{i},{i % 11}\n" for i in range(ROWS)))
    return path


def kill_an_executor(node: RunningNode, dice: random.Random) -> None:
    """Kill one executor, if one runs."""
    family = psutil.Process(node.process.pid).children(recursive=True)
    if family:
        dice.choice(family).kill()


def until_answered(ask: Callable[[], T]) -> T:
    """The first answer; a lost executor may fail a question, but never answer it wrongly."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return ask()
        except SennitError as error:
            if not error.retryable or time.monotonic() > deadline:
                raise


def sum_of(node: RunningNode, name: str) -> int:
    with node.session() as session:
        return until_answered(lambda: int(session.sql(f"select sum(n) from {name}").rows[0][0]))


def test_killed_executors_never_make_a_wrong_answer(source: Path, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    with running_node(tmp_path / "node", "--api-only", "--memory", "1GiB") as node:
        platform("put", str(source), data=node.data)
        for _round in range(ROUNDS):
            kill_an_executor(node, dice)
            assert sum_of(node, "numbers") == SUM
            with node.session() as session:
                job = session.pipeline("numbers").group_by("k").agg(n="sum(n)").submit()
                time.sleep(dice.uniform(0, 0.3))
                kill_an_executor(node, dice)
                job.wait(timeout_seconds=60)
                rows = until_answered(job.result).rows
            assert sum(row[1] for row in rows) == SUM


def test_nodes_killed_repeatedly_keep_acknowledged_writes(source: Path, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    data = tmp_path / "node"
    acknowledged: set[str] = set()
    for number in range(ROUNDS):
        with running_node(data, "--api-only", "--memory", "1GiB") as node:
            with node.session() as session:
                assert acknowledged <= {dataset.name for dataset in session.datasets()}
                assert session.tree.get("/count") in {None, number - 1}
                session.tree.set("/count", number)
            name = f"copy_{number}"
            done = platform("put", str(source), "--name", name, "--json", data=data)
            assert json.loads(done.stdout)[0]["rows"] == ROWS
            acknowledged.add(name)
            time.sleep(dice.uniform(0, 0.2))
            node.kill()
    with running_node(data, "--api-only", "--memory", "1GiB") as node:
        for name in sorted(acknowledged):
            assert sum_of(node, name) == SUM
