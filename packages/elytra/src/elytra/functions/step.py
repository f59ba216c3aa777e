"""A Python function as an operator of a plan: `Custom(name="python")` with its text and how it is applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard, cast, get_args

from elytra.local.python_steps import BATCH_ROWS, BatchForm, Verb
from emsqrt.plan import Custom, Plan, walk
from sennit_core.errors import TooLarge, UsageError
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elytra.tracing.function import Shape

__all__ = [
    "EACH_ROW",
    "OPERATOR",
    "PROGRAM_BYTES_MAX",
    "FunctionLimits",
    "FunctionStep",
    "function_steps",
    "is_function",
]

OPERATOR = "python"
"""The name of such operators in a plan. No package registers it: an engine has it only while its caller
passes it (`emsqrt.operators.registry`), so the text of a plan alone never runs a function."""
PROGRAM_BYTES_MAX = 256 << 10
EACH_ROW: frozenset[Verb] = frozenset(("map", "flat_map", "filter"))
"""Verbs whose result for a row does not depend on other rows, so that a function runs at each shard."""
_LABEL_MAX = 200
_BATCH_ROWS_MAX = 1 << 20
_SHAPES = ("row", "tuple", "value")


@dataclass(frozen=True, slots=True)
class FunctionLimits:
    """What the functions of one task may use.

    Args:
        memory_bytes: Memory of the process of a function, in addition to Python and its libraries.
        seconds: Time that a task waits for the function, all rows together.
    """

    memory_bytes: int = 256 << 20
    seconds: float = 600.0

    def to_json(self) -> dict[str, Any]:
        """Return the limits for an executor."""
        return {"memoryBytes": self.memory_bytes, "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class FunctionStep:
    """One function of a plan; an instance is always valid, and its program is only text.

    Args:
        verb: The verb of the pipeline.
        program: Python source that defines `function`, and `initial` for a reduce that has one.
        label: Names the step in errors and in `explain`.
        shape: The form in which the function receives a row.
        result_shape: The form of what it returns.
        batch_rows: Rows that a function of `map_batches` receives at once.
        form: The form of such a batch.

    Raises:
        UsageError: A value has another type, or is out of its range.
        TooLarge: The program has more than 256 KiB.
    """

    verb: Verb
    program: str
    label: str
    shape: Shape = "row"
    result_shape: Shape = "row"
    batch_rows: int = BATCH_ROWS
    form: BatchForm = "arrow"

    def __post_init__(self) -> None:
        _one_of("verb", self.verb, get_args(Verb))
        _one_of("form", self.form, get_args(BatchForm))
        _one_of("shape", self.shape, _SHAPES)
        _one_of("resultShape", self.result_shape, _SHAPES)
        if not isinstance(self.program, str) or not isinstance(self.label, str):
            raise UsageError("a Python function of a plan has a program and a label, both texts")
        try:
            size = len(self.program.encode())
        except UnicodeEncodeError:
            raise UsageError("the program of a Python function is not Unicode text") from None
        if size > PROGRAM_BYTES_MAX:
            raise TooLarge(
                "the text of a Python function with the values that it uses",
                PROGRAM_BYTES_MAX,
                size,
                hint="upload large values as a dataset, and join it",
            )
        if not 0 < len(self.label) <= _LABEL_MAX or not self.label.isprintable():
            raise UsageError(
                f"the label of a Python function is not a line of {_LABEL_MAX} characters"
            )
        rows = self.batch_rows
        if isinstance(rows, bool) or not isinstance(rows, int) or not 0 < rows <= _BATCH_ROWS_MAX:
            raise UsageError(
                f"map_batches(batch_rows={rows!r}) is not from 1 to {_BATCH_ROWS_MAX:,}"
            )

    @property
    def is_of_each_row(self) -> bool:
        """Whether the result for a row does not depend on other rows."""
        return self.verb in EACH_ROW

    def over(self, plan: Plan, schema: Schema) -> Custom:
        """Return the operator that applies the function to the rows of a plan.

        Args:
            plan: The rows.
            schema: The columns of what the function returns; a filter's are those of its rows.
        """
        return Custom((plan,), OPERATOR, self.to_json(), None if self.verb == "filter" else schema)

    def to_json(self) -> dict[str, Any]:
        """Return the options of the operator."""
        return {
            "verb": self.verb,
            "program": self.program,
            "label": self.label,
            "shape": self.shape,
            "resultShape": self.result_shape,
            "batchRows": self.batch_rows,
            "form": self.form,
        }

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> FunctionStep:
        """Read the options of an operator, which anyone may have written; raises as the class."""
        expected = {"verb", "program", "label", "shape", "resultShape", "batchRows", "form"}
        if set(options) != expected:
            raise UsageError(
                f"a Python function of a plan has the options {', '.join(sorted(expected))}",
                hint="write the pipeline with elytra, which writes them",
            )
        return cls(
            verb=options["verb"],
            program=options["program"],
            label=options["label"],
            shape=options["shape"],
            result_shape=options["resultShape"],
            batch_rows=options["batchRows"],
            form=options["form"],
        )


def is_function(node: Plan) -> TypeGuard[Custom]:
    """Return whether an operator is a Python function."""
    return isinstance(node, Custom) and node.name == OPERATOR


def function_steps(plan: Plan) -> list[FunctionStep]:
    """Return the Python functions of a plan; UsageError if the options of one are not valid."""
    found = []
    for node in walk(plan):
        if not is_function(node):
            continue
        step = FunctionStep.from_json(node.options)
        if len(node.inputs) != 1:
            raise UsageError(f"{step.label}: a Python function reads the rows of one step")
        if (node.schema is None) != (step.verb == "filter"):
            raise UsageError(f"{step.label}: the columns of its result are missing, or not its own")
        found.append(step)
    return found


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(
            f"the option {name} of a Python function is {cast('str', value)!r:.100}, "
            f"not one of {', '.join(known)}"
        )
