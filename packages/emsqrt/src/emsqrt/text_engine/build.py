"""Create the operators of a text program; operators that few programs need are imported lazily."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from emsqrt.execution_context import ExecutionContext
from emsqrt.io.csv_options import CsvOptions
from emsqrt.metering import Meter
from emsqrt.text_engine.scan import ScanText, open_sources
from emsqrt.text_engine.steps import LimitText, RenameText, SelectText, UnionText
from emsqrt.text_engine.text import Block, TextRows
from sennit_core.schema import DataType, Field, Schema

Step = Mapping[str, Any]


class MeteredText:
    """An operator that counts its blocks."""

    def __init__(self, rows: TextRows, meter: Meter) -> None:
        self.schema = rows.schema
        self.dialect = rows.dialect
        self.passes_on = self._rows = rows
        self._meter = meter

    @property
    def rows(self) -> int:
        """The number of records that the consumer has parsed so far."""
        return self._rows.rows

    @rows.setter
    def rows(self, count: int) -> None:
        self._rows.rows = count
        self._meter.rows = count

    def blocks(self) -> Generator[Block]:
        """Yield the operator's blocks."""
        return self._meter.watch(self._rows.blocks(), _measure)


def _measure(block: Block) -> tuple[int, int]:
    return block.rows, len(block.data)  # 0 if only the consumer can count them


def load_operators(steps: Sequence[Step]) -> None:
    """Import the code that a program needs, so that admission counts its memory."""
    for step in steps:
        for module in _MODULES.get(step["op"], ()):
            import_module(module)
        if step.get("format") == "jsonl":
            import_module("emsqrt.text_engine.jsonl")


def build(steps: Sequence[Step], run: ExecutionContext) -> TextRows:
    """Return the operator at the end of a program's steps.

    Args:
        steps: in postfix order, as written by `emsqrt.text_engine.compile`.
        run: shared by the operators.

    Raises:
        CapTooSmall: the budget is too small for reading.
    """
    # A program in postfix order is a stack machine:
    #
    #     scan A, scan B, join, sort      [A]  [A, B]  [join]  [sort]
    stack: list[TextRows] = []
    # A plan node may have several steps; the last one of the dict is its output.
    tops = {step["node"]: id(step) for step in steps if "node" in step}
    for step in steps:
        first = len(stack) - _inputs_of(step)
        inputs, stack[first:] = stack[first:], []
        stack.append(_metered(_BUILDERS[step["op"]], step, inputs, run, tops))
    (rows,) = stack
    return rows


def _metered(
    builder: Callable[[Step, Sequence[TextRows], ExecutionContext], TextRows],
    step: Step,
    inputs: Sequence[TextRows],
    run: ExecutionContext,
    tops: Mapping[int, int],
) -> TextRows:
    """Build a step under its node; the meter counts the output of a node's last step."""
    node = step.get("node")
    if node is None or not run.knows(node):
        return builder(step, inputs, run)
    view = run.view(node)
    rows = builder(step, inputs, view)
    return MeteredText(rows, view.meter) if tops[node] == id(step) else rows


def _inputs_of(step: Step) -> int:
    """Return the number of inputs that a step pops off the stack."""
    match step["op"]:
        case "scan":
            return 0
        case "join":
            return 2
        case "union":
            return int(step["inputs"])
        case _:
            return 1


def _scan(step: Step, _: Sequence[TextRows], run: ExecutionContext) -> TextRows:
    fields = (Field(name, DataType.parse(of)) for name, of in step["fields"])
    sources = open_sources(step["paths"], Path())
    schema = Schema(tuple(fields))
    if step["format"] == "jsonl":
        from emsqrt.io.json_lines import JsonlOptions
        from emsqrt.text_engine.jsonl import ScanJsonl

        return ScanJsonl(sources, JsonlOptions.from_json(step["options"]), schema, run)
    return ScanText(sources, CsvOptions.from_json(step["options"]), schema, run)


def _write_jsonl(_: Step, inputs: Sequence[TextRows], run: ExecutionContext) -> TextRows:
    from emsqrt.text_engine.jsonl import WriteJsonl

    return WriteJsonl(inputs[0], run)


def _aggregate(step: Step, inputs: Sequence[TextRows], run: ExecutionContext) -> TextRows:
    from emsqrt.text_engine.aggregate import AggregateText

    return AggregateText(inputs[0], step, run)


def _compute(step: Step, inputs: Sequence[TextRows], run: ExecutionContext) -> TextRows:
    from emsqrt.text_engine.compute import ComputeText

    return ComputeText(
        inputs[0],
        step["reads"],
        step["programs"],
        step["order"],
        step["fields"],
        run,
        step.get("nullValues", ("",)),
    )


def _filter(step: Step, inputs: Sequence[TextRows], run: ExecutionContext) -> TextRows:
    from emsqrt.text_engine.compute import FilterText

    return FilterText(inputs[0], step["reads"], step["program"], run)


def _join(step: Step, inputs: Sequence[TextRows], run: ExecutionContext) -> TextRows:
    from emsqrt.text_engine.join import JoinText

    return JoinText(inputs[0], inputs[1], step["on"], step["how"], step["dropped"], run)


def _sort(step: Step, inputs: Sequence[TextRows], run: ExecutionContext) -> TextRows:
    from emsqrt.text_engine.sort import SortText

    return SortText(inputs[0], [tuple(key) for key in step["keys"]], run, step["limit"])


def _select(step: Step, inputs: Sequence[TextRows], run: ExecutionContext) -> TextRows:
    columns = step["columns"]
    chosen = columns and [(new, old) for new, old in columns]
    return SelectText(inputs[0], chosen, run, step.get("instead", {}))


def _rename(step: Step, inputs: Sequence[TextRows], _: ExecutionContext) -> TextRows:
    before = inputs[0].schema
    fields = (Field(name, field.type) for name, field in zip(step["names"], before, strict=True))
    return RenameText(inputs[0], Schema(tuple(fields)))


_BUILDERS: dict[str, Callable[[Step, Sequence[TextRows], ExecutionContext], TextRows]] = {
    "aggregate": _aggregate,
    "compute": _compute,
    "filter": _filter,
    "join": _join,
    "limit": lambda step, inputs, run: LimitText(inputs[0], step["count"], step["skip"], run),
    "rename": _rename,
    "scan": _scan,
    "select": _select,
    "sort": _sort,
    "jsonl": _write_jsonl,
    "union": lambda _, inputs, __: UnionText(inputs),
}

_MODULES = {
    "aggregate": ("emsqrt.text_engine.aggregate",),
    "compute": ("emsqrt.text_engine.compute",),
    "filter": ("emsqrt.text_engine.compute",),
    "join": ("emsqrt.text_engine.join",),
    "sort": ("emsqrt.text_engine.sort",),
    "jsonl": ("emsqrt.text_engine.jsonl",),
}
"""Modules that the builders above import lazily."""
