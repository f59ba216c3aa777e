"""What a request reads of the catalog does not grow with the number of datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.statements.mentions import words_of
from sennit_core.errors import NotFound
from sennit_core.ids import new_id
from sennit_core.records import DatasetInfo

from .conftest import FLIGHTS, put
from .test_catalog import SCHEMA, manifest


class CountingStore(ElkynStore):
    """A tree that remembers which paths were read."""

    def __init__(self) -> None:
        super().__init__(mode="memory", namespace="sys")
        self.read: list[str] = []

    def get(self, path: str, **options: Any) -> Any:
        self.read.append(path)
        return super().get(path, **options)

    def keys(self, path: str, **options: Any) -> list[str]:
        self.read.append(path)
        return super().keys(path, **options)


@pytest.fixture
def tree() -> Iterator[CountingStore]:
    with CountingStore() as tree:
        yield tree


def add_datasets(lake: Lake, count: int) -> None:
    for index in range(count):
        info = DatasetInfo(id=new_id(), name=f"other {index}", owner="", schema=SCHEMA)
        lake.catalog.commit(info, manifest(info), expected_head=None)


def reads_of(lake: Lake, tree: CountingStore) -> dict[str, list[str]]:
    """The paths of the catalog that each kind of request reads."""
    reads = {}

    def note(name: str) -> None:
        ours = ("/datasets", "/snapshots")
        reads[name] = [path.split("/")[1] for path in tree.read if path.startswith(ours)]
        tree.read.clear()

    note("before")
    lake.sql("SELECT 1")
    note("SELECT 1")
    lake.sql("SELECT count(*) FROM flights")
    note("a query")
    with pytest.raises(NotFound):
        lake.sql("SELECT * FROM fligths")
    note("a wrong name")
    put(lake, "more.csv", FLIGHTS)
    note("an ingest")
    put(lake, "more.csv", FLIGHTS, mode="append")
    note("an append")
    lake.delete("more")
    note("a deletion")
    del reads["before"]
    return reads


@pytest.mark.slow
@pytest.mark.parametrize("count", [40, pytest.param(3000, marks=pytest.mark.nightly)])
def test_requests_read_as_much_with_many_datasets_as_with_one(
    tmp_path: Path, pool: ExecutorPool, tree: CountingStore, count: int
) -> None:
    with Lake(tmp_path, tree=tree, pool=pool) as lake:
        put(lake, "flights.csv", FLIGHTS)
        lake.sql("FROM flights")
        few = reads_of(lake, tree)
        add_datasets(lake, count)
        lake.sql("FROM flights")
        many = reads_of(lake, tree)

    assert many == few
    assert few["SELECT 1"] == []
    assert len(few["a query"]) <= 2
    assert len(few["an ingest"]) <= 8


def test_a_wrong_name_still_gets_the_nearest(flights: Lake) -> None:
    for engine in ("duckdb", "emsqrt"):
        with pytest.raises(NotFound) as caught:
            flights.sql("SELECT carrier FROM fligths", engine=engine)
        assert caught.value.suggestion == "flights"


def test_a_commit_of_another_catalog_is_seen(tmp_path: Path, pool: ExecutorPool) -> None:
    with (
        ElkynStore(mode="memory") as tree,
        Lake(tmp_path, tree=tree, pool=pool) as one,
        Lake(tmp_path, tree=tree, pool=pool) as two,
    ):
        assert two.catalog.find("flights") is None
        put(one, "flights.csv", FLIGHTS)
        info = two.catalog.get("Flights")
        assert info == two.catalog.get(info.id) == one.catalog.get("flights")
        one.delete("flights")
        assert two.catalog.find("flights") is None


NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp", "Cn", "Co"]), min_size=1
)
JUNK = st.lists(
    st.sampled_from(
        [
            "-- don't\n",
            "/* it's \" */",
            "'it''s'",
            '"a ""b"""',
            "x",
            "1.5",
            ",",
            "''",
            "e",
            "$1",
            " ",
        ]
    ),
    max_size=5,
).map(" ".join)


@pytest.mark.slow
@given(NAMES, JUNK, JUNK)
def test_a_quoted_name_is_found_anywhere(name: str, before: str, after: str) -> None:
    for quoted in ('"' + name.replace('"', '""') + '"', "'" + name.replace("'", "''") + "'"):
        words = words_of(f"{before} FROM {quoted} {after}")
        assert words is None or name.casefold() in words


@given(st.from_regex(r"[A-Za-z_é][A-Za-z0-9_é]*", fullmatch=True), JUNK, JUNK)
def test_a_bare_name_is_found_anywhere(name: str, before: str, after: str) -> None:
    for written in (f"({name})", f"main.{name}", f" {name.upper()}\n", f",{name};"):
        words = words_of(f"{before} FROM{written} {after}")
        assert words is None or name.casefold() in words


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 FROM \"FLIGHTS\" WHERE carrier <> E'it\\'s'",
        "SELECT $$it's$$, carrier FROM flights",
        "/* a /* b */ don't */ SELECT 1 FROM flights",
        "SELECT 'Rome' FROM 'flights'",
        "SELECT -- 'don''t \"\n 1 FROM memory.main.flights",
    ],
)
def test_a_name_is_found_in_every_kind_of_text(flights: Lake, query: str) -> None:
    assert len(flights.sql(query)) == 4
