"""Parquet files of many shapes, as other writers make them, and runs of them under caps."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from smallest_runs import MIB, Watcher

from emsqrt import Engine, EngineConfig, scan
from emsqrt.pipeline import Pipeline
from sennit_core.errors import CapTooSmall, SennitError

Table = Callable[[int], Any]
STEPS = (1.0, 1.15, 1.5)
"""Caps, as multiples of the smallest."""
SHAPES = 16
_LONG_ROW = re.compile(r"needed: (a row to be joined|a row of the sort|row \d+ of the sort) ")


@dataclass(frozen=True)
class Shape:
    """How a file is laid out."""

    rows: int = 120_000
    group_rows: int = 40_000
    page_bytes: int = MIB
    codec: str = "snappy"
    dictionary: bool | list[str] = True
    dictionary_bytes: int = MIB
    version: str = "1.0"
    nullable: bool = False
    short_decimals: bool = True
    arrow_schema: bool = False
    encodings: dict[str, str] | None = None


def write(path: Path, table: Any, shape: Shape) -> Path:
    """Write a table in a shape."""
    fields = [field.with_nullable(shape.nullable) for field in table.schema]
    parquet.write_table(
        table.cast(pa.schema(fields)),
        path,
        row_group_size=shape.group_rows,
        data_page_size=shape.page_bytes,
        compression=shape.codec,
        use_dictionary=shape.dictionary,
        dictionary_pagesize_limit=shape.dictionary_bytes,
        data_page_version=shape.version,
        store_decimal_as_integer=shape.short_decimals,
        store_schema=shape.arrow_schema,
        column_encoding=shape.encodings,
        write_batch_size=1024,
    )
    return path


def ordinary(rows: int, texts: str = "short") -> Any:
    """Numbers, decimals, dates, times, booleans and texts, in no order."""
    dice = np.random.default_rng(11)
    numbers = dice.integers(0, 1 << 40, rows)
    more = 0 if texts == "short" else 40
    words = [f"{n % 50_000}" + " of some words" * (n % (more + 1)) for n in numbers.tolist()]
    return pa.table(
        {
            "k": dice.integers(0, rows // 2, rows),
            "few": (numbers % 7).astype(np.int32),
            "wide": numbers,
            "price": pa.array(
                [Decimal(int(n) % 10_000_000) / 100 for n in numbers], pa.decimal128(15, 2)
            ),
            "rate": pa.array([Decimal(int(n) % 11) / 100 for n in numbers], pa.decimal128(4, 2)),
            "at": pa.array(numbers % (1 << 30), pa.int64()).cast(pa.timestamp("us")),
            "ratio": dice.random(rows),
            "flag": pa.array((numbers % 2).astype(bool)),
            "kind": pa.array([("new", "old", "other")[n % 3] for n in numbers]),
            "t": words,
        }
    )


def behind(rows: int) -> Any:
    """Texts of which a dictionary holds the first, and plain pages the rest."""
    dice = np.random.default_rng(5).integers(0, 1 << 40, rows)
    return pa.table(
        {"k": dice % rows, "t": [f"{n:x} is the number of a comment" for n in dice.tolist()]}
    )


def hot(rows: int) -> Any:
    """Many short texts and a long one that comes in every second row, from the first on."""
    long = "long" * 4096
    return pa.table(
        {"k": np.arange(rows)[::-1], "t": [long if at % 2 else f"{at}" for at in range(rows)]}
    )


def unequal(rows: int) -> Any:
    """Rows of some bytes, and at the end rows of some KiB."""
    texts = [f"{at}" * (1 if at < rows * 5 // 6 else 400) for at in range(rows)]
    return pa.table({"k": np.arange(rows) * 7919 % rows, "t": texts})


def lists(rows: int) -> Any:
    """Lists whose values need a bit or two each in the file."""
    ends = np.arange(rows + 1, dtype=np.int32) * 100
    values = pa.array(np.arange(rows * 100) % 3)
    return pa.table(
        {"k": np.arange(rows) * 7919 % rows, "l": pa.ListArray.from_arrays(pa.array(ends), values)}
    )


def text_lists(rows: int) -> Any:
    """Lists of texts of a small dictionary."""
    ends = np.arange(rows + 1, dtype=np.int32) * 8
    texts = pa.array([f"{at} " * 300 for at in range(9)])
    values = pa.DictionaryArray.from_arrays(np.arange(rows * 8, dtype=np.int32) % 9, texts)
    plain = pa.ListArray.from_arrays(pa.array(ends), values.dictionary_decode())
    return pa.table({"k": np.arange(rows) * 7919 % rows, "l": plain})


def structs(rows: int) -> Any:
    """Structs with a long text of a small dictionary."""
    texts = [f"{at % 9} " * 3000 for at in range(rows)]
    inner = pa.StructArray.from_arrays([pa.array(texts), pa.array(np.arange(rows))], ["t", "n"])
    return pa.table({"k": np.arange(rows) * 7919 % rows, "s": inner})


def prefixes(rows: int) -> Any:
    """Texts that are long and the same but for their ends."""
    return pa.table(
        {
            "k": np.arange(rows) * 7919 % rows,
            "t": ["same" * 1000 + f"{at:07}" for at in range(rows)],
        }
    )


def one_long(rows: int) -> Any:
    """Short texts, and one of 2 MiB."""
    texts = [f"{at}" for at in range(rows)]
    texts[rows // 3] = "x" * (2 << 20)
    return pa.table({"k": np.arange(rows) * 7919 % rows, "t": texts})


def tiny(rows: int) -> Any:
    """Different texts of a few bytes: a dictionary of many."""
    return pa.table(
        {f"t{c}": [f"{at * (c + 1) % 90_000:05}" for at in range(rows)] for c in range(6)}
        | {"k": np.arange(rows) * 7919 % rows}
    )


def pages_of_text(rows: int) -> Any:
    """Columns of text that compress well, plain."""
    return pa.table(
        {f"t{c}": [f"{at * (c + 3)} and more of the same " for at in range(rows)] for c in range(6)}
        | {"k": np.arange(rows) * 7919 % rows}
    )


NASTY: dict[str, tuple[Callable[[int], Any], Shape]] = {
    "behind": (behind, Shape(dictionary_bytes=100_000)),
    "hot": (hot, Shape(rows=40_000, group_rows=20_000, dictionary_bytes=100_000)),
    "hot of many": (hot, Shape(rows=40_000, group_rows=20_000)),
    "unequal": (unequal, Shape(rows=60_000, group_rows=10_000)),
    "lists": (lists, Shape(rows=60_000, group_rows=30_000)),
    "text lists": (text_lists, Shape(rows=6_000, group_rows=6_000)),
    "structs": (structs, Shape(rows=6_000, group_rows=6_000)),
    "prefixes": (
        prefixes,
        Shape(rows=30_000, dictionary=False, encodings={"t": "DELTA_BYTE_ARRAY"}),
    ),
    "one long": (one_long, Shape(rows=60_000, dictionary=False)),
    "one long of many": (one_long, Shape(rows=60_000, dictionary_bytes=8 * MIB)),
    "tiny": (tiny, Shape()),
    "pages of text": (
        pages_of_text,
        Shape(dictionary=False, page_bytes=8 * MIB, group_rows=120_000),
    ),
    "pages of text 2": (pages_of_text, Shape(dictionary=False, codec="zstd", version="2.0")),
}


def every_shape() -> Iterator[tuple[str, Shape]]:
    """Return shapes in which each choice meets most of the others."""
    dice = np.random.default_rng(3)
    choices: dict[str, list[Any]] = {
        "rows": [120_000],
        "group_rows": [10_000, 40_000, 120_000],
        "page_bytes": [64 << 10, MIB, 8 * MIB],
        "codec": ["snappy", "zstd", "none"],
        "dictionary": [True, False],
        "dictionary_bytes": [64 << 10, MIB, 8 * MIB],
        "version": ["1.0", "2.0"],
        "nullable": [True, False],
        "short_decimals": [True, False],
        "arrow_schema": [True, False],
    }
    for number in itertools.count():
        texts = ("short", "long")[number % 2]
        yield (
            texts,
            Shape(**{name: some[dice.integers(len(some))] for name, some in choices.items()}),
        )


VERBS: dict[str, Callable[[Pipeline], Pipeline]] = {
    "sort": lambda rows: rows.sort("k"),
    "agg": lambda rows: rows.group_by("k").agg("count(*)", f="first(k)"),
    "filter": lambda rows: rows.filter("k % 3 = 0"),
    "join": lambda rows: rows.join(rows.filter("k % 50 = 0").select("k"), "k", "semi"),
}


def trouble(path: Path, verb: str, scratch: Path, steps: tuple[float, ...] = STEPS) -> list[str]:
    """Run a verb at the smallest cap and larger ones; return what went wrong.

    A row that is too long is reported when it is read, and nothing else.
    """
    pipeline = VERBS[verb](scan(path)).sink(scratch / "out.parquet")
    config = EngineConfig(spill_dir=scratch / "spill")
    found = list[str]()
    smallest = Engine(config).estimate(pipeline.plan, mem_cap=512 * MIB).cap_bytes
    for step in steps:
        cap_bytes = int(smallest * step)
        with Watcher() as watcher:
            try:
                Engine(config).run(pipeline.plan, mem_cap=cap_bytes)
            except CapTooSmall as error:
                if not _LONG_ROW.search(str(error)):
                    found.append(f"{cap_bytes / MIB:.1f} MiB: {error}")
            except SennitError as error:
                found.append(f"{cap_bytes / MIB:.1f} MiB: {type(error).__name__}: {error}")
        if watcher.peak_bytes > cap_bytes:
            found.append(f"{cap_bytes / MIB:.1f} MiB: held {watcher.peak_bytes / MIB:.1f} MiB")
    return found
