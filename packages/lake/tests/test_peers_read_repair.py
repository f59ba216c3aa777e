"""Statements that meet damaged shards: other nodes send intact ones, and the answer is right."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lake.distributed.read_repair import ReadRepair
from lake.errors import damaged_shard
from lake.peers.copies.placement import Placement
from lake.peers.transport.stop import Stop
from lake.statements.deadline import Deadline
from lake.statements.queries import QueryExecution
from sennit_core.errors import Busy, Corrupt, SennitError, Unavailable

from .real_offices import Office, big, offices
from .test_peers_healing import damage
from .test_peers_service import eventually

__all__ = ["offices"]

SLOW = pytest.mark.slow  # real nodes with executors, and times of the protocols
SUMS = "SELECT count(*), sum(v), max(v) FROM big WHERE v <> -{}"
RIGHT = [(3000, 13495500, 8997)]


def shards_of(office: Office) -> list[str]:
    return [each.object for each in office.lake.catalog.manifest("big").snapshot.shards]


def is_whole(office: Office) -> bool:
    for name in shards_of(office):
        office.lake.objects.verify(name)
    return not office.lake.objects.quarantined() and not office.lake.catalog.get("big").damaged


def asked(office: Office, sql: str, engine: str = "auto") -> list[tuple[object, ...]]:
    """Run a statement, again if the other node was suspected meanwhile, as on a busy machine."""
    found: list[list[tuple[object, ...]]] = []

    def answered() -> bool:
        try:
            found.append(office.lake.sql(sql, engine=engine).rows)
        except Unavailable:
            return False
        except Corrupt as error:
            if "can be reached" not in str(error.hint):
                raise
            return False
        return True

    eventually(answered)
    return found[0]


@SLOW
def test_damaged_shards_come_back_and_the_answer_is_right(offices: dict[str, Office]) -> None:
    big(offices)
    oslo, rome = offices["oslo"], offices["rome"]
    oslo.peers.share("big", None, Placement(3))  # what a node need not hold it drops after a while
    eventually(lambda: all("big" in o.names() and o.has_all("big") for o in offices.values()))
    names = shards_of(rome)

    # A copy of another node's dataset: one shard, and then all of them.
    damage(rome, names[0])
    assert asked(rome, SUMS.format(1)) == RIGHT
    assert is_whole(rome)
    for name in names:
        damage(rome, name)
    assert asked(rome, SUMS.format(2), engine="emsqrt") == RIGHT
    assert is_whole(rome)

    # A scrub has found it first.
    damage(rome, names[1])
    assert rome.lake.verify().quarantined == 1
    assert asked(rome, "SELECT count(*), sum(v), max(v) FROM big AT (VERSION => 3)") == RIGHT
    assert is_whole(rome)

    # The writer's own shards: a query, one after a scrub, and a change.
    damage(oslo, names[2])
    assert asked(oslo, SUMS.format(3)) == RIGHT
    damage(oslo, names[1])
    assert oslo.lake.verify().quarantined == 1
    assert asked(oslo, SUMS.format(4)) == RIGHT
    assert is_whole(oslo)
    damage(oslo, names[0])
    asked(oslo, "UPDATE big SET v = v WHERE k = 0")
    assert asked(oslo, SUMS.format(5)) == RIGHT

    # Nobody else has it.
    for other in ("oslo", "bern"):
        offices[other].peers.close()
    damage(rome, names[0])
    with pytest.raises(Corrupt, match="shard 0 ") as failed:
        rome.query("SELECT count(*) FROM big AT (VERSION => 3) WHERE v <> -6")
    assert "no other node has sent an intact copy" in str(failed.value.hint)


class FailingStep:
    """A step of a query that sends some pieces and fails, or sends all."""

    pid, done, progress = 1, True, None

    def __init__(self, pieces: int, error: SennitError | None) -> None:
        self.pieces, self.error = pieces, error

    def payloads(self) -> Iterator[memoryview]:
        yield from [memoryview(b"x")] * self.pieces
        if self.error is not None:
            raise self.error

    def result(self, _timeout: float | None = None) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {"rows": self.pieces}

    def cancel(self) -> None: ...

    close = cancel


@pytest.mark.parametrize(("sent", "runs", "answer"), [(0, 2, b"xx"), (1, 1, None)])
def test_a_step_runs_again_only_before_its_first_byte(
    sent: int, runs: int, answer: bytes | None
) -> None:
    steps = [FailingStep(sent, Corrupt("a shard")), FailingStep(2, None)]
    started: list[Any] = []
    stops: list[Stop] = []

    def start(step: str, _own: dict[str, Any]) -> Any:
        started.append(step)
        return steps[len(started) - 1]

    def repair(_error: SennitError, stop: Stop) -> bool:
        stops.append(stop)
        return True

    query = QueryExecution(start, "duckdb", lambda: None, repair=repair)
    if answer is None:
        with pytest.raises(Corrupt):
            list(query.payloads())
    else:
        assert b"".join(query.payloads()) == answer
    assert started == ["duckdb"] * runs
    query.cancel()
    assert all(stop.stopped for stop in stops)
    assert len(stops) == runs - 1


def test_a_statement_is_repaired_a_few_times_at_most() -> None:
    name = "a" * 64
    remote: Any = SimpleNamespace(is_shared=lambda _: True, ensure=lambda *_, **__: None)
    repairs = ReadRepair(cast("Any", None), cast("Any", ()), remote)
    table = {"name": "t", "paths": [f"/objects/{name}"]}
    repair = repairs.of(lambda: [table], Deadline(None))
    found = [repair(damaged_shard("t", 0, name, "chunk 0", "a", "b"), Stop()) for _ in range(5)]
    assert found == [True, True, True, False, False]
    assert not repairs.of(lambda: [table], Deadline(None))(Busy("the node"), Stop())
