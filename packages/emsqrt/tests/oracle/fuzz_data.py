"""Random tables for tests: every type, NULLs, skew, and the values that programs trip over."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from sennit_core.schema import DataType, Field, Schema

MENU: dict[str, str] = {
    "i8": "Int8",
    "i16": "Int16",
    "i32": "Int32",
    "n": "Int64",
    "i64": "Int64",
    "u8": "UInt8",
    "u16": "UInt16",
    "u32": "UInt32",
    "u64": "UInt64",
    "g": "Float64",
    "f": "Float64",
    "f32": "Float32",
    "d": "Decimal(9,2)",
    "dd": "Decimal(38,10)",
    "d38": "Decimal(38,38)",
    "d0": "Decimal(38,0)",
    "s": "Utf8",
    "t": "Utf8",
    "flag": "Bool",
    "day": "Date",
    "at": "Timestamp(us)",
    "ms": "Timestamp(ms)",
    "zone": "Timestamp(us,UTC)",
    "b": "Binary",
    "xs": "List(Int64)",
}
"""Columns by name. `n` and `g` hold small numbers, whose sums are exact in any order."""
SUMMABLE = ("i8", "i16", "i32", "n", "i64", "u8", "u16", "u32", "g", "d")

_EXACT = Context(prec=60)
_TEXTS = (
    *("", " ", "a", "A", "ab", "b", "NULL", "nan", "0", "-0", ",", '"', '""', "a\nb", "\n", "\r\n"),
    *("\r", "ä", "é", "e\u0301", "😀", "\ufeff", "\u2028", "\x7f", "\\", "'", "x" * 300, "\t"),
)


def random_table(
    names: Sequence[str], rows: int, seed: int, *, nul: bool = True
) -> tuple[Schema, pa.Table]:
    """Return a table of columns of `MENU`, the same for the same arguments.

    Args:
        names: which columns.
        rows: how many rows.
        seed: any number.
        nul: whether text may hold NUL characters and bytes may be anything.
    """
    dice = random.Random(seed)
    schema = Schema(tuple(Field(name, DataType.parse(MENU[name])) for name in names))
    columns = [_column(field, rows, dice, nul=nul) for field in schema]
    return schema, pa.table(columns, schema=schema.to_arrow())


def _column(field: Field, rows: int, dice: random.Random, *, nul: bool) -> Any:
    """Draw a few different values, then a place among them for each row."""
    different = dice.choice((1, 2, 5, 60, max(rows, 1)))
    make = _MAKERS[field.name]
    pool = [make(dice) for _ in range(min(different, max(rows, 1)))]
    if not nul and field.type.name == "Utf8":
        pool = [text.replace("\x00", "0") for text in pool]
    numbers = np.random.default_rng(dice.getrandbits(32))
    places = numbers.integers(0, len(pool), rows)
    if dice.random() < 0.25:
        places[numbers.random(rows) < 0.97] = 0  # one value nearly everywhere
    absent = numbers.random(rows) < dice.choice((0.0, 0.0, 0.1, 0.5, 1.0))
    values = pa.array(pool, field.type.to_arrow())
    return values.take(pa.array(places, mask=absent))


def _integers(bits: int, *, signed: bool) -> Callable[[random.Random], int]:
    low = -(1 << (bits - 1)) if signed else 0
    high = low + (1 << bits) - 1

    def draw(dice: random.Random) -> int:
        near = dice.choice((low, low + 1, 0, 1, 2, high - 1, high))
        return dice.choice((near, dice.randint(low, high), dice.randint(0, 100)))

    return draw


def _wild_float(dice: random.Random) -> float:
    special = (0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, -5e-324, 1.7976931348623157e308)
    return dice.choice((dice.choice(special), dice.gauss(0, 1e3), dice.uniform(-2, 2) * 1e300))


def _small_float(dice: random.Random) -> float:
    return float(np.float32(dice.choice((0.0, -0.0, math.nan, math.inf, dice.gauss(0, 50), 1e-45))))


def _decimals(precision: int, scale: int) -> Callable[[random.Random], Decimal]:
    top = 10**precision - 1

    def draw(dice: random.Random) -> Decimal:
        whole = dice.choice((dice.choice((0, 1, -1, top, -top)), dice.randint(-top, top)))
        return Decimal(whole if scale < precision or whole else 0).scaleb(-scale, _EXACT)

    return draw


def _text(dice: random.Random) -> str:
    if dice.random() < 0.5:
        return dice.choice(_TEXTS)
    letters = string.ascii_letters + "\x00 ,\"'\n\U0001f600ß"
    return "".join(dice.choices(letters, k=dice.choice((1, 3, 9, 40))))


def _moment(dice: random.Random) -> datetime:
    if dice.random() < 0.3:
        return datetime.fromisoformat(dice.choice(("1970-01-01", "0001-01-01", "9999-12-31")))
    return datetime.fromisoformat("2000-01-01") + timedelta(
        milliseconds=dice.randint(-(1 << 41), 1 << 41)
    )


_MAKERS: dict[str, Callable[[random.Random], Any]] = {
    "i8": _integers(8, signed=True),
    "i16": _integers(16, signed=True),
    "i32": _integers(32, signed=True),
    "i64": _integers(64, signed=True),
    "n": lambda dice: dice.randint(-50, 50),
    "u8": _integers(8, signed=False),
    "u16": _integers(16, signed=False),
    "u32": _integers(32, signed=False),
    "u64": _integers(64, signed=False),
    "g": lambda dice: dice.randint(-4000, 4000) / 8,
    "f": _wild_float,
    "f32": _small_float,
    "d": _decimals(9, 2),
    "dd": _decimals(38, 10),
    "d38": _decimals(38, 38),
    "d0": _decimals(38, 0),
    "s": _text,
    "t": lambda dice: f"{dice.choice('abc')}{dice.randint(0, 9999):04}" * dice.choice((1, 1, 30)),
    "flag": lambda dice: dice.random() < 0.5,
    "day": lambda dice: dice.choice((date(1970, 1, 1), date(1, 1, 1), _moment(dice).date())),
    "at": lambda dice: _moment(dice) + timedelta(microseconds=dice.randint(0, 999)),
    "ms": _moment,
    "zone": lambda dice: _moment(dice).replace(tzinfo=UTC),
    "xs": lambda dice: dice.choices((None, 1, 2, 1 << 62), k=dice.choice((0, 0, 1, 2, 5, 40))),
    "b": lambda dice: _text(dice).encode("utf-8") + bytes(dice.choice(((), (0,), (255, 0, 1)))),
}
