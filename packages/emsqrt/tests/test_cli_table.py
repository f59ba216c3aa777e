"""Tables on a terminal: read from CSV, as wide as the terminal, with any cells."""

from __future__ import annotations

import csv
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.cli.table import Heading, read_rows, table_text

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=20)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=5))
def test_quoted_csv_is_read_as_it_was_written(rows: list[list[str]]) -> None:
    text = StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    text.seek(0)
    assert list(read_rows(text)) == rows


def test_nothing_is_null_and_quotes_are_empty_text() -> None:
    assert list(read_rows(StringIO('a,,""\n,"x""y,\n",b\n', newline=""))) == [
        ["a", None, ""],
        [None, 'x"y,\n', "b"],
    ]


def test_long_cells_are_cut_while_they_are_read() -> None:
    text = StringIO('"' + "x" * 300_000 + '",1\n', newline="")
    assert list(read_rows(text, 10)) == [["x" * 11, "1"]]


def headings(*names: str) -> list[Heading]:
    return [Heading(name, "varchar", is_number=False) for name in names]


def test_a_table_has_names_types_and_aligned_cells() -> None:
    columns = [Heading("city", "varchar", is_number=False), Heading("n", "bigint", is_number=True)]
    assert table_text(columns, [["Brno", "12"], [None, "7"]], 40, 80) == (
        "┌─────────┬────────┐\n"
        "│  city   │   n    │\n"
        "│ varchar │ bigint │\n"
        "├─────────┼────────┤\n"
        "│ Brno    │     12 │\n"
        "│ NULL    │      7 │\n"
        "└─────────┴────────┘\n"
        "(2 rows)\n"
    )


def test_a_note_says_that_there_are_more_rows_than_shown() -> None:
    text = table_text(headings("a"), [["1"], ["2"], ["3"]], 2, 0)
    assert "the first 2 rows; there are more" in text
    assert "3" not in text.splitlines()[6]


@pytest.mark.parametrize("columns", [20, 33, 60, 80])
def test_a_table_is_no_wider_than_the_terminal(columns: int) -> None:
    names = [f"column {number}" for number in range(9)]
    rows: list[list[str | None]] = [
        ["a long text " * 9] * 9,
        ["日本語" * 9] * 9,
        ["x\x1b[2J\n"] * 9,
    ]
    lines = table_text(headings(*names), rows, 40, columns).splitlines()
    assert all(width(line) <= columns for line in lines[:-1])
    assert len({width(line) for line in lines[:-1]}) == 1
    assert "of 9 columns shown" in lines[-1]
    assert not any("\x1b" in line for line in lines)


def width(line: str) -> int:
    return sum(2 if character in "日本語" else 1 for character in line)
