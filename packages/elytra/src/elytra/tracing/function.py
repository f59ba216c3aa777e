"""Trace Python functions of a row into expressions; the functions never run on data.

A function is called with placeholders: a dict of columns, a tuple, or one value. Placeholders
cannot detect `is`, `isinstance`, `try` and randomness, so the expression would silently differ from
the function. Therefore the bytecode is checked for these first, and the function is called twice
and must build the same expression both times.
"""

from __future__ import annotations

import builtins
import dis
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Literal, TypeAlias

from elytra.tracing.terms import EXPRESSION_HINT, Trace
from elytra.tracing.values import CONSTANTS, Value, value_of
from emsqrt.expr import Agg, Column, Expr, lit
from emsqrt.expr.walk import same
from sennit_core.errors import SennitError, UnknownColumn, Unsupported
from sennit_core.schema import Schema

Shape: TypeAlias = Literal["row", "value", "tuple"]
"""The form in which a function receives a row: a dict of its columns, one value, or a tuple."""

# They look at an object's type or identity, or at names, without using an operator that a
# placeholder could record.
_BLIND_BUILTINS = (
    *("isinstance", "issubclass", "type", "id", "callable", "hasattr", "vars", "dir"),
    *("globals", "locals", "eval", "exec"),
)
# The instructions that look a name up in the module; LOAD_NAME is that of class bodies.
_LOADS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
_IDENTITY_HINT = "write v == None for v is None, and v != None for v is not None"


class PlaceholderRow(dict[str, Value]):
    """A row as a dict; columns are also attributes, as in `r.price`."""

    def __init__(self, trace: Trace) -> None:
        super().__init__((name, value_of(trace, Column(name))) for name in trace.schema.names)
        self._trace = trace

    def __missing__(self, name: object) -> Value:
        if not isinstance(name, str):
            raise self._trace.refuse(
                f"a row has no column {name!r}", f"its columns are {', '.join(self)}: r.name"
            )
        raise self._trace.fail(UnknownColumn(name, known=self._trace.schema.names))

    def __getattr__(self, name: str) -> Value:
        # Python and its libraries look for optional special methods, which must be absent; raising
        # UnknownColumn for them would record a refusal.
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


@dataclass(frozen=True)
class Traced:
    """The expressions that a function builds from a row.

    Args:
        shape: The shape of what it returns.
        columns: Names and expressions: the keys of a dict, `_0 _1 …` for a tuple, one for a value.
    """

    shape: Shape
    columns: tuple[tuple[str, Expr], ...]


def trace_map(fn: Callable[[Any], object], schema: Schema, shape: Shape) -> Traced:
    """Trace a function that returns a new row: one value, a tuple, or a dict.

    Args:
        fn: A function of one row.
        schema: The row's columns.
        shape: The form in which the function receives a row.

    Raises:
        Unsupported: The function does something that cannot be traced; the message names it.
        UnknownColumn: The function reads a column that does not exist.
    """
    return _stable(fn, lambda: _returned(*_run(fn, schema, shape)))


def trace_value(fn: Callable[[Any], object], schema: Schema, shape: Shape) -> Expr:
    """Trace a function that returns one value or one aggregate; raises as `trace_map`."""
    traced = trace_map(fn, schema, shape)
    if traced.shape != "value":
        raise Unsupported(
            f"this function returns a {traced.shape}, where one value is needed",
            hint="pass several functions or columns instead",
        )
    return traced.columns[0][1]


def trace_condition(fn: Callable[[Any], object], schema: Schema, shape: Shape) -> Expr:
    """Trace a function that selects rows; raises as `trace_map`."""

    def condition() -> Traced:
        trace, returned = _run(fn, schema, shape)
        if isinstance(returned, Value):
            term = returned.sennit_term
            if term.family != "bool":
                raise trace.refuse(
                    f"a condition is {term.text}, which is {term.kind} and not Bool",
                    "write the comparison explicitly, such as v != 0",
                )
            # `expr`, not `definite`: in a filter NULL counts as false, and statistics can prune by
            # the short form.
            return Traced("value", (("condition", term.expr),))
        if isinstance(returned, Expr):
            return Traced("value", (("condition", returned),))
        if returned is not None and not isinstance(returned, (*CONSTANTS, dict, tuple, list)):
            raise trace.refuse(f"a condition returned {type(returned).__name__}")
        # A constant counts by its truth, as in Python's `filter`.
        return Traced("value", (("condition", lit(bool(returned))),))

    return _stable(fn, condition).columns[0][1]


def placeholder_row(trace: Trace, shape: Shape) -> Any:
    """Return the placeholder that a function receives instead of a row."""
    if shape == "row":
        return PlaceholderRow(trace)
    values = tuple(value_of(trace, Column(name)) for name in trace.schema.names)
    return values if shape == "tuple" else values[0]


def call_traced(trace: Trace, fn: Callable[..., object], *arguments: Any) -> object:
    """Call a function with placeholders and return its result.

    Raises:
        Unsupported: It fails, or does something that placeholders cannot detect.
    """
    check_traceable(fn)
    try:
        returned = fn(*arguments)
    except SennitError:
        raise
    except Exception as problem:
        if trace.refusal is not None:
            raise trace.refusal from problem
        raise Unsupported(
            f"this function cannot be traced: {type(problem).__name__}: {problem}",
            hint=EXPRESSION_HINT,
        ) from problem
    # Also when the function returned: it may have caught the refusal.
    if trace.refusal is not None:
        raise trace.refusal
    return returned


def check_traceable(fn: Callable[..., object]) -> None:
    """Refuse a function whose code does something that placeholders cannot detect."""
    for code in _codes(fn, set()):
        for instruction in dis.get_instructions(code):
            name = instruction.opname
            # `x is None` is compiled to IS_OP, or with a branch to one jump such as
            # POP_JUMP_IF_NONE.
            if name == "IS_OP" or name.endswith(("_NONE", "_NOT_NONE")):
                raise Unsupported("`is` in a function cannot be traced", hint=_IDENTITY_HINT)
            # Every exception handler begins with it. Whether it runs depends on a row's values, of
            # which a placeholder has none.
            if name == "PUSH_EXC_INFO":
                raise Unsupported(
                    "try and with in a function cannot be traced", hint=EXPRESSION_HINT
                )
            # These test the class or the shape of a placeholder. Patterns of constants compare with
            # ==, which can be traced.
            if name.startswith("MATCH_"):
                raise Unsupported("match in a function cannot be traced", hint=EXPRESSION_HINT)
            is_builtin = name in _LOADS_GLOBAL and instruction.argval in _BLIND_BUILTINS
            if is_builtin or instruction.argval == "__class__":
                raise Unsupported(
                    f"{instruction.argval} in a function cannot be traced: it would inspect a "
                    "placeholder instead of the value",
                    hint=EXPRESSION_HINT,
                )


def _codes(fn: Any, seen: set[CodeType]) -> Iterator[CodeType]:
    """Yield the code of a function, of functions inside it, and of Python functions it names."""
    while not isinstance(fn, FunctionType):
        if isinstance(fn, MethodType):
            fn = fn.__func__
        elif hasattr(fn, "func"):  # functools.partial
            fn = fn.func
        elif isinstance(vars(type(fn)).get("__call__"), FunctionType):
            fn = vars(type(fn))["__call__"]
        else:
            return  # built in: it can only use the placeholders' operators
    # Recursion ends here. Our own functions are written to work with placeholders.
    if fn.__code__ in seen or (fn.__module__ or "").split(".")[0] in ("elytra", "emsqrt"):
        return
    pending = [fn.__code__]
    while pending:
        code = pending.pop()
        seen.add(code)
        yield code
        # Lambdas, comprehensions and functions inside of this one are constants of its code.
        pending += [const for const in code.co_consts if isinstance(const, CodeType)]
        for named in _named(fn, code):
            yield from _codes(named, seen)


def _named(fn: FunctionType, code: CodeType) -> Iterator[Any]:
    cells = (cell.cell_contents for cell in fn.__closure__ or () if _is_filled(cell))
    loaded = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in _LOADS_GLOBAL
    }
    candidates = [*cells, *(fn.__globals__.get(name) for name in loaded)]
    for found in candidates:
        if isinstance(found, ModuleType) and found is not builtins:
            # Functions called as `module.name`: any name of the code that the module has, which may
            # be too many but misses none.
            members = (getattr(found, name, None) for name in code.co_names)
            yield from (member for member in members if isinstance(member, FunctionType))
        elif isinstance(found, FunctionType | MethodType):
            yield found


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # an empty cell raises
    except ValueError:
        return False
    return True


def _run(fn: Callable[[Any], object], schema: Schema, shape: Shape) -> tuple[Trace, object]:
    trace = Trace(schema)
    return trace, call_traced(trace, fn, placeholder_row(trace, shape))


def _returned(trace: Trace, returned: object) -> Traced:
    if isinstance(returned, Mapping):
        columns = []
        for name, value in returned.items():
            if not isinstance(name, str):
                raise trace.refuse(f"a dict's keys are the names of columns, not {name!r}")
            columns.append((name, _single(trace, value)))
        if columns:
            return Traced("row", tuple(columns))
    elif isinstance(returned, tuple):
        if returned:
            values = enumerate(returned)
            return Traced("tuple", tuple((f"_{at}", _single(trace, each)) for at, each in values))
    else:
        # A column that is passed through keeps its name.
        expr = _single(trace, returned)
        return Traced("value", ((expr.name if isinstance(expr, Column) else "value", expr),))
    raise trace.refuse("a function returned an empty row")


def _single(trace: Trace, returned: object) -> Expr:
    if isinstance(returned, Value):
        # As a value, a comparison must be True or False in each row as in Python, never NULL.
        return returned.sennit_term.definite
    if isinstance(returned, Expr | Agg):
        return returned
    if isinstance(returned, CONSTANTS):
        return trace.constant(returned).expr
    raise trace.refuse(
        f"a function returned {type(returned).__name__}, which is not traced",
        "return a value, a tuple of values, or a dict of names and values",
    )


def _stable(fn: Callable[..., object], read: Callable[[], Traced]) -> Traced:
    """Trace a function twice: random numbers and counters would become constants."""
    first, second = read(), read()
    is_same = [name for name, _ in first.columns] == [name for name, _ in second.columns] and all(
        same(mine, other)
        for (_, mine), (_, other) in zip(first.columns, second.columns, strict=True)
    )
    if not is_same:
        raise Unsupported(
            f"{getattr(fn, '__name__', 'this function')} builds another expression at each call",
            hint="a traced function runs once, not once per row: random numbers, clocks and "
            "counters cannot be traced",
        )
    return first
