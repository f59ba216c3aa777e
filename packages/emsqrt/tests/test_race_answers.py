from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from emsqrt.race import read_answer
from sennit_core.schema import Schema

SCHEMA = Schema.of(id="Int64", name="Utf8", price="Float64", amount="Decimal(15,2)")
ROWS = [(i, f"name {i % 7}" if i % 5 else None, i / 3, f"{i}.25") for i in range(500)]


def written(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    lines = [
        f"{i},{'' if name is None else name},{price!r},{amount}" for i, name, price, amount in rows
    ]
    path.write_text("\n".join(["id,name,price,amount", *lines, ""]))
    return path


def test_order_and_spelling_do_not_matter(tmp_path: Path) -> None:
    plain = read_answer(written(tmp_path / "a.csv", ROWS), SCHEMA)
    other = [(i, name, price, f"{amount}0") for i, name, price, amount in ROWS]
    random.Random(7).shuffle(other)
    assert read_answer(written(tmp_path / "b.csv", other), SCHEMA) == plain
    assert plain.rows == 500


def test_parquet_has_the_checksum_of_the_same_csv(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ROWS)
    convert = pyarrow.csv.ConvertOptions(column_types={"amount": pa.decimal128(15, 2)})
    table = pyarrow.csv.read_csv(path, convert_options=convert)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read_answer(tmp_path / "a.parquet", SCHEMA) == read_answer(path, SCHEMA)


def test_sums_in_another_order_of_addition_are_the_same_answer(tmp_path: Path) -> None:
    near = [(i, name, price * (1 + 2**-51), amount) for i, name, price, amount in ROWS]
    plain = read_answer(written(tmp_path / "a.csv", ROWS), SCHEMA)
    assert read_answer(written(tmp_path / "b.csv", near), SCHEMA) == plain


@pytest.mark.parametrize(
    "wrong",
    [
        ROWS[:-1],
        [*ROWS, ROWS[0]],
        [(0, "other", 0.0, "0.25"), *ROWS[1:]],
        [(0, None, 0.0001, "0.25"), *ROWS[1:]],
        [(0, None, 0.0, "0.26"), *ROWS[1:]],
        [(9_007_199_254_740_991, None, 0.0, "0.25"), *ROWS[1:]],
        [(ROWS[1][0], *ROWS[0][1:]), (ROWS[0][0], *ROWS[1][1:]), *ROWS[2:]],
    ],
    ids=["one-lost", "one-twice", "text", "fraction", "decimal", "integer", "columns-swapped"],
)
def test_a_wrong_answer_shows(tmp_path: Path, wrong: list[tuple[Any, ...]]) -> None:
    plain = read_answer(written(tmp_path / "a.csv", ROWS), SCHEMA)
    assert read_answer(written(tmp_path / "b.csv", wrong), SCHEMA).checksum != plain.checksum


@pytest.mark.parametrize(
    ("names", "keys", "in_order"),
    [
        (["a", "b", "b", None], [("name", False)], True),
        (["b", "a"], [("name", False)], False),
        ([None, "a"], [("name", False)], False),
        (["b", "a", None], [("name", True)], True),
        (["a", "a", "b"], [("name", False), ("id", False)], True),
        (["a", "a", "b"], [("name", False), ("id", True)], False),
    ],
)
def test_an_answer_out_of_order_shows(
    tmp_path: Path, names: list[str | None], keys: list[tuple[str, bool]], in_order: bool
) -> None:
    rows = [(i, name, 0.5, "1.00") for i, name in enumerate(names)]
    assert read_answer(written(tmp_path / "a.csv", rows), SCHEMA, keys).in_order is in_order


def test_exact_answers_differ_in_their_last_digit_and_their_order(tmp_path: Path) -> None:
    schema = Schema.of(id="Int64", amount="Decimal(38,4)")

    def digest(text: str) -> str:
        path = tmp_path / "a.csv"
        path.write_text(f"id,amount\n{text}\n")
        return read_answer(path, schema, exact=True).checksum

    assert digest("1,123141078.2283") == digest("1,123141078.22830")
    assert digest("1,123141078.2283") != digest("1,123141078.2284")
    assert digest("1,1\n2,2") != digest("2,2\n1,1")


MOMENTS = Schema.of(id="Int64", at="Utf8")


def moments(path: Path, *spelled: str) -> str:
    path.write_text("\n".join(["id,at", *(f"{n},{text}" for n, text in enumerate(spelled)), ""]))
    return read_answer(path, MOMENTS).checksum


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2024-01-31T05:06:07", "2024-01-31 05:06:07"),
        ("2024-01-31T05:06:07Z", "2024-01-31 05:06:07+00"),
        ("2024-01-31T05:06:07Z", "2024-01-31T05:06:07.000000"),
        ("2024-01-31 05:06:07.50", "2024-01-31 05:06:07.5"),
        ("2024-01-31T05:06", "2024-01-31 05:06:00"),
        ("2024-01-31", "2024-01-31 00:00:00"),
        ("2024-01-01T01:30:00+02:30", "2023-12-31 23:00:00"),
        ("2024-01-01T01:30:00-0130", "2024-01-01 03:00:00Z"),
    ],
)
def test_an_instant_is_equal_in_any_notation(
    tmp_path: Path, one: str, other: str, exact: bool
) -> None:
    rows = (f"id,at\n1,{one}\n2,some text\n3,\n", f"id,at\n1,{other}\n2,some text\n3,\n")
    answers = []
    for name, text in zip("ab", rows, strict=True):
        (tmp_path / f"{name}.csv").write_text(text)
        answers.append(read_answer(tmp_path / f"{name}.csv", MOMENTS, exact=exact))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2024-01-31T05:06:07", "2024-01-31 05:06:08"),
        ("2024-01-31 05:06:07.5", "2024-01-31 05:06:07.05"),
        ("2024-01-31T05:06:07+01", "2024-01-31T05:06:07"),
        ("2024-01-31 05:06:07 or so", "2024-01-31T05:06:07 or so"),
        ("2024-13-31", "2024-13-31 00:00:00"),
    ],
)
def test_other_instants_and_other_texts_are_distinguished(
    tmp_path: Path, one: str, other: str
) -> None:
    assert moments(tmp_path / "a.csv", one) != moments(tmp_path / "a.csv", other)


def test_timestamps_of_parquet_are_those_of_text(tmp_path: Path) -> None:
    table = pa.table({"id": [0], "at": pa.array([1_706_677_567_500], pa.timestamp("ms"))})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = read_answer(tmp_path / "a.parquet", Schema.of(id="Int64", at="Timestamp(ms)"))
    assert found.checksum == moments(tmp_path / "a.csv", "2024-01-31T05:06:07.5Z")


@pytest.mark.parametrize(
    ("rows", "in_order"),
    [
        (["2024-01-31", "2024-01-31T00:00:01", "2024-01-31 00:00:01.5"], True),
        (["2024-01-31 23:00:00-02", "2024-01-31T23:00:00Z"], False),
    ],
)
def test_an_order_is_that_of_moments(tmp_path: Path, rows: list[str], in_order: bool) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["id,at", *(f"1,{each}" for each in rows), ""]))
    found = read_answer(tmp_path / "a.csv", MOMENTS, [("at", False)])
    assert found.in_order is in_order
