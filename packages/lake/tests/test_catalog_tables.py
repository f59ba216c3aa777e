"""The catalog's rows in the tree."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import ElkynStore
from lake.catalog.tables import CatalogTables, IdSet, SnapshotRow
from sennit_core.errors import Corrupt
from sennit_core.records import DatasetInfo
from sennit_core.schema import DataType, Field, Schema

SCHEMA = Schema.from_json({"fields": [{"name": "delay", "type": "Int64", "nullable": True}]})
INT64 = DataType.parse("Int64")
DATASET = DatasetInfo("d1", "flights", "me", SCHEMA, head="s1")


@pytest.fixture
def tree() -> Iterator[ElkynStore]:
    with ElkynStore(mode="memory", namespace="sys") as store:
        yield store


@pytest.fixture
def tables(tree: ElkynStore) -> CatalogTables:
    return CatalogTables(tree)


def test_changes_are_one_write(tables: CatalogTables, tree: ElkynStore) -> None:
    with tree.watch("/") as events:
        seen = iter(events)
        next(seen)
        tables.write(
            tables.datasets.change("d1", DATASET),
            tables.snapshots("d1").change("s1", SnapshotRow("ab", 2.0)),
        )
        event = next(seen)

    assert set(event.data) == {"datasets/d1", "snapshots/d1/s1"}
    assert tables.datasets.get("d1") == DATASET
    assert tables.datasets_with_snapshots() == ["d1"]
    assert tables.snapshots("d1").all() == {"s1": SnapshotRow("ab", 2.0)}

    tables.write(tables.datasets.change("d1", None), *tables.forget_snapshots("d1"))
    assert tree.get("/") is None


def test_a_dataset_row_with_another_value_is_found(tables: CatalogTables, tree: ElkynStore) -> None:
    tables.datasets.put("d1", DATASET)
    tree.set("/datasets/d1/name", "flighty")

    with pytest.raises(Corrupt, match=r"/datasets/d1 .*checksum"):
        tables.datasets.get("d1")


def test_a_dataset_row_under_another_id_is_found(tables: CatalogTables, tree: ElkynStore) -> None:
    tables.datasets.put("d1", DATASET)
    tree.set("/datasets/d2", tree.get("/datasets/d1"))

    with pytest.raises(Corrupt, match="/datasets/d2"):
        tables.datasets.get("d2")


def test_a_dataset_row_of_a_version_without_checksums_is_read(
    tables: CatalogTables, tree: ElkynStore
) -> None:
    tree.set("/datasets/d1", DATASET.to_json())

    assert tables.datasets.get("d1") == DATASET


KEY = Field("primary key", INT64)
SMALL = st.integers(0, 2**40) | st.floats(0, 2**40)


@pytest.mark.slow
@given(st.text(max_size=20), st.text(max_size=9), SMALL, st.lists(st.text(max_size=9), unique=True))
def test_every_dataset_row_agrees_with_its_checksum(
    name: str, owner: str, created_at: float, columns: list[str]
) -> None:
    fields = tuple(Field(column, INT64) for column in columns if column)
    info = DatasetInfo("d1", name, owner, Schema((KEY, *fields)), created_at=float(created_at))
    with ElkynStore(mode="memory", namespace="sys") as tree:
        tables = CatalogTables(tree)
        tables.datasets.put("d1", info)

        assert tables.datasets.get("d1") == info
        assert tree.get("/datasets/d1/checksum")


ROWS = {
    "catalog": {
        "datasets": {
            "checksum": "d3b860bc91300f59603c3780feb3108b",
            "count": 1,
            "digest": "8b53639f152c8fc6ef30802fde462ba0",
        }
    },
    "datasets": {
        "d1": {
            "bytes": 0,
            "checksum": "e6ea1c4c52d7fe6e8b847ac45b192632",
            "createdAt": 0.0,
            "encrypted": False,
            "head": "s1",
            "id": "d1",
            "name": "flights",
            "owner": "me",
            "replication": 1,
            "rows": 0,
            "schema": {"fields": [{"name": "delay", "nullable": True, "type": "Int64"}]},
            "shards": 0,
            "visibility": "private",
        }
    },
    "snapshots": {
        "d1": {"s1": {"createdAt": 2.0, "manifest": "ab", "orphaned": False, "version": 0}}
    },
}


def test_rows_have_these_paths_and_members(tables: CatalogTables, tree: ElkynStore) -> None:
    tables.write(
        tables.datasets.change("d1", DATASET),
        tables.snapshots("d1").change("s1", SnapshotRow("ab", 2.0)),
        tables.catalog.change("datasets", IdSet.of(["d1"])),
    )

    assert tree.get("/") == ROWS
