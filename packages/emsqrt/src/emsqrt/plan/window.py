"""Window functions of plans, their frames and their types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOf
from typing import TypeAlias

from emsqrt.expr import Agg, Expr, Literal, SortKey, TypeMismatch, ValueOutOfRange, infer
from emsqrt.expr.literals import make_literal
from emsqrt.expr.nodes import Value
from emsqrt.expr.nodes import call as function
from emsqrt.plan.nodes import Plan
from emsqrt.plan.states import result_type, state_fields
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType, Schema

FrameUnit: TypeAlias = OneOf["rows", "range"]
FRAME_UNITS: tuple[FrameUnit, ...] = ("rows", "range")

RANKING = ("row_number", "rank", "dense_rank", "ntile")
"""These have no argument and no frame; `ntile` has the number of tiles."""
SHIFTING = ("lag", "lead")
"""These have an argument, an offset (1) and a default for a missing row (NULL)."""
FRAMED = ("first_value", "last_value", "count", "sum", "avg", "min", "max")
"""These are computed over a frame."""
WINDOW_FUNCTIONS = (*RANKING, *SHIFTING, *FRAMED)


@dataclass(frozen=True, slots=True)
class Frame:
    """The rows that a framed function is computed over, relative to the current row.

    Args:
        unit: "rows" counts rows; "range" refers to the value of the single order key, and the
            current row then includes all of its peers.
        start: -2 is two before, 0 the current row, 2 two after; None is the partition's start.
        end: the same; None is the partition's end.
    """

    unit: FrameUnit = "rows"
    start: int | None = None
    end: int | None = None

    def __str__(self) -> str:
        low, high = _bound(self.start, "preceding"), _bound(self.end, "following")
        return f"{self.unit} between {low} and {high}"


WHOLE = Frame("rows")
"""All rows of the partition: SQL's default frame without an order."""
RUNNING = Frame("range", None, 0)
"""Up to the current row and its peers: SQL's default frame with an order."""


@dataclass(frozen=True, slots=True, eq=False)
class WindowCall:
    """A window function: `fn` of `WINDOW_FUNCTIONS`.

    Args:
        fn: its name.
        arg: its argument; None for the ranking functions and for count(*).
        params: further constants: ntile(tiles), lag and lead(offset, default).
        frame: for the framed functions; None is the default frame of SQL.
    """

    fn: str
    arg: Expr | None = None
    params: tuple[Literal, ...] = ()
    frame: Frame | None = None

    def frame_in(self, order_by: tuple[SortKey, ...]) -> Frame:
        """Return the effective frame: its own, else SQL's default."""
        return self.frame or (RUNNING if order_by else WHOLE)

    @property
    def number(self) -> int:
        """The tiles of ntile, or the offset of lag and lead."""
        value = self.params[0].value if self.params else 1
        assert isinstance(value, int), "checked by window_type"
        return value

    @property
    def default(self) -> Literal | None:
        """The default of lag and lead for a missing row; None for NULL."""
        return self.params[1] if len(self.params) > 1 else None

    def __str__(self) -> str:
        star = "*" if self.fn == "count" and self.arg is None else ""
        arg = [str(self.arg)] if self.arg is not None else [star] if star else []
        return f"{self.fn}({', '.join([*arg, *map(str, self.params)])})"


@dataclass(frozen=True, slots=True, eq=False)
class Window(Plan):
    """Add columns computed over the other rows of a row's partition.

    The output is sorted by partition, order, and input order. NULLs form one partition, which comes
    last.
    """

    input: Plan
    partition_by: tuple[Expr, ...]
    order_by: tuple[SortKey, ...]
    functions: tuple[tuple[str, WindowCall], ...]


def window_type(call: WindowCall, order_by: tuple[SortKey, ...], schema: Schema) -> DataType:
    """Return the type of a window function over rows of `schema`.

    Raises:
        UsageError: an argument, parameter or frame that the function does not accept.
        TypeMismatch: an argument of a type that it does not accept.
    """
    if call.fn not in WINDOW_FUNCTIONS:
        raise UsageError(
            f"{call.fn} is not a window function", hint=f"there are {', '.join(WINDOW_FUNCTIONS)}"
        )
    _check_arguments(call)
    if call.frame is not None:
        _check_frame(call, call.frame, order_by, schema)
    if call.fn in RANKING:
        return DataType("Int64")
    if call.arg is None:
        return DataType("Int64")
    kind = infer(call.arg, schema)
    if call.fn in ("count", "sum", "avg", "min", "max"):
        agg = Agg(call.fn, call.arg)
        return result_type(agg, state_fields("value", agg, kind))
    shifted_default(call, kind)
    return kind


def _check_arguments(call: WindowCall) -> None:
    params_max = 1 if call.fn == "ntile" else 2 if call.fn in SHIFTING else 0
    if len(call.params) > params_max or (call.fn == "ntile" and not call.params):
        raise UsageError(f"{call!s} takes {params_max} constant(s), not {len(call.params)}")
    if call.fn in RANKING and call.arg is not None:
        raise UsageError(f"{call.fn} has no argument, so {call!s} is invalid")
    if call.fn not in (*RANKING, "count") and call.arg is None:
        raise UsageError(f"{call.fn} needs an argument", hint=f"such as {call.fn}(amount)")
    least = 1 if call.fn == "ntile" else 0
    if call.params and not _is_count(call.params[0].value, least):
        raise UsageError(f"{call!s}: {call.params[0]!s} is not a number of rows from {least}")
    if call.frame is not None and call.fn not in FRAMED:
        raise UsageError(f"{call.fn} has no frame", hint=f"these do: {', '.join(FRAMED)}")


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def shifted_default(call: WindowCall, kind: DataType) -> Value | None:
    """Return the default of lag or lead as a value of type `kind`.

    Raises:
        TypeMismatch: its type cannot be converted to `kind`.
        ValueOutOfRange: a number that a Decimal of `kind` cannot hold.
    """
    default = call.default
    if default is None or default.value is None:
        return None
    assert default.type is not None, "only NULL has no type"
    if kind.name == "Decimal" and (default.type.is_integer or default.type.name == "Decimal"):
        try:
            return make_literal(default.value, kind).value
        except UsageError:
            raise ValueOutOfRange(str(call), f"{default!s} is not a {kind}") from None
    joined = infer(function("coalesce", Literal(None, kind), default), Schema(()))
    if joined != kind:
        reason = f"{call.fn} of {kind} cannot return {default!s} ({default.type})"
        raise TypeMismatch(str(call), (str(kind), str(default.type)), reason)
    return default.value


def _check_frame(
    call: WindowCall, frame: Frame, order_by: tuple[SortKey, ...], schema: Schema
) -> None:
    if frame.start is not None and frame.end is not None and frame.start > frame.end:
        raise UsageError(f"{call!s}: the frame {frame!s} ends before it begins")
    offsets = [bound for bound in (frame.start, frame.end) if bound]
    if frame.unit == "rows" or not offsets:
        return
    if len(order_by) != 1:
        raise UsageError(f"{call!s}: {frame!s} needs exactly one order key to count from")
    kind = infer(order_by[0].expr, schema)
    if not kind.is_integer:
        raise Unsupported(f"{call!s}: {frame!s} over an order key of type {kind}; integers do")


def _bound(offset: int | None, side: str) -> str:
    if offset is None:
        return f"unbounded {side}"
    if offset == 0:
        return "current row"
    return f"{abs(offset)} {'preceding' if offset < 0 else 'following'}"
