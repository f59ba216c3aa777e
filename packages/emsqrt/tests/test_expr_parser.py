"""Expression text: two notations, and errors with a position."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.expr import BadExpression, col, lit, parse_expr, parse_named, parse_order
from emsqrt.expr.testing import expressions
from sennit_core.errors import TooLarge, Unsupported


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('age > 25 and name == "Alice"', "AGE_IS_OTHER"),
        ("age = 25", "age == 25"),
        ("age <> 25", "age != 25"),
        ("NOT a AND b OR c", "((not a) and b) or c"),
        ("a IS NOT NULL", "not (a is null)"),
        ("a NOT IN (1, 2)", "not (a in (1, 2))"),
        ("a not between 1 and 2", "not (a between 1 and 2)"),
        ("a not like 'x%'", "not (a like 'x%')"),
        ("a - b - c", "(a - b) - c"),
        ("a + b * c", "a + (b * c)"),
        ("-a * b", "(-a) * b"),
        ("a || b || c", "concat(a, b, c)"),
        ("a and b and c", "(a and b) and c"),
        ("'it''s'", '"it\'s"'),
        ("`a`", "a"),
        ("1.5e3", "1500.0"),
        (".5", "0.5"),
        ("- 5", "-5"),
        ("mean(x)", "avg(x)"),
        ("COUNT(*)", "count()"),
        ("SUM(amount)", "sum(amount)"),
        ("count_distinct(x)", "count(distinct x)"),
        ("date '2013-01-05'", "Date '2013-01-05'"),
        ("timestamp '2013-01-05 05:00'", "Timestamp(us) '2013-01-05T05:00:00.000000'"),
        ("CAST(a AS decimal(4, 2))", "cast(a as Decimal(4,2))"),
        ("-9223372036854775808", "- 9223372036854775808"),
        ("case a when 1 then 2 else 3 end", "case when a == 1 then 2 else 3 end"),
        ("if(a > 1, 2, 3)", "case when a > 1 then 2 else 3 end"),
        ("ifnull(a, 0)", "coalesce(a, 0)"),
        ("a IS TRUE", "coalesce(a, false)"),
        ("a is not false", "not coalesce(not a, false)"),
        ("a NOT ILIKE 'x%'", "not (a ilike 'x%')"),
        ("EXTRACT(year FROM d)", "year(d)"),
        ("date_part('dow', d)", "dow(d)"),
        ("d + INTERVAL '3 months'", "date_add('month', 3, d)"),
        ("d - interval '3' day", "date_add('day', -3, d)"),
        (
            "d + interval 1 week - interval (n) hours",
            "date_add('hour', -n, date_add('week', 1, d))",
        ),
        ("interval + 1", "`interval` + 1"),
        ("QUANTILE(x, 0.9)", "quantile_cont(x, 0.9)"),
        ("approx_distinct(x)", "approx_count_distinct(x)"),
        ("position(s, 'a')", "strpos(s, 'a')"),
        ("pow(x, 2)", "power(x, 2)"),
    ],
)
def test_spellings_that_mean_the_same(text: str, same: str) -> None:
    if same == "AGE_IS_OTHER":
        assert parse_expr(text).equals((col("age") > 25) & (col("name") == "Alice"))
    else:
        assert parse_expr(text).equals(parse_expr(same))


@pytest.mark.parametrize(
    ("text", "name", "expr"),
    [
        ("old_name AS new_name", "new_name", "old_name"),
        ("amount * 2 as `a b`", "a b", "amount * 2"),
        ("amount", "amount", "amount"),
        ('cast(a as Int8) as "b"', "b", "cast(a as Int8)"),
    ],
)
def test_an_output_column_has_a_name(text: str, name: str, expr: str) -> None:
    found, made = parse_named(text)
    assert (found, str(made)) == (name, str(parse_expr(expr)))


@pytest.mark.parametrize(
    ("text", "offset"), [("a + 1", 0), ("a as", 4), ("a as b c", 7), ("a as 1", 5)]
)
def test_an_output_column_without_a_name_is_refused(text: str, offset: int) -> None:
    with pytest.raises(BadExpression) as caught:
        parse_named(text)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("text", "descending", "nulls_first"),
    [
        ("a", False, None),
        ("a DESC", True, None),
        ("a asc nulls last", False, False),
        ("a nulls first", False, True),
    ],
)
def test_a_sort_key_says_its_direction(
    text: str, descending: bool, nulls_first: bool | None
) -> None:
    expr, *rest = parse_order(text)
    assert (str(expr), rest) == ("a", [descending, nulls_first])


def test_names_of_any_script_and_number_bounds() -> None:
    assert parse_expr("größe").equals(col("größe"))
    assert parse_expr("18446744073709551615").equals(lit(2**64 - 1))


@pytest.mark.parametrize(
    ("text", "offset", "reason"),
    [
        ("", 0, "found nothing"),
        ("a >", 3, "ends too soon"),
        ("a > > b", 4, "expected a value"),
        ("(a", 2, "')' is missing"),
        ("a b", 2, "expected the end"),
        ("a < b < c", 6, "do not chain"),
        ("a && b", 2, "unexpected '&'"),
        ("'open", 0, 'unexpected "\'"'),
        ("uper(s)", 0, "unknown function"),
        ("upper(s, s)", 0, "does not accept 2"),
        ("a in 1", 5, "expected '('"),
        ("a not 1", 6, "expected in, between, like or ilike"),
        ("a is 1", 5, "expected null, true or false"),
        ("a + interval 'soon'", 13, "whole number"),
        ("a + interval 3 parsec", 13, "no interval is counted in"),
        ("extract(eon from d)", 8, "no part is called"),
        ("extract(year d)", 13, "expected 'from'"),
        ("quantile(x)", 9, "takes 2 argument"),
        ("quantile(x, 2)", 9, "from 0 to 1"),
        ("quantile(x, y)", 9, "from 0 to 1"),
        ("if(a)", 0, "2 or 3 arguments"),
        ("cast(a as Int46)", 10, "Int46"),
        ("cast(a as)", 9, "expected a type"),
        ("date 'soon'", 5, "not a value"),
        ("sum(a, b)", 4, "takes 1 argument"),
        ("9" * 39, 0, "38 digits"),
        ("case a end", 7, "expected 'when'"),
    ],
)
def test_errors_show_the_place(text: str, offset: int, reason: str) -> None:
    with pytest.raises(BadExpression) as caught:
        parse_expr(text)
    assert (caught.value.offset, reason in str(caught.value)) == (offset, True)


def test_an_error_counts_lines_and_draws_a_caret() -> None:
    with pytest.raises(BadExpression) as caught:
        parse_expr("a > 1\n  and and b")
    assert (caught.value.line, caught.value.column) == (2, 7)
    assert str(caught.value).splitlines()[1:] == ["    and and b", "        ^"]


def test_the_nearest_function_is_suggested() -> None:
    with pytest.raises(BadExpression) as caught:
        parse_expr("lenght(s)")
    assert caught.value.hint == "did you mean 'length'?"


def test_reserved_aggregates_are_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="mode"):
        parse_expr("mode(x)")


@pytest.mark.parametrize(
    "text", ["(" * 500 + "a" + ")" * 500, "not " * 500 + "a", "a" + "+a" * 500]
)
def test_depth_is_bounded(text: str) -> None:
    with pytest.raises(BadExpression, match="deeper than"):
        parse_expr(text)


def test_length_is_bounded() -> None:
    with pytest.raises(TooLarge):
        parse_expr("a" * 70_000)


@given(st.sampled_from("ifspdtm").flatmap(expressions))
def test_any_expression_reads_back_from_its_text(expr: object) -> None:
    assert str(parse_expr(str(expr))) == str(expr)


@given(st.text(alphabet="ab1'\"`().,+-*/%<>=|&~ \n andornotinisullikecaswhe", max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    with suppress(BadExpression, Unsupported):
        parse_expr(text)
