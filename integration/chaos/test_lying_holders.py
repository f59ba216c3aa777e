"""A holder with a valid key lies to a reader: the reader stores nothing wrong, and its memory is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
from held_copies import (
    GROUPS,
    HOLDER,
    READER,
    WRITER,
    fill,
    is_intact,
    shards,
    share,
)
from hostile_node import lies_of, within
from measured_memory import MeasuredMemory
from networks import eventually, members

from nodes import RunningNode, platform
from sennit_core.errors import SennitError
from sennit_core.units import MIB

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]  # three real nodes
GROWTH_MAX = 200 * MIB
TOGETHER_MAX = 1200 * MIB
"""Of a node with `--memory 512MiB`: its own process and its helpers come to that."""


def answer(node: RunningNode, number: int) -> list[tuple[object, ...]] | SennitError:
    with node.session() as session:
        try:
            return session.sql(GROUPS.format(where=f"v <> -{number}")).rows
        except SennitError as error:
            return error


def assert_bounded(memory: MeasuredMemory) -> None:
    assert memory.growth_bytes < GROWTH_MAX, f"{memory.growth_bytes / MIB:.0f} MiB more"
    assert memory.peak_bytes_together < TOGETHER_MAX, f"{memory.peak_bytes_together / MIB:.0f} MiB"


@pytest.mark.parametrize("lie", ["wrong chunks", "wrong lists"])
def test_a_reader_stores_nothing_that_a_liar_sends(tmp_path: Path, lie: str) -> None:
    with members(tmp_path, WRITER, HOLDER, READER, within={HOLDER: within(lie)}) as nodes:
        fill(nodes)
        reader, liar = nodes[READER].node, nodes[HOLDER].node
        right = answer(nodes[WRITER].node, 1)
        eventually(lambda: "log" in platform("sql", "SHOW TABLES", data=reader.data).stdout)
        with MeasuredMemory(reader) as memory:
            nodes[WRITER].stop()
            told = lies_of(liar.data)
            found = answer(reader, 2)
            assert found == right or isinstance(found, SennitError)
            assert all(size == shards(liar)[name] for name, size in shards(reader).items())
            nodes[WRITER].go_on()
            share(nodes, HOLDER, READER)
            eventually(lambda: is_intact(reader))
            assert lies_of(liar.data) > told
            assert answer(reader, 3) == right
        assert_bounded(memory)
        assert reader.process.poll() is None


def test_an_answer_that_becomes_gigabytes_is_refused(tmp_path: Path) -> None:
    lying = {HOLDER: within("huge answers")}
    with members(tmp_path, WRITER, HOLDER, READER, within=lying) as nodes:
        fill(nodes)
        reader, liar = nodes[READER].node, nodes[HOLDER].node
        right = answer(nodes[WRITER].node, 1)
        eventually(lambda: "log" in platform("sql", "SHOW TABLES", data=reader.data).stdout)
        with MeasuredMemory(reader) as memory:
            found = []
            for number in range(2, 100):
                found.append(answer(reader, number))
                if lies_of(liar.data) >= 3:
                    break
            assert lies_of(liar.data) >= 3
            for each in found:
                assert each == right or getattr(each, "code", "") == "too-large", each
            nodes[HOLDER].kill()
            eventually(lambda: answer(reader, 1000) == right)
        assert_bounded(memory)
