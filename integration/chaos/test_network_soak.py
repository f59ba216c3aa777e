"""A network under work for half an hour while its nodes are killed, stopped and cut off: no wrong answer.

    pytest -m nightly integration/chaos/test_network_soak.py --soak-minutes 5

`CHAOS_SEED` decides what happens, in which order; not when, as the nodes are real.

A dataset gets batches of rows, at its writer and through the other nodes. Each query of it says which
batches it has seen, and its answer must be that of DuckDB over these batches. All batches that were
acknowledged are seen by the writer, no node forgets one that it has seen, and none sees a batch without
the earlier ones. At the end all nodes see the same.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from networks import Member, all_become_alive, eventually, members

from nodes import platform
from sennit_core.errors import SennitError

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(4 * 3600)]  # half an hour
SEED = int(os.environ.get("CHAOS_SEED", "1"))
WRITER, *READERS = ("oslo", "rome", "bern")
ROWS = (
    "SELECT {batch} AS batch, range % 7 AS k, (range * 31 + {batch}) % 997 AS v FROM range({rows})"
)
# The batches are in the first column.
QUERIES = (
    "SELECT batch, k, count(*), sum(v), min(v), max(v), avg(v) FROM log GROUP BY ALL ORDER BY ALL",
    "SELECT batch, count(DISTINCT v), median(v) FROM log GROUP BY batch ORDER BY batch",
    "SELECT a.batch, count(*), sum(b.v) FROM log a JOIN log b USING (batch, v) GROUP BY 1 ORDER BY 1",
    "SELECT batch, count(*) FILTER (v % 5 = 3) FROM log GROUP BY batch ORDER BY batch",
    "SELECT batch, k, v FROM log WHERE v < 7 OR v = (batch * 5) % 31 ORDER BY ALL",
)
FIND = "SELECT DISTINCT batch FROM log ORDER BY 1"


class Model:
    """What may be in the dataset: every batch that was sent."""

    def __init__(self) -> None:
        self.tables = duckdb.connect()
        self.tables.execute("CREATE TABLE every (batch BIGINT, k BIGINT, v BIGINT)")
        self.sent = 0
        self.acknowledged: list[int] = []
        self.seen: dict[str, set[int]] = {name: set() for name in (WRITER, *READERS)}

    def send(self, rows: int) -> str:
        """Return the statement that adds a batch."""
        statement = ROWS.format(batch=self.sent, rows=rows)
        self.tables.execute(f"INSERT INTO every {statement}")
        self.sent += 1
        return f"INSERT INTO log {statement}"

    def check(self, name: str, sql: str, rows: list[tuple[Any, ...]], asked: int) -> None:
        """Check an answer of a node to a query that began when so many batches were acknowledged."""
        batches = {row[0] for row in rows}
        self.tables.execute(
            "CREATE OR REPLACE VIEW log AS SELECT * FROM every "
            f"WHERE batch IN ({', '.join(map(str, batches)) or 'NULL'})"
        )
        assert rows == self.tables.execute(sql).fetchall(), f"{name}: {sql}"
        if "WHERE" not in sql:  # every batch has a row
            self.check_batches(name, batches, asked)

    def check_batches(self, name: str, batches: set[int], asked: int) -> None:
        assert self.seen[name] <= batches, f"{name} has forgotten {self.seen[name] - batches}"
        self.seen[name] = batches
        known = self.acknowledged if name != WRITER else self.acknowledged[:asked]
        found = [batch in batches for batch in known]
        if name == WRITER:
            assert all(found), f"the writer has lost {set(known) - batches}"
        assert found == sorted(found, reverse=True), f"{name} lacks a batch before others"


def _stop(member: Member, _all: Iterable[Member]) -> None:
    member.stop()


def _cut(member: Member, everyone: Iterable[Member]) -> None:
    """Let no other node reach a node, nor it them."""
    member.proxy.block(lambda _pid: True)
    for each in everyone:
        if each is not member:
            each.proxy.block(lambda pid: pid == member.pid)


def _join(_member: Member, everyone: Iterable[Member]) -> None:
    for each in everyone:
        each.proxy.block(lambda _pid: False)


def _delay(member: Member, seconds: float) -> None:
    member.proxy.delay_seconds = seconds


def _reset(_member: Member, everyone: Iterable[Member]) -> None:
    for each in everyone:
        each.proxy.reset()


Fault = Callable[[Member, Iterable[Member]], object]
# What begins, and what ends it.
FAULTS: dict[str, tuple[Fault, Fault]] = {
    "kill": (lambda member, _: member.kill(), lambda member, _: member.up()),
    "stop": (_stop, lambda member, _: member.go_on()),
    "cut": (_cut, _join),
    "stall": (lambda member, _: member.proxy.stall(), lambda member, _: member.proxy.resume()),
    "delay": (lambda member, _: _delay(member, 0.3), lambda member, _: _delay(member, 0.0)),
    "reset": (_reset, _reset),
    "half-close": (lambda member, _: member.proxy.half_close(), _reset),
}


class Soak:
    """Does something at random, again and again."""

    def __init__(self, nodes: dict[str, Member]) -> None:
        self.nodes, self.model, self.dice = nodes, Model(), random.Random(SEED)
        self.asked = list(nodes)
        self.counts = {"answers": 0, "refused": 0, "batches": 0, "unsure": 0, "faults": 0}

    def ask(self, name: str, sql: str) -> list[tuple[Any, ...]] | None:
        """Return the answer of a node; None if it gives none."""
        try:
            with self.nodes[name].node.session() as session:
                return session.sql(sql).rows
        except (SennitError, httpx.HTTPError, OSError):
            return None

    def append(self) -> None:
        name = self.dice.choice(self.asked)
        batch = self.model.sent
        done = self.ask(name, self.model.send(self.dice.randrange(1, 3000)))
        if done is None:
            self.counts["unsure"] += 1  # it may have been made, or be made yet
        else:
            self.counts["batches"] += 1
            self.model.acknowledged.append(batch)

    def query(self) -> None:
        name, sql = self.dice.choice(self.asked), self.dice.choice(QUERIES)
        asked = len(self.model.acknowledged)
        rows = self.ask(name, sql)
        if rows is None:
            self.counts["refused"] += 1
            return
        self.counts["answers"] += 1
        self.model.check(name, sql, rows, asked)

    @contextmanager
    def fault(self) -> Iterator[None]:
        """One fault, for as long as the context lasts."""
        name = self.dice.choice((WRITER, *READERS))
        member = self.nodes[name]
        self.counts["faults"] += 1
        begin, end = FAULTS[self.dice.choice(tuple(FAULTS))]
        begin(member, self.nodes.values())
        # A process that is stopped answers nothing; the others wait for it, and then go on.
        self.asked = [each for each in self.nodes if each != name or begin is not _stop]
        try:
            yield
        finally:
            self.asked = list(self.nodes)
            end(member, self.nodes.values())

    def work(self, until: float) -> None:
        while time.monotonic() < until:
            self.dice.choice((self.append, self.query, self.query))()

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.work(time.monotonic() + self.dice.uniform(1, 8))
            with self.fault():
                self.work(time.monotonic() + self.dice.uniform(0, 20))

    def check_end(self) -> None:
        """Check that all nodes come to see the same, and answer every query."""
        all_become_alive(*(each.node for each in self.nodes.values()))

        def found() -> list[set[int]]:
            answers = [self.ask(name, FIND) for name in self.nodes]
            return [{row[0] for row in rows} for rows in answers if rows is not None]

        def is_equal() -> bool:
            batches = found()
            acknowledged = set(self.model.acknowledged)
            return len(batches) == len(self.nodes) and all(
                each == batches[0] and acknowledged <= each for each in batches
            )

        eventually(is_equal)
        for name in self.nodes:
            for sql in QUERIES:
                rows = self.ask(name, sql)
                assert rows is not None, f"{name} refuses {sql}"
                self.model.check(name, sql, rows, len(self.model.acknowledged))


def named(names: Iterable[str]) -> list[str]:
    return [word for name in names for word in ("--with", name)]


def test_a_network_gives_no_wrong_answer_whatever_happens_to_its_nodes(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seconds = 60 * float(request.config.getoption("--soak-minutes"))
    with members(tmp_path, WRITER, *READERS) as nodes:
        soak = Soak(nodes)
        created = soak.ask(WRITER, "CREATE TABLE log (batch BIGINT, k BIGINT, v BIGINT)")
        assert created is not None
        platform("share", "log", *named(READERS), "--copies", "2", data=nodes[WRITER].node.data)
        eventually(lambda: all(soak.ask(name, FIND) == [] for name in READERS))
        try:
            soak.run(seconds)
            soak.check_end()
        except BaseException as error:
            error.add_note(f"CHAOS_SEED={SEED}: {soak.counts}")
            raise
        (tmp_path / "counts.json").write_text(json.dumps(soak.counts))
        assert soak.counts["answers"] > soak.counts["refused"] / 10, soak.counts
