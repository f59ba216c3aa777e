"""How the text of a request is cut into statements."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.statements.script_text import STATEMENTS_MAX, Block, Piece, placed, read_script
from sennit_core.errors import SqlError, Unsupported, UsageError

STATEMENTS = (
    "SELECT 1",
    "SELECT ';'",
    "SELECT 'it''s; so' AS \"a;b\"\"c\"",
    "SELECT /* a; /* nested; */ b */ 2",
    "SELECT 3 -- a; comment\n",
    "SELECT E'a\\';b', 4",
    "SELECT 3 -- a; it's\r, ';'",
    "SELECT $$a;b$$, $x$;$$;$x$",
    "FROM t WHERE a = $name",
    "INSERT INTO t VALUES (1, 'x;y')",
    "SELECT [1, 2][1], {'a': ';'}",
    "VALUES ('é;ü')",
)
GAPS = (";", " ; ", ";;", "; -- nothing; here\n", ";\n\n", "; /* ; */ ;")


def texts(sql: str) -> list[str]:
    steps = read_script(sql)
    return [] if steps is None else [step.text for step in steps if isinstance(step, Piece)]


@given(
    st.lists(st.tuples(st.sampled_from(STATEMENTS), st.sampled_from(GAPS)), min_size=2, max_size=6)
)
def test_statements_are_cut_where_duckdb_cuts_them(parts: list[tuple[str, str]]) -> None:
    sql = "".join(statement + gap for statement, gap in parts)
    found = texts(sql)

    assert len(found) == len(duckdb.connect().extract_statements(sql)) == len(parts)
    assert [each.rstrip() for each in found] == [statement.rstrip() for statement, _ in parts]


@given(st.text(alphabet="ab;'\"-/*$\n E\\", max_size=40))
def test_any_text_is_read(sql: str) -> None:
    steps = read_script(sql) or ()

    for step in steps:
        assert isinstance(step, Piece)
        assert sql[step.offset :].startswith(step.text)
        assert sql[: step.offset].count("\n") == step.line - 1


@pytest.mark.parametrize("sql", ["", ";", "SELECT 1", "SELECT 1;", " ;; SELECT ';' ; -- end;"])
def test_a_single_statement_is_no_script(sql: str) -> None:
    assert read_script(sql) is None


def test_each_statement_has_its_place() -> None:
    script = read_script("SELECT 1;\n\n  SELECT 2; SELECT 3")
    assert script is not None

    places = [(p.line, p.column, p.offset) for p in script if isinstance(p, Piece)]
    assert places == [(1, 1, 0), (3, 3, 13), (3, 13, 23)]


def test_an_error_is_moved_to_its_place_in_the_request() -> None:
    script = read_script("SELECT 1;\n  SELECT x\n FROM t")
    assert script is not None
    (_, second) = script
    assert isinstance(second, Piece)

    moved = placed(SqlError("bad (line 1, column 8)", line=1, column=8, offset=7), second, [1])
    assert isinstance(moved, SqlError)
    assert (moved.line, moved.column, moved.offset) == (2, 10, 19)
    assert str(moved) == "statement 2 of 2 (line 2, column 3): bad (line 2, column 10)"
    assert moved.hint == "statement 1 is committed"


def test_a_transaction_is_one_step() -> None:
    script = read_script("SELECT 1; begin transaction; SELECT 2; SELECT 3; Commit; SELECT 4")
    assert script is not None

    first, block, last = script
    assert isinstance(block, Block)
    assert [piece.number for piece in block.pieces] == [3, 4]
    assert block.commits
    assert isinstance(first, Piece)
    assert isinstance(last, Piece)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("BEGIN", "BEGIN without COMMIT"),
        ("BEGIN; SELECT 1", "BEGIN without COMMIT"),
        ("COMMIT", "COMMIT without BEGIN"),
        ("SELECT 1; ROLLBACK", r"statement 2 of 2 \(line 1, column 11\): ROLLBACK without BEGIN"),
        ("BEGIN; BEGIN; COMMIT; COMMIT", "BEGIN inside a transaction"),
        ("BEGIN READ ONLY; COMMIT", "BEGIN with options"),
    ],
)
def test_transactions_that_are_not_whole_are_refused(sql: str, message: str) -> None:
    with pytest.raises(SqlError, match=message) as error:
        read_script(sql)
    assert error.value.hint


@pytest.mark.parametrize("sql", ["PREPARE a AS SELECT 1", "SELECT 1; execute a(1)", "DEALLOCATE a"])
def test_statements_that_need_a_session_are_refused(sql: str) -> None:
    with pytest.raises(Unsupported, match="no session") as error:
        read_script(sql)
    assert "params" in str(error.value.hint)


def test_the_number_of_statements_is_limited() -> None:
    assert len(texts("SELECT 1;" * STATEMENTS_MAX)) == STATEMENTS_MAX
    with pytest.raises(UsageError, match="more than 100 statements"):
        read_script("SELECT 1;" * (STATEMENTS_MAX + 1))
    assert read_script(";" * 500_000) is None
