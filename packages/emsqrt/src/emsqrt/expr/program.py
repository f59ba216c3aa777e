"""Compile small expressions to programs for the kernel, which both tiers filter and compute with.

`compile_program` supports comparisons, three-valued logic, lists, ranges, `+ - *`, division, CASE,
COALESCE, NULLIF, and the simple forms of LIKE, over columns of booleans, numbers, decimals, text,
dates and timestamps; for anything else it returns None. The layouts are those of
`_kernel/program.h`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

from emsqrt.expr.check import bind
from emsqrt.expr.errors import ValueOutOfRange
from emsqrt.expr.fold import fold
from emsqrt.expr.literals import integer_range
from emsqrt.expr.nodes import Expr
from emsqrt.expr.rules import widens
from emsqrt.expr.typed import Typed
from sennit_core.schema import DataType, Schema

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt._kernel import Columns

BOOL, I64, U64, F64, DECIMAL, TEXT = range(6)
_OPS = (
    *("column", "constant", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "is_null"),
    *("is_nan", "is_in", "add", "sub", "mul", "div", "neg", "abs", "to_u64", "to_f64"),
    *("to_decimal", "rescale", "starts", "ends", "contains", "choose"),
)
_CODES = {name: code for code, name in enumerate(_OPS)}
_INSTRUCTION, _CONSTANT = struct.Struct("<BBH"), struct.Struct("<BBHIQ16s")
_LANES = {
    "Bool": BOOL,
    **dict.fromkeys(("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32"), I64),
    "UInt64": U64,
    **dict.fromkeys(("Float32", "Float64"), F64),
    "Decimal": DECIMAL,
    "Utf8": TEXT,
    **dict.fromkeys(("Date", "Timestamp"), I64),
}
_RESULTS = ("Bool", "Int64", "UInt64", "Float64", "Decimal")
"""Types of results that a program can write: those whose lane has the type's own layout."""
_EXACT = Context(prec=80)
_DECIMAL_END = 10**38
LENGTH_MAX, CONSTANTS_MAX, DEPTH_MAX = 4096, 4096, 60
_STEPS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class _NotCompilable(Exception):
    """The expression cannot be compiled to a kernel program."""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression.

    Args:
        code: instructions of four bytes.
        constants: entries of 32 bytes, followed by their texts.
        constant_count: the number of entries.
        columns: the columns it reads, in the order of their numbers.
        type: the result's type.
        blames: what an instruction computes, as (text of the expression, type, operation), for
            errors; by the instruction's number.
    """

    code: bytes
    constants: bytes
    constant_count: int
    columns: tuple[str, ...]
    type: DataType
    blames: dict[int, tuple[str, str, str]] = field(default_factory=dict)

    def open(self, memory: Buffer) -> OpenProgram:
        """Return the program ready to run in `memory`, of which 64 KiB is plenty."""
        return OpenProgram(self, memory)


class OpenProgram:
    """A program with its memory; it accepts `Columns` made of `Program.columns`, in that order."""

    def __init__(self, program: Program, memory: Buffer) -> None:
        from emsqrt._kernel import ExprProgram

        self.program = program
        self._native = ExprProgram(program.code, program.constants, program.constant_count, memory)

    def run(self, columns: Columns, start: int, values: Buffer, validity: Buffer) -> int:
        """Write the values of all rows from `start` on as Arrow buffers; return how many.

        Raises:
            ValueOutOfRange: a row's expression has no value; names the operands.
        """
        rows, fault = self._native.run(columns, start, values, validity)
        self._raise(fault)
        return rows

    def select(self, columns: Columns, start: int, chosen: Buffer) -> tuple[int, int]:
        """Write the indexes of the rows for which a condition is true, as u32.

        Args:
            columns: the batch.
            start: the first row to evaluate.
            chosen: receives the indexes; when it is full, call again from where this stopped.

        Returns:
            how many rows were evaluated, and how many of them were chosen.

        Raises:
            ValueOutOfRange: a row's expression has no value; names the operands.
        """
        rows, selected, fault = self._native.select(columns, start, chosen)
        self._raise(fault)
        return rows, selected

    def _raise(self, fault: tuple[int, int, int | None, int | None] | None) -> None:
        if fault is None:
            return
        _, instruction, left, right = fault
        text, kind, op = self.program.blames[instruction]
        operands = (left,) if op in ("neg", "abs") else (left, right)
        shown = "…" if left is None else ", ".join(map(str, operands))
        raise ValueOutOfRange(text, f"no {kind} holds {op}({shown}): overflow")


def compile_program(expr: Expr, schema: Schema, *, eager: bool = False) -> Program | None:
    """Return `expr` over rows of `schema` as a program, None when it cannot be compiled.

    Args:
        expr: the expression.
        schema: the columns that it may read.
        eager: whether operands that may fail are evaluated even for rows that do not need them. A
            failure then does not mean that the expression fails.

    Raises:
        UnknownColumn, TypeMismatch, Unsupported, UsageError: as `emsqrt.expr.check.bind`.
    """
    typed = bind(fold(expr), schema)
    compiler = _Compiler(eager=eager)
    try:
        if typed.type.name not in _RESULTS:
            raise _NotCompilable
        compiler.emit(typed)
        return compiler.finish(typed.type)
    except _NotCompilable:
        return None


class _Compiler:
    def __init__(self, *, eager: bool) -> None:
        self._eager = eager
        self.code: list[tuple[str, int, int]] = []
        self.constants: list[tuple[int, Any]] = []
        self.columns: list[str] = []
        self.blames: dict[int, tuple[str, str, str]] = {}
        self.depth = 0

    def finish(self, kind: DataType) -> Program:
        if len(self.code) > LENGTH_MAX or len(self.constants) > CONSTANTS_MAX:
            raise _NotCompilable
        code = b"".join(_INSTRUCTION.pack(_CODES[op], lane, arg) for op, lane, arg in self.code)
        entries, texts = [], b""
        base = len(self.constants) * _CONSTANT.size
        for lane, value in self.constants:
            payload, offset, size = b"", 0, 0
            if lane == TEXT and value is not None:
                encoded = value.encode("utf-8")
                offset, size = base + len(texts), len(encoded)
                texts += encoded
            elif value is not None:
                payload = _payload(lane, value)
            entries.append(_CONSTANT.pack(lane, value is not None, 0, size, offset, payload))
        return Program(
            code,
            b"".join(entries) + texts,
            len(self.constants),
            tuple(self.columns),
            kind,
            self.blames,
        )

    def put(self, op: str, lane: int, arg: int = 0) -> None:
        self.code.append((op, lane, arg))

    def rescale(self, more: int) -> None:
        """Increase the scale of the last pushed decimal; a constant is rescaled at once."""
        op, lane, at = self.code[-1]
        value = self.constants[at][1] if op == "constant" else None
        if value is not None and abs(value) * 10**more < _DECIMAL_END:
            self.constants[at] = (lane, value * 10**more)
        else:
            self.put("rescale", DECIMAL, more)

    def refuse_fallible(self, args: Iterable[Typed]) -> None:
        """Refuse operands that may fail and must not be evaluated for all rows, unless eager."""
        if not self._eager and any(arg.fallible for arg in args):
            raise _NotCompilable

    def constant(self, lane: int, value: Any) -> int:
        self.constants.append((lane, value))
        return len(self.constants) - 1

    def emit(self, typed: Typed) -> None:
        """Add the instructions that push the value of `typed`."""
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise _NotCompilable
        form = _FORMS.get(typed.op)
        if form is None:
            raise _NotCompilable
        form(self, typed)
        self.depth -= 1


def _payload(lane: int, value: Any) -> bytes:
    if lane == BOOL:
        return bytes([value])
    if lane == F64:
        return struct.pack("<d", value)
    return int(value).to_bytes(16, "little", signed=True)


def lane_of(kind: DataType) -> int:
    """Return the lane of a type; refuse one that has none."""
    if kind.name not in _LANES:
        raise _NotCompilable
    return _LANES[kind.name]


def _plain(value: Any, kind: DataType) -> Any:
    """Return a constant in its lane's representation."""
    if value is None or kind.name in ("Bool", "Utf8"):
        return value
    match value:
        case Decimal():
            return int(value.scaleb(kind.scale or 0, _EXACT))
        case datetime():
            since = value.replace(tzinfo=None) - datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC
            micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
            return micros * _STEPS[kind.unit or "us"] // 1_000_000
        case date():
            return value.toordinal() - date(1970, 1, 1).toordinal()
    return value


def _column(c: _Compiler, typed: Typed) -> None:
    if typed.value not in c.columns:
        c.columns.append(typed.value)
    c.put("column", lane_of(typed.type), c.columns.index(typed.value))


def _literal(c: _Compiler, typed: Typed) -> None:
    lane = lane_of(typed.type)
    c.put("constant", lane, c.constant(lane, _plain(typed.value, typed.type)))


def _compare(c: _Compiler, typed: Typed) -> None:
    left, right = typed.args
    _comparable(left.type, right.type)
    c.emit(left)
    c.emit(right)
    c.put(typed.op, lane_of(left.type))


def _comparable(left: DataType, right: DataType) -> None:
    if left != right:
        raise _NotCompilable


def _between(c: _Compiler, typed: Typed) -> None:
    value, low, high = typed.args
    _compare(c, Typed("le", typed.type, (low, value)))
    _compare(c, Typed("le", typed.type, (value, high)))
    c.put("and", BOOL)


def _is_in(c: _Compiler, typed: Typed) -> None:
    value, *others = typed.args
    constants = [_constant(other) for other in others]
    if any(other.op != "literal" for other in constants) or len(others) > 1_000:
        raise _NotCompilable
    lane = lane_of(value.type)
    c.emit(value)
    head = c.constant(I64, len(others))
    for other in constants:
        _comparable(value.type, other.type)
        c.constant(lane, _plain(other.value, other.type))
    c.put("is_in", lane, head)


def _constant(typed: Typed) -> Typed:
    """Return a constant that is only cast to a wider type as a constant of that type."""
    if typed.op != "cast" or typed.args[0].op != "literal":
        return typed
    (arg,), target = typed.args, typed.type
    if arg.type.name == target.name == "Decimal" and widens(arg.type, target):
        return Typed("literal", target, value=arg.value)
    return _retyped(arg, target) if arg.type.is_integer else typed


def _logic(c: _Compiler, typed: Typed) -> None:
    """Evaluate all operands for all rows, which is allowed only if they cannot fail."""
    first, *rest = typed.args
    c.refuse_fallible(rest)
    c.emit(first)
    for arg in rest:
        c.emit(arg)
        c.put(typed.op, BOOL)


def _case(c: _Compiler, typed: Typed) -> None:
    """Evaluate all branches for all rows, which is allowed only if they cannot fail."""
    c.refuse_fallible(typed.args[1:])
    *pairs, default = typed.args
    for arg in pairs:
        c.emit(arg)
    c.emit(default)
    for _ in pairs[::2]:
        c.put("choose", lane_of(typed.type))


def _coalesce(c: _Compiler, typed: Typed) -> None:
    c.refuse_fallible(typed.args)
    lane = lane_of(typed.type)
    *first, last = typed.args
    for arg in first:
        c.emit(arg)
        c.put("is_null", lane)
        c.put("not", BOOL)
        c.emit(arg)
    c.emit(last)
    for _ in first:
        c.put("choose", lane)


def _nullif(c: _Compiler, typed: Typed) -> None:
    c.refuse_fallible(typed.args)
    value, other = typed.args
    lane = lane_of(typed.type)
    _compare(c, Typed("eq", typed.type, (value, other)))
    c.put("constant", lane, c.constant(lane, None))
    c.emit(value)
    c.put("choose", lane)


def _one(op: str) -> Callable[[_Compiler, Typed], None]:
    def form(c: _Compiler, typed: Typed) -> None:
        (arg,) = typed.args
        c.emit(arg)
        c.put(op, lane_of(arg.type))

    return form


def _arithmetic(c: _Compiler, typed: Typed) -> None:
    kind = typed.type
    lane, scale = lane_of(kind), 0
    if kind.name == "Decimal" and typed.op != "mul":
        scale = max(arg.type.scale or 0 for arg in typed.args)
    for arg in typed.args:
        c.emit(arg)
        if kind.name == "Decimal" and typed.op != "mul" and (arg.type.scale or 0) < scale:
            _blame(c, typed)
            c.rescale(scale - (arg.type.scale or 0))
    _blame(c, typed)
    c.put(typed.op, lane, kind.precision or 0)


def _blame(c: _Compiler, typed: Typed) -> None:
    c.blames[len(c.code)] = (str(typed.source), str(typed.type), typed.op)


def _negated(c: _Compiler, typed: Typed) -> None:
    (arg,) = typed.args
    c.emit(arg)
    if typed.type.name == "UInt64":
        return  # abs of a type without negative values
    _blame(c, typed)
    c.put(typed.op, lane_of(typed.type))


def _quotient(c: _Compiler, typed: Typed) -> None:
    for arg in typed.args:
        c.emit(arg)
    c.put("div", F64)


def _cast(c: _Compiler, typed: Typed) -> None:
    (arg,) = typed.args
    source, target = arg.type, typed.type
    if arg.op == "literal" and source.is_integer:
        _literal(c, _retyped(arg, target))
        return
    if not (widens(source, target) and source.is_numeric and target.is_numeric):
        raise _NotCompilable
    c.emit(arg)
    if target.name == "Decimal":
        _to_decimal(c, source, target)
    elif target.name == "UInt64" and lane_of(source) == I64:
        c.put("to_u64", I64)
    elif target.is_float and (source.is_integer or source.name == "Decimal"):
        _to_float(c, source, target)
    elif source.name == "Decimal":
        raise _NotCompilable


def _to_decimal(c: _Compiler, source: DataType, target: DataType) -> None:
    more = (target.scale or 0) - (source.scale or 0)
    if source.is_integer and more <= 18:
        c.put("to_decimal", lane_of(source), more)
    elif source.name != "Decimal":
        raise _NotCompilable
    elif more:
        c.rescale(more)


def _to_float(c: _Compiler, source: DataType, target: DataType) -> None:
    scale = source.scale or 0
    if target.name == "Float32" or scale < 0:
        raise _NotCompilable
    c.put("to_f64", lane_of(source), scale)


def _retyped(arg: Typed, target: DataType) -> Typed:
    """Return an integer constant as a constant of another type of numbers."""
    if arg.value is None:
        return Typed("literal", target)
    if target.is_integer:
        low, high = integer_range(target)
        if low <= arg.value <= high:
            return Typed("literal", target, value=arg.value)
    if target.name == "Float64":
        return Typed("literal", target, value=float(arg.value))
    if target.name == "Decimal" and widens(arg.type, target):
        return Typed("literal", target, value=Decimal(arg.value))
    raise _NotCompilable


def _part(op: str) -> Callable[[_Compiler, Typed], None]:
    def form(c: _Compiler, typed: Typed) -> None:
        for arg in typed.args:
            c.emit(arg)
        c.put(op, TEXT)

    return form


def _like(c: _Compiler, typed: Typed) -> None:
    """Patterns with `%` only at their ends."""
    text, pattern = typed.args
    wanted = pattern.value
    if wanted is None or "_" in wanted or "%" in wanted.strip("%") or not wanted.strip("%"):
        raise _NotCompilable
    c.emit(text)
    c.put("constant", TEXT, c.constant(TEXT, wanted.strip("%")))
    opens, closes = wanted.startswith("%"), wanted.endswith("%")
    c.put({(0, 0): "eq", (0, 1): "starts", (1, 0): "ends"}.get((opens, closes), "contains"), TEXT)


_FORMS: dict[str, Callable[[_Compiler, Typed], None]] = {
    "column": _column,
    "literal": _literal,
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _compare),
    "between": _between,
    "is_in": _is_in,
    "case": _case,
    "coalesce": _coalesce,
    "nullif": _nullif,
    "and": _logic,
    "or": _logic,
    "not": _one("not"),
    "is_null": _one("is_null"),
    "is_nan": _one("is_nan"),
    **dict.fromkeys(("add", "sub", "mul"), _arithmetic),
    **dict.fromkeys(("neg", "abs"), _negated),
    "div": _quotient,
    "cast": _cast,
    "starts_with": _part("starts"),
    "ends_with": _part("ends"),
    "contains": _part("contains"),
    "like": _like,
}
