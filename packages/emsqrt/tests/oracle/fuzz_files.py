"""Tables laid down as files in many ways: parts, page encodings, codecs, dialects, other columns."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_oracle import rows_of
from fuzz_runs import csv_field, json_value

from sennit_core.schema import DataType, Schema

BINARY = ("parquet", "arrow")
TEXT = ("csv", "jsonl")


@dataclass(frozen=True, slots=True)
class Files:
    """How one table is stored in files, all of it drawn by a seed.

    Args:
        kind: parquet, arrow, csv or jsonl.
        name: the files' stem.
        seed: any number.
        plain: one file, written as the engine would.
    """

    kind: str
    name: str
    seed: int
    plain: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """The parts, in order."""
        dice = random.Random(self.seed)
        parts = 1 if self.plain else dice.choice((1, 1, 2, 3))
        packed = dice.choice(("", "", "", ".gz", ".zst")) if self.kind in TEXT else ""
        ending = f".{self.kind}{'' if self.plain else packed}"
        return tuple(f"{self.name}{at or ''}{ending}" for at in range(parts))

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that a scan needs."""
        if self.plain or self.kind != "csv":
            return {}
        dialects: tuple[dict[str, Any], ...] = (
            {},
            {},
            {"delimiter": "|"},
            {"delimiter": "\t"},
            {"nullValues": ["", "\\N"]},
        )
        return dict(random.Random(self.seed + 1).choice(dialects))

    def write(self, table: pa.Table, schema: Schema, folder: Path) -> None:
        """Write the parts of a table, some of which may be empty."""
        dice = random.Random(self.seed + 2)
        ends = sorted(dice.choice((0, dice.randint(0, table.num_rows))) for _ in self.paths[1:])
        bounds = zip([0, *ends], [*ends, table.num_rows], strict=True)
        for path, (start, end) in zip(self.paths, bounds, strict=True):
            part = table.slice(start, end - start)
            match self.kind:
                case "parquet":
                    _write_parquet(part, folder / path, dice, plain=self.plain)
                case "arrow":
                    _write_arrow(part, folder / path, dice)
                case "jsonl":
                    _write_text(_lines(part, schema, dice), folder / path)
                case _:
                    _write_text(_records(part, schema, self.options, dice), folder / path)


def _write_parquet(table: pa.Table, path: Path, dice: random.Random, *, plain: bool) -> None:
    if not plain:
        table = table.select(dice.sample(table.column_names, len(table.column_names)))
    pq.write_table(
        table,
        path,
        row_group_size=dice.choice((7 if table.num_rows < 300 else 300, 1000, 4096, 100_000)),
        data_page_size=dice.choice((1 << 10, 1 << 14, 1 << 20)),
        use_dictionary=dice.choice((True, True, False)),
        dictionary_pagesize_limit=dice.choice((1 << 10, 1 << 20)),
        data_page_version=dice.choice(("1.0", "2.0")),
        compression=dice.choice(("snappy", "zstd", "none", "gzip", "lz4")),
        write_statistics=dice.choice((True, True, False)),
        store_schema=dice.choice((True, False)),
    )


def _write_arrow(table: pa.Table, path: Path, dice: random.Random) -> None:
    options = pa.ipc.IpcWriteOptions(compression=dice.choice((None, None, "lz4", "zstd")))
    opened = dice.choice((pa.ipc.new_file, pa.ipc.new_file, pa.ipc.new_stream))
    with opened(str(path), table.schema, options=options) as arrow:
        for batch in table.to_batches(max_chunksize=dice.choice((10, 500, 3000))):
            arrow.write_batch(batch)
            if dice.random() < 0.1:
                arrow.write_batch(batch.slice(0, 0))


def _lines(table: pa.Table, schema: Schema, dice: random.Random) -> str:
    leaves_out, ending = dice.random() < 0.5, dice.choice(("\n", "\n", "\r\n"))
    fields = list(zip(range(len(schema)), schema, strict=True))
    if dice.random() < 0.5:
        dice.shuffle(fields)
    gap = dice.choice((", ", ","))
    lines = []
    for row in rows_of(table):
        line = {
            field.name: json_value(row[at], field.type)
            for at, field in fields
            if not (leaves_out and row[at] is None)
        }
        text = json.dumps(line, ensure_ascii=leaves_out, separators=(gap, ": "))
        lines.append(text.replace("\u2028", "\\u2028") + ending)
    return "".join(lines)


def _records(
    table: pa.Table, schema: Schema, options: Mapping[str, Any], dice: random.Random
) -> str:
    ending, mark = dice.choice(("\n", "\n", "\r\n")), dice.choice(("", "", "\ufeff"))
    delimiter = options.get("delimiter", ",")
    null = dice.choice(options.get("nullValues", ("",)))
    always = dice.random() < 0.5
    types = [field.type for field in schema]
    lines = [mark + delimiter.join(schema.names)]
    for row in rows_of(table):
        fields = map(csv_field, row, types)
        texts = [null if value is None else text for value, text in zip(row, fields, strict=True)]
        if not always:
            texts = [
                _bare(text, delimiter, options, kind)
                for text, kind in zip(texts, types, strict=True)
            ]
        lines.append(delimiter.join(texts))
    return (
        ending.join([*lines, ""]) if dice.random() < 0.7 or len(schema) == 1 else ending.join(lines)
    )


def _bare(text: str, delimiter: str, options: Mapping[str, Any], kind: DataType) -> str:
    """Remove quotes from a field that means the same without them."""
    if kind.name != "Utf8" or not text.startswith('"'):
        return text
    inner = text[1:-1]
    odd = any(mark in inner for mark in (delimiter, '"', "\n", "\r", "\ufeff"))
    return text if odd or inner in ("", *options.get("nullValues", ())) else inner


def _write_text(text: str, path: Path) -> None:
    data = text.encode("utf-8")
    if path.suffix == ".gz":
        half = len(data) // 2
        data = gzip.compress(data[:half]) + gzip.compress(data[half:])
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as packed:
            packed.write(data)
        return
    path.write_bytes(data)
