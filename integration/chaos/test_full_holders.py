"""The disk of a holder is full: others answer, and it takes copies again once there is room."""

from __future__ import annotations

from pathlib import Path

import pytest
from held_copies import GROUPS, HOLDER, WRITER, is_intact, shards, share
from networks import eventually, members
from small_disks import fill, mounted

from nodes import RunningNode
from sennit_core.errors import SennitError

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(600),
]  # real nodes, and retries after a while
DISK_MIB = 192
"""A node reserves 64 MiB of a small disk."""


def make(writer: RunningNode) -> list[tuple[object, ...]]:
    with writer.session() as session:
        session.sql("CREATE TABLE log (batch BIGINT, v BIGINT)")
        for batch in range(4):
            session.sql(
                f"INSERT INTO log SELECT {batch}, (hash(range) >> 2)::BIGINT FROM range(150000)"
            )
        return session.sql(GROUPS.format(where="true")).rows


def answers(node: RunningNode, number: int) -> list[tuple[object, ...]] | SennitError:
    with node.session() as session:
        try:
            return session.sql(GROUPS.format(where=f"v <> -{number}")).rows
        except SennitError as error:
            return error


def test_a_full_holder_takes_copies_once_there_is_room(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / HOLDER, DISK_MIB) as disk,
        members(tmp_path, WRITER, HOLDER) as nodes,
    ):
        writer, holder = nodes[WRITER].node, nodes[HOLDER].node
        right = make(writer)
        filler = fill(disk)
        share(nodes, HOLDER)
        for number in range(1, 6):
            assert answers(writer, number) == right
            found = answers(holder, number)
            assert found == right or isinstance(found, SennitError)
            fill(disk)
        assert not is_intact(holder)
        assert holder.process.poll() is None
        filler.unlink()
        eventually(lambda: is_intact(holder))
        assert shards(holder) == shards(writer)
        eventually(lambda: answers(holder, 7) == right)
