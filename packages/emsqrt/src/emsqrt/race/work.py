"""The job of a race: tables, the query as SQL, and as arguments of `emsqrt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sennit_core.errors import UsageError
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.pipeline import Pipeline

VERBS = ("sort", "join", "agg")
_SUMS_MAX = 2
_NUMBERS = ("Int", "UInt", "Float", "Decimal")


@dataclass(frozen=True, slots=True)
class RaceQuery:
    """A query and its result's format.

    Args:
        title: one line of text.
        tables: the files by their names in `sql`.
        sql: the query; double quotes around names.
        words: the arguments for `emsqrt`; `{target}` is the output path.
        suffix: `.csv` or `.parquet`, of the output.
        schema: the columns of the output.
        keys: (column, descending) that the output is sorted by; empty where any order is correct.
        types: SQL types of a table's columns, which override a reader's guesses.
        exact: whether answers have few rows, to be compared to the last digit and in order.
    """

    title: str
    tables: Mapping[str, Path]
    sql: str
    words: Sequence[str]
    suffix: str
    schema: Schema
    keys: Sequence[tuple[str, bool]] = ()
    types: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    exact: bool = False

    @property
    def source(self) -> Path:
        """The first table's file."""
        return next(iter(self.tables.values()))

    @property
    def is_sort(self) -> bool:
        """Whether the output has the same records as the input, in another order."""
        return self.words[0] == "sort"


def work_for(
    verb: str,
    source: Path,
    by: Sequence[str] = (),
    *,
    right: Path | None = None,
    aggs: Sequence[str] = (),
) -> RaceQuery:
    """Return the job of a command over a file.

    Args:
        verb: `sort`, `join` or `agg`.
        source: CSV or Parquet.
        by: keys, `name` or, in a sort, `name:desc`; the first column when empty.
        right: the file to join with; the file itself when None.
        aggs: such as `sum(amount)`; count(*) and the sums of two numbers when empty.

    Raises:
        UsageError: an unknown command, or a file that not all peers can read.
    """
    from emsqrt.pipeline import scan

    for path in (source, right or source):
        if path.suffix not in (".csv", ".parquet"):
            raise UsageError(f"{path} is neither .csv nor .parquet, which all engines read")
    rows = scan(str(source))
    keys = list(by) or [rows.schema().names[0]]
    if verb == "sort":
        return sorting(rows, source, keys)
    if verb == "agg":
        return grouping(rows, source, keys, aggs)
    if verb == "join":
        return joining(rows, source, keys, right or source)
    raise UsageError(f"there is no race of {verb!r}; there are {', '.join(VERBS)}")


def sorting(rows: Pipeline, source: Path, keys: Sequence[str]) -> RaceQuery:
    """Return the job of sorting a whole file."""
    split = [key.partition(":")[::2] for key in keys]
    if odd := [
        key for key, (_, way) in zip(keys, split, strict=True) if way not in ("", "asc", "desc")
    ]:
        raise UsageError(f"the key {odd[0]!r} is neither a name nor name:desc")
    order = [(name, way == "desc") for name, way in split]
    schema = rows.sort(*keys).schema()
    clauses = (f"{quoted(name)} {'DESC' if down else 'ASC'} NULLS LAST" for name, down in order)
    return RaceQuery(
        title=f"sort {source.name} by {', '.join(keys)}",
        tables={"l": source},
        sql=f"SELECT * FROM l ORDER BY {', '.join(clauses)}",
        words=["sort", str(source), "{target}", "--by", ",".join(keys)],
        suffix=source.suffix,
        schema=schema,
        keys=order,
    )


def grouping(rows: Pipeline, source: Path, keys: Sequence[str], aggs: Sequence[str]) -> RaceQuery:
    """Return the job of grouping a file."""
    if not aggs:
        numbers = [
            each.name
            for each in rows.schema()
            if each.name not in keys and str(each.type).startswith(_NUMBERS)
        ]
        aggs = ["count(*)", *(f"sum({name})" for name in numbers[:_SUMS_MAX])]
    named = {f"a{at}": call for at, call in enumerate(aggs, 1)}
    columns = [*map(quoted, keys), *(f"{call} AS {name}" for name, call in named.items())]
    grouped = rows.group_by(*keys).agg(**named)
    return RaceQuery(
        title=f"agg {source.name} by {', '.join(keys)}: {', '.join(aggs)}",
        tables={"l": source},
        sql=f"SELECT {', '.join(columns)} FROM l GROUP BY {', '.join(map(quoted, keys))}",
        words=[
            *("agg", str(source), "{target}", "--by", ",".join(keys)),
            *(f"{name}={call}" for name, call in named.items()),
        ],
        suffix=source.suffix,
        schema=grouped.schema(),
    )


def joining(rows: Pipeline, source: Path, keys: Sequence[str], right: Path) -> RaceQuery:
    """Return the job of joining two files, all columns of both."""
    from emsqrt.pipeline import scan

    other = scan(str(right))
    schema = rows.join(other, on=[(key, key) for key in keys]).schema()
    left_names = rows.schema().names
    right_names = [name for name in other.schema().names if name not in keys]
    new = schema.names[len(left_names) :]
    columns = [f"l.{quoted(name)}" for name in left_names]
    columns += [
        f"r.{quoted(old)} AS {quoted(name)}" for old, name in zip(right_names, new, strict=True)
    ]
    on = " AND ".join(f"l.{quoted(key)} = r.{quoted(key)}" for key in keys)
    return RaceQuery(
        title=f"join {source.name} with {right.name} on {', '.join(keys)}",
        tables={"l": source, "r": right},
        sql=f"SELECT {', '.join(columns)} FROM l JOIN r ON {on}",
        words=["join", str(source), str(right), "{target}", "--on", ",".join(keys)],
        suffix=source.suffix,
        schema=schema,
    )


def quoted(name: str) -> str:
    """Return a name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'
