"""Random expressions and rows, of the functions that the engine in JavaScript computes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa

from emsqrt.expr import Expr, coalesce, col, concat, greatest, least, lit, nullif, when
from emsqrt.expr.nodes import call
from sennit_core.schema import Schema

COLUMNS = Schema.of(
    i="Int64", j="Int32", u="UInt8", f="Float64", g="Float32", s="Utf8", p="Bool", d="Date",
    t="Timestamp(us)",
)  # fmt: skip
"""The columns of the random rows."""
INT64 = (-(2**63), 2**63 - 1)
_FLOATS = (
    0.0,
    -0.0,
    0.5,
    -1.5,
    2.5,
    0.1,
    1e16,
    -1e-7,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
)
_WORDS = (
    "",
    "a",
    "Ab",
    " a b ",
    "éÉ",
    "👍",
    "~",
    "zz",
    "%_",
    "A\n",
    "10",
    'q"',
    "ß",
    "ǆ",
    "İ",
    "ﬁ",
)
_CHARS = ("a", "👍", "ab", " ", "é%")
_DAY_UNITS = ("year", "quarter", "month", "week", "day")
_UNITS = (*_DAY_UNITS, "hour", "minute", "second", "millisecond", "microsecond")
_FORMATS = ("%Y-%m", "%F %T", "%d.%m.%y", "%j %H%M%S.%f %%")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - wall-clock time, as the column has no zone


def random_rows(dice: random.Random, count: int) -> pa.Table:
    """Return rows; whole numbers beyond 2^53, which have a kernel of their own, are in half of them."""
    is_wide = dice.random() < 0.5
    makers: dict[str, Callable[[], Any]] = {
        "i": lambda: _integer(dice, is_wide),
        "j": lambda: dice.choice((dice.randint(-9, 9), dice.randint(-(2**31), 2**31 - 1))),
        "u": lambda: dice.randint(0, 255),
        "f": lambda: _float(dice),
        "g": lambda: struct.unpack("f", struct.pack("f", dice.uniform(-9, 9)))[0],
        "s": lambda: _text(dice),
        "p": lambda: dice.random() < 0.5,
        "d": lambda: _day(dice),
        "t": lambda: _time(dice),
    }
    columns = {
        name: [None if dice.random() < 0.15 else make() for _ in range(count)]
        for name, make in makers.items()
    }
    return pa.table(columns, schema=COLUMNS.to_arrow())


def _integer(dice: random.Random, is_wide: bool) -> int:
    if not is_wide:
        return dice.choice((dice.randint(-20, 20), dice.randint(-(10**12), 10**12)))
    return dice.choice((0, -1, 7, -7, *INT64, dice.randint(*INT64)))


def _float(dice: random.Random) -> float:
    return dice.choice((dice.choice(_FLOATS), dice.uniform(-99, 99), dice.lognormvariate(0, 40)))


def _text(dice: random.Random) -> str:
    return dice.choice((dice.choice(_WORDS), "".join(dice.choices("abAB é👍%_", k=4))))


def _day(dice: random.Random) -> date:
    return date(1970, 1, 1) + timedelta(dice.randint(-25_000, 40_000))


def _time(dice: random.Random) -> datetime:
    return _EPOCH + timedelta(microseconds=dice.randint(-(2**50), 2**51))


class Expressions:
    """Makes expressions of a kind of value: i, f, s, p, d or t."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def make(self, kind: str, depth: int) -> Expr:
        """Return an expression that is nested at most so deep."""
        if depth == 0 or self.dice.random() < 0.1:
            return self._leaf(kind)
        choice = self.dice.random()
        if choice < 0.2:
            return self._conditional(kind, depth - 1)
        makers = {
            "i": self._whole, "f": self._float, "s": self._string, "p": self._condition,
            "d": self._day, "t": self._time,
        }  # fmt: skip
        return makers[kind](depth - 1)

    def _leaf(self, kind: str) -> Expr:
        dice = self.dice
        if dice.random() < 0.7:
            return col(dice.choice({"i": "iiju", "f": "ffg"}.get(kind, kind)))
        values: dict[str, Callable[[], Any]] = {
            "i": lambda: _integer(dice, dice.random() < 0.1), "f": lambda: _float(dice),
            "s": lambda: _text(dice), "p": lambda: dice.random() < 0.5, "d": lambda: _day(dice),
            "t": lambda: _time(dice),
        }  # fmt: skip
        return lit(values[kind]())

    def _conditional(self, kind: str, depth: int) -> Expr:
        one, two = self.make(kind, depth), self.make(kind, depth)
        if self.dice.random() < 0.4:
            return when(self.make("p", depth)).then(one).otherwise(two)
        fns = (coalesce, nullif) if kind == "p" else (coalesce, nullif, greatest, least)
        return self.dice.choice(fns)(one, two)

    def _whole(self, depth: int) -> Expr:
        def sub(kind: str = "i") -> Expr:
            return self.make(kind, depth)

        return self.dice.choice(
            (
                lambda: call(self._of("add sub mul idiv mod"), sub(), sub()),
                lambda: call(self._of("add sub mul"), sub(), sub()),
                lambda: call(self._of("idiv mod"), sub(), sub()),
                lambda: call(self._of("idiv mod"), sub(), sub()),
                lambda: call(self._of("neg abs round floor ceil trunc"), sub()),
                lambda: call("length", sub("s")),
                lambda: call("strpos", sub("s"), self.dice.choice(_WORDS)),
                lambda: call(self._of("year month day quarter"), sub(self.dice.choice("dt"))),
                lambda: call(self._of("hour minute second"), sub("t")),
                lambda: call(self._of("week dow isodow doy epoch_ms"), sub(self.dice.choice("dt"))),
                lambda: self._difference(sub),
                lambda: call("sign", sub()),
                lambda: sub("f").try_cast("Int64"),
                lambda: sub(self.dice.choice("ps")).try_cast("Int64"),
                lambda: sub().try_cast(self.dice.choice(("Int8", "Int16", "UInt32", "UInt64"))),
            )
        )()

    def _float(self, depth: int) -> Expr:
        def sub(kind: str = "f") -> Expr:
            return self.make(kind, depth)

        return self.dice.choice(
            (
                lambda: call(self._of("add sub mul div mod"), sub(), sub()),
                lambda: call(self._of("add sub mul div mod"), sub(), sub("i")),
                lambda: call("div", sub("i"), sub("i")),
                lambda: call(self._of("neg abs floor ceil trunc sqrt"), sub()),
                lambda: call("round", sub(), self.dice.randint(0, 3)),
                lambda: sub("i").cast("Float64"),
                lambda: sub("s").try_cast("Float64"),
                lambda: call("epoch", sub(self.dice.choice("dt"))),
                lambda: call("sign", sub()),
                lambda: call("add", call("pi"), sub()),
            )
        )()

    def _string(self, depth: int) -> Expr:
        dice = self.dice

        def sub(kind: str = "s") -> Expr:
            return self.make(kind, depth)

        return dice.choice(
            (
                lambda: concat(sub(), sub()),
                lambda: call(self._of("trim ltrim rtrim"), sub()),
                lambda: call(self._of("trim ltrim rtrim"), sub(), dice.choice(_CHARS)),
                lambda: call("replace", sub(), dice.choice(_WORDS), dice.choice(_WORDS)),
                lambda: call("substr", sub(), dice.choice((1, 2, 3, -1, -2)), dice.randint(0, 3)),
                lambda: call(self._of("left right"), sub(), dice.randint(-3, 3)),
                lambda: call("reverse", sub()),
                lambda: call("repeat", sub(), dice.randint(0, 3)),
                lambda: call(self._of("lpad rpad"), sub(), dice.randint(0, 6)),
                lambda: call(self._of("lpad rpad"), sub(), dice.randint(0, 6), dice.choice(_CHARS)),
                lambda: call(
                    "split_part", sub(), dice.choice(_CHARS), dice.choice((1, 2, 3, -1, -2))
                ),
                lambda: call("strftime", sub(dice.choice("dt")), dice.choice(_FORMATS)),
                lambda: sub(dice.choice("ipd")).cast("Utf8"),
            )
        )()

    def _condition(self, depth: int) -> Expr:
        dice = self.dice
        compare = "eq ne lt le gt ge"
        kind = dice.choice("ifspdt")

        def sub(of: str) -> Expr:
            return self.make(of, depth)

        return dice.choice(
            (
                lambda: call(self._of(compare), sub(kind), sub(kind)),
                lambda: call(self._of(compare), sub("i"), sub("f")),
                lambda: call(self._of(compare), col("s"), dice.choice(_WORDS)),
                lambda: call("between", *[sub(kind) for _ in range(3)]),
                lambda: call("is_in", *[sub(kind) for _ in range(4)]),
                lambda: call(self._of("and or"), sub("p"), sub("p")),
                lambda: call("not", sub("p")),
                lambda: call("is_null", sub(kind)),
                lambda: call("is_nan", sub("f")),
                lambda: call(
                    self._of("contains starts_with ends_with like"), sub("s"), dice.choice(_WORDS)
                ),
            )
        )()

    def _day(self, depth: int) -> Expr:
        dice = self.dice
        day, unit = self.make("d", depth), dice.choice(_DAY_UNITS)
        return dice.choice(
            (
                lambda: self.make("t", depth).cast("Date"),
                lambda: call("date_trunc", unit, day),
                lambda: call("date_add", unit, self._count(depth), day),
                lambda: call("make_date", call("year", day), call("month", day), _of_month(dice)),
            )
        )()

    def _time(self, depth: int) -> Expr:
        dice = self.dice
        time, unit = self.make("t", depth), dice.choice(_UNITS)
        return dice.choice(
            (
                lambda: self.make("d", depth).cast("Timestamp(us)"),
                lambda: call("date_trunc", unit, time),
                lambda: call("date_add", unit, self._count(depth), time),
                lambda: self._read_time(time, depth),
            )
        )()

    def _read_time(self, time: Expr, depth: int) -> Expr:
        """Return a time that is read from the text of one, often by another format."""
        dice = self.dice
        text: Expr = call("strftime", time, dice.choice(_FORMATS))
        if dice.random() < 0.2:
            text = self.make("s", depth)
        return call("try_strptime", text, dice.choice(_FORMATS))

    def _count(self, depth: int) -> Expr:
        return (
            lit(self.dice.randint(-50, 50)) if self.dice.random() < 0.7 else self.make("i", depth)
        )

    def _difference(self, sub: Callable[[str], Expr]) -> Expr:
        kind = self.dice.choice("dt")
        return call("date_diff", self.dice.choice(_UNITS), sub(kind), sub(kind))

    def _of(self, names: str) -> str:
        return self.dice.choice(names.split())


def _of_month(dice: random.Random) -> int:
    return dice.choice((1, 28, 30, 31))
