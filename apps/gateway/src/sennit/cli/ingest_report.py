"""The output of `platform put`: the dataset, and how its file was read."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sennit_core.text import escape_controls
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from elytra.client.ingest_report import IngestedDataset, IngestReport

__all__ = ["report_lines"]

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}
_FORMATS = {
    "csv": "CSV",
    "json": "JSON",
    "jsonl": "JSON Lines",
    "xlsx": "Excel",
    "parquet": "Parquet",
    "arrow": "Arrow file",
    "arrow-stream": "Arrow stream",
}
_ENTRIES = 12  # per section; `--json` prints all
_LABEL = 11
_WIDTH_MIN = 40


def report_lines(dataset: IngestedDataset) -> Iterator[str]:
    """Yield the lines of the report, wrapped to the terminal's width."""
    columns = dataset.schema.fields
    yield f"{dataset.name}: {_count(dataset.rows, 'row')}, {_count(len(columns), 'column')}"
    types = [f"{field.name} {field.type}" for field in columns]
    found = dataset.ingest
    if found is not None:
        yield from _block("read as", [", ".join(_layout(found))])
    yield from _block("columns", [", ".join(_some(types, " in all"))])
    if found is None:
        return
    yield from _block(
        "widened",
        _some(
            f"{each.column}: {each.old} to {each.new}{_line(each.line)}, value {each.value!r}"
            for each in found.widened
        ),
    )
    yield from _block(
        "renamed",
        _some(f"column {each.index + 1}: {each.old!r} to {each.new!r}" for each in found.renamed),
    )
    yield from _block(
        "note",
        _some(
            f"{each.column + ': ' if each.column else ''}{escape_controls(each.text)}{_line(each.line)}"
            for each in found.notes
        ),
    )


def _layout(found: IngestReport) -> Iterator[str]:
    yield _FORMATS.get(found.format, found.format)
    if found.compression:
        yield f"compressed with {found.compression}"
    if found.delimiter:
        yield f"delimiter {_DELIMITERS.get(found.delimiter, repr(found.delimiter))}"
    if found.header is not None:
        yield "with header" if found.header else "no header"
    if found.encoding:
        yield found.encoding
    yield format_bytes(found.bytes)


def _block(label: str, entries: Iterable[str]) -> Iterator[str]:
    """Yield each entry on separate lines, with the label before the first."""
    width = max(shutil.get_terminal_size().columns, _WIDTH_MIN)
    for index, entry in enumerate(entries):
        first = f"  {label if not index else '':{_LABEL - 2}}"
        yield textwrap.fill(
            entry,
            width,
            initial_indent=first,
            subsequent_indent=" " * _LABEL,
            break_on_hyphens=False,
        )


def _some(entries: Iterable[str], tail: str = "; --json has all") -> list[str]:
    """Return the first entries, and the total count if some are omitted."""
    found = list(entries)
    if len(found) <= _ENTRIES:
        return found
    return [*found[:_ENTRIES], f"… {len(found):,}{tail}"]


def _line(number: int | None) -> str:
    return "" if number is None else f", line {number:,}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
