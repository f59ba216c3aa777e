"""Random tables for tests: every type, NULLs, skew, and the values that programs trip over."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    "tenth": "Decimal(9,2)",
    "time": "Time",
    "s": "Utf8",
    "t": "Utf8",
    "flag": "Bool",
    "day": "Date",
    "at": "Timestamp(us)",
    "ms": "Timestamp(ms)",
    "zone": "Timestamp(us,UTC)",
    "b": "Binary",
    "xs": "List(Int64)",
    "k": "Int64",
    "k8": "Int8",
    "ku": "UInt32",
    "kd": "Decimal(18,2)",
    "kf": "Float64",
    "kf32": "Float32",
    "ku64": "UInt64",
    "kt": "Utf8",
    "kb": "Binary",
    "kday": "Date",
    "kms": "Timestamp(ms)",
    "kat": "Timestamp(us)",
    "kz": "Timestamp(us,UTC)",
    "pad": "Utf8",
}
"""Columns by name. `n` and `g` hold small numbers, whose sums are exact in any order.

Those with a `k` are keys: whole numbers from 0 in many types, so that rows of two tables match.
"""
KEYS = tuple(name for name in MENU if name.startswith("k"))
SUMMABLE = ("i8", "i16", "i32", "n", "i64", "u8", "u16", "u32", "g", "d", "k", "k8", "ku", "kd")
ORDERS = ("drawn", "drawn", "sorted", "sorted", "reversed", "nearly", "clustered", "broken")
"""How the rows of a table are ordered, by some of its columns."""

_EXACT = Context(prec=60)
_TEXTS = (
    *("", " ", "a", "A", "ab", "b", "NULL", "nan", "0", "-0", ",", '"', '""', "a\nb", "\n", "\r\n"),
    *("\r", "ä", "é", "e\u0301", "😀", "\ufeff", "\u2028", "\x7f", "\\", "'", "x" * 300, "\t"),
)


def random_table(
    names: Sequence[str],
    rows: int,
    seed: int,
    *,
    nul: bool = True,
    keys: int = 50,
    order: str = "drawn",
    by: Sequence[str] = (),
) -> tuple[Schema, pa.Table]:
    """Return a table of columns of `MENU`, the same for the same arguments.

    Args:
        names: which columns.
        rows: how many rows.
        seed: any number.
        nul: whether text may hold NUL characters and bytes may be anything.
        keys: how many different keys there may be.
        order: the order of the rows: one of `ORDERS`.
        by: the columns that they are ordered by.
    """
    dice = random.Random(seed)
    schema = Schema(tuple(Field(name, DataType.parse(MENU[name])) for name in names))
    columns = [_column(field, rows, dice, nul=nul, keys=keys) for field in schema]
    table = pa.table(columns, schema=schema.to_arrow())
    return schema, _arranged(table, order, by, dice) if by else table


def _column(field: Field, rows: int, dice: random.Random, *, nul: bool, keys: int) -> Any:
    """Draw a few different values, then a place among them for each row."""
    if field.name in KEYS:
        pool = [_KEY_MAKERS[field.name](number) for number in range(keys)]
    else:
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


def _arranged(table: pa.Table, order: str, by: Sequence[str], dice: random.Random) -> pa.Table:
    """Order the rows of a table by some columns, NULL last, as one of `ORDERS` says."""
    if order == "drawn":
        return table
    directions = [(name, "ascending") for name in by]
    places = pc.sort_indices(table, sort_keys=directions).to_numpy(zero_copy_only=False).copy()
    numbers = np.random.default_rng(dice.getrandbits(32))
    match order:
        case "reversed":
            places = places[::-1]
        case "nearly" if len(places) > 1:
            first, second = numbers.integers(0, len(places), 2)
            places[[first, second]] = places[[second, first]]
        case "clustered":
            cut = np.array_split(places, max(1, len(places) // 100))
            places = np.concatenate([cut[at] for at in numbers.permutation(len(cut))])
        case "broken":
            numbers.shuffle(places[len(places) * 3 // 4 :])
    return table.take(pa.array(places))


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


def _draw_datetime(dice: random.Random) -> datetime:
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
    "tenth": lambda dice: Decimal(dice.randint(-9, 9)) / 10,
    "time": lambda dice: dice.choice((time.min, time.max, _draw_datetime(dice).time())),
    "s": _text,
    "t": lambda dice: f"{dice.choice('abc')}{dice.randint(0, 9999):04}" * dice.choice((1, 1, 30)),
    "flag": lambda dice: dice.random() < 0.5,
    "day": lambda dice: dice.choice((date(1970, 1, 1), date(1, 1, 1), _draw_datetime(dice).date())),
    "at": lambda dice: _draw_datetime(dice) + timedelta(microseconds=dice.randint(0, 999)),
    "ms": _draw_datetime,
    "zone": lambda dice: _draw_datetime(dice).replace(tzinfo=UTC),
    "xs": lambda dice: dice.choices((None, 1, 2, 1 << 62), k=dice.choice((0, 0, 1, 2, 5, 40))),
    "pad": lambda dice: f"{dice.randint(0, 1 << 40):x} " * dice.choice((1, 20, 40, 80)),
    "b": lambda dice: _text(dice).encode("utf-8") + bytes(dice.choice(((), (0,), (255, 0, 1)))),
}

_LIKE = "a prefix that goes on for longer than a key is cut off at "
_FLOATS = (0.0, -0.0, math.nan, 1.0, math.inf, -math.inf)
_EPOCH = datetime.fromisoformat("1969-12-31T23:59:00")

_KEY_MAKERS: dict[str, Callable[[int], Any]] = {
    "k": lambda number: number,
    "k8": lambda number: number % 128,
    "ku": lambda number: number,
    "kd": lambda number: Decimal(number),
    "kf": lambda number: _FLOATS[number] if number < len(_FLOATS) else float(number),
    "kf32": lambda number: _FLOATS[number] if number < len(_FLOATS) else float(number),
    "ku64": lambda number: number if number % 2 else (1 << 64) - 1 - number,
    "kt": lambda number: (
        ("", "0", _LIKE, "\x00", "a\x00", "a")[number] if number < 6 else _LIKE + str(number)
    ),
    "kb": lambda number: number.to_bytes(3, "little"),
    "kday": lambda number: _EPOCH.date() + timedelta(days=number),
    "kms": lambda number: _EPOCH + timedelta(seconds=number),
    "kat": lambda number: _EPOCH + timedelta(seconds=number),
    "kz": lambda number: (_EPOCH + timedelta(seconds=number)).replace(tzinfo=UTC),
}
