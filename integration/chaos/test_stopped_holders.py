"""Holders of shards stop while they are asked: the queries and copies of a third node go on without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from held_copies import (
    BATCH_ROWS,
    BATCHES,
    GROUPS,
    HOLDER,
    READER,
    WRITER,
    Asking,
    fill,
    shards,
    share,
)
from networks import Member, all_become_alive, eventually, members

from nodes import platform
from sennit_core.units import MIB

pytestmark = [
    pytest.mark.nightly,  # a network takes a while to see that a process is stopped
    pytest.mark.timeout(600),
]


@contextmanager
def stopped(member: Member) -> Iterator[None]:
    member.stop()
    try:
        yield
    finally:
        member.go_on()


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
