"""Text read as types that somebody declared: a dataset's columns, or the option `columns`."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lake import Lake
from sennit_core.errors import BadInput, UsageError

UTC = datetime.UTC
READ: list[tuple[str, str, Any]] = [
    ("TINYINT", "-128", -128),
    ("SMALLINT", "300", 300),
    ("INTEGER", "-7", -7),
    ("UTINYINT", "255", 255),
    ("USMALLINT", "65535", 65535),
    ("UINTEGER", "4294967295", 4294967295),
    ("UBIGINT", "18446744073709551615", 18446744073709551615),
    ("FLOAT", "0.5", 0.5),
    ("FLOAT", "inf", math.inf),
    ("DECIMAL(6,2)", "-1234.5", Decimal("-1234.50")),
    ("DECIMAL(38,0)", "9" * 38, Decimal("9" * 38)),
    ("DECIMAL(6,2)", "1e2", Decimal("100.00")),
    ("TIME", "12:30", datetime.time(12, 30)),
    ("TIME", "12:30:01.5", datetime.time(12, 30, 1, 500_000)),
    ("TIMESTAMP_S", "2026-01-02 03:04:05", datetime.datetime.fromisoformat("2026-01-02T03:04:05")),
    ("TIMESTAMP_MS", "2026-01-02", datetime.datetime.fromisoformat("2026-01-02")),
    ("TIMESTAMPTZ", "2026-01-02 03:04:05Z", datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
]
REFUSED = [
    *(("TINYINT", text) for text in ("128", "007", "1.5", "0x1", "x")),
    *(("UBIGINT", text) for text in ("-1", "18446744073709551616")),
    *(("FLOAT", text) for text in ("1e39", "1e400", "0x1p3")),
    *(("DECIMAL(6,2)", text) for text in ("12345.6", "1.255", "007", "1,5", "nan", "0x1")),
    *(("TIME", text) for text in ("24:00", "1:00", "12:30:60", "12")),
    ("TIMESTAMP_S", "2026-01-02 03:04:05.5"),
]


@pytest.mark.sample(3)
@pytest.mark.parametrize(("type_name", "text", "value"), READ)
def test_appended_text_has_the_type_of_the_column(
    lake: Lake, tmp_path: Path, type_name: str, text: str, value: Any
) -> None:
    file = tmp_path / "t.csv"
    file.write_text(f"a,b\n{text},x\n,y\n {text} ,z\n")
    lake.sql(f"CREATE TABLE t (a {type_name}, b VARCHAR)")
    lake.append("t", file)
    assert lake.sql("SELECT a FROM t").rows == [(value,), (None,), (value,)]


@pytest.mark.sample(3)
@pytest.mark.parametrize(("type_name", "text"), REFUSED)
def test_a_value_that_the_type_does_not_hold_is_refused_with_its_place(
    lake: Lake, tmp_path: Path, type_name: str, text: str
) -> None:
    file = tmp_path / "t.csv"
    file.write_text(f'a,b\n,x\n"{text}",y\n')
    lake.sql(f"CREATE TABLE t (a {type_name}, b VARCHAR)")
    with pytest.raises(BadInput, match=r"line 3.*'a'|'a'.*line 3"):
        lake.append("t", file)
    assert lake.catalog.get("t").rows == 0


def test_a_new_dataset_may_have_any_type_of_text(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("id,price,at\n1,9.90,12:30\n2,10,08:00\n")
    columns = {"id": "UInt16", "price": "Decimal(12,2)", "at": "Time"}
    lake.append("prices", file, columns=columns)
    assert [str(field.type) for field in lake.catalog.get("prices").schema] == list(
        columns.values()
    )
    assert lake.sql("SELECT sum(price) FROM prices").value == Decimal("19.90")


@pytest.mark.parametrize("type_name", ["List(Int64)", "Struct(a: Int64)", "Binary", "Duration"])
def test_types_that_text_has_no_notation_for_are_refused(
    lake: Lake, tmp_path: Path, type_name: str
) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="no type of a column of text"):
        lake.append("t", file, columns={"a": type_name})
    lake.sql("CREATE TABLE u (a INT[], b INT)")
    with pytest.raises(BadInput, match="'a' is List"):
        lake.append("u", file)
