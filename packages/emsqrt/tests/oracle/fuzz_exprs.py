"""Random expressions over the columns at hand, as text, with types that fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from sennit_core.schema import DataType, Schema

_SMALL = ("Int8", "Int16", "UInt8", "UInt16")
_NUMBERS = ("0", "1", "-3", "2.5", "100", "0.1", "-0.3", "Decimal(2,1) '0.3'")
_TEXTS = ("''", "'a'", "'ab'", "'A'", "'0'", "' '", "'é'")


class Exprs:
    """Draws expressions over rows of a schema.

    Args:
        dice: what chances come from.
        schema: of the rows.
        names: the columns that may be looked at.
    """

    def __init__(self, dice: random.Random, schema: Schema, names: Sequence[str]) -> None:
        self._dice = dice
        kinds = {name: schema.field(name).type for name in names}
        self._numbers = [name for name, kind in kinds.items() if _is_number(kind)]
        self._safe = [name for name, kind in kinds.items() if _is_small(name, kind)]
        self._floats = [name for name, kind in kinds.items() if kind.is_float]
        self._texts = [name for name, kind in kinds.items() if kind.name == "Utf8"]
        self._flags = [name for name, kind in kinds.items() if kind.name == "Bool"]
        self._moments = [
            name
            for name, kind in kinds.items()
            if kind.name in ("Date", "Timestamp") and not kind.zone
        ]
        self._clocks = [name for name in self._moments if kinds[name].name == "Timestamp"]
        self._all = [name for name, kind in kinds.items() if kind.name not in ("List", "Struct")]

    def any(self, depth: int = 1) -> str:
        """Draw an expression of any type."""
        makers: list[Callable[[int], str]] = [self.flag]
        if self._numbers:
            makers += [self.number, self.number]
        if self._texts:
            makers += [self.text, self.text]
        if self._moments:
            makers.append(self.date_or_time)
        if self._all:
            makers.append(self.choice)
        return str(self._one(makers)(depth))

    def flag(self, depth: int = 2) -> str:
        """Draw a condition."""
        if depth and self._dice.randint(0, 2) == 0:
            one, two = self.flag(depth - 1), self.flag(depth - 1)
            form = self._one(("({} and {})", "({} or {})", "not ({})", "coalesce({}, {})"))
            return str(form.format(one, two))
        makers = [self._compared]
        makers += [self._number_flag] * bool(self._numbers)
        makers += [self._text_flag] * (2 * bool(self._texts))
        return str(self._one(makers)(depth))

    def number(self, depth: int = 1) -> str:
        """Draw a number that no small value lets overflow."""
        if not self._safe or (self._floats and self._dice.randint(0, 3) == 0):
            return self._float()
        one, two = self._one(self._safe), self._one((*self._safe, *_NUMBERS))
        forms = (
            *("({} + {})", "({} - {})", "({} * {})", "({} / {})", "({} % {})", "abs({})"),
            *("-({})", "({} + {}) // 3", "round({} / 8, 1)", "floor({} / 3)", "sign({})"),
            *("greatest({}, {})", "least({}, {})", "nullif({}, {})", "coalesce({}, {}, 7)"),
            *("ceil({} * 0.5)", "trunc({} / 7)", "sqrt(abs({}))", "cast({} as Float64) + {}"),
            *("cast({} as Utf8)", "try_cast({} as Int8)", "cast({} as Decimal(20,3))"),
            *("({} // {})", "({} % -3)", "({} // -2)", "power({}, 2)"),
        )
        return str(self._one(forms).format(one, two))

    def text(self, depth: int = 1) -> str:
        """Draw a text."""
        one = self._one(self._texts)
        if depth and self._dice.random() < 0.5:
            one = self.text(depth - 1)
        two = self._one((*self._texts, *_TEXTS))
        forms = (
            *("upper({})", "lower({})", "trim({})", "ltrim({})", "rtrim({})", "substr({}, 2, 3)"),
            *("substr({}, -2)", "left({}, 2)", "right({}, 2)", "left({}, -1)", "repeat({}, 2)"),
            *(
                "concat({}, {})",
                "({} || {})",
                "lpad({}, 4, '*')",
                "rpad({}, 3)",
                "replace({}, 'a', 'xyz')",
            ),
            *("split_part({}, ' ', 1)", "coalesce({}, {})", "nullif({}, {})", "greatest({}, {})"),
            *("substr({}, -3, 2)", "right({}, -1)", "trim({}, 'ab ')", "split_part({}, 'a', -1)"),
            *("lpad({}, 5, 'éz')", "regexp_replace({}, '(.)b', '\\1-', 'g')"),
            *("regexp_replace({}, '[a-c]+', '#')", "reverse({})", "replace({}, '0', '')"),
            *("cast(length({}) as Utf8)", "case when {} < {} then 'less' else 'x' end"),
        )
        return str(self._one(forms).format(one, two))

    def date_or_time(self, depth: int = 1) -> str:
        """Draw an expression of a date or timestamp."""
        one, two = self._one(self._moments), self._one(self._moments)
        forms = [
            *(
                "year({})",
                "month({})",
                "day({})",
                "quarter({})",
                "week({})",
                "dow({})",
                "isodow({})",
            ),
            *("doy({})", "date_trunc('month', {})", "date_trunc('week', {})", "epoch_ms({})"),
            *("date_diff('week', {}, {})", "date_diff('quarter', {}, {})"),
            *("date_diff('day', {}, {})", "date_diff('month', {}, {})", "cast({} as Utf8)"),
            *("coalesce({}, {})", "greatest({}, {})", "date_trunc('year', {})", "epoch({})"),
        ]
        if self._clocks and self._dice.random() < 0.5:
            one = self._one(self._clocks)
            forms = [
                "hour({})",
                "minute({})",
                "second({})",
                "date_trunc('hour', {})",
                "cast({} as Date)",
            ]
        return str(self._one(forms).format(one, two))

    def choice(self, depth: int = 1) -> str:
        """Draw a choice between columns."""
        one, two = self._one(self._all), self._one(self._all)
        condition = self.flag(0)
        forms = (
            *(
                "case when {c} then {a} else {b} end",
                "case when {c} then {a} end",
                "coalesce({a}, {b})",
            ),
            *("nullif({a}, {b})", "case when {a} is null then 1 when {c} then 2 else 3 end"),
            *("greatest({a}, {b})", "{a}"),
        )
        return str(self._one(forms).format(a=one, b=two, c=condition))

    def _float(self) -> str:
        one = self._one(self._numbers)
        forms = (
            *("cast({} as Float64)", "abs(cast({} as Float64))", "-cast({} as Float64)"),
            *("cast({} as Float64) / 4", "floor(cast({} as Float64))", "sign({})"),
            *("cast({} as Float64) + 0.5", "nullif({}, 0)", "sqrt(abs(cast({} as Float64)))"),
        )
        return str(self._one(forms).format(one))

    def _compared(self, _: int) -> str:
        one, two = self._one(self._all), self._one(self._all)
        forms = (
            *("{} is null", "{} is not null", "{} == {}", "{} <> {}", "{} < {}", "{} >= {}"),
            *("{} in (0, 1, -1)", "{} between 1 and {}", "nullif({}, {}) is null"),
        )
        return str(self._one(forms).format(one, two))

    def _number_flag(self, _: int) -> str:
        one, two = self._one(self._numbers), self._one((*self._numbers, *_NUMBERS))
        forms = (
            *("{} > {}", "{} <= {}", "{} = {}", "{} in (1, 2, 3, 40)", "{} between 0 and {}"),
            *("{} = 0.1", "{} >= 0.3", "{} <= -0.7", "{} in (0.2, {})", "{} < Decimal(2,1) '-0.1'"),
            *("{} not in (0, {})", "{} <> {}", "{} not between {} and 30", "{} >= 20 and {} < 40"),
        )
        return str(self._one(forms).format(one, two))

    def _text_flag(self, _: int) -> str:
        one, two = self._one(self._texts), self._one(_TEXTS)
        forms = (
            *("{} like 'a%'", "{} like '%0_'", "{} ilike '%A%'", "{} not like '_'", "{} == {}"),
            *("contains({}, {})", "starts_with({}, {})", "ends_with({}, {})", "{} < {}"),
            *(
                "{} in ('a', 'b', '')",
                "length({}) > 2",
                "{} between 'a' and 'b'",
                "strpos({}, 'b') > 0",
            ),
            *("regexp_matches({}, '^[0-9]+$')", "{} >= {}", "upper({}) == 'A'"),
        )
        return str(self._one(forms).format(one, two))

    def _one(self, values: Sequence[Any]) -> Any:
        return self._dice.choice(values)


def _is_number(kind: DataType) -> bool:
    return kind.is_integer or kind.is_float or kind.name == "Decimal"


def _is_small(name: str, kind: DataType) -> bool:
    """Return whether sums and products of such values stay far below Int64's bounds."""
    return kind.name in _SMALL or (
        name in ("n", "g", "k", "ku", "kd", "d", "tenth") and _is_number(kind)
    )
