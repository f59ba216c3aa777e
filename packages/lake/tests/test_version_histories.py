"""Random histories of a dataset: every version that is kept reads as it was, and differs as it should.

A DuckDB table has the newest version; the rows of each earlier one were remembered when it was that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from .test_schema_changes import AgainstDuckDB, machine

__all__ = ["machine"]

PLACES = st.integers(0, 5)
ODD_NAMES = st.sampled_from(('q "x"', "Größe", "select", "file", "A b", "g\u0301", "__lake_row"))
NESTED = st.sampled_from(("INTEGER[]", "STRUCT(x INTEGER, y VARCHAR)", "INTEGER[][]"))

LAYOUTS = (
    "SET PARTITIONED BY ({})",
    "SET PARTITIONED BY (bucket(3, {}))",
    "SET SORTED BY ({} DESC)",
    "RESET PARTITIONED BY",
    "RESET SORTED BY",
)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def hashable(row: Any) -> Any:
    return tuple(repr(value) if isinstance(value, list | dict) else value for value in row)


@dataclass
class Version:
    """What a version had: its columns' types by name, their ids in order, and its rows."""

    types: dict[str, str]
    ids: tuple[int, ...]
    table: pa.Table

    @property
    def rows(self) -> Counter[Any]:
        columns = [column.to_pylist() for column in self.table.columns]
        return Counter(map(hashable, zip(*columns, strict=True)))


class Histories(AgainstDuckDB):
    """Adds versions, transactions, layouts, merges, purges and odd names to the changes of columns."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[int, Version] = {}
        self.tagged: set[int] = set()

    def column(self, place: int) -> str:
        return self.name(place)

    def name(self, place: int) -> str:
        names = [name for name in sorted(self.columns) if name in "abcdef"]
        return names[place % len(names)]

    def head(self) -> int:
        return self.lake.catalog.manifest("t").snapshot.version

    @rule(name=ODD_NAMES, kind=NESTED, number=st.integers(0, 9))
    def add_odd(self, name: str, kind: str, number: int) -> None:
        if name.casefold() in map(str.casefold, self.columns):
            return
        values = {
            "INTEGER[]": f"[{number}, NULL]",
            "STRUCT(x INTEGER, y VARCHAR)": f"{{'x': {number}, 'y': 'ü'}}",
            "INTEGER[][]": f"[[{number}], NULL, []]",
        }
        self.both(f"ALTER TABLE t ADD COLUMN {quoted(name)} {kind}")
        self.columns[name] = kind
        self.remember()
        self.both(f"INSERT INTO t ({quoted(name)}) VALUES ({values[kind]})")

    @rule(place=PLACES, other=PLACES)
    def swap_names(self, place: int, other: int) -> None:
        one, two = self.name(place), self.name(other)
        if one == two:
            return
        for old, new in ((one, "swapping"), (two, one), ("swapping", two)):
            self.both(f"ALTER TABLE t RENAME {quoted(old)} TO {quoted(new)}")
            self.columns[new] = self.columns.pop(old)
            self.remember()

    @rule(place=PLACES, keys=st.sets(st.integers(0, 12), min_size=1, max_size=4))
    def upsert(self, place: int, keys: set[int]) -> None:
        name = self.name(place)
        if self.columns[name] not in ("INTEGER", "BIGINT"):
            return
        empty = self.lake.sql("SELECT * FROM t LIMIT 0").arrow()
        rows = [dict.fromkeys(empty.column_names) | {name: key} for key in sorted(keys)]
        self.lake.upsert("t", pa.Table.from_pylist(rows, empty.schema), key=[name])
        listed = ", ".join(map(str, keys))
        others = [quoted(each) for each in self.columns if each != name]
        if others:
            nulls = ", ".join(f"{each} = NULL" for each in others)
            self.peer.execute(f"UPDATE t SET {nulls} WHERE {quoted(name)} IN ({listed})")
        self.peer.execute(
            f"INSERT INTO t ({quoted(name)}) SELECT k FROM unnest([{listed}]) r(k) "
            f"ANTI JOIN t ON t.{quoted(name)} = k"
        )

    @rule(place=PLACES, first=st.integers(0, 9))
    def merge(self, place: int, first: int) -> None:
        name = self.column(place)
        if self.columns[self.name(place)] not in ("INTEGER", "BIGINT"):
            return
        self.both(
            f"MERGE INTO t USING (SELECT {first} + i AS k FROM range(3) r(i)) s ON t.{name} = s.k "
            f"WHEN MATCHED THEN UPDATE SET {name} = {name} + 1 "
            f"WHEN NOT MATCHED THEN INSERT ({name}) VALUES (s.k)"
        )

    @rule(place=PLACES)
    def reorder(self, place: int) -> None:
        names = sorted(self.columns)
        names = names[place % len(names) :] + names[: place % len(names)]
        self.lake.reorder_columns("t", names)
        listed = ", ".join(map(quoted, names))
        self.peer.execute(f"CREATE OR REPLACE TABLE t AS SELECT {listed} FROM t")

    @rule(place=PLACES)
    def drop(self, place: int) -> None:
        """Any but the last plain one, into which other rules write numbers."""
        name = sorted(self.columns)[place % len(self.columns)]
        if name in "abcdef" and sum(each in "abcdef" for each in self.columns) == 1:
            return
        self.reset_layout()
        self.both(f"ALTER TABLE t DROP COLUMN {quoted(name)}")
        del self.columns[name]

    @rule(place=PLACES)
    def widen(self, place: int) -> None:
        self.reset_layout()
        super().widen(place)

    def reset_layout(self) -> None:
        """A column of the layout cannot be dropped, and changes its type within limits only."""
        for what in ("PARTITIONED", "SORTED"):
            self.lake.sql(f"ALTER TABLE t RESET {what} BY")
            self.remember()

    @rule(place=PLACES, first=st.integers(0, 9), end=st.sampled_from(("COMMIT", "ROLLBACK")))
    def transact(self, place: int, first: int, end: str) -> None:
        name = self.column(place)
        statements = (
            f"INSERT INTO t ({name}) SELECT {first} + i FROM range(2) r(i)",
            f"DELETE FROM t WHERE {name}::VARCHAR = '{first}'",
        )
        for statement in ("BEGIN", *statements, end):
            self.peer.execute(statement)
        self.lake.sql("; ".join(("BEGIN", *statements, end)))

    @rule(place=PLACES, layout=st.sampled_from(LAYOUTS))
    def arrange(self, place: int, layout: str) -> None:
        name = self.name(place)
        if self.columns[name] in ("INTEGER", "BIGINT", "VARCHAR"):
            self.lake.sql(f"ALTER TABLE t {layout.format(quoted(name))}")

    @rule(place=PLACES, number=st.integers(0, 9))
    def purge(self, place: int, number: int) -> None:
        name = self.name(place)
        if self.columns[name] not in ("INTEGER", "BIGINT"):
            return
        self.remember()
        wanted = self.versions[self.head()]
        column = wanted.ids[list(wanted.table.column_names).index(name)]
        self.lake.purge("t", f"{quoted(name)} = {number}")
        self.peer.execute(f"DELETE FROM t WHERE {quoted(name)} = {number}")
        for version in self.versions.values():
            if column in version.ids:
                values = version.table.column(version.ids.index(column)).to_pylist()
                version.table = version.table.filter(
                    pa.array([v != number for v in values], pa.bool_())
                )

    @rule()
    def compact(self) -> None:
        self.lake.compact("t")

    @rule(number=st.integers(0, 99))
    def tag(self, number: int) -> None:
        version = sorted(self.versions)[number % len(self.versions)]
        self.lake.tag("t", f"tag {version}", version)
        self.tagged.add(version)

    @rule(keep=st.integers(1, 3))
    def expire(self, keep: int) -> None:
        known = sorted(self.versions)
        gone = self.lake.expire("t", keep=keep)
        assert set(gone) == set(known[:-keep]) - self.tagged
        for version in gone:
            del self.versions[version]

    @rule(number=st.integers(0, 99))
    def rollback(self, number: int) -> None:
        version = sorted(self.versions)[number % len(self.versions)]
        earlier = self.versions[version]
        self.lake.rollback("t", version)
        self.peer.register("earlier", earlier.table)
        self.peer.execute("CREATE OR REPLACE TABLE t AS FROM earlier")
        self.peer.unregister("earlier")
        self.columns = dict(earlier.types)

    @precondition(lambda self: hasattr(self, "lake"))
    @invariant()
    def rows_are_equal(self) -> None:
        """In place of the one that sorts, as lists have no order for EM-√."""
        order = [name for name, *_ in self.peer.execute("DESCRIBE t").fetchall()]
        assert list(self.lake.catalog.get("t").schema.names) == order

    @precondition(lambda self: hasattr(self, "lake"))
    @invariant()
    def versions_are_as_they_were(self) -> None:
        self.remember()
        stored = {each.snapshot.version for each in self.lake.catalog.snapshots("t")}
        assert stored == set(self.versions)
        for number, version in self.versions.items():
            found = self.lake.sql(f"FROM t AT (VERSION => {number})")
            assert found.columns == version.table.column_names
            assert Counter(map(hashable, found)) == version.rows

    @precondition(lambda self: hasattr(self, "lake"))
    @invariant()
    def changes_lead_from_one_version_to_another(self) -> None:
        self.remember()
        head = self.versions[self.head()]
        for number, version in self.versions.items():
            with self.lake.changes("t", number) as execution:
                rows = [
                    hashable(row.values())
                    for batch in execution.batches()
                    for row in batch.to_pylist()
                ]
            gone = Counter(row[1:] for row in rows if row[0] == "delete")
            new = Counter(row[1:] for row in rows if row[0] == "insert")
            places = {column: place for place, column in enumerate(version.ids)}
            before = Counter(
                tuple(row[places[each]] if each in places else None for each in head.ids)
                for row in version.rows.elements()
            )
            assert before - gone + new == head.rows
            assert not gone - before
            assert not gone & new

    def remember(self) -> None:
        if self.head() not in self.versions:
            snapshot = self.lake.catalog.manifest("t").snapshot
            ids = snapshot.columns or tuple(range(1, len(snapshot.schema.names) + 1))
            table = self.peer.sql("FROM t").to_arrow_table()
            self.versions[self.head()] = Version(dict(self.columns), tuple(ids), table)


@pytest.fixture
def histories(machine: type[AgainstDuckDB]) -> type[Histories]:
    return type("Machine", (Histories,), {"pool": machine.pool, "folder": machine.folder})


@pytest.mark.slow
def test_every_version_of_a_random_history_reads_as_it_was(histories: type[Histories]) -> None:
    run_state_machine_as_test(histories, settings=settings(max_examples=4, stateful_step_count=10))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_every_version_of_long_histories_reads_as_it_was(histories: type[Histories]) -> None:
    run_state_machine_as_test(histories, settings=settings(max_examples=40, stateful_step_count=25))
