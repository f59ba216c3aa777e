"""Parts of a relation: plans over files or objects whose rows, one part after the other, are its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from elytra.backends.ray.files import InputFile, with_sizes
from elytra.backends.ray.partitions import KEY, POSITION
from emsqrt.expr import Expr, col
from emsqrt.plan import Files, Plan, Project, Scan, Sort, SortKey, WithColumn, with_inputs
from sennit_core.schema import DataType, Field, Schema

__all__ = [
    "Part",
    "combined",
    "exchanged_schema",
    "groups",
    "in_position_order",
    "input_bytes",
    "over",
    "with_key",
]

_PARTS_MAX = 64


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a relation.

    Args:
        plan: What computes them, over inputs by name.
        files: Those that are files.
        pieces: Those in the object store.
    """

    plan: Plan
    files: Mapping[str, InputFile] = field(default_factory=dict)
    pieces: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def with_plan(self, plan: Plan) -> Part:
        """Return the part with another plan over the same inputs."""
        return replace(self, plan=plan)

    @classmethod
    def of_pieces(cls, schema: Schema, named: Mapping[str, Sequence[Any]]) -> Part:
        """Return the rows of objects, by the names of inputs, in this order."""
        return cls(Scan(Files(tuple(named), "arrow"), schema), {}, named)

    @classmethod
    def of_files(cls, schema: Schema, files: Sequence[InputFile]) -> Part:
        """Return the rows of Arrow files of this machine."""
        names = tuple(each.name for each in files)
        return cls(Scan(Files(names, "arrow"), schema), dict(zip(names, files, strict=True)))


def groups(paths: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """Return the files of a scan in at most `count` groups, or one, in order, each of which is a part."""
    most = max(1, min(count, _PARTS_MAX))  # all workers may just have left
    size = max(1, -(-len(paths) // most))
    return [tuple(paths[start : start + size]) for start in range(0, len(paths), size)]


def over(parts: Sequence[Part], node: Plan) -> list[Part]:
    """Return an operator of one input over each part."""
    return [part.with_plan(with_inputs(node, [part.plan])) for part in parts]


def combined(node: Plan, parts: Sequence[Part]) -> Part:
    """Return an operator over one part of each input."""
    files = {name: file for part in parts for name, file in part.files.items()}
    pieces = {name: each for part in parts for name, each in part.pieces.items()}
    return Part(with_inputs(node, [part.plan for part in parts]), files, pieces)


def with_key(part: Part, key: Expr) -> Part:
    """Return a part with the column by which its rows are partitioned."""
    return part.with_plan(WithColumn(part.plan, ((KEY, key),)))


def exchanged_schema(schema: Schema, *, position: bool) -> Schema:
    """Return the columns after an exchange of rows of this schema, which has the key."""
    fields = tuple(field for field in schema.fields if field.name != KEY)
    return Schema((*fields, Field(POSITION, DataType.parse("Int64"))) if position else fields)


def in_position_order(part: Part, names: Sequence[str]) -> Part:
    """Return the named columns of a part, whose rows are sorted by their positions."""
    rows = Sort(part.plan, (SortKey(col(POSITION)),))
    return part.with_plan(Project(rows, tuple((name, col(name)) for name in names)))


def input_bytes(parts: Sequence[Part]) -> int | None:
    """Return the size of the files that parts read; None if they also read objects."""
    if any(part.pieces for part in parts):
        return None
    files = {file.name: file for part in parts for file in part.files.values()}
    return sum(each.size or 0 for each in with_sizes([*files.values()]))
