"""A plan as text for people: one line an operator, the sink on top."""

from __future__ import annotations

from emsqrt.plan.nodes import (
    Aggregate,
    DatasetRef,
    Files,
    FileTarget,
    Filter,
    Limit,
    Named,
    NamedAgg,
    Plan,
    Project,
    Rename,
    Scan,
    Sink,
    StreamTarget,
    WithColumn,
    chain,
)


def explain(plan: Plan) -> str:
    """Return the operators of `plan` from the last to the scan, each below its reader."""
    nodes = reversed(chain(plan))
    return "\n".join(f"{'  ' * depth}{_line(node)}" for depth, node in enumerate(nodes))


def _line(node: Plan) -> str:
    match node:
        case Scan(source, _, columns):
            return f"scan {_source(source)}" + (f" [{', '.join(columns)}]" if columns else "")
        case Filter(predicate=predicate):
            return f"filter {predicate!s}"
        case Project(columns=columns):
            return f"project {_named(columns)}"
        case WithColumn(columns=columns):
            return f"with_column {_named(columns)}"
        case Rename(names=names):
            return f"rename {', '.join(f'{old} as {new}' for old, new in names)}"
        case Aggregate(keys=keys, aggs=aggs, phase=phase):
            word = "" if phase == "full" else f" {phase}"
            by = f" by {_named(keys)}" if keys else ""
            return f"aggregate{word} {_named(aggs)}{by}"
        case Limit(count=count, offset=offset):
            return f"limit {count}" + (f" offset {offset}" if offset else "")
        case Sink(target=FileTarget(path, format)):
            return f"sink {format} {path}"
        case Sink(target=StreamTarget(format)):
            return f"sink {format} stream"
    raise AssertionError(f"not a plan node: {type(node).__name__}")


def _source(source: Files | DatasetRef) -> str:
    if isinstance(source, DatasetRef):
        return f"dataset {source.dataset}" + (f" at {source.snapshot}" if source.snapshot else "")
    more = len(source.paths) - 1
    return f"{source.format} {source.paths[0]}" + (f" and {more} more" if more else "")


def _named(columns: tuple[Named, ...] | tuple[NamedAgg, ...]) -> str:
    return ", ".join(name if str(expr) == name else f"{expr!s} as {name}" for name, expr in columns)
