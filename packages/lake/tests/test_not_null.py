"""NOT NULL in the definition of a column."""

from __future__ import annotations

from pathlib import Path

import pytest

from lake import Lake
from sennit_core.errors import SennitError, Unsupported


@pytest.mark.slow
def test_a_column_that_is_created_not_null_stays_so(lake: Lake, tmp_path: Path) -> None:
    lake.sql("CREATE TABLE t (id INTEGER NOT  NULL, b VARCHAR NULL, c DECIMAL(8, 2) not null)")
    assert [field.nullable for field in lake.catalog.get("t").schema] == [False, True, False]
    lake.sql("INSERT INTO t VALUES (1, NULL, 2)")
    for refused in (
        "INSERT INTO t VALUES (NULL, 'x', 1)",
        "INSERT INTO t (id) VALUES (2)",
        "UPDATE t SET c = NULL",
        "MERGE INTO t USING (SELECT 1 AS id) s USING (id) WHEN MATCHED THEN UPDATE SET c = NULL",
    ):
        with pytest.raises(SennitError, match="NOT NULL"):
            lake.sql(refused)
    file = tmp_path / "t.csv"
    file.write_text("id,b,c\n2,x,\n")
    with pytest.raises(SennitError, match="'c'"):
        lake.append("t", file)
    file.write_text("id,b,c\n2,x,3.50\n")
    lake.append("t", file)
    lake.sql("DELETE FROM t WHERE id = 1")
    lake.compact("t")
    assert lake.sql("SELECT id, c::VARCHAR FROM t").rows == [(2, "3.50")]
    assert lake.sql("SELECT id FROM t", engine="emsqrt").rows == [(2,)]
    for text in ("DESCRIBE t", "desc  main.t;", 'SHOW "t"'):
        assert lake.sql(text).to_arrow()["null"].to_pylist() == ["NO", "YES", "NO"]
    described = lake.sql("DESCRIBE SELECT 1 AS id FROM t").to_arrow()
    assert described["null"].to_pylist() == ["YES"]
    lake.sql("ALTER TABLE t ALTER id DROP NOT NULL")
    lake.sql("INSERT INTO t VALUES (NULL, 'x', 1)")


@pytest.mark.parametrize(
    "definition",
    [
        "INT PRIMARY KEY",
        "INT DEFAULT 5 UNIQUE",
        "INT UNIQUE",
        "INT CHECK (a > 1)",
        "INT[] NOT NULL",
    ],
)
def test_what_no_column_has_is_refused(lake: Lake, definition: str) -> None:
    with pytest.raises(Unsupported, match="'a'") as refused:
        lake.sql(f"CREATE TABLE t (a {definition})")
    assert refused.value.hint
    assert lake.catalog.list() == []


def test_a_new_column_cannot_be_not_null_at_once(lake: Lake) -> None:
    lake.sql("CREATE TABLE t AS SELECT 1 AS a")
    with pytest.raises(Unsupported, match="at once"):
        lake.sql("ALTER TABLE t ADD COLUMN b INT NOT NULL")
