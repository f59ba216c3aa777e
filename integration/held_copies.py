"""A dataset whose shards several real nodes hold, and queries of it one after the other."""

from __future__ import annotations

import threading
from typing import Any, Self

from networks import Member, eventually

from nodes import RunningNode, platform
from sennit_core.hashing import hash_file

__all__ = [
    "BATCHES",
    "BATCH_ROWS",
    "GROUPS",
    "HOLDER",
    "READER",
    "WRITER",
    "Asking",
    "fill",
    "is_intact",
    "shards",
    "share",
]  # fmt: skip

WRITER, HOLDER, READER = "oslo", "rome", "bern"
BATCHES, BATCH_ROWS = 4, 150_000
INSERT = "INSERT INTO log SELECT {batch}, (hash(range + {batch} * {rows}) >> 2)::BIGINT FROM range({rows})"
GROUPS = "SELECT batch, count(*), min(v), max(v) FROM log WHERE {where} GROUP BY ALL ORDER BY 1"
SHARD_BYTES = 100_000
"""Shards are larger, and manifests smaller."""


def shards(node: RunningNode) -> dict[str, int]:
    """Return the sizes of the shards that a node holds, by their names."""
    objects = (node.data / "lake" / "objects").rglob("*")
    sizes = {each.name: each.stat().st_size for each in objects if each.is_file()}
    return {name: size for name, size in sizes.items() if size > SHARD_BYTES}


def is_intact(node: RunningNode) -> bool:
    """Whether all shards are at a node, and have the bytes that their names say."""
    objects = node.data / "lake" / "objects"
    names = shards(node)
    try:
        return len(names) == BATCHES and all(
            hash_file(objects / name[:2] / name).object == name for name in names
        )
    except FileNotFoundError:  # it was just moved aside
        return False


def share(nodes: dict[str, Member], *holders: str) -> None:
    words = [word for name in holders for word in ("--hold-on", name, "--only-on", name)]
    copies = ("--copies", str(1 + len(holders)))
    platform("share", "log", "--with", "all", *copies, *words, data=nodes[WRITER].node.data)


def fill(nodes: dict[str, Member]) -> None:
    """Make the dataset at its writer, with a copy at one other node."""
    with nodes[WRITER].node.session() as session:
        session.sql("CREATE TABLE log (batch BIGINT, v BIGINT)")
        for batch in range(BATCHES):
            session.sql(INSERT.format(batch=batch, rows=BATCH_ROWS))
    share(nodes, HOLDER)
    eventually(lambda: len(shards(nodes[HOLDER].node)) == BATCHES)


class Asking:
    """Asks a node one query after the other, in a thread, so that one is under way at any time."""

    def __init__(self, node: RunningNode) -> None:
        self.answers: list[list[tuple[Any, ...]]] = []
        self.errors: list[Exception] = []
        self._node, self._ends = node, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        with self._node.session() as session:
            while not self._ends.is_set() and not self.errors:
                # Each one has another text, so that none has its answer from before.
                sql = GROUPS.format(where=f"v <> -{len(self.answers) + 1}")
                try:
                    self.answers.append(session.sql(sql).rows)
                except Exception as error:  # noqa: BLE001 - the test shows it
                    self.errors.append(error)

    def more(self, count: int) -> None:
        """Wait for so many answers more."""
        wanted = len(self.answers) + count
        eventually(lambda: self.errors or len(self.answers) >= wanted)
