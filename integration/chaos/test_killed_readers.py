"""A node is killed while it adopts datasets of another one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from held_copies import HOLDER as READER
from held_copies import WRITER
from networks import all_become_alive, eventually, members

from nodes import RunningNode, platform

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]  # real nodes, several starts
NAMES = [f"part{number:02}" for number in range(10)]


def listed(node: RunningNode) -> set[str]:
    with node.session() as session:
        return {str(row[0]) for row in session.sql("SHOW TABLES").rows}


def values(node: RunningNode, name: str) -> list[tuple[object, ...]]:
    with node.session() as session:
        return session.sql(f"SELECT count(*), sum(v) FROM {name}").rows


@pytest.mark.parametrize("in_flight", [False, True])
def test_a_reader_that_is_killed_while_it_adopts_has_every_dataset_afterwards(
    tmp_path: Path, in_flight: bool
) -> None:
    with members(tmp_path, WRITER, READER) as nodes:
        writer, reader = nodes[WRITER], nodes[READER]
        with writer.node.session() as session:
            for number, name in enumerate(NAMES):
                session.sql(f"CREATE TABLE {name} AS SELECT range + {number} AS v FROM range(1000)")
        for name in NAMES:
            platform("share", name, "--with", "all", data=writer.node.data)
            if in_flight and name == NAMES[len(NAMES) // 2]:
                # What the reader asks for from now on has no answer.
                writer.proxy.stall()
                reader.proxy.stall()
        if not in_flight:
            eventually(lambda: listed(reader.node))
        reader.kill()
        for each in (writer, reader):
            each.proxy.resume()
        reader.up()
        all_become_alive(writer.node, reader.node)
        eventually(lambda: listed(reader.node) == set(NAMES))
        for number, name in enumerate(NAMES):
            right = [(1000, 499_500 + 1000 * number)]
            assert values(writer.node, name) == right
            assert values(reader.node, name) == right
        for each in (writer, reader):
            assert platform("verify", data=each.node.data).returncode == 0
        # What it adopts from now on is as before.
        platform("unshare", NAMES[0], data=writer.node.data)
        eventually(partial(lambda rest: listed(reader.node) == rest, set(NAMES[1:])))
