"""Holders of shards stop while they are asked: the queries and copies of a third node go on without them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from networks import Member, all_become_alive, eventually, members

from nodes import RunningNode, platform
from sennit_core.units import MIB

pytestmark = [
    pytest.mark.nightly,  # a network takes a while to see that a process is stopped
    pytest.mark.timeout(600),
]
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


@contextmanager
def stopped(member: Member) -> Iterator[None]:
    member.stop()
    try:
        yield
    finally:
        member.go_on()


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


def test_queries_are_answered_while_either_holder_is_stopped(tmp_path: Path) -> None:
    with members(tmp_path, WRITER, HOLDER, READER) as nodes:
        fill(nodes)
        reader = nodes[READER].node
        with nodes[WRITER].node.session() as session:
            right = session.sql(GROUPS.format(where="true")).rows
        assert [row[:2] for row in right] == [(batch, BATCH_ROWS) for batch in range(BATCHES)]
        eventually(lambda: "log" in platform("sql", "SHOW TABLES", data=reader.data).stdout)
        explained = "EXPLAIN ANALYZE " + GROUPS.format(where="true")

        def asks_both() -> bool:
            found = platform("sql", explained, data=reader.data).stdout
            return all(f"at {name}: " in found for name in (WRITER, HOLDER))

        eventually(asks_both)
        with Asking(reader) as asking:
            for name in (HOLDER, WRITER):
                asking.more(2)
                with stopped(nodes[name]):
                    asking.more(3)  # the first of these was under way as the node stopped
                all_become_alive(*(each.node for each in nodes.values()))
                asking.more(2)
                eventually(asks_both)
        assert asking.errors == []
        assert all(rows == right for rows in asking.answers)
        assert shards(reader) == {}, "the answers came from the holders"
        assert shards(nodes[HOLDER].node) == shards(nodes[WRITER].node)


@pytest.mark.parametrize("source", [WRITER, HOLDER])
def test_a_copy_goes_on_from_the_other_source(tmp_path: Path, source: str) -> None:
    # A shard takes longer than a second, and its first chunk is there at once.
    config = f"copy_rate_bytes = {MIB}\n"
    with members(tmp_path, WRITER, HOLDER, READER, config=config) as nodes:
        fill(nodes)
        taker = nodes[READER].node
        incoming = taker.data / "lake" / "incoming-copies"
        share(nodes, HOLDER, READER)
        eventually(lambda: any(each.stat().st_size for each in incoming.glob("*")))
        with stopped(nodes[source]):
            assert len(shards(taker)) < BATCHES, "the source stopped too late"
            wanted = shards(nodes[WRITER].node)
            eventually(lambda: shards(taker) == wanted)
        all_become_alive(*(each.node for each in nodes.values()))
        assert "0 problems" in platform("net", "check", data=taker.data).stdout
