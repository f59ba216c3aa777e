"""A JavaScript function as an operator of a plan: `Custom(name="javascript")` with its text and how it is applied.

No engine of a node has this operator: only tabs of users who run functions of others do, in a frame
that reaches nothing ([design 0222](../../../../../design/0222-functions-of-others-in-tabs.md)).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeGuard, cast, get_args

from elytra.errors import StepFailed
from emsqrt.plan import Custom, Plan, walk
from sennit_core.errors import TooLarge, UsageError
from sennit_core.schema import Schema

__all__ = [
    "JAVASCRIPT",
    "JAVASCRIPT_BYTES_MAX",
    "JavascriptStep",
    "function_failed",
    "is_javascript",
    "javascript_steps",
    "why_not_in_javascript",
]

JAVASCRIPT = "javascript"
"""The name of such operators in a plan. No package registers it."""
JAVASCRIPT_BYTES_MAX = 64 << 10
"""Of a text, which is part of every task of its job."""
_LABEL_MAX = 200
_SHOWN_MAX = 500
"""Characters that a job's error shows of what a worker says."""
_COLUMNS_MAX = 1000
# The types of `packages/elytra/js/src/engine/types.ts`: others have no form in buffers of a sandbox.
_TYPES = re.compile(
    r"Bool|U?Int(8|16|32|64)|Float(32|64)|Utf8|Date|Timestamp\((s|ms|us|ns)(,[^()]+)?\)"
)
_Verb: TypeAlias = Literal["map", "filter"]
_Shape: TypeAlias = Literal["row", "tuple", "value"]


@dataclass(frozen=True, slots=True)
class JavascriptStep:
    """One JavaScript function of a plan; an instance is always valid, and its program is only text.

    Args:
        verb: "map" or "filter": the result for a row does not depend on other rows.
        program: An expression whose value is the function.
        label: Names the step in errors and in `explain`.
        shape: The form in which the function receives a row.
        returns_value: Whether it returns the value of the only column, instead of an object of columns.

    Raises:
        UsageError: A value has another type, or is out of its range.
        TooLarge: The program has more than 64 KiB.
    """

    verb: _Verb
    program: str
    label: str
    shape: _Shape = "row"
    returns_value: bool = False

    def __post_init__(self) -> None:
        _one_of("verb", self.verb, get_args(_Verb))
        _one_of("shape", self.shape, get_args(_Shape))
        if not isinstance(self.returns_value, bool):
            raise UsageError("the option returnsValue of a JavaScript function is not a boolean")
        if not isinstance(self.program, str) or not isinstance(self.label, str):
            raise UsageError(
                "a JavaScript function of a plan has a program and a label, both texts"
            )
        try:
            size = len(self.program.encode())
        except UnicodeEncodeError:
            raise UsageError("the program of a JavaScript function is not Unicode text") from None
        if size > JAVASCRIPT_BYTES_MAX:
            raise TooLarge(
                "the text of a JavaScript function with the values that it uses",
                JAVASCRIPT_BYTES_MAX,
                size,
                hint="upload large values as a dataset, and join it",
            )
        if not 0 < len(self.label) <= _LABEL_MAX or not self.label.isprintable():
            raise UsageError(
                f"the label of a JavaScript function is not a line of {_LABEL_MAX} characters"
            )

    def over(self, plan: Plan, schema: Schema) -> Custom:
        """Return the operator that applies the function to the rows of a plan.

        Args:
            plan: The rows.
            schema: The columns of what the function returns; a filter's are those of its rows.
        """
        return Custom(
            (plan,), JAVASCRIPT, self.to_json(), None if self.verb == "filter" else schema
        )

    def to_json(self) -> dict[str, Any]:
        """Return the options of the operator."""
        return {
            "verb": self.verb,
            "program": self.program,
            "label": self.label,
            "shape": self.shape,
            "returnsValue": self.returns_value,
        }

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> JavascriptStep:
        """Read the options of an operator, which anyone may have written; raises as the class."""
        expected = {"verb", "program", "label", "shape", "returnsValue"}
        if set(options) != expected:
            raise UsageError(
                f"a JavaScript function of a plan has the options {', '.join(sorted(expected))}",
                hint="write the pipeline with @sennit/elytra, which writes them",
            )
        return cls(
            verb=options["verb"],
            program=options["program"],
            label=options["label"],
            shape=options["shape"],
            returns_value=options["returnsValue"],
        )


def is_javascript(node: Plan) -> TypeGuard[Custom]:
    """Return whether an operator is a JavaScript function."""
    return isinstance(node, Custom) and node.name == JAVASCRIPT


def javascript_steps(plan: Plan) -> list[JavascriptStep]:
    """Return the JavaScript functions of a plan; UsageError if the options of one are not valid."""
    found = []
    for node in walk(plan):
        if not is_javascript(node):
            continue
        step = JavascriptStep.from_json(node.options)
        if len(node.inputs) != 1:
            raise UsageError(f"{step.label}: a JavaScript function reads the rows of one step")
        if (node.schema is None) != (step.verb == "filter"):
            raise UsageError(f"{step.label}: the columns of its result are missing, or not its own")
        if node.schema is not None:
            _check_columns(step, node.schema)
        found.append(step)
    return found


def why_not_in_javascript(schema: Schema) -> str | None:
    """Return the first column with values that a JavaScript function cannot receive or return."""
    for field in schema.fields:
        if _TYPES.fullmatch(str(field.type)) is None:
            return f"column {field.name!r:.100} has the type {field.type!s:.100}"
    return None


def function_failed(label: str, code: str, message: str) -> StepFailed:
    """Return the error of a task with functions that a worker has failed.

    Args:
        label: Of the first function.
        code: What the worker says is the kind of failure.
        message: What it says has happened: any text.
    """
    shown = "".join(each if each.isprintable() else " " for each in message[:_SHOWN_MAX])
    return StepFailed(label, f"a worker reports {code!r:.50}: {shown}")


def _check_columns(step: JavascriptStep, schema: Schema) -> None:
    if not 0 < len(schema.fields) <= _COLUMNS_MAX:
        raise UsageError(f"{step.label}: its result has from 1 to {_COLUMNS_MAX:,} columns")
    if step.returns_value and len(schema.fields) != 1:
        raise UsageError(f"{step.label}: a function that returns a value has one column")
    if (reason := why_not_in_javascript(schema)) is not None:
        raise UsageError(f"{step.label}: {reason}, which no JavaScript function returns")
    if not all(field.nullable for field in schema.fields):
        raise UsageError(f"{step.label}: each of its columns may have NULL, as a function decides")


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(
            f"the option {name} of a JavaScript function is {cast('str', value)!r:.100}, "
            f"not one of {', '.join(known)}"
        )
