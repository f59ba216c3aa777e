"""Bits of stored shards flip at real nodes while queries run, and nodes are killed while they repair."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
from held_copies import (
    GROUPS,
    HOLDER,
    READER,
    WRITER,
    Asking,
    fill,
    is_intact,
    shards,
    share,
)
from networks import all_become_alive, eventually, members

from nodes import RunningNode, platform

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]  # real nodes, several starts


def flip(node: RunningNode, name: str, at: float) -> None:
    """Flip a bit of a shard's file, in place as a failing disk does."""
    path = node.data / "lake" / "objects" / name[:2] / name
    path.chmod(0o600)
    with path.open("r+b") as file:
        place = int(path.stat().st_size * at)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes((byte ^ 4,)))


def test_queries_are_right_while_bits_flip_at_every_node(tmp_path: Path) -> None:
    chosen = random.Random(1)
    with members(tmp_path, WRITER, HOLDER, READER) as nodes:
        fill(nodes)
        share(nodes, HOLDER, READER)
        running = [each.node for each in nodes.values()]
        eventually(lambda: all(is_intact(node) for node in running))
        with nodes[WRITER].node.session() as session:
            right = session.sql(GROUPS.format(where="true")).rows
        for damaged in running:
            with Asking(running[0]) as writing, Asking(running[1]) as holding:
                for name in chosen.sample(sorted(shards(damaged)), 2):
                    flip(damaged, name, chosen.random())
                    for asking in (writing, holding):
                        asking.more(2)
            for asking in (writing, holding):
                assert asking.errors == []
                assert all(rows == right for rows in asking.answers)
            platform("net", "heal", data=damaged.data, check=False)
            eventually(partial(is_intact, damaged))


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_a_node_that_is_killed_while_it_repairs_has_its_copies_afterwards(
    tmp_path: Path, progress: float
) -> None:
    config = "copy_rate_bytes = 1048576\n"  # a shard takes longer than a second
    with members(tmp_path, WRITER, HOLDER, config=config) as nodes:
        fill(nodes)
        holder, writer = nodes[HOLDER], nodes[WRITER].node
        with writer.session() as session:
            right = session.sql(GROUPS.format(where="true")).rows
        whole = shards(writer)
        for name in whole:
            flip(holder.node, name, 0.5)
        platform("verify", data=holder.node.data, check=False)
        incoming = holder.node.data / "lake" / "incoming-copies"
        wanted = progress * min(whole.values())
        eventually(lambda: any(each.stat().st_size >= wanted for each in incoming.glob("*")))
        holder.kill()
        holder.up()
        all_become_alive(writer, holder.node)
        with holder.node.session() as session:
            assert session.sql(GROUPS.format(where="v <> -1")).rows == right
        eventually(lambda: is_intact(holder.node))
        eventually(
            lambda: "0 problems" in platform("net", "check", data=writer.data, check=False).stdout
        )
