"""Typing rules of functions of text, lists and structs."""

from __future__ import annotations

from emsqrt.expr.nodes import Call
from emsqrt.expr.typed import (
    BOOL,
    INT64,
    UTF8,
    Bound,
    Rule,
    Typed,
    expect,
    literal_int,
    literal_text,
    mismatch,
    require_literals,
)
from sennit_core.errors import UsageError

CHARS_MAX = 65_536
"""Most code points that one call of repeat, lpad or rpad may produce per value."""


def _text(expr: Call, args: tuple[Typed, ...]) -> Bound:
    operands = tuple(expect(expr, arg, "Utf8") for arg in args)
    if expr.fn == "replace":
        require_literals(expr, operands[1:])
    return UTF8, operands


def _text_slice(expr: Call, args: tuple[Typed, ...]) -> Bound:
    text, *bounds = args
    start, *length = [literal_int(expr, bound) for bound in bounds]
    if start == 0 or any(count < 0 for count in length):
        raise UsageError(f"substr counts from 1, or from the end by -1, in `{expr!s}`")
    return UTF8, (expect(expr, text, "Utf8"), *bounds)


def _text_to_int(expr: Call, args: tuple[Typed, ...]) -> Bound:
    operands = tuple(expect(expr, arg, "Utf8") for arg in args)
    require_literals(expr, operands[1:])
    return INT64, operands


def _text_trim(expr: Call, args: tuple[Typed, ...]) -> Bound:
    text, *chars = (expect(expr, arg, "Utf8") for arg in args)
    require_literals(expr, tuple(chars))
    return UTF8, (text, *chars)


def _text_count(expr: Call, args: tuple[Typed, ...]) -> Bound:
    text, count = args
    _bounded(expr, literal_int(expr, count), -CHARS_MAX if expr.fn != "repeat" else 0)
    return UTF8, (expect(expr, text, "Utf8"), count)


def _text_pad(expr: Call, args: tuple[Typed, ...]) -> Bound:
    text, count, *fill = args
    _bounded(expr, literal_int(expr, count), 0)
    for each in fill:
        _not_empty(expr, each)
    return UTF8, (expect(expr, text, "Utf8"), count, *fill)


def _text_split(expr: Call, args: tuple[Typed, ...]) -> Bound:
    text, separator, index = args
    _not_empty(expr, separator)
    if literal_int(expr, index) == 0:
        raise UsageError(f"split_part counts from 1, or from the end by -1, in `{expr!s}`")
    return UTF8, (expect(expr, text, "Utf8"), separator, index)


def _text_pattern(expr: Call, args: tuple[Typed, ...]) -> Bound:
    operands = tuple(expect(expr, arg, "Utf8") for arg in args)
    require_literals(expr, operands[1:])
    if len(operands) == 4 and operands[3].value != "g":
        raise UsageError(f"the only option of regexp_replace is 'g', for all, in `{expr!s}`")
    return UTF8, operands


def _bounded(expr: Call, count: int, least: int) -> None:
    if not least <= count <= CHARS_MAX:
        raise UsageError(f"{expr.fn} takes {least} to {CHARS_MAX}, not {count}, in `{expr!s}`")


def _not_empty(expr: Call, arg: Typed) -> None:
    if not literal_text(expr, arg):
        raise UsageError(f"{expr.fn} needs a text that is not empty there, in `{expr!s}`")


def _list_get(expr: Call, args: tuple[Typed, ...]) -> Bound:
    items, index = args
    if items.type.item is None:
        mismatch(expr, (items,), "list_get takes a List, found")
    if literal_int(expr, index) == 0:
        raise UsageError(f"list_get counts from 1, or from the end by -1, in `{expr!s}`")
    return items.type.item, args


def _struct_get(expr: Call, args: tuple[Typed, ...]) -> Bound:
    record, name = args
    if record.type.name != "Struct":
        mismatch(expr, (record,), "struct_get takes a Struct, found")
    wanted = literal_text(expr, name)
    for field in record.type.fields:
        if field.name == wanted:
            return field.type, args
    known = ", ".join(field.name for field in record.type.fields)
    raise UsageError(f"{record.source!s} has no field {wanted!r}, only {known}, in `{expr!s}`")


def _text_to_bool(expr: Call, args: tuple[Typed, ...]) -> Bound:
    text, part = (expect(expr, arg, "Utf8") for arg in args)
    require_literals(expr, (part,))
    return BOOL, (text, part)


RULES: dict[str, Rule] = {
    "text": _text,
    "text_slice": _text_slice,
    "text_to_int": _text_to_int,
    "text_to_bool": _text_to_bool,
    "text_trim": _text_trim,
    "text_count": _text_count,
    "text_pad": _text_pad,
    "text_split": _text_split,
    "text_pattern": _text_pattern,
    "list_get": _list_get,
    "struct_get": _struct_get,
}
